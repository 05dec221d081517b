"""ggml's K types as array code: `schemes.ggml_k` step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_fp4_recipes import times
from lowp.rounding._portable_ggml import Coders, Fields, constant, extreme, half_codes, half_values, interleave, source
from lowp.rounding._portable_ggml_fits import (
    TINY_SIZE,
    nearest,
    ordered_sum,
    over,
    plus,
    refined_scale,
    scale_and_minimum,
    signed_scale,
    values_first,
    values_last,
)
from lowp.rounding._portable_numbers import amax, float_bits, of_float_bits
from lowp.rounding._portable_shapes import joined, square_root
from lowp.rounding.request import Request
from lowp.rounding.schemes.ggml_k import _NAN_FLOAT32, _Q2, _Q4, _Q5, _Minima

_NAN_HALF = 0x7E00


def super_blocks(
    encode: Callable[[Any, Any], Fields], nan_code: int = _NAN_HALF
) -> Callable[[Any, Any, Packed, Request], Fields]:
    """Return the `encode` of a scheme made from that of finite numbers; other blocks are zeros with the scale NaN."""

    def encode_all(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
        x = source(xp, blocks, fmt, request)
        spoiled = ~doubles.is_finite(xp, amax(xp, x))
        fields = encode(xp, xp.where(spoiled, 0.0, x))
        return {**fields, "d": xp.where(spoiled, nan_code, fields["d"])}

    return encode_all


def deinterleave(xp: Any, codes: Any, per: int, run: int) -> Any:
    """Return codes in the order of elements, the reverse of `interleave`."""
    return interleave(xp, codes, run, per)


def grouped(x: Any, size: int) -> Any:
    """Return `x` with its last axis split into groups."""
    return x.reshape((*x.shape[:-1], x.shape[-1] // size, size))


def integers(xp: Any, x: Any) -> Any:
    """Return float64 integers as int64."""
    return xp.cast(x, "int64")


def signed(xp: Any, codes: Any) -> Any:
    """Return bytes read as int8."""
    return xp.cast((codes ^ 128) - 128, "float64")


def divided(xp: Any, x: Any, divisor: float) -> Any:
    """Return the float32 quotient by a number."""
    return over(xp, x, constant(xp, divisor, x))


def _with_minima(xp: Any, x: Any, kind: _Minima) -> list[Any]:
    """Return codes of d and dmin, of the groups' scales and minima, and of the values."""
    values = values_first(xp, x, kind.group)
    weights = doubles.magnitude(xp, values)
    if not kind.absolute:
        mean = divided(xp, ordered_sum(xp, times(xp, values, values)), kind.group)
        weights = plus(xp, doubles.to_float32(xp, square_root(xp, mean)), weights)
    scales, minima, first = scale_and_minimum(xp, values, weights, kind.top, kind.search, kind.absolute)
    d, scale_codes = _unsigned_steps(xp, scales, kind.scale_top)
    dmin, minimum_codes = _unsigned_steps(xp, minima, kind.scale_top)
    unit = times(xp, half_values(xp, d), scale_codes)[..., None]
    shifted = plus(xp, grouped(x, kind.group), times(xp, half_values(xp, dmin), minimum_codes)[..., None])
    codes = nearest(xp, over(xp, shifted, unit), 0, kind.top)
    codes = xp.where(doubles.is_zero(xp, unit), values_last(xp, first), codes).reshape(x.shape)
    return [d, dmin, *(integers(xp, part) for part in (scale_codes, minimum_codes, codes))]


def _unsigned_steps(xp: Any, scales: Any, top: int) -> tuple[Any, Any]:
    """Return the float16 code of largest / top, and the scales in such steps."""
    largest = amax(xp, xp.maximum(scales, 0.0))
    steps = xp.where(largest > 0, over(xp, xp.full_like(largest, top), largest), 0.0)
    return half_codes(xp, divided(xp, largest, top)), nearest(xp, times(xp, steps, scales), 0, top)


def _minus_minima(xp: Any, fields: Fields, scales: Any, minima: Any, codes: Any) -> Any:
    """Return `d * scale * code - dmin * minimum`."""
    groups = xp.cast(grouped(codes, codes.shape[-1] // scales.shape[-1]), "float64")
    unit = times(xp, half_values(xp, fields["d"]), xp.cast(scales, "float64"))
    minimum = times(xp, half_values(xp, fields["dmin"]), xp.cast(minima, "float64"))
    return plus(xp, times(xp, unit[..., None], groups), -minimum[..., None]).reshape(codes.shape)


def _encode_q2(xp: Any, x: Any) -> Fields:
    d, dmin, scales, minima, codes = _with_minima(xp, x, _Q2)
    pairs = joined(xp, [scales[..., None], minima[..., None]], -1).reshape((*x.shape[:-1], 32))
    return {"scales": pairs, "qs": interleave(xp, codes, 4, 32), "d": d, "dmin": dmin}


def _decode_q2(xp: Any, fields: Fields, fmt: Packed) -> Any:
    pairs, codes = fields["scales"], deinterleave(xp, fields["qs"], 4, 32)
    return _minus_minima(xp, fields, pairs[..., ::2], pairs[..., 1::2], codes)


def _pack_six(xp: Any, scales: Any, minima: Any) -> Any:
    """Pack 8 scales and 8 minima of 6 bits into 12 bytes: the first four of each whole, with the others' high bits."""
    parts = [
        scales[..., :4] | scales[..., 4:] >> 4 << 6,
        minima[..., :4] | minima[..., 4:] >> 4 << 6,
        scales[..., 4:] & 15 | (minima[..., 4:] & 15) << 4,
    ]
    return joined(xp, parts, -1)


def _unpack_six(xp: Any, packed: Any) -> tuple[Any, Any]:
    """Return the 8 scales and the 8 minima."""
    scales, minima, low = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    return (
        joined(xp, [scales & 63, low & 15 | scales >> 6 << 4], -1),
        joined(xp, [minima & 63, low >> 4 | minima >> 6 << 4], -1),
    )


def _encode_q4(xp: Any, x: Any) -> Fields:
    d, dmin, scales, minima, codes = _with_minima(xp, x, _Q4)
    return {"d": d, "dmin": dmin, "scales": _pack_six(xp, scales, minima), "qs": interleave(xp, codes, 2, 32)}


def _decode_q4(xp: Any, fields: Fields, fmt: Packed) -> Any:
    return _minus_minima(xp, fields, *_unpack_six(xp, fields["scales"]), deinterleave(xp, fields["qs"], 2, 32))


def _encode_q5(xp: Any, x: Any) -> Fields:
    d, dmin, scales, minima, codes = _with_minima(xp, x, _Q5)
    high, low = interleave(xp, codes >> 4, 8, 32), interleave(xp, codes & 15, 2, 32)
    return {"d": d, "dmin": dmin, "scales": _pack_six(xp, scales, minima), "qh": high, "qs": low}


def _decode_q5(xp: Any, fields: Fields, fmt: Packed) -> Any:
    codes = deinterleave(xp, fields["qs"], 2, 32) | deinterleave(xp, fields["qh"], 8, 32) << 4
    return _minus_minima(xp, fields, *_unpack_six(xp, fields["scales"]), codes)


def _requantized(xp: Any, x: Any, d: Any, scales: Any, first: Any, center: int) -> Any:
    """Return the codes nearest under the stored scales; where such a scale is 0, those that the search found."""
    unit = times(xp, half_values(xp, d), scales)[..., None]
    codes = nearest(xp, over(xp, grouped(x, 16), unit), -center, center - 1) + float(center)
    return integers(xp, xp.where(doubles.is_zero(xp, unit), values_last(xp, first), codes)).reshape(x.shape)


def _inverse(xp: Any, steps: Any, some: Any) -> Any:
    """Return 1 / steps, and 0 where there is nothing."""
    return xp.where(some, over(xp, xp.full_like(steps, 1), steps), 0.0)


def _encode_q3(xp: Any, x: Any) -> Fields:
    scales, first = refined_scale(xp, values_first(xp, x, 16), 4)
    largest = extreme(xp, scales)
    steps, some = over(xp, xp.full_like(largest, -32), largest), ~doubles.is_zero(xp, largest)
    scale_codes = xp.where(some, nearest(xp, times(xp, steps, scales), -32, 31), -32.0)
    d = half_codes(xp, _inverse(xp, steps, some))
    codes = _requantized(xp, x, d, scale_codes, first, 4)
    stored = integers(xp, scale_codes) + 32
    return {
        "hmask": interleave(xp, codes >> 2, 8, 32),
        "qs": interleave(xp, codes & 3, 4, 32),
        "scales_l": interleave(xp, stored & 15, 2, 8),
        "scales_h": interleave(xp, stored >> 4, 4, 4),
        "d": d,
    }


def _decode_q3(xp: Any, fields: Fields, fmt: Packed) -> Any:
    codes = deinterleave(xp, fields["qs"], 4, 32) | deinterleave(xp, fields["hmask"], 8, 32) << 2
    scales = deinterleave(xp, fields["scales_l"], 2, 8) | deinterleave(xp, fields["scales_h"], 4, 4) << 4
    return _centered(xp, half_values(xp, fields["d"]), xp.cast(scales - 32, "float64"), codes, 4)


def _centered(xp: Any, d: Any, scales: Any, codes: Any, center: int) -> Any:
    """Return `d * scale * (code - center)`."""
    groups = xp.cast(grouped(codes, 16) - center, "float64")
    return times(xp, times(xp, d, scales)[..., None], groups).reshape(codes.shape)


def _encode_q6(xp: Any, x: Any) -> Fields:
    scales, first = signed_scale(xp, values_first(xp, x, 16), 32)
    largest = extreme(xp, scales)
    steps = over(xp, xp.full_like(largest, -128), largest)
    some = doubles.magnitude(xp, largest) >= TINY_SIZE
    scale_codes = xp.where(some, nearest(xp, times(xp, steps, scales), _LEAST, 127), 0.0)
    d = half_codes(xp, _inverse(xp, steps, some))
    codes = xp.where(some, _requantized(xp, x, d, scale_codes, first, 32), 0)
    high, low = interleave(xp, codes >> 4, 4, 32), interleave(xp, codes & 15, 2, 64)
    return {"ql": low, "qh": high, "scales": integers(xp, scale_codes) & 255, "d": d}


def _decode_q6(xp: Any, fields: Fields, fmt: Packed) -> Any:
    codes = deinterleave(xp, fields["ql"], 2, 64) | deinterleave(xp, fields["qh"], 4, 32) << 4
    return _centered(xp, half_values(xp, fields["d"]), signed(xp, fields["scales"]), codes, 32)


def _encode_q8(xp: Any, x: Any) -> Fields:
    largest = extreme(xp, x)
    steps, some = over(xp, xp.full_like(largest, -127), largest), ~doubles.is_zero(xp, largest)
    codes = integers(xp, xp.where(some, nearest(xp, times(xp, steps, x), _LEAST, 127), 0.0))
    sums = sum(grouped(codes, 16)[..., i] for i in range(16))
    return {"d": float_bits(xp, _inverse(xp, steps, some)), "qs": codes & 255, "bsums": sums & 0xFFFF}


def _decode_q8(xp: Any, fields: Fields, fmt: Packed) -> Any:
    return times(xp, of_float_bits(xp, fields["d"]), signed(xp, fields["qs"]))


#: What `nearest` makes of infinity, its least.
_LEAST = -(1 << 22)

CODERS: dict[str, Coders] = {
    "ggml_k.q2_k": (super_blocks(_encode_q2), _decode_q2),
    "ggml_k.q3_k": (super_blocks(_encode_q3), _decode_q3),
    "ggml_k.q4_k": (super_blocks(_encode_q4), _decode_q4),
    "ggml_k.q5_k": (super_blocks(_encode_q5), _decode_q5),
    "ggml_k.q6_k": (super_blocks(_encode_q6), _decode_q6),
    "ggml_k.q8_k": (super_blocks(_encode_q8, nan_code=_NAN_FLOAT32), _decode_q8),
}
