"""ggml's types of signs and of -1, 0 and 1 as array code: `schemes.ggml_ternary` and Q1_0 step by step."""

from __future__ import annotations

from typing import Any

from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_fp4_recipes import times
from lowp.rounding._portable_ggml import (
    Coders,
    Fields,
    half_away,
    half_codes,
    half_values,
    interleave,
    inverse,
    source,
    truncated,
)
from lowp.rounding._portable_ggml_fits import ordered_sum
from lowp.rounding._portable_ggml_k import deinterleave, divided, super_blocks
from lowp.rounding._portable_numbers import amax
from lowp.rounding._portable_shapes import joined, transposed
from lowp.rounding.request import Request
from lowp.rounding.schemes.ggml_ternary import _PARTS


def _encode_q1(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Q1_0: signs, 0 among the positive, times the mean magnitude."""
    x = source(xp, blocks, fmt, request)
    total = ordered_sum(xp, transposed(xp, doubles.magnitude(xp, x), (2, 0, 1)))
    return {"d": half_codes(xp, divided(xp, total, x.shape[-1]))[..., None], "qs": xp.cast(x >= 0, "int64")}


def _decode_q1(xp: Any, fields: Fields, fmt: Packed) -> Any:
    d = half_values(xp, fields["d"])
    return xp.where(fields["qs"] == 1, d, -d)


def _trits(xp: Any, x: Any) -> tuple[Any, Any]:
    """Return the float16 codes of the scales, and 0, 1, 2 for -1, 0, 1."""
    d = amax(xp, x)
    return half_codes(xp, d), truncated(xp, half_away(xp, times(xp, x, inverse(xp, d)))) + 1


def _scaled(xp: Any, fields: Fields, trits: Any) -> Any:
    return times(xp, xp.cast(trits - 1, "float64"), half_values(xp, fields["d"]))


def _digits_to_bytes(digits: Any) -> Any:
    """Return bytes that hold digits (..., digit, byte) as a fraction of 3^5, first digit first, rounded up."""
    number = digits[..., 0, :]
    for place in range(1, 5):
        number = number * 3 + (digits[..., place, :] if place < digits.shape[-2] else 0)
    return (number * 256 + 242) // 243


def _bytes_to_digits(xp: Any, packed: Any, count: int) -> Any:
    """Return the first `count` digits of bytes: all first digits, then all second ones, and so on."""
    return joined(xp, [(packed * 3**place & 255) * 3 >> 8 for place in range(count)], -1)


def _encode_tq1(xp: Any, x: Any) -> Fields:
    d, trits = _trits(xp, x)
    parts = [_digits_to_bytes(trits[..., a:b].reshape((*x.shape[:-1], (b - a) // size, size))) for a, b, size in _PARTS]
    return {"qs": joined(xp, parts[:2], -1), "qh": parts[2], "d": d}


def _decode_tq1(xp: Any, fields: Fields, fmt: Packed) -> Any:
    packed = (fields["qs"][..., :32], fields["qs"][..., 32:], fields["qh"])
    digits = [_bytes_to_digits(xp, part, count) for part, count in zip(packed, (5, 5, 4), strict=True)]
    return _scaled(xp, fields, joined(xp, digits, -1))


def _encode_tq2(xp: Any, x: Any) -> Fields:
    d, trits = _trits(xp, x)
    return {"qs": interleave(xp, trits, 4, 32), "d": d}


def _decode_tq2(xp: Any, fields: Fields, fmt: Packed) -> Any:
    return _scaled(xp, fields, deinterleave(xp, fields["qs"], 4, 32))


CODERS: dict[str, Coders] = {
    "ggml.q1_0": (_encode_q1, _decode_q1),
    "ggml_ternary.tq1_0": (super_blocks(_encode_tq1), _decode_tq1),
    "ggml_ternary.tq2_0": (super_blocks(_encode_tq2), _decode_tq2),
}
