"""Tiles quantized in the float32 lanes of `_lane_kernels`, a piece at a time; `_tile_kernels` explains tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from lowp.rounding._float32_kernels import _codes as write_codes
from lowp.rounding._lane_choice_kernels import (
    largest_of_row,
    multiply_for,
    read_row,
    round_elements,
    round_row,
    scale_tiles,
    write_row,
)
from lowp.rounding._lane_kernels import NARROW, SOME_ZEROS, STRANGE, USUAL, clear_zeros, largest_of_tiles
from lowp.rounding._stochastic_kernels import fill_words, round_chunk
from lowp.rounding._tile_kernels import _prepare, _spread, narrow_chunk

_compile = njit(nogil=True, cache=True, error_model="numpy")
#: What other kernels call: nothing of theirs is made for Python.
_part = njit(nogil=True, cache=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: The scale of a tile of zeros.
_LEAST_POWER = np.float32(2.0**-127)
#: Columns handled together: the buffers stay in the first cache, and what a piece costs by itself is small.
PIECE = 2048


class Wide(NamedTuple):
    """How pieces that are not usual are rounded in float64.

    Attributes:
        kind: As `_tile_kernels.PRODUCT` and its neighbours.
        integers: Of the plan of elements, as for `round_chunk`.
        floats: Of the same.
        mode: Kind, random bits, truth table.
        narrow: As for `narrow_chunk`.
    """

    kind: int
    integers: Any
    floats: Any
    mode: Any
    narrow: Any


@_inline
def _piece(j: Any, last: Any, c: Any) -> Any:
    """Return how many columns to take from `j` on: whole tiles, or a part of one that is too large."""
    return min(PIECE // c * c, last - j) if c <= PIECE else min(PIECE, last - j, c - j % c)


@_part
def _raise_to(row: Any, most: Any) -> None:
    for k in range(row.size):
        most[k] = max(most[k], np.int32(np.float32(row[k]).view(np.int32) & np.int32(0x7FFFFFFF)))


@_part
def _largest(x: Any, dtype: Any, o: Any, top: Any, bottom: Any, j: Any, b: Any, tiles: Any, n: Any, c: Any) -> None:
    """Write the bits of the largest magnitudes of a piece's tiles."""
    if bottom - top == 1:
        largest_of_row(x[o, top, j : j + n], tiles, b[3, :n], c, dtype)
        return
    most = b[3, :n].view(np.int32)
    for k in range(n):
        most[k] = 0
    for i in range(top, bottom):
        read_row(x[o, i, j : j + n], b[0, :n], dtype)
        _raise_to(b[0, :n], most)
    if c == 1:
        for k in range(n):
            tiles[k] = most[k]
    else:
        largest_of_tiles(b[3, :n], tiles, c)


@_compile
def magnitudes_of_tiles(
    x: Any, dtype: Any, largest: Any, r: Any, c: Any, first_band: Any, last_band: Any, first: Any, last: Any
) -> None:
    """Write the bits of each tile's largest magnitude, for columns `first` to `last` (cut at tiles) of some bands.

    Bits order NaN past infinity past the finite magnitudes.
    """
    rows = x.shape[1]
    per = -(-rows // r)
    b, some = np.empty((5, min(PIECE, last - first)), np.float32), np.empty(1, np.int32)
    for band in range(first_band, last_band):
        o, top = band // per, band % per * r
        bottom, tiles, j = min(top + r, rows), largest[band], first
        while j < last:
            n = _piece(j, last, c)
            if c <= PIECE:
                _largest(x, dtype, o, top, bottom, j, b, tiles[j // c : -(-(j + n) // c)], n, c)
            else:
                _largest(x, dtype, o, top, bottom, j, b, some, n, n)
                tiles[j // c] = some[0] if j % c == 0 else max(some[0], tiles[j // c])
            j += n


@_part
def quantize_strangely(
    numbers: Any, at: Any, t: Any, count: Any, c: Any, wide: Any, place: Any, key0: Any, key1: Any
) -> None:
    """Quantize a piece of a row in place in float64, as `quantize_tiles`; they come out rounded to their dtype.

    `at`: steps and units; those of the piece are `count` from `t` on.
    """
    n = numbers.size
    v, words, per_column, mode = np.empty(n, np.float64), np.empty(n, np.uint32), np.empty(n, np.float64), wide.mode
    _spread(at[0, t : t + count], per_column, 0, c)
    _prepare(numbers, per_column, v, wide.kind, np.nan)
    if (mode[0] != 0) & (mode[0] != 5):
        fill_words(words, place, key0, key1)
    round_chunk(v, words, wide.integers, wide.floats, mode[0], mode[1], mode[2])
    _spread(at[1, t : t + count], per_column, 0, c)
    for k in range(n):
        v[k] *= per_column[k]
    narrow_chunk(v, wide.narrow)
    for k in range(n):
        numbers[k] = np.float32(v[k])


@_part
def _factor_room(size: Any, c: Any) -> Any:
    """Return room for the factors of a piece's tiles and columns, those that loops go by, and the columns of a tile."""
    per_tile = np.empty((7, min(size, size // c + 2)), np.float32)
    per_column = np.empty((7, size if c < NARROW else 1), np.float32)
    for factors in (per_tile, per_column):
        for k in range(factors.shape[1]):
            factors[3, k], factors[5, k], factors[6, k] = 0, 1, 0
    if c >= NARROW:
        return per_tile, per_column, per_tile, c
    return per_tile, per_column, (per_tile if c == 1 else per_column), 1


@_part
def _spread_factors(per_tile: Any, per_column: Any, count: Any, n: Any, c: Any) -> None:
    if (c > 1) & (c < NARROW):
        for k in range(5):
            _spread(per_tile[k, :count], per_column[k, :n], 0, c)


@_compile
def quantize_lanes(
    x: Any, out: Any, dtype: Any, apart: Any, r: Any, c: Any, it: Any, wide: Any, most: Any, given: Any,
    first_band: Any, last_band: Any, first: Any, last: Any, places: Any, key0: Any, key1: Any,
) -> None:  # fmt: skip
    """Quantize columns `first` to `last` (cut at tiles) of some bands of float32 or the bits of 16-bit floats.

    `dtype`: which; `apart`: whether `out` shares no memory with `x` and both are float32; `it`: `Lanes`; `wide`:
    `Wide`; `most`: the bits of the largest magnitude where the rule of scales asks; `given`: for each band a row of
    steps and one of units, unless a rule makes them; `places` as for `quantize_tiles`.
    """
    rows, ruled = x.shape[1], it.rule.ruled
    per, size = -(-rows // r), min(PIECE, last - first)
    b, tiles, words = np.empty((5, size), np.float32), np.empty(size, np.int32), np.empty(size, np.uint32)
    per_tile, per_column, f, columns = _factor_room(size, c)
    made = np.empty((2, per_tile.shape[1]), np.float64)
    for band in range(first_band, last_band):
        o, top, filled, state = band // per, band % per * r, -1, STRANGE
        bottom, j, at = min(top + r, rows), first, (made if ruled else given[band])
        while j < last:
            n = _piece(j, last, c)
            first_tile = j // c
            t, count = (0 if ruled else first_tile), -(-(j + n) // c) - first_tile
            if (c <= PIECE) | (first_tile != filled):
                if ruled:
                    _largest(x, dtype, o, top, bottom, j, b, tiles[:count], n, c)
                state = scale_tiles(count, it, most, tiles, per_tile, at[0, t : t + count], at[1, t : t + count])
                filled = first_tile
                _spread_factors(per_tile, per_column, count, n, c)
            for i in range(top, bottom):
                place = places[0] + (o * rows + i) * places[1] + j
                if (state == USUAL) & apart:
                    round_row(x[o, i, j : j + n], out[o, i, j : j + n], f, columns, b, words, it, place, key0, key1)
                    continue
                sink = b[2, :n]
                if state == STRANGE:
                    read_row(x[o, i, j : j + n], sink, dtype)
                    quantize_strangely(sink, at, t, count, c, wide, place, key0, key1)
                else:
                    read_row(x[o, i, j : j + n], b[3, :n], dtype)
                    round_elements(b[3, :n], b[1, :n], f, columns, b, words, it, place, key0, key1)
                    if state == SOME_ZEROS:
                        clear_zeros(b[1, :n], f, columns)
                    multiply_for(b[1, :n], sink, out, f, columns, it)
                write_row(sink, out[o, i, j : j + n], dtype)
            j += n


@_part
def _write_scales(scales: Any, powers: bool, tiles: Any, per_tile: Any, at: Any, state: Any, tensor: Any) -> None:
    """Write the scales of a piece's tiles, without the tensor's; `at`: their steps and units."""
    for t in range(scales.size):
        if powers:
            value = per_tile[2, t] if state != STRANGE else np.float32(at[1, t])
            scales[t] = _LEAST_POWER if tiles[t] == 0 else value
        else:
            scales[t] = np.float32(at[1, t] / tensor)


@_part
def _without_nan(numbers: Any) -> None:
    for k in range(numbers.size):
        numbers[k] = 0 if numbers[k] != numbers[k] else numbers[k]


@_compile
def encode_lanes(
    x: Any, codes: Any, scales: Any, r: Any, c: Any, it: Any, wide: Any, most: Any, tensor: Any, given: Any,
    code_plan: Any, to_quanta: Any, first_band: Any, last_band: Any, first: Any, last: Any, places: Any, key0: Any,
    key1: Any,
) -> None:  # fmt: skip
    """Write the codes of rounded elements, 0 where the scale is NaN, and for each band its tiles' scales as float32.

    `tensor`: the tensor's scale, or 1; `code_plan`, `to_quanta`: as `_float32_kernels.encode_float32`; other arguments
    as for `quantize_lanes`.
    """
    rows, ruled = x.shape[1], it.rule.ruled
    per, size, powers = -(-rows // r), min(PIECE, last - first), ruled & (it.scaling.kind == 0)
    b, tiles, words = np.empty((5, size), np.float32), np.empty(size, np.int32), np.empty(size, np.uint32)
    per_tile, per_column, f, columns = _factor_room(size, c)
    made, alone = np.empty((2, per_tile.shape[1]), np.float64), np.empty((2, per_tile.shape[1]), np.float64)
    for band in range(first_band, last_band):
        o, top = band // per, band % per * r
        bottom, j, at = min(top + r, rows), first, (made if ruled else given[band])
        while j < last:
            n = _piece(j, last, c)
            here, count = j // c, -(-(j + n) // c) - j // c
            t = 0 if ruled else here
            if ruled:
                _largest(x, 0, o, top, bottom, j, b, tiles[:count], n, c)
            state = scale_tiles(count, it, most, tiles, per_tile, at[0, t : t + count], at[1, t : t + count])
            _write_scales(scales[band, here : here + count], powers, tiles, per_tile, at[:, t:], state, tensor)
            for k in range(count):
                alone[0, k], alone[1, k] = at[0, t + k], 1
            _spread_factors(per_tile, per_column, count, n, c)
            for i in range(top, bottom):
                place, elements = places[0] + (o * rows + i) * places[1] + j, b[1, :n]
                if state == STRANGE:
                    read_row(x[o, i, j : j + n], elements, 0)
                    quantize_strangely(elements, alone, 0, count, c, wide, place, key0, key1)
                    _without_nan(elements)
                else:
                    round_elements(x[o, i, j : j + n], elements, f, columns, b, words, it, place, key0, key1)
                    if state == SOME_ZEROS:
                        clear_zeros(elements, f, columns)
                write_codes(elements, codes[o, i, j : j + n], code_plan, to_quanta)
            j += n
