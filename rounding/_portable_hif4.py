"""HiF4 as array code, exact and as its reference code: `lowp.rounding.schemes.shared_exponents` step by step."""

from __future__ import annotations

import math
from typing import Any

from lowp._errors import warn_caller
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable import decode_values, quantize_values
from lowp.rounding._portable_fp4_recipes import over, times
from lowp.rounding._portable_numbers import (
    amax,
    codes_of,
    constant,
    float32,
    from_sign_magnitude,
    power_of_two,
    repeated,
    rounded_magnitude,
    sign_magnitude,
)
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.shared_exponents import _BFLOAT16, _E6M2, _ONE_SEVENTH

Fields = dict[str, Any]
_NEAREST = scale_request("ties_to_even")


def _maxima(xp: Any, x: Any) -> tuple[Any, Any, Any]:
    """Return the largest magnitude of each 64, 8 and 4 values."""
    fours = amax(xp, x.reshape((*x.shape[:-1], 16, 4)))[..., 0]
    eights = amax(xp, fours.reshape((*x.shape[:-1], 8, 2)))[..., 0]
    return amax(xp, eights), eights, fours


def _levels(xp: Any, eights: Any, fours: Any, unit: Any) -> tuple[Any, Any]:
    """Return the bits that double the scale of 8 and of 4 values, whose sizes are given, as integers."""
    level2 = eights >= 4 * unit
    level3 = fours >= unit * repeated(xp, xp.where(level2, 4.0, xp.full_like(eights, 2.0)), 2)
    return xp.cast(level2, "int64"), xp.cast(level3, "int64")


def _spread(xp: Any, level2: Any, level3: Any) -> Any:
    """Return the exponent of each of the 64 values."""
    return repeated(xp, repeated(xp, level2, 2) + level3, 4)


def _scale_codes(xp: Any, wanted: Any, bad: Any) -> Any:
    codes = codes_of(xp, xp.where(bad, 0.0, wanted), _E6M2, _NEAREST)
    return xp.where(bad, _E6M2.nan_code, codes)


def encode(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """HiF4 in exact arithmetic."""
    x = doubles.widen(xp, blocks)
    top, eights, fours = _maxima(xp, x)
    bad = ~doubles.is_finite(xp, top)
    sevenths = doubles.quotient(xp, top, constant(xp, 7.0, top), odd=True)
    if xp.is_concrete(x) and xp.any(~bad & (sevenths > _E6M2.max)):
        warn_caller(
            f"a block needs a scale beyond {_E6M2.name!r}, which ends at {_E6M2.max}; its values clip. Divide x first."
        )
    scales = _scale_codes(xp, sevenths, bad)
    values = decode_values(xp, xp.where(bad, 0, scales), _E6M2, "float64")
    level2, level3 = (xp.where(bad, 0, level) for level in _levels(xp, eights, fours, values))
    x = xp.where(bad, 0.0, x)
    unit = repeated(xp, values, 64) * power_of_two(xp, _spread(xp, level2, level3) - 2)
    n = rounded_magnitude(xp, x, unit, 7, request)
    return {"codes": sign_magnitude(xp, x, n, 3), "scales": scales, "level2": level2, "level3": level3}


def encode_bf16(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """HiF4 in the float32 and bfloat16 steps of its reference code."""
    only_nearest(request, fmt)
    x = float32(xp, blocks)
    bad = ~doubles.is_finite(xp, amax(xp, x))
    x = xp.where(bad, 0.0, x)
    top, eights, fours = _maxima(xp, x)
    sevenths = _bfloat16(xp, times(xp, top, float(_ONE_SEVENTH)))
    scales = _scale_codes(xp, xp.minimum(xp.maximum(sevenths, _E6M2.min), _E6M2.max), bad)
    values = decode_values(xp, xp.where(bad, 0, scales), _E6M2, "float64")
    inverse = _bfloat16(xp, over(xp, xp.full_like(values, 1.0), values))
    one = xp.full_like(inverse, 1.0)
    level2, level3 = _levels(xp, times(xp, eights, inverse), times(xp, fours, inverse), one)
    halved = doubles.magnitude(xp, x) * power_of_two(xp, -_spread(xp, level2, level3))
    quarters = doubles.to_float32(xp, times(xp, halved, inverse) * 4.0 + 0.5)
    n = xp.cast(xp.minimum(quarters, 7.0), "int64")
    return {"codes": sign_magnitude(xp, x, n, 3), "scales": scales, "level2": level2, "level3": level3}


def _bfloat16(xp: Any, x: Any) -> Any:
    return quantize_values(xp, x, _BFLOAT16, _NEAREST)


def decode(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """HiF4, however it was written."""
    power = power_of_two(xp, _spread(xp, fields["level2"], fields["level3"]) - 2)
    scales = fields["scales"]
    known = scales != _E6M2.nan_code
    values = decode_values(xp, xp.where(known, scales, 0), _E6M2, "float64")
    quarters = from_sign_magnitude(xp, fields["codes"], 3) * power
    return xp.where(known, quarters * values, math.nan)


CODERS = {"shared_exponents.hif4": (encode, decode), "shared_exponents.hif4_bf16": (encode_bf16, decode)}
