"""The command ``kv-compress`` as Python functions: safetensors files in, safetensors files out.

Every call runs the binary once, as a subprocess without a shell, and turns the JSON object it
prints into :class:`CompressionMetrics`. Nothing is kept between calls, so that they may run in
several threads at once. Standard library only.

The binary is the one that the environment variable ``KVGAUGE_KV_COMPRESS`` names; else the one that
the wheel brought, or that lies in a scripts folder of this Python; else the one on ``PATH``.
"""

from __future__ import annotations

import operator
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from ._binaries import KV_COMPRESS, BinaryNotFound, CompressionError, json_object, not_a_result

__all__ = [
    "BinaryNotFound",
    "CompressionError",
    "CompressionMetrics",
    "compress_kv_cache",
    "decompress_kv_cache",
    "find_binary",
    "measure_kv_cache",
]

DEFAULT_GROUP_SIZE = 64

StrPath = Union[str, "os.PathLike[str]"]
#: One glob pattern or several.
Patterns = Union[str, Iterable[str]]


@dataclass(frozen=True)
class CompressionMetrics:
    """Sizes and quality, as one run of ``kv-compress`` reports them.

    ``compression_ratio``: original over compressed size; ``None`` where there is none.
    ``original_size_bytes``, ``compressed_size_bytes``: whole files, header included.
    ``rmse``: in the unit of the tensors. ``snr_db``: energy of the values over that of the error.
    ``cosine_similarity``: mean over last-dimension vectors. These three are over all compressed
    tensors and ``None`` where there is nothing to measure; ``snr_db`` is also ``None`` where there
    is no error at all (``rmse`` is 0 then).
    ``quality_passed``: cosine similarity and SNR reach the limits, those of ``kv-compress`` (0.991
    and 16 dB) where the call sets none; no error at all misses none. False where nothing was
    compressed, or less than was left for its type: of a cache in float8, say.

    Of :func:`decompress_kv_cache`: the figures measured when the file was made, which it carries.
    """

    compression_ratio: Optional[float]
    original_size_bytes: int
    compressed_size_bytes: int
    rmse: Optional[float]
    snr_db: Optional[float]
    cosine_similarity: Optional[float]
    quality_passed: bool


def compress_kv_cache(
    input_path: StrPath,
    output_path: StrPath,
    group_size: int = DEFAULT_GROUP_SIZE,
    *,
    codec: Optional[str] = None,
    rope_theta: Optional[float] = None,
    rope_channels: Optional[int] = None,
    rope_pairs: Optional[str] = None,
    include: Patterns = (),
    exclude: Patterns = (),
    layout: Optional[str] = None,
    kv_axis: Optional[int] = None,
    head_dim: Optional[int] = None,
    pack: bool = False,
    min_cosine: Optional[float] = None,
    min_snr_db: Optional[float] = None,
    threads: Optional[int] = None,
    force: bool = False,
    sync: bool = True,
) -> CompressionMetrics:
    """Compresses the float tensors of a safetensors file into another safetensors file.

    ``group_size``: values that share one scale, in the default codec. ``codec``: a codec by its
    name instead, such as ``"int4-g32"`` or ``"k:int4-g32/v:f16"``; it carries its own group size,
    so the two exclude each other. ``rope_theta``: base of the rotary embedding that the keys went
    through, for codecs that take them back, such as ``"kvgauge4"``; not needed for files that
    ``kvgauge extract`` wrote. ``rope_channels``: how many channels of a head rotate, from the first
    on, where it is not all of them; 0 for keys that do not rotate. ``rope_pairs``: which rotate
    together, ``"halves"`` unless it is ``"neighbours"``.
    ``include``, ``exclude``: glob patterns of tensor names; what they leave out passes through
    unchanged, as do tensors that are not F16, BF16 or F32, single values, and tensors that would
    grow.
    ``layout``: the order of the tensors' last axes, ``"heads-tokens-dim"`` as transformers has it,
    unless it is ``"tokens-heads-dim"``, as in vLLM and LMCache. ``kv_axis``: the axis, counted from
    0, that has keys at 0 and values at 1, where a tensor holds both. ``head_dim``: how long the
    heads are, where they share the last axis. They hold for every tensor that is compressed; the
    file says them, and restored tensors have the layout of the original ones.
    ``pack``: entropy-code what is stored, without loss: a smaller file, which takes longer.
    ``min_cosine``, ``min_snr_db``: limits that ``quality_passed`` reports on, 0.991 and 16 dB
    unless given; missing one is not an error.
    ``force``: replace an existing output file. Without it that is an error, as on the command
    line: an overwritten cache cannot be got back.
    ``sync``: wait until the file is on the disk and would survive a power cut. Whole or absent it
    is either way.

    Raises :class:`CompressionError` with the binary's message, :class:`BinaryNotFound`, and
    ``ValueError`` for ``codec`` together with ``group_size``. After an error no output is there
    that was not there before.
    """
    arguments = ["-input", _path(input_path), "-output", _path(output_path)]
    arguments += _codec_arguments(group_size, codec, include, exclude, threads)
    arguments += _rotary_arguments(rope_theta, rope_channels, rope_pairs)
    arguments += _layout_arguments(layout, kv_axis, head_dim) + (["--pack"] if pack else [])
    arguments += _limit_arguments(min_cosine, min_snr_db)
    return _metrics(run_kv_compress(arguments + _writing_arguments(force, sync)))


def decompress_kv_cache(
    input_path: StrPath,
    output_path: StrPath,
    *,
    threads: Optional[int] = None,
    force: bool = False,
    sync: bool = True,
) -> CompressionMetrics:
    """Turns what :func:`compress_kv_cache` wrote back into an ordinary safetensors file: the same
    tensor names, types and shapes, and the original file's metadata.

    ``threads``, ``force``, ``sync`` and errors: as in :func:`compress_kv_cache`. A damaged input
    is an error.
    """
    arguments = ["-decompress", "-input", _path(input_path), "-output", _path(output_path)]
    arguments += _thread_arguments(threads)
    return _metrics(run_kv_compress(arguments + _writing_arguments(force, sync)))


def measure_kv_cache(
    input_path: StrPath,
    group_size: int = DEFAULT_GROUP_SIZE,
    *,
    codec: Optional[str] = None,
    rope_theta: Optional[float] = None,
    rope_channels: Optional[int] = None,
    rope_pairs: Optional[str] = None,
    include: Patterns = (),
    exclude: Patterns = (),
    layout: Optional[str] = None,
    kv_axis: Optional[int] = None,
    head_dim: Optional[int] = None,
    pack: bool = False,
    min_cosine: Optional[float] = None,
    min_snr_db: Optional[float] = None,
    threads: Optional[int] = None,
) -> CompressionMetrics:
    """The metrics that :func:`compress_kv_cache` would report, with nothing written."""
    arguments = ["-input", _path(input_path), "-metrics-only"]
    arguments += _codec_arguments(group_size, codec, include, exclude, threads)
    arguments += _rotary_arguments(rope_theta, rope_channels, rope_pairs)
    arguments += _layout_arguments(layout, kv_axis, head_dim) + (["--pack"] if pack else [])
    return _metrics(run_kv_compress(arguments + _limit_arguments(min_cosine, min_snr_db)))


def find_binary() -> str:
    """The path of the ``kv-compress`` that the other functions run; see the module's head.

    Raises :class:`BinaryNotFound`.
    """
    return KV_COMPRESS.find()


def run_kv_compress(arguments: List[str]) -> Dict[str, Any]:
    """Runs the binary and returns the whole JSON object it prints, keys beyond the seven of
    :class:`CompressionMetrics` included. Raises what :func:`compress_kv_cache` raises.
    """
    _, printed = KV_COMPRESS.run(arguments, reword=_in_python)
    return json_object(KV_COMPRESS, printed)


def _path(path: StrPath) -> str:
    text = os.fsdecode(path)
    # A name such as `-x.safetensors` must not be read as an option.
    return os.path.join(os.curdir, text) if text.startswith("-") else text


def _codec_arguments(
    group_size: int,
    codec: Optional[str],
    include: Patterns,
    exclude: Patterns,
    threads: Optional[int],
) -> List[str]:
    arguments = []
    size = operator.index(group_size)
    if codec is None:
        arguments += ["-group-size", str(size)]
    elif size != DEFAULT_GROUP_SIZE:
        raise ValueError(
            f"codec {codec!r} carries its own group size: leave group_size at its default, "
            f"{DEFAULT_GROUP_SIZE}, found {size}"
        )
    else:
        arguments.append(f"--codec={codec}")
    for option, patterns in (("--include", include), ("--exclude", exclude)):
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            arguments.append(f"{option}={pattern}")
    return arguments + _thread_arguments(threads)


def _rotary_arguments(
    theta: Optional[float], channels: Optional[int], pairs: Optional[str]
) -> List[str]:
    arguments = [] if theta is None else [f"--rope-theta={float(theta)!r}"]
    if channels is not None:
        arguments.append(f"--rope-channels={operator.index(channels)}")
    return arguments if pairs is None else [*arguments, f"--rope-pairs={pairs}"]


def _layout_arguments(
    layout: Optional[str], kv_axis: Optional[int], head_dim: Optional[int]
) -> List[str]:
    arguments = [] if layout is None else [f"--layout={layout}"]
    for option, number in (("--kv-axis", kv_axis), ("--head-dim", head_dim)):
        if number is not None:
            arguments.append(f"{option}={operator.index(number)}")
    return arguments


def _thread_arguments(threads: Optional[int]) -> List[str]:
    return [] if threads is None else [f"--threads={operator.index(threads)}"]


def _limit_arguments(min_cosine: Optional[float], min_snr_db: Optional[float]) -> List[str]:
    limits = (("--min-cosine", min_cosine), ("--min-snr-db", min_snr_db))
    return [f"{option}={float(limit)!r}" for option, limit in limits if limit is not None]


def _writing_arguments(force: bool, sync: bool) -> List[str]:
    return (["--force"] if force else []) + ([] if sync else ["--no-sync"])


#: The keyword or function for each flag of the binary.
KEYWORDS: Mapping[str, str] = {
    "--codec": "codec=",
    "--decompress": "decompress_kv_cache",
    "--exclude": "exclude=",
    "--force": "force=True",
    "--group-size": "group_size=",
    "--head-dim": "head_dim=",
    "--help": "help(kvgauge.compress_kv_cache)",
    "--include": "include=",
    "--input": "input_path",
    "--kv-axis": "kv_axis=",
    "--layout": "layout=",
    "--metrics-only": "measure_kv_cache",
    "--min-cosine": "min_cosine=",
    "--min-snr-db": "min_snr_db=",
    "--no-sync": "sync=False",
    "--output": "output_path",
    "--pack": "pack=True",
    "--rope-channels": "rope_channels=",
    "--rope-pairs": "rope_pairs=",
    "--rope-theta": "rope_theta=",
    "--threads": "threads=",
}
#: With one dash or two, in quotes and with its value's name where clap speaks; none within a word
#: or a path.
_FLAG = re.compile(
    r"'(--[a-z-]+)(?: <[A-Z|]+>)?'|(?<![\w./-])(--?[a-z][a-z-]*[a-z])(?![\w./])(?: (?=\d))?"
)


def _in_python(message: str, hint: Optional[str]) -> Tuple[str, Optional[str]]:
    """The binary's words with keywords in the place of its flags. A keyword ends in an equals sign
    in a hint, which tells to set it, and not in a message, which only names it."""

    def reworded(text: str, end: str) -> str:
        def keyword(match: "re.Match[str]") -> str:
            flag = match[1] or match[2]
            known = KEYWORDS.get(flag if flag.startswith("--") else f"-{flag}")
            if known is not None:
                return known[:-1] + end if known.endswith("=") else known
            # None of the bridge's.
            return flag[2:].replace("-", "_") if flag.startswith("--") else flag

        return _FLAG.sub(keyword, text)

    return reworded(message, ""), None if hint is None else reworded(hint, "=")


def _metrics(result: Mapping[str, Any]) -> CompressionMetrics:
    def read(key: str, kinds: Tuple[type, ...], expected: str) -> Any:
        value = result.get(key, _MISSING)
        # bool is a subclass of int, and is no number here.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            found = "nothing" if value is _MISSING else repr(value)
            raise not_a_result(KV_COMPRESS, f"{key}: expected {expected}, found {found}")
        return value

    def number(key: str) -> Optional[float]:
        value = read(key, (int, float, type(None)), "a number or null")
        return None if value is None else float(value)

    def size(key: str) -> int:
        value = read(key, (int,), "a whole number")
        return int(value)

    return CompressionMetrics(
        compression_ratio=number("compression_ratio"),
        original_size_bytes=size("original_size_bytes"),
        compressed_size_bytes=size("compressed_size_bytes"),
        rmse=number("rmse"),
        snr_db=number("snr_db"),
        cosine_similarity=number("cosine_similarity"),
        quality_passed=bool(read("quality_passed", (bool,), "true or false")),
    )


_MISSING = object()
