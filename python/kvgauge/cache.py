"""KV caches of transformers as safetensors files, and back.

In a file each layer is two tensors, ``layer.{i}.key`` and ``layer.{i}.value``, in the order of
the layers: keys as cached, after RoPE. A batch of one is stored as [kv_heads, tokens, head_dim],
which is what ``kvgauge extract`` writes; a larger one as [batch, kv_heads, tokens, head_dim].
These are the files that ``kv-compress`` takes and gives.

torch, transformers and safetensors are imported when a function that needs them is called.
"""

from __future__ import annotations

import json
import os
import re
import struct
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ._whole_file import whole_file

if TYPE_CHECKING:
    import torch

__all__ = ["CacheError", "cache_layers", "load_kv_cache", "save_kv_cache"]

StrPath = Union[str, "os.PathLike[str]"]
#: One layer's keys and values, each [batch, kv_heads, tokens, head_dim].
Layer = Tuple["torch.Tensor", "torch.Tensor"]
#: A torch dtype or its name, long or short: ``torch.float16``, ``"float16"``, ``"f16"``.
FloatType = Union[str, "torch.dtype"]

#: The metadata entry of compressed files, and how their header begins.
_COMPRESSED = "kvgauge"
_OPENING = b'{"__metadata__":{"kvgauge":"{\\"header_crc32\\":\\"'
_NAME = re.compile(r"layer\.(0|[1-9][0-9]*)\.(key|value)")
_SHORT_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_STORED_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class CacheError(ValueError):
    """A cache or a file that does not hold what it should; the message says where and what."""


def save_kv_cache(
    cache: Any,
    path: StrPath,
    *,
    dtype: Optional[FloatType] = None,
    metadata: Optional[Mapping[str, str]] = None,
    sync: bool = True,
) -> None:
    """Writes the keys and values of ``cache`` to a safetensors file.

    ``cache``: what :func:`cache_layers` takes; it is not changed.
    ``dtype``: the type in the file, F32, F16 or BF16; default: the tensors' own.
    ``metadata``: strings to store in the file's header; ``kv-compress`` keeps them.
    ``sync``: wait until the file is on the disk and would survive a power cut.

    An existing file is replaced. The file is there whole or not at all; the same cache gives the
    same bytes. Raises :class:`CacheError`, and ``OSError`` from writing.
    """
    save_layers(cache_layers(cache), path, dtype, metadata or {}, sync)


def save_layers(
    layers: Sequence[Layer],
    path: StrPath,
    dtype: Optional[FloatType],
    metadata: Mapping[str, str],
    sync: bool,
) -> None:
    """:func:`save_kv_cache` of a cache as its layers."""
    stored: List[Tuple[str, torch.Tensor]] = []
    for index, (key, value) in enumerate(layers):
        for part, tensor in (("key", key), ("value", value)):
            name = f"layer.{index}.{part}"
            plain = tensor[0] if tensor.shape[0] == 1 else tensor
            stored.append((name, _converted(name, plain, dtype)))
    _write_safetensors(path, stored, dict(metadata), sync)


def load_kv_cache(
    path: StrPath,
    *,
    device: Union[str, "torch.device"] = "cpu",
    dtype: Optional[FloatType] = None,
    legacy: bool = False,
) -> Any:
    """Reads a file of :func:`save_kv_cache`, ``kvgauge extract`` or ``kv-compress -decompress``.

    ``device``: where the tensors go. ``dtype``: their type there; default: the file's. A model
    wants the type it computes in.
    ``legacy``: return the tuple of (key, value) pairs of old transformers instead.

    Returns a ``DynamicCache`` of the installed transformers, ready as ``past_key_values``; every
    tensor is [batch, kv_heads, tokens, head_dim] and shares no memory with the file. Tensors of
    other names are left alone. Raises :class:`CacheError`, and ``OSError`` from reading.
    """
    found = load_layers(path, device, dtype)
    missing = next((index for index in range(max(found)) if index not in found), None)
    place = os.fspath(path)
    if missing is not None:
        raise CacheError(f"{place}: expected a tensor layer.{missing}.key, found none")
    try:
        layers = cache_layers(list(found.values()))
    except CacheError as error:
        raise CacheError(f"{place}: {error}") from None
    return tuple(layers) if legacy else dynamic_cache(layers)


def cache_layers(cache: Any) -> List[Layer]:
    """The (key, value) pairs of a cache, by layer: the cache's own tensors, not copies, each
    [batch, kv_heads, tokens, head_dim].

    Takes a ``DynamicCache`` of any transformers from 4.36 on, a tuple or list of pairs, and
    anything that iterates over pairs. Sliding-window caches are accepted while they still hold
    every token. Raises :class:`CacheError` for caches whose plain tensors are not the whole
    content (quantised, static, recurrent, a full sliding window) and where a layer is missing or
    shapes do not fit together.
    """
    layers = [_checked_layer(index, pair) for index, pair in enumerate(_pairs(cache))]
    if not layers:
        raise CacheError(f"{type(cache).__name__}: expected at least one layer, found none")
    first = layers[0][0].shape
    for index, (key, _) in enumerate(layers):
        # Heads and head size may differ between layers; batch and tokens may not.
        if (key.shape[0], key.shape[2]) != (first[0], first[2]):
            raise CacheError(
                f"layer {index}: expected a batch of {first[0]} and {first[2]} tokens as in layer "
                f"0, found {key.shape[0]} and {key.shape[2]}"
            )
    return layers


def dynamic_cache(layers: Sequence[Layer]) -> Any:
    """A ``DynamicCache`` of the installed transformers that holds these layers. Growing it leaves
    the tensors given here unchanged."""
    try:
        from transformers import DynamicCache
    except ImportError as error:
        raise ImportError(
            "a DynamicCache needs transformers 4.36 or newer: pip install 'kvgauge[transformers]'; "
            "legacy=True does without"
        ) from error
    cache = DynamicCache()
    for index, (key, value) in enumerate(layers):
        cache.update(key, value, index)
    return cache


def _pairs(cache: Any) -> List[Any]:
    kind = type(cache).__name__
    if cache is None:
        raise CacheError("expected a cache, found None: was the model run with use_cache=True?")
    if hasattr(cache, "self_attention_cache"):
        raise CacheError(
            f"{kind}: expected the cache of one decoder, found an encoder-decoder's; pass its "
            "self_attention_cache"
        )
    if getattr(cache, "layers", None) is not None:
        return [_plain_layer(kind, index, layer) for index, layer in enumerate(cache.layers)]
    if hasattr(cache, "key_cache") and hasattr(cache, "value_cache"):
        return _plain_lists(kind, cache)
    if hasattr(cache, "to_legacy_cache"):
        return list(cache.to_legacy_cache())
    try:
        return list(cache)
    except TypeError:
        raise CacheError(
            f"{kind}: expected a cache of transformers or a sequence of (key, value) pairs"
        ) from None


def _plain_layer(kind: str, index: int, layer: Any) -> Tuple[Any, Any]:
    """transformers 4.54 and newer: one object a layer."""
    place = f"{kind}, layer {index} ({type(layer).__name__})"
    _refuse_other_content(place, layer)
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if _has_tokens(keys) and hasattr(layer, "get_seq_length"):
        _check_held(place, keys, layer.get_seq_length())
    return keys, values


def _plain_lists(kind: str, cache: Any) -> List[Any]:
    """transformers 4.36 to 4.53: two lists of tensors."""
    _refuse_other_content(kind, cache)
    keys, values = list(cache.key_cache), list(cache.value_cache)
    if len(keys) != len(values):
        raise CacheError(
            f"{kind}: expected as many keys as values, found {len(keys)} and {len(values)}"
        )
    for index, key in enumerate(keys):
        if _has_tokens(key) and hasattr(cache, "get_seq_length"):
            _check_held(f"{kind}, layer {index}", key, cache.get_seq_length(index))
    return list(zip(keys, values))


def _refuse_other_content(place: str, holder: Any) -> None:
    """Some caches keep tensors under the usual names that are only a part of their content."""
    for attribute, what in (
        ("_quantized_keys", "a quantised one"),
        ("_quantized_key_cache", "a quantised one"),
        ("max_cache_len", "a static one, whose unused places hold zeros"),
        ("conv_states", "one with recurrent state"),
        ("indexer_keys", "one with an index of its own"),
    ):
        if getattr(holder, attribute, None) is not None:
            raise CacheError(f"{place}: expected a cache of plain keys and values, found {what}")


def _has_tokens(keys: Any) -> bool:
    """Nothing at all and empty lists stand for a layer never written, which is found later."""
    return len(getattr(keys, "shape", ())) == 4


def _check_held(place: str, keys: Any, seen: Any) -> None:
    held = keys.shape[-2]
    if int(seen) != held:
        raise CacheError(
            f"{place}: expected the keys of all {int(seen)} tokens seen, found {held}: a sliding "
            "window that is full has dropped the others"
        )


def _checked_layer(index: int, pair: Any) -> Layer:
    import torch

    # Newer caches iterate over (key, value, sliding window or None).
    is_pair = isinstance(pair, (tuple, list)) and (
        len(pair) == 2 or (len(pair) == 3 and (pair[2] is None or pair[2].ndim == 0))
    )
    if not is_pair:
        found = f"{len(pair)} of them" if isinstance(pair, (tuple, list)) else type(pair).__name__
        raise CacheError(f"layer {index}: expected a key and a value, found {found}")
    key, value = pair[0], pair[1]
    for part, tensor in (("key", key), ("value", value)):
        if tensor is None or (hasattr(tensor, "__len__") and len(tensor) == 0):
            raise CacheError(f"layer {index} {part}: missing, nothing was ever stored in it")
        if not isinstance(tensor, torch.Tensor):
            raise CacheError(
                f"layer {index} {part}: expected a tensor, found {type(tensor).__name__}"
            )
        if tensor.ndim != 4:
            raise CacheError(
                f"layer {index} {part}: expected [batch, kv_heads, tokens, head_dim], found "
                f"{list(tensor.shape)}"
            )
        if tensor.numel() == 0:
            raise CacheError(f"layer {index} {part}: empty, found {list(tensor.shape)}")
    if key.shape != value.shape:
        raise CacheError(
            f"layer {index}: expected keys and values of one shape, found {list(key.shape)} and "
            f"{list(value.shape)}"
        )
    return key, value


def _dtype(dtype: FloatType) -> "torch.dtype":
    import torch

    name = str(dtype)
    name = name[len("torch.") :] if name.startswith("torch.") else name
    name = _SHORT_NAMES.get(name.lower(), name)
    if name not in _STORED_NAMES:
        raise CacheError(f"dtype: expected float32, float16 or bfloat16, found {dtype}")
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def _converted(name: str, tensor: "torch.Tensor", dtype: Optional[FloatType]) -> "torch.Tensor":
    """On the CPU, contiguous, in a type that a file can hold."""
    import torch

    if not tensor.is_floating_point() or (dtype is None and tensor.dtype == torch.float64):
        raise CacheError(f"{name}: expected float32, float16 or bfloat16, found {tensor.dtype}")
    plain = tensor.detach().to("cpu")
    converted = plain.to(plain.dtype if dtype is None else _dtype(dtype)).contiguous()
    overflown = torch.isinf(converted) & ~torch.isinf(plain)
    if bool(overflown.any()):
        raise CacheError(
            f"{name}: {float(plain[overflown].abs().max())} does not fit into {converted.dtype}; "
            "bfloat16 has the range"
        )
    _dtype(converted.dtype)
    return converted


def _write_safetensors(
    path: StrPath,
    tensors: Sequence[Tuple[str, "torch.Tensor"]],
    metadata: Dict[str, str],
    sync: bool,
) -> None:
    """Tensor after tensor in the order given, which safetensors' own writer would sort by name:
    layer 10 before layer 2."""
    import torch

    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"metadata: expected strings, found {key!r}: {text!r}")
    if _COMPRESSED in metadata:
        raise CacheError(f"metadata: the key {_COMPRESSED!r} is that of compressed files")
    header: Dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in tensors:
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _STORED_NAMES[str(tensor.dtype)[len("torch.") :]],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    with whole_file(path, sync=sync) as file:
        file.write(struct.pack("<Q", len(head)))
        file.write(head)
        for _, tensor in tensors:
            # As integers of the same width, since numpy has no bfloat16; the file is little-endian.
            width = tensor.element_size()
            bits = tensor.view(torch.int32 if width == 4 else torch.int16).numpy()
            file.write(bits.astype(f"<i{width}", copy=False).data)


def load_layers(
    path: StrPath, device: Union[str, "torch.device"], dtype: Optional[FloatType]
) -> Dict[int, Layer]:
    """The layers of a file of :func:`save_layers` by index, ascending; at least one."""
    from safetensors import SafetensorError, safe_open

    place = os.fspath(path)
    wanted = None if dtype is None else _dtype(dtype)
    # safetensors' own error for a missing file does not name it on every platform.
    with open(place, "rb") as start:
        compressed = start.read(8 + len(_OPENING))[8:] == _OPENING
    try:
        with safe_open(place, framework="pt", device="cpu") as file:
            if compressed:
                raise CacheError(
                    f"{place}: expected plain tensors, found a compressed file; "
                    "decompress_kv_cache turns it back"
                )
            names = list(file.keys())
            parts = [match for match in map(_NAME.fullmatch, names) if match]
            indices = sorted({int(part[1]) for part in parts})
            if not indices:
                raise CacheError(f"{place}: expected tensors layer.0.key and so on, found {names}")
            present = {part[0] for part in parts}
            layers: Dict[int, Layer] = {}
            for index in indices:
                pair = []
                for name in (f"layer.{index}.key", f"layer.{index}.value"):
                    if name not in present:
                        raise CacheError(f"{place}: expected a tensor {name}, found none")
                    tensor = _batched(place, name, file.get_tensor(name))
                    # A tensor that still maps the file would change, or block, with it.
                    pair.append(tensor.to(device=device, dtype=wanted or tensor.dtype, copy=True))
                layers[index] = (pair[0], pair[1])
    except SafetensorError as error:
        raise CacheError(f"{place}: not a safetensors file, or a damaged one: {error}") from error
    return layers


def _batched(place: str, name: str, tensor: "torch.Tensor") -> "torch.Tensor":
    if not tensor.is_floating_point():
        raise CacheError(f"{place}: {name}: expected a float tensor, found {tensor.dtype}")
    if tensor.ndim == 3:
        return tensor.unsqueeze(0)
    if tensor.ndim == 4:
        return tensor
    raise CacheError(
        f"{place}: {name}: expected [kv_heads, tokens, head_dim], with or without a batch "
        f"dimension in front, found {list(tensor.shape)}"
    )
