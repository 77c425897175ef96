"""Rotary tables of a model of transformers, layer by layer, for codecs that turn keys back.

A table is one frequency, in radians a position, for each pair of channels i and i + head_dim / 2 of
a head. Which of a model's tables a layer's keys were rotated by is not read off its config: it is
tried, on keys that differ by nothing but their position. Layers without RoPE have a table of zeros.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

from ._model import forward
from ._problem import Problem
from .cache import cache_layers, dynamic_cache

if TYPE_CHECKING:
    import torch

#: Frequencies of one layer, head_dim / 2 of them.
Table = Tuple[float, ...]

#: Of the largest key: far above the rounding of angles, far below the mark of a wrong table.
_TOLERANCE = 2e-3


def rotary_tables(model: Any, token: int, tokens: int, codec: str) -> List[Table]:
    """The table of each layer's keys in a prefix of ``tokens`` tokens.

    ``token``: any id of the vocabulary. ``codec``: the one that needs the tables. Raises
    :class:`Problem` where a layer's keys are not turned back by any.
    """
    import torch

    with torch.inference_mode():
        # A token repeated: every position sees the same, whatever it attends to, so that keys
        # differ by their rotation alone.
        ids = torch.full((1, tokens), token, device=model.device)
        _, cache = forward(model, ids, dynamic_cache([]))
    keys = [key for key, _ in cache_layers(cache)]
    # Read now: some tables follow the length of what went through.
    tables = _tables_in_use(model)
    found = f"in {type(model).__name__}"
    if not tables:
        raise _refused(codec, "keys rotated by their position", f"no rotary table {found}")
    # Attention sinks let in less at later positions: beyond the first layer nothing is the same,
    # and a layer's table is known only where there is but one for all.
    has_sinks = any("sink" in name for name, _ in model.named_parameters())
    if has_sinks and len(tables) > 1:
        raise _refused(
            codec,
            "one rotary table in a model with attention sinks",
            f"{len(tables)} different ones {found}",
        )
    chosen: List[Table] = []
    for layer, key in enumerate(keys[:1] if has_sinks else keys):
        head_dim = key.shape[3]
        rotary = [table for table in tables if 2 * len(table) == head_dim]
        # Behind the others: of two that fit equally well, the first is taken.
        candidates = rotary if has_sinks else [*rotary, torch.zeros(head_dim // 2)]
        table = _closest(key, candidates)
        if table is None and not rotary:
            raise _refused(
                codec,
                f"a rotary table for all {head_dim} channels of a head in layer {layer}",
                f"one for {2 * len(tables[0])} {found}",
            )
        if table is None:
            raise _refused(
                codec,
                "keys that a rotary table of the model turns back in every layer, channels i and "
                "i + head_dim / 2 a pair",
                f"others in layer {layer} {found}",
            )
        chosen.append(tuple(map(float, table.tolist())))
    return chosen + chosen[:1] * (len(keys) - len(chosen))


def _closest(key: "torch.Tensor", candidates: List["torch.Tensor"]) -> Optional["torch.Tensor"]:
    """The table that turns keys [1, kv_heads, tokens, head_dim] back best, if any does."""
    offsets = [_offset_turned_back(key, table) for table in candidates]
    least = min(offsets, default=math.inf)
    return candidates[offsets.index(least)] if least <= _TOLERANCE else None


def _refused(codec: str, expected: str, found: str) -> Problem:
    return Problem(
        f"codec {codec}: expected {expected}, found {found}",
        "use a codec that takes keys as they are cached, such as int4-g64 or q4_0",
    )


def _tables_in_use(model: Any) -> List["torch.Tensor"]:
    """Every rotary table, each once."""
    import torch

    tables: List[torch.Tensor] = []
    for name, buffer in model.named_buffers():
        last = name.rpartition(".")[2]
        if last.endswith("inv_freq") and "original" not in last:
            table = buffer.detach().float().cpu().flatten()
            if not any(torch.equal(table, known) for known in tables):
                tables.append(table)
    return tables


def _offset_turned_back(key: "torch.Tensor", table: "torch.Tensor") -> float:
    """How far keys [1, kv_heads, tokens, head_dim] of one token are from the first of them once
    turned back, as a share of the largest: 0 where the table is theirs."""
    import torch

    x = key[0].cpu().double()
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    angles = positions[:, None] * table.double()
    low, high = x.chunk(2, dim=-1)
    turned = torch.cat(
        [low * angles.cos() + high * angles.sin(), high * angles.cos() - low * angles.sin()], -1
    )
    largest = float(x.abs().max())
    return float((turned - turned[:, :1]).abs().max()) / largest if largest > 0.0 else 0.0
