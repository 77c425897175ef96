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

    @classmethod
    def from_interval(cls, mean: float, ends: Optional[Interval], windows: int) -> Estimate:
        """What a t interval was made from, one end of which may be cut."""
        if ends is None:
            return cls(mean, None, windows)
        half = max(mean - ends[0], ends[1] - mean)
        return cls(mean, half / t_quantile(0.975, windows - 1), windows)

    def ci95(self) -> Optional[Interval]:
        """Student's t interval."""
        if self.standard_error is None:
            return None
        half = self.standard_error * t_quantile(0.975, self.windows - 1)
        return (self.mean - half, self.mean + half)


def share_ci95(share: Estimate) -> Optional[Interval]:
    """The t interval of a share, kept within 0…1."""
    ends = share.ci95()
    if ends is None:
        return None
    return (min(max(ends[0], 0.0), 1.0), min(max(ends[1], 0.0), 1.0))


def positive_ci95(values: Sequence[float]) -> Optional[Interval]:
    """The interval of a mean of figures that are 0 or more and skewed (KL divergences), one a
    window: mean · exp(±t · d) with the deviation d of :func:`positive_log`, never below zero.
    ``None`` too where two windows of very different size say nothing about the mean."""
    ends = positive_log(values).ci95()
    if ends is None:
        return None
    low, high = exp(ends[0]), exp(ends[1])
    return (low, high) if math.isfinite(high) else None


def positive_log(values: Sequence[float]) -> Estimate:
    """The logarithm of a mean of figures that are 0 or more, and the deviation of that.

    The deviation is the larger of Cox's of a log-normal mean, √(s²/n + s⁴/2(n−1)) with the
    variance s² of the logarithms, and of standard error over mean, which sees outliers that
    logarithms make small. Where a window has exactly zero it is the second alone; all zero are
    zero for certain.
    """
    plain = Estimate.of(values)
    n, error = len(values), plain.standard_error
    if plain.mean <= 0.0:
        return Estimate(-math.inf, None if error is None else 0.0, n)
    if error is not None:
        error /= plain.mean
        if min(values) > 0.0:
            logs = Estimate.of([math.log(value) for value in values]).standard_error or 0.0
            variance = logs**2 * n
            error = max(error, math.sqrt(variance / n + variance**2 / (2 * (n - 1))))
    return Estimate(math.log(plain.mean), error, n)


def quantile(ordered: Sequence[float], p: float) -> float:
    """Of sorted values, linear between order statistics (type 7, numpy's default)."""
    at = p * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@cache
def t_quantile(p: float, df: int) -> float:
    """Student's t: the value that the share ``p`` of the distribution lies below, half of it at
    least. ``df`` at least 1."""
    upper = 1.0
    while _t_below(upper, df) < p:
        upper *= 2.0
    return _bisect(lambda t: _t_below(t, df) - p, 0.0, upper)


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
