"""ggml's types of one scale, or a scale and a minimum, per block of 16 to 128 values.

NaN and infinity get the codes that ggml gives them, conversions that C leaves undefined included: there the codes are
those of x86-64, where they yield 0. Source: ggml-org/ggml, `src/ggml-quants.c`, `quantize_row_*_ref` and their
inverses; `ggml_fp32_to_ue4m3` and `ggml_e8m0_to_fp32_half` of `src/ggml-impl.h`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.packed import Packed
from lowp.rounding._fp4_recipes import Float32
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.ggml_steps import (
    c_integer,
    deinterleave,
    extreme,
    grouped,
    half_away,
    half_codes,
    half_values,
    interleave,
    inverse,
    largest_magnitude,
    ordered_sum,
    signed,
    source,
)

_FLOAT32_MAX = np.float32(np.finfo(np.float32).max)
#: Twice the E2M1 values, in the order of their codes, which is the order of ggml's search.
_E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


def _low_bits(steps: Float32, top: int) -> NDArray[np.uint8]:
    """Convert to int8 as C does, then to a code of at most `top`."""
    return np.minimum(c_integer(steps).astype(np.int8), top).astype(np.uint8)


def _stored(codes: NDArray[np.uint8], bits: int) -> Fields:
    """Return the fields of 4-bit or 5-bit codes: the fifth bits in the order of elements, low bits in two halves."""
    high = {"qh": codes >> np.uint8(4) & np.uint8(1)} if bits == 5 else {}
    return {**high, "qs": interleave(codes & np.uint8(15), 2, 16)}


def _loaded(fields: Fields) -> Float32:
    """Return the codes of `_stored` fields."""
    low = deinterleave(fields["qs"], 2, 16)
    return (low | fields["qh"] << 4 if "qh" in fields else low).astype(np.float32)


def _encode_centered(blocks: NDArray[Any], fmt: Packed, request: Request, bits: int) -> Fields:
    """Q4_0 and Q5_0: the first element of largest magnitude gets code 0, zero the middle code; NaN is passed over."""
    x, center = source(blocks, fmt, request), 1 << bits - 1
    d = extreme(x)[..., None] / np.float32(-center)
    codes = _low_bits(x * inverse(d) + np.float32(center + 0.5), 2 * center - 1)
    return {"d": half_codes(d), **_stored(codes, bits)}


def _decode_centered(fields: Fields, fmt: Packed, bits: int) -> Float32:
    return (_loaded(fields) - np.float32(1 << bits - 1)) * half_values(fields["d"])


def _first(x: Float32, place: Callable[..., NDArray[np.intp]]) -> Float32:
    """Return the element at a place along the last axis, which decides between +0 and -0 as a loop in C."""
    return np.take_along_axis(x, place(x, axis=-1)[..., None], axis=-1)


def _encode_minimum(blocks: NDArray[Any], fmt: Packed, request: Request, bits: int) -> Fields:
    """Q4_1 and Q5_1: steps of (max - min) / (2^bits - 1) up from the minimum; NaN is passed over."""
    x, top = source(blocks, fmt, request), (1 << bits) - 1
    nan, infinity = np.isnan(x), np.float32(np.inf)
    low: Float32 = np.minimum(_first(np.where(nan, infinity, x), np.argmin), _FLOAT32_MAX)
    high: Float32 = np.maximum(_first(np.where(nan, -infinity, x), np.argmax), -_FLOAT32_MAX)
    d: Float32 = (high - low) / np.float32(top)
    codes = _low_bits((x - low) * inverse(d) + np.float32(0.5), top)
    return {"d": half_codes(d), "m": half_codes(low), **_stored(codes, bits)}


def _decode_minimum(fields: Fields, fmt: Packed) -> Float32:
    return _loaded(fields) * half_values(fields["d"]) + half_values(fields["m"])


def _encode_bytes(blocks: NDArray[Any], fmt: Packed, request: Request, sums: bool) -> Fields:
    """Q8_0 and Q8_1: amax / 127, rounded half away; a NaN restarts the search for amax. Q8_1 adds d times the sum."""
    x = source(blocks, fmt, request)
    d = largest_magnitude(x)[..., None] / np.float32(127)
    codes = c_integer(half_away(x * inverse(d))).astype(np.int8)
    total = codes.sum(axis=-1, keepdims=True, dtype=np.int32).astype(np.float32)
    extra = {"s": half_codes(total * d)} if sums else {}
    return {"d": half_codes(d), **extra, "qs": codes.view(np.uint8)}


def _decode_bytes(fields: Fields, fmt: Packed) -> Float32:
    return signed(fields["qs"]) * half_values(fields["d"])


def _nearest_e2m1(x: Float32, half_scale: Float32) -> NDArray[np.uint8]:
    """Return the first E2M1 code whose float32 error is smallest; 0 for NaN and infinity, of which no error is less."""
    smallest, best = np.abs(x), np.zeros(x.shape, np.uint8)
    for code, doubled in enumerate(_E2M1_DOUBLED):
        error = np.abs(doubled * half_scale - x)
        closer = error < smallest
        smallest = np.where(closer, error, smallest)
        best[closer] = code
    return best


def _largest_number(x: Float32) -> Float32:
    """Return the largest magnitude with NaN passed over, one axis kept."""
    return np.asarray(np.where(np.isnan(x), np.float32(0), np.abs(x)).max(axis=-1, keepdims=True))


def _half_e8m0(codes: NDArray[Any]) -> Float32:
    """Return half the values of E8M0 codes; 255 stands for 2^128."""
    return np.ldexp(np.float32(1), codes.astype(np.int32) - 128)


def _encode_mxfp4(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """MXFP4: the floor of a float32 logarithm; the nearest element by float32 differences, ties to the lower magnitude.

    A block below 2^-125 gets the low 8 bits of its negative exponent code and codes 0; one with infinity code 0.
    """
    x = source(blocks, fmt, request)
    exponent = np.floor(np.log2(_largest_number(x).astype(np.float64)).astype(np.float32)) - 2 + 127
    e = np.where(np.isfinite(exponent), exponent, 0).astype(np.int64).astype(np.uint8)
    return {"e": e, "qs": interleave(_nearest_e2m1(x, _half_e8m0(e)), 2, 16)}


def _decode_mxfp4(fields: Fields, fmt: Packed) -> Float32:
    return np.asarray(_E2M1_DOUBLED[deinterleave(fields["qs"], 2, 16)] * _half_e8m0(fields["e"]))


def _ue4m3_codes(x: Float32) -> NDArray[np.uint8]:
    """Return UE4M3 codes, rounded half up; below 2^-6 at most the largest subnormal, from 248 up the largest number."""
    clipped = np.minimum(x, np.float32(448))
    bits = clipped.view(np.int32)
    rounded = (bits + (1 << 19) >> 20) - (120 << 3)
    normal = np.where(rounded >= 15 << 3, 0x7E, rounded)
    subnormal = np.minimum((clipped * np.float32(512) + np.float32(0.5)).astype(np.int32), 7)
    return np.where(bits >> 23 <= 120, subnormal, normal).astype(np.uint8)


def _half_ue4m3(codes: NDArray[Any]) -> Float32:
    """Return half the values of UE4M3 codes; the NaN code is 0, the eighth bit does not count."""
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    normal = exponent > 0
    value = np.ldexp(mantissa + np.float32(8) * normal, np.maximum(exponent, 1) - 11)
    return np.where(codes == 0x7F, np.float32(0), value)


def _encode_nvfp4(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """NVFP4: four groups of 16 with a scale amax / 6 each, no tensor scale; NaN is passed over."""
    x = source(blocks, fmt, request)
    groups = grouped(x, 16)
    d = _ue4m3_codes(_largest_number(groups) / np.float32(6))
    codes = _nearest_e2m1(groups, _half_ue4m3(d)).reshape(x.shape)
    return {"d": d[..., 0], "qs": interleave(codes, 2, 8)}


def _decode_nvfp4(fields: Fields, fmt: Packed) -> Float32:
    values = _E2M1_DOUBLED[deinterleave(fields["qs"], 2, 8)]
    return (grouped(values, 16) * _half_ue4m3(fields["d"])[..., None]).reshape(values.shape)


def _encode_q1(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """Q1_0: signs, 0 among the positive, times the mean magnitude."""
    x = source(blocks, fmt, request)
    d = ordered_sum(np.moveaxis(np.abs(x), -1, 0))[..., None] / np.float32(x.shape[-1])
    return {"d": half_codes(d), "qs": (x >= 0).astype(np.uint8)}


def _decode_q1(fields: Fields, fmt: Packed) -> Float32:
    d = half_values(fields["d"])
    return np.where(fields["qs"] == 1, d, -d)


def _encode_q2(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """Q2_0: -1, 0, 1 and, though no element needs it, 2 times the largest magnitude; NaN is passed over."""
    x = source(blocks, fmt, request)
    d = _largest_number(x)
    steps = half_away(x * inverse(d))
    fits = np.abs(steps) < 2**31
    codes = np.where(fits, np.clip(steps, -1, 2) + 1, np.float32(0))
    return {"d": half_codes(d), "qs": codes.astype(np.uint8)}


def _decode_q2(fields: Fields, fmt: Packed) -> Float32:
    return (fields["qs"].astype(np.float32) - np.float32(1)) * half_values(fields["d"])


SCHEMES: dict[str, Scheme] = {
    "q1_0": Scheme(_encode_q1, _decode_q1),
    "q2_0": Scheme(_encode_q2, _decode_q2),
    "q4_0": Scheme(partial(_encode_centered, bits=4), partial(_decode_centered, bits=4)),
    "q4_1": Scheme(partial(_encode_minimum, bits=4), _decode_minimum),
    "q5_0": Scheme(partial(_encode_centered, bits=5), partial(_decode_centered, bits=5)),
    "q5_1": Scheme(partial(_encode_minimum, bits=5), _decode_minimum),
    "q8_0": Scheme(partial(_encode_bytes, sums=False), _decode_bytes),
    "q8_1": Scheme(partial(_encode_bytes, sums=True), _decode_bytes),
    "mxfp4": Scheme(_encode_mxfp4, _decode_mxfp4),
    "nvfp4": Scheme(_encode_nvfp4, _decode_nvfp4),
}
