"""Writes gguf_types.json: what ggml's types of weights mean, for tests/gguf_types.rs.

    python make_gguf_types.py > gguf_types.json      # numpy 2.4, gguf 0.19

Blocks are random bytes, which the test makes again: byte i of a type is byte i % 8 of output i / 8 of
SplitMix64, seeded with the type's number. Where a block keeps a float (`scales`: first byte and
length), the highest bit of its exponent is cleared, so that it is finite, and every 16th block, from
the fourth on, has a zero there. Negative and subnormal scales come up by themselves. `sha256` is that
of all values as little-endian f32, `first` the bits of the first few, to find a mistake by.

The values are those of gguf-py. What it lacks (Q8_1, Q8_K, Q1_0, Q2_0, F64) is written down here from
llama.cpp's ggml-quants.c and ggml-common.h.
"""

import hashlib
import json

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

VALUES = 1 << 18
FIRST = 64

HALF, SINGLE = [0, 2], [0, 4]
# name: values and bytes of a block, where its floats are
LAYOUTS = {
    "F32": (1, 4, [SINGLE]),
    "F16": (1, 2, [HALF]),
    "BF16": (1, 2, [HALF]),
    "F64": (1, 8, []),
    "Q1_0": (128, 18, [HALF]),
    "Q2_0": (64, 18, [HALF]),
    "Q4_0": (32, 18, [HALF]),
    "Q4_1": (32, 20, [HALF, [2, 2]]),
    "Q5_0": (32, 22, [HALF]),
    "Q5_1": (32, 24, [HALF, [2, 2]]),
    "Q8_0": (32, 34, [HALF]),
    "Q8_1": (32, 36, [HALF, [2, 2]]),
    "Q2_K": (256, 84, [[80, 2], [82, 2]]),
    "Q3_K": (256, 110, [[108, 2]]),
    "Q4_K": (256, 144, [HALF, [2, 2]]),
    "Q5_K": (256, 176, [HALF, [2, 2]]),
    "Q6_K": (256, 210, [[208, 2]]),
    "Q8_K": (256, 292, [SINGLE]),
    "IQ2_XXS": (256, 66, [HALF]),
    "IQ2_XS": (256, 74, [HALF]),
    "IQ2_S": (256, 82, [HALF]),
    "IQ3_XXS": (256, 98, [HALF]),
    "IQ3_S": (256, 110, [HALF]),
    "IQ1_S": (256, 50, [HALF]),
    # Four bits of the scale in each of the last four 16 bits; the exponent's highest is in the last.
    "IQ1_M": (256, 56, [[48, 8]]),
    "IQ4_NL": (32, 18, [HALF]),
    "IQ4_XS": (256, 136, [HALF]),
    "TQ1_0": (256, 54, [[52, 2]]),
    "TQ2_0": (256, 66, [[64, 2]]),
    # Here the "highest bit of the exponent" is one of a scale of eight bits.
    "MXFP4": (32, 17, [[0, 1]]),
    "NVFP4": (64, 36, []),
}
NUMBERS = {"Q1_0": 41, "Q2_0": 42, **{t.name: int(t) for t in Type if t.name in LAYOUTS}}


def random_bytes(seed, count):
    index = np.arange(1, count // 8 + 2, dtype=np.uint64)
    x = np.uint64(seed) + index * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).view(np.uint8)[:count]


def blocks(name):
    values, size, scales = LAYOUTS[name]
    count = VALUES // values
    rows = random_bytes(NUMBERS[name], count * size).reshape(count, size).copy()
    for at, length in scales:
        rows[:, at + length - 1] &= 0xBF
        rows[3::16, at : at + length] = 0
    if name == "F64":
        # Exponents near f32's.
        rows[:, 7] = rows[:, 7] & 0xBF | 0x38
    return rows


def half(rows, at):
    return rows[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def from_llama_cpp(name, rows):
    if name == "F64":
        return rows.view(np.float64).astype(np.float32)
    if name == "Q8_1":
        return half(rows, 0) * rows[:, 4:].view(np.int8).astype(np.float32)
    if name == "Q8_K":
        scale = rows[:, :4].copy().view(np.float32)
        return scale * rows[:, 4:260].copy().view(np.int8).astype(np.float32)
    if name == "Q1_0":
        bits = np.unpackbits(rows[:, 2:], axis=1, bitorder="little")
        return np.where(bits == 1, half(rows, 0), -half(rows, 0))
    if name == "Q2_0":
        codes = (rows[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8)) & 3
        return half(rows, 0) * (codes.reshape(len(rows), 64).astype(np.float32) - 1)
    raise NotImplementedError(name)


def main():
    types = {}
    for name, (values, size, scales) in LAYOUTS.items():
        rows = blocks(name)
        try:
            found = quants.dequantize(rows, Type[name])
        except (KeyError, NotImplementedError):
            found = from_llama_cpp(name, rows)
        found = np.ascontiguousarray(found, dtype=np.float32).reshape(-1)
        assert found.size == VALUES and np.isfinite(found).all() and (found != 0).any(), name
        types[name] = {
            "number": NUMBERS[name],
            "block": values,
            "bytes": size,
            "scales": scales,
            "first": [f"{bits:08x}" for bits in found[:FIRST].view(np.uint32)],
            "sha256": hashlib.sha256(found.tobytes()).hexdigest(),
        }
    lines = ",\n".join(f'  "{name}": {json.dumps(entry)}' for name, entry in types.items())
    print(f'{{"values": {VALUES}, "types": {{\n{lines}\n}}}}')


main()
