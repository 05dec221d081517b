"""Float32 blocks with power-of-two scales to nearest even, any layout, in one pass over memory.

Products with a power of two are exact in float32 as long as nothing underflows, so elements are rounded by the addition
of `_fast_kernels`; tiles of NaN, and those whose scales are too large or too small for that, go through float64.
`_tile_kernels` explains tiles and bands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding._fast_kernels import _nearest_even
from lowp.rounding._stochastic_kernels import CHUNK
from lowp.rounding._tile_kernels import _piece, _spread, narrow_chunk, power_of_two_scales

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_compile
def _largest_of_rows(slab: Any, top: Any, bottom: Any, j: Any, columns: Any, tiles: Any, c: Any) -> None:
    """Write the bits of each tile's largest magnitude, for the columns from `j` on; `columns` is overwritten."""
    n = columns.size
    if bottom - top == 1:
        _largest_of_row(slab[top, j : j + n], tiles, c)
        return
    columns[:] = 0
    for i in range(top, bottom):
        row = slab[i, j : j + n]
        for k in range(n):
            columns[k] = max(columns[k], np.int32(np.float32(row[k]).view(np.int32) & np.int32(0x7FFFFFFF)))
    if c == 1:
        tiles[:] = columns
    else:
        _largest_of_row(columns.view(np.float32), tiles, c)


@_compile
def _largest_of_row(row: Any, tiles: Any, c: Any) -> None:
    for t in range(tiles.size):
        part, most = row[t * c : (t + 1) * c], np.int32(0)
        for k in range(part.size):
            most = max(most, np.int32(np.float32(part[k]).view(np.int32) & np.int32(0x7FFFFFFF)))
        tiles[t] = most


@_inline
def _rounded(v: Any, x: Any, least: Any, raise_by: Any, negative_zero: Any, top: Any, bottom: Any, clip: Any) -> Any:
    """Return `v` rounded and clamped, with the sign of `x`."""
    negative = np.float32(x).view(np.int32) < 0
    r = min(_nearest_even(v, least, raise_by, clip), bottom if negative else top)
    return np.float32(-r) if negative & ((r != 0) | negative_zero) else r


@_compile
def _round_row(row: Any, sink: Any, steps: Any, integers: Any, floats: Any) -> None:
    """Multiply by powers of two between 2^-100 and 2^100, round, and divide by them."""
    least, raise_by, negative_zero = integers[0], integers[1], integers[2] == 1
    top, bottom, clip = floats[0], floats[1], floats[2]
    one = np.int32(254 << 23)
    for k in range(row.size):
        r = _rounded(np.float32(row[k] * steps[k]), row[k], least, raise_by, negative_zero, top, bottom, clip)
        sink[k] = np.float32(r * np.int32(one - np.float32(steps[k]).view(np.int32)).view(np.float32))


@_compile
def _round_any_row(row: Any, sink: Any, steps: Any, units: Any, integers: Any, floats: Any) -> None:
    """Multiply by `steps`, round, and multiply by `units`, in float64 but for the rounding."""
    least, raise_by, negative_zero = integers[0], integers[1], integers[2] == 1
    top, bottom, clip = floats[0], floats[1], floats[2]
    for k in range(row.size):
        v = np.float32(np.float64(row[k]) * steps[k])
        r = _rounded(v, row[k], least, raise_by, negative_zero, top, bottom, clip)
        sink[k] = np.float32(np.float64(r) * units[k])


@_compile
def quantize_power_of_two_tiles(
    x: Any, out: Any, r: Any, c: Any, integers: Any, floats: Any, emax: Any, round_up_from: Any, carry_bits: Any,
    narrow: Any, first_band: Any, last_band: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Quantize tiles of at most `CHUNK` columns, in columns `first` to `last` (cut at tiles) of some bands.

    `integers`, `floats`: the `FastPlan` of the elements; `narrow` as for `_tile_kernels.narrow_chunk`; the other
    arguments as for `power_of_two_scales`. A tile that holds NaN or infinity becomes NaN.
    """
    per, ends = -(-x.shape[1] // r), np.ones(2)
    columns, tiles = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    per_tile, wide = np.empty((2, CHUNK), np.float64), np.empty((3, CHUNK), np.float64)
    short = np.empty(CHUNK, np.float32)
    for band in range(first_band, last_band):
        o, top = band // per, band % per * r
        bottom = min(top + r, x.shape[1])
        j = first
        while j < last:
            n = _piece(j, last, c)
            count = -(-n // c)
            _largest_of_rows(x[o], top, bottom, j, columns[:n], tiles[:count], c)
            steps, units = per_tile[0, :count], per_tile[1, :count]
            power_of_two_scales(tiles[:count], steps, units, emax, round_up_from, carry_bits, ends)
            usual = True
            for t in range(count):
                usual &= (units[t] > 2.0**-100) & (units[t] < 2.0**100)
            if usual:
                _spread(steps, short[:n], 0, c)
            else:
                _spread(steps, wide[0, :n], 0, c)
                _spread(units, wide[1, :n], 0, c)
            for i in range(top, bottom):
                row, sink = x[o, i, j : j + n], out[o, i, j : j + n]
                if usual:
                    _round_row(row, sink, short, integers, floats)
                else:
                    _round_any_row(row, sink, wide[0], wide[1], integers, floats)
                if narrow[0] != 0:
                    wide[2, :n] = sink  # every product is a float32 number
                    narrow_chunk(wide[2, :n], narrow)
                    sink[:] = wide[2, :n]
            j += n
