"""Kernels for blocks of any shape in float32: their largest magnitudes, their scales, their elements.

An array is seen as `(outer, rows, columns)` and cut into tiles of `r` rows and `c` columns (the last ones shorter): a
block along the last axis has one row, along another axis one column. The tiles of one outer index and one row of tiles
are a *band*; tables of one number per tile have a row per band. All work runs along rows in pieces of `CHUNK`
numbers, for which each tile's scale is first written out per column, so that loops are long whatever the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding._fast_kernels import _nearest_even
from lowp.rounding._stochastic_kernels import CHUNK, _bits, _limited, fill_words, round_chunk

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: How an element becomes the number to round: a float64 product, a product rounded to float32, a quotient, a quotient
#: rounded to odd (for stochastic modes), a float32 product without -0 as fouroversix makes it.
PRODUCT, PRODUCT32, QUOTIENT, ODD_QUOTIENT, PRODUCT32_UNSIGNED = range(5)
_SPLIT = float(2**27 + 1)
#: Columns of a tile from which on a loop over one tile's columns is quick.
_WIDE = 8


@_compile
def _fold(magnitudes: Any, pairs: Any) -> None:
    """Write the larger of each two neighbours. Unsigned indices, never negative, keep the loop a vector one."""
    for k in range(np.uint64(pairs.size)):
        pairs[k] = max(magnitudes[k + k], magnitudes[k + k + np.uint64(1)])


@_compile
def _piece(j: Any, last: Any, c: Any) -> Any:
    """Return how many columns to take from `j` on: whole tiles, or a part of one that is too large."""
    return min(CHUNK // c * c, last - j) if c <= CHUNK else min(CHUNK, last - j, c - j % c)


@_compile
def power_of_two_scales(
    largest: Any, steps: Any, units: Any, emax: Any, round_up_from: Any, carry_bits: Any, factors: Any
) -> None:
    """Write the factor before rounding and the one after for power-of-two scales, given the bits of magnitudes.

    The scale's exponent is that of the magnitude after adding `carry_bits` to its bits, one more if its mantissa then
    reaches `round_up_from`, less `emax`; clamped to E8M0's range. NaN and infinity make NaN.
    """
    before, after = factors[0], factors[1]
    for b in range(largest.size):
        most = largest[b]
        bits = np.float64(np.int32(most).view(np.float32)).view(np.int64)
        mantissa = np.int64((bits >> 29) & 0x7FFFFF) + carry_bits
        e = (bits >> 52) - 1023 - emax
        e += np.int64(mantissa >= 0x800000) + np.int64(mantissa & 0x7FFFFF >= round_up_from)
        e = min(max(e, -127), 127)
        bad = most >= 0x7F800000
        steps[b] = np.nan if bad else np.int64((1023 - e) << 52).view(np.float64) * before
        units[b] = np.nan if bad else np.int64((1023 + e) << 52).view(np.float64) * after


@_compile
def float32_scales(largest: Any, steps: Any, units: Any, span: Any) -> None:
    """Write `magnitude / span` rounded to float32, NaN for NaN and infinity."""
    for b in range(largest.size):
        most = largest[b]
        scale = np.float32(np.int32(most).view(np.float32) / np.float32(span))
        steps[b] = units[b] = np.nan if most >= 0x7F800000 else np.float64(scale)


@_compile
def rounded_scales(largest: Any, steps: Any, units: Any, span: Any, integers: Any, floats: Any) -> Any:
    """Write `magnitude / span` rounded to the scale format, NaN for NaN and infinity; return whether all are in range.

    `integers`, `floats`: the format's, as for `round_chunk`. The quotient of float32 numbers is as good as exact.
    """
    least, raise_by, top, clip = integers[0], integers[1], floats[0], floats[2]
    beyond = 0
    for b in range(largest.size):
        most = largest[b]
        a = np.float64(np.int32(most).view(np.float32)) / span
        beyond += 1 if (a > top) & (most < 0x7F800000) else 0
        a = min(a, clip)
        magic = np.int64(max(_bits(a) & np.int64(0x7FF0000000000000), least) + raise_by).view(np.float64)
        steps[b] = units[b] = np.nan if most >= 0x7F800000 else min((a + magic) - magic, top)
    return beyond == 0


@_compile
def nvfp4_scales(
    largest: Any, steps: Any, units: Any, most: Any, span: Any, element_max: Any, integers: Any, floats: Any
) -> None:
    """Write the factors of TransformerEngine's NVFP4, float32 by float32 as `_fp4_recipes.nvfp4_te`; all finite.

    `most`: the bits of the tensor's largest magnitude, 0 where it has no scale of its own; `span`: what elements times
    scales reach; `integers` and `floats`: the plan of the scale format.
    """
    one, limit = np.float32(1), np.float32(np.finfo(np.float32).max)
    encode = min(np.float32(np.float32(span) / np.int32(most).view(np.float32)), limit)
    encode = one if (most == 0) | (encode == 0) else encode
    tensor = np.float32(one / encode)
    factor = np.float32(encode * np.float32(one / np.float32(element_max)))
    least, raise_by = np.int32(integers[0]), np.int32(integers[1])
    top, clip = np.float32(floats[0]), np.float32(floats[2])
    for b in range(largest.size):
        wanted = min(np.float32(np.int32(largest[b]).view(np.float32) * factor), limit)
        scale = min(_nearest_even(wanted, least, raise_by, clip), top)
        steps[b] = np.float64(min(np.float32(one / np.float32(scale * tensor)), limit))
        units[b] = np.float64(scale) * np.float64(tensor)


@_compile
def fouroversix_scales(
    largest: Any, steps: Any, values: Any, amax: Any, whole: Any, divisor: Any, expansion: Any, integers: Any,
    floats: Any,
) -> None:  # fmt: skip
    """Write `1 / (scale / encode)` and the scale as `_fouroversix_recipes.scale_blocks`; 0 where the scale is 0."""
    one, limit = np.float32(1), np.float32(np.finfo(np.float32).max)
    encode = min(np.float32(np.float32(whole) / np.float32(amax)), limit)
    back = np.float32(one / encode)
    least, raise_by, top, clip = integers[0], integers[1], floats[0], floats[2]
    for b in range(largest.size):
        wanted = np.float32(np.int32(largest[b]).view(np.float32) / np.float32(divisor))
        wanted = np.float32(np.float32(wanted * encode) * np.float32(expansion))
        wanted = np.float32(0) if amax == 0 else wanted
        scale = min(_nearest_even(wanted, least, raise_by, clip), top)
        values[b] = np.float64(scale)
        steps[b] = 0.0 if scale == 0 else np.float64(np.float32(one / np.float32(back * scale)))


@_compile
def _spread(per_tile: Any, per_column: Any, first: Any, c: Any) -> None:
    """Write each tile's number for all its columns, from column `first` of the band on."""
    t, n = first // c, per_column.size
    if c == 1:
        for k in range(n):
            per_column[k] = per_tile[t + k]
        return
    j, stop = 0, min((t + 1) * c - first, n)
    while j < n:
        part, value = per_column[j:stop], per_tile[t]
        for k in range(part.size):
            part[k] = value
        t, j, stop = t + 1, stop, min(stop + c, n)


@_inline
def _upper(a: Any) -> Any:
    """Return the upper half of the bits."""
    c = _SPLIT * a
    return c - (c - a)


@_compile
def _prepare(row: Any, steps: Any, v: Any, kind: Any, spill: Any) -> None:
    """Write the numbers to be rounded."""
    if kind == 0:
        for j in range(row.size):
            v[j] = np.float64(row[j]) * steps[j]
    elif kind == 1:
        for j in range(row.size):
            v[j] = np.float64(np.float32(row[j] * np.float32(steps[j])))
    elif kind == 2:
        for j in range(row.size):
            v[j] = 0.0 if steps[j] == 0 else np.float64(row[j]) / steps[j]
    elif kind == 4:
        for j in range(row.size):
            product = np.float64(np.float32(row[j] * np.float32(steps[j])))
            scaled = 0.0 if (row[j] == 0) | (steps[j] == 0) else product
            v[j] = -0.0 if abs(scaled) >= spill else scaled
    else:
        for j in range(row.size):
            x, s = np.float64(row[j]), steps[j]
            quotient = x / s
            product = quotient * s
            high, scale_high = _upper(quotient), _upper(s)
            low, scale_low = quotient - high, s - scale_high
            lost = low * scale_low - (((product - high * scale_high) - low * scale_high) - high * scale_low)
            rest = (x - product) - lost  # exact (Dekker 1971)
            bits = np.float64(quotient).view(np.int64)
            outward = (rest > 0) == (quotient > 0)
            moved = bits + (np.int64(1) if outward else np.int64(-1))
            odd = moved if (rest != 0) & (bits & 1 == 0) else bits
            v[j] = 0.0 if s == 0 else np.int64(odd).view(np.float64)


@_compile
def narrow_chunk(v: Any, narrow: Any) -> None:
    """Round float64 numbers in place to the values of a narrower dtype, ties to even; past the largest to infinity.

    `narrow`: 0 for float32 (nothing is done), 1, or 2 to round to float32 first; the exponent field of the smallest
    normal number, what to add to a field for the addition of `round_chunk`, the bits of the largest number.
    """
    if narrow[0] == 0:
        return
    least, raise_by, limit = narrow[1], narrow[2], np.int64(narrow[3]).view(np.float64)
    if narrow[0] == 2:
        for j in range(v.size):
            v[j] = np.float64(np.float32(v[j]))
    clip, exponent, sign = 2 * limit, np.int64(0x7FF0000000000000), np.int64(-0x8000000000000000)
    for j in range(v.size):
        x = v[j]
        a = min(abs(x), clip)
        magic = np.int64(max(np.float64(a).view(np.int64) & exponent, least) + raise_by).view(np.float64)
        near = (a + magic) - magic
        near = np.inf if near > limit else near
        signed = np.int64(np.float64(near).view(np.int64) | (np.float64(x).view(np.int64) & sign)).view(np.float64)
        v[j] = x if x != x else signed


@_compile
def narrow_into(products: Any, out: Any, narrow: Any) -> None:
    """Write products rounded as `narrow_chunk` does, which overwrites them."""
    narrow_chunk(products, narrow)
    out[:] = products


@_inline
def _nearest(v: Any, unit: Any, least: Any, raise_by: Any, signed_zero: Any, bottom: Any, top: Any, clip: Any) -> Any:
    """Return `v` rounded as `round_chunk` does it to nearest even, times the unit."""
    a = min(abs(v), clip)
    magic = np.int64(max(_bits(a) & np.int64(0x7FF0000000000000), least) + raise_by).view(np.float64)
    return np.float32(_limited(v, (a + magic) - magic, signed_zero, bottom, top) * unit)


@_compile
def _round_row(
    row: Any, sink: Any, steps: Any, units: Any, first: Any, c: Any, kind: Any, integers: Any, floats: Any
) -> None:
    """Quantize numbers from column `first` of a band on to nearest even; all kinds up to `QUOTIENT`."""
    least, raise_by, signed_zero = integers[0], integers[1], integers[2] == 1
    top, bottom, clip = floats[0], floats[1], floats[2]
    t, j = first // c, 0
    while j < row.size:
        stop = min((t + 1) * c - first, row.size)
        part, goal, step, unit = row[j:stop], sink[j:stop], steps[t], units[t]
        if kind == 0:
            for k in range(part.size):
                goal[k] = _nearest(np.float64(part[k]) * step, unit, least, raise_by, signed_zero, bottom, top, clip)
        elif kind == 1:
            factor = np.float32(step)
            for k in range(part.size):
                product = np.float64(np.float32(part[k] * factor))
                goal[k] = _nearest(product, unit, least, raise_by, signed_zero, bottom, top, clip)
        elif step == 0:
            goal[:] = np.float32(0.0 * unit)
        else:
            for k in range(part.size):
                goal[k] = _nearest(np.float64(part[k]) / step, unit, least, raise_by, signed_zero, bottom, top, clip)
        t, j = t + 1, stop


@_compile
def quantize_tiles(
    x: Any, out: Any, steps: Any, units: Any, r: Any, c: Any, kind: Any, integers: Any, floats: Any, mode: Any,
    narrow: Any, first_band: Any, last_band: Any, first: Any, last: Any, places: Any, key0: Any, key1: Any,
) -> None:  # fmt: skip
    """Quantize columns `first` to `last` of some bands.

    `steps` make the numbers to round of the elements, `units` multiply the rounded ones; `mode` as in `round_chunk`,
    `narrow` as in `narrow_chunk`; `places` are the random bits' position of the first number, and the distance from row
    to row.
    """
    per = -(-x.shape[1] // r)
    v, words = np.empty(CHUNK, np.float64), np.empty(CHUNK, np.uint32)
    step, unit = np.empty(CHUNK, np.float64), np.empty(CHUNK, np.float64)
    random = (mode[0] != 0) & (mode[0] != 5)
    for band in range(first_band, last_band):
        o, top, filled = band // per, band % per * r, -1
        if (mode[0] == 0) & (kind <= 2) & (narrow[0] == 0) & (c >= _WIDE):
            for i in range(top, min(top + r, x.shape[1])):
                row, sink = x[o, i, first:last], out[o, i, first:last]
                _round_row(row, sink, steps[band], units[band], first, c, kind, integers, floats)
            continue
        for j in range(first, last, CHUNK):
            n = min(CHUNK, last - j)
            one = j // c if j // c == (j + n - 1) // c else -1
            if (one < 0) | (one != filled):  # a tile as wide as the buffers is written out once
                _spread(steps[band], step[:n], j, c)
                _spread(units[band], unit[:n], j, c)
                filled = one if n == CHUNK else -1
            for i in range(top, min(top + r, x.shape[1])):
                _prepare(x[o, i, j : j + n], step[:n], v[:n], kind, floats[3])
                if random:
                    fill_words(words[:n], places[0] + (o * x.shape[1] + i) * places[1] + j, key0, key1)
                round_chunk(v[:n], words[:n], integers, floats, mode[0], mode[1], mode[2])
                sink = out[o, i, j : j + n]
                if narrow[0] == 0:
                    for k in range(n):
                        sink[k] = np.float32(v[k] * unit[k])
                else:
                    for k in range(n):
                        v[k] *= unit[k]
                    narrow_chunk(v[:n], narrow)
                    for k in range(n):
                        sink[k] = np.float32(v[k])
