"""Codecs as ``kv-compress`` knows them, asked with tensors of eight values: before a model is
loaded, so that a mistyped name costs no time."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence

from .compression_bridge import CompressionError, run_kv_compress

#: The metadata entry that holds the rotary embeddings of a file's keys, as ``kvgauge extract``
#: writes it.
_ORIGIN = "kvgauge.extract"
_CHANNELS = 8


@dataclass(frozen=True)
class Codec:
    """A codec's name as ``kv-compress`` prints it, and whether it takes keys as they were before
    RoPE, for which a file has to say what they were rotated by."""

    name: str
    needs_rotation: bool


def ask(name: str, layers: Optional[int] = None) -> Codec:
    """``layers``: of the model, where it is known. Raises ``CompressionError`` where there is no such
    codec, or it names layers that are not there."""
    layers = layers or _layers_named(name)
    with tempfile.TemporaryDirectory(prefix="kvgauge-") as folder:
        path = os.path.join(folder, "probe.safetensors")
        arguments = ["-input", path, "-metrics-only", f"--codec={name}"]
        try:
            _write_probe(path, layers, None)
            result, rotated = _run(arguments), False
        except CompressionError as error:
            if "prerope" not in error.message:
                raise _without(path, error) from error
            _write_probe(path, layers, [1.0] * (_CHANNELS // 2))
            try:
                result, rotated = _run(arguments), True
            except CompressionError as other:
                raise _without(path, other) from other
    printed = result.get("codec")
    return Codec(printed if isinstance(printed, str) else name, rotated)


def rotation_metadata(frequencies: Sequence[float]) -> Dict[str, str]:
    """Metadata of a file whose keys were all rotated by one table: radians a position, one for
    channels i and i + head_dim / 2."""
    return origin_metadata({"rope_frequencies": list(frequencies)})


def origin_metadata(fields: Mapping[str, Any]) -> Dict[str, str]:
    """Metadata of a file with these fields of the entry that ``kvgauge extract`` writes; see
    docs/kv-compress.md."""
    return {_ORIGIN: json.dumps(dict(fields))}


def _run(arguments: Sequence[str]) -> Dict[str, Any]:
    return run_kv_compress(list(arguments))


def _without(path: str, error: CompressionError) -> CompressionError:
    """The probe is nobody's file."""
    message = error.message.replace(f"{path}: ", "")
    return CompressionError(message, error.hint, error.exit_status)


def _layers_named(name: str) -> int:
    """More layers than a name names, ``NAME@0,4-7,-1``: enough to have them all, and others."""
    lists = re.findall(r"@([-0-9,]+)", name)
    numbers = [int(number) for layers in lists for number in re.findall(r"[0-9]{1,4}", layers)]
    return 2 * max(numbers, default=0) + 3 if lists else 1


def _write_probe(path: str, layers: int, frequencies: Optional[Sequence[float]]) -> None:
    size = 4 * _CHANNELS
    names = [f"layer.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    header: Dict[str, Any] = {
        name: {
            "dtype": "F32",
            "shape": [1, 1, _CHANNELS],
            "data_offsets": [index * size, (index + 1) * size],
        }
        for index, name in enumerate(names)
    }
    if frequencies is not None:
        header["__metadata__"] = rotation_metadata(frequencies)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + bytes(len(names) * size))
