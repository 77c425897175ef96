"""The result of an evaluation: the object of schema ``kvgauge.validation/1``, and a table.

Keys, units and formulas are those of ``kvgauge validate --json``. Standard library only.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ._statistics import (
    Estimate,
    Interval,
    exp,
    expm1,
    positive_ci95,
    quantile,
    share_ci95,
)
from ._verdict import CHECK, Limits, judge, meaningless, sentence

SCHEMA = "kvgauge.validation/1"
#: A cache is served in f16 or bf16: what ratios compare with.
_SERVED_BITS = 16.0
#: Parts of a window's scored targets that the change of NLL is given for.
_POSITION_BINS = 16


@dataclass(frozen=True)
class TokenScore:
    """A codec's view of one scored target. ``nll``: −ln p(target), nats. ``kld``: KL(base ‖
    codec) over the vocabulary, nats. ``delta_p``: p(target) of the codec minus the baseline's."""

    nll: float
    kld: float
    same_top: bool
    delta_p: float


@dataclass
class DistortionSum:
    """Sums over one tensor or several: Σ x², Σ (x − y)², Σ cos over head vectors."""

    energy: float = 0.0
    error: float = 0.0
    cosine: float = 0.0
    values: int = 0
    vectors: int = 0

    def add(self, other: DistortionSum) -> None:
        self.energy += other.energy
        self.error += other.error
        self.cosine += other.cosine
        self.values += other.values
        self.vectors += other.vectors

    def figures(self) -> Dict[str, Optional[float]]:
        """``None`` where undefined: no values, or no error (infinite SNR)."""
        if self.values == 0:
            return {"rmse": None, "snr_db": None, "cosine": None}
        defined = self.error > 0.0 and self.energy > 0.0
        return {
            "rmse": math.sqrt(self.error / self.values),
            "snr_db": 10.0 * math.log10(self.energy / self.error) if defined else None,
            "cosine": self.cosine / self.vectors,
        }


@dataclass
class CodecOutcome:
    """What one codec did over all windows."""

    codec: str
    #: [windows][scored targets]
    scores: List[List[TokenScore]] = field(default_factory=list)
    #: (key, value) of each layer, summed over windows.
    layers: List[Tuple[DistortionSum, DistortionSum]] = field(default_factory=list)
    #: Bytes of all payloads, the values they stand for, and the prefix tokens those belong to.
    stored_bytes: int = 0
    values: int = 0
    cached_tokens: int = 0


def codec_result(
    outcome: CodecOutcome,
    baseline: Sequence[Sequence[float]],
    prefix: int,
    limits: Limits,
    vocab_size: int,
) -> Dict[str, Any]:
    """One entry of ``codecs``. ``baseline``: −ln p of every scored target under the untouched
    cache, nats, [windows][targets], the first of which is target ``prefix + 1`` of its window."""
    scores = outcome.scores
    nll = [[score.nll for score in window] for window in scores]
    log_ratio = Estimate.of(
        [(sum(mine) - sum(base)) / len(mine) for mine, base in zip(nll, baseline)]
    )
    kld_per_window = [_mean([score.kld for score in window]) for window in scores]
    top1 = Estimate.of([_mean([float(score.same_top) for score in window]) for window in scores])
    squares = _mean([_mean([score.delta_p**2 for score in window]) for window in scores])
    klds = sorted(score.kld for window in scores for score in window)
    perplexity = exp(_mean_nll(nll))
    invalid = meaningless(exp(_mean_nll(baseline)), vocab_size)
    agreement = Estimate.from_interval(top1.mean, share_ci95(top1), top1.windows)
    bits = 8.0 * outcome.stored_bytes / outcome.values
    key, value = DistortionSum(), DistortionSum()
    for layer_key, layer_value in outcome.layers:
        key.add(layer_key)
        value.add(layer_value)
    return {
        "codec": outcome.codec,
        # Every scored target attends to the whole prefix.
        "targets_affected": 1.0,
        "bits_per_value": bits,
        "compression_ratio": _SERVED_BITS / bits,
        "cache_bytes_per_token_f16": outcome.values * _SERVED_BITS / 8.0 / outcome.cached_tokens,
        "cache_bytes_per_token": outcome.stored_bytes / outcome.cached_tokens,
        "perplexity": perplexity,
        "perplexity_change": perplexity - exp(_mean_nll(baseline)),
        "perplexity_change_percent": _percent(log_ratio.mean),
        "perplexity_change_percent_ci95": _ends(log_ratio.ci95(), percent=True),
        "mean_log_ratio": log_ratio.mean,
        "mean_log_ratio_ci95": _ends(log_ratio.ci95()),
        "kld_mean": _mean(kld_per_window),
        "kld_mean_ci95": _ends(positive_ci95(kld_per_window)),
        "kld_p50": quantile(klds, 0.5),
        "kld_p90": quantile(klds, 0.9),
        "kld_p99": quantile(klds, 0.99),
        "kld_p999": quantile(klds, 0.999),
        "kld_max": klds[-1],
        "top1_agreement": top1.mean,
        "top1_agreement_ci95": _ends(share_ci95(top1)),
        "rms_delta_p": math.sqrt(squares),
        "nll_per_window": [sum(window) for window in nll],
        "kld_per_window": kld_per_window,
        "nll_change_by_position": _by_position(nll, baseline, prefix + 1),
        "kld_histogram": _histogram(klds),
        "key": key.figures(),
        "value": value.figures(),
        "layers": [
            {"layer": index, "key": layer_key.figures(), "value": layer_value.figures()}
            for index, (layer_key, layer_value) in enumerate(outcome.layers)
        ],
        **judge(log_ratio, kld_per_window, agreement, limits, invalid),
    }


def _by_position(
    nll: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]], first: int
) -> List[Dict[str, Any]]:
    """Mean change of the NLL over 16 runs of targets; ``first``: index of the first target."""
    targets = len(baseline[0])
    bins = min(_POSITION_BINS, targets)
    edges = [index * targets // bins for index in range(bins + 1)]
    result = []
    for start, end in zip(edges, edges[1:]):
        change = Estimate.of(
            [
                _mean([a - b for a, b in zip(mine[start:end], base[start:end])])
                for mine, base in zip(nll, baseline)
            ]
        )
        result.append(
            {
                "start": first + start,
                "end": first + end,
                "mean": change.mean,
                "ci95": _ends(change.ci95()),
            }
        )
    return result


def _histogram(klds: Sequence[float]) -> Dict[str, Any]:
    """Counts of sorted figures between edges; the last bin has no upper one."""
    edges = [0.0, *(10.0 ** (step / 4) for step in range(-40, 9))]
    below = [bisect.bisect_left(klds, edge) for edge in edges[1:]]
    return {"edges": edges, "counts": [b - a for a, b in zip([0, *below], [*below, len(klds)])]}


def baseline_result(baseline: Sequence[Sequence[float]]) -> Dict[str, Any]:
    return {
        "perplexity": exp(_mean_nll(baseline)),
        "nll_per_window": [sum(window) for window in baseline],
    }


def finite(value: Any) -> Any:
    """The same value with ``None`` in the place of NaN and infinities, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def table(result: Mapping[str, Any]) -> str:
    """The result for a terminal: a head, one row a codec, the verdicts. ASCII, for consoles that
    have nothing else; ends with a newline."""
    model, text, times = result["model"], result["text"], result["timings_s"]
    bos = "no BOS" if result["bos_id"] is None else "with BOS"
    scored = result["scored_tokens"] // result["windows"]
    lines = [
        f"kvgauge {result['kvgauge_version']} with transformers "
        f"{result['engine']['transformers']}, protocol `{result['protocol']}`",
        f"model     {model['source']}",
        f"          {model['architecture']}, {model['layers']} layers, {model['heads']} heads on "
        f"{model['kv_heads']} KV heads of {model['head_dim']}, f32 on {result['config']['device']}",
        f"text      {text['source']} ({text['tokens']} tokens)",
        f"windows   {result['windows']} of {text['windows_available']} x {result['context']} "
        f"tokens, {bos}: {result['prefix']} compressed, {scored} scored in each",
        f"files     cache written in {result['config']['cache_dtype']}",
        f"time      {times['total']:.1f} s, of which {times['load']:.1f} s loading, "
        f"{times['codec']:.2f} s codecs and files",
        f"baseline  perplexity {_figure(result['baseline']['perplexity'], '.4f')}",
        "",
    ]
    lines += _aligned(_rows(result["codecs"]))
    lines += ["bits a value; KLD: mean, nats; top-1: likeliest token unchanged; SNR in dB", ""]
    lines += _verdict_lines(result)
    return "\n".join(lines) + "\n"


def _rows(codecs: Sequence[Mapping[str, Any]]) -> List[List[str]]:
    interval = "95 % interval"
    title = ["codec", "bits", "ratio", "ppl", "change", interval, "KLD", interval]
    rows = [[*title, "top-1", "K SNR", "V SNR"]]
    for codec in codecs:
        change, kld = codec["perplexity_change_percent_ci95"], codec["kld_mean_ci95"]
        rows.append(
            [
                codec["codec"],
                f"{codec['bits_per_value']:.2f}",
                f"{codec['compression_ratio']:.2f}x",
                _figure(codec["perplexity"], ".3f"),
                _signed(codec["perplexity_change_percent"]) + " %",
                "one window" if change is None else " .. ".join(map(_signed, change)),
                _small(codec["kld_mean"]),
                "one window" if kld is None else " .. ".join(map(_small, kld)),
                f"{100 * codec['top1_agreement']:.1f} %",
                *(_figure(codec[part]["snr_db"], ".1f") for part in ("key", "value")),
            ]
        )
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    """First column to the left, the others to the right, two spaces between."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _verdict_lines(result: Mapping[str, Any]) -> List[str]:
    codecs, config = result["codecs"], result["config"]
    # Where the baseline means nothing, that is said once.
    reason = codecs[0].get("invalid_because")
    if reason is not None:
        return [f"INVALID: {reason}", CHECK]
    limits = Limits(config["max_ppl_increase"], config["max_kld"], config["min_top1"])
    left = max(result["text"]["windows_available"] - result["first_window"], 0)
    return [
        f"{codec['codec']}: {sentence(codec, result['windows'], left, limits)}" for codec in codecs
    ]


def _figure(value: Optional[float], form: str) -> str:
    return "inf" if value is None else format(value, form)


def _signed(percent: Optional[float]) -> str:
    text = _figure(percent, "+.2f")
    return "+0.00" if text == "-0.00" else text


def _small(value: Optional[float]) -> str:
    if value is None:
        return "inf"
    return format(value, ".4f" if value == 0.0 or 0.001 <= value < 10.0 else ".1e")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_nll(nll: Sequence[Sequence[float]]) -> float:
    return sum(sum(window) for window in nll) / sum(len(window) for window in nll)


def _percent(log_ratio: float) -> float:
    return 100.0 * expm1(log_ratio)


def _ends(interval: Optional[Interval], percent: bool = False) -> Optional[List[float]]:
    if interval is None:
        return None
    return [_percent(end) for end in interval] if percent else list(interval)
