"""Ternary formats: sums of scaled planes of -1, 0, 1, and sparse ones with three signs in every four values.

Planes ("planes", "twn"): `w ~ s_1 T_1 + ... + s_K T_K` in groups. A trit `t` is the digit `t + 1`; five digits make a
byte, the first the lowest power of three, each plane padded with digit 1 to whole bytes.

PTQTP starts from scales `mean|w| / 3^k` (assumed) and alternates at most 50 times: every value takes the nearest of the
`3^K` sums (of equally near ones the first, trits in the order 0, 1, -1), then the scales solve the ridge regression for
these trits, with 1e-8 on the diagonal (where the paper adapts it to the condition). Scales are rounded to float16 at
the end and trits chosen for the rounded ones. TWN keeps the values above 0.75 times the mean magnitude; the scale is
the mean magnitude of those kept.

Sherry ("sherry", "stq1_0"): of every four values the smallest magnitude becomes zero, of equal ones the first, the
others their signs, +1 for a zero. The code is `s << 4 | z << 2 | b << 1 | a`: `z` the place of the zero, `s` whether
the first of the others is negative, `a` and `b` whether the second and third differ from it in sign. The scale is the
mean magnitude of the values kept. STQ1_0 of llama.cpp has the same codes, four bits in "qs" and `s` in "sign", for
values 16 apart within 64, and the largest magnitude of 256 as scale; NaN counts neither for it nor as smallest.

A group, row or tensor with NaN or infinity is NaN (STQ1_0: as said). Arithmetic is float64; the ridge regression is
solved by elimination in a fixed order, so that every machine finds the same.
Source: PTQTP, arXiv:2509.16989; Li et al., "Ternary Weight Networks", arXiv:1605.04711; Sherry, Tencent AngelSlim,
`special_quantizer.py`; STQ1_0 of llama.cpp pull request 22836, `ggml-common.h` and `ggml-quants.c`.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from operator import mul, truediv
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.packed import Packed
from lowp.rounding._ridge import solved
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.ggml_steps import half_codes, half_values
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import normalised, present, restored, scale_field, scale_values, shared_mean

Float64 = NDArray[np.float64]
#: Trits in a byte, and the weights of their digits.
_PER_BYTE = 5
_DIGITS = 3 ** np.arange(_PER_BYTE)
_RIDGE = 1e-8
_ITERATIONS = 50
_TWN_THRESHOLD = 0.75
#: Places of the values kept, by the place of the zero.
_KEPT = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def pack_trits(trits: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return bytes of five trits each, along the last axis.

    Example:
        >>> pack_trits(np.array([[-1, 0, 1, 0, -1, 1]], np.int8)).tolist()
        [[48, 122]]
    """
    pad = [(0, 0)] * (trits.ndim - 1) + [(0, -trits.shape[-1] % _PER_BYTE)]
    digits = (np.pad(trits, pad) + 1).reshape(*trits.shape[:-1], -1, _PER_BYTE)
    return (digits @ _DIGITS).astype(np.uint8)


def unpack_trits(packed: NDArray[Any], count: int) -> NDArray[np.int8]:
    """Return the first `count` trits of bytes along the last axis.

    Example:
        >>> unpack_trits(np.array([48, 122], np.uint8), 6).tolist()
        [-1, 0, 1, 0, -1, 1]
    """
    digits = packed[..., None].astype(np.int64) // _DIGITS % 3
    return (digits.reshape(*packed.shape[:-1], -1)[..., :count] - 1).astype(np.int8)


@lru_cache(maxsize=8)
def _trit_table(planes: int) -> Float64:
    return np.array(list(product((0.0, 1.0, -1.0), repeat=planes)))


def _nearest_sums(w: Float64, scales: Float64, table: Float64) -> NDArray[np.uint8]:
    """Return for each value the row of `table` whose sum with the scales is nearest, the first of equally near ones."""
    levels = sum((scales[:, k, None] * table[:, k] for k in range(1, table.shape[-1])), scales[:, :1] * table[:, 0])
    w = np.clip(w, levels.min(axis=-1, keepdims=True), levels.max(axis=-1, keepdims=True))  # far off, distances tie
    rows = np.zeros(w.shape, np.uint8)
    best = np.abs(w - levels[:, :1])
    for row in range(1, len(table)):
        distance = np.abs(w - levels[:, row : row + 1])
        rows[distance < best] = row
        np.minimum(best, distance, out=best)
    return rows


def _ridge_scales(w: Float64, rows: NDArray[np.uint8], table: Float64) -> Float64:
    """Return the scales that fit values to their trits best, (groups, planes)."""
    planes = range(table.shape[-1])
    trits = [table[rows, k] for k in planes]
    matrix = [[(trits[i] * trits[j]).sum(axis=-1) + _RIDGE * (i == j) for j in planes] for i in planes]
    return np.stack(solved(matrix, [(t * w).sum(axis=-1) for t in trits], mul, truediv), axis=-1)


def fit_planes(w: Float64, start: Float64, iterations: int = _ITERATIONS) -> Float64:
    """Return the scales that alternating least squares and nearest sums end with; `w` is (groups, values)."""
    table = _trit_table(start.shape[-1])
    scales, rows = start.copy(), _nearest_sums(w, start, table)
    active = np.arange(len(w))
    for _ in range(iterations):
        if not active.size:
            break
        scales[active] = _ridge_scales(w[active], rows[active], table)
        new = _nearest_sums(w[active], scales[active], table)
        moved = (new != rows[active]).any(axis=-1)
        rows[active] = new
        active = active[moved]
    return scales


def _groups(x: NDArray[Any], request: Request) -> tuple[Float64, Float64, Float64]:
    """Return values as (groups, values) with 0 for those of bad groups, mean magnitudes, and NaN for bad groups."""
    w = x.reshape(-1, x.shape[-1]).astype(np.float64)
    bad = ~np.isfinite(w).all(axis=-1, keepdims=True)
    w = np.where(bad, 0.0, w)
    mean = shared_mean(np.abs(w).reshape(x.shape), present(x, request), "block").reshape(-1, 1)
    return w, mean, np.where(bad, np.nan, 0.0)


def _encode_planes(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    planes = fmt.option("planes")
    w, mean, bad = _groups(x, request)
    normal, exponents = normalised(w, -1)
    wanted = restored(fit_planes(normal, np.ldexp(mean, -exponents) / 3.0 ** np.arange(planes)), exponents) + bad
    codes, values = scale_field(wanted.reshape(*x.shape[:-1], planes), fmt, "scales")
    table = _trit_table(planes)
    trits = table[_nearest_sums(w, np.nan_to_num(values.reshape(-1, planes)), table)].astype(np.int8)
    return {"trits": _stored_trits(trits.transpose(0, 2, 1), x), "scales": codes}


def _encode_twn(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    w, mean, bad = _groups(x, request)
    kept = np.abs(w) > _TWN_THRESHOLD * mean
    scale = shared_mean(np.abs(w).reshape(x.shape), kept.reshape(x.shape), "block").reshape(-1, 1)
    codes, _ = scale_field((scale + bad).reshape(*x.shape[:-1], 1), fmt, "scales")
    return {"trits": _stored_trits((np.sign(w) * kept).astype(np.int8)[:, None], x), "scales": codes}


def _stored_trits(trits: NDArray[np.int8], x: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of trits (groups, planes, values), the planes of a group one after the other."""
    packed = pack_trits(trits)
    return packed.reshape(*x.shape[:-1], trits.shape[1] * packed.shape[-1])


def _decode_planes(fields: Fields, fmt: Packed) -> Float64:
    lead, planes = fields["trits"].shape[:-1], fmt.option("planes")
    width = fields["trits"].shape[-1] // planes
    trits = unpack_trits(fields["trits"].reshape(*lead, planes, width), fmt.block_elements)
    scales = scale_values(fields["scales"], fmt, "scales")
    return np.asarray((trits * scales[..., None]).sum(axis=-2))


def sherry_codes(x: NDArray[Any], zero: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the codes of groups of four values along the last axis, given the places of their zeros.

    Example:
        >>> sherry_codes(np.array([3.0, 0.1, 2.0, -1.0]), np.array(1)).tolist()
        6
    """
    negative = np.take_along_axis(x, _KEPT[zero], axis=-1) < 0
    first, second, third = (negative[..., i].astype(np.uint8) for i in range(3))
    return np.asarray(first << 4 | zero.astype(np.uint8) << 2 | (third ^ first) << 1 | (second ^ first), np.uint8)


@lru_cache(maxsize=1)
def sherry_table() -> Float64:
    """Return the four values, -1, 0 or 1, of each of the 32 codes.

    Example:
        >>> sherry_table()[6].tolist()
        [1.0, 0.0, 1.0, -1.0]
    """
    table = np.zeros((32, 4))
    for code in range(32):
        first = code >> 4
        negative = np.array([first, first ^ code & 1, first ^ code >> 1 & 1])
        table[code, _KEPT[code >> 2 & 3]] = 1.0 - 2.0 * negative
    return table


def _encode_sherry(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    quads = x.reshape(*x.shape[:-1], -1, 4)
    real = present(x, request)
    zero = np.abs(quads).argmin(axis=-1)
    kept = real & (zero[..., None] != np.arange(4)).reshape(x.shape)
    per = fmt.fields[-1].per
    broken = np.where(np.isfinite(x), 0.0, np.nan)  # it may be the value dropped that is not finite
    scale, _ = scale_field(shared_mean(np.abs(x), kept, per) + shared_mean(broken, real, per), fmt)
    return {"codes": sherry_codes(quads, zero), "scale": scale}


def _decode_sherry(fields: Fields, fmt: Packed) -> Float64:
    signs = sherry_table()[fields["codes"].astype(np.intp)]
    return signs.reshape(*signs.shape[:-2], -1) * scale_values(fields["scale"], fmt)


def _encode_stq(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    values = x.astype(np.float32)
    magnitude = np.where(np.isnan(values), np.float32(-1), np.abs(values))
    quads = values.reshape(*x.shape[:-1], 4, 4, 16).swapaxes(-1, -2).reshape(*x.shape[:-1], 64, 4)
    size = np.where(np.isnan(quads), np.float32(np.inf), np.abs(quads))
    zero = np.where(np.isnan(quads[..., 0]), 0, size.argmin(axis=-1))
    codes = sherry_codes(quads, zero)
    scale = half_codes(np.maximum(magnitude.max(axis=-1, keepdims=True), np.float32(0)))
    return {"qs": codes & np.uint8(15), "sign": codes >> 4, "d": scale}


def _decode_stq(fields: Fields, fmt: Packed) -> NDArray[Any]:
    codes = fields["qs"] | fields["sign"] << np.uint8(4)
    signs = sherry_table()[codes.astype(np.intp)].reshape(*codes.shape[:-1], 4, 16, 4).swapaxes(-1, -2)
    values = signs.reshape(*codes.shape[:-1], 256).astype(np.float32)
    return np.asarray(values * half_values(fields["d"]))


SCHEMES: dict[str, Scheme] = {
    "planes": Scheme(_encode_planes, _decode_planes),
    "twn": Scheme(_encode_twn, _decode_planes),
    "sherry": Scheme(_encode_sherry, _decode_sherry),
    "stq1_0": Scheme(_encode_stq, _decode_stq),
}
