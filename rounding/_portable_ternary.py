"""Ternary formats as array code: `lowp.rounding.schemes.ternary` step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_fp4_recipes import times
from lowp.rounding._portable_ggml import constant, half_codes, half_values
from lowp.rounding._portable_numbers import float32
from lowp.rounding._portable_scales import iterated, times_power
from lowp.rounding._portable_shapes import joined, largest, padded, transposed
from lowp.rounding._portable_structured import (
    any_of,
    normalised,
    present,
    restored,
    scale_field,
    scale_values,
    shared_mean,
    summed,
)
from lowp.rounding._ridge import solved
from lowp.rounding.request import Request
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.ternary import (
    _DIGITS,
    _ITERATIONS,
    _PER_BYTE,
    _RIDGE,
    _TWN_THRESHOLD,
    _trit_table,
    sherry_table,
)

Fields = dict[str, Any]


def pack_trits(xp: Any, trits: Any) -> Any:
    """Return bytes of five trits each, along the last axis."""
    digits = padded(xp, trits + 1, (0,) * (trits.ndim - 1) + (-trits.shape[-1] % _PER_BYTE,))
    places = xp.iota(tuple(digits.shape), digits.ndim - 1, "int64", trits)
    digits = xp.where(places < trits.shape[-1], digits, 1).reshape((*digits.shape[:-1], -1, _PER_BYTE))
    total = digits[..., 0]
    for place in range(1, _PER_BYTE):
        total = total + digits[..., place] * int(_DIGITS[place])
    return total


def unpack_trits(xp: Any, packed: Any, count: int) -> Any:
    """Return the first `count` trits of bytes along the last axis, as float64."""
    table = (np.arange(256)[:, None] // _DIGITS % 3 - 1.0).reshape(-1)
    places = xp.constant(np.arange(_PER_BYTE), packed)
    trits = xp.take(xp.constant(table, packed), (packed & 255)[..., None] * _PER_BYTE + places)
    return trits.reshape((*packed.shape[:-1], -1))[..., :count]


# Planes


def _signed(xp: Any, digits: Any, x: Any) -> Any:
    """Return `x` times the trit, 0, 1 or -1, that a digit of a row of sums stands for."""
    return xp.where(digits == 0, 0.0, xp.where(digits == 1, x, -x))


def _digits(rows: Any, planes: int) -> list[Any]:
    """Return the digit of each plane in rows of `_trit_table`."""
    return [rows // 3 ** (planes - 1 - k) % 3 for k in range(planes)]


def _nearest_sums(xp: Any, w: Any, scales: Any) -> Any:
    """Return for each value the row of the table whose sum with the scales is nearest; scales are (..., planes)."""
    table = _trit_table(scales.shape[-1])
    levels = scales[..., :1] * xp.constant(table[:, 0], w)
    for k in range(1, scales.shape[-1]):
        levels = levels + scales[..., k : k + 1] * xp.constant(table[:, k], w)
    each = [levels[..., row : row + 1] for row in range(len(table))]
    low, high = each[0], each[0]
    for level in each[1:]:
        low, high = xp.minimum(low, level), xp.maximum(high, level)
    w = xp.minimum(xp.maximum(w, low), high)
    rows, best = xp.full_like(w, 0, "int64"), doubles.magnitude(xp, w - each[0])
    for row, level in enumerate(each[1:], 1):
        distance = doubles.magnitude(xp, w - level)
        closer = distance < best
        rows = xp.where(closer, row, rows)
        best = xp.where(closer, distance, best)
    return rows


def _ridge_scales(xp: Any, w: Any, rows: Any, planes: int) -> Any:
    """Return the scales that fit values to their trits best, (..., planes)."""
    digits = _digits(rows, planes)
    trits = [xp.where(d == 2, -1, d) for d in digits]
    counts = [[xp.cast((a * b).sum(-1)[..., None], "float64") for b in trits] for a in trits]
    matrix = [[n + _RIDGE * (i == j) for j, n in enumerate(row)] for i, row in enumerate(counts)]
    right = [summed(xp, _signed(xp, d, w)) for d in digits]

    def multiply(a: Any, b: Any) -> Any:
        return doubles.product(xp, a, b)

    def divide(a: Any, b: Any) -> Any:
        return doubles.quotient(xp, a, b)

    return joined(xp, solved(matrix, right, multiply, divide), -1)


def _fitted(xp: Any, step: Callable[[Any], Any], scales: Any) -> Any:
    """Return the scales after all steps; where numbers can be looked at, once a step moves none."""
    if xp.name == "jax" or not xp.is_concrete(scales):
        return iterated(xp, step, scales, _ITERATIONS)
    for _ in range(_ITERATIONS):
        before, scales = scales, step(scales)
        if not xp.any(doubles.bits_of(xp, before) != doubles.bits_of(xp, scales)):
            break
    return scales


def _finite(xp: Any, blocks: Any) -> tuple[Any, Any]:
    """Return values, those of blocks with NaN or infinity as 0, and which blocks these are."""
    x = doubles.widen(xp, blocks)
    bad = any_of(xp, ~doubles.is_finite(xp, x), "block")
    return xp.where(bad, 0.0, x), bad


def _encode_planes(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    planes: int = fmt.option("planes")
    w, bad = _finite(xp, blocks)
    mean = shared_mean(xp, doubles.magnitude(xp, w), present(xp, w, request), "block")
    normal, exponents = normalised(xp, w)
    first = times_power(xp, mean, -exponents)
    others = [doubles.quotient(xp, first, constant(xp, 3.0**k, first)) for k in range(1, planes)]
    start = joined(xp, [first, *others], -1)
    fit = _fitted(xp, lambda s: _ridge_scales(xp, normal, _nearest_sums(xp, normal, s), planes), start)
    codes, values = scale_field(xp, xp.where(bad, math.nan, restored(xp, fit, exponents)), fmt, "scales")
    rows = _nearest_sums(xp, w, xp.where(bad, 0.0, values))
    packed = [pack_trits(xp, xp.where(d == 2, -1, d)) for d in _digits(rows, planes)]
    return {"trits": joined(xp, packed, -1), "scales": codes}


def _encode_twn(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    w, bad = _finite(xp, blocks)
    size = doubles.magnitude(xp, w)
    mean = shared_mean(xp, size, present(xp, w, request), "block")
    threshold = doubles.product(xp, mean, xp.full_like(mean, _TWN_THRESHOLD))
    kept = doubles.bits_of(xp, size) > doubles.bits_of(xp, threshold)
    wanted = xp.where(bad, math.nan, shared_mean(xp, size, kept, "block"))
    signs = xp.where(doubles.bits_of(xp, w) < 0, -1, xp.cast(kept, "int64"))
    return {"trits": pack_trits(xp, xp.where(kept, signs, 0)), "scales": scale_field(xp, wanted, fmt, "scales")[0]}


def _decode_planes(xp: Any, fields: Fields, fmt: Packed) -> Any:
    *lead, width = fields["trits"].shape
    planes: int = fmt.option("planes")
    trits = unpack_trits(xp, fields["trits"].reshape((*lead, planes, width // planes)), fmt.block_elements)
    scales = scale_values(xp, fields["scales"], fmt, "scales")
    total = trits[..., 0, :] * scales[..., :1]
    for k in range(1, planes):
        total = total + trits[..., k, :] * scales[..., k : k + 1]
    return xp.where(doubles.is_zero(xp, total), 0.0, total)


# Three signs in four values


def _first_smallest(xp: Any, keys: Any) -> Any:
    """Return the place of the first smallest integer of four along the last axis."""
    best, place = keys[..., 0], xp.full_like(keys[..., 0], 0)
    for i in range(1, 4):
        less = keys[..., i] < best
        best = xp.where(less, keys[..., i], best)
        place = xp.where(less, i, place)
    return place


def sherry_codes(xp: Any, quads: Any, zero: Any) -> Any:
    """Return the codes of groups of four values along the last axis, given the places of their zeros."""
    below = (doubles.bits_of(xp, quads) < 0) & ~doubles.is_zero(xp, quads) & ~doubles.is_nan(xp, quads)
    negative = xp.cast(below, "int64")
    first, second, third = (xp.where(zero > i, negative[..., i], negative[..., i + 1]) for i in range(3))
    return first << 4 | zero << 2 | (third ^ first) << 1 | (second ^ first)


def _signs(xp: Any, codes: Any) -> Any:
    """Return the four values, -1, 0 or 1, of codes along a new last axis."""
    index = (codes & 31)[..., None] * 4 + xp.constant(np.arange(4), codes)
    return xp.take(xp.constant(sherry_table().reshape(-1), codes), index)


def _encode_sherry(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    x = doubles.widen(xp, blocks)
    per = fmt.fields[-1].per
    quads = x.reshape((*x.shape[:-1], -1, 4))
    size = xp.where(doubles.is_nan(xp, quads), -1, doubles.size_of(xp, quads))
    zero = _first_smallest(xp, size)
    kept = (zero[..., None] != xp.constant(np.arange(4), zero)).reshape(x.shape)
    real = present(xp, x, request)
    infinite = ~doubles.is_finite(xp, x)
    magnitude = xp.where(infinite, 0.0, doubles.magnitude(xp, x))
    mean = shared_mean(xp, magnitude, kept if real is None else kept & real, per)
    wanted = xp.where(any_of(xp, infinite, per), math.nan, mean)
    return {"codes": sherry_codes(xp, quads, zero), "scale": scale_field(xp, wanted, fmt)[0]}


def _decode_sherry(xp: Any, fields: Fields, fmt: Packed) -> Any:
    codes = fields["codes"]
    return _signs(xp, codes).reshape((*codes.shape[:-1], -1)) * scale_values(xp, fields["scale"], fmt)


def _encode_stq(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    values = float32(xp, blocks)
    nan = doubles.is_nan(xp, values)
    top = largest(xp, xp.where(nan, 0, doubles.size_of(xp, values)), (2,))
    lead = tuple(values.shape[:-1])
    quads = transposed(xp, values.reshape((*lead, 4, 4, 16)), (0, 1, 2, 4, 3)).reshape((*lead, 64, 4))
    unknown = doubles.is_nan(xp, quads)
    zero = _first_smallest(xp, xp.where(unknown, doubles.INFINITE, doubles.size_of(xp, quads)))
    codes = sherry_codes(xp, quads, xp.where(unknown[..., 0], 0, zero))
    return {"qs": codes & 15, "sign": codes >> 4, "d": half_codes(xp, doubles.from_bits(xp, top))}


def _decode_stq(xp: Any, fields: Fields, fmt: Packed) -> Any:
    codes = fields["qs"] | fields["sign"] << 4
    lead = tuple(codes.shape[:-1])
    signs = transposed(xp, _signs(xp, codes).reshape((*lead, 4, 16, 4)), (0, 1, 2, 4, 3)).reshape((*lead, 256))
    return times(xp, signs, half_values(xp, fields["d"]))


Coders = tuple[Callable[[Any, Any, Packed, Request], Fields], Callable[[Any, Fields, Packed], Any]]
CODERS: dict[str, Coders] = {
    "ternary.planes": (_encode_planes, _decode_planes),
    "ternary.twn": (_encode_twn, _decode_planes),
    "ternary.sherry": (_encode_sherry, _decode_sherry),
    "ternary.stq1_0": (_encode_stq, _decode_stq),
}
