"""Exponents of many numbers, and numbers and exponents in tiles, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_compile = njit(nogil=True, cache=True, error_model="numpy")
_FIELD, _BIAS = 0x7FF, 1023


@_compile
def exponents(bits: Any, least: int, zero: int, out: Any) -> Any:
    """Write the exponents of float64 numbers given as bits, at least `least`; `zero` for zero and what is not finite.

    Returns whether all are finite, and the largest magnitude of an exponent that is not `zero`, 0 if there is none.
    Subnormal numbers of float64 count as zero.
    """
    top, furthest = np.int64(0), np.int64(0)
    for i in range(out.size):
        field = (bits[i] >> 52) & _FIELD
        top = max(top, field)
        exponent = max(field - _BIAS, np.int64(least))
        none = (field == 0) | (field == _FIELD)
        out[i] = zero if none else exponent
        furthest = max(furthest, np.int64(0) if none else abs(exponent))
    return top < _FIELD, furthest


@_compile
def largest_magnitude(numbers: Any, zero: int) -> Any:
    """Return the largest magnitude of exponents other than that of zero; 0 if there are none."""
    largest = np.int32(0)
    for i in range(numbers.size):
        largest = max(largest, np.int32(0) if numbers[i] == zero else abs(numbers[i]))
    return largest


@_compile
def tiled(numbers: Any, exponents: Any, least: int, out: Any, out_exponents: Any) -> None:
    """Write numbers and their exponents, at least `least`, of (batch, rows, columns) as (batch, tiles, rows, width)."""
    batch, tiles, rows, width = out.shape
    columns = numbers.shape[2]
    for item in range(batch):
        for row in range(rows):
            for tile in range(tiles):
                start = tile * width
                count = min(columns - start, width)
                x, e = numbers[item, row, start : start + count], exponents[item, row, start : start + count]
                y, f = out[item, tile, row], out_exponents[item, tile, row]
                for j in range(count):
                    y[j] = x[j]
                    f[j] = max(e[j], np.int32(least))
                y[count:] = 0
                f[count:] = least
