"""Random bits as a pure function of (seed, position).

`word(seed, i)` is a 32-bit hash of the seed and the 64-bit position `i` of an element in its array (C order), so
the bits do not depend on threads, chunks, backend or device. The mixer is "lowbias32" (C. Wellons, hash prospector,
public domain); it uses 32-bit operations alone, so every backend can compute it.
"""

from __future__ import annotations

from typing import Any

from lowp._errors import ArgumentError

_MASK = 0xFFFFFFFF


def mix(h: int) -> int:
    """Scramble a 32-bit integer (bijective)."""
    h ^= h >> 16
    h = h * 0x7FEB352D & _MASK
    h ^= h >> 15
    h = h * 0x846CA68B & _MASK
    return h ^ h >> 16


def keys(seed: int) -> tuple[int, int]:
    """Return the two 32-bit keys of a 64-bit seed.

    Raises:
        ArgumentError: `seed` is not an integer from 0 to 2^64 - 1.

    Example:
        >>> keys(0) == keys(1)
        False
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) < 1 << 64:
        raise ArgumentError(f"seed={seed!r} must be an integer from 0 to 2^64 - 1.")
    seed = int(seed)
    low, high = seed & _MASK, seed >> 32
    first = mix(low ^ 0x9E3779B9)
    return mix(first ^ high), mix((first + high + 0x85EBCA6B) & _MASK)


def word(seed: int, position: int) -> int:
    """Return the 32 random bits of one element.

    Example:
        >>> word(0, 0) != word(0, 1)
        True
    """
    key0, key1 = keys(seed)
    return mix(mix((position & _MASK) ^ key0) ^ ((position >> 32) + key1 & _MASK))


def words(key: tuple[int, int], start: int, count: int) -> Any:
    """Return the words of positions `start .. start + count - 1` under the keys of a seed, as a uint32 array.

    Example:
        >>> int(words(keys(7), 0, 3)[2]) == word(7, 2)
        True
    """
    import numpy as np

    key0, key1 = key
    position = np.arange(start, start + count, dtype=np.uint64)

    def mixed(h: Any) -> Any:
        h = h ^ h >> np.uint32(16)
        h = h * np.uint32(0x7FEB352D)
        h = h ^ h >> np.uint32(15)
        h = h * np.uint32(0x846CA68B)
        return h ^ h >> np.uint32(16)

    low, high = position.astype(np.uint32), (position >> np.uint64(32)).astype(np.uint32)
    return mixed(mixed(low ^ np.uint32(key0)) ^ (high + np.uint32(key1)))
