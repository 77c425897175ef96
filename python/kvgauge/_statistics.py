"""Statistics over windows, as ``kvgauge validate`` computes them. Standard library only.

The unit of sampling is a whole window: its tokens share a cache and a topic and are not
independent. All windows score the same number of tokens, so a mean over windows is the mean over
tokens. Every interval is two-sided, 95 %, and ``None`` with fewer than two windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Callable, Optional, Sequence, Tuple

Interval = Tuple[float, float]

#: More windows than this are not worth asking for: the change is the limit.
_MOST_WINDOWS = 1_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean over windows and its standard error."""

    mean: float
    standard_error: Optional[float]
    windows: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """``values``: one figure a window, at least one."""
        n = len(values)
        mean = sum(values) / n
        if n < 2:
            return cls(mean, None, n)
        squares = sum((value - mean) ** 2 for value in values)
        return cls(mean, math.sqrt(squares / (n - 1) / n), n)

    def ci95(self) -> Optional[Interval]:
        """Student's t interval."""
        if self.standard_error is None:
            return None
        half = self.standard_error * t_quantile_975(self.windows - 1)
        return (self.mean - half, self.mean + half)


def share_ci95(share: Estimate) -> Optional[Interval]:
    """The t interval of a share, kept within 0…1."""
    ends = share.ci95()
    if ends is None:
        return None
    return (min(max(ends[0], 0.0), 1.0), min(max(ends[1], 0.0), 1.0))


def positive_ci95(values: Sequence[float]) -> Optional[Interval]:
    """The interval of a mean of positive, skewed figures (KL divergences), one a window.

    Symmetric on the log scale, mean · exp(±t · d): d is the larger of Cox's deviation of a
    log-normal mean, √(s²/n + s⁴/2(n−1)) with the variance s² of the logarithms, and of standard
    error over mean, which sees outliers that logarithms make small. Student's t where a window
    has exactly zero.
    """
    plain = Estimate.of(values)
    if plain.standard_error is None or min(values) <= 0.0:
        return plain.ci95()
    n = len(values)
    logs = Estimate.of([math.log(value) for value in values])
    assert logs.standard_error is not None
    variance = logs.standard_error**2 * n
    cox = math.sqrt(variance / n + variance**2 / (2 * (n - 1)))
    deviation = max(cox, plain.standard_error / plain.mean)
    factor = exp(t_quantile_975(n - 1) * deviation)
    return (plain.mean / factor, plain.mean * factor)


def quantile(ordered: Sequence[float], p: float) -> float:
    """Of sorted values, linear between order statistics (type 7, numpy's default)."""
    at = p * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def verdict(change: Estimate, limit: float) -> Tuple[str, Optional[int]]:
    """``change``: mean log-ratio of perplexities; ``limit``: the highest accepted one.

    ``pass``: the whole interval is at or below the limit; ``fail``: all of it is above;
    ``inconclusive``: the interval holds the limit, with the number of windows that would settle
    it if mean and spread stayed as they are, or ``None`` where no number would.
    """
    ends = change.ci95()
    if ends is None:
        return ("inconclusive", None)
    if ends[1] <= limit:
        return ("pass", None)
    if ends[0] > limit:
        return ("fail", None)
    return ("inconclusive", _windows_needed(change, limit))


def _windows_needed(change: Estimate, limit: float) -> Optional[int]:
    """The smallest n with t(n−1) · s/√n ≤ |mean − limit|: the left side falls with n."""
    assert change.standard_error is not None
    spread = change.standard_error * math.sqrt(change.windows)
    distance = abs(change.mean - limit)

    def settles(n: int) -> bool:
        return t_quantile_975(n - 1) * spread / math.sqrt(n) <= distance

    low = high = change.windows
    while not settles(high):
        low, high = high, 2 * high
        if high > _MOST_WINDOWS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if settles(middle):
            high = middle
        else:
            low = middle
    return high


@cache
def t_quantile_975(df: int) -> float:
    """Student's t: the value that 97.5 % of the distribution lie below. ``df`` at least 1."""
    upper = 1.0
    while _t_below(upper, df) < 0.975:
        upper *= 2.0
    return _bisect(lambda t: _t_below(t, df) - 0.975, 0.0, upper)


def exp(x: float) -> float:
    """e^x, infinite where it does not fit."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def expm1(x: float) -> float:
    """e^x − 1, infinite where it does not fit."""
    try:
        return math.expm1(x)
    except OverflowError:
        return math.inf


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(80):
        middle = 0.5 * (low + high)
        if rising(middle) < 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _t_below(t: float, df: float) -> float:
    """P(T < t) for t ≥ 0."""
    return 1.0 - 0.5 * _incomplete_beta(df / (df + t * t), 0.5 * df, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised I_x(a, b) by its continued fraction (DLMF 8.17.22), which is evaluated from
    the front as a quotient of two recurrences, kept in range by dividing both."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        # The fraction converges fast below this point; the symmetry covers the rest.
        return 1.0 - _incomplete_beta(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x)) / a
    # fraction = 1/(1 + d1/(1 + d2/(1 + …))) = above/below
    above_before, above, below_before, below = 0.0, 1.0, 1.0, 1.0
    fraction = 1.0
    for m in range(1, 500):
        half, odd = divmod(m, 2)
        if odd:
            d = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            d = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        above_before, above = above, above + d * above_before
        below_before, below = below, below + d * below_before
        scale = below
        above_before, above = above_before / scale, above / scale
        below_before, below = below_before / scale, 1.0
        before, fraction = fraction, above
        if abs(fraction - before) <= 1e-16 * abs(fraction):
            break
    return front * fraction
