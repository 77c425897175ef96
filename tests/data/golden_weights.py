"""The weights of golden models, the same on every machine and in every language: make_architectures.py and
make_architecture_ggufs.py write them, tests/common/architectures.rs makes them again."""

import math

import numpy as np


def weight(name, shape, centre, spread):
    """centre + spread · u, u uniform in [-1, 1): the upper 24 bits of SplitMix64 of (FNV-1a of the
    name + the element's index). Every step is exact or rounds once to f32."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    return (np.float32(centre) + np.float32(spread) * u).reshape(shape)
