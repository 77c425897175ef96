"""The verdict, by the rule of ``kvgauge``: figures of a codec, with their 95 % intervals, against
the limits that the user set. Standard library only.

A figure passes when its whole interval is within its limit, fails when the whole interval is
outside, and is inconclusive else. The perplexity's limit has two sides: a perplexity that falls
by more than the limit is a changed model, not a better one. The verdict is the worst over all
limits; where nothing was measured that could be judged it is invalid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ._statistics import Estimate, positive_log, t_quantile

#: From good to bad.
_ORDER = ("pass", "inconclusive", "fail", "invalid")
#: Fewer windows say too little of their spread to tell how many it takes.
LEAST_WINDOWS_TO_PLAN = 8
#: More windows than this are not worth asking for: the figure is the limit.
_MOST_WINDOWS = 1_000_000
#: Between the ends of an 80 % interval lie the middle four fifths.
_UPPER_OF_80 = 0.9

#: The number of windows that would settle it, and where that lies with 80 % confidence.
Needed = Tuple[int, Tuple[int, Optional[int]]]


@dataclass(frozen=True)
class Limits:
    """What a codec must keep to."""

    #: Largest change of the perplexity, up or down, percent. 0 or more.
    max_ppl_change: float = 1.0
    #: Largest mean KL divergence, nats a token.
    max_kld: Optional[float] = None
    #: Smallest share of targets where both arms rank the same token first, 0…1.
    min_top1: Optional[float] = None


@dataclass(frozen=True)
class Criterion:
    """A figure on the scale on which its interval is symmetric, and the values it may have."""

    estimate: Estimate
    least: float
    most: float

    @classmethod
    def perplexity_change(cls, change: Estimate, percent: float) -> Criterion:
        """``change``: ln of the ratio of perplexities; ``percent``: the largest accepted change."""
        ratio = percent / 100.0
        # Perplexities do not fall by 100 % or more.
        return cls(change, math.log1p(-ratio) if ratio < 1.0 else -math.inf, math.log1p(ratio))

    @classmethod
    def kld(cls, values: Sequence[float], most: float) -> Criterion:
        """``values``: mean KL divergence of each window, nats."""
        return cls(positive_log(values), -math.inf, math.log(most) if most > 0.0 else -math.inf)

    @classmethod
    def top1(cls, share: Estimate, least: float) -> Criterion:
        return cls(share, least, math.inf)

    def verdict(self) -> str:
        ends = self.estimate.ci95()
        if ends is None:
            return "inconclusive"
        low, high = ends
        if low >= self.least and high <= self.most:
            return "pass"
        return "fail" if low > self.most or high < self.least else "inconclusive"

    def windows_needed(self) -> Optional[Needed]:
        """How many windows would settle it. Settled is what has a distance to the nearer limit of
        t(n−1) standard errors; the distance over the standard error, z, has an interval of its
        own, z ± t · √(1 + z²/2(n−1)), whose ends give the number's."""
        windows, error = self.estimate.windows, self.estimate.standard_error
        if windows < LEAST_WINDOWS_TO_PLAN or not error:
            return None
        mean = self.estimate.mean
        z = min(abs(mean - self.least), abs(mean - self.most)) / error
        df = windows - 1
        half = t_quantile(_UPPER_OF_80, df) * math.sqrt(1.0 + z * z / (2.0 * df))
        needed, low = _settled_at(z, windows), _settled_at(z + half, windows)
        if needed is None or low is None:
            return None
        return needed, (low, _settled_at(z - half, windows))


def _settled_at(z: float, windows: int) -> Optional[int]:
    """The smallest number of windows above ``windows`` whose interval no longer reaches a limit
    that is ``z`` standard errors away now: t(n−1)/√n falls with n."""

    def settles(n: int) -> bool:
        return t_quantile(0.975, n - 1) * math.sqrt(windows / n) <= z

    low, high = windows, windows + 1
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


def judge(
    change: Estimate,
    klds: Sequence[float],
    top1: Estimate,
    limits: Limits,
    invalid_because: Optional[str] = None,
) -> Dict[str, Any]:
    """The keys of the verdict in ``codecs``. ``klds``: mean KL divergence of each window."""
    criteria = {"perplexity_change": Criterion.perplexity_change(change, limits.max_ppl_change)}
    if limits.max_kld is not None:
        criteria["kld"] = Criterion.kld(klds, limits.max_kld)
    if limits.min_top1 is not None:
        criteria["top1"] = Criterion.top1(top1, limits.min_top1)
    verdicts = {name: criterion.verdict() for name, criterion in criteria.items()}
    worst = max(verdicts.values(), key=_ORDER.index)
    needed: Optional[Needed] = None
    if invalid_because is not None:
        worst = "invalid"
    elif worst == "inconclusive":
        open_ones = [criteria[name] for name, found in verdicts.items() if found == worst]
        # All that are open must be settled; what cannot be told of one cannot be told of all.
        each = [criterion.windows_needed() for criterion in open_ones]
        known = [one for one in each if one is not None]
        needed = max(known, key=lambda one: one[0]) if len(known) == len(each) else None
    return {
        "verdict": worst,
        **({} if invalid_because is None else {"invalid_because": invalid_because}),
        "verdicts": verdicts,
        "windows_needed": None if needed is None else needed[0],
        "windows_needed_ci80": None if needed is None else list(needed[1]),
    }


def meaningless(perplexity: float, vocab_size: int) -> Optional[str]:
    """Why nothing can be said of a codec beside a baseline of this perplexity; ``None`` where
    something can. A guess among all tokens has a perplexity of the vocabulary's size; the margin
    is for rounding."""
    if perplexity < vocab_size * (1.0 - 1e-6):
        return None
    return (
        f"the baseline's perplexity, {perplexity:.6f}, is not below the vocabulary's size, "
        f"{vocab_size}: the model predicts this text no better than a guess would"
    )


#: What to look at where the baseline itself means nothing.
CHECK = (
    "check that model, tokenizer and text belong together: published weights, their own "
    "tokenizer, and plain text in a language the model knows"
)


def sentence(codec: Mapping[str, Any], windows: int, left: int, limits: Limits) -> str:
    """The verdict and what it rests on. ASCII. ``left``: windows that the text has from the first
    one evaluated on."""
    found = codec["verdict"]
    if found == "pass":
        what = f"the whole interval is within {_words(limits)}"
    elif found == "invalid":
        what = "nothing was measured that a limit could be held against"
    else:
        reasons = _reasons(codec, limits)
        if found == "inconclusive":
            reasons.append(_advice(codec, windows, left))
        what = "; ".join(reasons)
    return f"{found.upper()}: {what}"


def _words(limits: Limits) -> str:
    words = f"+/-{limits.max_ppl_change:g} % perplexity"
    if limits.max_kld is not None:
        words += f", mean KLD at most {limits.max_kld:g}"
    if limits.min_top1 is not None:
        words += f", top-1 at least {100 * limits.min_top1:g} %"
    return words


def _reasons(codec: Mapping[str, Any], limits: Limits) -> List[str]:
    """What has the verdict that the whole has, and why."""
    found, verdicts = codec["verdict"], codec["verdicts"]
    undecided = found == "inconclusive"
    reasons = []
    if verdicts["perplexity_change"] == found:
        limit = f"+/-{limits.max_ppl_change:g} % perplexity"
        if not undecided:
            reasons.append(f"the whole interval is outside {limit}")
        elif codec["perplexity_change_percent_ci95"] is None:
            reasons.append(f"one window has no interval to hold against {limit}")
        else:
            reasons.append(f"a limit of {limit} is inside the interval")
    if verdicts.get("kld") == found and limits.max_kld is not None:
        where = "is inside the interval of the mean KLD"
        reasons.append(
            f"the limit of {limits.max_kld:g} {where}"
            if undecided
            else f"the whole interval of the mean KLD is above {limits.max_kld:g}"
        )
    if verdicts.get("top1") == found and limits.min_top1 is not None:
        least = f"{100 * limits.min_top1:g} %"
        reasons.append(
            f"the limit of {least} is inside the interval of top-1"
            if undecided
            else f"the whole interval of top-1 is below {least}"
        )
    return reasons


def _advice(codec: Mapping[str, Any], windows: int, left: int) -> str:
    """What would settle an open verdict, and what is known already."""
    longer = f"the text has {left}: a longer text or a wider limit settles it"
    needed, among = codec["windows_needed"], codec["windows_needed_ci80"]
    if needed is not None:
        low, high = among
        words = f"{low} or more" if high is None else f"{low} to {high}"
        advice = f"about {needed} windows would settle it (80 % range: {words})"
        if low > left:
            advice += f"; {longer}"
        elif needed > left:
            advice += f"; the text has {left}"
    elif windows >= LEAST_WINDOWS_TO_PLAN:
        advice = "it is too close to its limit to tell"
    elif left < LEAST_WINDOWS_TO_PLAN:
        advice = longer
    else:
        advice = (
            f"use more --windows; from {LEAST_WINDOWS_TO_PLAN} on it can be told how many it takes"
        )
    ends = codec["perplexity_change_percent_ci95"]
    if ends is not None and codec["verdicts"]["perplexity_change"] == "inconclusive":
        # Rounded up, so that it holds.
        passes = math.ceil(10.0 * max(map(abs, ends))) / 10.0
        advice += f"; as it is, a limit of {passes:g} % would pass"
    return advice
