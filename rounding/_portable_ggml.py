"""ggml's types of one scale, or a scale and a minimum, per block as array code: `schemes.ggml` step by step.

Numbers are float64 that float32 holds, and every step is rounded to float32; sums of two are as good as rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_bits import widen as widen_bits
from lowp.rounding._portable_fp4_recipes import FLOAT32_MAX, over, times
from lowp.rounding._portable_shapes import largest, transposed
from lowp.rounding.request import Request
from lowp.rounding.schemes.ggml import _E2M1_DOUBLED

Fields = dict[str, Any]
_NAN_HALF = 0x7E00
_LEAST, _GREATEST = -(1 << 63), (1 << 63) - 1


def source(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Any:
    """Return the float32 numbers that ggml would get."""
    if request.mode.name != "ties_to_even":
        raise ArgumentError(f"rounding={request.mode.name!r}: {fmt.name!r} rounds as ggml does; leave it out.")
    return doubles.widen(xp, blocks) if xp.dtype_name(blocks) == "float32" else doubles.to_float32(xp, blocks)


def constant(xp: Any, value: float, like: Any) -> Any:
    """Return a number in the shape of `like` that no compiler takes for a constant (see `Work.divisor`)."""
    return xp.where(doubles.bits_of(xp, like) == -1, 1.0, xp.full_like(like, value))


def half_codes(xp: Any, d: Any) -> Any:
    """Return float16 codes; NaN with its sign and the quiet bit alone."""
    codes = xp.cast(xp.bits(doubles.narrow(xp, d, "float16")), "int64") & 0xFFFF
    return xp.where(doubles.is_nan(xp, d), (codes & 0x8000) | _NAN_HALF, codes)


def half_values(xp: Any, codes: Any) -> Any:
    """Return the values of float16 codes."""
    return doubles.widen(xp, xp.floats(widen_bits(xp, xp.cast(codes, "int16"), "float16", 32), "float32"))


def inverse(xp: Any, d: Any) -> Any:
    """Return 1 / d, and 0 where d is 0."""
    return xp.where(doubles.is_zero(xp, d), 0.0, over(xp, xp.full_like(d, 1.0), d))


def plus(xp: Any, a: Any, b: Any) -> Any:
    """Return the float32 sum."""
    return doubles.to_float32(xp, a + b)


def truncated(xp: Any, x: Any) -> Any:
    """Truncate to an integer as C does to int32; 0 if it does not fit or is NaN."""
    fits = doubles.magnitude(xp, x) < 2.0**31
    return xp.cast(xp.where(fits, x, 0.0), "int64")


def half_away(xp: Any, x: Any) -> Any:
    """Round to an integer, ties away from zero, as float64; numbers beyond 2^31 and NaN stay as they are."""
    size = doubles.magnitude(xp, x)
    fits = size < 2.0**31
    whole = xp.cast(xp.where(fits, size, 0.0), "int64")
    n = xp.cast(whole + xp.cast(size - xp.cast(whole, "float64") >= 0.5, "int64"), "float64")
    return xp.where(fits, xp.where(doubles.bits_of(xp, x) < 0, -n, n), x)


def _index(xp: Any, x: Any) -> Any:
    return xp.iota(tuple(x.shape), x.ndim - 1, "int64", x)


def _last(xp: Any, n: Any) -> Any:
    return largest(xp, n, (n.ndim - 1,))


def _at_first(xp: Any, x: Any, chosen: Any) -> Any:
    """Return the first chosen element along the last axis, one axis kept; some are chosen."""
    index = _index(xp, x)
    first = -_last(xp, xp.where(chosen, -index, _LEAST))
    return doubles.from_bits(xp, _last(xp, xp.where(index == first, doubles.bits_of(xp, x), _LEAST)))


def extreme(xp: Any, x: Any) -> Any:
    """Return the first element of largest magnitude along the last axis, NaN passed over; 0 if all are NaN."""
    size = xp.where(doubles.is_nan(xp, x), 0, doubles.size_of(xp, x))
    top = _last(xp, size)
    return xp.where(top == 0, 0.0, _at_first(xp, x, (size == top) & ~doubles.is_nan(xp, x)))


def largest_number(xp: Any, x: Any) -> Any:
    """Return the largest magnitude with NaN passed over."""
    return doubles.from_bits(xp, _last(xp, xp.where(doubles.is_nan(xp, x), 0, doubles.size_of(xp, x))))


def largest_magnitude(xp: Any, x: Any) -> Any:
    """Return the largest magnitude as ggml's MAX macro finds it: a NaN restarts the search."""
    index, nan = _index(xp, x), doubles.is_nan(xp, x)
    restart = _last(xp, xp.where(nan, index, -1))
    found = doubles.from_bits(xp, _last(xp, xp.where(index <= restart, 0, doubles.size_of(xp, x))))
    return xp.where(restart == x.shape[-1] - 1, math.nan, found)


def interleave(xp: Any, codes: Any, per: int, run: int) -> Any:
    """Put codes in memory order: byte k of a run of `run` bytes holds those of elements k, k + run, ..."""
    grouped = codes.reshape((*codes.shape[:-1], codes.shape[-1] // (per * run), per, run))
    axes = (*range(grouped.ndim - 2), grouped.ndim - 1, grouped.ndim - 2)
    return transposed(xp, grouped, axes).reshape(codes.shape)


def low_bits(xp: Any, steps: Any, top: int) -> Any:
    """Convert to int8 as C does, then to a code of at most `top`."""
    n = ((truncated(xp, steps) & 255) ^ 128) - 128
    return xp.minimum(n, top) & 255


def _stored(xp: Any, codes: Any, bits: int) -> Fields:
    high = {"qh": codes >> 4 & 1} if bits == 5 else {}
    return {**high, "qs": interleave(xp, codes & 15, 2, 16)}


def _loaded(xp: Any, fields: Fields) -> Any:
    low = interleave(xp, fields["qs"], 16, 2)
    return xp.cast(low | fields["qh"] << 4 if "qh" in fields else low, "float64")


def encode_centered(xp: Any, blocks: Any, fmt: Packed, request: Request, bits: int) -> Fields:
    """Q4_0 and Q5_0."""
    x, center = source(xp, blocks, fmt, request), 1 << bits - 1
    d = times(xp, extreme(xp, x), -1.0 / center)
    codes = low_bits(xp, plus(xp, times(xp, x, inverse(xp, d)), center + 0.5), 2 * center - 1)
    return {"d": half_codes(xp, d), **_stored(xp, codes, bits)}


def decode_centered(xp: Any, fields: Fields, fmt: Packed, bits: int) -> Any:
    """Q4_0 and Q5_0."""
    return times(xp, _loaded(xp, fields) - float(1 << bits - 1), half_values(xp, fields["d"]))


def encode_minimum(xp: Any, blocks: Any, fmt: Packed, request: Request, bits: int) -> Fields:
    """Q4_1 and Q5_1."""
    x, top = source(xp, blocks, fmt, request), (1 << bits) - 1
    nan, size = doubles.is_nan(xp, x), doubles.size_of(xp, x)
    key = xp.where(doubles.bits_of(xp, x) < 0, -size, size)  # in the order of the numbers, both zeros 0
    least = -_last(xp, xp.where(nan, -doubles.INFINITE, -key))
    number = xp.where(nan, math.inf, x)
    low = xp.minimum(_at_first(xp, number, xp.where(nan, doubles.INFINITE, key) == least), FLOAT32_MAX)
    most = _last(xp, xp.where(nan, -doubles.INFINITE, key))
    high = xp.where(most < 0, -doubles.from_bits(xp, abs_of(xp, most)), doubles.from_bits(xp, abs_of(xp, most)))
    d = over(xp, plus(xp, xp.maximum(high, -FLOAT32_MAX), -low), constant(xp, top, low))
    codes = low_bits(xp, plus(xp, times(xp, plus(xp, x, -low), inverse(xp, d)), 0.5), top)
    return {"d": half_codes(xp, d), "m": half_codes(xp, low), **_stored(xp, codes, bits)}


def abs_of(xp: Any, n: Any) -> Any:
    """Return magnitudes of integers."""
    return xp.where(n < 0, -n, n)


def decode_minimum(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Q4_1 and Q5_1."""
    return plus(xp, times(xp, _loaded(xp, fields), half_values(xp, fields["d"])), half_values(xp, fields["m"]))


def encode_bytes(xp: Any, blocks: Any, fmt: Packed, request: Request, sums: bool) -> Fields:
    """Q8_0 and Q8_1."""
    x = source(xp, blocks, fmt, request)
    top = largest_magnitude(xp, x)
    d = over(xp, top, constant(xp, 127.0, top))
    codes = ((truncated(xp, half_away(xp, times(xp, x, inverse(xp, d)))) & 255) ^ 128) - 128
    extra = {}
    if sums:
        total = codes[..., :1]
        for i in range(1, codes.shape[-1]):
            total = total + codes[..., i : i + 1]
        extra["s"] = half_codes(xp, times(xp, xp.cast(total, "float64"), d))
    return {"d": half_codes(xp, d), **extra, "qs": codes & 255}


def decode_bytes(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Q8_0 and Q8_1."""
    return times(xp, xp.cast((fields["qs"] ^ 128) - 128, "float64"), half_values(xp, fields["d"]))


def _nearest_e2m1(xp: Any, x: Any, half_scale: Any) -> Any:
    smallest = doubles.magnitude(xp, x)
    best = xp.full_like(x, 0, "int64")
    for code, doubled in enumerate(_E2M1_DOUBLED.tolist()):
        error = doubles.magnitude(xp, plus(xp, times(xp, half_scale, doubled), -x))
        closer = error < smallest
        smallest = xp.where(closer, error, smallest)
        best = xp.where(closer, code, best)
    return best


def _half_e8m0(xp: Any, codes: Any) -> Any:
    return doubles.from_bits(xp, (codes - 128 + 1023) << 52)


@lru_cache(maxsize=1)
def _first_mantissas() -> NDArray[np.int64]:
    """Return for the exponents -149 to 128 the least float32 mantissa whose logarithm rounds up to the next integer."""
    result = np.full(278, 1 << 23, np.int64)
    mantissas = (1 << 23) - 64 + np.arange(64)
    for k in range(-149, 129):
        logarithm = np.log2(np.ldexp(1.0 + mantissas * 2.0**-23, k)).astype(np.float32)
        result[k + 149] -= int((np.floor(logarithm) > k).sum())
    return result


def _floor_log2(xp: Any, x: Any) -> Any:
    """Return the floor of the float32 logarithm of positive finite numbers."""
    bits = doubles.bits_of(xp, x)
    exponent = xp.minimum(xp.maximum((bits >> 52) - 1023, -149), 128)
    first = xp.take(xp.constant(_first_mantissas(), x), exponent + 149)
    return exponent + xp.cast((bits & doubles.FRACTION) >> 29 >= first, "int64")


def encode_mxfp4(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """MXFP4."""
    x = source(xp, blocks, fmt, request)
    top = largest_number(xp, x)
    usual = doubles.is_finite(xp, top) & ~doubles.is_zero(xp, top)
    e = xp.where(usual, _floor_log2(xp, top) + 125, 0) & 255
    return {"e": e, "qs": interleave(xp, _nearest_e2m1(xp, x, _half_e8m0(xp, e)), 2, 16)}


def _doubled(xp: Any, codes: Any) -> Any:
    return xp.take(xp.constant(_E2M1_DOUBLED.astype(np.float64), codes), codes)


def decode_mxfp4(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """MXFP4."""
    return times(xp, _doubled(xp, interleave(xp, fields["qs"], 16, 2)), _half_e8m0(xp, fields["e"]))


def _ue4m3_codes(xp: Any, x: Any) -> Any:
    clipped = xp.where(doubles.is_nan(xp, x), x, xp.minimum(x, 448.0))
    bits = xp.cast(xp.bits(doubles.narrow(xp, clipped, "float32")), "int64")
    rounded = ((bits + (1 << 19)) >> 20) - (120 << 3)
    normal = xp.where(rounded >= 15 << 3, 0x7E, rounded)
    subnormal = xp.minimum(xp.cast(plus(xp, clipped * 512.0, 0.5), "int64"), 7)
    return xp.where(bits >> 23 <= 120, subnormal, normal)


def _half_ue4m3(xp: Any, codes: Any) -> Any:
    exponent, mantissa = codes >> 3 & 15, codes & 7
    significand = xp.cast(mantissa + xp.where(exponent > 0, 8, 0 * mantissa), "float64")
    value = significand * doubles.from_bits(xp, (xp.maximum(exponent, 1) - 11 + 1023) << 52)
    return xp.where(codes == 0x7F, 0.0, value)


def encode_nvfp4(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """NVFP4."""
    x = source(xp, blocks, fmt, request)
    groups = x.reshape((*x.shape[:-1], x.shape[-1] // 16, 16))
    top = largest_number(xp, groups)
    d = _ue4m3_codes(xp, over(xp, top, constant(xp, 6.0, top)))
    codes = _nearest_e2m1(xp, groups, _half_ue4m3(xp, d)).reshape(x.shape)
    return {"d": d[..., 0], "qs": interleave(xp, codes, 2, 8)}


def decode_nvfp4(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """NVFP4."""
    values = _doubled(xp, interleave(xp, fields["qs"], 8, 2))
    groups = values.reshape((*values.shape[:-1], values.shape[-1] // 16, 16))
    return times(xp, groups, _half_ue4m3(xp, fields["d"])[..., None]).reshape(values.shape)


def encode_q2(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Q2_0."""
    x = source(xp, blocks, fmt, request)
    d = largest_number(xp, x)
    steps = half_away(xp, times(xp, x, inverse(xp, d)))
    n = truncated(xp, steps)
    fits = doubles.magnitude(xp, steps) < 2.0**31
    return {"d": half_codes(xp, d), "qs": xp.where(fits, xp.minimum(xp.maximum(n, -1), 2) + 1, 0)}


def decode_q2(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Q2_0."""
    return times(xp, xp.cast(fields["qs"] - 1, "float64"), half_values(xp, fields["d"]))


Coders = tuple[Callable[[Any, Any, Packed, Request], Fields], Callable[[Any, Fields, Packed], Any]]
CODERS: dict[str, Coders] = {
    "ggml.q2_0": (encode_q2, decode_q2),
    "ggml.q4_0": (partial(encode_centered, bits=4), partial(decode_centered, bits=4)),
    "ggml.q4_1": (partial(encode_minimum, bits=4), decode_minimum),
    "ggml.q5_0": (partial(encode_centered, bits=5), partial(decode_centered, bits=5)),
    "ggml.q5_1": (partial(encode_minimum, bits=5), decode_minimum),
    "ggml.q8_0": (partial(encode_bytes, sums=False), decode_bytes),
    "ggml.q8_1": (partial(encode_bytes, sums=True), decode_bytes),
    "ggml.mxfp4": (encode_mxfp4, decode_mxfp4),
    "ggml.nvfp4": (encode_nvfp4, decode_nvfp4),
}
