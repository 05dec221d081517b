"""Posits and linear takums as array code: the input's exponent selects a row, the rest is one integer rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.ranked import TaperedFormat
from lowp.formats.tables import binade_table
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_bits import (
    INFINITE,
    MANTISSA,
    MASK,
    float_bits,
    scaled,
    widen,
    width_of,
    with_sign,
)
from lowp.rounding._portable_fractions import Gap, gap_of, goes_far, product_words
from lowp.rounding._portable_room import into_dtype, nan_bits
from lowp.rounding._portable_round import steps_away
from lowp.rounding._portable_scalar import look_up
from lowp.rounding._tapered import rows
from lowp.rounding.lowering import INPUTS
from lowp.rounding.modes import Rounding
from lowp.rounding.request import Request


def codes(xp: Namespace, raw: Any, name: str, fmt: TaperedFormat, request: Request, word: Callable[[], Any]) -> Any:
    """Return the codes of floats; NaN and infinity become NaR, numbers never 0 or NaR."""
    wide = name == "float64" or fmt.bits > 32 or request.mode.variant
    bits = widen(xp, raw, name, 64 if wide else 32)
    width = width_of(xp, bits)
    mag, negative = bits & MASK[width], bits < 0
    code = _code(xp, mag, negative, fmt, request.mode, word())
    code = xp.where(negative, -code, code) & (-1 if fmt.bits == width else (1 << fmt.bits) - 1)
    nar = -(1 << (fmt.bits - 1)) if fmt.bits == width else 1 << (fmt.bits - 1)
    return xp.where(mag >= INFINITE[width], nar, xp.where(mag == 0, 0, code))


def rounded(xp: Namespace, raw: Any, name: str, fmt: TaperedFormat, request: Request, word: Callable[[], Any]) -> Any:
    """Return the bits, in the dtype `name`, of the values that floats round to."""
    found = codes(xp, raw, name, fmt, request, word)
    if fmt.bits <= 16:
        return look_up(xp, found, fmt, name)
    return into_dtype(xp, values(xp, xp.cast(found, "int64"), fmt), name, fmt)


def _row(xp: Namespace, mag: Any) -> tuple[Any, Any]:
    """Return the index of each magnitude's row, and its mantissa; subnormal numbers are read as normal ones."""
    width = width_of(xp, mag)
    m, bias = MANTISSA[width], INPUTS[width].bias
    small = mag < 1 << m
    shifted = float_bits(xp, xp.where(small, mag, 0), width)
    field = xp.where(small, (shifted >> m) - (bias + m - 1), mag >> m)
    mantissa = xp.where(small, shifted, mag) & ((1 << m) - 1)
    return xp.minimum(xp.maximum(field + m, 0), len(rows_like(width)) - 1), mantissa


def rows_like(width: int) -> range:
    """Return the indices of the rows of an input of 32 or 64 bits."""
    source = INPUTS[width]
    return range(2 * source.bias + source.mantissa + 1)


def _code(xp: Namespace, mag: Any, negative: Any, fmt: TaperedFormat, mode: Rounding, word: Any) -> Any:
    """Return the code of each positive magnitude after rounding, at least 1 and at most the largest."""
    width, kind = width_of(xp, mag), xp.dtype_name(mag)
    m = MANTISSA[width]
    index, mantissa = _row(xp, mag)
    table = rows(fmt, width).astype(kind)
    start, cut, drop = (xp.take(xp.constant(table[:, i].copy(), mag), index) for i in range(3))
    string = (cut << m) | mantissa
    down, up = xp.maximum(drop, 0), xp.maximum(-drop, 0)
    kept = start + xp.where(drop > 0, string >> down, string << up)
    rest = string & ((1 << down) - 1)
    if mode.variant == 0:
        away = steps_away(xp, rest, (1 << down) >> 1, negative, kept & 1 == 1, mode.table)
    elif mode.variant == 4:
        away = (rest != 0) & (word < 0)
    else:
        away = (rest != 0) & _goes_far(xp, index, mantissa, rest, fmt, mode, word)
    away = away & (kept > 0) if mode.variant else away
    largest = fmt.ranks
    code = xp.where(kept >= largest, largest, kept + xp.cast(away, kind))
    return xp.maximum(code, 1)


def _goes_far(
    xp: Namespace, index: Any, mantissa: Any, rest: Any, fmt: TaperedFormat, mode: Rounding, word: Any
) -> Any:
    """Return where numbers between two codes go to the farther one: by their distances, also across binades."""
    table, apart = _row_gaps(fmt, mode)
    row = tuple(xp.take(xp.constant(table[:, i].copy(), rest), index) for i in range(table.shape[1]))
    significand = rest
    if apart.any():
        in_gap = xp.take(xp.constant(apart, rest), index)
        significand = xp.where(in_gap, mantissa | 1 << MANTISSA[64], rest)
    place = xp.full_like(rest, 0)
    return goes_far(xp, significand, place, row, mode, word)


@lru_cache(maxsize=64)
def _row_gaps(fmt: TaperedFormat, mode: Rounding) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each row of a float64 its two neighbours as `product_words`, and where they are powers of two apart.

    Numbers are counted in their own last place: in a binade with steps the dropped bits, elsewhere the whole number.
    """
    table = rows(fmt, 64)
    gaps, apart = [Gap(0, 1, 52)] * len(table), np.zeros(len(table), bool)
    low = 1 - INPUTS[64].bias - MANTISSA[64]
    for binade in fmt.binades(low, INPUTS[64].bias):
        i = binade.exponent - low + 1
        if not binade.cut_bits:
            gaps[i] = Gap(0, 1, max(MANTISSA[64] - binade.fraction_bits, 0))
        elif 0 < binade.start < fmt.ranks:
            near, far = (Fraction(fmt.rank_value(binade.start + k - 1)) for k in (0, 1))  # type: ignore[arg-type]
            place = Fraction(2) ** (binade.exponent - MANTISSA[64])
            gap = gap_of(near / place, far / place)
            if gap is None:
                raise ArgumentError(
                    f"fmt={fmt.name!r} with rounding={mode.name!r} has neighbours whose sizes lie too far apart for "
                    "its integers; use lowp.quantize or lowp.encode with NumPy."
                )
            gaps[i], apart[i] = gap, True
    return product_words(gaps, mode), apart


@lru_cache(maxsize=64)
def _binades(fmt: TaperedFormat) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return first code, fraction bits and exponent of each binade with codes; the ends lie outside float64."""
    starts, units, powers = binade_table(fmt)
    exponents = [-(1 << 14) if p == 0 else 1 << 14 if math.isinf(p) else math.frexp(p)[1] - 1 for p in powers]
    fraction_bits = [1 - math.frexp(u)[1] for u in units]
    return starts.astype(np.int64), np.array(fraction_bits, np.int64), np.array(exponents, np.int64)


def values(xp: Namespace, numbers: Any, fmt: TaperedFormat) -> Any:
    """Return float64 bits of the values of int64 codes, ties to even where a fraction has more than 53 bits."""
    from lowp.rounding._portable_tables import count_below

    starts, fraction_bits, exponents = _binades(fmt)
    negative = numbers >> (fmt.bits - 1) & 1 == 1
    magnitude = xp.where(negative, -numbers, numbers) & (MASK[64] if fmt.bits == 64 else (1 << fmt.bits) - 1)
    nar = negative & ((magnitude == 0) if fmt.bits == 64 else (magnitude > fmt.ranks))
    zero = (magnitude == 0) & ~nar
    index = xp.computed_once(xp.maximum(count_below(xp, magnitude, starts) - 1, 0))
    start, fraction, exponent = (xp.take(xp.constant(t, numbers), index) for t in (starts, fraction_bits, exponents))
    significand = (magnitude - start) + (1 << fraction)
    bits = scaled(xp, float_bits(xp, significand, 64), exponent - fraction)
    bits = with_sign(xp, xp.where(zero, 0, bits), negative)
    return xp.where(nar, nan_bits("float64"), bits)
