"""A sum, as an integer times a power of two, to the number of the accumulator's format that stores it; compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_inline
def _bit_length(n: Any) -> Any:
    """Return the bits of an integer of 0 to 2^63 - 1."""
    length = np.int64(0)
    for step in (32, 16, 8, 4, 2, 1):
        more = np.int64(n >> step != 0) * step
        n >>= more
        length += more
    return length + n


@_inline
def _power(exponent: int) -> Any:
    """Return 2 to an integer power, as float64, 0 and infinity beyond its range."""
    return np.ldexp(1.0, np.int32(exponent))


@_inline
def _store(negative: int, magnitude: int, exponent: int, sticky: int, p: Any) -> Any:
    """Return `+-magnitude * 2^exponent` rounded once, then overflow, as the plan `p` (a `StoredPlan`) says.

    `sticky` is 1 where the magnitude is really a little larger than given, by less than one: then the magnitude must
    have at least two bits more than the format keeps.
    """
    last = max(exponent + _bit_length(magnitude) - p.precision, p.least_bit)
    drop = last - exponent
    if drop > 0:
        s = min(drop, 63)
        kept = magnitude >> s if s < 63 else np.int64(0)
        rest = magnitude & ((np.int64(1) << min(s, 62)) - 1) if s < 63 else magnitude
        half = np.int64(1) << min(max(s - 1, 0), 62)
        far = drop > 63  # everything is dropped, and it is less than half
        above = (rest > half or (rest == half and sticky > 0)) and not far
        exactly_half = rest == half and sticky == 0 and not far
        some = rest > 0 or sticky > 0
        position = 3 if above else 2 if exactly_half else 1 if some else 0
        odd = kept & 1
        if p.parity_of_exponent == 1 and kept > 0:
            odd = (last - p.least_bit + 1) & 1  # the code of 2^last
        kept += (p.rounding_table >> (position * 4 + negative * 2 + odd)) & 1
    else:
        kept, last = magnitude, exponent
    if p.wrap_bits > 0:
        return _wrapped(negative, kept << min(last - p.least_bit, 63), p)  # at most 53 bits are kept
    value = np.ldexp(np.float64(kept), np.int32(last))
    if p.smallest_normal > 0.0 and value <= p.smallest_normal and _is_tiny(negative, magnitude, exponent, sticky, p):
        value = 0.0
    if negative == 1:
        value = -value if value != 0.0 or p.signed_zero == 1 else 0.0
    if value > p.largest:
        return p.above
    if value < p.least:
        return p.below
    return value


@_inline
def _is_tiny(negative: int, magnitude: int, exponent: int, sticky: int, p: Any) -> Any:
    """Whether a sum is below the normal numbers when it is rounded as if exponents had no end."""
    length = _bit_length(magnitude)
    if exponent + length > p.least_bit + p.precision - 1:
        return False  # not below the smallest normal number before it is rounded
    drop = length - p.precision
    top = exponent + length == p.least_bit + p.precision - 1  # it may be rounded up to that number
    if not top or drop <= 0:
        return True
    kept, rest = magnitude >> drop, magnitude & ((np.int64(1) << drop) - 1)
    if kept != (np.int64(1) << p.precision) - 1:
        return True
    half = np.int64(1) << (drop - 1)
    position = (
        3 if rest > half or (rest == half and sticky > 0) else 2 if rest == half else 1 if rest + sticky > 0 else 0
    )
    return (p.rounding_table >> (position * 4 + negative * 2 + 1)) & 1 == 0


@_inline
def _wrapped(negative: int, units: int, p: Any) -> Any:
    """Return the low bits of an integer number of units."""
    low = (-units if negative == 1 else units) & ((np.int64(1) << p.wrap_bits) - 1)
    if p.wrap_signed == 1 and low >> (p.wrap_bits - 1) == 1:
        low -= np.int64(1) << p.wrap_bits
    return np.ldexp(np.float64(low), np.int32(p.least_bit))
