"""Blocks in float32 lanes: elements scaled exactly, rounded as scalar formats are, and multiplied back, in pieces.

`_tile_kernels` explains tiles and bands. A number to round is the product with a power of two, a float32 product by
definition, or a quotient: the float32 quotient rounded to odd, by its exact remainder, leads any format of at most 22
bits to what the exact one does. A piece in which a scale is NaN or far from 1 goes through `quantize_tiles` instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from lowp.rounding._fast_kernels import _field, zero_sign_of
from lowp.rounding._float32_kernels import narrow_float16, widen_bfloat16, widen_float16

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: How an element becomes the number to round: a product with a power of two, a float32 product, a quotient.
POWER, PRODUCT32, QUOTIENT = range(3)
#: What the scales of a piece are: some too far from 1 for float32, none, none but some are 0 and leave only +0.
STRANGE, USUAL, SOME_ZEROS = range(3)
#: Types of an array.
FLOAT32, FLOAT16, BFLOAT16 = range(3)
#: Scales are usual from its reciprocal to this: no step underflows or overflows.
_USUAL = 2.0**90
#: Stands for a number too small to tell from zero: less than any part of a quantum that a mode looks at.
_TINY = np.float32(2.0**-100)
#: Columns of a tile from which on a loop over one tile's columns is quick; else each column has its own factors.
NARROW = 16


@intrinsic
def _fused(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return `a * b + c` of float32 numbers, rounded once."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), build


@_inline
def _to_odd(near: Any, rest: Any) -> Any:
    """Return a number of at least that much exactness: `near + rest` rounded to odd, where `near` is it rounded."""
    bits, inexact = np.float32(near).view(np.int32), rest != 0
    beyond = np.int32(np.int32(np.float32(rest).view(np.int32) ^ bits) >> np.int32(31))  # -1 or 0
    lower = np.int32(bits + beyond) if inexact else bits
    return np.int32(lower | np.int32(inexact)).view(np.float32)


@_compile
def largest_of_tiles(row: Any, tiles: Any, c: Any) -> None:
    """Write the bits of each tile's largest magnitude; `row` starts with a tile."""
    for t in range(tiles.size):
        part, most = row[t * c : (t + 1) * c], np.int32(0)
        for k in range(part.size):
            most = max(most, np.int32(np.float32(part[k]).view(np.int32) & np.int32(0x7FFFFFFF)))
        tiles[t] = most


@_compile
def power_factors(tiles: Any, before: Any, high: Any, emax: Any, round_up_from: Any, carry_bits: Any) -> Any:
    """Write power-of-two factors of float32 as `power_of_two_scales`; return `STRANGE` or `USUAL`."""
    emax, round_up_from, carry = np.int32(emax), np.int32(round_up_from), np.int32(carry_bits)
    strange = np.int32(0)
    for t in range(tiles.size):
        most = tiles[t]
        mantissa = np.int32(np.int32(most & np.int32(0x7FFFFF)) + carry)
        e = np.int32(np.int32(np.int32(most >> np.int32(23)) - np.int32(127)) - emax)
        e = np.int32(e + np.int32(mantissa >= np.int32(0x800000)))
        e = np.int32(e + np.int32(np.int32(mantissa & np.int32(0x7FFFFF)) >= round_up_from))
        e = np.int32(0) if most == 0 else e  # any scale makes zeros of zeros
        strange |= np.int32((e > np.int32(90)) | (e < np.int32(-90)) | (most >= np.int32(0x7F800000)))
        before[t] = np.int32(np.int32(np.int32(127) - e) << np.int32(23)).view(np.float32)
        high[t] = np.int32(np.int32(np.int32(127) + e) << np.int32(23)).view(np.float32)
    return STRANGE if strange else USUAL


@_compile
def given_factors(steps: Any, units: Any, kind: Any, f: Any) -> Any:
    """Write what float64 factors of tiles are in float32 numbers; return `STRANGE`, `USUAL` or `SOME_ZEROS`."""
    before, divisor, high, low, inverse = f[0], f[1], f[2], f[3], f[4]
    strange, zeros = 0, 0
    for t in range(steps.size):
        step, unit = steps[t], units[t]
        below = np.float32(unit)  # of no less than 0, or the two products of -0 would add up to 0
        below = np.int32(below.view(np.int32) - np.int32(np.float64(below) > unit)).view(np.float32)
        high[t], low[t] = below, np.float32(unit - np.float64(below))
        if kind == QUOTIENT:
            field = np.float64(step).view(np.int64) & np.int64(0x7FF0000000000000)
            power = np.int64((np.int64(2046) << 52) - field).view(np.float64)
            scale = 1.0 if step == 0 else step * power
            before[t], divisor[t], inverse[t] = np.float32(power), np.float32(scale), np.float32(1 / scale)
            before[t] = np.float32(0) if step == 0 else before[t]
            zeros += 1 if step == 0 else 0
        else:
            before[t] = np.float32(step)
        usual = ((abs(unit) < _USUAL) & (abs(unit) > 1 / _USUAL)) | ((unit == 0) & (kind != POWER))
        strange += 0 if usual else 1
    if strange > 0:
        return STRANGE
    return SOME_ZEROS if zeros > 0 else USUAL


@_compile
def clear_zeros(numbers: Any, f: Any, c: Any) -> None:
    """Write 0 for all numbers of tiles whose scale is 0; `f`, `c`: as below."""
    before = f[0]
    for t in range(-(-numbers.size // c)):
        if before[t] == 0:
            numbers[t * c : (t + 1) * c] = 0


@_inline
def _nearest(a: Any, x: Any, least: Any, raise_by: Any, zero_sign: Any, top: Any, bottom: Any) -> Any:
    """Return the magnitude `a`, which is no NaN, rounded to nearest even and clamped, with the sign of `x`."""
    magic = np.int32(_field(a, least) + raise_by).view(np.float32)
    r = np.float32(np.float32(a + magic) - magic)
    sign = np.int32(np.float32(x).view(np.int32) & np.int32(-0x80000000))
    r = min(r, bottom if sign != 0 else top)
    sign = sign if r != 0 else np.int32(sign & zero_sign)
    return np.int32(np.float32(r).view(np.int32) | sign).view(np.float32)


@_inline
def _quotient(x: Any, power: Any, divisor: Any, inverse: Any, limit: Any) -> Any:
    """Return the magnitude of `x / (divisor / power)` rounded to odd in float32; past `limit` only that it is.

    The product with a rounded reciprocal is off by less than two units in the last place; corrected by its remainder,
    by less than one, and the sign of the next remainder tells on which side the quotient lies.
    """
    a = np.float32(abs(x) * power)
    a = min(a, limit)
    q = np.float32(a * inverse)
    q = _fused(_fused(np.float32(-q), divisor, a), inverse, q)
    return _to_odd(q, _fused(np.float32(-q), divisor, a))


# Loops run over columns where each has its own factors (`c` is 1), else over the columns of one tile after another.
# `f`: rows of a factor to multiply by before rounding, a divisor, the two parts of a unit, the divisor's reciprocal,
# the two parts of 1. `unit_at`: the row of the unit that elements are multiplied by.


@_compile
def nearest_powers(row: Any, sink: Any, f: Any, c: Any, unit_at: Any, integers: Any, floats: Any) -> None:
    """Multiply by powers of two, round to nearest even, and divide by them."""
    least, raise_by, zero_sign = integers[0], integers[1], zero_sign_of(integers)
    top, bottom, before, high = floats[0], floats[1], f[0], f[unit_at]
    if c == 1:
        for k in range(row.size):
            v = np.float32(abs(row[k]) * before[k])
            sink[k] = np.float32(_nearest(v, row[k], least, raise_by, zero_sign, top, bottom) * high[k])
        return
    for t in range(-(-row.size // c)):
        part, goal, step, unit = row[t * c : (t + 1) * c], sink[t * c : (t + 1) * c], before[t], high[t]
        for k in range(part.size):
            v = np.float32(abs(part[k]) * step)
            goal[k] = np.float32(_nearest(v, part[k], least, raise_by, zero_sign, top, bottom) * unit)


@_compile
def nearest_products(row: Any, sink: Any, f: Any, c: Any, unit_at: Any, integers: Any, floats: Any) -> None:
    """Round float32 products to nearest even, and multiply by units of two parts."""
    least, raise_by, zero_sign = integers[0], integers[1], zero_sign_of(integers)
    top, bottom, clip, before, high, low = floats[0], floats[1], floats[2], f[0], f[unit_at], f[unit_at + 1]
    if c == 1:
        for k in range(row.size):
            v = min(np.float32(abs(row[k]) * before[k]), clip)
            r = _nearest(v, row[k], least, raise_by, zero_sign, top, bottom)
            sink[k] = _fused(r, high[k], np.float32(r * low[k]))
        return
    for t in range(-(-row.size // c)):
        part, goal = row[t * c : (t + 1) * c], sink[t * c : (t + 1) * c]
        step, unit, rest = before[t], high[t], low[t]
        for k in range(part.size):
            v = min(np.float32(abs(part[k]) * step), clip)
            r = _nearest(v, part[k], least, raise_by, zero_sign, top, bottom)
            goal[k] = _fused(r, unit, np.float32(r * rest))


@_compile
def nearest_quotients(row: Any, sink: Any, f: Any, c: Any, unit_at: Any, integers: Any, floats: Any) -> None:
    """Round exact quotients to nearest even, and multiply by units."""
    least, raise_by, zero_sign = integers[0], integers[1], zero_sign_of(integers)
    top, bottom, limit = floats[0], floats[1], np.float32(4 * floats[2])
    before, divisor, high, inverse = f[0], f[1], f[unit_at], f[4]
    if c == 1:
        for k in range(row.size):
            v = _quotient(row[k], before[k], divisor[k], inverse[k], limit)
            sink[k] = np.float32(_nearest(v, row[k], least, raise_by, zero_sign, top, bottom) * high[k])
        return
    for t in range(-(-row.size // c)):
        part, goal = row[t * c : (t + 1) * c], sink[t * c : (t + 1) * c]
        step, by, unit, back = before[t], divisor[t], high[t], inverse[t]
        for k in range(part.size):
            v = _quotient(part[k], step, by, back, limit)
            goal[k] = np.float32(_nearest(v, part[k], least, raise_by, zero_sign, top, bottom) * unit)


@_inline
def _signed(a: Any, x: Any) -> Any:
    """Return the magnitude `a` with the sign of `x`."""
    sign = np.int32(np.float32(x).view(np.int32) & np.int32(-0x80000000))
    return np.int32(np.float32(a).view(np.int32) | sign).view(np.float32)


@_inline
def _kept_apart(a: Any, x: Any) -> Any:
    """Return the magnitude `a` with the sign of `x`, and no zero where `x` is none."""
    return _signed(max(a, _TINY), x) if x != 0 else x


@_compile
def prepare_products(row: Any, v: Any, f: Any, c: Any, least: Any) -> None:
    """Write products to round, of no less than `least` where the number is not 0."""
    before = f[0]
    if c == 1:
        for k in range(row.size):
            a = max(np.float32(abs(row[k]) * before[k]), least)
            v[k] = _signed(a, row[k]) if row[k] != 0 else row[k]
        return
    for t in range(-(-row.size // c)):
        part, goal, step = row[t * c : (t + 1) * c], v[t * c : (t + 1) * c], before[t]
        for k in range(part.size):
            a = max(np.float32(abs(part[k]) * step), least)
            goal[k] = _signed(a, part[k]) if part[k] != 0 else part[k]


@_compile
def prepare_quotients(row: Any, v: Any, f: Any, c: Any, clip: Any) -> None:
    """Write quotients to round, rounded to odd; none that is not 0 becomes 0."""
    before, divisor, inverse, limit = f[0], f[1], f[4], np.float32(4 * clip)
    if c == 1:
        for k in range(row.size):
            v[k] = _kept_apart(_quotient(row[k], before[k], divisor[k], inverse[k], limit), row[k])
        return
    for t in range(-(-row.size // c)):
        part, goal = row[t * c : (t + 1) * c], v[t * c : (t + 1) * c]
        step, by, back = before[t], divisor[t], inverse[t]
        for k in range(part.size):
            goal[k] = _kept_apart(_quotient(part[k], step, by, back, limit), part[k])


@_inline
def _product(v: Any, high: Any, low: Any) -> Any:
    """Return a product with a unit of two parts; that of an element with the second is exact."""
    return _fused(v, high, np.float32(v * low))


@_inline
def _odd_product(v: Any, high: Any, low: Any) -> Any:
    """Return the same rounded to odd."""
    more = np.float32(v * low)
    near = _fused(v, high, more)
    return _to_odd(near, np.float32(_fused(v, high, np.float32(-near)) + more))


@_compile
def multiply(v: Any, sink: Any, f: Any, c: Any) -> None:
    """Write elements times units."""
    high, low = f[2], f[3]
    if c == 1:
        for k in range(v.size):
            sink[k] = _product(v[k], high[k], low[k])
        return
    for t in range(-(-v.size // c)):
        part, goal, unit, rest = v[t * c : (t + 1) * c], sink[t * c : (t + 1) * c], high[t], low[t]
        for k in range(part.size):
            goal[k] = _product(part[k], unit, rest)


@_compile
def multiply_to_odd(v: Any, sink: Any, f: Any, c: Any) -> None:
    """Write elements times units, rounded to odd."""
    high, low = f[2], f[3]
    if c == 1:
        for k in range(v.size):
            sink[k] = _odd_product(v[k], high[k], low[k])
        return
    for t in range(-(-v.size // c)):
        part, goal, unit, rest = v[t * c : (t + 1) * c], sink[t * c : (t + 1) * c], high[t], low[t]
        for k in range(part.size):
            goal[k] = _odd_product(part[k], unit, rest)


@_compile
def _round_to_bfloat16(x: Any, out: Any) -> None:
    """Write float32 bits (uint32) rounded to bfloat16 bits (uint16), ties to even."""
    for k in range(out.size):
        b = x[k]
        raised = np.uint32(b + np.uint32(np.uint32(0x7FFF) + np.uint32(np.uint32(b >> np.uint32(16)) & np.uint32(1))))
        is_nan = np.uint32(b & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        raised = np.uint32(b | np.uint32(0x400000)) if is_nan else raised
        out[k] = np.uint16(raised >> np.uint32(16))


@_compile
def narrow(x: Any, out: Any, dtype: Any) -> None:
    """Write float32 numbers rounded to float16 or bfloat16, as bits."""
    if dtype == FLOAT16:
        narrow_float16(x, out)
    else:
        _round_to_bfloat16(x.view(np.uint32), out)


@_compile
def widen(x: Any, out: Any, dtype: Any) -> None:
    """Write float16 or bfloat16 bits as float32."""
    if dtype == FLOAT16:
        widen_float16(x, out)
    else:
        widen_bfloat16(x, out)
