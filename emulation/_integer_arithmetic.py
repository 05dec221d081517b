"""What an integer-only network computes: NumPy integers, shifts and comparisons; nothing here is or becomes a float."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]
_FARTHEST = 63

#: mode -> whether floor(p / d) goes up by one, from: p < 0, floor odd, remainder > 0, == d / 2, > d / 2.
_UP: dict[str, Callable[..., Any]] = {
    "ties_to_even": lambda negative, odd, some, tie, above: above | (tie & odd),
    "ties_to_odd": lambda negative, odd, some, tie, above: above | (tie & ~odd),
    "ties_to_away": lambda negative, odd, some, tie, above: above | (tie & ~negative),
    "ties_to_zero": lambda negative, odd, some, tie, above: above | (tie & negative),
    "ties_to_positive": lambda negative, odd, some, tie, above: above | tie,
    "ties_to_negative": lambda negative, odd, some, tie, above: above,
    "toward_zero": lambda negative, odd, some, tie, above: some & negative,
    "away_from_zero": lambda negative, odd, some, tie, above: some & ~negative,
    "toward_positive": lambda negative, odd, some, tie, above: some,
    "toward_negative": lambda negative, odd, some, tie, above: some & False,
    "to_odd": lambda negative, odd, some, tie, above: some & ~odd,
}
MODES = tuple(_UP)


def requantized(
    z: Integers, multiplier: Integers, shift: Integers, low: int, high: int, dtype: type, mode: str
) -> Integers:
    """Return `z * multiplier / 2^shift` rounded, then clamped to `low..high`.

    Args:
        z: Integers of up to 32 bits.
        multiplier: Of up to 31 bits, not negative; the product takes 63 bits.
        shift: Right if positive, left if negative.
        low: Least result.
        high: Largest result; both have at most 32 bits.
        dtype: Of the results.
        mode: One of `MODES`.
    """
    product = np.multiply(z, multiplier, dtype=np.int64)
    # magnitudes stay below 2^62: a shift by 63 leaves less than one half, as every longer one does
    right = np.minimum(np.maximum(shift, 0), _FARTHEST)
    left = np.maximum(-shift, 0)
    result = np.minimum(np.maximum(_shifted(product, right, mode), low), high)
    for step in (np.minimum(left, 31), np.minimum(np.maximum(left - 31, 0), 1)):  # 32 bits left all but 0 saturates
        result = np.minimum(np.maximum(np.left_shift(result, step), low), high)
    return result.astype(dtype)


def _shifted(product: Integers, right: Integers, mode: str) -> Integers:
    floor = np.right_shift(product, right)
    rest = product - np.left_shift(floor, right)
    half = np.left_shift(np.ones_like(right), np.maximum(right - 1, 0))
    # a shift by nothing has no rest, so that its half of 1 decides nothing
    return floor + _up(mode, product < 0, floor, rest, rest == half, rest > half)


def divided(total: Integers, count: int, mode: str) -> Integers:
    """Return `total / count`, rounded."""
    floor = np.floor_divide(total, count)
    rest = total - floor * count
    return floor + _up(mode, total < 0, floor, rest, rest == count - rest, rest > count - rest)


def _up(mode: str, negative: Any, floor: Integers, rest: Integers, tie: Any, above: Any) -> Integers:
    up: Integers = _UP[mode](negative, (floor & 1) == 1, rest > 0, tie & (rest > 0), above).astype(floor.dtype)
    return up


def product(x: Integers, weight: Integers, bias: Integers, bits: int) -> Integers:
    """Return `x @ weight + bias` in two's complement accumulators of up to 32 bits, which wrap around.

    Args:
        x: (rows, terms).
        weight: (terms, outputs).
        bias: (outputs,), int32.
        bits: Width of the accumulators.
    """
    total = np.add(np.matmul(x.astype(np.int32), weight.astype(np.int32)), bias)  # int32: wraps modulo 2^32
    return np.right_shift(np.left_shift(total, 32 - bits), 32 - bits)


def added(a: Integers, b: Integers, low: int, high: int, dtype: type) -> Integers:
    """Return the sum of two int32 arrays of at most 31 bits, clamped."""
    return np.minimum(np.maximum(np.add(a, b), low), high).astype(dtype)


def rectified(x: Integers) -> Integers:
    """Return the larger of each number and 0."""
    return np.maximum(x, 0).astype(x.dtype)
