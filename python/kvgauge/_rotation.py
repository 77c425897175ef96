"""What a model of transformers rotates its keys by, for codecs that turn them back.

A file has one table of frequencies for all its layers, one for channels i and i + head_dim / 2 of
every head. Whether a model is like that is not read off its config: it is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List

from ._model import forward
from ._problem import Problem
from .cache import cache_layers, dynamic_cache

if TYPE_CHECKING:
    import torch

#: Of the largest key: far above what rounding of angles does, far below what a wrong table does.
_TOLERANCE = 2e-3


def rotation_frequencies(model: Any, token: int, tokens: int, codec: str) -> List[float]:
    """Radians a position of the model's keys in a prefix of as many tokens.

    ``codec`` is the one that needs them. Raises :class:`Problem` where there is no such table.
    """
    import torch

    with torch.inference_mode():
        # A token repeated: every position sees the same, whatever it attends to, so that keys
        # differ by their rotation alone.
        ids = torch.full((1, tokens), token, device=model.device)
        _, cache = forward(model, ids, dynamic_cache([]))
    layers = cache_layers(cache)
    # Read now: some tables follow the length of what went through.
    tables = _tables(model)
    found = f"in {type(model).__name__}"
    if not tables:
        raise _refused(codec, "keys rotated by their position", f"no rotary table {found}")
    if len(tables) > 1:
        raise _refused(
            codec, "one rotary table for all layers", f"{len(tables)} different ones {found}"
        )
    head_dim = layers[0][0].shape[3]
    if 2 * len(tables[0]) != head_dim:
        raise _refused(
            codec,
            f"a rotary table for all {head_dim} channels of a head",
            f"one for {2 * len(tables[0])} {found}",
        )
    # Attention sinks let in less at later positions: beyond the first layer nothing is the same.
    has_sinks = any("sink" in name for name, _ in model.named_parameters())
    for index, (key, _) in enumerate(layers[:1] if has_sinks else layers):
        if not _turns_back(key, tables[0]):
            raise _refused(
                codec,
                "keys that the model's rotary table turns back in every layer, channels i and "
                "i + head_dim / 2 a pair",
                f"others in layer {index} {found}",
            )
    return [float(frequency) for frequency in tables[0].tolist()]


def _refused(codec: str, expected: str, found: str) -> Problem:
    return Problem(
        f"codec {codec}: expected {expected}, found {found}",
        "use a codec that takes keys as they are cached, such as int4-g64 or q4_0",
    )


def _tables(model: Any) -> List["torch.Tensor"]:
    """Every rotary table in use, each once."""
    import torch

    tables: List[torch.Tensor] = []
    for name, buffer in model.named_buffers():
        last = name.rpartition(".")[2]
        if last.endswith("inv_freq") and "original" not in last:
            table = buffer.detach().float().cpu().flatten()
            if not any(torch.equal(table, known) for known in tables):
                tables.append(table)
    return tables


def _turns_back(key: "torch.Tensor", table: "torch.Tensor") -> bool:
    """Whether keys [1, kv_heads, tokens, head_dim] of one token are the same once turned back."""
    import torch

    x = key[0].cpu().double()
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    angles = positions[:, None] * table.double()
    low, high = x.chunk(2, dim=-1)
    turned = torch.cat(
        [low * angles.cos() + high * angles.sin(), high * angles.cos() - low * angles.sin()], -1
    )
    off = (turned - turned[:, :1]).abs().max()
    return float(off) <= _TOLERANCE * float(x.abs().max())
