"""kv-compress against a decoder written from FORMAT.md alone (format_decoder.py).

The binary is the one that the other tests use (support.py).

How tensors are compared: the decoder's bytes with those that -decompress wrote, bit for bit. The
page lets a decoder give 0 or -0 where a packed value is zero: of tensors stored with codes, and of
no others, -0 is read as 0 on both sides first.

Cosines and sines of `prerope` are rounded to f32 from the f64 of two libraries. Where those differ,
by 2 ** -52 or so, one f32 in some 2 ** 28 may round the other way, which is one unit in its last
place. The inputs here are the same in every run, and none of them meets one.
"""

import copy
import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NO_SKIP = os.environ.get("KVGAUGE_NO_SKIP") == "1"
sys.path.insert(0, str(HERE))

try:
    import numpy as np
    import safetensors
    from safetensors.numpy import save_file
except ImportError as error:
    if NO_SKIP:
        raise
    raise unittest.SkipTest(f"needs numpy and safetensors: {error}") from None

import format_decoder  # noqa: E402
from format_decoder import BITS, CRC_AT, FormatError, Tensor, bf16_bits  # noqa: E402
from support import need_kv_compress  # noqa: E402

FLOATS = ("F16", "BF16", "F32")
F16_MAX, F32_MAX = 65504.0, float(np.finfo(np.float32).max)
GROUPS = (8, 9, 32, 64, 1000)
LENGTHS = (1, 2, 7, 8, 9, 17, 63, 64, 65, 127, 1000, 1001, 2999)


# Safetensors files, byte by byte


def to_bytes(values, dtype):
    """Values as the bytes of a float dtype, kept finite where they are."""
    values = np.asarray(values, np.float64)
    if dtype == "F16":
        values = np.where(np.isfinite(values), np.clip(values, -F16_MAX, F16_MAX), values)
        return values.astype("<f2").tobytes()
    values = np.where(np.isfinite(values), np.clip(values, -F32_MAX, F32_MAX), values)
    values = values.astype("<f4")
    return values.tobytes() if dtype == "F32" else bf16_bits(values).tobytes()


def floats(dtype, values, shape=None):
    values = np.asarray(values)
    return Tensor(dtype, tuple(values.shape if shape is None else shape), to_bytes(values, dtype))


def dump(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def serialize(tensors, metadata=None, header_order=None):
    """A safetensors file with the tensors (name -> Tensor) in the order given."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + len(tensor.data)
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    if header_order:
        header = {name: header[name] for name in header_order}
    if metadata is not None:
        header = {"__metadata__": metadata, **header}
    text = dump(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors.values())


def parse(file):
    """The tensors of a safetensors file in the order of the header, and its metadata."""
    (length,) = struct.unpack_from("<Q", file)
    header, data = json.loads(file[8 : 8 + length]), file[8 + length :]
    metadata = header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), data[start:end])
    return tensors, metadata


def positive_zeros(data, dtype):
    word, sign = ("<u4", 1 << 31) if dtype == "F32" else ("<u2", 1 << 15)
    bits = np.frombuffer(data, word).copy()
    bits[bits == sign] = 0
    return bits.tobytes()


# Compressed files, taken apart and put together again with the right checksums


def take_apart(file):
    (length,) = struct.unpack_from("<Q", file)
    header = json.loads(file[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["kvgauge"])
    return manifest, header, bytearray(file[8 + length :])


def put_together(manifest, header, data, edit=lambda text: text, padding=None):
    """The file, with the header's text changed by `edit` before its checksum is taken."""
    manifest = {**manifest, "header_crc32": "0" * 8} if "header_crc32" in manifest else manifest
    text = edit(dump({"__metadata__": {"kvgauge": dump(manifest)}, **header})).encode()
    text += b" " * (-len(text) % 8) if padding is None else padding(len(text))
    head = struct.pack("<Q", len(text)) + text
    crc = b"%08x" % zlib.crc32(head)
    return head[:CRC_AT] + crc + head[CRC_AT + 8 :] + bytes(data)


def make(tensors, codec="int4-g64", dots=".", version=1):
    """A compressed file of (name, dtype, shape, codec, exponent or None, parts).

    Parts are bytes, or from version 6 on (name, dtype, bytes of one value, bytes).
    """
    listed, parts = [], []
    for name, dtype, shape, stored, exponent, data in tensors:
        tensor = {"name": name, "dtype": dtype, "shape": shape}
        if version > 5:
            for part, part_dtype, width, content in data:
                size = [len(content) // width]
                parts.append((name + dots + part, part_dtype, size, content))
            data = [content for *_, content in data]
        tensor["crc32"] = f"{zlib.crc32(b''.join(data)):08x}"
        if stored != codec:
            tensor["codec"] = stored
        if exponent is not None:
            tensor["exponent"] = exponent
        listed.append(tensor)
        if version > 5:
            continue
        if stored == "none":
            parts.append((name, dtype, shape, *data))
        elif stored == "f16":
            parts.append((name + dots + "values", "F16", shape, *data))
        else:
            parts.append((name + dots + "scales", "F16", [len(data[0]) // 2], data[0]))
            parts.append((name + dots + "codes", "U8", [len(data[1])], data[1]))
    parts.sort(key=lambda part: -BITS[part[1]])
    header, at = {}, 0
    for name, dtype, shape, data in parts:
        end = at + len(data)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    manifest = {
        "header_crc32": "0" * 8,
        "format": "kvgauge-kv",
        "version": version,
        "codec": codec,
        "source_bytes": 0,
        "quality": {"rmse": None, "snr_db": None, "cosine_similarity": None},
        "tensors": listed,
    }
    return put_together(manifest, header, b"".join(part[3] for part in parts))


def fix_checksums(manifest, header, data):
    for tensor in manifest["tensors"]:
        name, crc = tensor["name"], 0
        endings = ("values", "sinks", "tail", "means", "tensor_scale", "column_scales", "scales", "minima",
                   "zeros", "codes")
        sides = ("", "key.", "value.")
        parts = (f"{name}.{side}{ending}" for side in sides for ending in endings)
        for part in (name, *parts):
            if part in header:
                crc = zlib.crc32(data[slice(*header[part]["data_offsets"])], crc)
        tensor["crc32"] = f"{crc:08x}"


class Hand(unittest.TestCase):
    """Files made here, with values worked out by hand: no binary."""

    def one(self, dtype, shape, codec, exponent, parts, expected):
        file = make([("x", dtype, shape, codec, exponent, parts)], codec)
        tensors, metadata = format_decoder.decode(file)
        self.assertIsNone(metadata)
        self.assertEqual(tensors, {"x": Tensor(dtype, tuple(shape), expected)})

    def test_values(self):
        half, ones = struct.pack("<e", 0.5), struct.pack("<e", 1.0)
        # Codes 1, -7, 3: low bits first, 8 in the last high bits.
        expected = struct.pack("<3f", 2.0, -14.0, 6.0)
        self.one("F32", [3], "int4-g64", 2, [half, b"\x19\x8b"], expected)
        # With groups of nine the second begins inside a byte; its scale is 2 ** -1.
        codes = b"\x99\x99\x99\x99\xaf"
        expected = struct.pack("<10e", *[1.0] * 8, 7.0, 1.0)
        self.one("F16", [2, 5], "int4-g9", 0, [ones + half, codes], expected)
        # Beyond the largest number: that number, in each dtype.
        big = struct.pack("<e", 65504.0)
        self.one("F16", [2], "int4-g8", 0, [big, b"\x1f"], struct.pack("<2e", F16_MAX, -F16_MAX))
        self.one("BF16", [2], "int4-g8", 200, [big, b"\x1f"], b"\x7f\x7f\x7f\xff")
        self.one("F32", [2], "int4-g8", 200, [big, b"\x1f"], struct.pack("<2f", F32_MAX, -F32_MAX))
        # Halves to even, of BF16: 257 becomes 256, and 259 becomes 260.
        self.one("BF16", [1], "int4-g8", 8, [struct.pack("<e", 257 / 256), b"\x89"], b"\x80\x43")
        self.one("BF16", [1], "int4-g8", 8, [struct.pack("<e", 259 / 256), b"\x89"], b"\x82\x43")
        # The smallest f32: 1 * 2 ** -149, and half of it, 3/4 of it.
        self.one("F32", [1], "int4-g8", -149, [ones, b"\x89"], b"\1\0\0\0")
        self.one("F32", [1], "int4-g8", -149, [half, b"\x89"], b"\0\0\0\0")
        self.one("F32", [1], "int4-g8", -149, [struct.pack("<e", 0.75), b"\x89"], b"\1\0\0\0")
        # f16 keeps the sign of zero, and widens exactly.
        parts = [struct.pack("<3e", -0.0, 2**-24, -F16_MAX)]
        self.one("F32", [3], "f16", None, parts, struct.pack("<3f", -0.0, 2**-24, -F16_MAX))
        self.one("BF16", [3], "f16", None, parts, b"\x00\x80\x80\x33\x80\xc7")
        self.one("F16", [3], "f16", None, parts, parts[0])

    def test_values_of_version_6(self):
        def one(codec, shape, parts, expected):
            file = make([("x", "F32", shape, codec, 0, parts)], codec, version=6)
            tensors, _ = format_decoder.decode(file)
            self.assertEqual(tensors["x"].data, struct.pack(f"<{len(expected)}f", *expected))

        codes = lambda data: ("codes", "U8", 1, data)
        scales = lambda data: ("scales", "U8", 1, data)
        of_f32 = lambda *values: struct.pack(f"<{len(values)}f", *values)
        # 1, the smallest number, the largest one and its negative; a NaN that no writer writes is 0.
        one("fp8-e4m3", [5], [codes(b"\x38\x01\x7e\xfe\x7f")], [1, 2**-9, 448, -448, 0])
        one("fp8-e5m2", [4], [codes(b"\x3c\x01\x7b\x7c")], [1, 2**-16, 57344, 0])
        # All of E2M1, a scale of 4; and the least scale.
        e2m1 = [0.0, 0.5, 1, 1.5, 2, 3, 4, 6]
        every = bytes(low | low + 1 << 4 for low in range(0, 16, 2))
        sixteen = [*e2m1, *(-x for x in e2m1)]
        for code, scale in ((129, 4.0), (0, 2.0**-127)):
            one("mxfp4", [16], [scales(bytes([code])), codes(every)], [scale * x for x in sixteen])
        one("mxfp8", [33], [scales(b"\x7f\x80"), codes(b"\x38" * 33)], [1.0] * 32 + [2.0])
        # A scale of 1.5 in E4M3, and 10 for the tensor.
        tensor_scale = ("tensor_scale", "F32", 4, of_f32(10))
        one("nvfp4", [16], [scales(b"\x3c"), codes(every)], [1.5 * x for x in sixteen])
        one("nvfp4-per-tensor", [16], [tensor_scale, scales(b"\x3c"), codes(every)],
            [15 * x for x in sixteen])
        # A zero point of 3 and a scale of 2: levels of 2 and −2, rotated back, and channel 1 flipped.
        zero = ("scales", "F32", 4, struct.pack("<I", 0x40000003))
        one("int4-per-token-head", [1, 2], [zero, codes(b"\x15")], [0, -4])
        # A scale for each head vector, whatever its length.
        each = ("scales", "F32", 4, of_f32(0.5, 3))
        one("int8-per-token-head", [2, 3], [each, codes(b"\x80\x81\xff\x01\x80\x90")],
            [0, 0.5, 63.5, -381, 0, 48])
        one("fp8-per-token-head", [2, 1], [each, codes(b"\x38\xb8")], [0.5, -3])

    def test_values_of_version_10(self):
        def one(codec, shape, parts, expected):
            file = make([("x", "F32", shape, codec, 0, parts)], codec, version=10)
            tensors, _ = format_decoder.decode(file)
            self.assertEqual(tensors["x"].data, struct.pack(f"<{len(expected)}f", *expected))

        halves = lambda name, *values: (name, "F16", 2, struct.pack(f"<{len(values)}e", *values))
        # Codes 0, 1, 8 and 15 with a zero point of 7.5 and a scale of 2.
        one("hqq4", [4], [halves("scales", 2), halves("zeros", 7.5), ("codes", "U8", 1, b"\x10\xf8")],
            [-15, -13, 1, 15])
        # One tile and one more token. Of all tokens the first has codes 3 and 1, the others 0; scale 2 and
        # minimum 1 of its row, column scales 1 and 4: 7 and 12. The others have minimum 0.
        tile = [halves("tail", 5, -6), halves("column_scales", 1, 4), halves("scales", *[2] * 128),
                halves("minima", 1, *[0] * 127), ("codes", "U8", 1, b"\x07" + bytes(63))]
        half = np.float32(1 / np.sqrt(2))
        one("kvarn2-by-token", [129, 2], tile, [19 * half, -5 * half, *[0] * 254, 5, -6])

    def test_names_before_version_6(self):
        """The same bytes: in version 2 a name with a scale, in version 6 another one's."""
        data = [struct.pack("<e", 0.5), b"\x38\x40"]
        former = make([("x", "F32", [2], "fp8-e4m3", 0, data)], "fp8-e4m3")
        manifest, header, content = take_apart(former)
        manifest["version"] = 2
        tensors, _ = format_decoder.decode(put_together(manifest, header, content))
        self.assertEqual(tensors["x"].data, struct.pack("<2f", 0.5, 1.0))
        manifest.update(version=6, codec="fp8-e4m3-per-tensor")
        tensors, _ = format_decoder.decode(put_together(manifest, header, content))
        self.assertEqual(tensors["x"].data, struct.pack("<2f", 0.5, 1.0))
        for version, codec in ((2, "fp8-e4m3-per-tensor"), (6, "fp8-e4m3"), (1, "fp8-e4m3")):
            manifest.update(version=version, codec=codec)
            with self.assertRaises(FormatError):
                format_decoder.decode(put_together(manifest, header, content))

    def test_bf16_rounding_of_all_kinds(self):
        high = np.arange(1 << 16, dtype=np.uint32)
        high = high[(high & 0x7F80) != 0x7F80]
        for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
            up = (low > 0x8000) | ((low == 0x8000) & (high & 1 == 1))
            expected = high + up
            expected = np.where((expected & 0x7FFF) == 0x7F80, expected - 1, expected)
            got = bf16_bits((high << 16 | low).astype("<u4").view("<f4"))
            np.testing.assert_array_equal(got, expected)

    def test_golden_files(self):
        for path in sorted((ROOT / "tests" / "data").glob("*.kvc")):
            with self.subTest(path.name):
                tensors, metadata = format_decoder.read(path)
                expected = parse(path.with_suffix(".safetensors").read_bytes())
                manifest, _, _ = take_apart(path.read_bytes())
                compare(self, tensors, metadata, manifest, *expected)


def compare(case, tensors, metadata, manifest, expected, expected_metadata):
    """Require that the decoder's tensors are those of a restored file, in order."""
    case.assertEqual(metadata, expected_metadata)
    case.assertEqual(list(tensors), list(expected))
    stored = {t["name"]: t.get("codec", manifest["codec"]) for t in manifest["tensors"]}
    for name, tensor in tensors.items():
        other = expected[name]
        case.assertEqual((name, *tensor[:2]), (name, *other[:2]))
        mine, theirs = tensor.data, other.data
        if stored[name] not in ("none", "f16"):
            mine, theirs = (positive_zeros(x, tensor.dtype) for x in (mine, theirs))
        case.assertTrue(mine == theirs, f"{name!r}: other bytes ({stored[name]}, {tensor.dtype})")


class Binary(unittest.TestCase):
    """Files that the binary makes."""

    @classmethod
    def setUpClass(cls):
        cls.binary = need_kv_compress()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.source, self.packed, self.restored = (
            str(self.folder / name) for name in ("source", "packed", "restored")
        )
        self.random = np.random.default_rng(20240)

    # Running it

    def run_binary(self, *arguments):
        command = [self.binary, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    def compress(self, file, *arguments):
        Path(self.source).write_bytes(file)
        command = ("-input", self.source, "-output", self.packed, "--force", "--no-sync")
        done = self.run_binary(*command, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return Path(self.packed).read_bytes()

    def decompress(self, file):
        """Tensors of a file by -decompress; None if it refuses it."""
        Path(self.packed).write_bytes(file)
        Path(self.restored).unlink(missing_ok=True)
        command = ("-decompress", "-input", self.packed, "-output", self.restored, "--no-sync")
        done = self.run_binary(*command)
        if done.returncode == 0:
            return Path(self.restored).read_bytes()
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertFalse(Path(self.restored).exists())
        return None

    def opens(self, file, path, tensors):
        """Require that Python's safetensors opens a file, and that it finds these tensors."""
        raw = {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in
               safetensors.deserialize(file)}
        self.assertEqual(raw, {name: tuple(tensor) for name, tensor in tensors.items()})
        with safetensors.safe_open(path, "np") as opened:
            self.assertEqual(set(opened.keys()), set(tensors))
            for name, tensor in tensors.items():
                part = opened.get_slice(name)
                self.assertEqual(part.get_dtype(), tensor.dtype)
                self.assertEqual(tuple(part.get_shape()), tensor.shape)
                if tensor.dtype in ("F16", "F32", "I64", "U8"):
                    self.assertEqual(opened.get_tensor(name).tobytes(), tensor.data)
            return opened.metadata()

    def agree(self, file):
        """Require that the binary and the decoder make the same of a compressed file."""
        restored = self.decompress(file)
        self.assertIsNotNone(restored, "the binary refuses it")
        tensors, metadata = format_decoder.read(self.packed)
        expected, expected_metadata = parse(restored)
        manifest, _, _ = take_apart(file)
        compare(self, tensors, metadata, manifest, expected, expected_metadata)

        parts, outer = parse(file)
        self.assertEqual(self.opens(file, self.packed, parts), outer)
        found = self.opens(restored, self.restored, expected)
        self.assertEqual(found or None, metadata or None)
        return manifest, tensors, metadata

    def both(self, file, *arguments):
        """Compress, restore, and compare with the decoder and with the source; the manifest."""
        source, source_metadata = parse(file)
        manifest, tensors, metadata = self.agree(self.compress(file, *arguments))
        self.assertEqual(metadata, source_metadata)
        # An empty tensor may stand anywhere among its neighbours: their offsets do not tell.
        (length,) = struct.unpack_from("<Q", file)
        header = json.loads(file[8 : 8 + length])
        starts = [header[name]["data_offsets"] for name in tensors]
        self.assertEqual(starts, sorted(starts))
        self.assertEqual(set(tensors), set(source))
        self.assertEqual(manifest["source_bytes"], len(file))
        for tensor in manifest["tensors"]:
            name, stored = tensor["name"], tensor.get("codec", manifest["codec"])
            self.assertEqual((name, *tensors[name][:2]), (name, *source[name][:2]))
            if stored == "none" or (stored == "f16" and tensor["dtype"] == "F16"):
                self.assertEqual(tensors[name].data, source[name].data)
        return manifest

    # Values

    def values(self, n, scale):
        return self.random.standard_normal(n) * scale

    def data(self, dtype, n):
        """Value arrays of every kind this dtype has."""
        wide = dtype != "F16"
        scales = [1.0, 1e-3, 1e4] + ([1e30, 1e-30, 3e37, 1e-38, 1e-44] if wide else [1e-6])
        largest = F32_MAX if wide else F16_MAX
        smallest = {"F16": 2.0**-24, "BF16": 2.0**-133, "F32": 2.0**-149}[dtype]
        for scale in scales:
            yield f"{scale:g}", self.values(n, scale)
        yield "zeros", np.zeros(n)
        yield "minus zeros", np.full(n, -0.0)
        yield "largest", np.full(n, largest) * self.random.choice([1, -1, 0.99], n)
        yield "smallest", smallest * self.random.integers(-3, 4, n)
        yield "sparse", self.values(n, 1.0) * (self.random.random(n) < 0.1)
        # Groups far apart: the small ones' scales are subnormal in f16, or zero.
        low = -44 if wide else -7
        yield "mixed", self.values(n, 1.0) * 10.0 ** self.random.uniform(low, 4, n)
        steps = np.repeat(10.0 ** self.random.uniform(low, 4, -(-n // 50)), 50)[:n]
        yield "steps", self.values(n, 1.0) * steps
        # Around the smallest normal scale and the largest.
        edge = [0.9997, 0.9998, 0.9999999, 1, 1.0000001, 1.5]
        yield "low edge", 7 * 2.0**-14 * self.random.choice(edge, n)
        yield "high edge", 7 * 65520.0 * self.random.choice(edge, n)

    def all_data(self):
        return {
            f"{dtype} {n} {kind}": floats(dtype, values)
            for dtype in FLOATS
            for n in LENGTHS
            for kind, values in self.data(dtype, n)
        }

    def test_int4_of_all_values_groups_and_lengths(self):
        tensors = self.all_data()
        exponents = set()
        for group in GROUPS:
            with self.subTest(group=group):
                manifest = self.both(serialize(tensors), "-group-size", str(group))
                self.assertEqual(manifest["codec"], f"int4-g{group}")
                exponents.update(tensor.get("exponent", 0) for tensor in manifest["tensors"])
        # The data reach both ends of what the writer chooses.
        self.assertLess(min(exponents), -150)
        self.assertGreater(max(exponents), 105)
        self.assertIn(0, exponents)

    def test_f16_of_all_values_and_lengths(self):
        manifest = self.both(serialize(self.all_data()), "--codec", "f16")
        self.assertTrue(all("exponent" not in tensor for tensor in manifest["tensors"]))

    def test_made_by_the_safetensors_package(self):
        tensors = {
            "layer.0.key": self.values((2, 3, 17), 1).astype(np.float16),
            "layer.0.value": self.values((2, 3, 17), 1).astype(np.float32),
            "positions": np.arange(17),
            "mask": self.random.random(9) < 0.5,
            "bytes": np.arange(5, dtype=np.uint8),
        }
        path = self.folder / "made"
        for metadata in (None, {"format": "np", "model": "x", "a": ""}):
            save_file(tensors, path, metadata=metadata)
            self.both(path.read_bytes())

    def test_codec_by_name(self):
        tensors = {
            f"layer.{layer}.{part}": floats(dtype, self.values((3, 37), 1))
            for layer, dtype in enumerate(FLOATS)
            for part in ("key", "value")
        }
        tensors["ids"] = Tensor("I64", (2,), bytes(range(16)))
        manifest = self.both(serialize(tensors), "--codec", "k:int4-g32/v:f16")
        self.assertEqual(manifest["codec"], "k:int4-g32/v:f16")
        expected = {"key": "int4-g32", "value": "f16", "ids": "none"}
        for tensor in manifest["tensors"]:
            self.assertEqual(tensor["codec"], expected[tensor["name"].split(".")[-1]])

    def test_exclude(self):
        strange = [np.nan, np.inf, -np.inf, -0.0, 1.0]
        tensors = {
            "a.keep": floats("F32", strange),
            "b": floats("F32", self.values(70, 1)),
            "b.keep": floats("BF16", strange),
            "c.keep": floats("F16", strange),
            "c": floats("BF16", self.values(71, 1)),
        }
        for codec in ("int4-g64", "f16"):
            arguments = ("--codec", codec, "--exclude", "*.keep")
            manifest = self.both(serialize(tensors), *arguments)
            stored = [tensor.get("codec") for tensor in manifest["tensors"]]
            self.assertEqual(stored, ["none", None, "none", "none", None])
        # Everything is left as it is.
        self.both(serialize(tensors), "--exclude", "*")

    def test_other_dtypes_pass_through(self):
        tensors = {}
        for dtype, bits in sorted(BITS.items()):
            for n in (0, 8, 24):
                raw = self.random.integers(0, 2 if dtype == "BOOL" else 256, n * bits // 8)
                tensors[f"{dtype}.{n}"] = Tensor(dtype, (n,), raw.astype(np.uint8).tobytes())
            if dtype in FLOATS:
                tensors[f"{dtype}.24"] = floats(dtype, self.values(24, 1))
                tensors[f"{dtype}.8"] = floats(dtype, self.values(8, 1))
        for codec in ("int4-g8", "f16"):
            manifest = self.both(serialize(tensors), "--codec", codec)
            for tensor in manifest["tensors"]:
                plain = tensor["dtype"] not in FLOATS
                self.assertEqual(tensor.get("codec"), "none" if plain else None)

    def test_shapes(self):
        tensors = {}
        for dtype in FLOATS:
            for shape in ((), (0,), (1,), (0, 4), (3, 0, 5), (1, 1, 1), (2, 3, 5, 7), (13, 1)):
                tensors[f"{dtype}{shape}"] = floats(dtype, self.values(shape, 1))
        tensors["I64"] = Tensor("I64", (), bytes(range(8)))
        tensors["BOOL"] = Tensor("BOOL", (0,), b"")
        for codec in ("int4-g9", "f16"):
            self.both(serialize(tensors), "--codec", codec)

    def test_nothing_inside(self):
        for metadata in (None, {}, {"a": "b"}):
            self.assertEqual(self.both(serialize({}, metadata))["tensors"], [])

    def test_metadata(self):
        many = {f"key {i}": str(i) for i in range(40)}
        strange = {"": "", "\u00e9": '"\\\n\0', "\U0001f511": "\U0001f512", "\uff5e": "\u2028"}
        for metadata in ({}, {"b": "1", "a": "2"}, many, strange, {"kvgauge": "mine"}):
            tensors = {"x": floats("F32", self.values(5, 1))}
            found = self.both(serialize(tensors, metadata))["metadata"]
            self.assertEqual(list(found), sorted(metadata))

    def test_names_that_clash(self):
        x, plain = floats("F32", self.values(5, 1)), Tensor("U8", (2,), b"ab")
        cases = [
            ("int4-g8", {"x": x, "x.codes": plain, "x.scales": x}, ".."),
            ("int4-g8", {"x": x, "x.codes": x, "x.scales": x}, "."),
            ("int4-g8", {"x": x, "x.codes": plain, "x..scales": plain}, "..."),
            ("int4-g8", {"x": x, "x.": x, "x..codes": x}, "."),
            ("int4-g8", {"x": x, "x.values": plain, "y": x, "y..codes": plain}, "."),
            ("int4-g8", {".": x, "": x, ".codes": plain, "..codes": plain}, "..."),
            ("f16", {"x": x, "x.values": plain, "y": x}, ".."),
            ("f16", {"x": x, "x.codes": plain, "x.scales": plain}, "."),
            ("k:int4-g8/v:f16", {"key": x, "value": x, "value.values": plain}, ".."),
        ]
        for codec, tensors, dots in cases:
            with self.subTest(names=list(tensors)):
                self.both(serialize(tensors), "--codec", codec)
                parts, _ = parse(Path(self.packed).read_bytes())
                self.assertLessEqual({n for n, t in tensors.items() if t == plain}, set(parts))
                for name in (name for name in parts if tensors.get(name) != plain):
                    stem = name.rstrip("abcdefghijklmnopqrstuvwxyz")
                    self.assertTrue(stem.endswith(dots), (name, dots))
                    self.assertIn(stem[: -len(dots)], tensors)

    def test_unicode_names(self):
        names = ["\u00e9", "e\u0301", "\u5c64.0.\u30ad\u30fc", "\U0001f511 key", 'a"b\\c/d', "\0"]
        names += ["new\nline", "\t", " ", "\u2028", "\uffff", "\U0010ffff", "\x7f", "a" * 5000]
        tensors = {name: floats("F32", self.values(9, 1)) for name in names}
        self.both(serialize(tensors))
        self.both(serialize(tensors, header_order=names[::-1]))

    def test_order_is_that_of_the_data(self):
        tensors = {}
        for i, name in enumerate("qwertyuiopasdfg"):
            dtype = ("F16", "U8", "F32", "I64", "BF16")[i % 5]
            data = floats(dtype, self.values(3, 1)) if dtype in FLOATS else None
            tensors[name] = data or Tensor(dtype, (3,), bytes(3 * BITS[dtype] // 8))
        for order in (None, sorted(tensors), sorted(tensors)[::-1]):
            manifest = self.both(serialize(tensors, header_order=order))
            self.assertEqual([t["name"] for t in manifest["tensors"]], list(tensors))

    def test_length_depends_on_no_value(self):
        lengths = {"int4-g9": set(), "f16": set()}
        for scale in (1.0, 0.0, 1e-30, 1e30, 1e-44, 3e38, 1 / 3):
            tensors = {dtype: floats(dtype, self.values(31, scale)) for dtype in FLOATS}
            for codec, found in lengths.items():
                found.add(len(self.compress(serialize(tensors), "--codec", codec)))
        self.assertEqual([len(found) for found in lengths.values()], [1, 1])

    # Version 2

    LEVELS = {"sym": range(2, 9), "asym": range(2, 9), "mid": range(2, 9), "ext": range(2, 9),
              "lm": range(2, 6)}

    def family_codecs(self):
        """Every kind of levels with every number of bits, each beside several other fields."""
        others = itertools.cycle(("", "ch", "mse", "s8", "sink3", "ctr", "ch-ctr-s8-sink2", "ch-mse"))
        groups = itertools.cycle((32, 9, 64, 8, 100, 1000, 31))
        for levels, all_bits in self.LEVELS.items():
            for bits in all_bits:
                for _ in range(3):
                    other = next(others)
                    if levels == "ext":
                        other = other.replace("-s8", "").replace("s8", "")
                    fields = (f"int{bits}", f"g{next(groups)}", levels, other)
                    yield "-".join(field for field in fields if field not in ("", "sym"))
        yield from (name for name, scheme in format_decoder.PRESETS.items() if not scheme.had)
        yield from ("kivi4", "k:q8_0/v:int3-g16-asym", "k:f16/v:int2-g32", "k:int4-g64/v:q4_1")
        yield from ("fp8-e5m2-scale0.03", "k:fp8-e4m3-scale2/v:fp8-e4m3-scale0.0001234567")

    def family(self, shapes, scales=(1.0, 1e-6, 3e4)):
        """Keys and values of every float type."""
        tensors = {}
        for number, shape in enumerate(shapes):
            for dtype in FLOATS:
                more = () if dtype == "F16" else (1e30, 1e-30, 1e-44)
                for scale in (*scales, 0.0, *more):
                    for role in ("key", "value"):
                        values = self.values(shape, scale)
                        if shape and shape[-1] > 4:
                            # Some channels larger than others, as keys have them.
                            values[..., 3] *= 20
                        tensors[f"{number}.{dtype}.{scale}.{role}"] = floats(dtype, values)
        return tensors

    def test_codecs_of_the_family(self):
        shapes = [(2, 9, 16), (1, 2, 5, 7), (3, 33), (1,), (), (0,), (2, 0, 8), (0, 5, 3)]
        tensors = self.family(shapes)
        # Codecs that tell tokens from channels do not take it.
        flat = self.family([(70,)])
        files = [serialize(t) for t in (tensors, {**tensors, **{"f" + n: t for n, t in flat.items()}})]
        for codec in self.family_codecs():
            fields = set(codec.replace("/", "-").split("-"))
            tells = fields & {"ch", "ctr", "sink2", "sink3", "kivi4", "head", "turboquant"}
            with self.subTest(codec):
                manifest = self.both(files[not tells], "--codec", codec)
                roles = format_decoder.by_role(manifest["codec"])
                first = all(map(format_decoder.is_first, roles))
                sixth = any(map(format_decoder.is_sixth, roles))
                tenth = any(map(format_decoder.is_tenth, roles))
                version = 10 if tenth else 6 if sixth else 1 if first else 2
                self.assertEqual(manifest["version"], version)

    def test_codecs_by_layer(self):
        names = [f"layer.{layer}.{side}" for layer in range(5) for side in ("key", "value")]
        dtypes = itertools.cycle(FLOATS)
        tensors = {name: floats(next(dtypes), self.values((2, 7, 16), 1)) for name in names}
        tensors["mask"] = Tensor("BOOL", (3,), b"\1\0\1")
        file = serialize(tensors)
        for codec, of_layers in (
            ("q4_0+q8_0@0,-1", ["q8_0", "q4_0", "q4_0", "q4_0", "q8_0"]),
            ("q4_0+f16@1--2+nvfp4@2", ["q4_0", "f16", "nvfp4", "f16", "q4_0"]),
            ("kvgauge4+k:int4-g8-ch-prerope/v:f16@3", [None, None, None, "", None]),
            ("q2_1+f16@0-1,-1", ["f16", "f16", "q2_1", "q2_1", "f16"]),
        ):
            with self.subTest(codec):
                manifest = self.both(file, "--codec", codec, "--rope-theta", "10000")
                version = 10 if "q2_1" in of_layers else 7
                self.assertEqual((manifest["version"], manifest["codec"]), (version, codec))
                stored = {tensor["name"]: tensor["codec"] for tensor in manifest["tensors"]}
                self.assertEqual(stored.pop("mask"), "none")
                for layer, own in enumerate(of_layers):
                    pair = {None: ("tc19-prerope-shape", "tc16"), "": ("int4-g8-ch-prerope", "f16")}
                    expected = pair.get(own, (own, own))
                    found = tuple(stored[f"layer.{layer}.{side}"] for side in ("key", "value"))
                    self.assertEqual(found, expected)
        # Keys and values in one tensor of each layer.
        shape = (2, 7, 3, 16)
        both = {f"layers.{layer}.kv": floats("F16", self.values(shape, 1)) for layer in range(2)}
        codec = "k:q8_0/v:q4_0+kivi4@1"
        manifest = self.both(serialize(both), "--codec", codec, "--kv-axis", "0",
                             "--layout", "tokens-heads-dim")
        found = [tensor["codec"] for tensor in manifest["tensors"]]
        self.assertEqual((manifest["version"], found), (7, ["k:q8_0/v:q4_0", "kivi4"]))

    def test_rotations(self):
        codecs = ("int4-g32-had", "turbo4", "int3-g9-asym-ch-had-mse-sink1", "int5-g1000-lm-had-s8",
                  "k:int2-g64-mid-ctr-had-sink4/v:int4-g64-had", "int8-g8-ext-ctr-had")
        for dim in (2, 6, 64, 80, 96, 128):
            file = serialize(self.family([(2, 7, dim), (1, dim), (3, 0, dim)]))
            for codec in codecs:
                with self.subTest(codec, dim=dim):
                    self.both(file, "--codec", codec)

    def test_rotations_of_engines(self):
        for dim in (2, 32, 64, 96, 128, 192, 256):
            file = serialize(self.family([(2, 7, dim), (3, 0, dim)]))
            Path(self.source).write_bytes(file)
            for codec, scheme in format_decoder.PRESETS.items():
                if codec == "turbo4" or not scheme.had or format_decoder.is_tenth(codec):
                    continue
                with self.subTest(codec, dim=dim):
                    if format_decoder.rotated_block(scheme, dim):
                        manifest = self.both(file, "--codec", codec)
                        version = 10 if format_decoder.is_tenth(codec) else 6
                        self.assertEqual(manifest["version"], version)
                    else:
                        done = self.run_binary("-input", self.source, "-output", self.packed,
                                               "--force", "--codec", codec)
                        self.assertEqual(done.returncode, 2, done.stderr)
                        self.assertIn("a head vector of", done.stderr)

    def test_tiles_of_tokens(self):
        for dim in (2, 6, 64):
            shapes = [(2, 131, dim), (1, 256, dim), (127, dim), (3, 0, dim), (0, 130, dim)]
            file = serialize(self.family(shapes, (1.0, 3e4)))
            for codec, roles in (
                ("kvarn4", ("kvarn4", "kvarn4-by-token")),
                ("kvarn3", ("kvarn3", "kvarn3-by-token")),
                ("kvarn2-by-token", None),
                ("kvarn-k4v2", ("kvarn4", "kvarn2-by-token")),
                ("k:q4_0/v:kvarn3-by-token", ("q4_0", "kvarn3-by-token")),
            ):
                with self.subTest(codec, dim=dim):
                    manifest = self.both(file, "--codec", codec)
                    self.assertEqual((manifest["version"], manifest["codec"]), (10, codec))
                    found = {tensor.get("codec") for tensor in manifest["tensors"]} - {"none"}
                    self.assertEqual(found, set(roles) if roles else {None})
        Path(self.source).write_bytes(serialize(self.family([(2, 7, 3)])))
        done = self.run_binary("-input", self.source, "-output", self.packed, "--codec", "kvarn4")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("expected an even head vector, found 3", done.stderr)

    def test_keys_before_rope(self):
        codecs = ("int4-g32-prerope", "k:int4-g64-mid-prerope-ctr-had-sink5/v:q4_0",
                  "k:int3-g8-asym-ch-prerope-s8/v:f16", "int4-g32-ext-prerope", "int4-g64-prerope-mse")
        for dim in (2, 64, 80, 96, 128):
            file = serialize(self.family([(2, 7, dim), (1, dim), (0, 2, dim)]))
            for theta in ("1", "10000", "500000"):
                codec = codecs[(dim + int(theta)) % len(codecs)]
                for codec in (codec, codecs[0]):
                    with self.subTest(codec, dim=dim, theta=theta):
                        manifest = self.both(file, "--codec", codec, "--rope-theta", theta)
                        self.assertEqual(len(manifest["rope"]), dim // 2)
        # Positions in the thousands.
        tensors = {"key": floats("F16", self.values((1, 9000, 64), 1))}
        self.both(serialize(tensors), "--codec", codecs[1], "--rope-theta", "10000")

    def test_two_centres(self):
        for dim in (8, 12, 16, 20, 64, 80, 96, 100, 120, 128, 192, 256):
            shapes = [(2, 37, dim), (1, 1, dim), (1, dim), (3, 0, dim), (0, 2, dim)]
            file = serialize(self.family(shapes))
            for codec in ("kvgauge4", "tc16", "tc19-shape", "k:tc16-prerope/v:tc19"):
                with self.subTest(codec, dim=dim):
                    manifest = self.both(file, "--codec", codec, "--rope-theta", "10000")
                    power = dim in (8, 16, 64, 128)
                    self.assertEqual(manifest["version"], 2 if power else 5)
        trellises = ("kvgauge3", "kvgauge2", "te13", "te20-shape", "k:te24-prerope/v:te26", "k:f16/v:te20")
        for dim in (8, 12, 16, 20, 32, 64, 80, 96, 100, 120, 128, 192, 256):
            file = serialize(self.family([(2, 37, dim), (1, 1, dim), (1, dim), (3, 0, dim), (0, 2, dim)]))
            for codec in trellises:
                with self.subTest(codec, dim=dim):
                    manifest = self.both(file, "--codec", codec, "--rope-theta", "10000")
                    self.assertEqual(manifest["version"], 8)
        # Means of many tokens, around the first one and not, and a block of one bit a word.
        values = self.values((2, 1500, 64), 1) + self.values((2, 1, 64), 3)
        values[:, ::7] = values[:, :1] + self.values((2, 215, 64), 0.1)
        for codec in ("tc19", "te26", "te13"):
            self.both(serialize({"key": floats("F16", values)}), "--codec", codec)

    def test_what_the_page_does_not_allow_in_version_2(self):
        """Files with right checksums that break the page: both refuse them."""
        shape = (2, 12, 8)
        tensors = {
            "key": floats("F16", self.values(shape, 1)),
            "value": floats("BF16", self.values(shape, 1)),
        }
        codec = "k:int3-g8-asym-ch-prerope-ctr-s8-sink2/v:int5-g16-mid-had-sink1"
        file = self.compress(serialize(tensors), "--codec", codec, "--rope-theta", "10000")
        manifest, header, data = take_apart(file)
        self.agree(put_together(manifest, header, data))
        key, value = (t["codec"] for t in manifest["tensors"])

        def case(what, change):
            parts = copy.deepcopy((manifest, header, data))
            change(*parts)
            fix_checksums(*parts)
            changed = put_together(*parts)
            with self.subTest(what):
                self.refused(changed, what)
                self.assertIsNone(self.decompress(changed), f"the binary takes {what}")

        def of_both(name):
            def change(m, h, d):
                m["codec"] = m["codec"].replace(*name)
                for tensor in m["tensors"]:
                    tensor["codec"] = tensor["codec"].replace(*name)
            return change

        for version in (1, 3, 4, 2.0):
            case(f"version {version}", lambda m, h, d, v=version: m.update(version=v))
        for rope in (None, [], [1.0], [1.0] * 5, [1, 1, 1, None], [1, 1, 1, "1"], 1.0,
                     [1, 1, 1, 65537], [1, 1, 1, 1e39], [True] * 4):
            case(f"rope {rope}", lambda m, h, d, r=rope: m.update(rope=r))
        case("no rope", lambda m, h, d: m.pop("rope"))
        case("rope for nothing", of_both(("-prerope", "")))
        for name in (("int3", "int1"), ("int3", "int9"), ("int3", "int03"), ("-g8", "-g7"),
                     ("-g8", "-g4294967296"), ("-g8", "-g08"), ("-ch", "-ch-ch"), ("-ch", "-sym-ch"),
                     ("-asym-ch", "-ch-asym"), ("-sink2", "-sink0"), ("-sink2", "-sink02"),
                     ("-sink2", "-sink4294967296"), ("-sink2", "-sink1"), ("-sink2", ""),
                     ("int5-g16-mid", "int6-g16-lm"), ("-mid", "-mid-prerope"), ("-ch", ""),
                     ("-ctr", ""), ("-s8", ""), ("-asym", ""), ("int5", "int6"), ("k:", "k:noise-")):
            case(f"{name[0]} as {name[1]}", of_both(name))
        case("no codec of a tensor", lambda m, h, d: m["tensors"][0].pop("codec"))
        case("another tensor's", lambda m, h, d: m["tensors"][0].update(codec=value))
        case("a third codec", lambda m, h, d: m["tensors"][0].update(codec="q4_0"))
        case("no exponent", lambda m, h, d: m["tensors"][0].pop("exponent"))
        case("keys for both", lambda m, h, d: m.update(codec=f"k:{key}/v:{key}"))
        for part, dtype in (("key.sinks", "BF16"), ("value.sinks", "F16"), ("key.means", "BF16"),
                            ("key.scales", "I8"), ("key.minima", "U16"), ("value.scales", "I16")):
            case(f"{part} as {dtype}", lambda m, h, d, p=part, t=dtype: h[p].update(dtype=t))
        for part in ("key.sinks", "key.means", "key.scales", "key.minima", "key.codes"):
            case(f"no {part}", lambda m, h, d, p=part: h.pop(p))
            case(f"{part} in rows", lambda m, h, d, p=part: h[p].update(shape=[1, *h[p]["shape"]]))
        infinite = {"F16": (b"\0\x7c", b"\0\xfc", b"\1\x7e"), "BF16": (b"\x80\x7f", b"\x81\xff")}
        for part in ("key.sinks", "key.means", "key.minima", "value.sinks", "value.scales"):
            at = header[part]["data_offsets"][1] - 2
            for bits in infinite[header[part]["dtype"]]:
                case(f"{bits.hex()} in {part}",
                     lambda m, h, d, a=at, b=bits: d.__setitem__(slice(a, a + 2), b))
        # An odd head vector under a rotation: as many values of each part, in other rows.
        odd = {"value": floats("F16", self.values((1, 3, 5), 1))}
        plain = take_apart(self.compress(serialize(odd), "--codec", "int5-g16-mid"))
        plain[0]["codec"] = "int5-g16-mid-had"
        self.refused(put_together(*plain), "an odd head vector")
        self.assertIsNone(self.decompress(put_together(*plain)))
        # By other names.
        plain = take_apart(self.compress(serialize(odd), "--codec", "q4_0"))
        for name in ("int4-g32-ext", "k:q4_0/v:q4_0", "q4_1", "q8_0"):
            plain[0]["codec"] = name
            self.refused(put_together(*plain), name)
            self.assertIsNone(self.decompress(put_together(*plain)))

    # Version 3

    LAYOUTS = (
        ("heads-tokens-dim", 0, None, (2, 3, 9, 16)),
        ("heads-tokens-dim", 3, None, (3, 9, 16, 2)),
        ("heads-tokens-dim", 0, None, (2, 9, 16)),
        ("heads-tokens-dim", 1, None, (5, 2, 0, 16)),
        ("tokens-heads-dim", None, None, (9, 3, 16)),
        ("tokens-heads-dim", None, None, (2, 1, 9, 3, 16)),
        ("tokens-heads-dim", None, 16, (9, 48)),
        ("tokens-heads-dim", None, 8, (2, 9, 48)),
        ("tokens-heads-dim", 0, None, (2, 9, 3, 16)),
        ("tokens-heads-dim", 1, None, (9, 2, 3, 16)),
        ("tokens-heads-dim", 2, None, (9, 3, 2, 16)),
        ("tokens-heads-dim", 1, 16, (4, 2, 9, 48)),
        ("tokens-heads-dim", 0, 16, (2, 9, 48)),
        ("tokens-heads-dim", 0, 16, (2, 0, 48)),
    )

    def layout_arguments(self, order, axis, dim):
        arguments = ["--layout", order]
        arguments += [] if axis is None else ["--kv-axis", str(axis)]
        return arguments + ([] if dim is None else ["--head-dim", str(dim)])

    def test_layouts(self):
        codecs = ("kvgauge4", "kivi4", "int4-g64", "int4-g9", "f16", "k:int4-g64/v:f16", "fp8-e4m3",
                  "kvarn-k4v2", "hqq2",
                  "k:nvfp4-per-tensor/v:mxfp4", "k:int8-per-token-head/v:fp8-e5m2-per-tensor",
                  "k:f16/v:int3-g8-asym-ch-ctr-had-s8-sink2", "int5-g32-mid-prerope-had", "turbo4",
                  "k:int4-g16-ch-prerope-sink1/v:iq4_nl", "k:f16/v:turboquant-v3")
        for order, axis, dim, shape in self.LAYOUTS:
            tensors = {}
            for name, tensor in self.family([shape], scales=(1.0,)).items():
                tensors[name] = tensor
            tensors["scale"] = floats("F32", np.float32(0.5))
            tensors["mask"] = Tensor("BOOL", (3,), b"\1\0\1")
            for codec in codecs:
                with self.subTest(codec, order=order, axis=axis, shape=shape):
                    arguments = self.layout_arguments(order, axis, dim)
                    arguments += ["--codec", codec, "--rope-theta", "10000"]
                    manifest = self.both(serialize(tensors), *arguments)
                    roles = format_decoder.by_role(codec)
                    sixth = any(map(format_decoder.is_sixth, roles))
                    first = 10 if any(map(format_decoder.is_tenth, roles)) else 6 if sixth else 3
                    self.assertEqual(manifest["version"], first)
                    said = [manifest.get(field) for field in ("layout", "kv_axis", "head_dim")]
                    self.assertEqual(said, [order, axis, dim])

    def test_names_that_clash_in_layouts(self):
        x, plain = floats("F32", self.values((2, 5, 8), 1)), Tensor("U8", (2,), b"ab")
        for tensors in (
            {"x": x, "x.key.codes": plain, "x..value.scales": plain},
            {"x": x, "x.key": x, "x.key.key.codes": plain},
            {"x": x, "x.key": plain, "x.codes": plain, "x.key.values": plain},
        ):
            for codec in ("int4-g8", "k:f16/v:q4_0"):
                self.both(serialize(tensors), "--kv-axis", "0", "--codec", codec)

    def test_what_the_page_does_not_allow_in_version_3(self):
        tensors = {"kv": floats("F16", self.values((7, 2, 3, 8), 1)),
                   "mask": Tensor("BOOL", (3,), b"\1\0\1")}
        arguments = ("--codec", "k:int4-g16-prerope-sink1/v:f16", "--rope-theta", "10000", "--layout",
                     "tokens-heads-dim", "--kv-axis", "1")
        manifest, header, data = take_apart(self.compress(serialize(tensors), *arguments))
        self.agree(put_together(manifest, header, data))

        def case(what, change):
            parts = copy.deepcopy((manifest, header, data))
            change(*parts)
            fix_checksums(*parts)
            # Fields in the page's order.
            parts[0].update(tensors=parts[0].pop("tensors"))
            file = put_together(*parts)
            with self.subTest(what):
                self.refused(file, what)
                self.assertIsNone(self.decompress(file), f"the binary takes {what}")

        for version in (1, 2, 4, 5, 3.0):
            case(f"version {version}", lambda m, h, d, v=version: m.update(version=v))
        for value in ("heads-tokens-dim", "nhd", "", None, 1, ["tokens-heads-dim"]):
            case(f"layout {value}", lambda m, h, d, v=value: m.update(layout=v))
        for value in (0, 2, 4, -1, 1.0, "1", None, 2**64):
            case(f"kv_axis {value}", lambda m, h, d, v=value: m.update(kv_axis=v))
        for value in (0, 3, 4, 16, -8, 8.0, "8", None):
            case(f"head_dim {value}", lambda m, h, d, v=value: m.update(head_dim=v))
        for field in ("layout", "kv_axis"):
            case(f"no {field}", lambda m, h, d, f=field: m.pop(f))
        for value in ([0], [0, 0, 0], [0, 1], [201, 0], [0, None], ["0", 0], 0, None, {}):
            case(f"exponents {value}", lambda m, h, d, v=value: m["tensors"][0].update(exponents=v))
        case("no exponents", lambda m, h, d: m["tensors"][0].pop("exponents"))
        case("exponents of none", lambda m, h, d: m["tensors"][1].update(exponents=[0, 0]))
        for part in list(header):
            if part != "mask":
                case(f"no {part}", lambda m, h, d, p=part: h.pop(p))
        case("nothing read by it", lambda m, h, d: (
            m["tensors"].pop(0), m.pop("rope"), h.clear(), d.__setitem__(slice(None), b"\1\0\1"),
            h.update(mask={"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]})))
        # Said of nothing: files of versions 1 and 2.
        for codec in ("int4-g16", "q4_0"):
            plain = {"x": floats("F16", self.values((2, 2, 4, 8), 1))}
            manifest, header, data = take_apart(self.compress(serialize(plain), "--codec", codec))
            for fields in ({"layout": "heads-tokens-dim"}, {"layout": "tokens-heads-dim"},
                           {"kv_axis": 0}, {"head_dim": 8}):
                case(f"{fields} in {codec}", lambda m, h, d, f=fields: m.update(f))

    # Version 4

    def rotary(self, *embeddings):
        """Metadata that says the embedding of each layer."""
        entries = [{"layers": [layer], **embedding} for layer, embedding in enumerate(embeddings)]
        return {"kvgauge.extract": json.dumps({"rotary": entries})}

    def embedding(self, dim, channels, pairs="halves"):
        # As an f32 prints: what a manifest repeats.
        exact = (0.75 * self.random.random(channels // 2)).astype(np.float32)
        frequencies = [float(str(frequency)) for frequency in exact]
        return {"frequencies": frequencies, "pairs": pairs, "head_dim": dim}

    def layers(self, dims, tokens=9):
        """A key and a value of each layer, in turn of every type."""
        tensors = {}
        for layer, dim in enumerate(dims):
            dtype = ("F16", "BF16", "F32")[layer % 3]
            for part in ("key", "value"):
                values = self.values((2, tokens, dim), 1)
                tensors[f"layer.{layer}.{part}"] = floats(dtype, values)
        return tensors

    def test_rotary_embeddings_by_layer(self):
        codecs = ("int4-g32-prerope", "k:int4-g64-mid-prerope-ctr-had-sink5/v:q4_0",
                  "k:int3-g8-asym-ch-prerope-s8/v:f16", "kvgauge4", "k:tc16-prerope/v:tc19")
        for dim in (8, 16, 64, 80, 96, 100, 128):
            part = dim // 4 * 2
            forms = [self.embedding(dim, dim), self.embedding(dim, part),
                     self.embedding(dim, dim, "neighbours"), self.embedding(dim, part, "neighbours"),
                     self.embedding(dim, 0), self.embedding(dim, 2), self.embedding(dim, dim)]
            forms += [forms[0], forms[3]]
            tensors = self.layers([dim] * len(forms))
            for codec in codecs:
                with self.subTest(codec, dim=dim):
                    manifest = self.both(serialize(tensors, self.rotary(*forms)), "--codec", codec)
                    cut = codec in codecs[3:] and dim in (80, 96, 100)
                    self.assertEqual(manifest["version"], 5 if cut else 4)
                    self.assertEqual(manifest["rotary"], forms[:7])
                    own = [t.get("rotary") for t in manifest["tensors"]]
                    self.assertEqual(own[::2], [*range(7), 0, 3])
                    self.assertEqual(set(own[1::2]), {None})
            for form in forms[1:4]:
                # One that is not over the whole head in halves; and one alone that is.
                file = serialize(self.layers([dim] * 2), self.rotary(form, form))
                self.assertEqual(self.both(file, "--codec", codecs[0])["rotary"], [form])
            file = serialize(self.layers([dim] * 2), self.rotary(forms[0], forms[0]))
            manifest = self.both(file, "--codec", codecs[0])
            self.assertEqual((manifest["version"], manifest["rope"]), (2, forms[0]["frequencies"]))

    def test_heads_of_several_lengths(self):
        dims = (8, 64, 20, 100, 8)
        file = serialize(self.layers(dims))
        for arguments in ([], ["--rope-channels", "6"], ["--rope-pairs", "neighbours"],
                          ["--rope-channels", "8", "--rope-pairs", "neighbours"]):
            arguments += ["--rope-theta", "10000", "--codec", "int5-g16-prerope-sink2"]
            with self.subTest(arguments):
                manifest = self.both(file, *arguments)
                self.assertEqual(manifest["version"], 4)
                self.assertEqual([e["head_dim"] for e in manifest["rotary"]], list(dims[:4]))

    def test_rotary_embeddings_in_layouts(self):
        for order, axis, dim, shape in self.LAYOUTS:
            tensors = {f"kv.layer.{n}.key": floats("F16", self.values(shape, 1)) for n in range(2)}
            arguments = self.layout_arguments(order, axis, dim)
            head = dim or (shape[-1] if axis != len(shape) - 1 else shape[-2])
            metadata = self.rotary(self.embedding(head, 4), self.embedding(head, head, "neighbours"))
            with self.subTest(arguments):
                manifest = self.both(serialize(tensors, metadata), *arguments, "--codec", "kvgauge4")
                self.assertEqual((manifest["version"], len(manifest["rotary"])), (4, 2))

    def test_what_the_page_does_not_allow_in_version_4(self):
        metadata = self.rotary(self.embedding(8, 4), self.embedding(16, 16, "neighbours"))
        tensors = {**self.layers((8, 16)), "mask": Tensor("BOOL", (3,), b"\1\0\1")}
        file = self.compress(serialize(tensors, metadata), "--codec", "k:int4-g16-prerope/v:f16")
        manifest, header, data = take_apart(file)
        self.agree(put_together(manifest, header, data))
        first, second = manifest["rotary"]

        def case(what, change):
            parts = copy.deepcopy((manifest, header, data))
            change(*parts)
            # Fields in the page's order.
            order = ("header_crc32", "format", "version", "codec", "source_bytes", "quality",
                     "metadata", "rope", "rotary", "layout")
            fields = [field for field in order if field in parts[0]]
            changed = {field: parts[0][field] for field in [*fields, "tensors"]}
            file = put_together(changed, *parts[1:])
            with self.subTest(what):
                self.refused(file, what)
                self.assertIsNone(self.decompress(file), f"the binary takes {what}")

        keys = [index for index, t in enumerate(manifest["tensors"]) if "rotary" in t]
        values = [index for index, t in enumerate(manifest["tensors"]) if "rotary" not in t]
        self.assertEqual(len(keys), 2)
        for version in (1, 2, 3, 5, 4.0):
            case(f"version {version}", lambda m, h, d, v=version: m.update(version=v))
        whole = {"frequencies": [1.0] * 4, "pairs": "halves", "head_dim": 8}
        for listed in (None, [], {}, [first], [second, first], [first, first], [first, second, whole],
                       [first, second, second], [first, None], [first, {}], [first, [1.0]]):
            case(f"rotary {listed}", lambda m, h, d, r=listed: m.update(rotary=r))
        case("no rotary", lambda m, h, d: m.pop("rotary"))
        case("rope too", lambda m, h, d: m.update(rope=[1.0] * 4))
        case("rope instead", lambda m, h, d: (m.pop("rotary"), m.update(rope=[1.0] * 4)))
        case("a whole one alone", lambda m, h, d: (
            m.update(rotary=[whole]), m["tensors"][keys[1]].update(rotary=0, shape=[4, 9, 8])))
        for field, found in (("frequencies", None), ("frequencies", [1.0] * 9), ("frequencies", [None]),
                             ("frequencies", [65537]), ("frequencies", ["1"]), ("frequencies", 1.0),
                             ("frequencies", [True]), ("pairs", "half"), ("pairs", None), ("pairs", 1),
                             ("head_dim", 8), ("head_dim", 17), ("head_dim", -16), ("head_dim", 16.0),
                             ("head_dim", "16"), ("head_dim", 2**64), ("head_dim", None), ("more", 1)):
            case(f"{field} {found}", lambda m, h, d, f=field, x=found: m["rotary"][1].update({f: x}))
        for field in ("frequencies", "pairs", "head_dim"):
            case(f"no {field}", lambda m, h, d, f=field: m["rotary"][1].pop(f))
        for key, found in ((0, 1), (0, 2), (0, None), (0, -1), (0, 0.0), (1, 0), (1, 2), (1, "1"),
                           (1, 2**64), (1, True)):
            case(f"rotary {found} of {key}",
                 lambda m, h, d, k=key, x=found: m["tensors"][keys[k]].update(rotary=x))
        for key in keys:
            case(f"none of {key}", lambda m, h, d, k=key: m["tensors"][k].pop("rotary"))
        for value in values:
            case(f"one of {value}", lambda m, h, d, v=value: m["tensors"][v].update(rotary=0))
        # Of files that do not need it.
        for codec, version in (("int4-g16", 1), ("q4_0", 2)):
            manifest, header, data = take_apart(self.compress(serialize(tensors), "--codec", codec))
            self.assertEqual(manifest["version"], version)
            keys = [0]
            for said in (version, 4):
                case(f"rotary in {codec} as {said}", lambda m, h, d, v=said: (
                    m.update(version=v, rotary=[first]), m["tensors"][keys[0]].update(rotary=0)))

    def test_any_bytes_decode_alike(self):
        """Payloads that no writer writes, though the page allows them: any codes, finite numbers, exponents."""
        tensors = self.family([(2, 9, 24)], scales=(1.0,))
        blocks = self.family([(2, 9, 64)], scales=(1.0,))
        of_blocks = ("int4-per-token-head", "exllamav3-3", "q4_0-had", "mlx6", "turboquant-4bit-nc", "turboquant-3bit-nc",
                     "q2_0-had", "hqq4")
        tiles = self.family([(2, 131, 10)], scales=(1.0,))
        of_tiles = ("kvarn3", "kvarn-k4v2")
        codecs = (*of_blocks, *of_tiles, "fp8-e4m3", "fp8-e5m2", "fp8-e4m3-per-tensor", "mxfp4", "mxfp8", "nvfp4",
                  "nvfp4-per-tensor", "k:fp8-per-token-head/v:int8-per-token-head", "int3-g8-asym-ch-ctr-s8-sink2",
                  "turbo4", "int2-g16-ext-had",
                  "k:int4-g32-prerope-had/v:iq4_nl")
        for codec in codecs:
            of = tiles if codec in of_tiles else blocks if codec in of_blocks else tensors
            file = self.compress(serialize(of), "--codec", codec, "--rope-theta", "10000")
            for exponent in (0, -200, -140, -3, 7, 100, 200):
                manifest, header, data = take_apart(file)
                for name, part in header.items():
                    start, end = part["data_offsets"]
                    noise = self.random.integers(0, 256, end - start).astype(np.uint8)
                    if name.endswith("scales"):
                        # No NaN of formats of a byte.
                        noise %= 127
                    if part["dtype"] != "U8":
                        # Half of all magnitudes, both signs: far from infinite.
                        noise[1::2] &= 0xBF
                    data[start:end] = noise.tobytes()
                for tensor in manifest["tensors"]:
                    tensor["exponent"] = exponent
                fix_checksums(manifest, header, data)
                with self.subTest(codec, exponent=exponent):
                    self.agree(put_together(manifest, header, data))

    # Version 9

    def channels(self, tokens=96, dim=16):
        """Keys and values whose channels differ, as those of caches do, of every float type."""
        tensors = {}
        for layer, dtype in enumerate(FLOATS):
            for role in ("key", "value"):
                spread = 0.1 + np.arange(dim) % 5 / 8
                values = self.values((2, tokens, dim), 1.0) * spread + np.arange(dim) ** 2 % 7 - 3
                tensors[f"layer.{layer}.{role}"] = floats(dtype, values)
        return tensors

    def test_packed_parts(self):
        """Whatever the symbols: the decoder's bytes, and those of the file without packing."""
        file = serialize({**self.channels(200, 32), "ids": Tensor("I64", (2,), bytes(16))}, {"a": "b"})
        codecs = ["int4-g64", "int4-g9", "f16", "kivi4", "kvgauge4", "nvfp4-per-tensor", "mxfp4", "q8_0",
                  "k:int3-g8-asym-ch-prerope-ctr-had-s8-sink2/v:int5-g24-lm-had-mse-sink1",
                  "k:int2-g16/v:int7-g64-mid", "int6-g32", "k:fp8-per-token-head/v:int4-per-token-head",
                  "q4_0+kvgauge4@1", "hqq4", "kvarn3", "turboquant-4bit-nc", "turboquant-3bit-nc+f16@0"]
        for codec in codecs:
            with self.subTest(codec):
                arguments = ("--codec", codec, "--rope-theta", "10000")
                manifest = self.both(file, *arguments, "--pack")
                packed = Path(self.restored).read_bytes()
                # Codes of 19 levels are words.
                tenth = codec in ("hqq4", "kvarn3") or "turboquant" in codec or "kvgauge4" in codec
                self.assertEqual(manifest["version"], 10 if tenth else 9)
                self.assertTrue(any("packed" in tensor for tensor in manifest["tensors"]))
                self.both(file, *arguments)
                self.assertEqual(packed, Path(self.restored).read_bytes())

    # Version 10

    def again(self, tokens=300, dim=64):
        """Tensors of few tokens, each of which is there several times."""
        kinds = self.random.integers(0, 20, tokens)
        tensors = {}
        for role in ("key", "value"):
            values = self.values((20, dim), 1.0)[kinds]
            tensors[f"layer.0.{role}"] = floats("F16", np.stack([values, values[::-1]]))
        return tensors

    def test_rows_that_repeat(self):
        file = serialize(self.again())
        for codec in ("int4-g32", "f16", "q8_0", "int5-g16-mid", "kvgauge4", "kvgauge2", "k:tc19/v:tc16"):
            with self.subTest(codec):
                arguments = ("--codec", codec, "--rope-theta", "10000")
                manifest = self.both(file, *arguments, "--pack")
                packed = Path(self.restored).read_bytes()
                self.assertEqual(manifest["version"], 10)
                self.both(file, *arguments)
                self.assertEqual(packed, Path(self.restored).read_bytes())

    def test_words_of_every_block(self):
        for dim in (8, 12, 32, 60, 64, 100, 128, 160):
            with self.subTest(dim):
                file = serialize({"a.key": floats("F16", self.values((1, 24000 // dim, dim), 1.0))})
                manifest = self.both(file, "--codec", "tc19", "--pack")
                self.assertEqual(manifest["version"], 10)

    def test_what_the_page_does_not_allow_in_version_10(self):
        tensors = {"layer.0.key": floats("F16", self.values((1, 300, 16), 1.0)),
                   "layer.0.value": self.again(300, 16)["layer.0.value"]}
        file = self.compress(serialize(tensors), "--codec", "k:tc19/v:int4-g16", "--pack")
        manifest, header, data = take_apart(file)
        self.agree(put_together(manifest, header, data))
        starts = {role: header[f"layer.0.{role}.codes"]["data_offsets"][0] for role in ("key", "value")}
        ends = {role: header[f"layer.0.{role}.codes"]["data_offsets"][1] for role in ("key", "value")}
        self.assertEqual([data[at] for at in starts.values()], [19, 128 + 4])

        def case(what, change):
            self.both_refuse(what, (manifest, header, data), change)

        for version in (1, 2, 8, 9, 11):
            case("another version", lambda m, d: m.update(version=version))
        for role, at, value in (
            ("key", 0, 18), ("key", 0, 20), ("key", 3, 0), ("key", 3, 18), ("key", 3, 132), ("key", 3, 8),
            ("value", 0, 4), ("value", 0, 128), ("value", 0, 136), ("value", 3, 0), ("value", 3, 7),
            ("value", 4, 2), ("value", 5, 1),
        ):
            change = lambda m, d: d.__setitem__(starts[role] + at, value)
            case(f"{value} in byte {at} of the codes of a {role}", change)
        # A row may repeat any of several, and with but one class any period does: what passes is the same.
        tensors, _ = format_decoder.decode(file)
        passed = 0
        for number in range(400):
            role = ("key", "value")[number % 2]
            end = ends[role] - 8 if number % 4 < 2 else starts[role] + 60
            at, bit = int(self.random.integers(starts[role], end)), int(self.random.integers(0, 8))
            m, h, d = copy.deepcopy(manifest), copy.deepcopy(header), bytearray(data)
            d[at] ^= 1 << bit
            fix_checksums(m, h, d)
            forged = put_together(m, h, d)
            with self.subTest(f"bit {bit} of byte {at}"):
                try:
                    found, _ = format_decoder.decode(forged)
                except FormatError:
                    self.assertIsNone(self.decompress(forged), "the binary takes it")
                    continue
                self.assertEqual(found, tensors)
                self.assertIsNotNone(self.decompress(forged), "the binary refuses it")
                passed += 1
        self.assertLess(passed, 40)

    def test_packed_layouts(self):
        tensors = {name: floats(t.dtype, np.frombuffer(t.data, {"F16": "<f2", "F32": "<f4"}[t.dtype]),
                                (2, 48, 4, 16))
                   for name, t in self.channels(192).items() if t.dtype != "BF16"}
        manifest = self.both(serialize(tensors), "--layout", "tokens-heads-dim", "--kv-axis", "0",
                             "--codec", "k:int4-g32/v:q8_0", "--pack")
        self.assertEqual((manifest["version"], manifest["kv_axis"]), (9, 0))

    def test_what_packing_does_not_shorten(self):
        file = serialize({"x.key": floats("F16", self.values((1, 3, 8), 1.0))})
        self.assertEqual(self.compress(file, "--pack"), self.compress(file))

    def test_what_the_page_does_not_allow_in_version_9(self):
        file = self.compress(serialize(self.channels()), "--codec", "int4-g32", "--pack")
        manifest, header, data = take_apart(file)
        self.agree(put_together(manifest, header, data))

        def case(what, change):
            self.both_refuse(what, (manifest, header, data), change)

        first = next(i for i, t in enumerate(manifest["tensors"]) if t["packed"]["bytes"][1])
        name = manifest["tensors"][first]["name"]
        start, end = header[f"{name}.codes"]["data_offsets"]
        packed = lambda m: m["tensors"][first]["packed"]
        for version in (1, 2, 6, 7, 8, 11):
            case("another version", lambda m, d: m.update(version=version))
        case("a field more", lambda m, d: packed(m).update(more=1))
        case("no list", lambda m, d: packed(m).update(bytes=5))
        case("a number less", lambda m, d: packed(m)["bytes"].pop())
        case("a number more", lambda m, d: packed(m)["bytes"].append(0))
        case("a byte more", lambda m, d: packed(m)["bytes"].__setitem__(1, end - start + 1))
        case("nothing packed", lambda m, d: packed(m).update(bytes=[0, 0]))
        case("no checksum", lambda m, d: packed(m).pop("crc32"))
        case("another checksum", lambda m, d: packed(m).update(crc32="00000000"))
        case("null", lambda m, d: m["tensors"][first].update(packed=None))
        case("a P of 0", lambda m, d: d.__setitem__(slice(end - 4, end), bytes(4)))
        for block in (1, 100, 1 << 16, 1 << 20, (1 << 20) + 1):
            number = struct.pack("<I", block)
            if number != bytes(data[end - 4 : end]):
                # One block, whatever P is beyond it: the same bytes.
                takes = block in (1 << 16, 1 << 20)
                if not takes:
                    case(f"a P of {block}", lambda m, d: d.__setitem__(slice(end - 4, end), number))
        case("a length of 0", lambda m, d: d.__setitem__(slice(end - 8, end - 4), bytes(4)))
        case("symbols of 9 bits", lambda m, d: d.__setitem__(start, 9))
        case("symbols of 1 bit", lambda m, d: d.__setitem__(start, 1))
        case("no period", lambda m, d: d.__setitem__(slice(start + 1, start + 3), b"\0\0"))
        case("a long period", lambda m, d: d.__setitem__(slice(start + 1, start + 3), b"\1\x10"))
        for number in range(300):
            at, bit = int(self.random.integers(start, end - 8)), int(self.random.integers(0, 8))
            case(f"bit {bit} of byte {at}", lambda m, d: d.__setitem__(at, d[at] ^ 1 << bit))

    # Damage

    def small(self):
        tensors = {
            "k": floats("F16", self.values(9, 1)),
            "e": floats("F32", []),
            "v": floats("F32", self.values((2, 3), 1e30)),
            "i": Tensor("I64", (1,), bytes(range(8))),
        }
        return self.compress(serialize(tensors, {"b": "1", "a": "2"}), "-group-size", "8")

    def refused(self, file, what):
        try:
            format_decoder.decode(file)
        except FormatError:
            return
        self.fail(f"the decoder takes {what}")

    def both_refuse(self, what, parts, change):
        """A file taken apart, with its manifest and data changed and all checksums right."""
        manifest, header, data = copy.deepcopy(parts)
        change(manifest, data)
        fix_checksums(manifest, header, data)
        with self.subTest(what):
            forged = put_together(manifest, header, data)
            self.refused(forged, what)
            self.assertIsNone(self.decompress(forged), f"the binary takes {what}")

    def test_every_flipped_bit_is_found(self):
        file = bytearray(self.small())
        format_decoder.decode(bytes(file))
        for bit in range(len(file) * 8):
            file[bit // 8] ^= 1 << bit % 8
            self.refused(bytes(file), f"bit {bit} flipped")
            file[bit // 8] ^= 1 << bit % 8
        format_decoder.decode(bytes(file))

    def test_every_cut_is_found(self):
        file = self.small()
        for length in range(len(file)):
            self.refused(file[:length], f"{length} bytes")
        self.refused(file + b"\0", "a byte more")

    def test_what_the_page_does_not_allow(self):
        """Files with right checksums that break the page: both refuse them."""
        manifest, header, data = take_apart(self.small())
        self.agree(put_together(manifest, header, data))
        scales, codes = (header[part]["data_offsets"][0] for part in ("k.scales", "k.codes"))

        def case(what, change=None, binary=True, checksums=True, **options):
            parts = copy.deepcopy((manifest, header, data))
            if change:
                change(*parts)
            if checksums:
                fix_checksums(*parts)
            file = put_together(*parts, **options)
            with self.subTest(what):
                self.refused(file, what)
                if binary:
                    self.assertIsNone(self.decompress(file), f"the binary takes {what}")

        def field(name, value):
            return lambda m, h, d: m.update({name: value})

        def of_tensor(at, **fields):
            return lambda m, h, d: m["tensors"][at].update(fields)

        def of_part(name, **fields):
            return lambda m, h, d: h[name].update(fields)

        def bytes_at(at, value):
            return lambda m, h, d: d.__setitem__(slice(at, at + len(value)), value)

        for value in (0, 2, 1.0, "1", None, True):
            case(f"version {value!r}", field("version", value))
        case("another format", field("format", "kvgauge"))
        for value in ("int4-g0", "int4-g", "int8", "", "k:f16", "k:x/v:f16", 4, None):
            case(f"codec {value!r}", field("codec", value))
        for value in (-1, 1.5, "1", None):
            case(f"source_bytes {value!r}", field("source_bytes", value))
        for value in (None, [], {"rmse": "0", "snr_db": None, "cosine_similarity": None}):
            case(f"quality {value!r}", field("quality", value))
        case("metadata of numbers", field("metadata", {"a": 1}))
        case("another field", field("more", 1))
        for name in ("format", "version", "codec", "source_bytes", "quality", "tensors"):
            case(f"no {name}", lambda m, h, d, name=name: m.pop(name), checksums=False)

        case("another field of a tensor", of_tensor(0, more=1))
        for name in ("name", "dtype", "shape", "crc32", "exponent"):
            change = lambda m, h, d, name=name: m["tensors"][0].pop(name)  # noqa: E731
            case(f"a tensor without {name}", change, checksums=False)
        for value in (-201, 201, 0.0, "0", None, True):
            case(f"exponent {value!r}", of_tensor(0, exponent=value))
        plain = next(i for i, t in enumerate(manifest["tensors"]) if t["name"] == "i")
        case("an exponent of none", of_tensor(plain, exponent=0))
        for value in ("U64", "F64", "X", 1, None):
            case(f"I64 as {value!r}", of_tensor(plain, dtype=value))
        case("int4 of F64", of_tensor(0, dtype="F64"))
        for value in ([11], [3, 4], [-9], [9.0], ["9"], 9, None):
            case(f"shape {value!r}", of_tensor(0, shape=value))
        case("another name", of_tensor(0, name="kk"))
        case("two tensors of one name", of_tensor(0, name="v"))
        digits = manifest["tensors"][plain]["crc32"]
        self.assertNotEqual(digits, digits.upper())
        for value in (digits.upper(), "00000000", "0" + digits, digits[1:], int(digits, 16), None):
            case(f"crc32 {value!r}", of_tensor(plain, crc32=value), checksums=False)
        case("data in another order", lambda m, h, d: m["tensors"].reverse())

        for value in (b"\0\x7c", b"\0\xfc", b"\0\x7e", b"\1\x7c"):
            case(f"scale {value.hex()}", bytes_at(scales, value))
        case("a byte after the data", lambda m, h, d: d.append(0))
        case("a byte less", lambda m, h, d: d.pop(), checksums=False)
        end = len(data)
        more = {"dtype": "U8", "shape": [0], "data_offsets": [end, end]}
        case("a part too many", lambda m, h, d: h.update(more=more))
        case("a part missing", lambda m, h, d: h.pop("k.codes"), checksums=False)
        case("an empty part missing", lambda m, h, d: h.pop("e.codes"))
        case("scales as BF16", of_part("k.scales", dtype="BF16"))
        case("codes as I8", of_part("k.codes", dtype="I8"))
        case("codes of another shape", of_part("k.codes", shape=[1, 5]))
        case("needless dots", edit=lambda t: t.replace(".codes", "..codes").replace(
            ".scales", "..scales"))

        twice = '"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},'
        case("a part twice", edit=lambda t: t.replace('"i":{', twice + '"i":{'))
        case("a field twice", edit=lambda t: t.replace('\\"version', '\\"version\\":1,\\"version'))
        case("white space first", edit=lambda t: t.replace("{", "{ ", 1))
        case("text after the manifest", edit=lambda t: t.replace(']}"}', ']} x"}'))
        case("NaN", edit=lambda t: t.replace('\\"rmse\\":', '\\"rmse\\":NaN,\\"r\\":'))

        # These the binary is known to take: what they break tells a reader nothing.
        def case_of_decoder(what, change=None, **options):
            case(what, change, binary=False, **options)

        case_of_decoder("four last bits", bytes_at(codes + 4, bytes([data[codes + 4] & 15])))
        case_of_decoder("fields out of order", lambda m, h, d: m.update(codec=m.pop("codec")))
        case_of_decoder("metadata not sorted", field("metadata", {"b": "1", "a": "2"}))
        case_of_decoder("a codec that is the file's", edit=lambda t: t.replace(
            ',\\"exponent', ',\\"codec\\":\\"int4-g8\\",\\"exponent'))
        case_of_decoder("quality without fields", field("quality", {}))
        case_of_decoder("a zero before N", field("codec", "int4-g08"))
        case_of_decoder("a second entry", edit=lambda t: t.replace(']}"}', ']}","x":"y"}'))
        case_of_decoder("odd padding", padding=lambda n: b" " * (-n % 8 + 1))
        case_of_decoder("padding with tabs", padding=lambda n: b"\t" * (-n % 8 + 8))
        case_of_decoder("parts in another order", lambda m, h, d: h.update(i=h.pop("i")))

    def test_what_writers_need_not_use(self):
        """Files that the page allows, though this writer makes none, are read alike by the binary."""
        exponents = (-200, *range(-170, -100), -30, -10, 0, 5, *range(95, 130), 200)
        for scale in (b"\0\xbc", b"\0\x80", b"\1\0", b"\x55\x15", b"\xff\x7b", b"\xff\xfb"):
            for codes in (b"\0\0\0\0\x80", b"\xff\xff\xff\xff\x8f", b"\x10\x32\x54\x76\x8d"):
                file = make(
                    [
                        (f"{dtype} {exponent}", dtype, [9], "int4-g64", exponent, [scale, codes])
                        for dtype in FLOATS
                        for exponent in exponents
                    ]
                )
                restored = self.decompress(file)
                self.assertIsNotNone(restored)
                got, metadata = format_decoder.decode(file)
                compare(self, got, metadata, take_apart(file)[0], *parse(restored))
        manifest, header, data = take_apart(self.small())
        at = header["k.scales"]["data_offsets"][0]
        data[at : at + 2] = b"\0\xbc"
        fix_checksums(manifest, header, data)
        self.agree(put_together(manifest, header, data, padding=lambda n: b" " * (-n % 8 + 4096)))


if __name__ == "__main__":
    unittest.main()
