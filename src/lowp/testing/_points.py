"""The numbers at which a format's rounding is most likely to go wrong, and the codes most likely to be special."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.codebook import Codebook
from lowp.formats.exact_real import Real
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import Format, ScalarFormat, to_float

FLOATS = ("float16", "float32", "float64")
#: Formats of at most this many bits are gone through code by code.
_EVERY_CODE = 12
_SPREAD = 1500


def scalar(fmt: Format | str) -> ScalarFormat:
    """Return a scalar format of at most 64 bits; ArgumentError for another."""
    form = parse(fmt)
    if not isinstance(form, ScalarFormat) or form.bits > 64:
        raise ArgumentError(f"fmt={form.name!r} must be a scalar format of at most 64 bits here.")
    return form


def float_dtype(dtype: Any) -> np.dtype[Any]:
    """Return float16, float32 or float64 as a dtype; ArgumentError for another."""
    found: np.dtype[Any] = np.dtype(dtype)
    if found.name not in FLOATS:
        raise ArgumentError(f"dtype={dtype!r} must be one of: {', '.join(FLOATS)}.")
    return found


@lru_cache(maxsize=64)
def spread_codes(fmt: ScalarFormat, limit: int = _SPREAD) -> tuple[int, ...]:
    """Return every code of a small format; else codes next to powers of two and ends, and others spread over all."""
    count = 1 << fmt.bits
    if fmt.bits <= _EVERY_CODE:
        return tuple(range(count))
    corners = {sign * (count >> 1) + (1 << k) + d for sign in (0, 1) for k in range(fmt.bits) for d in (-2, -1, 0, 1)}
    step = count // limit | 1
    return tuple(sorted({code % count for code in corners} | set(range(0, count, step))))


def turns(code: int, fmt: ScalarFormat) -> list[Fraction | Real]:
    """Return where rounding to nearest leaves the value of a finite code for the next larger magnitude.

    Past the largest value that is half a step further on, where an overflow begins.
    """
    value = fmt.meaning(code)
    if isinstance(value, str):
        return []
    if isinstance(fmt, RankedFormat):
        found = fmt.code_rank(code)
        rank, negative = (-1, False) if found is None else found
        turn = fmt.decision_point(rank)
        return [] if turn is None else [-turn if negative else turn]
    if isinstance(fmt, Codebook):
        return _codebook_turns(value, fmt)
    if isinstance(fmt, Fixed | Integer):
        half = Fraction(1, 2) / Fraction(2) ** fmt.fraction_bits
        return [value - half, value + half, value + 2 * half]
    following, before = fmt.meaning((code + 1) % (1 << fmt.bits)), fmt.meaning(code - 1) if code else "nan"
    assert isinstance(value, Fraction)
    if isinstance(following, Fraction) and value * following >= 0 and abs(following) > abs(value):
        return [(value + following) / 2]
    return [value + (value - before) / 2, value + (value - before)] if isinstance(before, Fraction) else []


def _codebook_turns(value: Fraction | Real, fmt: Codebook) -> list[Fraction | Real]:
    above = bisect_left(fmt.values, float(value)) + 1
    if above >= len(fmt.values):
        return []
    if fmt.thresholds is not None:
        return [Fraction(fmt.thresholds[above - 1])]
    return [(Fraction(fmt.values[above]) + Fraction(fmt.values[above - 1])) / 2]


@lru_cache(maxsize=16)
def inputs(fmt: ScalarFormat, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return every float16, and the values and turning points of a format with their neighbours, in a float dtype.

    Infinities are among them, NaN only where the format has it.
    """
    codes = spread_codes(fmt)
    exact = [v for c in codes for v in (fmt.meaning(c), *turns(c, fmt)) if not isinstance(v, str)]
    with np.errstate(over="ignore", under="ignore"):
        near = np.array([to_float(v) for v in exact], np.float64).astype(dtype)
        around = [near, *(np.nextafter(near, dtype.type(way)) for way in (-math.inf, math.inf))]
        half = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(dtype)
    ends = np.finfo(dtype)
    special = np.array([ends.max, -ends.max, ends.smallest_subnormal, -ends.smallest_subnormal], dtype)
    found = np.concatenate([half[~np.isnan(half)], special, *around])
    unsigned = np.dtype(f"u{dtype.itemsize}")
    distinct = np.unique(found.view(unsigned)).view(dtype)
    nans = np.array([math.nan] if fmt.has_nan else [], dtype)
    result = np.concatenate([distinct[~np.isnan(distinct)], nans])
    result.setflags(write=False)
    return result
