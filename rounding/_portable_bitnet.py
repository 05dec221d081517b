"""The packings of bitnet.cpp, iFairy and DFloat11 as array code: `lowp.rounding.schemes` step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import RangeError
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_fp4_recipes import over, times
from lowp.rounding._portable_numbers import constant, float32
from lowp.rounding._portable_shapes import _gathered, joined, largest
from lowp.rounding._portable_structured import any_of, present, scale_field, scale_values, shared_mean
from lowp.rounding.request import Request
from lowp.rounding.schemes.bitnet import _FLOOR, _WORD, tl1_order, tl2_orders
from lowp.rounding.schemes.complex import _FLOOR as _LEAST_SCALE
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import check_whole

Fields = dict[str, Any]


def quantize_weights(xp: Any, w: Any, real: Any) -> tuple[Any, Any]:
    """Return trits and their scale: the magnitude of ternary weights, else b1.58's mean; `w` holds float32 numbers."""
    size = doubles.size_of(xp, w)
    bad = any_of(xp, size >= doubles.INFINITE, "tensor")
    size = xp.where(bad, 0, size)
    top = largest(xp, size, (0, 1, 2))
    ternary = ~any_of(xp, (size != 0) & (size != top), "tensor")
    magnitude = doubles.from_bits(xp, size)
    mean = doubles.to_float32(xp, shared_mean(xp, magnitude, real, "tensor"))
    one = constant(xp, 1.0, mean)
    s = over(xp, one, xp.maximum(mean, float(_FLOOR)))
    far = xp.where(ternary, size != 0, times(xp, magnitude, s) > 0.5)
    some = xp.cast(any_of(xp, far, "tensor"), "float64")
    scale = xp.where(ternary, doubles.from_bits(xp, top), over(xp, one, s) * some)
    signs = xp.where(doubles.bits_of(xp, w) < 0, -1, xp.cast(far, "int64"))
    return xp.where(far, signs, 0), xp.where(bad, math.nan, scale)


def _trits_and_scale(xp: Any, blocks: Any, fmt: Packed, request: Request) -> tuple[Any, Any]:
    only_nearest(request, fmt)
    if isinstance(fmt.block_size, tuple):
        check_whole(request, fmt)
    trits, scale = quantize_weights(xp, float32(xp, blocks), present(xp, blocks, request))
    return trits, scale_field(xp, scale, fmt)[0]


def _encode_i2(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    trits, scale = _trits_and_scale(xp, blocks, fmt, request)
    four = (trits + 1).reshape((*trits.shape[:-1], 4, -1))
    qs = four[..., 0, :] << 6 | four[..., 1, :] << 4 | four[..., 2, :] << 2 | four[..., 3, :]
    return {"qs": qs, "scale": scale, "alignment": xp.constant(np.zeros(7, np.int64), qs)}


def _decode_i2(xp: Any, fields: Fields, fmt: Packed) -> Any:
    qs = fields["qs"]
    codes = joined(xp, [qs >> shift & 3 for shift in (6, 4, 2, 0)], -1)
    return (xp.cast(codes, "float64") - 1.0) * scale_values(xp, fields["scale"], fmt)


def _in_order(xp: Any, x: Any, order: NDArray[np.int64]) -> Any:
    """Return `x[..., order]`."""
    return x if np.array_equal(order, np.arange(order.size)) else _gathered(xp, x, order)


def _nibbles(numbers: Any) -> Any:
    return numbers[..., 0::2] << 4 | numbers[..., 1::2]


def _from_nibbles(xp: Any, packed: Any) -> Any:
    both = joined(xp, [(packed >> 4 & 15)[..., None], (packed & 15)[..., None]], -1)
    return both.reshape((*packed.shape[:-1], -1))


def _digits(xp: Any, numbers: Any, first: int, count: int) -> Any:
    """Return as float64 the `count` trits of each number from `first` on, the first with the highest power of three."""
    known = np.arange(first, first + 32)
    table = known[:, None] // 3 ** np.arange(count)[::-1] % 3 - 1.0
    index = (numbers - first)[..., None] * count + xp.constant(np.arange(count), numbers)
    return xp.take(xp.constant(table.reshape(-1), numbers), index).reshape((*numbers.shape[:-1], -1))


def _encode_tl1(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    trits, scale = _trits_and_scale(xp, blocks, fmt, request)
    pairs = 3 * trits[..., 0::2] + trits[..., 1::2] + 4
    return {"indices": _nibbles(_in_order(xp, pairs, tl1_order(fmt))), "scale": scale}


def _decode_tl1(xp: Any, fields: Fields, fmt: Packed) -> Any:
    pairs = _in_order(xp, _from_nibbles(xp, fields["indices"]), np.argsort(tl1_order(fmt)))
    return _digits(xp, pairs, 0, 2) * scale_values(xp, fields["scale"], fmt)


def _encode_tl2(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    trits, scale = _trits_and_scale(xp, blocks, fmt, request)
    triples = 9 * trits[..., 0::3] + 3 * trits[..., 1::3] + trits[..., 2::3]
    order, sign_order = tl2_orders(fmt)
    negative = xp.cast(triples < 0, "int64")
    bits = _in_order(xp, negative, sign_order).reshape((*triples.shape[:-1], -1, _WORD))
    words = bits[..., 0]
    for i in range(1, _WORD):
        words = words << 1 | bits[..., i]
    size = _in_order(xp, xp.where(negative == 1, -triples, triples), order)
    return {"indices": _nibbles(size), "signs": words, "scale": scale}


def _decode_tl2(xp: Any, fields: Fields, fmt: Packed) -> Any:
    order, sign_order = tl2_orders(fmt)
    size = _in_order(xp, _from_nibbles(xp, fields["indices"]), np.argsort(order))
    shifts = xp.constant(np.arange(_WORD)[::-1].copy(), size)
    bits = (fields["signs"][..., None] >> shifts & 1).reshape(size.shape)
    negative = _in_order(xp, bits, np.argsort(sign_order)) == 1
    return _digits(xp, xp.where(negative, -size, size) + 13, -2, 3) * scale_values(xp, fields["scale"], fmt)


# iFairy


def _ordered(xp: Any, x: Any) -> Any:
    """Return integers in the order of numbers, both zeros 0."""
    size = doubles.size_of(xp, x)
    return xp.where(doubles.bits_of(xp, x) < 0, -size, size)


def quadrants(xp: Any, re: Any, im: Any) -> Any:
    """Return the power of i nearest in argument, ties to the next one counterclockwise; 0 where a part is NaN."""
    a, b = _ordered(xp, re), _ordered(xp, im)
    codes = xp.where((b <= a) & (b < -a), 3, xp.full_like(a, 0))
    codes = xp.where((b > a) & (b <= -a), 2, codes)
    codes = xp.where((b >= a) & (b > -a), 1, codes)
    return xp.where(doubles.is_nan(xp, re) | doubles.is_nan(xp, im), 0, codes)


def _encode_fairy(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    check_whole(request, fmt)
    x = doubles.widen(xp, blocks)
    codes = quadrants(xp, x[..., :1], x[..., 1:])
    infinite = ~doubles.is_finite(xp, x)
    size = xp.where(infinite, 0.0, doubles.magnitude(xp, x))
    real = codes & 1 == 0
    means = [
        shared_mean(xp, size[..., :1], real, "tensor"),
        shared_mean(xp, size[..., 1:], ~real, "tensor"),
    ]
    wanted = xp.maximum(joined(xp, means, -1), _LEAST_SCALE)
    wanted = xp.where(any_of(xp, infinite, "tensor"), math.nan, wanted)
    return {"codes": codes, "scales": scale_field(xp, wanted, fmt, "scales")[0]}


def _decode_fairy(xp: Any, fields: Fields, fmt: Packed) -> Any:
    codes = fields["codes"]
    parts = [np.array([1.0, 0.0, -1.0, 0.0]), np.array([0.0, 1.0, 0.0, -1.0])]
    units = joined(xp, [xp.take(xp.constant(part, codes), codes & 3) for part in parts], -1)
    return units * scale_values(xp, fields["scales"], fmt, "scales")


# DFloat11


def _bfloat16(xp: Any, x: Any) -> tuple[Any, Any]:
    """Return the bits of bfloat16 numbers as float32 ones in int64, and whether each number is one."""
    if xp.dtype_name(x) == "float32":
        bits = xp.cast(xp.bits(x), "int64") & 0xFFFFFFFF
        return bits, bits & 0xFFFF == 0
    wide = doubles.bits_of(xp, x)
    sign = xp.cast(wide < 0, "int64") << 31
    narrow = doubles.narrow(xp, x, "float32")
    bits = xp.cast(xp.bits(narrow), "int64") & 0xFFFFFFFF
    same = doubles.bits_of(xp, doubles.widen(xp, narrow)) == wide
    payload = wide & doubles.FRACTION
    nan = doubles.is_nan(xp, x)
    quiet = (payload >> 51 == 1) & (payload & ((1 << 45) - 1) == 0)
    return (
        xp.where(nan, sign | 0x7F800000 | payload >> 29, bits),
        xp.where(nan, quiet, same & (bits & 0xFFFF == 0)),
    )


def _encode_dfloat11(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Split bfloat16 numbers; where a compiler traces, others become NaN."""
    bits, exact = _bfloat16(xp, blocks)

    def error() -> RangeError:
        found = f"{float(blocks[~exact][0])!r}, which is" if xp.is_concrete(blocks) else "what is"
        return RangeError(f"x holds {found} no bfloat16 number; round x to bfloat16 first.")

    if not xp.require(exact, blocks, error):
        bits = xp.where(exact, bits, 0x7FC00000)
    code = bits >> 16
    return {"exponent": code >> 7 & 0xFF, "sign_mantissa": code >> 8 & 0x80 | code & 0x7F}


def _decode_dfloat11(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Return float32 numbers, whose NaN keep their bits."""
    rest = fields["sign_mantissa"]
    bits = (rest & 0x80) << 8 | fields["exponent"] << 7 | rest & 0x7F
    return xp.floats(xp.cast(bits << 16, "int32"), "float32")


Coders = tuple[Callable[[Any, Any, Packed, Request], Fields], Callable[[Any, Fields, Packed], Any]]
CODERS: dict[str, Coders] = {
    "bitnet.i2_s": (_encode_i2, _decode_i2),
    "bitnet.tl1": (_encode_tl1, _decode_tl1),
    "bitnet.tl2": (_encode_tl2, _decode_tl2),
    "complex.powers_of_i": (_encode_fairy, _decode_fairy),
    "lossless.dfloat11": (_encode_dfloat11, _decode_dfloat11),
}
