"""Intervals and verdicts as docs/statistics.md describes them, from their definitions and the
standard library: an outside witness of ``kvgauge figures``. Every value is one window's."""

from __future__ import annotations

import math
import statistics
from functools import lru_cache
from typing import Dict, List, Optional, Sequence, Tuple

Interval = Tuple[float, float]
#: From good to bad.
VERDICTS = ("pass", "inconclusive", "fail")


@lru_cache(maxsize=None)
def t_quantile(p: float, df: int) -> float:
    """Student's t quantile, p above one half. By bisection of the distribution's finite sum for
    whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4), or expanded where that sum
    is long."""
    if df > 300:
        return expanded_t_quantile(p, df)
    low, high = 0.0, 1000.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, df) < p else (low, middle)
    return (low + high) / 2


def expanded_t_quantile(p: float, df: int) -> float:
    """Around the normal quantile (26.7.5): for df of hundreds."""
    z = statistics.NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / df + second / df**2 + third / df**3


def _t_below(t: float, df: int) -> float:
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    # 1 + cos²·1/2 + cos⁴·1·3/(2·4) + …, or the same of cos with 2/3, 2·4/(3·5), …
    term, total = cosine if odd else 1.0, 0.0
    for k in range(1 + odd, df, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    if odd:
        return 0.5 + (angle + sine * total) / math.pi
    return 0.5 + 0.5 * sine * total


def standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def mean_interval(values: Sequence[float]) -> Optional[Interval]:
    """Student's t interval of a mean, 95 %."""
    if len(values) < 2:
        return None
    mean, half = statistics.fmean(values), standard_error(values)
    half *= t_quantile(0.975, len(values) - 1)
    return mean - half, mean + half


def kld_deviation(values: Sequence[float]) -> float:
    """Standard error of the logarithm of a mean KL divergence: Cox's of a log-normal mean, or the
    mean's own relative error where that is larger; the latter alone where a window has none."""
    n, mean = len(values), statistics.fmean(values)
    relative = standard_error(values) / mean if mean > 0 else 0.0
    if min(values) <= 0:
        return relative
    variance = statistics.variance([math.log(value) for value in values])
    return max(relative, math.sqrt(variance / n + variance**2 / (2 * (n - 1))))


def kld_interval(values: Sequence[float]) -> Optional[Interval]:
    """Symmetric on the scale of logarithms."""
    if len(values) < 2:
        return None
    mean = statistics.fmean(values)
    factor = math.exp(t_quantile(0.975, len(values) - 1) * kld_deviation(values))
    return mean / factor, mean * factor


def verdict(interval: Optional[Interval], least: float, most: float) -> str:
    if interval is None:
        return "inconclusive"
    if least <= interval[0] and interval[1] <= most:
        return "pass"
    return "fail" if interval[0] > most or interval[1] < least else "inconclusive"


def windows_needed(
    distance: float, deviation: float, windows: int
) -> Optional[Tuple[int, List[Optional[int]]]]:
    """How many windows settle a verdict whose limit is ``distance`` from the mean, which has the
    standard error ``deviation``, and the ends of that number's 80 % interval."""
    if windows < 8:
        return None
    z = distance / deviation
    df = windows - 1
    half = t_quantile(0.9, df) * math.sqrt(1 + z**2 / (2 * df))
    needed, least = _settled_at(z, windows), _settled_at(z + half, windows)
    if needed is None or least is None:
        return None
    return needed, [least, _settled_at(z - half, windows)]


def _settled_at(z: float, windows: int) -> Optional[int]:
    """The first number of windows beyond these whose interval is narrower than the distance."""
    if z <= 0:
        return None
    # Not one by one: t(n−1)/√n falls with n.
    n, step = windows, 1 << 19
    while step:
        t = t_quantile(0.975, n + step - 1)
        if t * math.sqrt(windows / (n + step)) > z:
            n += step
        step //= 2
    return n + 1 if n < 1_000_000 else None


def judgement(
    log_ratios: Sequence[float],
    klds: Sequence[float],
    shares: Sequence[float],
    limits: Dict[str, float],
) -> Dict[str, object]:
    """Keys and values of the verdict in ``codecs``. ``limits``: ``max_ppl_change`` in percent, and
    perhaps ``max_kld`` and ``min_top1``."""
    windows, infinity = len(klds), math.inf
    percent = limits["max_ppl_change"]
    change = mean_interval(log_ratios)
    in_percent = change and (100 * math.expm1(change[0]), 100 * math.expm1(change[1]))
    verdicts = {"perplexity_change": verdict(in_percent, -percent, percent)}
    if "max_kld" in limits:
        verdicts["kld"] = verdict(kld_interval(klds), -infinity, limits["max_kld"])
    if "min_top1" in limits:
        verdicts["top1"] = verdict(mean_interval(shares), limits["min_top1"], infinity)
    worst = max(verdicts.values(), key=VERDICTS.index)
    # (distance to the nearer limit, standard error) of each, where its interval is symmetric.
    distances = {}
    if windows > 1:
        mean = statistics.fmean(log_ratios)
        # No perplexity falls by 100 %.
        ends = [math.log1p(end / 100) for end in (percent, -percent) if end > -100]
        nearer = min(abs(mean - end) for end in ends)
        distances["perplexity_change"] = (nearer, standard_error(log_ratios))
        if "max_kld" in limits:
            log_mean = math.log(statistics.fmean(klds) / limits["max_kld"])
            distances["kld"] = (abs(log_mean), kld_deviation(klds))
        if "min_top1" in limits:
            away = abs(statistics.fmean(shares) - limits["min_top1"])
            distances["top1"] = (away, standard_error(shares))
    needed: Optional[Tuple[int, List[Optional[int]]]] = None
    if worst == "inconclusive" and windows > 1:
        undecided = [name for name, found in verdicts.items() if found == worst]
        each = [windows_needed(*distances[name], windows) for name in undecided]
        if None not in each:
            needed = max((one for one in each if one is not None), key=lambda one: one[0])
    return {
        "verdict": worst,
        "verdicts": verdicts,
        "windows_needed": needed and needed[0],
        "windows_needed_ci80": needed and needed[1],
    }
