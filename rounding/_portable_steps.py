"""From elements to the numbers that are rounded, in float32 where that is as good as float64.

A float32 element may be divided by its scale, or multiplied by a factor, in float32 if the element format cannot tell
the result from the exact one: numbers below 2^-126 count as 2^-126 (every quantum is far larger), and quotients are
rounded to odd. Arrays are cut into blocks; scales and factors are float64 and have one number per block.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._search import lower_table
from lowp.rounding._wrap import WRAPPING
from lowp.rounding.lowering import fits_float32
from lowp.rounding.modes import Rounding
from lowp.rounding.request import Request

#: Least quantum, as a power of two, beside which a number below 2^-126 is next to nothing, random bits included; and
#: most significant bits that a number rounded to odd at 24 bits decides.
_LEAST_QUANTUM, _MOST_BITS = -90, 20
_SMALL, _SIGN = 1 << 23, -0x80000000


def float32_suffices(element: ScalarFormat, request: Request) -> bool:
    """Whether elements round alike from float32 numbers made as this module makes them."""
    if not isinstance(element, Float | Integer | Fixed) or request.overflow in WRAPPING or not fits_float32(element):
        return False
    if isinstance(element, Float):
        quantum = element.emin - element.mantissa_bits if element.subnormals else element.emin
        known = element.specials != "dlfloat" and element.has_zero
        return known and quantum >= _LEAST_QUANTUM and element.mantissa_bits + 1 <= _MOST_BITS
    return element.fraction_bits <= -_LEAST_QUANTUM and element.bits <= _MOST_BITS


def near_suffices(element: ScalarFormat, request: Request) -> bool:
    """Whether elements are decided at numbers of at most 25 bits, or just beside them, as `near_units` needs it."""
    return isinstance(element, Codebook) and _cuts_are_short(element, request.mode, request.overflow)


@lru_cache(maxsize=64)
def _cuts_are_short(book: Codebook, mode: Rounding, overflow: str) -> bool:
    if mode.variant:
        return False
    low = np.abs(lower_table(book, mode, overflow).cuts).view(np.int64) & ((1 << 28) - 1)
    return bool(np.isin(low, (0, 1, (1 << 28) - 1)).all())


def is_power_of_two(scale: ScalarFormat) -> bool:
    """Whether every scale is a power of two between 2^-127 and 2^127."""
    return isinstance(scale, Float) and scale.mantissa_bits == 0 and scale.emin >= -127 and scale.emax <= 127


def _in_float32(xp: Any, y: Any, least: float) -> Any:
    """Return float64 numbers rounded to float32, those below 2^-126 but above `least` as 2^-126."""
    size = doubles.magnitude(xp, y)
    small = xp.cast(size > least, "int32") << 23
    small = xp.where(doubles.bits_of(xp, y) < 0, small | _SIGN, small)
    return xp.floats(xp.where(size < 2.0**-126, small, xp.bits(xp.cast(y, "float32"))), "float32")


def settles(scale: ScalarFormat | None) -> bool:
    """Whether scales are worth `once_per_block`; neither they nor products of two are subnormal as float64 numbers."""
    return isinstance(scale, Float) and scale.emin - scale.mantissa_bits > -500 and not is_power_of_two(scale)


def once_per_block(xp: Any, values: Any) -> Any:
    """Return float64 numbers, none subnormal, as they are; XLA would compute what made them again for each element.

    It joins steps into one loop over the elements, but not beyond a division.
    """
    if xp.name != "jax":
        return values
    return values / xp.where(doubles.bits_of(xp, values) == -1, 2.0, xp.full_like(values, 1.0))


def over_powers(xp: Any, x: Any, units: Any) -> Any:
    """Return float32 `x` over powers of two, which is exact; NaN units make NaN."""
    inverse = doubles.from_bits(xp, ((2 * 1023) << 52) - doubles.bits_of(xp, units))
    inverse = xp.where(doubles.is_nan(xp, units), math.nan, inverse)
    return _in_float32(xp, doubles.widen(xp, x) * inverse, 0.0)


def times_factors(xp: Any, x: Any, factors: Any) -> Any:
    """Return the float32 product with factors that float32 holds; at 2^-150 and below it is 0."""
    return _in_float32(xp, doubles.widen(xp, x) * factors, 2.0**-150)


def over_units(xp: Any, x: Any, units: Any) -> Any:
    """Return float32 `x` over units of at most 24 significant bits, rounded to odd at 24 bits; 0 where the unit is 0.

    Such a quotient has at most 24 bits or is 2^-48 of itself away from every number that has: 16 units in the last
    place of float64, where what is computed is off by 2 at most, even if a compiler multiplies by the reciprocal. So
    the last three bits say nothing.
    """
    bits = doubles.bits_of(xp, doubles.widen(xp, x) / units)
    size = bits & doubles.MAGNITUDE
    near = size + 4
    kept = (near >> 29) | xp.cast((near & ((1 << 29) - 8)) != 0, "int64")
    kept = xp.minimum(xp.maximum(kept - (896 << 23), _SMALL), 0x7F7FFFFF)
    kept = xp.where(size == 0, 0, xp.where(size == doubles.INFINITE, 0x7F800000, kept))
    kept = xp.cast(xp.where(size > doubles.INFINITE, 0x7FC00000, kept), "int32")
    kept = xp.where(doubles.is_zero(xp, units) & ~doubles.is_nan(xp, x), 0, xp.where(bits < 0, kept | _SIGN, kept))
    return xp.floats(kept, "float32")


def near_units(xp: Any, x: Any, units: Any) -> Any:
    """Return float32 `x` over units of at most 24 significant bits, three bits short; 0 where the unit is 0.

    Such a quotient is a number of 25 bits or 2^-49 of itself away from each, 8 units in the last place (see
    `over_units`), so that it is compared with them rightly.
    """
    bits = doubles.bits_of(xp, doubles.widen(xp, x) / units)
    near = doubles.from_bits(xp, (bits + 4) & -8)
    return xp.where(doubles.is_zero(xp, units) & ~doubles.is_nan(xp, x), 0.0, near)
