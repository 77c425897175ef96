"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import BinaryIO, Iterator, Union

StrPath = Union[str, "os.PathLike[str]"]


def check_target(path: StrPath) -> None:
    """Raises ``OSError`` where ``path`` is something that a file cannot or should not replace."""
    target = os.fspath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{target}: expected the name of a file, found a folder")
    # A rename would put an ordinary file in the place of /dev/null.
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(f"{target}: expected an ordinary file, found a device or pipe")
    folder = os.path.dirname(target) or os.curdir
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{target}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{target}: the folder {folder} cannot be written to")


@contextmanager
def whole_file(path: StrPath, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write to, which takes the place of ``path`` when the block ends, and
    leaves nothing where the block raises.

    ``sync``: the bytes are on the disk before the name is, and the name when the block has ended.
    """
    check_target(path)
    # A link stays a link: what it leads to is replaced.
    target = os.path.realpath(path)
    # In the same folder, so that the rename stays on one file system. Not tempfile's 0600: the
    # result is an ordinary file, readable as the umask says.
    temporary = os.path.join(os.path.dirname(target), f".kvgauge-{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, target)
        if sync and os.name == "posix":
            _sync_folder(os.path.dirname(target) or os.curdir)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _sync_folder(folder: str) -> None:
    """Where it cannot be opened or synced, the file has its name all the same."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
