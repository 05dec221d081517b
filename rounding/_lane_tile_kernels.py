"""Tiles quantized in the float32 lanes of `_lane_kernels`, a piece at a time; `_tile_kernels` explains tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from lowp.rounding._fast_directed_kernels import rounded_and_corrected
from lowp.rounding._fast_stochastic_kernels import _round_randomly
from lowp.rounding._float32_kernels import _codes as write_codes
from lowp.rounding._lane_kernels import (
    FLOAT32,
    NARROW,
    NEAREST,
    POWER,
    PRODUCT32,
    QUOTIENT,
    RANDOM,
    SOME_ZEROS,
    STRANGE,
    USUAL,
    clear_zeros,
    given_factors,
    largest_of_tiles,
    multiply,
    narrow,
    nearest_powers,
    nearest_products,
    nearest_quotients,
    power_factors,
    prepare,
    widen,
)
from lowp.rounding._lane_random_kernels import quotients_by_carries, rounded_by_carries, truncated_quotients
from lowp.rounding._stochastic_kernels import fill_words
from lowp.rounding._tile_kernels import (
    _spread,
    float32_scales,
    nvfp4_scales,
    power_of_two_scales,
    quantize_tiles,
    rounded_scales,
)

_compile = njit(nogil=True, cache=True, error_model="numpy")

#: Where scales come from: they are given; or by `power_of_two_scales`, `nvfp4_scales`, `float32_scales`,
#: `rounded_scales` of `_tile_kernels`.
GIVEN, POWERS, NVFP4, FLOAT32_SCALES, ROUNDED = range(5)
#: The scale of a tile of zeros.
_LEAST_POWER = np.float32(2.0**-127)
#: Columns handled together: the buffers stay in the first cache, and what a piece costs by itself is small.
PIECE = 2048


@_compile
def _piece(j: Any, last: Any, c: Any) -> Any:
    """Return how many columns to take from `j` on: whole tiles, or a part of one that is too large."""
    return min(PIECE // c * c, last - j) if c <= PIECE else min(PIECE, last - j, c - j % c)


class Lanes(NamedTuple):
    """How elements are scaled and rounded.

    Attributes:
        kind: `POWER`, `PRODUCT32` or `QUOTIENT`.
        way: `NEAREST`, `CORRECTED` or `RANDOM`.
        integers: Of the elements' `FastPlan`.
        floats: Of the same.
        how: The mode, as `_fast_directed_kernels.correcting`.
        variant: The stochastic mode.
        bits: Its random bits.
        rule: How scales follow from magnitudes: `GIVEN` or its neighbours.
        numbers: What the rule needs.
        scale_integers: Of the plan by which scales are rounded.
        scale_floats: Of the same.
    """

    kind: int
    way: int
    integers: Any
    floats: Any
    how: Any
    variant: int
    bits: int
    rule: int
    numbers: Any
    scale_integers: Any
    scale_floats: Any


class Wide(NamedTuple):
    """What `quantize_tiles` needs to know for pieces that are not usual: its arguments of these names."""

    kind: int
    integers: Any
    floats: Any
    mode: Any
    narrow: Any


@_compile
def _round_to_nearest(row: Any, sink: Any, f: Any, c: Any, unit_at: Any, it: Any) -> None:
    if it.kind == POWER:
        nearest_powers(row, sink, f, c, unit_at, it.integers, it.floats)
    elif it.kind == PRODUCT32:
        nearest_products(row, sink, f, c, unit_at, it.integers, it.floats)
    else:
        nearest_quotients(row, sink, f, c, unit_at, it.integers, it.floats)


@_compile
def _round_row(
    row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
) -> None:
    """Write rounded elements times units, to float32; `f`, `c`: as for `nearest_powers`; `b`: buffers."""
    if it.way == NEAREST:
        _round_to_nearest(row, sink, f, c, 2, it)
        return
    elements = b[1, : row.size]
    round_elements(row, elements, f, c, b, words, it, place, key0, key1)
    multiply(elements, sink, f, c, False)


@_compile
def round_elements(
    row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
) -> None:
    """Write rounded elements; arguments as for `_round_row`."""
    if it.way == NEAREST:
        _round_to_nearest(row, sink, f, c, 5, it)
        return
    n = row.size
    v = b[0, :n]
    if it.way == RANDOM:
        fill_words(words[:n], place, key0, key1)
    if (it.way == RANDOM) & (it.kind == QUOTIENT):
        truncated_quotients(row, v, b[4, :n], f, c, it.floats[2])
        quotients_by_carries(v, b[4, :n], sink, words[:n], it.integers, it.floats, it.bits)
        return
    prepare(row, v, f, c, it.kind, it.floats[2])
    if (it.way == RANDOM) & (it.variant == 1):
        rounded_by_carries(v, sink, words[:n], it.integers, it.floats, it.bits)
    elif it.way == RANDOM:
        _round_randomly(v, sink, words[:n], it.integers, it.floats, it.variant, it.bits)
    else:
        rounded_and_corrected(v, sink, it.integers, it.floats, it.how)


@_compile
def _raise_to(row: Any, most: Any) -> None:
    for k in range(row.size):
        most[k] = max(most[k], np.int32(np.float32(row[k]).view(np.int32) & np.int32(0x7FFFFFFF)))


@_compile
def _largest(
    x: Any, x16: Any, dtype: Any, o: Any, top: Any, bottom: Any, j: Any, b: Any, tiles: Any, n: Any, c: Any
) -> None:
    """Write the bits of the largest magnitudes of a piece's tiles."""
    if (dtype == FLOAT32) & (bottom - top == 1):
        largest_of_tiles(x[o, top, j : j + n], tiles, c)
        return
    most = b[3, :n].view(np.int32)
    most[:] = 0
    for i in range(top, bottom):
        if dtype == FLOAT32:
            _raise_to(x[o, i, j : j + n], most)
        else:
            widen(x16[o, i, j : j + n], b[0, :n], dtype)
            _raise_to(b[0, :n], most)
    if c == 1:
        tiles[:] = most
    else:
        largest_of_tiles(b[3, :n], tiles, c)


@_compile
def magnitudes_of_tiles(
    x: Any, x16: Any, dtype: Any, largest: Any, r: Any, c: Any, first_band: Any, last_band: Any, first: Any, last: Any
) -> None:
    """Write the bits of each tile's largest magnitude, for columns `first` to `last` (cut at tiles) of some bands.

    Bits order NaN past infinity past the finite magnitudes.
    """
    per = -(-largest_rows(x, x16, dtype) // r)
    b, some = np.empty((5, min(PIECE, last - first)), np.float32), np.empty(1, np.int32)
    rows = largest_rows(x, x16, dtype)
    for band in range(first_band, last_band):
        o, top = band // per, band % per * r
        bottom, tiles, j = min(top + r, rows), largest[band], first
        while j < last:
            n = _piece(j, last, c)
            if c <= PIECE:
                _largest(x, x16, dtype, o, top, bottom, j, b, tiles[j // c : -(-(j + n) // c)], n, c)
            else:
                _largest(x, x16, dtype, o, top, bottom, j, b, some, n, n)
                tiles[j // c] = some[0] if j % c == 0 else max(some[0], tiles[j // c])
            j += n


@_compile
def largest_rows(x: Any, x16: Any, dtype: Any) -> Any:
    return x.shape[1] if dtype == FLOAT32 else x16.shape[1]


@_compile
def _quantize_strangely(
    numbers: Any, at: Any, t: Any, count: Any, c: Any, wide: Any, place: Any, key0: Any, key1: Any
) -> None:
    """Quantize a piece of a row in place by `quantize_tiles`, in float64; they come out rounded to their dtype.

    `at`: steps and units; those of the piece are `count` from `t` on.
    """
    n = numbers.size
    here, places = numbers.reshape(1, 1, n), np.array([place, n])
    quantize_tiles(
        here, here, at[:1, t : t + count], at[1:, t : t + count], 1, c, wide.kind, wide.integers, wide.floats,
        wide.mode, wide.narrow, 0, 1, 0, n, places, key0, key1,
    )  # fmt: skip


@_compile
def _scale_tiles(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
    """Write the factors of a piece's tiles; return `STRANGE` where `steps` and `units` are to be used.

    These are given, or written by the rule where it is not that of powers of two or where lanes cannot use them.
    """
    n = it.numbers
    if it.rule == POWERS:
        emax, round_up_from, carry = np.int64(n[0]), np.int64(n[1]), np.int64(n[2])
        state = power_factors(tiles[:count], per_tile[0], per_tile[2], emax, round_up_from, carry)
        if state == STRANGE:
            power_of_two_scales(tiles[:count], steps, units, emax, round_up_from, carry, np.ones(2))
        return state
    if it.rule == NVFP4:
        nvfp4_scales(tiles[:count], steps, units, most, n[0], n[1], it.scale_integers, it.scale_floats)
    elif it.rule == FLOAT32_SCALES:
        float32_scales(tiles[:count], steps, units, n[0])
    elif it.rule == ROUNDED:
        rounded_scales(tiles[:count], steps, units, n[0], it.scale_integers, it.scale_floats)
    return given_factors(steps[:count], units[:count], it.kind, per_tile)


@_compile
def _round_copy(
    row: Any, sink: Any, f: Any, columns: Any, b: Any, words: Any, it: Any, where: Any, to_odd: bool, state: Any,
    at: Any, t: Any, count: Any, c: Any, wide: Any,
) -> None:  # fmt: skip
    """Write rounded elements times units, as they are to be narrowed: rounded to odd, or as `_quantize_strangely`."""
    if state == STRANGE:
        sink[:] = row
        _quantize_strangely(sink, at, t, count, c, wide, where[0], where[1], where[2])
    elif to_odd:
        elements = b[1, : row.size]
        round_elements(row, elements, f, columns, b, words, it, where[0], where[1], where[2])
        multiply(elements, sink, f, columns, True)
    else:
        _round_row(row, sink, f, columns, b, words, it, where[0], where[1], where[2])
    if state == SOME_ZEROS:
        clear_zeros(sink, f, columns)


@_compile
def _factor_room(size: Any, c: Any) -> Any:
    """Return room for the factors of a piece's tiles and columns, those that loops go by, and the columns of a tile."""
    per_tile = np.zeros((7, min(size, size // c + 2)), np.float32)
    per_column = np.zeros((7, size if c < NARROW else 1), np.float32)
    per_tile[5], per_column[5] = 1, 1
    if c >= NARROW:
        return per_tile, per_column, per_tile, c
    return per_tile, per_column, (per_tile if c == 1 else per_column), 1


@_compile
def _spread_factors(per_tile: Any, per_column: Any, count: Any, n: Any, c: Any) -> None:
    if (c > 1) & (c < NARROW):
        for k in range(5):
            _spread(per_tile[k, :count], per_column[k, :n], 0, c)


@_compile
def quantize_lanes(
    x: Any, x16: Any, out: Any, out16: Any, dtype: Any, apart: Any, r: Any, c: Any, it: Any, wide: Any, most: Any,
    given: Any, first_band: Any, last_band: Any, first: Any, last: Any, places: Any, key0: Any, key1: Any,
) -> None:  # fmt: skip
    """Quantize columns `first` to `last` (cut at tiles) of some bands of float32 (`x`) or 16-bit floats (`x16`).

    `apart`: whether `out` shares no memory with `x`; `it`: `Lanes`; `wide`: `Wide`; `most`: the bits of the largest
    magnitude where the rule of scales asks; `given`: for each band a row of steps and one of units, unless a rule makes
    them; `places` as for `quantize_tiles`.
    """
    rows = largest_rows(x, x16, dtype)
    per, ruled = -(-rows // r), it.rule != GIVEN
    size = min(PIECE, last - first)
    b, tiles, words = np.empty((5, size), np.float32), np.empty(size, np.int32), np.empty(size, np.uint32)
    per_tile, per_column, f, columns = _factor_room(size, c)
    made = np.empty((2, per_tile.shape[1]), np.float64)
    to_odd = (dtype != FLOAT32) & (it.kind != POWER)
    for band in range(first_band, last_band):
        o, top, filled, state = band // per, band % per * r, -1, STRANGE
        bottom, j, at = min(top + r, rows), first, (made if ruled else given[band])
        while j < last:
            n = _piece(j, last, c)
            first_tile = j // c
            t, count = (0 if ruled else first_tile), -(-(j + n) // c) - first_tile
            if (c <= PIECE) | (first_tile != filled):
                if ruled:
                    _largest(x, x16, dtype, o, top, bottom, j, b, tiles[:count], n, c)
                state = _scale_tiles(count, it, most, tiles, per_tile, at[0, t : t + count], at[1, t : t + count])
                filled = first_tile
                _spread_factors(per_tile, per_column, count, n, c)
            for i in range(top, bottom):
                place = places[0] + (o * rows + i) * places[1] + j
                if (dtype == FLOAT32) & (state == USUAL) & apart:
                    _round_row(x[o, i, j : j + n], out[o, i, j : j + n], f, columns, b, words, it, place, key0, key1)
                    continue
                if dtype == FLOAT32:
                    b[3, :n] = x[o, i, j : j + n]
                else:
                    widen(x16[o, i, j : j + n], b[3, :n], dtype)
                where = (place, key0, key1)
                _round_copy(b[3, :n], b[2, :n], f, columns, b, words, it, where, to_odd, state, at, t, count, c, wide)
                if dtype == FLOAT32:
                    out[o, i, j : j + n] = b[2, :n]
                else:
                    narrow(b[2, :n], out16[o, i, j : j + n], dtype)
            j += n


@_compile
def _write_scales(scales: Any, it: Any, tiles: Any, per_tile: Any, at: Any, state: Any, tensor: Any) -> None:
    """Write the scales of a piece's tiles, without the tensor's; `at`: their steps and units."""
    for t in range(scales.size):
        if it.rule == POWERS:
            value = per_tile[2, t] if state != STRANGE else np.float32(at[1, t])
            scales[t] = _LEAST_POWER if tiles[t] == 0 else value
        else:
            scales[t] = np.float32(at[1, t] / tensor)


@_compile
def _encode_row(
    row: Any, codes: Any, f: Any, columns: Any, b: Any, words: Any, it: Any, where: Any, state: Any, alone: Any,
    c: Any, wide: Any, code_plan: Any, to_quanta: Any,
) -> None:  # fmt: skip
    """Write the codes of a piece's elements; `alone`: steps, and units of 1, for what is not usual."""
    elements = b[1, : row.size]
    if state != STRANGE:
        round_elements(row, elements, f, columns, b, words, it, where[0], where[1], where[2])
        if state == SOME_ZEROS:
            clear_zeros(elements, f, columns)
    else:
        elements[:] = row
        _quantize_strangely(elements, alone, 0, alone.shape[1], c, wide, where[0], where[1], where[2])
        for k in range(elements.size):
            elements[k] = 0 if elements[k] != elements[k] else elements[k]
    write_codes(elements, codes, code_plan, to_quanta)


@_compile
def encode_lanes(
    x: Any, no_shorts: Any, codes: Any, scales: Any, r: Any, c: Any, it: Any, wide: Any, most: Any, tensor: Any,
    given: Any, code_plan: Any, to_quanta: Any, first_band: Any, last_band: Any, first: Any, last: Any, places: Any,
    key0: Any, key1: Any,
) -> None:  # fmt: skip
    """Write the codes of rounded elements, 0 where the scale is NaN, and for each band its tiles' scales as float32.

    `tensor`: the tensor's scale, or 1; `code_plan`, `to_quanta`: as `_float32_kernels.encode_float32`; other arguments
    as for `quantize_lanes`.
    """
    rows = x.shape[1]
    per, size, ruled = -(-rows // r), min(PIECE, last - first), it.rule != GIVEN
    b, tiles, words = np.empty((5, size), np.float32), np.empty(size, np.int32), np.empty(size, np.uint32)
    per_tile, per_column, f, columns = _factor_room(size, c)
    made, alone = np.empty((2, per_tile.shape[1]), np.float64), np.ones((2, per_tile.shape[1]))
    for band in range(first_band, last_band):
        o, top = band // per, band % per * r
        bottom, j, at = min(top + r, rows), first, (made if ruled else given[band])
        while j < last:
            n = _piece(j, last, c)
            here, count = j // c, -(-(j + n) // c) - j // c
            t = 0 if ruled else here
            if ruled:
                _largest(x, no_shorts, FLOAT32, o, top, bottom, j, b, tiles[:count], n, c)
            state = _scale_tiles(count, it, most, tiles, per_tile, at[0, t : t + count], at[1, t : t + count])
            _write_scales(scales[band, here : here + count], it, tiles, per_tile, at[:, t : t + count], state, tensor)
            if state == STRANGE:
                alone[0, :count] = at[0, t : t + count]
            _spread_factors(per_tile, per_column, count, n, c)
            for i in range(top, bottom):
                where = (places[0] + (o * rows + i) * places[1] + j, key0, key1)
                _encode_row(
                    x[o, i, j : j + n], codes[o, i, j : j + n], f, columns, b, words, it, where, state,
                    alone[:, :count], c, wide, code_plan, to_quanta,
                )  # fmt: skip
            j += n
