"""The package's two binaries, ``kv-compress`` and ``kvgauge``: where they are, and one run of each.

Every run is a subprocess without a shell. Nothing is kept between runs, so that they may happen in
several threads at once. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Callable, Dict, Iterator, List, NoReturn, Optional, Sequence, Tuple

#: How much of a broken program's output an error message quotes, characters.
_QUOTED = 200

#: A message and a hint in, the same in other words out.
Reword = Callable[[str, Optional[str]], Tuple[str, Optional[str]]]


class CompressionError(RuntimeError):
    """A binary of kvgauge did not do what it was asked to.

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
    """There is no such binary to run."""


@dataclass(frozen=True)
class Binary:
    """A binary of the wheel, looked for in this order: the path in an environment variable (where
    it is set, nothing else is tried); where the wheel put it, by the installer's record; the
    scripts folders of this Python; ``PATH``."""

    name: str
    #: The environment variable.
    variable: str

    def find(self) -> str:
        """Its path. Raises :class:`BinaryNotFound`."""
        asked = os.environ.get(self.variable)
        if asked:
            if not _is_program(asked):
                raise BinaryNotFound(
                    f"{self.variable}: expected the path of an executable file, found {asked!r}",
                    f"point {self.variable} at {self.name}, or unset it",
                )
            return asked
        file_name = self.name + (sysconfig.get_config_var("EXE") or "")
        candidates = [os.path.join(folder, file_name) for folder in _scripts_folders()]
        for candidate in (*_installed(file_name), *candidates):
            if _is_program(candidate):
                return candidate
        on_path = shutil.which(self.name)
        if on_path is None:
            raise BinaryNotFound(
                f"{self.name}: found neither in this Python's scripts folders nor on PATH",
                f"install kvgauge, or set {self.variable} to the binary's path",
            )
        return on_path

    def run(
        self,
        arguments: Sequence[str],
        *,
        standard_input: bytes = b"",
        accepted: Sequence[int] = (0,),
        reword: Optional[Reword] = None,
    ) -> Tuple[int, bytes]:
        """Exit status, one of those ``accepted``, and standard output. Raises
        :class:`CompressionError` for any other status, with the binary's own message and hint,
        which go through ``reword``."""
        path = self.find()
        try:
            done = subprocess.run(
                [path, *arguments], input=standard_input, capture_output=True, check=False
            )
        except OSError as error:
            raise CompressionError(
                f"{path}: cannot be run: {error.strerror or error}",
                "is it built for this machine, and may you execute it?",
            ) from error
        if done.returncode not in accepted:
            stderr = done.stderr.decode("utf-8", "replace")
            raise self._failure(path, done.returncode, stderr, reword)
        return done.returncode, done.stdout

    def _failure(
        self, path: str, status: int, stderr: str, reword: Optional[Reword]
    ) -> CompressionError:
        message, hint = _last_line(stderr, "error: "), _last_line(stderr, "hint: ")
        if message is not None and reword is not None:
            message, hint = reword(message, hint)
        if message is None:
            output = stderr.strip()
            ending = f"; its last words: {output[-_QUOTED:]}" if output else ""
            if status < 0:
                message = f"{path}: ended by {_signal_name(-status)}{ending}"
                hint = "SIGKILL is often the system's answer to a lack of memory"
            else:
                message = f"{path}: exit status {status} without an error message{ending}"
                hint = f"is this kvgauge's {self.name}? Run it with --version"
        return CompressionError(message, hint, status)


KV_COMPRESS = Binary("kv-compress", "KVGAUGE_KV_COMPRESS")
KVGAUGE = Binary("kvgauge", "KVGAUGE_BINARY")


def _installed(file_name: str) -> List[str]:
    """The paths in the installer's own record: no other package's program of that name."""
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


def _last_line(text: str, start: str) -> Optional[str]:
    lines = [line[len(start) :].strip() for line in text.splitlines() if line.startswith(start)]
    return lines[-1] if lines else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# Standard output of the binaries.


def json_object(binary: Binary, printed: bytes) -> Dict[str, Any]:
    """The one JSON object of a binary's standard output. Raises :class:`CompressionError`."""
    try:
        result = json.loads(printed, parse_constant=_refuse_constant)
    except ValueError as error:
        raise not_a_result(binary, f"expected one JSON object, {_quoted(printed)}") from error
    if not isinstance(result, dict):
        raise not_a_result(binary, f"expected one JSON object, {_quoted(printed)}")
    return result


def not_a_result(binary: Binary, what: str) -> CompressionError:
    return CompressionError(
        f"{binary.find()}: standard output: {what}",
        f"is this kvgauge's {binary.name}, of a version that fits this package?",
        0,
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _quoted(output: bytes) -> str:
    text = output.decode("utf-8", "replace").strip()
    if not text:
        return "found nothing"
    return f"found {text[:_QUOTED]!r}" + (" …" if len(text) > _QUOTED else "")
