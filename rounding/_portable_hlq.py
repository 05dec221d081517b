"""HLQ as array code: `lowp.rounding.schemes.hlq` step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from lowp._errors import ArgumentError
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_numbers import amax
from lowp.rounding._portable_scales import exponents_of, iterated, present, scale_values, stored_scales, times_power
from lowp.rounding._portable_shapes import joined, largest, numpy_sum
from lowp.rounding.request import Request
from lowp.rounding.schemes.hlq import _FLOAT16, fits_int64, normal_matrix, scaled_inverse, with_bits, with_codes
from lowp.rounding.schemes.scaled_integers import only_nearest

Fields = dict[str, Any]
Numbers = tuple[Any, ...]
_MAX = float(np.finfo(np.float64).max)


def _nearest_codes(xp: Any, w: Any, coefficients: Numbers) -> Any:
    """Return the code of the sum nearest to each value; coefficients have one number per group."""
    levels = [reduce(add, with_bits(list(coefficients), code)) for code in range(1 << len(coefficients) - 1)]
    w = xp.maximum(xp.minimum(w, reduce(xp.maximum, levels)), reduce(xp.minimum, levels))
    best = doubles.magnitude(xp, w - levels[0])
    codes = xp.full_like(w, 0, "int64")
    for code, level in enumerate(levels[1:], 1):
        distance = doubles.magnitude(xp, w - level)
        closer = distance < best
        codes = xp.where(closer, code, codes)
        best = xp.where(closer, distance, best)
    return codes


def _least_squares(xp: Any, w: Any, codes: Any, real: Any, bits: int) -> Numbers:
    """Return the coefficients that fit codes to real values best."""
    every = xp.constant(np.arange(1 << bits)[:, None], codes)
    chosen = (codes[..., None, :] == every) & real[..., None, :]
    counts = xp.cast(chosen, "int64").sum(-1)
    sums = numpy_sum(xp, xp.where(chosen, w[..., None, :], 0.0))
    places = range(1 << bits)
    inverse, divisor = scaled_inverse(normal_matrix([counts[..., c, None] for c in places], bits), xp.where)
    moments = [reduce(add, with_codes([sums[..., c, None] for c in places], k)) for k in range(bits + 1)]
    divisor = xp.cast(divisor, "float64")
    rows = []
    for row in inverse:
        products = [doubles.product(xp, xp.cast(a, "float64"), b) for a, b in zip(row, moments, strict=True)]
        rows.append(doubles.quotient(xp, reduce(add, products), divisor))
    return tuple(rows)


def _end(xp: Any, w: Any, real: Any, sign: int) -> Any:
    """Return the largest real value, or for sign -1 the smallest, zeros as the positive one."""
    size = doubles.size_of(xp, w)
    key = xp.where(doubles.bits_of(xp, w) < 0, -size, size) * sign
    found = largest(xp, xp.where(real, key, -doubles.INFINITE), (w.ndim - 1,)) * sign
    ends = doubles.from_bits(xp, xp.where(found < 0, -found, found))
    return xp.where(found < 0, -ends, ends)


def _fitted(xp: Any, values: Any, real: Any, fmt: Packed) -> list[Any]:
    bits = fmt.fields[0].bits
    exponents = exponents_of(xp, amax(xp, values))
    w = times_power(xp, values, -exponents)
    low, high = _end(xp, w, real, -1), _end(xp, w, real, 1)
    step = doubles.quotient(xp, high - low, xp.full_like(low, (1 << bits) - 1))
    first = (*(step * 2.0**k for k in range(bits)), low)

    def alternated(coefficients: Numbers) -> Numbers:
        return _least_squares(xp, w, _nearest_codes(xp, w, coefficients), real, bits)

    found = iterated(xp, alternated, first, fmt.option("iterations"))
    return [xp.maximum(xp.minimum(times_power(xp, c, exponents), _MAX), -_MAX) for c in found]


def encode(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Alternate between nearest codes and least squares, and choose codes for the stored coefficients."""
    only_nearest(request, fmt)
    bits = fmt.fields[0].bits
    if not fits_int64(blocks.shape[-1], bits):
        raise ArgumentError(
            f"fmt={fmt.name!r} has groups so large that its least squares need integers of more than 64 bits; use "
            "lowp.quantize or lowp.encode with NumPy."
        )
    w = doubles.widen(xp, blocks)
    bad = ~doubles.is_finite(xp, amax(xp, w))
    w = xp.where(bad, 0.0, w)
    real = xp.constant(present(tuple(blocks.shape), request), w)
    found = [xp.where(bad, math.nan, c) for c in _fitted(xp, w, real, fmt)]
    stored, values = stored_scales(xp, joined(xp, found, -1), _FLOAT16)
    values = xp.where(bad, 0.0, values)
    codes = _nearest_codes(xp, w, tuple(values[..., k, None] for k in range(bits + 1)))
    return {"codes": codes, "coefficients": stored}


def decode(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Return the offset plus the scales whose bits the code has set."""
    codes, bits = fields["codes"], fmt.fields[0].bits
    coefficients = scale_values(xp, fields["coefficients"], _FLOAT16)
    values = xp.where(codes < 0, 0.0, coefficients[..., bits:])
    for k in range(bits):
        values = values + xp.where(codes >> k & 1 != 0, coefficients[..., k, None], 0.0)
    return values


Coders = tuple[Callable[[Any, Any, Packed, Request], Fields], Callable[[Any, Fields, Packed], Any]]
CODERS: dict[str, Coders] = {"hlq.fitted": (encode, decode)}
