"""Float64 numbers of any array library, computed on their bits: exact widening, products and quotients rounded once.

A compiler may flush subnormal numbers to zero, fuse a product into a sum or turn a quotient by a constant into a
product, and all three change bits. So products and quotients that are not exact anyway are decided here on 64-bit
integers: the remainder of a division, like the low half of a product, is exact in wrapping arithmetic. What a vendor's
recipe defines as float32 steps is float64 numbers that float32 holds, each step rounded by `to_float32`.

`xp` is a namespace of `lowp.rounding._namespaces`; arrays are its float64 unless something else is said.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

#: A positive infinity, the fraction and the leading bit of a float64 significand, and all but the sign.
INFINITE, FRACTION, HIDDEN, MAGNITUDE = 0x7FF << 52, (1 << 52) - 1, 1 << 52, (1 << 63) - 1
_NAN = math.nan
#: A number whose unit in the last place is 2^-149, and its bits.
_ANCHOR = 1.5 * 2.0**-97
_ANCHOR_BITS = int(np.array(_ANCHOR).view(np.int64))
_HALF27 = (1 << 27) - 1


class Width(NamedTuple):
    """A float dtype: bits of fraction, exponent bias, and the integer dtype of its bits."""

    fraction: int
    bias: int
    integer: str

    @property
    def infinite(self) -> int:
        """Bits of a positive infinity."""
        return (2 * self.bias + 1) << self.fraction


WIDTHS = {
    "float16": Width(10, 15, "int16"),
    "bfloat16": Width(7, 127, "int16"),
    "float32": Width(23, 127, "int32"),
    "float64": Width(52, 1023, "int64"),
}


class Parts(NamedTuple):
    """Finite numbers as `significand * 2^exponent`; significands have 53 bits, those of zeros are 0."""

    significand: Any
    exponent: Any


def bits_of(xp: Any, x: Any) -> Any:
    """Return the bits of float32 or float64 numbers as signed integers."""
    return xp.bits(x)


def from_bits(xp: Any, bits: Any) -> Any:
    """Return the float64 numbers that have these int64 bits, or the float32 numbers of int32 bits."""
    return xp.floats(bits, "float64" if xp.dtype_name(bits) == "int64" else "float32")


def size_of(xp: Any, x: Any) -> Any:
    """Return the bits of `|x|`, which order numbers, infinity and NaN, for float32 or float64."""
    bits = xp.bits(x)
    return bits & (MAGNITUDE if xp.dtype_name(bits) == "int64" else 0x7FFFFFFF)


def _infinite(xp: Any, size: Any) -> int:
    return INFINITE if xp.dtype_name(size) == "int64" else 0x7F800000


def sign_of(xp: Any, x: Any) -> Any:
    """Return the sign bits of float64 numbers in place: the least int64 or 0."""
    return bits_of(xp, x) & ~MAGNITUDE


def magnitude(xp: Any, x: Any) -> Any:
    """Return `|x|` of float32 or float64 numbers, subnormal numbers and NaN payloads kept."""
    return from_bits(xp, size_of(xp, x))


def is_nan(xp: Any, x: Any) -> Any:
    """Whether float32 or float64 numbers are NaN."""
    size = size_of(xp, x)
    return size > _infinite(xp, size)


def is_finite(xp: Any, x: Any) -> Any:
    """Whether float32 or float64 numbers are finite."""
    size = size_of(xp, x)
    return size < _infinite(xp, size)


def is_zero(xp: Any, x: Any) -> Any:
    """Whether float32 or float64 numbers are zero; subnormal ones are not."""
    return size_of(xp, x) == 0


def widen(xp: Any, x: Any) -> Any:
    """Return float32 numbers as float64, exactly; float64 ones as they are."""
    if xp.dtype_name(x) == "float64":
        return x
    size = size_of(xp, x)
    tiny = xp.cast(size, "float64") * 2.0**-149
    tiny = xp.where(xp.bits(x) < 0, -tiny, tiny)
    return xp.where(size < 1 << 23, tiny, xp.cast(x, "float64"))


def narrow(xp: Any, x: Any, name: str) -> Any:
    """Return float64 numbers rounded once to the dtype `name`, to nearest even; beyond its range infinity."""
    if name == "float64":
        return x
    if name == "float32":
        return xp.floats(_float32_bits(xp, x), "float32")
    width = WIDTHS[name]
    bits = bits_of(xp, x)
    size = bits & MAGNITUDE
    drop = 52 - width.fraction
    rounded = (size + ((1 << (drop - 1)) - 1) + ((size >> drop) & 1)) >> drop
    rounded = rounded - ((1023 - width.bias) << width.fraction)
    least = 1024 - width.bias  # the field of the smallest normal number
    field = size >> 52
    kept = _shifted(xp, (size & FRACTION) | HIDDEN, xp.minimum(xp.maximum(least - field, 0) + drop, 60))
    result = xp.minimum(xp.where(field < least, kept, rounded), width.infinite)
    payload = (size & FRACTION) >> drop
    result = xp.where(size > INFINITE, width.infinite | payload | (1 << (width.fraction - 1)), result)
    result = xp.where(bits < 0, result - (1 << 15), result)
    return xp.floats(xp.cast(result, width.integer), name)


def _float32_bits(xp: Any, x: Any) -> Any:
    """Return the bits of float64 numbers rounded to float32.

    The conversion of the machine rounds right where the result is normal. Smaller numbers are added to one whose unit
    in the last place is 2^-149, so that the low bits of the sum count such units.
    """
    usual = xp.bits(xp.cast(x, "float32"))
    size = magnitude(xp, x)
    units = xp.cast(bits_of(xp, size + _ANCHOR) - _ANCHOR_BITS, "int32")
    units = xp.where(bits_of(xp, x) < 0, units | -0x80000000, units)
    return xp.where(size < 2.0**-126, units, usual)


def to_float32(xp: Any, x: Any) -> Any:
    """Return numbers rounded to nearest even among those that float32 holds, still as float64; infinity beyond them."""
    return widen(xp, narrow(xp, x, "float32"))


def _shifted(xp: Any, significand: Any, drop: Any) -> Any:
    """Return `significand / 2^drop` rounded to nearest even, for drops of 1 to 60 bits."""
    one = xp.full_like(significand, 1)
    return (significand + ((one << (drop - 1)) - 1) + ((significand >> drop) & 1)) >> drop


def parts_of(xp: Any, x: Any) -> Parts:
    """Return magnitudes as significand and exponent; what comes for NaN and infinity means nothing."""
    size = bits_of(xp, x) & MAGNITUDE
    fraction, field = size & FRACTION, size >> 52
    tiny = bits_of(xp, xp.cast(fraction, "float64"))  # a subnormal number is its fraction times 2^-1074
    normal = field > 0
    significand = xp.where(normal, fraction, tiny & FRACTION) | HIDDEN
    exponent = xp.where(normal, field - 1075, (tiny >> 52) - (1075 + 1074))
    return Parts(xp.where(size == 0, 0, significand), exponent)


def from_parts(xp: Any, parts: Parts, sign: Any, tiny: Parts | None = None) -> Any:
    """Return `significand * 2^exponent` with a sign; beyond float64's range infinity.

    Below its normal range `tiny`, the same numbers with more bits, is rounded to nearest even; by default `parts`.
    """
    field = parts.exponent + 1075
    normal = (xp.minimum(xp.maximum(field, 1), 2047) - 1 << 52) + parts.significand
    normal = xp.where(field >= 2047, INFINITE, normal)
    low = tiny or parts
    drop = xp.minimum(xp.maximum(-1074 - low.exponent, 1), 60)
    bits = xp.where(field > 0, normal, _shifted(xp, low.significand, drop))
    return from_bits(xp, xp.where(parts.significand == 0, 0, bits) | sign)


def quotient(xp: Any, x: Any, s: Any, odd: bool = False) -> Any:
    """Return `x / s` rounded to nearest even, or to odd (see `lowp.rounding._exact_steps`), for `s` of any sign.

    Specials as IEEE 754 has them. With `odd` a nonzero number never becomes zero.
    """
    a, b = parts_of(xp, x), parts_of(xp, s)
    below = a.significand < b.significand
    shift = 52 + xp.cast(below, "int64")
    divisor = xp.cast(xp.maximum(b.significand, 1), "float64")
    if xp.name == "jax":  # by one number for many XLA multiplies by the reciprocal, which is off by more than one
        divisor = xp.where(a.significand < 0, 1.0, divisor)
    estimate = xp.cast(a.significand, "float64") / divisor
    q = xp.cast(estimate * 2.0**52 * (1 + xp.cast(below, "float64")), "int64")
    rest = (a.significand << shift) - q * b.significand  # small, so right in wrapping arithmetic
    q = q - xp.cast(rest < 0, "int64")
    rest = xp.where(rest < 0, rest + b.significand, rest)
    over = rest >= b.significand
    q = q + xp.cast(over, "int64")
    rest = xp.where(over, rest - b.significand, rest)
    exponent = a.exponent - b.exponent - shift
    tiny = None
    if odd:
        q = q | xp.cast(rest != 0, "int64")
    else:
        twice = rest + rest - b.significand
        more = xp.cast(twice >= 0, "int64") << 1 | xp.cast((twice != 0) & (rest != 0), "int64")
        tiny = Parts(q << 2 | more, exponent - 2)
        q = q + xp.cast((twice > 0) | ((twice == 0) & ((q & 1) == 1)), "int64")
    carried = q >> 53
    sign = sign_of(xp, x) ^ sign_of(xp, s)
    result = from_parts(xp, Parts(q >> carried, exponent + carried), sign, tiny)
    if odd:
        result = xp.where(is_zero(xp, result), from_bits(xp, sign | 1), result)
    x_infinite, s_infinite, x_zero, s_zero = (
        ~is_finite(xp, x),
        ~is_finite(xp, s),
        a.significand == 0,
        b.significand == 0,
    )
    result = xp.where(x_zero | s_infinite, from_bits(xp, sign), result)
    result = xp.where(x_infinite | s_zero, from_bits(xp, sign | INFINITE), result)
    invalid = (x_infinite & s_infinite) | (x_zero & s_zero) | is_nan(xp, x) | is_nan(xp, s)
    return xp.where(invalid, _NAN, result)


def product(xp: Any, a: Any, b: Any, odd: bool = False) -> Any:
    """Return `a * b` rounded to nearest even, or to odd; specials as IEEE 754 has them."""
    first, second = parts_of(xp, a), parts_of(xp, b)
    high_a, low_a = first.significand >> 27, first.significand & _HALF27
    high_b, low_b = second.significand >> 27, second.significand & _HALF27
    low = low_a * low_b
    middle = high_a * low_b + low_a * high_b + (low >> 27)
    high = high_a * high_b + (middle >> 27)
    low = (middle & _HALF27) << 27 | (low & _HALF27)  # the product is high * 2^54 + low
    top = (high << 3) | (low >> 51)  # 54 or 55 bits
    sticky = (low & ((1 << 51) - 1)) != 0
    drop = 1 + xp.cast(top >= 1 << 54, "int64")
    kept = top >> drop
    rest = top - (kept << drop)
    exponent = first.exponent + second.exponent + 51 + drop
    tiny = None
    if odd:
        kept = kept | xp.cast(sticky | (rest != 0), "int64")
    else:
        tiny = Parts(top << 1 | xp.cast(sticky, "int64"), exponent - drop - 1)
        twice = rest + rest - drop * 2
        up = (twice > 0) | ((twice == 0) & (sticky | ((kept & 1) == 1)))
        kept = kept + xp.cast(up, "int64")
    carried = kept >> 53
    sign = sign_of(xp, a) ^ sign_of(xp, b)
    result = from_parts(xp, Parts(kept >> carried, exponent + carried), sign, tiny)
    infinite = ~(is_finite(xp, a) & is_finite(xp, b))
    result = xp.where(infinite, from_bits(xp, sign | INFINITE), result)
    zero = (first.significand == 0) | (second.significand == 0)
    return xp.where(is_nan(xp, a) | is_nan(xp, b) | (infinite & zero), _NAN, result)


def sum_to_odd(xp: Any, a: Any, b: Any) -> Any:
    """Return `a + b` rounded to odd, for numbers that are not negative; NaN and infinity as IEEE 754 has them."""
    swap = bits_of(xp, a) < bits_of(xp, b)
    large, small = (parts_of(xp, xp.where(swap, *pair)) for pair in ((b, a), (a, b)))
    distance = xp.minimum(large.exponent - small.exponent, 62)
    distance = xp.where(small.significand == 0, 62, xp.maximum(distance, 0))
    added = small.significand << 9
    low = added >> distance
    lost = (low << distance) != added
    total = (large.significand << 9) + low
    drop = 9 + xp.cast(total >= 1 << 62, "int64")
    kept = total >> drop
    inexact = lost | ((kept << drop) != total)
    parts = Parts(kept | xp.cast(inexact, "int64"), large.exponent + drop - 9)
    result = from_parts(xp, parts, 0)
    result = xp.where(is_finite(xp, a) & is_finite(xp, b), result, math.inf)
    return xp.where(is_nan(xp, a) | is_nan(xp, b), _NAN, result)
