"""Random numbers as a function of a sample's key.

Masks, starts, dropout and negatives of a sample depend on (seed, epoch, sample index) only: not on the number of
processes, not on what was drawn before. So one process equals two, and a resumed run equals an uninterrupted one,
without RNG state.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

_LOW32 = 0xFFFFFFFF
_LOW64 = 0xFFFFFFFFFFFFFFFF
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of splitmix64


def _splitmix64(value: int) -> int:
    value = (value + _GOLDEN) & _LOW64
    value = ((value ^ (value >> 30)) * _FIRST) & _LOW64
    value = ((value ^ (value >> 27)) * _SECOND) & _LOW64
    return value ^ (value >> 31)


def splitmix64(values: Tensor) -> Tensor:
    """A permutation of the int64 numbers that looks random, elementwise on the device of `values`."""

    def right(x: Tensor, bits: int) -> Tensor:
        return (x >> bits) & (_LOW64 >> bits)  # the sign is shifted in, and masked out again

    golden, first, second = (number - (1 << 64) for number in (_GOLDEN, _FIRST, _SECOND))
    values = values + golden  # sums and products wrap
    values = (values ^ right(values, 30)) * first
    values = (values ^ right(values, 27)) * second
    return values ^ right(values, 31)


def sample_key(seed: int, epoch: int, index: int) -> int:
    """A 63-bit key for sample `index` in `epoch` of the run with `seed`."""
    key = 0
    for part in (seed, epoch, index):
        key = _splitmix64(key ^ (part & _LOW64))
    return key >> 1


def numpy_generator(key: int, stream: str) -> np.random.Generator:
    """Generator for one use (`stream`) of a sample's key."""
    return np.random.Generator(np.random.Philox(key=[key, zlib.crc32(stream.encode())]))


def _hash32(x: Tensor) -> Tensor:
    """lowbias32 on the low 32 bits of int64 values; the product may wrap, its low 32 bits are right all the same."""
    x = x & _LOW32
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW32
    return x ^ (x >> 16)


def uniform(keys: Tensor, stream: str, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each sample, computed on the device of `keys`: (B,) int64 -> (B, count) float32."""
    salt = zlib.crc32(stream.encode())
    low = _hash32(keys ^ salt)
    high = _hash32((keys >> 32) + salt)
    counter = torch.arange(count, dtype=torch.int64, device=keys.device)
    bits = _hash32(_hash32(counter + low[:, None]) ^ high[:, None])
    return (bits >> 8).float() * 2.0**-24


def keep_mask(keys: Tensor, stream: str, shape: tuple[int, ...], rate: float) -> Tensor:
    """Dropout factors (B, *shape): 0 with probability `rate`, else 1 / (1 - rate)."""
    count = 1
    for size in shape:
        count *= size
    return (uniform(keys, stream, count) >= rate).float().div_(1 - rate).view(len(keys), *shape)
