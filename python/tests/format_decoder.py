"""A strict decoder of compressed KV files, version 1, written from FORMAT.md alone.

Pure Python and numpy: it shares no code with the program that writes the files, so that the two
agree only where the page says what it should. It is slow and holds the file in memory.

    tensors, metadata = read("compressed.safetensors")

`tensors` is a dict in the order of the manifest, name -> `Tensor(dtype, shape, data)`, where `data`
is the restored tensor's raw little-endian bytes in the source's dtype. `metadata` is the source's
own `__metadata__`, or None. Whatever the page does not allow raises `FormatError`.
"""

import json
import math
import re
import struct
import zlib
from typing import NamedTuple

import numpy as np

OPENING = b'{"__metadata__":{"kvgauge":"{\\"header_crc32\\":\\"'
CRC_AT = 8 + len(OPENING)

# Bits of one value, of every dtype that safetensors knows.
BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
COMPRESSIBLE = ("F16", "BF16", "F32")
MANIFEST_FIELDS = (
    "header_crc32",
    "format",
    "version",
    "codec",
    "source_bytes",
    "quality",
    "metadata",
    "tensors",
)
TENSOR_FIELDS = ("name", "dtype", "shape", "crc32", "codec", "exponent")

F16_MAX = 65504.0
F64_MAX = float(np.finfo(np.float64).max)
F32_MAX = float(np.finfo(np.float32).max)
BF16_MAX_BITS = 0x7F7F


class FormatError(Exception):
    """The file is not what FORMAT.md describes."""


class Tensor(NamedTuple):
    dtype: str
    shape: tuple
    data: bytes


class Part(NamedTuple):
    name: str
    dtype: str
    shape: tuple


def need(condition, message, *values):
    if not condition:
        raise FormatError(message.format(*values))


# JSON, of the types the page names and no others


def parse_json(text, what):
    def pairs(items):
        keys = [key for key, _ in items]
        need(len(keys) == len(set(keys)), "{}: a key occurs twice", what)
        return dict(items)

    def constant(name):
        raise FormatError(f"{what}: {name} is not JSON")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
        # JSON can spell half of a surrogate pair, which is no character.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what}: {error}") from None
    return value


def is_integer(value):
    return type(value) is int


def as_object(value, fields, optional, what):
    """`value`, an object of `fields` in this order, of which only `optional` may be missing."""
    need(type(value) is dict, "{}: not an object", what)
    for field in value:
        need(field in fields, "{}: unknown field {!r}", what, field)
    for field in fields:
        need(field in value or field in optional, "{}: no field {!r}", what, field)
    order = [field for field in fields if field in value]
    need(list(value) == order, "{}: fields out of order", what)
    return value


def as_shape(value, what):
    need(type(value) is list, "{}: the shape is not an array", what)
    need(all(is_integer(x) and 0 <= x < 2**64 for x in value), "{}: bad shape", what)
    return tuple(value)


def as_dtype(value, what):
    need(type(value) is str and value in BITS, "{}: unknown dtype {!r}", what, value)
    return value


def as_crc(value, what):
    good = type(value) is str and re.fullmatch("[0-9a-f]{8}", value)
    need(good, "{}: not eight lower-case hexadecimal digits", what)
    return value


def count(shape):
    return math.prod(shape)


def size(part, what):
    bits = count(part.shape) * BITS[part.dtype]
    need(bits % 8 == 0, "{}: not a whole number of bytes", what)
    return bits // 8


# Codec names


def group_size(codec):
    """N of `int4-gN`, or None where the name is not of this form."""
    match = re.fullmatch("int4-g([1-9][0-9]{0,18})", codec)
    return int(match[1]) if match else None


def is_compressing(codec):
    return codec == "f16" or group_size(codec) is not None


def is_file_codec(codec):
    match = re.fullmatch("k:([^/]*)/v:([^/]*)", codec)
    return all(map(is_compressing, match.groups())) if match else is_compressing(codec)


# The manifest


def check_manifest(manifest):
    as_object(manifest, MANIFEST_FIELDS, ("metadata",), "manifest")
    need(manifest["format"] == "kvgauge-kv", "unknown format {!r}", manifest["format"])
    version = manifest["version"]
    need(is_integer(version) and version == 1, "unknown version {!r}", version)
    codec = manifest["codec"]
    need(type(codec) is str and is_file_codec(codec), "unknown codec {!r}", codec)
    source_bytes = manifest["source_bytes"]
    need(is_integer(source_bytes) and 0 <= source_bytes < 2**64, "bad source_bytes")

    quality = manifest["quality"]
    as_object(quality, ("rmse", "snr_db", "cosine_similarity"), (), "quality")
    for field, value in quality.items():
        need(value is None or type(value) in (int, float), "quality: bad {}", field)
        need(value is None or abs(value) <= F64_MAX, "quality: bad {}", field)

    metadata = manifest.get("metadata")
    if "metadata" in manifest:
        need(type(metadata) is dict, "metadata: not an object")
        need(all(type(value) is str for value in metadata.values()), "metadata: not strings")
        need(list(metadata) == sorted(metadata), "metadata: keys not sorted")

    need(type(manifest["tensors"]) is list, "tensors: not an array")
    names = set()
    for tensor in manifest["tensors"]:
        as_object(tensor, TENSOR_FIELDS, ("codec", "exponent"), "tensor")
        name = tensor["name"]
        need(type(name) is str and name != "__metadata__", "a tensor's name is not a name")
        need(name not in names, "{!r}: two tensors have this name", name)
        names.add(name)
        as_dtype(tensor["dtype"], name)
        tensor["shape"] = as_shape(tensor["shape"], name)
        as_crc(tensor["crc32"], name)

        stored = tensor.setdefault("codec", None)
        need(stored is not None or is_compressing(codec), "{!r}: no codec", name)
        need(stored != codec, "{!r}: names the file's own codec", name)
        stored = tensor["codec"] = codec if stored is None else stored
        known = type(stored) is str and (stored == "none" or is_compressing(stored))
        need(known, "{!r}: unknown codec {!r}", name, stored)
        if stored != "none":
            good = tensor["dtype"] in COMPRESSIBLE
            need(good, "{!r}: {} of {}", name, stored, tensor["dtype"])

        if group_size(stored) is None:
            need("exponent" not in tensor, "{!r}: an exponent without int4", name)
        else:
            need("exponent" in tensor, "{!r}: no exponent", name)
            exponent = tensor["exponent"]
            good = is_integer(exponent) and -200 <= exponent <= 200
            need(good, "{!r}: bad exponent {!r}", name, exponent)


# The parts


def parts_of(tensor, dots):
    """The stored parts of one tensor, in the order of the page's table."""
    name, shape, n = tensor["name"], tensor["shape"], count(tensor["shape"])
    if tensor["codec"] == "none":
        return [Part(name, tensor["dtype"], shape)]
    if tensor["codec"] == "f16":
        return [Part(f"{name}{dots}values", "F16", shape)]
    groups = -(-n // group_size(tensor["codec"]))
    return [
        Part(f"{name}{dots}scales", "F16", (groups,)),
        Part(f"{name}{dots}codes", "U8", (-(-n // 2),)),
    ]


def parts_of_all(tensors):
    """The stored parts of all tensors, with the fewest dots that make all names differ."""
    dots = "."
    while True:
        parts = [parts_of(tensor, dots) for tensor in tensors]
        names = [part.name for of_one in parts for part in of_one]
        if len(set(names)) == len(names):
            return parts
        dots += "."


def check_header(header, parts, data_size):
    """Require that the header lists these parts alone, gapless, in order; name -> range."""
    # sorted() is stable: within one width the order of tensors and of the table stays.
    expected = sorted((part for of_one in parts for part in of_one), key=lambda x: -BITS[x.dtype])
    need(list(header) == [part.name for part in expected], "the header lists other parts")
    ranges, at = {}, 0
    for part in expected:
        entry = header[part.name]
        need(type(entry) is dict, "{!r}: not an object", part.name)
        need(set(entry) == {"dtype", "shape", "data_offsets"}, "{!r}: bad fields", part.name)
        need(as_dtype(entry["dtype"], part.name) == part.dtype, "{!r}: bad dtype", part.name)
        need(as_shape(entry["shape"], part.name) == part.shape, "{!r}: bad shape", part.name)
        offsets, end = entry["data_offsets"], at + size(part, part.name)
        good = type(offsets) is list and len(offsets) == 2 and all(map(is_integer, offsets))
        need(good and offsets == [at, end], "{!r}: bad data_offsets", part.name)
        ranges[part.name] = (at, end)
        at = end
    need(at == data_size, "{} bytes of data, expected {}", data_size, at)
    return ranges


# Values


def bf16_bits(values):
    """f32 to the bits of BF16: nearest, ties to even, no infinities; integers only."""
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    sign, magnitude = bits >> 31 << 15, bits & 0x7FFFFFFF
    rounded = (magnitude + 0x7FFF + (magnitude >> 16 & 1)) >> 16
    return (sign | np.minimum(rounded, BF16_MAX_BITS)).astype("<u2")


def narrow(values, dtype):
    """Finite f32 values as bytes of `dtype`."""
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "BF16":
        return bf16_bits(values).tobytes()
    limit = np.float32(F16_MAX)
    return np.clip(values, -limit, limit).astype("<f2").tobytes()


def finite_f16(data, what):
    values = np.frombuffer(data, "<f2")
    need(bool(np.isfinite(values).all()), "{!r}: not finite", what)
    return values


def decode_f16(data, tensor):
    return narrow(finite_f16(data, tensor["name"]).astype(np.float32), tensor["dtype"])


def decode_int4(scales, codes, tensor):
    n, group = count(tensor["shape"]), group_size(tensor["codec"])
    scales = finite_f16(scales, tensor["name"]).astype(np.float64)
    packed = np.frombuffer(codes, np.uint8)
    # "For an odd n the last high four bits are 8."
    need(n % 2 == 0 or packed[-1] >> 4 == 8, "{!r}: bad last four bits", tensor["name"])
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(-1)[:n].astype(np.float64) - 8
    # No more than 4 + 11 significant bits, and no less than 2**-224: exact in f64. Rounded once.
    values = np.ldexp(codes * scales[np.arange(n) // min(group, max(n, 1))], tensor["exponent"])
    values = np.clip(values, -F32_MAX, F32_MAX).astype(np.float32)
    return narrow(values, tensor["dtype"])


# The file


def decode(file):
    """The tensors and the metadata of a compressed file, given as bytes."""
    need(len(file) >= 8, "shorter than eight bytes")
    (length,) = struct.unpack_from("<Q", file)
    need(length <= len(file) - 8, "the header is longer than the file")
    need(length % 8 == 0, "the header is not padded to eight bytes")
    head, data = file[: 8 + length], memoryview(file)[8 + length :]
    need(head[8:CRC_AT] == OPENING, "it does not begin as a compressed file does")
    # Compared as text: upper-case digits are wrong too.
    crc = zlib.crc32(head[:CRC_AT] + b"0" * 8 + head[CRC_AT + 8 :])
    need(head[CRC_AT : CRC_AT + 8] == b"%08x" % crc, "the header's checksum is wrong")

    try:
        text = head[8:].rstrip(b" ").decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"header: {error}") from None
    need(text.endswith("}"), "the header is padded with something else than spaces")
    header = parse_json(text, "header")
    need(type(header) is dict, "header: not an object")
    outer = as_object(header.pop("__metadata__"), ("kvgauge",), (), "__metadata__")
    need(type(outer["kvgauge"]) is str, "the manifest is not a string")
    manifest = parse_json(outer["kvgauge"], "manifest")
    check_manifest(manifest)

    parts = parts_of_all(manifest["tensors"])
    ranges = check_header(header, parts, len(data))
    tensors = {}
    for tensor, of_one in zip(manifest["tensors"], parts):
        stored = [bytes(data[slice(*ranges[part.name])]) for part in of_one]
        crc = 0
        for part in stored:
            crc = zlib.crc32(part, crc)
        need(tensor["crc32"] == f"{crc:08x}", "{!r}: the checksum is wrong", tensor["name"])
        if tensor["codec"] == "none":
            (restored,) = stored
        elif tensor["codec"] == "f16":
            restored = decode_f16(*stored, tensor)
        else:
            restored = decode_int4(*stored, tensor)
        tensors[tensor["name"]] = Tensor(tensor["dtype"], tensor["shape"], restored)
    return tensors, manifest.get("metadata")


def read(path):
    """The tensors and the metadata of the compressed file at `path`."""
    with open(path, "rb") as file:
        return decode(file.read())
