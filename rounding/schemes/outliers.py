"""OliVe: int4 where an outlier takes the place of its neighbour too, the victim.

In units of the scale values are integers -7 .. 7 times 4 (two's complement codes), or outliers `2^(5 + e) (1 + m/2)`,
a code of sign, two exponent bits `e` and mantissa bit `m`; 32, `e = m = 0`, is left out. In a pair of neighbours of
which one is an outlier, the other becomes zero and its code 8, the identifier (-8 of int4, which is not used); of two
outliers the first stays. A value takes the nearest number of both lists, of equally near ones the upper, but -38 goes
to -48. The scale is `alpha / 28` in float32; `alpha` is the best in squared error of 0.75, 0.77, ..., 1.49 times
`max|mean +- 3 standard deviations|` of the row or tensor (of equal ones the first; 0.75 and 1.5 are the repository's
defaults). Arithmetic is float64, where the repository has float32. A row or tensor with NaN or infinity is NaN.
Source: Guo et al., "OliVe", ISCA 2023, arXiv:2304.07493; clevercool/ANT-Quantization,
`olive_quantization/antquant/quant_modules.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import SHARED_AXES, present, scale_field, scale_values, shared_mean

Float64 = NDArray[np.float64]
_NORMAL_STEP, _NORMAL_TOP, _OUTLIER_FROM = 4.0, 28.0, 32.0
_IDENTIFIER = 8
#: Fractions of the largest expected magnitude that are tried.
_FRACTIONS = np.arange(75, 150, 2) * 0.01
#: Value of each outlier code.
OUTLIERS = np.array([s * 2.0 ** (5 + e) * (1 + m / 2) for s in (1, -1) for e in range(4) for m in (0, 1)])
#: Those in use, ascending, the decision points between them, and where they begin.
_USED = np.sort(OUTLIERS[[code for code in range(16) if code % 8]])
_CUTS = (_USED[1:] + _USED[:-1]) / 2
_FAR = 38.0


def _nearest(q: Float64) -> Float64:
    """Return the nearest number of the two lists."""
    steps = q / _NORMAL_STEP
    below = np.floor(steps)
    rounded = np.asarray(np.clip(below + (steps - below >= 0.5), -7, 7) * _NORMAL_STEP)
    far = np.abs(q) >= _FAR
    rounded[far] = _USED[np.searchsorted(_CUTS, q[far], side="right")]
    return rounded


def _round_pairs(q: Float64) -> Float64:
    """Return the nearest numbers of the two lists, victims zero; `q` is (..., 2)."""
    rounded = _nearest(q)
    outlier = np.abs(rounded) > _OUTLIER_FROM
    victim = np.stack([outlier[..., 1] & ~outlier[..., 0], outlier[..., 0]], axis=-1)
    return np.where(victim, 0.0, rounded)


def _search_scale(x: Float64, real: NDArray[np.bool_], per: str, fmt: Packed) -> tuple[NDArray[Any], Float64]:
    """Return codes and values of the scales with the least squared error."""
    axes = SHARED_AXES[per]
    mean = shared_mean(x, real, per)
    count = real.sum(axis=axes, keepdims=True)
    spread = np.where(real, (x - mean) ** 2, 0.0).sum(axis=axes, keepdims=True)
    reach = np.abs(mean) + 3 * np.sqrt(spread / np.maximum(count - 1, 1))
    best = np.full(mean.shape, np.inf)
    chosen = reach.copy()
    for fraction in _FRACTIONS:
        unit = reach * fraction / _NORMAL_TOP
        values = _round_pairs(np.divide(x, unit, out=np.zeros_like(x), where=unit > 0)) * unit
        error = ((values - x) ** 2).sum(axis=axes, keepdims=True)
        chosen = np.where(error < best, reach * fraction, chosen)
        best = np.minimum(error, best)
    return scale_field(chosen / _NORMAL_TOP, fmt)


def _encode(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    per = fmt.fields[-1].per
    bad = ~np.isfinite(x).all(axis=SHARED_AXES[per], keepdims=True)
    w = np.where(bad, 0.0, x).astype(np.float64)
    codes, unit = _search_scale(w, present(x, request), per, fmt)
    rounded = _round_pairs(np.divide(w, unit, out=np.zeros_like(w), where=unit > 0))
    if bad.any():
        codes, _ = scale_field(np.where(bad, np.nan, unit), fmt)
    return {"codes": _pair_codes(rounded), "scale": codes}


def _pair_codes(rounded: Float64) -> NDArray[np.uint8]:
    """Return the codes of rounded pairs."""
    outlier = np.abs(rounded) > _OUTLIER_FROM
    normal = (rounded / _NORMAL_STEP).astype(np.int64) & 15
    order = np.argsort(OUTLIERS)
    place = np.minimum(np.searchsorted(OUTLIERS[order], rounded), 15)
    codes = np.where(outlier, order[place], np.where(outlier[..., ::-1], _IDENTIFIER, normal))
    return codes.astype(np.uint8)


def _decode(fields: Fields, fmt: Packed) -> Float64:
    codes = fields["codes"]
    victim = codes == _IDENTIFIER
    values = np.where(victim[..., ::-1], OUTLIERS[codes], decode_codes(codes, Integer(4)) * _NORMAL_STEP)
    return np.where(victim, 0.0, values) * scale_values(fields["scale"], fmt)


SCHEMES: dict[str, Scheme] = {"victim_pairs": Scheme(_encode, _decode)}
