"""Random bits and positions as array code: the words of `random_bits`, computed with 32-bit integers.

Words are int32 arrays that hold the 32 random bits.
"""

from __future__ import annotations

import math
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.rounding._namespaces import Namespace, namespace_of
from lowp.rounding.random_bits import keys
from lowp.rounding.shard import Shard

#: Low and high 32-bit words of 64-bit positions, as int32; the high one may be 0.
Positions = tuple[Any, Any]


def signed(n: int, width: int = 32) -> int:
    """Return the signed integer with the low `width` bits of `n`."""
    n &= (1 << width) - 1
    return n - (1 << width) if n >> (width - 1) else n


def shift_right(x: Any, count: int) -> Any:
    """Shift 32-bit integers to the right and fill with zeros."""
    return x if count == 0 else (x >> count) & ((1 << (32 - count)) - 1)


def mix(h: Any) -> Any:
    """Scramble 32-bit integers as `random_bits.mix`."""
    h = h ^ shift_right(h, 16)
    h = h * signed(0x7FEB352D)
    h = h ^ shift_right(h, 15)
    h = h * signed(0x846CA68B)
    return h ^ shift_right(h, 16)


def words(xp: Namespace, key: tuple[Any, Any], positions: Positions) -> Any:
    """Return the random words of positions under the keys of a seed, which may be arrays."""
    low, high = positions
    key0, key1 = (signed(k) if isinstance(k, int) else xp.cast(k, "int32") for k in key)
    first = mix(low ^ key0)
    if isinstance(high, int) and isinstance(key1, int):
        return mix(first ^ signed(high + key1))
    return mix(first ^ (high + key1))


def seed_keys(seed: Any) -> tuple[Any, Any]:
    """Return the keys of a seed, which may be an integer array scalar, also a traced one.

    An array's bits are read as an unsigned number, so a traced seed gives the words of the Python integer.

    Raises:
        ArgumentError: A number that is not an integer from 0 to 2^64 - 1.
        ArgumentTypeError: An array that is not one integer.
    """
    if not hasattr(seed, "dtype") or not hasattr(seed, "ndim"):
        return keys(seed)
    xp = namespace_of(seed)
    kind = xp.dtype_name(seed)
    if seed.ndim or not kind.startswith(("int", "uint")):
        raise ArgumentTypeError(f"seed has shape {tuple(seed.shape)} and dtype {kind}; allowed: one integer.")
    if xp.name == "numpy":
        return keys(int(seed))
    if xp.is_concrete(seed) and int(seed) < 0:
        raise ArgumentError(f"seed={int(seed)!r} must be an integer from 0 to 2^64 - 1.")
    with xp.wide():
        low, high = _halves(xp, seed) if kind.endswith("64") else (xp.cast(seed, "int32"), 0)
    first = mix(low ^ signed(0x9E3779B9))
    return mix(first ^ high), mix(first + high + signed(0x85EBCA6B))


def _halves(xp: Namespace, n: Any) -> Positions:
    wide = xp.cast(n, "int64")
    return xp.cast(wide, "int32"), xp.cast(wide >> 32, "int32")


def split_positions(xp: Namespace, positions: Any) -> Positions:
    """Return positions given as integers of any width, or as a pair of 32-bit words, as such a pair."""
    if isinstance(positions, tuple):
        low, high = positions
        return xp.cast(low, "int32"), high if isinstance(high, int) else xp.cast(high, "int32")
    if xp.dtype_name(positions).endswith("64"):
        with xp.wide():
            return _halves(xp, positions)
    return xp.cast(positions, "int32"), 0


def c_positions(xp: Namespace, like: Any, shard: Shard | None = None) -> Positions:
    """Return the C-order index of each element, in the array of which `like` is a piece if `shard` says so.

    Each axis adds its own index times its stride, so that compilers partition the sum like the array.
    """
    shape = tuple(like.shape)
    if shard is not None:
        shard.check(shape)
    whole = shape if shard is None else shard.shape
    offset = (0,) * len(shape) if shard is None else shard.offset
    if math.prod(whole) <= 1 << 32:
        return _sum_of_axes(xp, like, whole, offset, "int32"), 0
    with xp.wide():
        return _halves(xp, _sum_of_axes(xp, like, whole, offset, "int64"))


def _sum_of_axes(xp: Namespace, like: Any, whole: tuple[int, ...], offset: tuple[Any, ...], kind: str) -> Any:
    width, total = int(kind[3:]), xp.full_like(like, 0, kind)
    for axis, first in enumerate(offset):
        stride = signed(math.prod(whole[axis + 1 :]), width)
        index = xp.iota(like.shape, axis, kind, like)
        start = signed(first, width) if isinstance(first, int) else xp.cast(first, kind)
        total = total + (index + start) * stride
    return total
