"""The recipes of `lowp.rounding._fp4_recipes` as array code: the systems' float32 steps, in their order.

Float32 numbers are float64 numbers that float32 holds (`lowp.rounding._portable_doubles.to_float32` after every step).
Their products are exact in float64, and quotients rounded to its 53 bits first are as good as rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import warn_caller
from lowp.formats.float_format import Float
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_recipes import Scales, Work, encoded
from lowp.rounding._portable_steps import times_factors
from lowp.rounding.recipes import scale_request

FLOAT32_MAX = float(np.finfo(np.float32).max)


def times(xp: Any, a: Any, b: Any) -> Any:
    """Return the float32 product: that of two float32 numbers is exact in float64."""
    return doubles.to_float32(xp, a * b)


def over(xp: Any, a: Any, b: Any) -> Any:
    """Return the float32 quotient."""
    return doubles.to_float32(xp, a / b)


def scaled_up(v: Any, factors: Any, work: Work) -> Any:
    """Return the float32 products of elements and factors, as the rounding of elements can tell them."""
    if work.quick:
        return times_factors(work.xp, v, factors)
    return times(work.xp, doubles.widen(work.xp, float32(v, work)), factors)


def float32(x: Any, work: Work) -> Any:
    """Return `x` as the float32 tensor that every one of these systems works on."""
    if work.reach <= FLOAT32_MAX:
        return x
    xp = work.xp
    narrow = doubles.to_float32(xp, x)
    if xp.is_concrete(x) and xp.any(doubles.is_finite(xp, narrow) != doubles.is_finite(xp, x)):
        warn_caller("x holds numbers beyond float32, in which this recipe's system computes; they count as infinite.")
    return narrow


def settled(scaled: Any, v: Any, nan_value: Any, work: Work) -> Any:
    """Return `scaled`, made from `v`, with each NaN as the element value that the system's conversion makes of it."""
    nan = doubles.is_nan(work.xp, scaled)
    if work.fmt.nonfinite == "element":
        nan = nan & ~doubles.is_nan(work.xp, v)
    return work.xp.where(nan, nan_value, scaled)


def _nvfp4_te(x: Any, work: Work) -> Scales:
    xp, fmt = work.xp, work.fmt
    x = float32(x, work)
    element_max = fmt.element.max
    amax = work.block_amax(xp.where(doubles.is_nan(xp, x), 0.0, x))
    if fmt.tensor_scale:
        span = float(np.float32(fmt.scale.max) * np.float32(element_max))
        tensor_amax = work.tensor_amax(amax)
        if work.amax is not None:
            tensor_amax = xp.where(doubles.is_nan(xp, tensor_amax), 0.0, tensor_amax)
        encode = xp.minimum(over(xp, work.number(span, tensor_amax), tensor_amax), FLOAT32_MAX)
        encode = xp.where(doubles.is_zero(xp, tensor_amax) | doubles.is_zero(xp, encode), 1.0, encode)
    else:
        encode = work.number(1.0, amax)
    one = work.number(1.0, encode)
    tensor = over(xp, one, encode)
    factor = times(xp, encode, float(np.float32(1) / np.float32(element_max)))
    codes = to_scale(xp.minimum(times(xp, amax, factor), FLOAT32_MAX), work)
    values = work.decoded(codes)
    inverse = xp.minimum(over(xp, one, times(xp, values, tensor)), FLOAT32_MAX)

    def scaled(v: Any) -> Any:
        return settled(scaled_up(v, inverse, work), v, element_max, work)

    return Scales(codes, values, scaled, tensor if fmt.tensor_scale else None, own_nan_codes=True)


def _nvfp4_torchao(x: Any, work: Work) -> Scales:
    xp, fmt = work.xp, work.fmt
    x = float32(x, work)
    amax = work.block_amax(x)
    wanted = over(xp, amax, work.divisor(float(np.float32(fmt.element.max)), amax))
    tensor = None
    if fmt.tensor_scale:
        tensor = _tensor_scale(amax, work)
        wanted = over(xp, wanted, tensor)
    nan = doubles.is_nan(xp, wanted)
    smallest, top = float(np.float32(fmt.scale.smallest_normal)), float(np.float32(fmt.scale.max))
    clipped = xp.where(nan, math.nan, xp.minimum(xp.maximum(wanted, smallest), top))
    codes = to_scale(clipped, work, negative_nan=~doubles.is_nan(xp, amax))
    values = work.decoded(codes)
    one = work.number(1.0, values)
    inverse = over(xp, one if tensor is None else over(xp, one, tensor), values)
    # The conversion reads the bits of a NaN as a number: -1.5 for 0 * inf, else 2 with the sign of the scale's NaN.
    of_nan = xp.where(doubles.is_nan(xp, inverse), work.number(2.0 if tensor is None else -2.0, inverse), -1.5)

    def scaled(v: Any) -> Any:
        return settled(scaled_up(v, inverse, work), v, of_nan, work)

    return Scales(codes, values, scaled, tensor, own_nan_codes=True)


def _nvfp4_modelopt(x: Any, work: Work) -> Scales:
    xp, fmt = work.xp, work.fmt
    x = float32(x, work)
    amax = work.block_amax(x)
    tensor = _tensor_scale(amax, work) if fmt.tensor_scale else work.number(1.0, amax)
    wanted = over(xp, amax, times(xp, tensor, float(np.float32(fmt.element.max))))
    negative_nan = ~doubles.is_nan(xp, tensor) & ~doubles.is_nan(xp, amax)
    codes = to_scale(xp.where(doubles.is_zero(xp, wanted), 1.0, wanted), work, negative_nan)
    values = work.decoded(codes)
    divisor = times(xp, values, tensor)

    def scaled(v: Any) -> Any:
        quotient = over(xp, doubles.widen(xp, float32(v, work)), divisor)
        return settled(xp.where(doubles.is_zero(xp, quotient), 0.0, quotient), v, fmt.element.max, work)

    return Scales(codes, values, scaled, tensor if fmt.tensor_scale else None, own_nan_codes=True)


def _tensor_scale(amax: Any, work: Work) -> Any:
    """Return the tensor's largest magnitude over the largest product of an element and a block scale."""
    whole = work.tensor_amax(amax)
    return over(work.xp, whole, work.divisor(float(np.float32(work.fmt.element.max * work.fmt.scale.max)), whole))


def to_scale(wanted: Any, work: Work, negative_nan: Any = None) -> Any:
    """Round to the scale format, saturating; NaN gets the NaN code, with a sign bit where `negative_nan`."""
    xp, scale = work.xp, work.fmt.scale
    assert isinstance(scale, Float)
    nan = doubles.is_nan(xp, wanted)
    codes = encoded(xp, xp.where(nan, 0.0, wanted), scale, scale_request("ties_to_even"))
    if scale.nan_code is None:
        return codes
    codes = xp.where(nan, scale.nan_code, codes)
    if negative_nan is not None and scale.signed:
        codes = xp.where(nan & negative_nan, scale.nan_code | 1 << (scale.bits - 1), codes)
    return codes


@lru_cache(maxsize=1)
def _last_mantissas() -> NDArray[np.int64]:
    """Return for the exponents -127 to 128 the largest float32 mantissa whose logarithm rounds down to the exponent."""
    result = np.zeros(256, np.int64)
    mantissas = np.arange(64)
    for k in range(-127, 129):
        logarithm = np.log2(np.ldexp(1.0 + mantissas * 2.0**-23, k)).astype(np.float32)
        result[k + 127] = int((np.ceil(logarithm) <= k).sum()) - 1
    return result


def _mxfp4_modelopt(x: Any, work: Work) -> Scales:
    xp, fmt = work.xp, work.fmt
    x = float32(x, work)
    amax = work.block_amax(x)
    quotient = over(xp, amax, work.divisor(float(np.float32(fmt.element.max)), amax))
    exponent = xp.maximum((doubles.bits_of(xp, quotient) >> 52) - 1023, -127)
    mantissa = (doubles.bits_of(xp, quotient) & doubles.FRACTION) >> 29
    last = xp.take(xp.constant(_last_mantissas(), x), xp.minimum(exponent + 127, 255))
    small = doubles.bits_of(xp, quotient) < (1023 - 127) << 52
    exponent = exponent + xp.cast((mantissa > last) & ~small, "int64")
    finite = doubles.is_finite(xp, amax)
    codes = xp.where(finite, exponent + 127, 0)
    values = work.decoded(codes)
    divisor = xp.where(finite, values, math.inf)

    def scaled(v: Any) -> Any:
        quotient = settled(over(xp, doubles.widen(xp, float32(v, work)), divisor), v, 0.0, work)
        return xp.where(doubles.is_zero(xp, quotient), -0.0, quotient)

    return Scales(codes, values, scaled, element_rounding="ties_to_zero", own_nan_codes=True)


RECIPES: dict[str, Callable[[Any, Work], Scales]] = {
    "nvfp4_te": _nvfp4_te,
    "nvfp4_torchao": _nvfp4_torchao,
    "nvfp4_modelopt": _nvfp4_modelopt,
    "mxfp4_modelopt": _mxfp4_modelopt,
}
