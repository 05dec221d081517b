"""ggml's IQ4 types as array code: `schemes.ggml_iq` step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_fp4_recipes import times
from lowp.rounding._portable_ggml import Coders, Fields, extreme, half_codes, half_values, interleave
from lowp.rounding._portable_ggml_fits import (
    TINY_SIZE,
    best_of,
    extremes,
    nearest,
    ordered_sums,
    over,
    values_first,
    values_last,
)
from lowp.rounding._portable_ggml_k import deinterleave, divided, grouped, integers, super_blocks
from lowp.rounding.schemes.ggml_iq import _MIDPOINTS, _VALUES

_LOWEST = float(_VALUES[0])
#: The NaN that x86-64 makes of invalid operations, which other machines give another sign.
_NAN_SCALE = 0xFE00


def _indices(xp: Any, x: Any) -> Any:
    """Return the index of the nearest value, the upper one on ties; NaN counts as the lowest value."""
    index = xp.full_like(x, 0, "int64")
    for midpoint in _MIDPOINTS.tolist():
        index = index + xp.cast(x >= midpoint, "int64")
    return index


def _values(xp: Any, index: Any) -> Any:
    return xp.take(xp.constant(_VALUES.astype(np.float64), index), index)


def _inverse(xp: Any, x: Any) -> Any:
    """Return 1 / x, and 0 where x is 0."""
    return xp.where(doubles.is_zero(xp, x), 0.0, over(xp, xp.full_like(x, 1), x))


def _best_scales(xp: Any, x: Any, tries: int) -> tuple[Any, Any]:
    """Return the scales of groups (values, ...) and the indices under the best scale."""
    weights, largest = times(xp, x, x), extremes(xp, x)

    def fitted(steps: Any) -> tuple[Any, Any, Any]:
        index = _indices(xp, times(xp, steps, x))
        value = _values(xp, index)
        weighted = times(xp, weights, value)
        return index, *ordered_sums(xp, times(xp, weighted, x), times(xp, weighted, value))

    first = divided(xp, -largest if tries else largest, _LOWEST)
    indices, sum_qx, sum_q2 = fitted(over(xp, xp.full_like(first, 1), first))
    scale = xp.where(sum_q2 > 0, over(xp, sum_qx, sum_q2), 0.0)
    if tries:
        numerators = [offset + _LOWEST for offset in range(-tries, tries + 1)]
        scale, indices = best_of(xp, fitted, sum_qx, numerators, largest, (scale, indices))
    tiny = doubles.magnitude(xp, largest) < TINY_SIZE
    return xp.where(tiny, 0.0, scale), xp.where(tiny, 0, indices)


def _encode_nl(xp: Any, x: Any) -> Fields:
    scale, indices = _best_scales(xp, values_first(xp, x, x.shape[-1]), 0)
    d = xp.where(doubles.is_nan(xp, scale), _NAN_SCALE, half_codes(xp, scale))
    return {"d": d, "qs": interleave(xp, values_last(xp, indices).reshape(x.shape), 2, 16)}


def _decode_nl(xp: Any, fields: Fields, fmt: Packed) -> Any:
    return times(xp, half_values(xp, fields["d"]), _values(xp, deinterleave(xp, fields["qs"], 2, 16)))


def _encode_xs(xp: Any, x: Any) -> Fields:
    scales = _best_scales(xp, values_first(xp, x, 32), 7)[0]
    d = times(xp, extreme(xp, scales), -1.0 / 32)
    codes = nearest(xp, times(xp, _inverse(xp, d), scales), -32, 31)
    units = _inverse(xp, times(xp, d, codes))[..., None]
    indices = _indices(xp, times(xp, units, grouped(x, 32))).reshape(x.shape)
    stored = integers(xp, codes) + 32
    return {
        "d": half_codes(xp, d),
        "scales_h": stored >> 4,
        "scales_l": stored & 15,
        "qs": interleave(xp, indices, 2, 16),
    }


def _decode_xs(xp: Any, fields: Fields, fmt: Packed) -> Any:
    codes = fields["scales_l"] | fields["scales_h"] << 4
    unit = times(xp, half_values(xp, fields["d"]), xp.cast(codes - 32, "float64"))
    values = _values(xp, deinterleave(xp, fields["qs"], 2, 16))
    return times(xp, unit[..., None], grouped(values, 32)).reshape(values.shape)


CODERS: dict[str, Coders] = {
    "ggml_iq.iq4_nl": (super_blocks(_encode_nl), _decode_nl),
    "ggml_iq.iq4_xs": (super_blocks(_encode_xs), _decode_xs),
}
