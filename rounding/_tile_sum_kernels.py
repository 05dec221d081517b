"""Kernels for what recipes add up over the tiles of `_tile_kernels`: moments, and the errors that rounding makes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding._stochastic_kernels import CHUNK, round_chunk
from lowp.rounding._tile_kernels import _fold, _piece, _prepare, _spread

_compile = njit(nogil=True, cache=True, error_model="numpy")


@_compile
def _join(columns: Any, other: Any, tiles: Any, c: Any, largest: Any) -> None:
    """Add up, or take the largest of, each tile's `c` columns; both buffers are overwritten."""
    n = columns.size
    while c % 2 == 0:
        c, n = c // 2, n // 2
        if largest:
            _fold(columns[: 2 * n], other[:n])
        else:
            _fold_sums(columns[: 2 * n], other[:n])
        columns, other = other, columns
    for t in range(tiles.size):
        part, value = columns[t * c : (t + 1) * c], tiles[t]
        for k in range(part.size):
            value = max(value, part[k]) if largest else value + part[k]
        tiles[t] = value


@_compile
def _fold_sums(numbers: Any, pairs: Any) -> None:
    """Write the sum of each two neighbours."""
    for k in range(np.uint64(pairs.size)):
        pairs[k] = numbers[k + k] + numbers[k + k + np.uint64(1)]


@_compile
def tile_moments(
    x: Any, sums: Any, squares: Any, r: Any, c: Any, first_band: Any, last_band: Any, first: Any, last: Any
) -> None:
    """Write the sums of each tile's numbers and of their squares, in float64; columns cut at tiles."""
    per = -(-x.shape[1] // r)
    total, square, other = np.empty(CHUNK, np.float64), np.empty(CHUNK, np.float64), np.empty(CHUNK, np.float64)
    for band in range(first_band, last_band):
        slab, top = x[band // per], band % per * r
        sums[band, first // c : -(-last // c)] = 0
        squares[band, first // c : -(-last // c)] = 0
        j = first
        while j < last:
            n = _piece(j, last, c)
            padded = -(-n // c) * c if c <= CHUNK else n
            total[:padded] = 0
            square[:padded] = 0
            for i in range(top, min(top + r, x.shape[1])):
                row = slab[i, j : j + n]
                for k in range(n):
                    wide = np.float64(row[k])
                    total[k] += wide
                    square[k] += wide * wide
            here = slice(j // c, -(-(j + n) // c))
            _join(total[:padded], other, sums[band, here], min(c, padded), False)
            _join(square[:padded], other, squares[band, here], min(c, padded), False)
            j += n


@_compile
def _add_errors(row: Any, v: Any, scale: Any, amax: Any, whole: Any, rule: Any, spill: Any, error: Any) -> None:
    """Add what rounding did to each number, in the float32 steps of fouroversix; `v` holds numbers and elements."""
    for k in range(row.size):
        exact, element = v[0, k], np.float32(v[1, k])
        element = np.float32(np.copysign(8.0, exact)) if abs(exact) >= spill else element
        value = np.float32(np.float32(element * np.float32(scale[k])) * np.float32(amax)) / np.float32(whole)
        difference = np.float32(np.float32(value) - row[k])
        if rule == 0:
            error[k] += np.float64(np.float32(difference * difference))
        elif rule == 1:
            error[k] += np.float64(abs(difference))
        else:
            error[k] = max(error[k], np.float64(abs(difference)))


@_compile
def block_errors(
    x: Any, errors: Any, steps: Any, values: Any, r: Any, c: Any, integers: Any, floats: Any, mode: Any, amax: Any,
    whole: Any, rule: Any, first_band: Any, last_band: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Write each tile's error under some scales: 0 squared, 1 absolute, 2 the largest; no random modes."""
    per = -(-x.shape[1] // r)
    other = np.empty(CHUNK, np.float64)
    v, words = np.empty((2, CHUNK), np.float64), np.empty(1, np.uint32)
    step, scale, error = np.empty(CHUNK, np.float64), np.empty(CHUNK, np.float64), np.empty(CHUNK, np.float64)
    for band in range(first_band, last_band):
        o, top = band // per, band % per * r
        errors[band, first // c : -(-last // c)] = 0
        j = first
        while j < last:
            n = _piece(j, last, c)
            padded = -(-n // c) * c if c <= CHUNK else n
            _spread(steps[band], step[:n], j, c)
            _spread(values[band], scale[:n], j, c)
            error[:padded] = 0
            for i in range(top, min(top + r, x.shape[1])):
                row = x[o, i, j : j + n]
                _prepare(row, step[:n], v[0, :n], 4, np.nan)
                v[1, :n] = v[0, :n]
                round_chunk(v[1, :n], words, integers, floats, mode[0], mode[1], mode[2])
                _add_errors(row, v, scale[:n], amax, whole, rule, floats[3], error[:n])
            _join(error[:padded], other, errors[band, j // c : -(-(j + n) // c)], min(c, padded), rule == 2)
            j += n
