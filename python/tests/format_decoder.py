"""A strict decoder of compressed KV files, versions 1 to 10, written from FORMAT.md alone.

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
    "rope",
    "rotary",
    "layout",
    "kv_axis",
    "head_dim",
    "tensors",
)
OPTIONAL_FIELDS = ("metadata", "rope", "rotary", "layout", "kv_axis", "head_dim")
TENSOR_FIELDS = (
    "name",
    "dtype",
    "shape",
    "crc32",
    "codec",
    "exponent",
    "exponents",
    "rotary",
    "block",
    "packed",
)
ROTARY_FIELDS = ("frequencies", "pairs", "head_dim")

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


class Scheme(NamedTuple):
    """The fields of a codec that packs."""

    bits: int
    group: float  # infinite: one group for all values; 0: one for each head vector
    levels: str
    ch: bool = False
    prerope: bool = False
    ctr: bool = False
    had: object = False  # True, values of a block, or "64 on", "vllm", "power"
    scales: str = "f16"
    sink: int = 0
    signs: bool = False
    mse: bool = False
    fixed: float = 1.0  # The scale, where none is stored.


class TwoCentre(NamedTuple):
    levels: str
    prerope: bool
    had: bool = False  # Its blocks are its own.


class Kvarn(NamedTuple):
    """Tiles of 128 tokens, whose rows are channels or tokens."""

    bits: int
    by_channel: bool
    prerope: bool = False
    had: bool = True
    levels: str = "tiles"


class Part(NamedTuple):
    name: str
    dtype: str
    shape: tuple
    packed: int = 0  # Bytes in the file, or 0.

    def in_file(self):
        """Its dtype and shape in the header."""
        return ("U8", (self.packed,)) if self.packed else (self.dtype, self.shape)


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

MOST = 2**32 - 1
PRESETS = {
    "q4_0": Scheme(4, 32, "ext"),
    "q5_0": Scheme(5, 32, "ext"),
    "q8_0": Scheme(8, 32, "sym"),
    "q4_1": Scheme(4, 32, "asym"),
    "q5_1": Scheme(5, 32, "asym"),
    "quanto4": Scheme(4, 64, "asym"),
    "iq4_nl": Scheme(4, 32, "iq4_nl"),
    "fp8-e4m3": Scheme(8, math.inf, "e4m3", scales="one"),
    "fp8-e5m2": Scheme(8, math.inf, "e5m2", scales="one"),
    "fp8-e4m3-per-tensor": Scheme(8, math.inf, "e4m3"),
    "fp8-e5m2-per-tensor": Scheme(8, math.inf, "e5m2"),
    "fp8-per-token-head": Scheme(8, 0, "e4m3", scales="f32"),
    "int8-per-token-head": Scheme(8, 0, "sym", scales="f32"),
    "mxfp8": Scheme(8, 32, "e4m3", scales="e8m0"),
    "mxfp4": Scheme(4, 32, "e2m1", scales="e8m0"),
    "nvfp4": Scheme(4, 16, "e2m1", scales="e4m3"),
    "nvfp4-per-tensor": Scheme(4, 16, "e2m1", scales="e4m3 of tensor"),
    "turbo4": Scheme(4, 64, "lm", had=True, signs=True),
    "int4-per-token-head": Scheme(4, 0, "zero", had="vllm", scales="f32 and zero"),
    "quanto2": Scheme(2, 64, "asym"),
    **{f"exllamav3-{bits}": Scheme(bits, 32, "mid", had=32) for bits in range(2, 9)},
    **{f"mlx{bits}": Scheme(bits, 64, "asym") for bits in (2, 3, 4, 5, 6, 8)},
    **{f"hqq{bits}": Scheme(bits, 64, "hqq") for bits in (2, 4)},
    **{f"kvarn{bits}": Kvarn(bits, True) for bits in (2, 3, 4)},
    **{f"kvarn{bits}-by-token": Kvarn(bits, False) for bits in (2, 3, 4)},
}
ROTATED = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")
PRESETS.update({f"{name}-had": PRESETS[name]._replace(had="64 on") for name in ROTATED})
PRESETS.update({f"{name}-had64": PRESETS[name]._replace(had=64) for name in ROTATED})
# Of version 10. The first two without a rotation go by their fields.
NEWER = {
    "q3_0": Scheme(3, 32, "ext"),
    "q2_0": Scheme(2, 32, "ext"),
    "q6_1": Scheme(6, 32, "asym"),
    "q3_1": Scheme(3, 32, "asym"),
    "q2_1": Scheme(2, 32, "asym"),
}
TENTH = {
    **{name: scheme for name, scheme in NEWER.items() if scheme.levels == "asym"},
    **{f"{name}-had": scheme._replace(had="64 on") for name, scheme in NEWER.items()},
    **{f"{name}-had64": scheme._replace(had=64) for name, scheme in NEWER.items()},
    **{f"turboquant-k{bits}-nc": Scheme(bits, 0, "unit", had="power") for bits in (3, 4)},
    **{f"turboquant-v{bits}": Scheme(bits, 0, "asym") for bits in (3, 4)},
}
PRESETS.update(TENTH)
# What versions before 6 know.
OLD = {*ROTATED, "quanto4", "turbo4"}
PAIRS = {
    "kivi4": ("int4-g64-asym-ch", "int4-g64-asym"),
    "kvgauge4": ("tc19-prerope-shape", "tc16"),
    "kvgauge3": ("te26-prerope-shape", "te24"),
    "kvgauge2": ("te20-prerope-shape", "te13"),
    "kvarn-k4v2": ("kvarn4", "kvarn2-by-token"),
    "turboquant-k8v4": ("fp8-e4m3", "turboquant-v4"),
    "turboquant-4bit-nc": ("turboquant-k4-nc", "turboquant-v4"),
    "turboquant-k3v4-nc": ("turboquant-k3-nc", "turboquant-v4"),
    "turboquant-3bit-nc": ("turboquant-k3-nc", "turboquant-v3"),
}
# What version 6 calls otherwise.
FORMER = {"fp8-e4m3": "fp8-e4m3-per-tensor", "fp8-e5m2": "fp8-e5m2-per-tensor"}
# Composed names that go by a preset's: only the writer tells the others apart.
RENAMED = {"int4-g32-ext", "int5-g32-ext"}
FIXED = re.compile(r"fp8-(e4m3|e5m2)-scale[0-9]+(\.[0-9]+)?")
COMPOSED = re.compile(
    "int(?P<bits>[2-8])-g(?P<group>[1-9][0-9]*)(-(?P<levels>asym|mid|ext|lm))?"
    "(?P<ch>-ch)?(?P<prerope>-prerope)?(?P<ctr>-ctr)?(?P<had>-had)?(?P<mse>-mse)?(?P<s8>-s8)?"
    "(-sink(?P<sink>[1-9][0-9]*))?"
)


def scheme_of(codec):
    """The fields of one name; None where it is `f16`, a pair, or none at all."""
    if type(codec) is not str:
        return None
    if codec in PRESETS:
        return PRESETS[codec]
    centres = re.fullmatch("(tc16|tc19|te13|te20|te24|te26)(-prerope)?(-shape)?", codec)
    if centres:
        return TwoCentre(centres[1], bool(centres[2]))
    if FIXED.fullmatch(codec):
        preset, scale = codec.split("-scale")
        value = np.float32(scale)
        plain = np.format_float_positional(value, unique=True, trim="-")
        good = np.finfo(np.float32).tiny <= value < math.inf and value != 1 and plain == scale
        return PRESETS[preset]._replace(fixed=float(value)) if good else None
    match = COMPOSED.fullmatch(codec)
    if not match or codec in RENAMED:
        return None
    bits, group, sink = int(match["bits"]), int(match["group"]), int(match["sink"] or 0)
    flags = {flag: bool(match[flag]) for flag in ("ch", "prerope", "ctr", "had", "mse")}
    scales = "s8" if match["s8"] else "f16"
    scheme = Scheme(bits, group, match["levels"] or "sym", sink=sink, scales=scales, **flags)
    allowed = bits <= 5 if scheme.levels == "lm" else not (scheme.levels == "ext" and match["s8"])
    return scheme if allowed and 8 <= group <= MOST and sink <= MOST else None


def group_size(codec):
    """N of `int4-gN`, or None where the name is not of this form."""
    scheme = scheme_of(codec)
    plain = type(scheme) is Scheme and scheme == Scheme(4, scheme.group, "sym")
    return scheme.group if plain else None


def is_compressing(codec):
    return codec == "f16" or scheme_of(codec) is not None


def is_first(codec):
    """Whether version 1 knows it."""
    return codec == "f16" or group_size(codec) is not None


def is_sixth(codec):
    """Whether version 6 is the first that knows it by this name."""
    return codec in PRESETS and codec not in OLD and not is_tenth(codec)


def is_eighth(codec):
    """Whether it has codes that go by a trellis."""
    scheme = scheme_of(codec)
    return type(scheme) is TwoCentre and scheme.levels in FREQUENCIES


def is_tenth(codec):
    """Whether version 10 is the first that knows it."""
    scheme = scheme_of(codec)
    new = type(scheme) is Kvarn or scheme is not None and scheme.levels == "hqq"
    return new or codec in TENTH or bool(FIXED.fullmatch(codec))


def today(codec):
    """The name in version 6 of a codec of an earlier one."""
    need(type(codec) is str, "codec {!r}", codec)
    match = re.fullmatch("k:([^/]*)/v:([^/]*)", codec)
    names = match.groups() if match else [codec]
    for name in names:
        need(name not in FORMER.values(), "{!r} in a version before 6", name)
    names = [FORMER.get(name, name) for name in names]
    return "k:{}/v:{}".format(*names) if match else names[0]


def without_rope(codec):
    shapeless = codec.replace("-shape", "") if codec.startswith(("tc", "te")) else codec
    return shapeless.replace("-prerope", "")


def by_role(codec):
    """The codecs of keys and of values in a file of this codec; None if it is not one."""
    if type(codec) is not str:
        return None
    if codec in PAIRS:
        return PAIRS[codec]
    match = re.fullmatch("k:([^/]*)/v:([^/]*)", codec)
    if not match:
        # int4-gN-ext-prerope without its last field may be a preset.
        value = {"int4-g32-ext": "q4_0", "int5-g32-ext": "q5_0"}.get(without_rope(codec))
        value = f"{codec}64" if f"{codec}64" in PRESETS else value
        value = f"{codec}-by-token" if f"{codec}-by-token" in PRESETS else value
        return (codec, value or without_rope(codec)) if is_compressing(codec) else None
    pair = match.groups()
    if not all(map(is_compressing, pair)) or "-prerope" in pair[1]:
        return None
    # A codec with a shorter name goes by it.
    longer = pair in PAIRS.values() or by_role(pair[0]) == pair
    return None if longer else pair


PLACE = "-?(0|[1-9][0-9]*)"
LAYERS = re.compile(f"{PLACE}(-{PLACE})?(,{PLACE}(-{PLACE})?)*")


def names_by_layer(codec):
    """The names in `BASE+NAME@LAYERS`, or the only one; None if it is not one."""
    base, *others = codec.split("+") if type(codec) is str else [None]
    parts = [other.split("@") for other in others]
    good = all(len(part) == 2 and LAYERS.fullmatch(part[1]) for part in parts)
    names = [base, *(part[0] for part in parts)]
    return names if good and all(map(by_role, names)) else None


# The manifest


def check_manifest(manifest):
    as_object(manifest, MANIFEST_FIELDS, OPTIONAL_FIELDS, "manifest")
    need(manifest["format"] == "kvgauge-kv", "unknown format {!r}", manifest["format"])
    version = manifest["version"]
    need(is_integer(version) and version in range(1, 11), "unknown version {!r}", version)
    if version < 6:
        manifest["codec"] = today(manifest["codec"])
    codec = manifest["codec"]
    by_layer = names_by_layer(codec)
    need(by_layer is not None, "unknown codec {!r}", codec)
    roles = by_role(by_layer[0])
    layout = check_layout(manifest)
    first = 3 if layout else 1 if all(map(is_first, roles)) else 2
    first = 4 if "rotary" in manifest else first
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
        optional = ("codec", "exponent", "exponents", "rotary", "block", "packed")
        as_object(tensor, TENSOR_FIELDS, optional, "tensor")
        name = tensor["name"]
        need(type(name) is str and name != "__metadata__", "a tensor's name is not a name")
        need(name not in names, "{!r}: two tensors have this name", name)
        names.add(name)
        as_dtype(tensor["dtype"], name)
        tensor["shape"] = as_shape(tensor["shape"], name)
        as_crc(tensor["crc32"], name)
        if version < 6 and "codec" in tensor:
            tensor["codec"] = today(tensor["codec"])
        check_sides(tensor, by_layer, layout)
    read = any(tensor["sides"] for tensor in manifest["tensors"])
    need(read or not layout, "a layout for nothing")
    cut = any("block" in tensor for tensor in manifest["tensors"])
    packed = any("packed" in tensor for tensor in manifest["tensors"])
    sixth = any(is_sixth(role) and (version >= 6 or role not in FORMER.values()) for role in roles)
    first = 7 if len(by_layer) > 1 else 6 if sixth else 5 if cut else first
    first = 8 if any(is_eighth(role) for name in by_layer for role in by_role(name)) else first
    # Whether blocks are of forms that version 9 does not have shows when they are read.
    first = (10 if version == 10 else 9) if packed else first
    first = 10 if any(is_tenth(role) for name in by_layer for role in by_role(name)) else first
    need(version == first, "codec {!r} in version {}", codec, version)
    check_rope(manifest)


class Layout(NamedTuple):
    tokens_first: bool
    kv_axis: object
    head_dim: object


class Side(NamedTuple):
    """The payload of one codec: of a tensor, or of its keys or its values."""

    prefix: str
    codec: str
    exponent: object
    shape: tuple
    block: object = None


def check_layout(manifest):
    """How tensors are read; None where that is as they lie."""
    order, axis, dim = (manifest.get(field) for field in ("layout", "kv_axis", "head_dim"))
    if "layout" not in manifest:
        need("kv_axis" not in manifest and "head_dim" not in manifest, "no layout")
        return None
    need(order in ("heads-tokens-dim", "tokens-heads-dim"), "unknown layout {!r}", order)
    need(order == "tokens-heads-dim" or "kv_axis" in manifest, "the usual layout")
    if "kv_axis" in manifest:
        need(is_integer(axis) and axis >= 0, "bad kv_axis {!r}", axis)
    if "head_dim" in manifest:
        good = is_integer(dim) and dim >= 1 and order == "tokens-heads-dim"
        need(good, "bad head_dim {!r}", dim)
    return Layout(order == "tokens-heads-dim", axis, dim)


def check_sides(tensor, names, layout):
    """Give a tensor its sides: none where it is stored as it is. `names`: of the file's codecs."""
    name, stored, own = tensor["name"], tensor.get("codec"), "codec" in tensor
    tensor["sides"] = []
    both = layout is not None and layout.kv_axis is not None
    roles = by_role(names[0])
    if len(names) > 1:
        known = names if both else [role for name in names for role in by_role(name)]
        need(own and stored in ("none", *known), "{!r}: codec {!r}", name, stored)
        roles = by_role(stored) if both and stored != "none" else roles
    elif both or roles[0] == roles[1]:
        need(not own or stored == "none", "{!r}: codec {!r}", name, stored)
    else:
        need(own and stored in ("none", *roles), "{!r}: codec {!r}", name, stored)
    if stored == "none":
        need("exponent" not in tensor, "{!r}: an exponent without codes", name)
        need("exponents" not in tensor, "{!r}: exponents without codes", name)
        need("block" not in tensor, "{!r}: a block without codes", name)
        need("packed" not in tensor, "{!r}: packed without codes", name)
        return
    good = tensor["dtype"] in COMPRESSIBLE
    need(good, "{!r}: {} of {}", name, names, tensor["dtype"])
    codecs = roles if both else [stored if own else roles[0]]
    shape = side_shape(tensor, layout)
    if both:
        need("exponent" not in tensor, "{!r}: one exponent", name)
        exponents = tensor.get("exponents")
        good = type(exponents) is list and len(exponents) == 2
        need(good, "{!r}: bad exponents {!r}", name, exponents)
        for own, exponent in zip(codecs, exponents):
            need(scheme_of(own) or exponent == 0, "{!r}: an exponent without codes", name)
    else:
        need("exponents" not in tensor, "{!r}: exponents of one", name)
        coded = scheme_of(codecs[0]) is not None
        need(coded == ("exponent" in tensor), "{!r}: exponent or none", name)
        exponents = [tensor.get("exponent", 0)]
    for exponent in exponents:
        good = is_integer(exponent) and -200 <= exponent <= 200
        need(good, "{!r}: bad exponent {!r}", name, exponent)
    if "block" in tensor:
        dim = heads_of(shape)[2]
        need(any(type(scheme_of(own)) is TwoCentre for own in codecs), "{!r}: a block", name)
        need(dim not in (8, 16, 32, 64, 128), "{!r}: a block of its own", name)
        sizes = [size for size in range(8, 128, 4) if dim % size == 0]
        need(sizes and tensor["block"] == max(sizes), "{!r}: bad block", name)
    prefixes = ("key.", "value.") if both else ("",)
    for side in zip(prefixes, codecs, exponents):
        tensor["sides"].append(Side(*side, shape, tensor.get("block")))


def side_shape(tensor, layout):
    """The shape of a side, once it is rearranged."""
    shape, name = list(tensor["shape"]), tensor["name"]
    if layout is None:
        return tuple(shape)
    if layout.kv_axis is not None:
        good = layout.kv_axis < len(shape) and shape[layout.kv_axis] == 2
        need(good, "{!r}: no axis of keys and values", name)
        shape.pop(layout.kv_axis)
    if layout.head_dim is not None:
        good = shape and shape[-1] % layout.head_dim == 0
        need(good, "{!r}: no heads in the last axis", name)
        shape[-1:] = [shape[-1] // layout.head_dim, layout.head_dim]
    if layout.tokens_first:
        need(len(shape) >= 3, "{!r}: no tokens, heads and channels", name)
        shape[-3], shape[-2] = shape[-2], shape[-3]
    return tuple(shape)


def put_back(sides, tensor, layout):
    """The bytes of a tensor from those of its sides."""
    if layout is None:
        return sides[0]
    word = "<u4" if tensor["dtype"] == "F32" else "<u2"
    shape = side_shape(tensor, layout)
    values = [np.frombuffer(side, word).reshape(shape) for side in sides]
    if layout.tokens_first:
        values = [side.swapaxes(-3, -2) for side in values]
    if layout.head_dim is not None:
        values = [side.reshape(*side.shape[:-2], -1) if side.size else side for side in values]
    if layout.kv_axis is not None and values[0].size:
        values = [np.stack(values, layout.kv_axis)]
    return np.ascontiguousarray(values[0]).tobytes()


class Rotary(NamedTuple):
    """A rotary embedding: which pairs of channels turn, by how many radians a position."""

    frequencies: tuple
    neighbours: bool
    head_dim: int


def check_rope(manifest):
    """Require rotary embeddings where they are needed, and that tensors can be turned and rotated.

    Give each tensor its `embedding`.
    """
    by_tensor = "rotary" in manifest
    embeddings = check_rotary(manifest["rotary"]) if by_tensor else []
    needed, seen = False, 0
    for tensor in manifest["tensors"]:
        name, needs = tensor["name"], False
        for side in tensor["sides"]:
            scheme, dim = scheme_of(side.codec), heads_of(side.shape)[2]
            if type(scheme) is TwoCentre:
                good = "block" in tensor or dim % 8 == 0
                need(good, "{!r}: a head vector of no multiple of 8", name)
            if scheme and scheme.had:
                good = dim == 0 or rotated_block(scheme, dim)
                need(good, "{!r}: a head vector that is not rotated so", name)
            needs = needs or bool(scheme and scheme.prerope)
        tensor["embedding"] = None
        need(("rotary" in tensor) == (by_tensor and needs), "{!r}: rotary or none", name)
        if not needs:
            continue
        needed = True
        if by_tensor:
            index = tensor["rotary"]
            good = is_integer(index) and 0 <= index <= seen and index < len(embeddings)
            need(good, "{!r}: rotary {!r}", name, index)
            seen = max(seen, index + 1)
            embedding = embeddings[index]
        else:
            rope = manifest.get("rope")
            need(type(rope) is list, "no rope")
            embedding = Rotary(tuple(rope), False, 2 * len(rope))
        need(dim == embedding.head_dim, "{!r}: other head vectors than rope", name)
        tensor["embedding"] = embedding
    need((needed and not by_tensor) == ("rope" in manifest), "rope for nothing")
    need(seen == len(embeddings), "rotary: one of no tensor")
    check_frequencies(manifest.get("rope", ()))


def check_frequencies(frequencies):
    for frequency in frequencies:
        good = type(frequency) in (int, float) and abs(frequency) <= 65536
        need(good, "rope: bad number {!r}", frequency)


def check_rotary(listed):
    """The embeddings of version 4."""
    need(type(listed) is list and listed, "rotary: no array of embeddings")
    embeddings = []
    for entry in listed:
        as_object(entry, ROTARY_FIELDS, (), "rotary")
        frequencies, pairs, dim = (entry[field] for field in ROTARY_FIELDS)
        need(type(frequencies) is list, "rotary: frequencies are no array")
        check_frequencies(frequencies)
        need(pairs in ("halves", "neighbours"), "rotary: pairs {!r}", pairs)
        good = is_integer(dim) and 2 * len(frequencies) <= dim < 2**64
        need(good, "rotary: head_dim {!r}", dim)
        embeddings.append(Rotary(tuple(frequencies), pairs == "neighbours", dim))
    bits = [(np.array(e.frequencies, np.float32).tobytes(), *e[1:]) for e in embeddings]
    need(len(set(bits)) == len(bits), "rotary: one is there twice")
    first = embeddings[0]
    whole = not first.neighbours and 2 * len(first.frequencies) == first.head_dim
    need(len(embeddings) > 1 or not whole, "rotary: one that is rope's")
    return embeddings


# The parts


def parts_of(tensor, dots):
    """The stored parts of one tensor, in the order of the page's table."""
    name = tensor["name"]
    if not tensor["sides"]:
        return [Part(name, tensor["dtype"], tensor["shape"])]
    return [
        Part(f"{name}{dots}{side.prefix}{part}", dtype, shape)
        for side in tensor["sides"]
        for part, dtype, shape in parts_of_side(side, tensor["dtype"])
    ]


def parts_of_side(side, dtype):
    if side.codec == "f16":
        return [("values", "F16", side.shape)]
    sizes = sizes_of(scheme_of(side.codec), side.shape, dtype, side.block)
    return [(part, dtype, (size,)) for part, (dtype, size) in sizes.items()]


def heads_of(shape):
    """Heads, tokens, values of a head vector."""
    tokens, dim = (1, 1, *shape)[-2:]
    if 0 in shape:
        return 0, 0, dim
    return count(shape) // (tokens * dim), tokens, dim


def sizes_of(scheme, shape, dtype, block=None):
    """dtype and number of values of each part, in order."""
    heads, tokens, dim = heads_of(shape)
    if type(scheme) is TwoCentre:
        block, own = block_of(scheme, dim, block)
        blocks = heads * max(tokens - 1, 0) * (dim // block)
        return {
            "sinks": ("F16", heads * dim),
            "scales": ("U8", blocks),
            "codes": ("U8", blocks * own),
        }
    if type(scheme) is Kvarn:
        tiles = heads * (tokens // 128)
        rows, columns = (dim, 128) if scheme.by_channel else (128, dim)
        return {
            "tail": ("BF16" if dtype == "BF16" else "F16", heads * (tokens % 128) * dim),
            "column_scales": ("F16", tiles * columns),
            "scales": ("F16", tiles * rows),
            "minima": ("F16", tiles * rows),
            "codes": ("U8", tiles * 16 * dim * scheme.bits),
        }
    scheme = of_heads(scheme, dim)
    sinks = min(scheme.sink, tokens)
    body = tokens - sinks
    lines, line = (heads * dim, body) if scheme.ch else (1, heads * body * dim)
    groups = lines * (-(-line // scheme.group) if scheme.group != math.inf else min(line, 1))
    sizes = {}
    if scheme.sink:
        sizes["sinks"] = "BF16" if dtype == "BF16" else "F16", heads * sinks * dim
    if scheme.ctr:
        sizes["means"] = "F16", heads * dim
    if scheme.scales == "e4m3 of tensor":
        sizes["tensor_scale"] = "F32", min(groups, 1)
    if scheme.scales != "one":
        sizes["scales"] = WIDE_SCALES.get(scheme.scales, "U8"), groups
    if scheme.levels == "asym":
        sizes["minima"] = "F16", groups
    if scheme.levels == "hqq":
        sizes["zeros"] = "F16", groups
    sizes["codes"] = "U8", -(-heads * body * dim * scheme.bits // 8)
    return sizes


WIDE_SCALES = {"f16": "F16", "f32": "F32", "f32 and zero": "F32"}


def of_heads(scheme, dim):
    """With the size of a group of a head vector."""
    return scheme if scheme.group else scheme._replace(group=max(dim, 1))


def channels_of_places(dim, block):
    """Of blocks that the field says: block after block the channels of its places."""
    blocks, run = dim // block, block & -block
    parts = min(8, run)
    apart = run // parts
    channels = []
    for index in range(blocks):
        pairs = range(index, dim // 2, blocks)
        listed = [channel for pair in pairs for channel in (pair, pair + dim // 2)]
        own = [None] * block
        for r in range(block // run):
            for e in range(parts):
                for t in range(apart):
                    place = r * run + e * apart + t
                    own[place] = listed[e * (block // parts) + r * apart + t]
        channels += own
    return np.array(channels)


def block_of(scheme, dim, block):
    """Channels of a block, and bytes of its codes."""
    block = block or (min(64, dim & -dim) if dim else 64)
    if scheme.levels in FREQUENCIES:
        return block, -(-block * int(scheme.levels[2:]) // 64)
    return block, block // 2 + (-(-block // 32) if scheme.levels == "tc19" else 0)


def packed_parts(tensor, parts):
    """The parts of a tensor, with what its field `packed` says of them."""
    if "packed" not in tensor:
        return parts
    name = tensor["name"]
    packed = as_object(tensor["packed"], ("bytes", "crc32"), (), f"{name!r}: packed")
    sizes = packed["bytes"]
    as_crc(packed["crc32"], f"{name!r}: packed")
    good = type(sizes) is list and all(map(is_integer, sizes)) and len(sizes) == len(parts)
    need(good and any(sizes), "{!r}: packed {!r}", name, sizes)
    for part, bytes_ in zip(parts, sizes):
        plain, width = size(part, part.name), BITS[part.dtype] // 8
        fits = -(-plain // 64) <= bytes_ < plain and bytes_ % width == 0
        need(bytes_ == 0 or fits, "{!r}: packed to {}", part.name, bytes_)
    return [part._replace(packed=bytes_) for part, bytes_ in zip(parts, sizes)]


def parts_of_all(tensors):
    """The stored parts of all tensors, with the fewest dots that make all names differ."""
    dots = "."
    while True:
        parts = [packed_parts(tensor, parts_of(tensor, dots)) for tensor in tensors]
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
        dtype, shape = part.in_file()
        need(as_dtype(entry["dtype"], part.name) == dtype, "{!r}: bad dtype", part.name)
        need(as_shape(entry["shape"], part.name) == shape, "{!r}: bad shape", part.name)
        offsets, end = entry["data_offsets"], at + (part.packed or size(part, part.name))
        good = type(offsets) is list and len(offsets) == 2 and all(map(is_integer, offsets))
        need(good and offsets == [at, end], "{!r}: bad data_offsets", part.name)
        ranges[part.name] = (at, end)
        at = end
    need(at == data_size, "{} bytes of data, expected {}", data_size, at)
    return ranges


# Packed parts


class Bits:
    """Numbers of a few bits, the lowest bit first."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, bits):
        need(self.at + bits <= 8 * len(self.data), "a block ends too early")
        first, last = self.at // 8, -(-(self.at + bits) // 8)
        value = int.from_bytes(self.data[first:last], "little") >> self.at % 8
        self.at += bits
        return value & ((1 << bits) - 1)

    def rest(self):
        """What follows the last byte, of which nothing is left."""
        need(self.take(-self.at % 8) == 0, "bits behind the tables")
        return self.data[self.at // 8 :]


def read_table(bits, width):
    """The frequencies of all symbols."""
    first, last = bits.take(width), bits.take(width)
    need(first <= last, "a table of no symbols")
    table = [0] * (1 << width)
    for symbol in range(first, last + 1):
        length = bits.take(4)
        need(length <= 13, "a frequency of {} bits", length)
        table[symbol] = (1 << length - 1) + bits.take(length - 1) if length else 0
    need(sum(table) == 4096, "frequencies of another sum")
    return table


def read_repeats(bits, rows):
    """For each row how many rows before it one like it lies, or 0."""
    back = [bits.take(1) for _ in range(rows)]
    for index in range(rows):
        if back[index]:
            back[index] = bits.take((rows - 1).bit_length()) + 1
            need(back[index] <= index, "a row as one before the first")
    return back


def repeated(stored, row, back):
    """All rows of a block from those that are stored."""
    rows, at = [], 0
    for distance in back:
        if distance:
            rows.append(rows[-distance])
        else:
            rows.append(stored[at : at + row])
            at += row
    return b"".join(rows)


def joined_words(codes, channels):
    """The bytes of blocks of so many channels, of codes of 19 levels."""
    first, second, third, last = np.array(codes, np.int64).reshape(-1, 4, channels // 4).swapaxes(0, 1)
    need(all((code < 19).all() for code in (first, second, third)), "a code of no word")
    words = first + 19 * (second + 19 * (third + 19 * last))
    need((words < 1 << 17).all(), "a word of more than 17 bits")
    low = (words & 0xFFFF).astype("<u2").view(np.uint8).reshape(len(words), -1)
    high = np.packbits((words >> 16).astype(np.uint8), axis=1, bitorder="little")
    return np.concatenate([low, high], 1).tobytes()


def unpack_block(data, plain, version):
    """The `plain` bytes of a coded block."""
    need(len(data) >= 3, "a block ends too early")
    form, period = struct.unpack_from("<BH", data)
    repeats, form, at = form >= 128, form % 128, 3
    need(version >= 10 or not (repeats or form == 19), "a form that version {} has not", version)
    need((2 <= form <= 8 or form == 19) and 1 <= period <= 4096, "form {}, period {}", form, period)
    width, channels, row = form, 0, 0
    if form == 19:
        need(len(data) > at, "a block ends too early")
        width, channels, at = 5, data[at], at + 1
        need(channels % 4 == 0 and 4 <= channels <= 128, "blocks of {} channels", channels)
    if repeats:
        need(len(data) >= at + 2, "a block ends too early")
        (row,), at = struct.unpack_from("<H", data, at), at + 2
        need(row > 0 and plain % row == 0, "rows of {} bytes", row)
    bits = Bits(data[at:])
    back = read_repeats(bits, plain // row) if repeats else []
    coded = row * back.count(0) if repeats else plain
    classes = bits.take(6) + 1
    of_place = [bits.take((classes - 1).bit_length()) for _ in range(period)]
    need(max(of_place) < classes, "a class without a table")
    tables = [read_table(bits, width) for _ in range(classes)]
    of_slot = [np.repeat(np.arange(1 << width), table).tolist() for table in tables]
    first = [np.cumsum([0, *table]).tolist() for table in tables]
    stream = bits.rest()
    need(len(stream) >= 32 and len(stream) % 2 == 0, "no states, or half a word")
    states = list(struct.unpack_from("<8I", stream))
    need(min(states) >= 65536, "a state below 65536")
    words = iter(np.frombuffer(stream[32:], "<u2").tolist())
    count = -(-8 * coded // width)
    if channels:
        own = channels // 2 + -(-channels // 32)
        need(coded % own == 0, "words that are cut")
        count = coded // own * channels
    symbols = []
    for i in range(count):
        x, own = states[i % 8], of_place[i % period]
        slot = x % 4096
        symbol = of_slot[own][slot]
        x = tables[own][symbol] * (x // 4096) + slot - first[own][symbol]
        if x < 65536:
            word = next(words, None)
            need(word is not None, "a block ends too early")
            x = 65536 * x + word
        states[i % 8] = x
        symbols.append(symbol)
    need(states == [65536] * 8, "states that end elsewhere")
    need(next(words, None) is None, "words that are left")
    if channels:
        stored = joined_words(symbols, channels)
    else:
        of_symbol = np.arange(width, dtype=np.uint8)
        every_bit = (np.array(symbols, np.uint8)[:, None] >> of_symbol & 1).reshape(-1)
        need(not every_bit[8 * coded :].any(), "bits behind the last byte")
        stored = np.packbits(every_bit[: 8 * coded], bitorder="little").tobytes()
    return repeated(stored, row, back) if repeats else stored


def unpack_part(data, part, version):
    """The bytes of a part as it is unpacked."""
    plain, what = size(part, part.name), part.name
    need(len(data) >= 4, "{!r}: no P", what)
    block = struct.unpack_from("<I", data, len(data) - 4)[0]
    need(1 <= block <= 1 << 20, "{!r}: blocks of {}", what, block)
    count = -(-plain // block)
    start = len(data) - 4 - 4 * count
    need(start >= 0, "{!r}: too short", what)
    lengths = struct.unpack_from(f"<{count}I", data, start)
    at, blocks = 0, []
    for index, length in enumerate(lengths):
        own = min(block, plain - index * block)
        need(1 <= length <= own and at + length <= start, "{!r}: bad length", what)
        stored = data[at : at + length]
        blocks.append(stored if length == own else unpack_block(stored, own, version))
        at += length
    width = BITS[part.dtype] // 8
    least = max(at + 4 * count + 4, -(-plain // 64))
    need(len(data) == -(-least // width) * width, "{!r}: another length", what)
    need(not any(data[at:start]), "{!r}: no zeros", what)
    return b"".join(blocks)


def unpack_all(stored, parts, tensor, version):
    """The parts of a tensor as they are unpacked."""
    if "packed" not in tensor:
        return stored
    stored = [
        unpack_part(data, part, version) if part.packed else data
        for data, part in zip(stored, parts)
    ]
    crc = 0
    for part in stored:
        crc = zlib.crc32(part, crc)
    good = tensor["packed"]["crc32"] == f"{crc:08x}"
    need(good, "{!r}: the checksum of what is unpacked is wrong", tensor["name"])
    return stored


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


def finite_f32(data, what):
    values = np.frombuffer(data, "<f4")
    need(bool(np.isfinite(values).all()), "{!r}: not finite", what)
    return values


def decode_f16(data, tensor):
    return narrow(finite_f16(data, tensor["name"]).astype(np.float32), tensor["dtype"])


def decode_int4(scales, codes, side, tensor):
    n, group = count(side.shape), group_size(side.codec)
    scales = finite_f16(scales, tensor["name"]).astype(np.float64)
    packed = np.frombuffer(codes, np.uint8)
    # "For an odd n the last high four bits are 8."
    need(n % 2 == 0 or packed[-1] >> 4 == 8, "{!r}: bad last four bits", tensor["name"])
    codes = np.stack([packed & 15, packed >> 4], -1).reshape(-1)[:n].astype(np.float64) - 8
    # No more than 4 + 11 significant bits, and no less than 2**-224: exact in f64. Rounded once.
    values = np.ldexp(codes * scales[np.arange(n) // min(group, max(n, 1))], side.exponent)
    values = np.clip(values, -F32_MAX, F32_MAX).astype(np.float32)
    return narrow(values, tensor["dtype"])


# Values of version 2. Every operation is one of numpy on f32, hence rounded on its own.

IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
SIGNS = 0xA6850592A197D809
LM = {
    2: (0.45278003, 1.5104176),
    3: (0.24509418, 0.7560053, 1.3439093, 2.1519457),
    4: (
        *(0.12839503, 0.3880483, 0.65675914, 0.94234046),
        *(1.2562312, 1.6180464, 2.0690172, 2.7325896),
    ),
    5: (
        *(0.06588966, 0.19805183, 0.3313783, 0.4666995),
        *(0.6049336, 0.7471357, 0.8945651, 1.0487833),
        *(1.2118044, 1.3863404, 1.576228, 1.7872332),
        *(2.0287284, 2.3177394, 2.6911196, 3.2607325),
    ),
}


# vLLM's.
UNIT = {
    3: (0.2449836, 0.7556455, 1.3431801, 2.1503496),
    4: (
        *(0.12842765, 0.3881378, 0.6568799, 0.94244826),
        *(1.2562575, 1.6178818, 2.068447, 2.7309222),
    ),
}


def small_float(exponent, mantissa, largest):
    """The values of all codes of a float of a sign and a few bits."""
    code = np.arange(2 << exponent + mantissa)
    bias, sign = (1 << exponent - 1) - 1, 1 << exponent + mantissa
    exponent, fraction = (code % sign) >> mantissa, code & ((1 << mantissa) - 1)
    whole = np.where(exponent > 0, fraction + (1 << mantissa), fraction).astype(np.float64)
    size = np.ldexp(whole, np.maximum(exponent, 1) - bias - mantissa)
    size[size > largest] = 0
    return np.where(code < sign, size, -size)


def levels_of(scheme):
    """The value of each code."""
    half, codes = 1 << (scheme.bits - 1), np.arange(1 << scheme.bits)
    table = {
        "sym": lambda: codes - half,
        "ext": lambda: codes - half,
        "asym": lambda: codes,
        "mid": lambda: codes + 0.5 - half,
        "lm": lambda: np.concatenate([-np.array(LM[scheme.bits])[::-1], LM[scheme.bits]]),
        "unit": lambda: np.concatenate([-np.array(UNIT[scheme.bits])[::-1], UNIT[scheme.bits]]),
        "iq4_nl": lambda: np.array(IQ4_NL),
        "e4m3": lambda: small_float(4, 3, 448),
        "e5m2": lambda: small_float(5, 2, 57344),
        "e2m1": lambda: small_float(2, 1, 6),
    }
    return table[scheme.levels]().astype(np.float32)


def unpack(data, bits, size):
    every_bit = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    of_code = every_bit[: size * bits].reshape(size, bits).astype(np.int64)
    return (of_code << np.arange(bits)).sum(-1)


def small_scales(data):
    code = np.frombuffer(data, np.uint8).astype(np.int64)
    return np.where(code > 0, np.ldexp(1 + (code % 16) / 16, code // 16 - 12), 0).astype(np.float32)


def scales_of(scheme, parts, what):
    """Of the groups, as decoded."""
    data, form = parts.get("scales"), scheme.scales
    if form == "one":
        return np.full(1, scheme.fixed, np.float32)
    if form == "f16":
        return finite_f16(data, what).astype(np.float32)
    if form in ("f32", "f32 and zero"):
        return finite_f32(data, what)
    code = np.frombuffer(data, np.uint8)
    if form == "s8":
        return small_scales(data)
    if form == "e8m0":
        need(bool((code < 255).all()), "{!r}: not finite", what)
        return np.ldexp(np.float32(1), code.astype(np.int64) - 127).astype(np.float32)
    need(bool((code < 127).all()), "{!r}: no scale", what)
    scales = small_float(4, 3, 448).astype(np.float32)[code]
    if form == "e4m3 of tensor":
        scales = scales * finite_f32(parts["tensor_scale"], what)
    return scales


def of_unit_norm(levels, size):
    """Levels of head vectors, divided by the root of the sum of their squares."""
    levels = levels.reshape(-1, size)
    sums = np.zeros((len(levels), 16), np.float32)
    for channel in range(size):
        sums[:, channel % 16] += levels[:, channel] * levels[:, channel]
    total = sums[:, 0]
    for part in range(1, 16):
        total = total + sums[:, part]
    return (levels * (np.float32(1) / np.sqrt(total))[:, None]).reshape(-1)


def vllm_signs(dim):
    """Of numpy's MT19937, seeded as Matsumoto and Nishimura do."""
    drawn = np.random.RandomState(0x9E3779B9)._bit_generator.random_raw(dim)
    return 1 - 2 * (drawn >> 23 & 1).astype(np.float32)


def rotated_block(scheme, dim):
    """P of a D that can be rotated so; None of others."""
    largest = dim & -dim
    if scheme.had is True:
        return largest if largest > 1 else None
    if scheme.had == "64 on":
        return largest if largest >= 64 else None
    if scheme.had == "vllm":
        return dim if largest == dim and dim <= 1024 else None
    if scheme.had == "power":
        return dim if largest == dim else None
    return scheme.had if largest >= scheme.had else None


def hadamard(x, most=math.inf, factor=None):
    """Of each head vector, [heads, tokens, dim], in blocks of at most so many values."""
    dim = x.shape[-1]
    block = min(dim & -dim, most)
    distance = 1
    while distance < block:
        pairs = x.reshape(*x.shape[:-1], dim // (2 * distance), 2, distance)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([a + b, a - b], -2).reshape(x.shape)
        distance *= 2
    return x * np.float32(factor or 1 / math.sqrt(block))


def reflections(x, run):
    """Of blocks in the last axis: mixes their runs, as many values each."""
    block, distance, factor = x.shape[-1], run, 3
    while distance < block:
        if block // distance % factor:
            factor += 2
            continue
        parts = x.reshape(*x.shape[:-1], block // (factor * distance), factor, distance)
        total = parts[..., 0, :]
        for index in range(1, factor):
            total = total + parts[..., index, :]
        taken = total * np.float32(2 / factor)
        x = (parts - taken[..., None, :]).reshape(x.shape)
        distance *= factor
    return x


def turned(x, first, embedding):
    """By the angles of positions from `first` on."""
    pairs = len(embedding.frequencies)
    channels = np.arange(pairs)
    places = (channels, channels + pairs)
    if embedding.neighbours:
        places = (2 * channels, 2 * channels + 1)
    position = np.arange(first, first + x.shape[1]).astype(np.float32)
    frequencies = np.array(embedding.frequencies, np.float32)
    angle = (position[:, None] * frequencies).astype(np.float64)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    a, b = (x[..., place] for place in places)
    x = x.copy()
    x[..., places[0]] = a * cos - b * sin
    x[..., places[1]] = b * cos + a * sin
    return x


def scaled(x, exponent):
    if exponent == 0:
        return x
    first = int(exponent / 2)
    with np.errstate(over="ignore", under="ignore"):
        for step in (first, exponent - first):
            x = x * np.float32(2.0**step)
    return np.clip(x, -np.float32(F32_MAX), np.float32(F32_MAX))


CURVES = {
    16: (0.1094451, 9.44103e-5, 9.761447e-6),
    19: (0.093653875, 2.897904e-6, 4.539905e-6),
}


# Of 1024 codes, how many are each.
FREQUENCIES = {
    "te13": (1, 1, 25, 328, 543, 122, 3, 1),
    "te20": (1, 1, 4, 33, 127, 267, 307, 200, 70, 12, 1, 1),
    "te24": (1, 1, 1, 7, 27, 73, 141, 204, 218, 180, 105, 46, 15, 3, 1, 1),
    "te26": (1, 1, 1, 5, 17, 43, 84, 137, 177, 181, 159, 112, 63, 28, 10, 3, 1, 1),
}


def trellis_order(block, is_whole):
    """The channels of a block in the order of its codes. `is_whole`: it is a head without `block`."""
    run = block & -block
    groups = min(8, run)
    apart = max(run // (2 * groups), 1) if is_whole else run // groups
    return [
        first + start + group * apart
        for first in range(0, block, groups * apart)
        for start in range(apart)
        for group in range(groups)
    ]


def codes_of(number, words, count, slots):
    """So many codes of a number with so many words below its upper part, and what is left."""
    upper, codes = number >> (32 * words), []
    for _ in range(count):
        while upper < 2**32 and words > 0:
            words -= 1
            upper = upper << 32 | number >> (32 * words) & 0xFFFFFFFF
        code, frequency, rest = slots[upper & 1023]
        upper = (upper >> 10) * frequency + rest
        codes.append(code)
    while upper < 2**32 and words > 0:
        words -= 1
        upper = upper << 32 | number >> (32 * words) & 0xFFFFFFFF
    return codes, upper


def trellis_levels(packed, name, block, is_whole):
    """The levels of blocks, whose bytes are in the last axis, and the index of each fine scale."""
    frequencies = FREQUENCIES[name]
    slots = [
        (code, frequencies[code], rest)
        for code in sorted(range(len(frequencies)), key=lambda code: (-frequencies[code], code))
        for rest in range(frequencies[code])
    ]
    words = max(packed.shape[-1] - 5, 0) // 4
    rows = packed.astype(np.uint8).reshape(-1, packed.shape[-1])
    found = [
        codes_of(int.from_bytes(row.tobytes(), "little"), words, block, slots) for row in rows
    ]
    codes = np.array([codes for codes, _ in found], np.int64).reshape(-1, block)
    levels = np.zeros((len(rows), block), np.float32)
    state = np.zeros(len(rows), np.int64)
    for step, place in enumerate(trellis_order(block, is_whole)):
        code = codes[:, step]
        own = (code - len(frequencies) // 2).astype(np.float32) + np.float32(0.25)
        levels[:, place] = np.where(state & 2, -own, own)
        state = (2 * state + ((code ^ state ^ state >> 2) & 1)) % 8
    fine = np.array([left % 16 for _, left in found], np.int64).reshape(packed.shape[:-1])
    return levels.reshape(*packed.shape[:-1], block), fine


def curve_levels(packed, count, block):
    """The levels of codes that stand for one each."""
    low = packed[..., : block // 2 : 2] + 256 * packed[..., 1 : block // 2 : 2]
    if count == 19:
        index = np.arange(block // 4)
        top = packed[..., block // 2 :][..., index // 8] >> (index % 8) & 1
        low = low + (top << 16)
    parts = [low // count**power % count for power in range(3)]
    parts.append(np.minimum(low // count**3, count - 1))
    n = np.concatenate(parts, -1).astype(np.float32) - np.float32((count - 1) / 2)
    a, b, c = (np.float32(number) for number in CURVES[count])
    square = n * n
    return n * (a + square * (b + square * c))


def decode_two_centres(stored, side, tensor):
    scheme, exponent = scheme_of(side.codec), side.exponent
    heads, tokens, dim = heads_of(side.shape)
    if tokens == 0 or dim == 0:
        return b""
    block, own = block_of(scheme, dim, side.block)
    first = finite_f16(stored[0], tensor["name"]).astype(np.float32).reshape(heads, 1, dim)
    shape = (heads, tokens - 1, dim // block)
    byte = np.frombuffer(stored[1], np.uint8).astype(np.int64).reshape(shape)
    packed = np.frombuffer(stored[2], np.uint8).astype(np.int64).reshape(*shape, own)

    fine = np.zeros(shape, np.int64)
    if scheme.levels in FREQUENCIES:
        is_whole = block == dim and not side.block
        level, fine = trellis_levels(packed, scheme.levels, block, is_whole)
    else:
        level = curve_levels(packed, int(scheme.levels[2:]), block)
    k = (byte & 127) - 64
    scale = (2.0 ** (k % 8 / 8)).astype(np.float32) * np.exp2(k // 8).astype(np.float32)
    scale[byte & 127 == 0] = 0
    scale = scale * (2.0 ** (fine / 128)).astype(np.float32)
    left = level * scale[..., None]
    run = block & -block
    left = reflections(hadamard(left.reshape(*left.shape[:2], dim), run).reshape(left.shape), run)
    chosen = np.broadcast_to((byte >> 7 == 1)[..., None], left.shape)
    left, chosen = (x.reshape(heads, tokens - 1, dim) for x in (left, chosen))
    if side.block:
        places = np.argsort(channels_of_places(dim, block))
        left, chosen = left[..., places], chosen[..., places]
    x = np.concatenate([first, np.zeros((heads, tokens - 1, dim), np.float32)], 1)
    starts = sorted({1, *(2**j for j in range(1, 63)), *(3 * 2 ** (j - 1) for j in range(1, 63))})
    starts = [start for start in starts if start < tokens]
    sums = np.zeros((heads, 1, dim))
    for start, end in zip(starts, [*starts[1:], tokens]):
        mean = (sums / max(start - 1, 1)).astype(np.float32).astype(np.float16).astype(np.float32)
        centre = np.where(chosen[:, start - 1 : end - 1], first, mean)
        x[:, start:end] = left[:, start - 1 : end - 1] + centre
        for token in range(start, end):
            sums += x[:, token : token + 1].astype(np.float64)
    if scheme.prerope:
        x = turned(x, 0, tensor["embedding"])
    return narrow(scaled(x.reshape(-1), exponent), tensor["dtype"])


def in_16_bits(data, tensor, part):
    """What is stored in the 16-bit type of the tensor, in f32."""
    if tensor["dtype"] != "BF16":
        return finite_f16(data, f"{tensor['name']}: {part}").astype(np.float32)
    kept = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    need(bool(np.isfinite(kept).all()), "{!r}: not finite", tensor["name"])
    return kept


def decode_tiles(stored, side, tensor):
    scheme = scheme_of(side.codec)
    heads, tokens, dim = heads_of(side.shape)
    parts = dict(zip(sizes_of(scheme, side.shape, tensor["dtype"]), stored))
    tiles = heads * (tokens // 128)
    rows, columns = (dim, 128) if scheme.by_channel else (128, dim)

    def wide(part, *shape):
        values = finite_f16(parts[part], f"{tensor['name']}: {part}")
        return values.astype(np.float32).reshape(tiles, *shape)

    tail = in_16_bits(parts["tail"], tensor, "tail").reshape(heads, tokens % 128, dim)
    codes = unpack(parts["codes"], scheme.bits, tiles * 128 * dim).astype(np.float32)
    x = codes.reshape(tiles, rows, columns) * wide("scales", rows, 1) + wide("minima", rows, 1)
    x = x * wide("column_scales", 1, columns)
    if scheme.by_channel:
        x = x.transpose(0, 2, 1)
    if x.size:
        x = hadamard(x, rotated_block(scheme, dim))
    x = np.concatenate([x.reshape(heads, tokens // 128 * 128, dim), tail], axis=1)
    return narrow(scaled(x.reshape(-1), side.exponent), tensor["dtype"])


def decode_scheme(stored, side, tensor):
    scheme, exponent = scheme_of(side.codec), side.exponent
    if type(scheme) is TwoCentre:
        return decode_two_centres(stored, side, tensor)
    if type(scheme) is Kvarn:
        return decode_tiles(stored, side, tensor)
    heads, tokens, dim = heads_of(side.shape)
    scheme = of_heads(scheme, dim)
    sizes = sizes_of(scheme, side.shape, tensor["dtype"])
    parts = dict(zip(sizes, stored))
    if tokens == 0:
        return b""
    sinks = min(scheme.sink, tokens)
    body = tokens - sinks

    def wide(part):
        values = finite_f16(parts[part], f"{tensor['name']}: {part}")
        return values.astype(np.float32)

    codes = unpack(parts["codes"], scheme.bits, heads * body * dim)
    scales = scales_of(scheme, parts, tensor["name"])
    # Where each line begins anew: its group's index is that within the line and those before.
    line = body if scheme.ch else heads * body * dim
    per_line = len(scales) // max(heads * dim if scheme.ch else 1, 1)
    place = np.arange(len(codes))
    within = place % max(line, 1)
    group = place // max(line, 1) * per_line + (within // min(scheme.group, max(line, 1)))
    if scheme.levels == "zero":
        words = scales.view("<u4")
        level = codes.astype(np.float32) - (words & 15).astype(np.float32)[group]
        x = level * (words & 0xFFFFFFF0).astype("<u4").view("<f4")[group]
    elif scheme.levels == "hqq":
        x = (codes.astype(np.float32) - wide("zeros")[group]) * scales[group]
    else:
        x = levels_of(scheme)[codes]
        x = of_unit_norm(x, dim) if scheme.levels == "unit" else x
        x = x * scales[group]
    if scheme.levels == "asym":
        x = x + wide("minima")[group]
    if scheme.ch:
        x = x.reshape(heads, dim, body).transpose(0, 2, 1)
    x = x.reshape(heads, body, dim)
    if scheme.had:
        factor = 1 / dim if scheme.had == "vllm" else None
        x = hadamard(x, rotated_block(scheme, dim), factor)
    if scheme.had == "vllm":
        x = x * vllm_signs(dim)
    if scheme.signs:
        flips = [-1 if SIGNS >> (channel % 64) & 1 else 1 for channel in range(dim)]
        x = x * np.array(flips, np.float32)
    if scheme.ctr:
        x = x + wide("means").reshape(heads, 1, dim)
    if scheme.prerope:
        x = turned(x, sinks, tensor["embedding"])
    if scheme.sink:
        kept = in_16_bits(parts["sinks"], tensor, "sinks")
        x = np.concatenate([kept.reshape(heads, sinks, dim), x], axis=1)
    return narrow(scaled(x.reshape(-1), exponent), tensor["dtype"])


# The file


def decode_sides(stored, tensor, manifest):
    """The bytes of a tensor from those of its parts."""
    sides = []
    for side in tensor["sides"]:
        own = len(parts_of_side(side, tensor["dtype"]))
        parts, stored = stored[:own], stored[own:]
        if side.codec == "f16":
            sides.append(decode_f16(*parts, tensor))
        elif group_size(side.codec) is not None:
            sides.append(decode_int4(*parts, side, tensor))
        else:
            sides.append(decode_scheme(parts, side, tensor))
    return put_back(sides, tensor, check_layout(manifest))


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
        stored = unpack_all(stored, of_one, tensor, manifest["version"])
        if tensor["sides"]:
            restored = decode_sides(stored, tensor, manifest)
        else:
            (restored,) = stored
        tensors[tensor["name"]] = Tensor(tensor["dtype"], tensor["shape"], restored)
    return tensors, manifest.get("metadata")


def read(path):
    """The tensors and the metadata of the compressed file at `path`."""
    with open(path, "rb") as file:
        return decode(file.read())
