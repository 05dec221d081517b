"""HLQ, the hierarchical linear quantization of ELUTQ: a value is an offset plus the scales whose bits its code has set.

`w ~ z + s_0 b_0 + ... + s_(q-1) b_(q-1)`: bit `k` of a code belongs to `s_k`. A group starts from even spacing,
`s_k = 2^k (max - min) / (2^q - 1)`, `z = min`, and alternates: every value takes the nearest of the `2^q` sums (of
equally near ones the lowest code), then scales and offset are the least-squares solution for these codes (of several
solutions the smallest). At the end coefficients are rounded to float16, scales before the offset, and codes chosen for
the rounded ones. Arithmetic is float64 where the repository has float32; the normal matrix counts values, and its
pseudo-inverse is a quotient of integers, so that every machine finds the same. The zeros that fill up a last, shorter
group do not count. A group with NaN or infinity is all NaN.
Source: ELUTQ, arXiv:2510.19482; Nkniexin/ELUTQ, `GPTQ/quant.py`, the alternating form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import only_nearest, stored_scales
from lowp.rounding.schemes.structured import normalised, present, restored

_FLOAT16 = Float(5, 10)
Float64 = NDArray[np.float64]


def with_bits(values: list[Any], code: int) -> list[Any]:
    """Return those of the values, one for each bit and a last one for the offset, that a code selects."""
    *scales, offset = values
    return [*(scale for k, scale in enumerate(scales) if code >> k & 1), offset]


def with_codes(values: list[Any], bit: int) -> list[Any]:
    """Return those of the values, one for each code, whose codes have a bit set; for the bit of the offset all."""
    return [value for code, value in enumerate(values) if code >> bit & 1 or 1 << bit == len(values)]


def nearest_codes(w: Float64, coefficients: Float64) -> NDArray[np.uint8]:
    """Return the code of the sum nearest to each value; `w` is (groups, values), coefficients (groups, bits + 1)."""
    bits = coefficients.shape[-1] - 1
    parts = [coefficients[:, k : k + 1] for k in range(bits + 1)]
    levels = np.hstack([reduce(add, with_bits(parts, code)) for code in range(1 << bits)])
    w = np.clip(w, levels.min(axis=-1, keepdims=True), levels.max(axis=-1, keepdims=True))  # far off, distances tie
    codes = np.zeros(w.shape, np.uint8)
    best = np.abs(w - levels[:, :1])
    for code in range(1, levels.shape[-1]):
        distance = np.abs(w - levels[:, code : code + 1])
        closer = distance < best
        codes[closer] = code
        best = np.minimum(best, distance)
    return codes


def least_squares(w: Float64, codes: NDArray[np.uint8], real: NDArray[np.bool_], bits: int) -> Float64:
    """Return the coefficients that fit codes to real values best; counts and sums per code are all they depend on."""
    chosen = [real & (codes == code) for code in range(1 << bits)]
    counts = [mask.sum(axis=-1, dtype=np.int64) for mask in chosen]
    if not fits_int64(w.shape[-1], bits):
        counts = [count.astype(object) for count in counts]
    sums = [np.where(mask, w, 0.0).sum(axis=-1) for mask in chosen]
    inverse, divisor = scaled_inverse(normal_matrix(counts, bits), np.where)
    moments = [reduce(add, with_codes(sums, k)) for k in range(bits + 1)]
    rows = [reduce(add, [a.astype(np.float64) * b for a, b in zip(row, moments, strict=True)]) for row in inverse]
    return np.stack([row / divisor.astype(np.float64) for row in rows], axis=-1)


def fits_int64(group: int, bits: int) -> bool:
    """Whether `scaled_inverse` stays below 2^63 for groups of that many values."""
    return bool(32 * group ** (bits + 1) < 1 << 63)


def normal_matrix(counts: list[Any], bits: int) -> list[list[Any]]:
    """Return how many values have two bits set, for each pair of bits and the offset, from counts per code."""
    places = range(bits + 1)
    selected = [set(with_codes(list(range(1 << bits)), k)) for k in places]
    return [[reduce(add, [counts[code] for code in sorted(selected[i] & selected[j])]) for j in places] for i in places]


def scaled_inverse(a: list[list[Any]], where: Callable[..., Any]) -> tuple[list[list[Any]], Any]:
    """Return M and e such that `M s / e` is the pseudo-inverse of `a` times s, for s among the sums of its columns.

    `a` is a symmetric matrix of integers without negative eigenvalues, M and e are of integers too: by the method of
    Faddeev and LeVerrier, stopped at the rank of `a`.

    Example:
        >>> matrix = [[np.array(n) for n in row] for row in ((2, 1), (1, 3))]
        >>> inverse, divisor = scaled_inverse(matrix, np.where)
        >>> [[int(n) for n in row] for row in inverse], int(divisor)
        ([[3, -1], [-1, 2]], 5)
    """
    size = range(len(a))
    zero = a[0][0] * 0
    m = [[zero + (i == j) for j in size] for i in size]
    kept, divisor = m, zero + 1
    for k in range(1, len(a) + 1):
        product = [[reduce(add, [a[i][n] * m[n][j] for n in size]) for j in size] for i in size]
        e = reduce(add, [product[i][i] for i in size]) // k
        some = e != 0  # up to the rank
        kept = [[where(some, m[i][j], kept[i][j]) for j in size] for i in size]
        divisor = where(some, e, divisor)
        m = [[e * (i == j) - product[i][j] for j in size] for i in size]
    return kept, divisor


def _encode(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    bits = fmt.fields[0].bits
    w = x.reshape(-1, x.shape[-1]).astype(np.float64)
    bad = ~np.isfinite(w).all(axis=-1, keepdims=True)
    w = np.where(bad, 0.0, w)
    stored, values = stored_scales(
        _fitted(w, present(x, request).reshape(w.shape), fmt) + np.where(bad, np.nan, 0.0), _FLOAT16
    )
    codes = nearest_codes(w, np.where(bad, 0.0, values))
    return {"codes": codes.reshape(x.shape), "coefficients": stored.reshape(*x.shape[:-1], bits + 1)}


def _fitted(values: Float64, real: NDArray[np.bool_], fmt: Packed) -> Float64:
    """Return the coefficients that the alternation ends with, (groups, bits + 1)."""
    bits = fmt.fields[0].bits
    w, exponents = normalised(values, -1)
    low = w.min(axis=-1, keepdims=True, where=real, initial=np.inf) + 0.0  # of zeros of both signs the positive one
    high = w.max(axis=-1, keepdims=True, where=real, initial=-np.inf) + 0.0
    coefficients = np.hstack([(high - low) / ((1 << bits) - 1) * 2.0 ** np.arange(bits), low])
    for _ in range(fmt.option("iterations")):
        coefficients = least_squares(w, nearest_codes(w, coefficients), real, bits)
    return restored(coefficients, exponents)


def _decode(fields: Fields, fmt: Packed) -> NDArray[Any]:
    codes, bits = fields["codes"], fmt.fields[0].bits
    coefficients = decode_codes(fields["coefficients"], _FLOAT16)
    values = np.broadcast_to(coefficients[..., bits:], codes.shape).copy()
    for k in range(bits):
        values += np.where(codes >> k & 1, coefficients[..., k : k + 1], 0.0)
    return values


SCHEMES: dict[str, Scheme] = {"fitted": Scheme(_encode, _decode)}
