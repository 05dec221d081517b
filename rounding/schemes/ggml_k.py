"""ggml's K types: super-blocks of 256 values whose groups of 16 or 32 have scales (and minima) of 4 to 8 bits.

Source: ggml-org/ggml, `src/ggml-quants.c`, `quantize_row_q2_K_ref` to `quantize_row_q8_K_ref` and their inverses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.packed import Packed
from lowp.rounding._fp4_recipes import Float32
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.ggml_fits import Search, refined_scale, scale_and_minimum, signed_scale
from lowp.rounding.schemes.ggml_steps import (
    TINY,
    deinterleave,
    extreme,
    grouped,
    half_codes,
    half_values,
    interleave,
    nearest,
    ordered_sum,
    signed,
    super_blocks,
)


class _Minima(NamedTuple):
    """Parameters of a type with minima: values in a group, largest code, largest scale code, search."""

    group: int
    top: int
    scale_top: int
    search: Search
    absolute: bool = False


_Q2 = _Minima(16, 3, 15, Search(-0.5, 0.1, 15), absolute=True)
_Q4 = _Minima(32, 15, 63, Search(-1.0, 0.1, 20))
_Q5 = _Minima(32, 31, 63, Search(-0.5, 0.1, 15))


def _columns(x: Float32, size: int) -> Float32:
    """Return (values of a group, groups), the layout of the searches."""
    return np.ascontiguousarray(x.reshape(-1, size).T)


def _with_minima(x: Float32, kind: _Minima) -> tuple[NDArray[Any], ...]:
    """Return codes of d and dmin, of the groups' scales and minima, and of the values."""
    values = _columns(x, kind.group)
    weights = np.abs(values)
    if not kind.absolute:
        weights = np.sqrt(ordered_sum(values * values) / np.float32(kind.group)) + weights
    fitted = scale_and_minimum(values, weights, kind.top, kind.search, kind.absolute)
    scales, minima = (part.reshape(len(x), x.shape[1] // kind.group) for part in fitted[:2])
    d, scale_codes = _unsigned_steps(scales, kind.scale_top)
    dmin, minimum_codes = _unsigned_steps(minima, kind.scale_top)
    unit = half_values(d) * scale_codes
    shifted = grouped(x, kind.group) + (half_values(dmin) * minimum_codes)[..., None]
    codes = np.clip(nearest(shifted / unit[..., None]), 0, kind.top)
    first = fitted[2].T.reshape(codes.shape)
    codes = np.where(unit[..., None] != 0, codes, first).reshape(x.shape)
    return d, dmin, _bytes(scale_codes), _bytes(minimum_codes), _bytes(codes)


def _unsigned_steps(scales: Float32, top: int) -> tuple[NDArray[np.uint16], Float32]:
    """Return the float16 code of largest / top, and the scales in such steps."""
    largest = np.maximum(scales.max(axis=-1, keepdims=True), np.float32(0))
    steps = np.where(largest > 0, np.float32(top) / largest, np.float32(0))
    return half_codes(largest / np.float32(top)), np.clip(nearest(steps * scales), 0, top)


def _bytes(codes: Float32) -> NDArray[np.uint8]:
    return codes.astype(np.int32).astype(np.uint8)


def _minus_minima(
    d: Float32, dmin: Float32, scales: NDArray[Any], minima: NDArray[Any], codes: NDArray[Any]
) -> Float32:
    """Return `d * scale * code - dmin * minimum`."""
    groups = grouped(codes, codes.shape[-1] // scales.shape[-1]).astype(np.float32)
    unit, minimum = d * scales.astype(np.float32), dmin * minima.astype(np.float32)
    return (unit[..., None] * groups - minimum[..., None]).reshape(codes.shape)


def _encode_q2(x: Float32) -> Fields:
    d, dmin, scales, minima, codes = _with_minima(x, _Q2)
    pairs = np.stack([scales, minima], axis=-1).reshape(len(x), 32)
    return {"scales": pairs, "qs": interleave(codes, 4, 32), "d": d, "dmin": dmin}


def _decode_q2(fields: Fields, fmt: Packed) -> Float32:
    pairs, codes = fields["scales"], deinterleave(fields["qs"], 4, 32)
    return _minus_minima(*_halves(fields), pairs[..., ::2], pairs[..., 1::2], codes)


def _halves(fields: Fields) -> tuple[Float32, Float32]:
    return half_values(fields["d"]), half_values(fields["dmin"])


def _pack_six(scales: NDArray[np.uint8], minima: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack 8 scales and 8 minima of 6 bits into 12 bytes: the first four of each whole, with the others' high bits."""
    high = np.uint8(4)
    return np.concatenate(
        [
            scales[:, :4] | scales[:, 4:] >> high << np.uint8(6),
            minima[:, :4] | minima[:, 4:] >> high << np.uint8(6),
            scales[:, 4:] & np.uint8(15) | minima[:, 4:] << high,
        ],
        axis=-1,
    )


def _unpack_six(packed: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the 8 scales and the 8 minima."""
    scales, minima, low = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    return (
        np.concatenate([scales & 63, low & 15 | scales >> 6 << 4], axis=-1),
        np.concatenate([minima & 63, low >> 4 | minima >> 6 << 4], axis=-1),
    )


def _encode_q4(x: Float32) -> Fields:
    d, dmin, scales, minima, codes = _with_minima(x, _Q4)
    return {"d": d, "dmin": dmin, "scales": _pack_six(scales, minima), "qs": interleave(codes, 2, 32)}


def _decode_q4(fields: Fields, fmt: Packed) -> Float32:
    return _minus_minima(*_halves(fields), *_unpack_six(fields["scales"]), deinterleave(fields["qs"], 2, 32))


def _encode_q5(x: Float32) -> Fields:
    d, dmin, scales, minima, codes = _with_minima(x, _Q5)
    high, low = interleave(codes >> np.uint8(4), 8, 32), interleave(codes & np.uint8(15), 2, 32)
    return {"d": d, "dmin": dmin, "scales": _pack_six(scales, minima), "qh": high, "qs": low}


def _decode_q5(fields: Fields, fmt: Packed) -> Float32:
    codes = deinterleave(fields["qs"], 2, 32) | deinterleave(fields["qh"], 8, 32) << 4
    return _minus_minima(*_halves(fields), *_unpack_six(fields["scales"]), codes)


def _requantized(x: Float32, d: NDArray[np.uint16], scales: Float32, first: Float32, center: int) -> NDArray[np.uint8]:
    """Return the codes nearest under the stored scales; where such a scale is 0, those that the search found."""
    unit = (half_values(d) * scales)[..., None]
    codes = np.clip(nearest(grouped(x, 16) / unit), -center, center - 1) + np.float32(center)
    return _bytes(np.where(unit != 0, codes, first.T.reshape(codes.shape)).reshape(x.shape))


def _encode_q3(x: Float32) -> Fields:
    scales, first = refined_scale(_columns(x, 16), 4)
    scales = scales.reshape(len(x), 16)
    largest = extreme(scales)[:, None]
    steps = np.float32(-32) / largest
    some = largest != 0
    scale_codes = np.where(some, np.clip(nearest(steps * scales), -32, 31), np.float32(-32))
    d = half_codes(np.where(some, np.float32(1) / steps, np.float32(0)))
    codes = _requantized(x, d, scale_codes, first, 4)
    stored = _bytes(scale_codes + np.float32(32))
    return {
        "hmask": interleave(codes >> np.uint8(2), 8, 32),
        "qs": interleave(codes & np.uint8(3), 4, 32),
        "scales_l": interleave(stored & np.uint8(15), 2, 8),
        "scales_h": interleave(stored >> np.uint8(4), 4, 4),
        "d": d,
    }


def _decode_q3(fields: Fields, fmt: Packed) -> Float32:
    codes = deinterleave(fields["qs"], 4, 32) | deinterleave(fields["hmask"], 8, 32) << 2
    scales = deinterleave(fields["scales_l"], 2, 8) | deinterleave(fields["scales_h"], 4, 4) << 4
    return _centered(half_values(fields["d"]), scales.astype(np.float32) - 32, codes, 4)


def _centered(d: Float32, scales: Float32, codes: NDArray[Any], center: int) -> Float32:
    """Return `d * scale * (code - center)`."""
    groups = grouped(codes, 16).astype(np.float32) - np.float32(center)
    return ((d * scales)[..., None] * groups).reshape(codes.shape)


def _encode_q6(x: Float32) -> Fields:
    scales, first = signed_scale(_columns(x, 16), 32)
    scales = scales.reshape(len(x), 16)
    largest = extreme(scales)[:, None]
    steps = np.float32(-128) / largest
    some = np.abs(largest) >= TINY
    scale_codes = np.where(some, np.minimum(nearest(steps * scales), 127), np.float32(0))
    d = half_codes(np.where(some, np.float32(1) / steps, np.float32(0)))
    codes = np.where(some, _requantized(x, d, scale_codes, first, 32), np.uint8(0))
    high, low = interleave(codes >> np.uint8(4), 4, 32), interleave(codes & np.uint8(15), 2, 64)
    return {"ql": low, "qh": high, "scales": _bytes(scale_codes), "d": d}


def _decode_q6(fields: Fields, fmt: Packed) -> Float32:
    codes = deinterleave(fields["ql"], 2, 64) | deinterleave(fields["qh"], 4, 32) << 4
    return _centered(half_values(fields["d"]), signed(fields["scales"]), codes, 32)


def _encode_q8(x: Float32) -> Fields:
    largest = extreme(x)[:, None]
    steps = np.float32(-127) / largest
    some = largest != 0
    codes = np.where(some, np.minimum(nearest(steps * x), 127), np.float32(0))
    d = np.where(some, np.float32(1) / steps, np.float32(0))
    sums = codes.reshape(len(x), 16, 16).sum(axis=-1).astype(np.int16)
    return {"d": d.view(np.uint32), "qs": _bytes(codes), "bsums": sums.view(np.uint16)}


def _decode_q8(fields: Fields, fmt: Packed) -> Float32:
    return fields["d"].astype(np.uint32).view(np.float32) * signed(fields["qs"])


#: The NaN that marks a spoiled block of Q8_K, whose scale is float32.
_NAN_FLOAT32 = 0x7FC00000

SCHEMES: dict[str, Scheme] = {
    "q2_k": Scheme(super_blocks(_encode_q2), _decode_q2),
    "q3_k": Scheme(super_blocks(_encode_q3), _decode_q3),
    "q4_k": Scheme(super_blocks(_encode_q4), _decode_q4),
    "q5_k": Scheme(super_blocks(_encode_q5), _decode_q5),
    "q6_k": Scheme(super_blocks(_encode_q6), _decode_q6),
    "q8_k": Scheme(super_blocks(_encode_q8, nan_code=_NAN_FLOAT32), _decode_q8),
}
