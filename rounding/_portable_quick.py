"""Elements of blocks rounded to nearest in float64, with few steps: what most recipes ask for.

A quotient that is three bits short (`_portable_steps.near_units`) lies on the right side of every point of decision,
and on it where it should. Adding and subtracting a number whose unit in the last place is the quantum rounds it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_round import plan_of
from lowp.rounding.modes import Rounding
from lowp.rounding.request import Request

#: Most significant bits that elements have, one less than their points of decision.
_MOST_BITS = 20
_NEGATIVE = -1 << 63


def rounds_to_nearest(element: ScalarFormat, request: Request) -> bool:
    """Whether `nearest` rounds to a format as a request has it."""
    if request.mode.name != "ties_to_even" or request.overflow != "saturate":
        return False
    return isinstance(element, Float | Integer | Fixed) and _is_plain(element, request.mode)


@lru_cache(maxsize=128)
def _is_plain(element: Float | Integer | Fixed, mode: Rounding) -> bool:
    """Whether a format is a signed grid with zero and subnormal numbers that saturates, infinities too."""
    if isinstance(element, Float):
        grid = element.subnormals and element.has_zero and element.specials != "dlfloat"
        known = grid and element.mantissa_bits < _MOST_BITS and element.emin >= -126 and element.emax <= 127
    else:
        known = element.bits <= _MOST_BITS and 0 <= element.fraction_bits <= 64
    if not (known and element.signed):
        return False
    plan = plan_of(element, mode, "saturate", 64)
    ends = _bits(element.max), _bits(element.min)
    return (
        not (plan.tiny_bits or plan.zero_bits)
        and (plan.max_bits, plan.max_bits_negative) == (ends[0], ends[1] & doubles.MAGNITUDE)
        and (plan.overflow_bits, plan.overflow_bits_negative) == ends
        and (plan.infinity_bits, plan.infinity_bits_negative) == ends
    )


def _bits(value: float) -> int:
    return int(np.array(float(value)).view(np.int64))


def nearest(xp: Any, x: Any, element: Float | Integer | Fixed) -> Any:
    """Return float64 numbers, none subnormal, rounded to nearest, ties to even; what is out of range saturates."""
    bits = doubles.bits_of(xp, x)
    size, negative = bits & doubles.MAGNITUDE, bits < 0
    top, bottom = _bits(element.max), _bits(-element.min)
    end = top if top == bottom else xp.where(negative, bottom, xp.full_like(bits, top))
    kept, nan = xp.minimum(size, end), size > doubles.INFINITE
    if isinstance(element, Float):
        power = doubles.from_bits(xp, xp.maximum(kept & doubles.INFINITE, _bits(2.0**element.emin)))
        anchor = power * (1.5 * 2.0 ** (52 - element.mantissa_bits))
        minus_zero = element.has_negative_zero
    else:
        # Nothing that a compiler knows to be constant: it would leave out the sum and the difference.
        anchor = xp.where(nan, 0.0, xp.full_like(x, 1.5 * 2.0 ** (52 - element.fraction_bits)))
        minus_zero = False
    rounded = doubles.bits_of(xp, (doubles.from_bits(xp, kept) + anchor) - anchor)
    signed = negative if minus_zero else negative & (rounded != 0)
    result = doubles.from_bits(xp, xp.where(signed, rounded | _NEGATIVE, rounded))
    return xp.where(nan, math.nan, result)
