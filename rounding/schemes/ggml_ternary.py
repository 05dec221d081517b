"""ggml's ternary types: -1, 0 and 1 times the largest magnitude of 256 values.

Source: ggml-org/ggml, `src/ggml-quants.c`: `quantize_row_tq1_0_ref`, `quantize_row_tq2_0_ref` and their inverses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.packed import Packed
from lowp.rounding._fp4_recipes import Float32
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.ggml_steps import (
    c_integer,
    deinterleave,
    grouped,
    half_away,
    half_codes,
    half_values,
    interleave,
    inverse,
    super_blocks,
)

#: Powers of three that bring a digit of a byte to the front.
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)[:, None]
#: Elements and bytes of the parts of a TQ1_0 block: 32 bytes of 5 digits, 16 of 5 and 4 of 4.
_PARTS = ((0, 160, 32), (160, 240, 16), (240, 256, 4))


def _trits(x: Float32) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return the float16 codes of the scales, and 0, 1, 2 for -1, 0, 1."""
    d = np.abs(x).max(axis=-1, keepdims=True)
    return half_codes(d), (c_integer(half_away(x * inverse(d))) + 1).astype(np.uint8)


def _scaled(fields: Fields, trits: NDArray[Any]) -> Float32:
    return (trits.astype(np.float32) - np.float32(1)) * half_values(fields["d"])


def _digits_to_bytes(digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return bytes that hold digits (..., digit, byte) as a fraction of 3^5, first digit first, rounded up."""
    number = np.zeros((*digits.shape[:-2], digits.shape[-1]), np.uint16)
    for place in range(5):
        number *= 3
        if place < digits.shape[-2]:
            number += digits[..., place, :]
    return ((number.astype(np.uint32) * 256 + 242) // 243).astype(np.uint8)


def _bytes_to_digits(packed: NDArray[Any], count: int) -> NDArray[Any]:
    """Return the first `count` digits of bytes: all first digits, then all second ones, and so on."""
    fraction = packed[..., None, :].astype(np.uint8) * _POWERS[:count]
    return (fraction.astype(np.uint16) * 3 >> 8).reshape(*packed.shape[:-1], count * packed.shape[-1])


def _encode_tq1(x: Float32) -> Fields:
    d, trits = _trits(x)
    parts = [_digits_to_bytes(grouped(trits[:, a:b], size)) for a, b, size in _PARTS]
    return {"qs": np.concatenate(parts[:2], axis=-1), "qh": parts[2], "d": d}


def _decode_tq1(fields: Fields, fmt: Packed) -> Float32:
    packed = (fields["qs"][..., :32], fields["qs"][..., 32:], fields["qh"])
    digits = [_bytes_to_digits(part, count) for part, count in zip(packed, (5, 5, 4), strict=True)]
    return _scaled(fields, np.concatenate(digits, axis=-1))


def _encode_tq2(x: Float32) -> Fields:
    d, trits = _trits(x)
    return {"qs": interleave(trits, 4, 32), "d": d}


def _decode_tq2(fields: Fields, fmt: Packed) -> Float32:
    return _scaled(fields, deinterleave(fields["qs"], 4, 32))


SCHEMES: dict[str, Scheme] = {
    "tq1_0": Scheme(super_blocks(_encode_tq1), _decode_tq1),
    "tq2_0": Scheme(super_blocks(_encode_tq2), _decode_tq2),
}
