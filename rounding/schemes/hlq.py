"""HLQ, the hierarchical linear quantization of ELUTQ: a value is an offset plus the scales whose bits its code has set.

`w ~ z + s_0 b_0 + ... + s_(q-1) b_(q-1)`: bit `k` of a code belongs to `s_k`. A group starts from even spacing,
`s_k = 2^k (max - min) / (2^q - 1)`, `z = min`, and alternates: every value takes the nearest of the `2^q` sums (of
equally near ones the lowest code), then scales and offset are the least-squares solution for these codes (of several
solutions the smallest, by pseudo-inverse). At the end coefficients are rounded to float16, scales before the offset,
and codes chosen for the rounded ones. Arithmetic is float64 where the repository has float32; the pseudo-inverse is
LAPACK's, so that a coefficient half-way between two float16 values may differ between machines. The zeros that fill up
a last, shorter group do not count. A group with NaN or infinity is all NaN.
Source: ELUTQ, arXiv:2510.19482; Nkniexin/ELUTQ, `GPTQ/quant.py`, the alternating form.
"""

from __future__ import annotations

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
#: Eigenvalues below it, relative to the largest, are zeros; those of a regular matrix of counts are far above.
_SINGULAR = 1e-10
Float64 = NDArray[np.float64]


def _bit_rows(bits: int) -> Float64:
    """Return the bits of every code, and a 1 for the offset: (2^bits, bits + 1)."""
    codes = np.arange(1 << bits)[:, None]
    return np.hstack([codes >> np.arange(bits) & 1, np.ones_like(codes)]).astype(np.float64)


def nearest_codes(w: Float64, coefficients: Float64) -> NDArray[np.uint8]:
    """Return the code of the sum nearest to each value; `w` is (groups, values), coefficients (groups, bits + 1)."""
    levels = coefficients @ _bit_rows(coefficients.shape[-1] - 1).T
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
    rows = _bit_rows(bits)
    chosen = [real & (codes == code) for code in range(len(rows))]
    counts = np.stack([mask.sum(axis=-1) for mask in chosen], axis=-1).astype(np.float64)
    sums = np.stack([np.where(mask, w, 0.0).sum(axis=-1) for mask in chosen], axis=-1)
    normal = np.einsum("gc,ci,cj->gij", counts, rows, rows)
    inverse = np.linalg.pinv(normal, rcond=_SINGULAR, hermitian=True)
    return np.asarray(np.einsum("gij,gj->gi", inverse, sums @ rows))


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
    low = w.min(axis=-1, keepdims=True, where=real, initial=np.inf)
    high = w.max(axis=-1, keepdims=True, where=real, initial=-np.inf)
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
