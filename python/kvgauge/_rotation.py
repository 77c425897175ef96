"""Rotary embeddings (RoPE) of a model of transformers, layer by layer, for codecs that turn keys
back.

How a layer's keys were rotated is not read off its config: it is tried, on keys that differ by
nothing but their position. Layers without RoPE have a rotation without frequencies.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ._codecs import origin_metadata, rotation_metadata
from ._model import follows_length, forward, logits_of_last, rope_parameters, rope_type
from ._problem import Problem
from .cache import cache_layers, dynamic_cache

if TYPE_CHECKING:
    import torch

#: Of a pair's own size: far above the rounding of angles, far below the mark of a wrong table.
_TOLERANCE = 2e-3
#: Of the largest key, and the least that counts as a pair's size: where some channels are a hundred
#: times as large as others and in slow pairs, as in Qwen 2.5, they must not hide that the others
#: were not turned back; what is lower still may be rounding in the model.
_LEAST_SIZE = 1e-2
#: Tried from the first on, one by one; further ones are spread over the prefix.
_NEAR_POSITIONS = 16
_FAR_POSITIONS = 32


@dataclass(frozen=True)
class Rotation:
    """How one layer's keys were rotated: the first ``2 * len(frequencies)`` of ``head_dim``
    channels in pairs, each by its frequency times the position. Channels behind them are not
    rotated."""

    #: Radians a position, one a pair of channels; none in a layer without RoPE.
    frequencies: Tuple[float, ...]
    #: Channels of a head.
    head_dim: int
    #: Whether pairs are the channels 2i and 2i + 1 (GPT-J, Cohere), and not i and i + n of n pairs
    #: (GPT-NeoX, Llama).
    interleaved: bool = False

    @property
    def channels(self) -> int:
        """How many channels of a head are rotated."""
        return 2 * len(self.frequencies)

    def is_whole_in_halves(self) -> bool:
        """Whether channels i and i + head_dim / 2 are pairs, and no channel is in none."""
        return self.channels == self.head_dim and not self.interleaved


def rotations(model: Any, token: int, tokens: int, codec: str) -> List[Rotation]:
    """The rotation of each layer's keys in a prefix of ``tokens`` tokens.

    ``token``: any id of the vocabulary. ``codec``: the one that needs the rotations. Raises
    :class:`Problem` where a layer's keys are not turned back by any of the model's tables.
    """
    import torch

    found = f"in {type(model).__name__}"
    tables = _tables(model)
    if not tables:
        raise _refused(codec, "keys rotated by their position", f"no rotary table {found}")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise _refused(codec, "a model that takes position_ids", f"none {found}")
    # A batch of one token at one position each: all attend to nothing but themselves, so that keys
    # differ by their rotation alone, whatever the layers do besides.
    positions = _positions(tokens).to(model.device)[:, None]
    with torch.inference_mode():
        ids = torch.full_like(positions, token)
        more = {"position_ids": positions, **logits_of_last(model, 1)}
        _, cache = forward(model, ids, dynamic_cache([]), **more)
    chosen: List[Rotation] = []
    for layer, (key, _) in enumerate(cache_layers(cache)):
        turned = key[:, :, 0].cpu().double()  # [positions, kv_heads, head_dim]
        rotation = _closest(turned, positions[:, 0].cpu(), tables)
        if rotation is None:
            raise _refused(
                codec,
                "keys that a rotary table of the model turns back in every layer",
                f"others in layer {layer} {found}",
            )
        chosen.append(rotation)
    if not any(rotation.channels for rotation in chosen):
        # Of a model that goes by positions of its own, whatever it is told, all keys are at one.
        raise _refused(
            codec,
            "keys rotated by the position_ids that the model is given",
            f"the same at every position, in every layer {found}",
        )
    return chosen


def file_metadata(rotations: Sequence[Rotation]) -> Dict[str, str]:
    """What a file says of the rotations of its layers' keys, as ``kvgauge extract`` writes it.

    One for all layers that turns the whole head in halves is its frequencies alone; others are
    listed with the layers of each, in the order of their first.
    """
    sharing: Dict[Rotation, List[int]] = {}
    for layer, rotation in enumerate(rotations):
        sharing.setdefault(rotation, []).append(layer)
    if len(sharing) == 1 and rotations[0].is_whole_in_halves():
        return rotation_metadata(rotations[0].frequencies)
    rotary = [
        {
            "layers": layers,
            "frequencies": list(rotation.frequencies),
            "pairs": "neighbours" if rotation.interleaved else "halves",
            "head_dim": rotation.head_dim,
        }
        for rotation, layers in sharing.items()
    ]
    return origin_metadata({"rotary": rotary})


@contextlib.contextmanager
def static_frequencies(model: Any, context: int) -> Iterator[None]:
    """Holds rotary frequencies that follow the length of what has gone through (dynamic NTK,
    LongRoPE) at those of a window of ``context`` tokens.

    transformers chooses them anew in each pass, from the last position in it, so that the keys of
    a prefix would be rotated by others than the queries that meet them. Raises :class:`Problem`
    where they cannot be held.
    """
    rotary = [module for module in model.modules() if _types(module)]
    modules = [module for module in rotary if _context_dependent(module)]
    said = rope_parameters(getattr(model, "config", None))
    declared = [rope_type(rope) for rope in said if follows_length(rope)]
    if declared and not rotary:
        raise Problem(
            f"{type(model).__name__}: expected rotary frequencies that can be held at the window's "
            f"length, found RoPE of type {declared[0]} that this transformers computes its own way",
            "use a newer transformers",
        )
    before = [module.rope_type for module in modules]
    try:
        for module in modules:
            _hold(module, context, model.device)
        yield
    finally:
        for module, types in zip(modules, before):
            module.rope_type = types


def _types(module: Any) -> Dict[Optional[str], str]:
    """Types of RoPE that a module computes, by type of layer; ``None``: one for all layers. Empty:
    it computes none."""
    named = getattr(module, "rope_type", None)
    if isinstance(named, str):
        return {None: named}
    return dict(named) if isinstance(named, dict) else {}


def _context_dependent(module: Any) -> List[Optional[str]]:
    """The types of layers whose frequencies follow the length."""
    return [layer for layer, kind in _types(module).items() if follows_length({"type": kind})]


def _hold(module: Any, context: int, device: Any) -> None:
    """Lets the module choose for the last position of a window, and keeps it from choosing again:
    it does so by its ``rope_type``."""
    import torch

    anything = torch.zeros(1, 1, 1, device=device)

    def table(positions: List[int], layer: Optional[str]) -> Any:
        named = {} if layer is None else {"layer_type": layer}
        return module(anything, torch.tensor([positions], device=device), **named)[0]

    layers = _context_dependent(module)
    with torch.no_grad():
        for layer in layers:
            # Position 0 takes back what an earlier, longer window left.
            table([0], layer)
            wanted = table([1, context - 1], layer)
            if isinstance(module.rope_type, dict):
                module.rope_type = {**module.rope_type, layer: "default"}
            else:
                module.rope_type = "default"
            if not torch.equal(table([1], layer), wanted[:, :1]):
                raise Problem(
                    f"{type(module).__name__}: expected rotary frequencies that stay those of "
                    f"{context} tokens, found others for a shorter pass",
                    "this transformers chooses them in a way that is not known here",
                )


def _positions(tokens: int) -> "torch.Tensor":
    """Positions to try in a prefix of ``tokens``, ascending from 0."""
    import torch

    near = torch.arange(min(tokens, _NEAR_POSITIONS))
    far = torch.linspace(0, tokens - 1, _FAR_POSITIONS).round().long()
    return torch.unique(torch.cat([near, far]))


def _tables(model: Any) -> List["torch.Tensor"]:
    """Every list of rotary frequencies in the model, each once."""
    import torch

    tables: List[torch.Tensor] = []
    for name, buffer in model.named_buffers():
        last = name.rpartition(".")[2]
        if last.endswith("inv_freq") and "original" not in last:
            # Some models overwrite theirs in place.
            table = buffer.detach().float().cpu().flatten().clone()
            if not any(torch.equal(table, known) for known in tables):
                tables.append(table)
    return tables


def _closest(
    key: "torch.Tensor", positions: "torch.Tensor", tables: List["torch.Tensor"]
) -> Optional[Rotation]:
    """The rotation that turns keys [positions, kv_heads, head_dim] back best, if any does."""
    import torch

    head_dim = key.shape[2]
    candidates: List[Tuple[torch.Tensor, bool]] = [
        (table, interleaved)
        for table in tables
        if 2 * len(table) <= head_dim
        for interleaved in (False, True)
    ]
    # Behind the others: of two that fit equally well, the first is taken.
    candidates.append((torch.zeros(0), False))
    offsets = [_offset_turned_back(key, positions, *candidate) for candidate in candidates]
    least = min(offsets)
    if not least <= _TOLERANCE:
        return None
    table, interleaved = candidates[offsets.index(least)]
    return Rotation(tuple(map(float, table.tolist())), head_dim, interleaved)


def _offset_turned_back(
    key: "torch.Tensor", positions: "torch.Tensor", table: "torch.Tensor", interleaved: bool
) -> float:
    """How far keys [positions, kv_heads, head_dim] of one token are from the first of them once
    turned back, as a share of their size, of the pair or single channel with the largest share: 0
    where the rotation is theirs."""
    import torch

    largest = float(key.abs().max())
    if largest == 0.0:
        return 0.0
    # The model's own angles, which are rounded to float32.
    angles = (positions.float()[:, None] * table).double()[:, None]  # [positions, 1, pairs]
    count = len(table)
    rotated, rest = key[..., : 2 * count], key[..., 2 * count :]
    if interleaved:
        low, high = rotated[..., 0::2], rotated[..., 1::2]
    else:
        low, high = rotated[..., :count], rotated[..., count:]
    turned = torch.stack(
        [low * angles.cos() + high * angles.sin(), high * angles.cos() - low * angles.sin()], -1
    )
    shares = []
    for part in (turned, rest[..., None]):  # [positions, kv_heads, pairs or channels, 2 or 1]
        size = part.abs().amax((0, 3)).clamp_min(_LEAST_SIZE * largest)
        shares.append((part - part[:1]).abs().amax((0, 3)) / size)
    offset = float(torch.cat(shares, -1).max())
    # Keys that are not finite are nobody's.
    return offset if math.isfinite(offset) else math.inf


def _refused(codec: str, expected: str, found: str) -> Problem:
    return Problem(
        f"codec {codec}: expected {expected}, found {found}",
        "use a codec that takes keys as they are cached, such as int4-g64 or q4_0",
    )
