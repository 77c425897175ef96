"""Shared by the tests: where the package and the binaries are, and the meaning of a skip.

Binaries: ``KVGAUGE_KV_COMPRESS`` and ``KVGAUGE_BINARY``, else where the package looks, else
``target/release`` of this checkout. ``KVGAUGE_NO_SKIP=1`` turns a skip into a failure; one for
want of torch or transformers only with ``KVGAUGE_TORCH=1``. ``KVGAUGE_INSTALLED=1`` tests the
installed package instead of the one beside this folder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import struct
import sys
import sysconfig
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, Mapping, NoReturn, Optional, Tuple

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
CHECKOUT = PACKAGE_PARENT.parent
BUILTIN = CHECKOUT / "data" / "builtin"

if os.environ.get("KVGAUGE_INSTALLED") != "1":
    sys.path.insert(0, str(PACKAGE_PARENT))

import kvgauge  # noqa: E402
from kvgauge import BinaryNotFound  # noqa: E402
from kvgauge._binaries import KV_COMPRESS, KVGAUGE, Binary  # noqa: E402

_EXE = sysconfig.get_config_var("EXE") or ""


def skip(reason: str, *, for_torch: bool = False) -> NoReturn:
    strict = os.environ.get("KVGAUGE_NO_SKIP") == "1"
    if strict and (not for_torch or os.environ.get("KVGAUGE_TORCH") == "1"):
        raise AssertionError(f"would be skipped: {reason}")
    raise unittest.SkipTest(reason)


def need_modules(*names: str) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        optional = any(name in ("torch", "transformers") for name in missing)
        skip(f"no {' and no '.join(missing)} in this Python", for_torch=optional)


def _built(name: str) -> Optional[str]:
    target = os.environ.get("CARGO_TARGET_DIR") or str(CHECKOUT / "target")
    path = os.path.join(target, "release", name + _EXE)
    return path if os.path.isfile(path) else None


def need_kv_compress() -> str:
    """Its path, which the package finds too from here on."""
    return _need(KV_COMPRESS)


def need_kvgauge() -> str:
    """Its path, which the package finds too from here on."""
    return _need(KVGAUGE)


def _need(binary: Binary) -> str:
    installed = os.environ.get("KVGAUGE_INSTALLED") == "1"
    try:
        found = binary.find()
        # The wheel is tested, and no other program of that name.
        if installed and not os.environ.get(binary.variable):
            files = importlib.metadata.files("kvgauge") or []
            carried = {os.path.realpath(str(file.locate())) for file in files}
            beside = os.path.join(os.path.dirname(os.path.dirname(kvgauge.__file__)), "bin")
            if found not in carried and os.path.dirname(found) != beside:
                raise AssertionError(f"not the wheel's binary: {found}")
        return found
    except BinaryNotFound as error:
        if installed or os.environ.get(binary.variable):
            raise
        path = _built(binary.name)
        if path is None:
            skip(error.message)
        os.environ[binary.variable] = path
        return path


class FolderTest(unittest.TestCase):
    """Tests with an empty folder each."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kvgauge-test-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def environment(self, **variables: Optional[str]) -> None:
        """Sets variables, or unsets those given as None, until the test ends."""
        for name, value in variables.items():
            before = os.environ.get(name)
            self.addCleanup(_set_variable, name, before)
            _set_variable(name, value)

    def assert_only(self, *names: str) -> None:
        """Nothing but these files in the folder: no half file, no temporary one."""
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(names))


def _set_variable(name: str, value: Optional[str]) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def write_raw(
    path: Path,
    tensors: Mapping[str, Tuple[str, Tuple[int, ...], bytes]],
    metadata: Optional[Mapping[str, str]] = None,
) -> None:
    """A safetensors file from (dtype, shape, bytes): for types that numpy does not know."""
    header: Dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_raw(path: Path) -> Tuple[Dict[str, Any], Dict[str, bytes]]:
    """The header and each tensor's bytes, in the order of the header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    tensors = {
        name: data[slice(*entry["data_offsets"])]
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return header, tensors
