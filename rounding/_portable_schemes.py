"""The schemes of packed formats that are array code: `lowp.rounding.schemes` step by step, for NumPy, torch and JAX.

Blocks are (rows, blocks, values), float32 or float64. Float32 steps run on float64 numbers that float32 holds, see
`_portable_doubles`. Fields are int64 arrays; `decode` returns float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.rounding import (
    _portable_bitnet,
    _portable_bitsandbytes,
    _portable_codebooks,
    _portable_ggml,
    _portable_ggml_iq,
    _portable_ggml_k,
    _portable_ggml_ternary,
    _portable_hif4,
    _portable_hlq,
    _portable_if4,
    _portable_outliers,
    _portable_pyramid,
    _portable_razor,
    _portable_ternary,
)
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable import decode_values, words
from lowp.rounding._portable_fp4_recipes import over, times
from lowp.rounding._portable_numbers import (
    amax,
    block_exponents,
    codes_of,
    constant,
    float32,
    float_bits,
    from_sign_magnitude,
    of_float_bits,
    power_of_two,
    repeated,
    rounded_magnitude,
    sign_magnitude,
)
from lowp.rounding._portable_shapes import joined, largest, numpy_sum
from lowp.rounding.modes import rounding
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request

Fields = dict[str, Any]
_E2M1 = Float(2, 1, bias=1, specials="finite")
_E4M3FN = Float(4, 3, specials="fn")
_NEAREST = scale_request("ties_to_even")


class Scheme(NamedTuple):
    """How a packed format is written and read by array code."""

    encode: Callable[[Any, Any, Packed, Request], Fields]
    decode: Callable[[Any, Fields, Packed], Any]


# MS-EDEN


def _hadamard(xp: Any, x: Any) -> Any:
    """Multiply the last axis by the orthonormal Walsh-Hadamard matrix."""
    size, half = x.shape[-1], 1
    while half < size:
        pairs = x.reshape((*x.shape[:-1], size // (2 * half), 2, half))
        low, high = pairs[..., :1, :], pairs[..., 1:, :]
        x = joined(xp, [low + high, low - high], -2).reshape(x.shape)
        half *= 2
    return x / constant(xp, math.sqrt(size), x)


def _signs(xp: Any, like: Any, request: Request, count: int) -> Any:
    from lowp.rounding._portable_words import signed

    low = xp.iota((count,), 0, "int32", like)
    drawn = words(xp, (request.key0, request.key1), (low, signed(1 << 31)))
    return xp.cast(drawn < 0, "int64")


def _or_zero(xp: Any, a: Any, b: Any) -> Any:
    """Return the float32 quotient, and 0 where b is 0."""
    return xp.where(doubles.is_zero(xp, b), 0.0, over(xp, a, b))


def _encode_eden(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    from lowp.rounding.schemes.eden import _NAN_SCALE, _SCALE_MAX, BLOCK, GROUP
    from lowp.rounding.schemes.scaled_integers import only_nearest

    only_nearest(request, fmt)
    x = float32(xp, blocks)
    bad = ~doubles.is_finite(xp, amax(xp, x))
    signs = _signs(xp, x, request, GROUP)
    clean = xp.where(bad, 0.0, x)
    rotated = doubles.to_float32(xp, _hadamard(xp, xp.where(signs == 1, -clean, clean)))
    bad = bad | ~doubles.is_finite(xp, amax(xp, rotated))
    z = xp.where(bad, 0.0, rotated).reshape((*x.shape[:2], GROUP // BLOCK, BLOCK))
    top = float(np.float32(_E2M1.max / fmt.option("override")))
    block_amax = amax(xp, z)
    whole = amax(xp, block_amax, (0, 1, 2, 3))
    tensor_scale = over(xp, over(xp, whole, constant(xp, float(_SCALE_MAX), whole)), constant(xp, top, whole))
    wanted = _or_zero(xp, over(xp, block_amax, constant(xp, top, block_amax)), tensor_scale)
    scale_codes = codes_of(xp, wanted, _E4M3FN, _NEAREST)
    scales = decode_values(xp, scale_codes, _E4M3FN, "float64")
    scaled = _or_zero(xp, z, times(xp, scales, tensor_scale))
    codes = codes_of(xp, scaled, _E2M1, scale_request("ties_to_away"))
    if fmt.option("corrected"):
        elements = decode_values(xp, codes, _E2M1, "float64")
        flat = (*x.shape[:2], GROUP)
        own, projected = (
            numpy_sum(xp, (scaled * scaled).reshape(flat)),
            numpy_sum(xp, (scaled * elements).reshape(flat)),
        )
        some = projected > 0
        factor = xp.where(some, own / xp.where(some, projected, 1.0), 1.0)
        corrected = doubles.to_float32(xp, doubles.product(xp, scales[..., 0], factor[..., None]))
        drawn = request._replace(mode=rounding("stochastic"))
        scale_codes = codes_of(xp, corrected, _E4M3FN, drawn)[..., None]
    return {
        "codes": codes.reshape(x.shape),
        "scales": xp.where(bad, _NAN_SCALE, scale_codes[..., 0]),
        "tensor_scale": float_bits(xp, tensor_scale).reshape(1),
        "signs": signs,
    }


def _decode_eden(xp: Any, fields: Fields, fmt: Packed) -> Any:
    from lowp.rounding.schemes.eden import BLOCK, GROUP

    codes = fields["codes"]
    elements = decode_values(xp, codes, _E2M1, "float64").reshape((*codes.shape[:2], GROUP // BLOCK, BLOCK))
    scales = decode_values(xp, fields["scales"], _E4M3FN, "float64")[..., None]
    units = elements * scales * of_float_bits(xp, fields["tensor_scale"])
    back = _hadamard(xp, units.reshape(codes.shape))
    return xp.where(fields["signs"] == 1, -back, back)


# Shared microexponents


def _encode_microexponents(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    bits: int = fmt.option("magnitude_bits")
    x = doubles.widen(xp, blocks)
    bad = ~doubles.is_finite(xp, amax(xp, x))
    x = xp.where(bad, 0.0, x)
    pairs = block_exponents(xp, amax(xp, x.reshape((*x.shape[:-1], 8, 2))))[..., 0]
    shared = largest(xp, pairs, (pairs.ndim - 1,))
    shifts = xp.cast(pairs < shared, "int64")
    unit = power_of_two(xp, repeated(xp, shared - shifts, 2) - (bits - 1))
    n = rounded_magnitude(xp, x, unit, (1 << bits) - 1, request)
    return {
        "codes": sign_magnitude(xp, x, n, bits),
        "exponents": xp.where(bad, 255, shared + 127),
        "shifts": xp.where(bad, 0, shifts),
    }


def _decode_microexponents(xp: Any, fields: Fields, fmt: Packed) -> Any:
    bits: int = fmt.option("magnitude_bits")
    exponents = fields["exponents"]
    power = power_of_two(xp, exponents - 127 - repeated(xp, fields["shifts"], 2) - (bits - 1))
    return xp.where(exponents == 255, math.nan, from_sign_magnitude(xp, fields["codes"], bits) * power)


SCHEMES: dict[str, Scheme] = {
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_bitsandbytes.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_codebooks.CODERS.items()},
    "eden.ms_eden": Scheme(_encode_eden, _decode_eden),
    "shared_exponents.microexponents": Scheme(_encode_microexponents, _decode_microexponents),
    "fouroversix.integer_or_float": Scheme(_portable_if4.encode, _portable_if4.decode),
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_ggml.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_hif4.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_ggml_k.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_ggml_iq.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_ggml_ternary.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_razor.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_hlq.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_outliers.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_ternary.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_pyramid.CODERS.items()},
    **{name: Scheme(encode, decode) for name, (encode, decode) in _portable_bitnet.CODERS.items()},
}
