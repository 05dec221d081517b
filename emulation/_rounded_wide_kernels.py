"""One multiply-add rounded once in 128-bit integers, compiled: for what float64 arithmetic cannot tell exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

_HIDDEN = 1 << 52
_LOW = 0xFFFFFFFF
#: Where the leading bit of aligned terms is: a sum has room for one bit more.
_LEADING = 125
#: Units from here on are beyond every range.
_FAR = 1 << 62


@_compile
def _length(n: Any) -> Any:
    """Return the bits of a uint64."""
    length = np.int64(0)
    for step in (32, 16, 8, 4, 2, 1):
        if n >> np.uint64(step) != np.uint64(0):
            n = n >> np.uint64(step)
            length += step
    return length + np.int64(n)


@_compile
def _left(high: Any, low: Any, count: int) -> Any:
    """Shift left by 0 to 127; bits beyond the 128th are lost."""
    if count == 0:
        return high, low
    if count >= 64:
        return low << np.uint64(count - 64), np.uint64(0)
    return (high << np.uint64(count)) | (low >> np.uint64(64 - count)), low << np.uint64(count)


@_compile
def _right(high: Any, low: Any, count: int) -> Any:
    """Shift right by 0 or more."""
    if count == 0:
        return high, low
    if count >= 128:
        return np.uint64(0), np.uint64(0)
    if count >= 64:
        return np.uint64(0), high >> np.uint64(count - 64)
    return high >> np.uint64(count), (low >> np.uint64(count)) | (high << np.uint64(64 - count))


@_compile
def _jammed(high: Any, low: Any, count: int) -> Any:
    """Shift right; the last bit is set if any bit is lost."""
    kept_high, kept = _right(high, low, count)
    if count == 0:
        return kept_high, kept
    if count >= 128:
        return kept_high, np.uint64(1)  # the number is not zero
    lost_high, lost = _left(high, low, 128 - count)
    return kept_high, kept | np.uint64((lost_high | lost) != np.uint64(0))


@_compile
def _product(a: Any, b: Any) -> Any:
    """Return the 128 bits of a product of two uint64."""
    mask, half = np.uint64(_LOW), np.uint64(32)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    low, middle, other = a0 * b0, a1 * b0, a0 * b1
    carry = ((low >> half) + (middle & mask) + (other & mask)) >> half
    return a1 * b1 + (middle >> half) + (other >> half) + carry, low + ((middle + other) << half)


@_compile
def _normalised(high: Any, low: Any, exponent: int, leading: int) -> Any:
    """Shift a nonzero number left so that bit `leading` is its highest."""
    length = 64 + _length(high) if high != np.uint64(0) else _length(low)
    count = leading + 1 - length
    high, low = _left(high, low, count)
    return high, low, exponent - count


@_inline
def _taken_apart(x: float) -> Any:
    """Return the integer significand and its exponent of a finite number."""
    bits = np.float64(x).view(np.int64)
    field = (bits >> 52) & 0x7FF
    significand = bits & (_HIDDEN - 1)
    if field > 0:
        significand |= _HIDDEN
    return np.uint64(significand), (field if field > 0 else 1) - 1075


@_inline
def _negative(x: float) -> Any:
    return np.float64(x).view(np.int64) < 0


@_compile
def _sum(x: float, y: float, z: float) -> Any:
    """Return sign, 128 bits and exponent of `x * y + z`, not zero both; the last bit is set if any bit was lost."""
    product_negative, negative = _negative(x) != _negative(y), _negative(z)
    a, e = _taken_apart(x)
    b, f = _taken_apart(y)
    low, g = _taken_apart(z)
    high = np.uint64(0)
    p_high, p_low = _product(a, b)
    if (p_high | p_low) == np.uint64(0):
        high, low, g = _normalised(high, low, g, _LEADING)
        return negative, high, low, g
    p_high, p_low, h = _normalised(p_high, p_low, e + f, _LEADING)
    if low == np.uint64(0):
        return product_negative, p_high, p_low, h
    high, low, g = _normalised(high, low, g, _LEADING)
    if h > g:
        high, low = _jammed(high, low, h - g)
    else:
        p_high, p_low = _jammed(p_high, p_low, g - h)
    exponent = max(g, h)
    if negative == product_negative:
        total = low + p_low
        return negative, high + p_high + np.uint64(total < low), total, exponent
    if (p_high > high) or (p_high == high and p_low > low):
        negative = product_negative
        high, low, p_high, p_low = p_high, p_low, high, low
    return negative, high - p_high - np.uint64(low < p_low), low - p_low, exponent


@_compile
def _goes_away(top: Any, more: bool, odd: int, negative: int, word: int, p: Any) -> Any:
    """Whether a dropped fraction `top / 2^64`, and more behind it, makes the magnitude grow by one unit."""
    half = np.uint64(1) << np.uint64(63)
    some = more or top != np.uint64(0)
    if p.variant == 0:
        above = top > half or (top == half and more)
        position = 3 if above else 2 if top == half else 1 if some else 0
        return (p.table >> (position * 4 + negative * 2 + odd)) & 1
    if p.variant == 4:
        return np.int64(some and word >> 31 != 0)
    n = p.random_bits
    random = word >> (32 - n)
    if p.variant == 2:
        return np.int64(np.int64(top >> np.uint64(63 - n)) + 2 * random + 1 >= np.int64(1) << (n + 1))
    f = np.int64(top >> np.uint64(64 - n))
    if p.variant == 3:
        rest = top << np.uint64(n)
        f += np.int64(rest > half or (rest == half and (more or f & 1 == 1)))
    return np.int64(f + random >= np.int64(1) << n)


@_compile
def _stored(negative: int, high: Any, low: Any, exponent: int, word: int, p: Any) -> Any:
    """Return the number of the format that a sum of 128 bits, the highest set, is stored as."""
    last = max(exponent + 128 - p.precision, p.least_bit)
    drop = last - exponent
    kept_high, kept, top, more = np.uint64(0), np.uint64(0), np.uint64(0), False
    if drop <= 0:  # an integer beyond every range, or its low bits
        kept_high = np.uint64(1)
        if drop > -64:
            kept = low << np.uint64(-drop)
    elif drop <= 128:
        kept_high, kept = _right(high, low, drop)
        top, rest = _left(high, low, 128 - drop)
        more = rest != np.uint64(0)
    else:
        more = True
        if drop < 192:
            top = high >> np.uint64(drop - 128)
    kept += np.uint64(_goes_away(top, more, np.int64(kept & np.uint64(1)), negative, word, p))
    if p.wrap_bits > 0:
        return _wrapped(negative, kept, p)
    if kept_high != np.uint64(0) or kept >= np.uint64(_FAR):
        return p.below if negative == 1 else p.above
    value = np.ldexp(np.float64(kept), np.int32(last))
    if value < p.smallest_normal:
        value = 0.0
    if negative == 1:
        value = -value if value != 0.0 or p.zero_sign != 0 else 0.0
    if value > p.largest:
        return p.above
    return p.below if value < p.smallest else value


@_compile
def _wrapped(negative: int, units: Any, p: Any) -> Any:
    """Return the low bits of an integer number of units."""
    mask = (np.int64(1) << p.wrap_bits) - 1
    low = np.int64(units & np.uint64(mask))
    if negative == 1:
        low = -low & mask
    if p.wrap_signed == 1 and low >> (p.wrap_bits - 1) == 1:
        low -= np.int64(1) << p.wrap_bits
    return np.ldexp(np.float64(low), np.int32(p.least_bit))


@_compile
def _units(high: Any, low: Any, exponent: int, least_bit: int) -> Any:
    """Return the last 64 bits of a number of units, and whether it is a whole number of them."""
    if exponent >= least_bit:
        shift = exponent - least_bit
        return (low << np.uint64(shift) if shift < 64 else np.uint64(0)), True
    shift = least_bit - exponent
    kept_high, kept = _right(high, low, shift)
    back_high, back = _left(kept_high, kept, shift) if shift < 128 else (kept_high, kept)
    return kept, back_high == high and back == low


@_compile
def _wrapped_whole(x: float, y: float, z: float, p: Any) -> Any:
    """Return the wrapped sum of whole numbers of units, of any size, and whether they are whole."""
    a, e = _taken_apart(x)
    b, f = _taken_apart(y)
    c, g = _taken_apart(z)
    high, low = _product(a, b)
    product, whole = _units(high, low, e + f, p.least_bit)
    addend, whole_too = _units(np.uint64(0), c, g, p.least_bit)
    product = ~product + np.uint64(1) if _negative(x) != _negative(y) else product
    addend = ~addend + np.uint64(1) if _negative(z) else addend
    return _wrapped(0, product + addend, p), whole and whole_too


@_compile
def wide_multiply_add(x: float, y: float, z: float, word: int, p: Any) -> Any:
    """Return `x * y + z` rounded once as the plan `p` says; a sum that cancels is -0 if it has `mirror`."""
    if not (abs(x) < np.inf and abs(y) < np.inf and abs(z) < np.inf):
        finite_product = abs(x) < np.inf and abs(y) < np.inf
        total = z if finite_product else x * y + z
        if total != total:
            return total
        return p.infinite_above if total > 0.0 else p.infinite_below
    if (x == 0.0 or y == 0.0) and z == 0.0:
        zero = x * y + z if p.mirror == 0 else -(-(x * y) - z)
        return zero if p.zero_sign != 0 and p.plus_zero == 0 else 0.0
    if p.wrap_bits > 0:
        wrapped, whole = _wrapped_whole(x, y, z, p)
        if whole:
            return wrapped
    negative, high, low, exponent = _sum(x, y, z)
    if (high | low) == np.uint64(0):
        return -0.0 if p.mirror != 0 and p.zero_sign != 0 else 0.0
    high, low, exponent = _normalised(high, low, exponent, 127)
    return _stored(np.int64(negative), high, low, exponent, word, p)
