"""Golden values for the symmetric INT4 codec, worked out in numpy from its definition.

    pip install numpy        # 2.4 was used
    python make_int4_golden.py > int4_golden.json

A case is a list of f32 values (as hexadecimal bit patterns), a group size, and the decoded
f32 values. The definition is followed word by word with scalar numpy arithmetic:
scale = f16(absmax / 7), code = round-half-even(x * (1 / scale)) clamped to -7..7,
value = code * scale; one power-of-two exponent a tensor where a scale leaves f16's range.
"""

import json
import math

import numpy as np

np.seterr(all="ignore")
f32, f16 = np.float32, np.float16


def groups(values, group):
    return [values[i : i + group] for i in range(0, len(values), group)]


def scales_in_range(values, group):
    for part in groups(values, group):
        absmax = max((abs(float(v)) for v in part), default=0.0)
        if absmax == 0.0:
            continue
        scale = f16(f32(absmax) / f32(7))
        if not np.isfinite(scale) or scale < f16(2.0**-14):
            return False
    return True


def exponent_of(values, group):
    if scales_in_range(values, group):
        return 0
    largest = max(abs(float(v)) for v in values)
    return math.floor(math.log2(largest / 7.0)) - 14


def round_trip(values, group):
    e = exponent_of(values, group)
    out = []
    for part in groups(values, group):
        # float64 holds every f32 times any power of two needed here exactly.
        scaled = [f32(math.ldexp(float(v), -e)) for v in part]
        absmax = max((abs(v) for v in scaled), default=f32(0))
        scale = f16(absmax / f32(7))
        if scale == 0:
            out += [f32(0)] * len(part)
            continue
        inverse = f32(1) / f32(scale)
        for v in scaled:
            code = max(-7.0, min(7.0, float(np.rint(v * inverse))))
            value = math.ldexp(code * float(scale), e)
            limit = float(np.finfo(np.float32).max)
            out.append(f32(max(-limit, min(limit, value))))
    return e, out


def main():
    random = np.random.default_rng(7)
    normal = lambda n, s=1.0: (random.standard_normal(n) * s).astype(f32)
    ties = f32(0.5) * np.arange(-14, 15, dtype=f32)  # scale 1: every half is a tie
    cases = {
        "normal": (normal(256), 64),
        "partial last group": (normal(75), 32),
        "odd group, odd length": (normal(37), 9),
        "ties to even": (ties, 29),
        "constant": (np.full(64, f32(-0.3)), 64),
        "zeros and a negative zero": (np.array([0.0, -0.0] * 16, dtype=f32), 32),
        "one zero group among others": (np.concatenate([normal(32), np.zeros(32, f32), normal(32)]), 32),
        "largest f32": (np.array([3.4028235e38, -3.4028235e38, 1e38, 1.0] * 8, dtype=f32), 32),
        "just above f16 scales": (normal(64, 2.0e5), 32),
        "scale rounds up: 7 scales exceed the largest": (np.array([65504.0] * 16, dtype=f32), 16),
        "below f16's normal scales": (normal(64, 1e-5), 32),
        "f32 subnormals": (np.array([1e-45, 3e-45, -1.4e-44, 1e-40] * 8, dtype=f32), 32),
        "huge and tiny groups": (np.concatenate([normal(32, 1e6), normal(32, 1e-6)]), 32),
        "a group that underflows": (np.concatenate([normal(32, 1e30), normal(32, 1e-30)]), 32),
        "smallest normal scale": (np.full(8, f32(7 * 2.0**-14)), 8),
        "empty": (np.zeros(0, f32), 64),
    }
    golden = []
    for name, (values, group) in cases.items():
        exponent, decoded = round_trip(values, group)
        bits = lambda xs: "".join(f"{np.asarray(x, f32).view(np.uint32):08x}" for x in xs)
        golden.append(
            {"name": name, "group": group, "exponent": exponent, "values": bits(values), "decoded": bits(decoded)}
        )
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
