"""Kernels of tapered formats: the input's exponent selects a row of a small table, the rest is one integer rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding import _start_kernels  # noqa: F401 - before the first kernel is made

#: Columns of the table: code of the binade's start, exponent bits that are cut off, bits of the word that are dropped.
START, CUT, DROP = range(3)


@njit(cache=True, nogil=True, inline="always")
def _code(mag: Any, negative: Any, rows: Any, mantissa_bits: int, largest: int, table: int) -> Any:
    """Return the code of a positive number after rounding, at least 1 and at most `largest`.

    The word is the cut exponent bits and the mantissa, read as the digits after the last kept bit. Subnormal inputs
    are shifted up to the rows in front of the others.
    """
    exponent = mag >> mantissa_bits
    if exponent == 0:
        exponent = 1
        while mag >> mantissa_bits == 0:
            mag <<= 1
            exponent -= 1
    row = rows[exponent + mantissa_bits]
    word = (row[CUT] << mantissa_bits) | (mag & ((1 << mantissa_bits) - 1))
    drop = row[DROP]
    if drop <= 0:  # at least as many fraction bits as the input has: exact, but no number becomes zero
        return max(row[START] + (word << -drop), 1)
    kept = row[START] + (word >> drop)
    rest, half = word & ((1 << drop) - 1), 1 << (drop - 1)
    position = int(rest != 0) + int(rest >= half) + int(rest > half)
    if kept >= largest:  # one more may not fit 64 bits
        return largest
    return max(kept + ((table >> (position * 4 + negative * 2 + (kept & 1))) & 1), 1)


@njit(cache=True, nogil=True)
def encode_tapered(
    bits: Any,
    codes: Any,
    rows: Any,
    mantissa_bits: int,
    infinite: int,
    mask: int,
    largest: int,
    code_mask: int,
    table: int,
) -> None:
    """Write the code of each float, given as its bits; NaN and infinity become NaR, numbers never 0 or NaR."""
    for i in range(bits.size):
        mag, sign = np.int64(bits[i] & mask), np.int64(bits[i]) >> 63
        if mag == 0:
            codes[i] = 0
        elif mag >= infinite:
            codes[i] = (largest + 1) & code_mask
        else:
            code = _code(mag, -sign, rows, mantissa_bits, largest, table)
            codes[i] = ((code ^ sign) - sign) & code_mask  # two's complement without a branch


@njit(cache=True, nogil=True)
def quantize_tapered(
    bits: Any, out: Any, values: Any, rows: Any, mantissa_bits: int, infinite: int, mask: int, largest: int, table: int
) -> None:
    """Write the value of each float's code, looked up among the values of the non-negative codes."""
    for i in range(bits.size):
        mag, sign = np.int64(bits[i] & mask), np.int64(bits[i]) >> 63
        if mag == 0:
            out[i] = 0
        elif mag >= infinite:
            out[i] = np.nan
        else:
            out[i] = values[_code(mag, -sign, rows, mantissa_bits, largest, table)] * (1 + 2 * sign)


@njit(cache=True, nogil=True)
def decode_tapered(codes: Any, out: Any, starts: Any, units: Any, powers: Any, bits: int, largest: int) -> None:
    """Write the value of each code: the binade that it starts in is found by bisection, the rest is its fraction.

    `units` hold 2^-fraction_bits and `powers` 2^exponent of each binade; a fraction beyond 53 bits is rounded to even.
    """
    mask = (np.uint64(1) << np.uint64(bits - 1) << np.uint64(1)) - np.uint64(1)
    for i in range(codes.size):
        code = np.uint64(codes[i])
        negative = code >> np.uint64(bits - 1) != 0
        magnitude = (np.uint64(0) - code) & mask if negative else code
        if magnitude == 0:
            out[i] = 0.0
        elif magnitude > largest:
            out[i] = np.nan
        else:
            low, high = 0, starts.size
            while high - low > 1:
                middle = (low + high) >> 1
                if starts[middle] <= magnitude:
                    low = middle
                else:
                    high = middle
            significand = np.uint64(1.0 / units[low]) + (magnitude - starts[low])
            value = np.float64(significand) * units[low] * powers[low]
            out[i] = -value if negative else value


#: Numbers that are rounded together.
_CHUNK = 1024


@njit(cache=True, nogil=True)
def _are_usual(x: Any, low: int, high: int) -> Any:
    """Whether the exponent fields of all float32 numbers but zeros are between two bounds."""
    least, most = np.int32(low), np.int32(high)
    for i in range(x.size):
        field = np.int32(np.int32(np.float32(x[i]).view(np.int32) & np.int32(0x7FFFFFFF)) >> 23)
        field = np.int32(low) if x[i] == 0 else field
        least = min(least, field)
        most = max(most, field)
    return (least >= low) & (most <= high)


@njit(cache=True, nogil=True, error_model="numpy")
def _round_usual(x: Any, out: Any, powers: Any) -> None:
    for i in range(x.size):
        v = x[i]
        a = abs(v)
        magic = powers[np.float32(a).view(np.int32) >> 23]
        r = np.float32(np.float32(a + magic) - magic)
        out[i] = np.float32(-r) if v < 0 else r


@njit(cache=True, nogil=True)
def quantize_tapered_float32(
    x: Any, out: Any, powers: Any, low: int, high: int, values: Any, rows: Any, largest: int, table: int
) -> Any:
    """As `quantize_tapered` to nearest even; numbers that keep a fraction bit are rounded by one addition.

    Returns whether some were not.

    `powers`: what to add, by exponent field, to numbers whose field is from `low` to `high`; 0 for zero.
    """
    buffer, unusual = np.empty(_CHUNK, np.float32), False
    for start in range(0, x.size, _CHUNK):
        source, sink = x[start : start + _CHUNK], out[start : start + _CHUNK]
        piece = buffer[: source.size]  # the caller's arrays may be one, and then nothing vectorises
        piece[:] = source
        if _are_usual(piece, low, high):
            _round_usual(piece, sink, powers)
        else:
            unusual = True
            quantize_tapered(piece.view(np.int32), sink, values, rows, 23, 0x7F800000, 0x7FFFFFFF, largest, table)
    return unusual


@njit(cache=True, nogil=True)
def _codes_of_usual(x: Any, codes: Any, starts: Any, shifts: Any, code_mask: int) -> None:
    """Write the codes of float32 numbers that a format has."""
    mask = np.int32(code_mask)
    for i in range(x.size):
        b = np.float32(x[i]).view(np.int32)
        mag = np.int32(b & np.int32(0x7FFFFFFF))
        field = np.uint64(np.uint32(mag) >> np.uint32(23))
        code = np.int32(starts[field] + np.int32(np.int32(mag & np.int32(0x7FFFFF)) >> shifts[field]))
        code = np.int32(-code) if b < 0 else code
        codes[i] = np.int32(code & mask)


@njit(cache=True, nogil=True)
def encode_tapered_float32(
    x: Any,
    codes: Any,
    powers: Any,
    low: int,
    high: int,
    starts: Any,
    shifts: Any,
    rows: Any,
    largest: int,
    code_mask: int,
    table: int,
) -> None:
    """As `encode_tapered` to nearest even, for at most 16 bits; arguments as `quantize_tapered_float32`."""
    rounded = np.empty(_CHUNK, np.float32)
    for start in range(0, x.size, _CHUNK):
        source, sink = x[start : start + _CHUNK], codes[start : start + _CHUNK]
        if _are_usual(source, low, high):
            results = rounded[: source.size]
            _round_usual(source, results, powers)
            _codes_of_usual(results, sink, starts, shifts, code_mask)
        else:
            encode_tapered(source.view(np.int32), sink, rows, 23, 0x7F800000, 0x7FFFFFFF, largest, code_mask, table)
