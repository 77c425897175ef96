"""The ``prefix`` protocol: windows of tokens in, scores of every codec out.

:mod:`kvgauge.perplexity` says how it goes. Everything after the logits is float64.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ._codecs import ask
from ._measurement import CodecMeasurement, CodecWindow, DistortionSum, StoredSize, TokenScore
from ._model import attention_reach, forward, logits_of_last, text_config
from ._problem import Problem, first_line
from ._rotation import file_metadata, rotations, static_frequencies
from .cache import CacheError, Layer, cache_layers, dynamic_cache, load_layers, save_layers
from .compression_bridge import CompressionError, compress_kv_cache, decompress_kv_cache

if TYPE_CHECKING:
    import torch

#: Targets whose logits are in float64 at once.
_SCORED_AT_ONCE = 128


#: Mean KL divergence, nats, of passes that differ by rounding alone, with room: 1e-9 and less in
#: float32, one token that a router sends to another expert 1e-6.
_SAME_PREDICTIONS = 1e-5


def prefix_length(context: int) -> int:
    """Tokens of a window whose cache is compressed."""
    return context // 2


def scored_targets(context: int) -> int:
    """Number of scored tokens of a window: those behind the prefix but the first, which is
    predicted before anything compressed is read."""
    return context - prefix_length(context) - 1


@dataclass
class Evaluation:
    """Scores of the untouched cache and of every codec. Nats throughout."""

    #: −ln p of every scored target under the untouched cache, [windows][targets].
    baseline: List[List[float]]
    #: In the order asked for.
    codecs: List[CodecMeasurement]
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
    whose rotary tables turn them back (:mod:`kvgauge._rotation`). A model whose passes over a cache
    do not equal one pass over the first window is refused. Raises ``CompressionError``,
    ``CacheError`` and :class:`Problem`.
    """
    import torch

    result = Evaluation(baseline=[], codecs=[CodecMeasurement(codec) for codec in codecs])
    if not windows:
        return result
    rotated = next((codec for codec in codecs if ask(codec).needs_rotation), None)
    with contextlib.ExitStack() as held:
        held.enter_context(static_frequencies(model, len(windows[0])))
        temporary = held.enter_context(tempfile.TemporaryDirectory(prefix="kvgauge-", dir=folder))
        metadata: Dict[str, str] = {}
        if rotated is not None:
            first = windows[0]
            by_layer = rotations(model, first[0], prefix_length(len(first)), rotated)
            metadata = file_metadata(by_layer)
        files = _Files(temporary, cache_dtype, threads, metadata)
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


@dataclass(frozen=True)
class _Files:
    """The three files that a cache passes through, and how."""

    folder: str
    dtype: str
    threads: Optional[int]
    #: Of the first.
    metadata: Dict[str, str]

    def save(self, layers: Sequence[Layer]) -> None:
        save_layers(layers, self._path("original"), self.dtype, self.metadata, sync=False)

    def round_trip(
        self, codec: str, device: Any
    ) -> Tuple[List[Layer], List[Tuple[StoredSize, StoredSize]]]:
        """The layers that came back, in float32 on ``device``, and what each took between."""
        original, packed, unpacked = map(self._path, ("original", "packed", "unpacked"))
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
        layers = list(load_layers(unpacked, device, "f32").values())
        return layers, _stored_sizes(packed, len(layers))

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, f"{name}.safetensors")


def _stored_sizes(path: str, layers: int) -> List[Tuple[StoredSize, StoredSize]]:
    """What a compressed file spends on the keys and on the values of each layer: their parts, and two
    bytes for an exponent that is not the default, which the header has."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    manifest = json.loads(header.pop("__metadata__")["kvgauge"])
    tensors = {tensor["name"]: tensor for tensor in manifest["tensors"]}

    def size(name: str) -> StoredSize:
        parts = {
            part[len(name) + 1 :]: entry["data_offsets"][1] - entry["data_offsets"][0]
            for part, entry in header.items()
            if part.startswith(name + ".")
        }
        exponent = 2 if tensors[name].get("exponent", 0) != 0 else 0
        values = math.prod(tensors[name]["shape"])
        return StoredSize(sum(parts.values()) + exponent, values, parts.get("sinks", 0) // 2)

    return [(size(f"layer.{index}.key"), size(f"layer.{index}.value")) for index in range(layers)]


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
    base_nll, base_rows = _score_baseline(base, targets)
    if not result.baseline:
        whole = _in_one_pass(model, tokens[:, :-1], len(targets))
        _check_continued(model, _score(whole, base, base_rows, targets))
        del whole
    result.baseline.append(base_nll)
    clock.lap("scoring")

    reach = attention_reach(text_config(getattr(model, "config", None)))
    affected = len(targets) if reach is None else min(len(targets), reach)
    files.save(layers)
    result.cache_shape = (layers[0][0].shape[1], layers[0][0].shape[3])
    for measured in result.codecs:
        returned, sizes = files.round_trip(measured.codec, model.device)
        distortion = _layer_distortion(layers, returned)
        clock.lap("codec")
        logits = _continue(model, continuation, returned)
        clock.lap("continuation")
        advanced(continuation.shape[1])
        window_scores = _score(logits, base, base_rows, targets)
        clock.lap("scoring")
        measured.windows.append(CodecWindow(window_scores, distortion, sizes, prefix, affected))


def _prefill(model: Any, tokens: "torch.Tensor") -> List[Layer]:
    # Without a model's config: plain layers, also where it would use a sliding window.
    cache = dynamic_cache([])
    try:
        _, filled = forward(model, tokens, cache, **logits_of_last(model, 1))
        if filled is None:
            raise TypeError("it returns no cache")
        layers = cache_layers(filled)
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError) as error:
        # Models with states of other kinds end in these, each in its own way.
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


def _continue(model: Any, tokens: "torch.Tensor", layers: List[Layer]) -> "torch.Tensor":
    """Logits [tokens, vocab] of one pass over a copy of the cache, which grows in place."""
    cache = dynamic_cache([(key.clone(), value.clone()) for key, value in layers])
    logits: torch.Tensor = forward(model, tokens, cache)[0]
    return logits[0]


def _in_one_pass(model: Any, tokens: "torch.Tensor", count: int) -> "torch.Tensor":
    """Logits [count, vocab] of the last tokens of a pass without a cache."""
    output = model(input_ids=tokens, use_cache=False, **logits_of_last(model, count))
    logits: torch.Tensor = output.logits[0, -count:]
    return logits


def _check_continued(model: Any, scores: Sequence[TokenScore]) -> None:
    """``scores``: of one pass without a cache, against two passes with the untouched one. A model
    that forgets a window, shares layers or keeps states of its own in a way that a plain cache does
    not carry over would be measured wrongly, and silently."""
    divergence = math.fsum(score.kld for score in scores) / len(scores)
    if divergence > _SAME_PREDICTIONS:
        raise Problem(
            f"{type(model).__name__}: expected a pass over the untouched cache to predict what one "
            "pass over the window predicts, found a mean KL divergence of "
            f"{divergence:.2g} between them",
            "a plain cache of keys and values does not carry all that this model needs",
        )


#: Of one target under the untouched cache: ln Σ exp of the logits, index of the largest logit.
_BaseRow = Tuple[float, int]


def _score_baseline(
    logits: "torch.Tensor", targets: "torch.Tensor"
) -> Tuple[List[float], List[_BaseRow]]:
    """−ln p of each target, and what its comparisons with codecs need."""
    nll: List[float] = []
    rows: List[_BaseRow] = []
    for chunk, target in _chunks(logits, targets):
        log_sum = _log_sum(chunk)
        nll += (log_sum - chunk.gather(1, target[:, None])[:, 0]).tolist()
        rows += zip(log_sum.tolist(), chunk.argmax(1).tolist())
    return nll, rows


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
            scores.append(TokenScore(mine, divergence, top == row[1]))
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


def _layer_distortion(
    made: List[Layer], got: List[Layer]
) -> List[Tuple[DistortionSum, DistortionSum]]:
    if len(made) != len(got):
        raise CacheError(f"expected {len(made)} layers back from kv-compress, found {len(got)}")
    return [
        (_distortion(key, got_key), _distortion(value, got_value))
        for (key, value), (got_key, got_value) in zip(made, got)
    ]


def _distortion(original: "torch.Tensor", returned: "torch.Tensor") -> DistortionSum:
    import torch

    if original.shape != returned.shape:
        raise CacheError(
            f"expected {list(original.shape)} back from kv-compress, found {list(returned.shape)}"
        )

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
