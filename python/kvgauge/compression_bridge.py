"""The command ``kv-compress`` as Python functions: safetensors files in, safetensors files out.

Every call runs the binary once, as a subprocess without a shell, and turns the JSON object it
prints into :class:`CompressionMetrics`. Nothing is kept between calls, so that they may run in
several threads at once. Standard library only.

The binary is looked for in this order:

1. the path in the environment variable ``KVGAUGE_KV_COMPRESS``; where it is set, nothing else is
   tried;
2. where the wheel put it, by the installer's record, and the scripts folders of this Python;
3. ``PATH``.
"""

from __future__ import annotations

import json
import operator
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NoReturn, Optional, Tuple, Union

__all__ = [
    "BinaryNotFound",
    "CompressionError",
    "CompressionMetrics",
    "compress_kv_cache",
    "decompress_kv_cache",
    "find_binary",
    "measure_kv_cache",
]

BINARY_VARIABLE = "KVGAUGE_KV_COMPRESS"
DEFAULT_GROUP_SIZE = 64

_NAME = "kv-compress"
#: How much of a broken program's output an error message quotes, characters.
_QUOTED = 200

StrPath = Union[str, "os.PathLike[str]"]
#: One glob pattern or several.
Patterns = Union[str, Iterable[str]]


class CompressionError(RuntimeError):
    """``kv-compress`` did not do what it was asked to.

    ``message``: the binary's own ``error:`` line, without that word; or, where the binary could
    not say anything, what happened to it.
    ``hint``: its ``hint:`` line, or ``None``.
    ``exit_status``: 2, the request or the input is wrong; 3, anything else; negative, the signal
    that ended it; ``None``, it was never started.
    """

    def __init__(
        self, message: str, hint: Optional[str] = None, exit_status: Optional[int] = None
    ) -> None:
        # All of them in args, so that the error survives pickling between processes.
        super().__init__(message, hint, exit_status)
        self.message = message
        self.hint = hint
        self.exit_status = exit_status

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class BinaryNotFound(CompressionError):
    """No ``kv-compress`` to run."""


@dataclass(frozen=True)
class CompressionMetrics:
    """What one run of ``kv-compress`` reports.

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
    include: Patterns = (),
    exclude: Patterns = (),
    layout: Optional[str] = None,
    kv_axis: Optional[int] = None,
    head_dim: Optional[int] = None,
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
    ``kvgauge extract`` wrote.
    ``include``, ``exclude``: glob patterns of tensor names; what they leave out passes through
    unchanged, as do tensors that are not F16, BF16 or F32, single values, and tensors that would
    grow.
    ``layout``: the order of the tensors' last axes, ``"heads-tokens-dim"`` as transformers has it,
    unless it is ``"tokens-heads-dim"``, as in vLLM and LMCache. ``kv_axis``: the axis, counted from
    0, that has keys at 0 and values at 1, where a tensor holds both. ``head_dim``: how long the heads
    are, where they share the last axis. They hold for every tensor that is compressed; the file says
    them, and what is restored lies as it lay.
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
    arguments += _codec_arguments(group_size, codec, rope_theta, include, exclude, threads)
    arguments += _layout_arguments(layout, kv_axis, head_dim)
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
    include: Patterns = (),
    exclude: Patterns = (),
    layout: Optional[str] = None,
    kv_axis: Optional[int] = None,
    head_dim: Optional[int] = None,
    min_cosine: Optional[float] = None,
    min_snr_db: Optional[float] = None,
    threads: Optional[int] = None,
) -> CompressionMetrics:
    """What :func:`compress_kv_cache` would report, with nothing written."""
    arguments = ["-input", _path(input_path), "-metrics-only"]
    arguments += _codec_arguments(group_size, codec, rope_theta, include, exclude, threads)
    arguments += _layout_arguments(layout, kv_axis, head_dim)
    return _metrics(run_kv_compress(arguments + _limit_arguments(min_cosine, min_snr_db)))


def find_binary() -> str:
    """The path of the ``kv-compress`` that the other functions run; see the module's head.

    Raises :class:`BinaryNotFound`.
    """
    asked = os.environ.get(BINARY_VARIABLE)
    if asked:
        if not _is_program(asked):
            raise BinaryNotFound(
                f"{BINARY_VARIABLE}: expected the path of an executable file, found {asked!r}",
                f"point {BINARY_VARIABLE} at {_NAME}, or unset it",
            )
        return asked
    file_name = _NAME + (sysconfig.get_config_var("EXE") or "")
    candidates = [os.path.join(folder, file_name) for folder in _scripts_folders()]
    for candidate in (*_installed(file_name), *candidates):
        if _is_program(candidate):
            return candidate
    on_path = shutil.which(_NAME)
    if on_path is None:
        raise BinaryNotFound(
            f"{_NAME}: found neither in this Python's scripts folders nor on PATH",
            f"install kvgauge, or set {BINARY_VARIABLE} to the binary's path",
        )
    return on_path


def run_kv_compress(arguments: List[str]) -> Dict[str, Any]:
    """Runs the binary and returns the whole JSON object it prints, keys beyond the seven of
    :class:`CompressionMetrics` included. Raises what :func:`compress_kv_cache` raises.
    """
    binary = find_binary()
    try:
        done = subprocess.run(
            [binary, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise CompressionError(
            f"{binary}: cannot be run: {error.strerror or error}",
            "is it built for this machine, and may you execute it?",
        ) from error
    if done.returncode != 0:
        _raise_failure(binary, done.returncode, done.stderr.decode("utf-8", "replace"))
    try:
        result = json.loads(done.stdout, parse_constant=_refuse_constant)
    except ValueError as error:
        raise _not_a_result(binary, f"expected one JSON object, {_quote(done.stdout)}") from error
    if not isinstance(result, dict):
        raise _not_a_result(binary, f"expected one JSON object, {_quote(done.stdout)}")
    return result


def _installed(file_name: str) -> List[str]:
    """What the installer's own record says: no other package's program of that name."""
    try:
        files = metadata.files("kvgauge") or []
    except metadata.PackageNotFoundError:
        return []
    return [os.path.realpath(str(file.locate())) for file in files if file.name == file_name]


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _scripts_folders() -> Iterator[str]:
    """Where installers put scripts: for `pip install --target`, beside the package; then the
    environment's and the user's."""
    package = os.path.dirname(os.path.abspath(__file__))
    yield os.path.join(os.path.dirname(package), "bin")
    yield sysconfig.get_path("scripts")
    if sys.executable:
        yield os.path.dirname(sys.executable)
    if sys.platform == "darwin" and sysconfig.get_config_var("PYTHONFRAMEWORK"):
        user_scheme = "osx_framework_user"
    else:
        user_scheme = f"{os.name}_user"
    if user_scheme in sysconfig.get_scheme_names():
        yield sysconfig.get_path("scripts", scheme=user_scheme)


def _path(path: StrPath) -> str:
    text = os.fsdecode(path)
    # A name such as `-x.safetensors` must not be read as an option.
    return os.path.join(os.curdir, text) if text.startswith("-") else text


def _codec_arguments(
    group_size: int,
    codec: Optional[str],
    rope_theta: Optional[float],
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
    if rope_theta is not None:
        arguments.append(f"--rope-theta={float(rope_theta)!r}")
    for option, patterns in (("--include", include), ("--exclude", exclude)):
        for pattern in (patterns,) if isinstance(patterns, str) else patterns:
            arguments.append(f"{option}={pattern}")
    return arguments + _thread_arguments(threads)


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


def _raise_failure(binary: str, status: int, stderr: str) -> NoReturn:
    message = _in_python(_last_line(stderr, "error: "), end="")
    hint = _in_python(_last_line(stderr, "hint: "))
    if message is None:
        said = stderr.strip()
        ending = f"; its last words: {said[-_QUOTED:]}" if said else ""
        if status < 0:
            message = f"{binary}: ended by {_signal_name(-status)}{ending}"
            hint = "SIGKILL is often the system's answer to a lack of memory"
        else:
            message = f"{binary}: exit status {status} without an error message{ending}"
            hint = "is this kvgauge's kv-compress? Run it with --version"
    raise CompressionError(message, hint, status)


def _last_line(text: str, start: str) -> Optional[str]:
    lines = [line[len(start) :].strip() for line in text.splitlines() if line.startswith(start)]
    return lines[-1] if lines else None


#: What a flag of the binary is here.
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
    "--rope-theta": "rope_theta=",
    "--threads": "threads=",
}
#: With one dash or two, in quotes and with its value's name where clap speaks; none within a word
#: or a path.
_FLAG = re.compile(
    r"'(--[a-z-]+)(?: <[A-Z|]+>)?'|(?<![\w./-])(--?[a-z][a-z-]*[a-z])(?![\w./])(?: (?=\d))?"
)


def _in_python(text: Optional[str], end: str = "=") -> Optional[str]:
    """What the binary says of its flags, said of the keywords that they are here. ``end``: how
    a keyword ends, which a hint tells to set and an error only names."""

    def keyword(match: "re.Match[str]") -> str:
        flag = match[1] or match[2]
        known = KEYWORDS.get(flag if flag.startswith("--") else f"-{flag}")
        if known is not None:
            return known[:-1] + end if known.endswith("=") else known
        # None of the bridge's.
        return flag[2:].replace("-", "_") if flag.startswith("--") else flag

    return None if text is None else _FLAG.sub(keyword, text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _quote(output: bytes) -> str:
    text = output.decode("utf-8", "replace").strip()
    if not text:
        return "found nothing"
    return f"found {text[:_QUOTED]!r}" + (" …" if len(text) > _QUOTED else "")


def _not_a_result(binary: str, what: str) -> CompressionError:
    return CompressionError(
        f"{binary}: standard output: {what}",
        "is this kvgauge's kv-compress, of a version that fits this package?",
        0,
    )


def _metrics(result: Mapping[str, Any]) -> CompressionMetrics:
    def read(key: str, kinds: Tuple[type, ...], expected: str) -> Any:
        value = result.get(key, _MISSING)
        # bool is a subclass of int, and is no number here.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            found = "nothing" if value is _MISSING else repr(value)
            raise _not_a_result(_NAME, f"{key}: expected {expected}, found {found}")
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
