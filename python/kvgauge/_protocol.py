"""The ``prefix`` protocol: windows of tokens in, scores of every codec out.

See :mod:`kvgauge.perplexity` for what it does. Everything after the logits is float64.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ._codecs import ask, rotation_metadata
from ._model import forward
from ._problem import Problem, first_line
from ._report import CodecOutcome, DistortionSum, TokenScore
from ._rotation import rotation_frequencies
from .cache import CacheError, Layer, cache_layers, dynamic_cache, load_kv_cache, save_kv_cache
from .compression_bridge import CompressionError, compress_kv_cache, decompress_kv_cache

if TYPE_CHECKING:
    import torch

#: Targets whose logits are in float64 at once.
_SCORED_AT_ONCE = 128


def prefix_length(context: int) -> int:
    """Tokens of a window whose cache is compressed."""
    return context // 2


def scored_targets(context: int) -> int:
    """Targets scored in a window: ``prefix + 1 … context − 1``."""
    return context - prefix_length(context) - 1


@dataclass
class Evaluation:
    """The scores of every arm. Nats throughout."""

    #: −ln p of every scored target under the untouched cache, [windows][targets].
    baseline: List[List[float]]
    #: In the order asked for.
    codecs: List[CodecOutcome]
    #: [kv_heads, head_dim] of the cache.
    cache_shape: Tuple[int, int] = (0, 0)
    #: Seconds.
    timings: Dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("prefill", "codec", "continuation", "scoring"), 0.0)
    )


def evaluate(
    model: Any,
    windows: Sequence[Sequence[int]],
    codecs: Sequence[str],
    *,
    cache_dtype: str = "f32",
    threads: Optional[int] = None,
    folder: Optional[str] = None,
    advanced: Callable[[int], None] = lambda tokens: None,
) -> Evaluation:
    """Runs the protocol.

    ``model``: a causal language model of transformers, in float32, in eval mode.
    ``windows``: token ids, all windows of one length, at least 4.
    ``cache_dtype``: the type in the files, ``"f32"``, ``"f16"`` or ``"bf16"``.
    ``threads``: of ``kv-compress``. ``folder``: where the files go; default: the system's.
    ``advanced``: hears, now and then, how many more tokens went through the model.

    Distortion is that of the cache which the model got back against the one it made, so a
    ``cache_dtype`` below f32 counts in. Codecs that take keys as they were before RoPE need a model
    that rotates all of them by one table. Raises ``CompressionError``, ``CacheError`` and
    :class:`Problem`.
    """
    import torch

    result = Evaluation(baseline=[], codecs=[CodecOutcome(codec) for codec in codecs])
    frequencies = None
    rotated = next((codec for codec in codecs if ask(codec).needs_rotation), None)
    if rotated is not None and windows:
        first = windows[0]
        frequencies = rotation_frequencies(model, first[0], prefix_length(len(first)), rotated)
    with tempfile.TemporaryDirectory(prefix="kvgauge-", dir=folder) as temporary:
        files = _Files(temporary, cache_dtype, threads, rotation_metadata(frequencies))
        for window in windows:
            with torch.inference_mode():
                _add_window(result, model, window, files, advanced)
    return result


def cut_windows(
    tokens: Sequence[int], context: int, first: int, count: Optional[int], bos: Optional[int]
) -> List[List[int]]:
    """Windows that do not overlap, from the ``first`` on; at most ``count``, or all. ``bos``
    replaces the first token of each."""
    available = len(tokens) // context
    if available == 0:
        raise Problem(
            f"--text: expected at least {context} tokens, one window, found {len(tokens)}",
            "use a longer text or a smaller --context",
        )
    if first >= available:
        raise Problem(
            f"--first-window: expected at most {available - 1}, the last of the text's "
            f"{available} windows, found {first}",
            "windows are counted from 0",
        )
    end = available if count is None else min(first + count, available)
    windows = [list(tokens[w * context : (w + 1) * context]) for w in range(first, end)]
    if bos is not None:
        for window in windows:
            window[0] = bos
    return windows


@dataclass
class _Files:
    """The three files a cache passes through, and how."""

    folder: str
    dtype: str
    threads: Optional[int]
    #: Of the original: what keys were rotated by, where a codec needs it.
    metadata: Dict[str, str]

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name + ".safetensors")

    def save(self, layers: List[Layer]) -> None:
        path = self.path("original")
        save_kv_cache(layers, path, dtype=self.dtype, metadata=self.metadata, sync=False)

    def round_trip(self, codec: str, device: Any) -> Tuple[List[Layer], int]:
        """What came back, in float32 on ``device``, and the bytes of the payload between."""
        original, packed, unpacked = map(self.path, ("original", "packed", "unpacked"))
        common: Dict[str, Any] = {"threads": self.threads, "force": True, "sync": False}
        try:
            compress_kv_cache(original, packed, codec=codec, **common)
            decompress_kv_cache(packed, unpacked, **common)
        except CompressionError as error:
            # The files are gone by the time that anybody reads this.
            message = error.message.replace(f"{original}: ", "").replace(self.folder + os.sep, "")
            raise CompressionError(
                f"codec {codec}: {message}", error.hint, error.exit_status
            ) from error
        layers = load_kv_cache(unpacked, device=device, dtype="f32", legacy=True)
        return list(layers), _payload_bytes(packed)


def _payload_bytes(path: str) -> int:
    """What a compressed file holds of its tensors: all but the header, and two bytes for every
    exponent that is not the default, which the header has."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    tensors = json.loads(header["__metadata__"]["kvgauge"])["tensors"]
    exponents = len([tensor for tensor in tensors if tensor.get("exponent", 0) != 0])
    return os.path.getsize(path) - 8 - length + 2 * exponents


def _add_window(
    result: Evaluation,
    model: Any,
    window: Sequence[int],
    files: _Files,
    advanced: Callable[[int], None],
) -> None:
    import torch

    prefix = prefix_length(len(window))
    tokens = torch.tensor([list(window)], device=model.device)  # [1, context]
    targets = tokens[0, prefix + 1 :].cpu()
    # The last token of a window is only ever a target.
    continuation = tokens[:, prefix:-1]

    clock = _Clock(result.timings, model.device)
    layers = _prefill(model, tokens[:, :prefix])
    clock.lap("prefill")
    advanced(prefix)

    base = _continue(model, continuation, layers)  # [targets, vocab]
    clock.lap("continuation")
    advanced(continuation.shape[1])
    base_rows = _score_baseline(base, targets)
    result.baseline.append([nll for _, nll, _ in base_rows])
    clock.lap("scoring")

    files.save(layers)
    result.cache_shape = (layers[0][0].shape[1], layers[0][0].shape[3])
    for outcome in result.codecs:
        returned, stored_bytes = files.round_trip(outcome.codec, model.device)
        _add_distortion(outcome, layers, returned)
        outcome.stored_bytes += stored_bytes
        outcome.values += sum(key.numel() + value.numel() for key, value in layers)
        outcome.cached_tokens += prefix
        clock.lap("codec")
        logits = _continue(model, continuation, returned)
        clock.lap("continuation")
        advanced(continuation.shape[1])
        outcome.scores.append(_score(logits, base, base_rows, targets))
        clock.lap("scoring")


def _prefill(model: Any, tokens: "torch.Tensor") -> List[Layer]:
    # Without a model's config: plain layers, also where it would use a sliding window.
    cache = dynamic_cache([])
    try:
        _, filled = forward(model, tokens, cache, **_last_logits_only(model))
        if filled is None:
            raise TypeError("it returns no cache")
        layers = cache_layers(filled)
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError) as error:
        # What models with states of other kinds end in, each in its own way.
        raise Problem(
            f"{type(model).__name__}: expected a model that runs on a plain cache of keys and "
            f"values, found one that fails with it: {type(error).__name__}: {first_line(error)}",
            "models with recurrent or convolution states, or caches of their own, cannot be "
            "evaluated here",
        ) from error
    for index, (key, _) in enumerate(layers):
        if key.shape[2] != tokens.shape[1]:
            raise CacheError(
                f"layer {index}: expected the keys of {tokens.shape[1]} tokens after the prefix, "
                f"found {key.shape[2]}"
            )
    return layers


def _last_logits_only(model: Any) -> Dict[str, int]:
    """The prefix pass needs none of its logits; the argument's name depends on the version."""
    known = inspect.signature(model.forward).parameters
    for name in ("logits_to_keep", "num_logits_to_keep"):
        if name in known:
            return {name: 1}
    return {}


def _continue(model: Any, tokens: "torch.Tensor", layers: List[Layer]) -> "torch.Tensor":
    """Logits [tokens, vocab] of one pass over a copy of the cache, which grows in place."""
    cache = dynamic_cache([(key.clone(), value.clone()) for key, value in layers])
    logits: torch.Tensor = forward(model, tokens, cache)[0]
    return logits[0]


#: ln Σ exp of the logits, −ln p(target), index of the largest logit.
_BaseRow = Tuple[float, float, int]


def _score_baseline(logits: "torch.Tensor", targets: "torch.Tensor") -> List[_BaseRow]:
    rows: List[_BaseRow] = []
    for chunk, target in _chunks(logits, targets):
        log_sum = _log_sum(chunk)
        nll = log_sum - chunk.gather(1, target[:, None])[:, 0]
        rows += zip(log_sum.tolist(), nll.tolist(), chunk.argmax(1).tolist())
    return rows


def _score(
    logits: "torch.Tensor",
    base_logits: "torch.Tensor",
    base_rows: Sequence[_BaseRow],
    targets: "torch.Tensor",
) -> List[TokenScore]:
    import torch

    scores: List[TokenScore] = []
    base_chunks = _chunks(base_logits, targets)
    for (chunk, target), (base, _) in zip(_chunks(logits, targets), base_chunks):
        rows = base_rows[len(scores) : len(scores) + len(target)]
        base_log_sum = torch.tensor([row[0] for row in rows], dtype=torch.float64)
        log_sum = _log_sum(chunk)
        # Σ p·(l0 − l1) − (ln Z0 − ln Z1): equal rows give zero, near-equal ones no rounding noise.
        weighted = ((base - base_log_sum[:, None]).exp() * (base - chunk)).sum(1)
        kld = (weighted - (base_log_sum - log_sum)).clamp_min(0.0)
        nll = log_sum - chunk.gather(1, target[:, None])[:, 0]
        for row, mine, divergence, top in zip(
            rows, nll.tolist(), kld.tolist(), chunk.argmax(1).tolist()
        ):
            if not (math.isfinite(mine) and math.isfinite(divergence)):
                raise _not_finite()
            delta_p = math.exp(-mine) - math.exp(-row[1])
            scores.append(TokenScore(mine, divergence, top == row[2], delta_p))
    return scores


def _chunks(
    logits: "torch.Tensor", targets: "torch.Tensor"
) -> Iterator[Tuple["torch.Tensor", "torch.Tensor"]]:
    """A few rows of logits at a time, in float64 on the CPU: not every device has float64."""
    for start in range(0, len(targets), _SCORED_AT_ONCE):
        end = start + _SCORED_AT_ONCE
        yield logits[start:end].cpu().double(), targets[start:end]


def _log_sum(logits: "torch.Tensor") -> "torch.Tensor":
    log_sum = logits.logsumexp(1)
    if not bool(log_sum.isfinite().all()):
        raise _not_finite()
    return log_sum


def _not_finite() -> Problem:
    return Problem(
        "logits: expected finite numbers, found NaN or infinity",
        "are these weights what their author published?",
    )


def _add_distortion(outcome: CodecOutcome, made: List[Layer], got: List[Layer]) -> None:
    if len(made) != len(got):
        raise CacheError(f"expected {len(made)} layers back from kv-compress, found {len(got)}")
    if not outcome.layers:
        outcome.layers = [(DistortionSum(), DistortionSum()) for _ in made]
    for sums, mine, theirs in zip(outcome.layers, made, got):
        for total, original, returned in zip(sums, mine, theirs):
            if original.shape != returned.shape:
                raise CacheError(
                    f"expected {list(original.shape)} back from kv-compress, found "
                    f"{list(returned.shape)}"
                )
            total.add(_distortion(original, returned))


def _distortion(original: "torch.Tensor", returned: "torch.Tensor") -> DistortionSum:
    import torch

    x, y = original.cpu().double(), returned.cpu().double()
    xx, yy, xy = x.square().sum(-1), y.square().sum(-1), (x * y).sum(-1)
    cosine = (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0)
    # Two zero vectors agree; a zero beside a non-zero one is orthogonal to it.
    both, either = (xx == 0) & (yy == 0), (xx == 0) | (yy == 0)
    cosine = torch.where(both, 1.0, torch.where(either, 0.0, cosine))
    return DistortionSum(
        energy=float(xx.sum()),
        error=float((x - y).square().sum()),
        cosine=float(cosine.sum()),
        values=x.numel(),
        vectors=cosine.numel(),
    )


class _Clock:
    """Adds the time since the last lap to a stage."""

    def __init__(self, timings: Dict[str, float], device: "torch.device") -> None:
        self._timings = timings
        self._device = device
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._timings[stage] += now - self._last
        self._last = now
