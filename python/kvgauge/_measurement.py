"""Measurements of an evaluation, window by window, and the JSON that ``kvgauge figures`` reads:
schema ``kvgauge.measurement/1``, explained in docs/python.md. No figure is worked out here.
Standard library only.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Sequence, Tuple

SCHEMA = "kvgauge.measurement/1"


@dataclass(frozen=True)
class TokenScore:
    """One scored target under a codec. ``nll``: −ln p(target), nats. ``kld``: KL(baseline ‖ codec)
    over the vocabulary, nats. ``same_top``: both rank the same token first."""

    nll: float
    kld: float
    same_top: bool


@dataclass(frozen=True)
class DistortionSum:
    """Sums over one tensor: Σ x², Σ (x − y)², Σ cos over head vectors, and the numbers of values
    and vectors."""

    energy: float
    error: float
    cosine: float
    values: int
    vectors: int


@dataclass(frozen=True)
class StoredSize:
    """What the keys or the values of one layer take as they are stored."""

    bytes: int
    values: int
    #: Of these, the ones that are kept in 16 bits where the others are packed.
    exact: int


@dataclass(frozen=True)
class CodecWindow:
    """One window under a codec."""

    #: One for each scored target.
    scores: List[TokenScore]
    #: (key, value) of each layer.
    layers: List[Tuple[DistortionSum, DistortionSum]]
    #: (key, value) of each layer.
    sizes: List[Tuple[StoredSize, StoredSize]]
    #: Tokens that they belong to.
    cached_tokens: int
    #: How many of the scored targets something compressed can reach.
    targets_affected: int


@dataclass
class CodecMeasurement:
    """All windows under one codec."""

    codec: str
    windows: List[CodecWindow] = field(default_factory=list)


def measurement(
    subject: Mapping[str, Any],
    baseline: Sequence[Sequence[float]],
    codecs: Sequence[CodecMeasurement],
) -> Dict[str, Any]:
    """The object of the schema. ``subject``: model, text, windows and protocol, by the keys of
    ``kvgauge validate --json``. ``baseline``: −ln p of every scored target under the untouched
    cache, nats, [windows][targets]."""
    return {
        "schema": SCHEMA,
        "subject": dict(subject),
        "baseline": [_packed(window) for window in baseline],
        "codecs": [
            {"codec": codec.codec, "windows": [_window(window) for window in codec.windows]}
            for codec in codecs
        ],
    }


def _window(window: CodecWindow) -> Dict[str, Any]:
    layers = [
        {
            "key": asdict(key),
            "value": asdict(value),
            "key_size": asdict(key_size),
            "value_size": asdict(value_size),
        }
        for (key, value), (key_size, value_size) in zip(window.layers, window.sizes)
    ]
    sizes = [size for layer in window.sizes for size in layer]
    return {
        "nll": _packed([score.nll for score in window.scores]),
        "kld": _packed([score.kld for score in window.scores]),
        "same_top": "".join("01"[score.same_top] for score in window.scores),
        "targets_affected": window.targets_affected,
        "layers": layers,
        "stored_bytes": sum(size.bytes for size in sizes),
        "values": sum(size.values for size in sizes),
        "cached_tokens": window.cached_tokens,
    }


def _packed(numbers: Sequence[float]) -> str:
    """Little-endian f64 in base64: every bit, in half the characters."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}d", *numbers)).decode("ascii")
