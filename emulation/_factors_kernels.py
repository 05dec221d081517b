"""Exponents of many numbers, compiled; arrays are flat."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_compile = njit(nogil=True, cache=True, error_model="numpy")
_FIELD, _BIAS = 0x7FF, 1023


@_compile
def exponents(bits: Any, least: int, zero: int, out: Any) -> Any:
    """Write the exponents of float64 numbers given as bits, at least `least`; `zero` for zero and what is not finite.

    Returns whether all are finite. Subnormal numbers of float64 count as zero.
    """
    largest = np.int64(0)
    for i in range(out.size):
        field = (bits[i] >> 52) & _FIELD
        largest = max(largest, field)
        out[i] = zero if (field == 0) | (field == _FIELD) else max(field - _BIAS, np.int64(least))
    return largest < _FIELD


@_compile
def largest_magnitude(numbers: Any, zero: int) -> Any:
    """Return the largest magnitude of exponents other than that of zero; 0 if there are none."""
    largest = np.int32(0)
    for i in range(numbers.size):
        largest = max(largest, np.int32(0) if numbers[i] == zero else abs(numbers[i]))
    return largest


@_compile
def narrowed(numbers: Any, least: int, out: Any) -> None:
    """Write exponents, at least `least`, to an array of smaller integers."""
    for i in range(out.size):
        out[i] = max(numbers[i], np.int32(least))
