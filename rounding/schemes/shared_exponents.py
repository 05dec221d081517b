"""Exponents shared on several levels: shared microexponents (MX9, MX6, MX4) and HiF4.

Microexponents. A block of 16 stores the exponent `E` of its largest value as the 8-bit field of a float32 would be,
`E + 127`, from 0 (zeros, and all below 2^-126) to 254; every pair of values stores whether the exponents of both are
below `E`: its shift `d`. A value is sign and magnitude `M` of `m` bits without a hidden bit, the sign above:
`(-1)^s * M * 2^(E - d - (m - 1))`. Rounding follows the caller's mode and saturates at `2^m - 1`. Field 255 marks a
block with NaN or infinity, whose values are all NaN (assumed, as in E8M0).
Source: Darvish Rouhani et al., "With Shared Microexponents, A Little Shifting Goes a Long Way", ISCA 2023,
arXiv:2302.08007; that a pair shifts only if both exponents are smaller: AMD Quark's description of MX6 and MX9.

HiF4. A block of 64 stores a scale `S` in E6M2 (2^-48 to 1.5 * 2^15; code 255 is NaN), one bit per 8 values and one per
4 values that double it, and per value a sign above a 3-bit magnitude in quarters, `S * 2^(a + b) * M / 4`. `S` is
`amax / 7` to nearest even; `a` is 1 where the 8 values reach `4 S`, `b` where the 4 values reach `2 S 2^a`. A block
with NaN or infinity is all NaN. "hif4" does this in exact arithmetic and rounds values by the caller's mode.
"hif4_bf16" repeats the reference code on float32: `amax` times 1/7, scale and reciprocal scale in bfloat16, half up.
Source: HiFloat4, arXiv:2602.11287; ARCQuant, arXiv:2601.07475; global-computing-consortium/HiFloat4, `hifx.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding import _exact_steps
from lowp.rounding._scalar import quantize_values
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import (
    from_sign_magnitude,
    only_nearest,
    rounded_integers,
    sign_magnitude,
    stored_scales,
)

_E6M2 = Float(6, 2, bias=48, signed=False, subnormals=False, specials="fn", zero=False)
_BFLOAT16 = Float(8, 7)
_ONE_SEVENTH = np.float32(0.142578125)  # 1/7 in bfloat16
_NAN_EXPONENT = 255


def _exponents(amax: NDArray[Any]) -> NDArray[np.int64]:
    """Return `floor(log2 amax)` within what a float32 exponent field holds, -127 to 127."""
    exponents = np.frexp(amax)[1].astype(np.int64) - 1
    return np.where(amax == 0, -127, np.clip(exponents, -127, 127))


def _encode_microexponents(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    bits: int = fmt.option("magnitude_bits")
    bad = ~np.isfinite(x).all(axis=-1, keepdims=True)
    x = np.where(bad, x.dtype.type(0), x)
    pairs = _exponents(np.abs(x).reshape(*x.shape[:-1], 8, 2).max(axis=-1))
    shared = pairs.max(axis=-1, keepdims=True)
    shifts = pairs < shared
    unit = np.ldexp(1.0, np.repeat(shared - shifts, 2, axis=-1) - (bits - 1))
    n = rounded_integers(x, unit, (1 << bits) - 1, request)
    return {
        "codes": sign_magnitude(x, n, bits),
        "exponents": np.where(bad, _NAN_EXPONENT, shared + 127),
        "shifts": shifts & ~bad,
    }


def _decode_microexponents(fields: Fields, fmt: Packed) -> NDArray[Any]:
    bits: int = fmt.option("magnitude_bits")
    exponents = fields["exponents"].astype(np.int64)
    shifts = np.repeat(fields["shifts"].astype(np.int64), 2, axis=-1)
    values = np.ldexp(from_sign_magnitude(fields["codes"], bits), exponents - 127 - shifts - (bits - 1))
    return np.where(exponents == _NAN_EXPONENT, np.nan, values)


def _spread(level2: NDArray[Any], level3: NDArray[Any]) -> NDArray[np.int64]:
    """Return the exponent `a + b` of each of the 64 values."""
    return np.repeat(level2.astype(np.int64), 8, axis=-1) + np.repeat(level3.astype(np.int64), 4, axis=-1)


def _maxima(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the largest magnitude of each 64, 8 and 4 values."""
    fours = np.abs(x).reshape(*x.shape[:-1], 16, 4).max(axis=-1)
    eights = fours.reshape(*x.shape[:-1], 8, 2).max(axis=-1)
    return eights.max(axis=-1, keepdims=True), eights, fours


def _encode_hif4(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    amax, eights, fours = _maxima(x)
    sevenths = _exact_steps.divide(amax, np.full_like(amax, 7.0, np.float64))
    scales, values = stored_scales(sevenths, _E6M2)
    bad = np.isnan(values)
    level2 = eights >= 4 * values
    level3 = fours >= values * np.repeat(np.where(level2, 4, 2), 2, axis=-1)
    x = np.where(bad, x.dtype.type(0), x)
    n = rounded_integers(x, np.ldexp(values, _spread(level2, level3) - 2), 7, request)
    return {"codes": sign_magnitude(x, n, 3), "scales": scales, "level2": level2, "level3": level3}


def _encode_hif4_bf16(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    x = x.astype(np.float32)
    bad = ~np.isfinite(x).all(axis=-1, keepdims=True)
    x = np.where(bad, np.float32(0), x)
    amax, eights, fours = _maxima(x)
    sevenths = np.clip(_bfloat16(amax * _ONE_SEVENTH).astype(np.float64), _E6M2.min, _E6M2.max)
    scales, values = stored_scales(np.where(bad, np.nan, sevenths), _E6M2)
    reciprocal = _bfloat16(np.float32(1) / np.where(bad, 1.0, values).astype(np.float32))
    level2 = eights * reciprocal >= 4
    level3 = fours * reciprocal >= np.repeat(np.where(level2, np.float32(4), np.float32(2)), 2, axis=-1)
    exponents = _spread(level2, level3)
    mantissa = np.ldexp(np.abs(x), -exponents) * reciprocal
    n = np.minimum(np.floor(mantissa * np.float32(4) + np.float32(0.5)), 7)
    return {"codes": sign_magnitude(x, n, 3), "scales": scales, "level2": level2, "level3": level3}


def _bfloat16(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(quantize_values(np.ascontiguousarray(x), _BFLOAT16, scale_request("ties_to_even")))


def _decode_hif4(fields: Fields, fmt: Packed) -> NDArray[Any]:
    quarters = np.ldexp(from_sign_magnitude(fields["codes"], 3), _spread(fields["level2"], fields["level3"]) - 2)
    return quarters * decode_codes(fields["scales"], _E6M2)


SCHEMES: dict[str, Scheme] = {
    "microexponents": Scheme(_encode_microexponents, _decode_microexponents),
    "hif4": Scheme(_encode_hif4, _decode_hif4),
    "hif4_bf16": Scheme(_encode_hif4_bf16, _decode_hif4),
}
