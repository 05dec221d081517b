"""ggml's IQ4 types: 4-bit codes of a list of 16 integers spaced wider outwards, in steps of a scale.

Source: ggml-org/ggml, `src/ggml-quants.c`: `quantize_row_iq4_nl_impl`, `best_index_int8`; list `kvalues_iq4nl` of
`src/ggml-common.h`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.packed import Packed
from lowp.rounding._fp4_recipes import Float32
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.ggml_steps import (
    TINY,
    deinterleave,
    extreme,
    grouped,
    half_codes,
    half_values,
    interleave,
    inverse,
    nearest,
    ordered_sum,
    super_blocks,
)

_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
_MIDPOINTS = (_VALUES[1:] + _VALUES[:-1]) / 2  # exact


def _indices(x: Float32) -> NDArray[np.intp]:
    """Return the index of the nearest value, the upper one on ties; NaN counts as the lowest value."""
    return np.searchsorted(_MIDPOINTS, np.where(np.isnan(x), _VALUES[0], x), side="right")


def _best_scales(x: Float32, tries: int) -> tuple[Float32, NDArray[np.intp]]:
    """Return the scales of groups (values, groups) and the indices under the first scale that is tried.

    The first scale gives the extreme the lowest value, or for `tries` > 0 the opposite of it; `tries` to both sides
    of the lowest value follow. Each is a least-squares fit with weights x^2.
    """
    weights = x * x
    largest = extreme(x.T)

    def fitted(steps: Float32) -> tuple[NDArray[np.intp], Float32, Float32]:
        index = _indices(steps * x)
        value = _VALUES[index]
        return index, ordered_sum(weights * value * x), ordered_sum(weights * value * value)

    first = -largest / _VALUES[0] if tries else largest / _VALUES[0]
    indices, sum_qx, sum_q2 = fitted(np.float32(1) / first)
    scale = np.where(sum_q2 > 0, sum_qx / sum_q2, np.float32(0))
    best = scale * sum_qx
    for offset in range(-tries, tries + 1) if tries else ():
        _, sum_qx, sum_q2 = fitted((np.float32(offset) + _VALUES[0]) / largest)
        better = (sum_q2 > 0) & (sum_qx * sum_qx > best * sum_q2)
        scale = np.where(better, sum_qx / sum_q2, scale)
        best = np.where(better, scale * sum_qx, best)
    tiny = np.abs(largest) < TINY
    return np.where(tiny, np.float32(0), scale), np.where(tiny, 0, indices)


def _encode_nl(x: Float32) -> Fields:
    scale, indices = _best_scales(np.ascontiguousarray(x.T), 0)
    return {"d": half_codes(scale)[:, None], "qs": interleave(indices.T, 2, 16).astype(np.uint8)}


def _decode_nl(fields: Fields, fmt: Packed) -> Float32:
    return np.asarray(half_values(fields["d"]) * _VALUES[deinterleave(fields["qs"], 2, 16)])


def _encode_xs(x: Float32) -> Fields:
    groups = grouped(x, 32)
    scales = _best_scales(np.ascontiguousarray(groups.reshape(-1, 32).T), 7)[0].reshape(len(x), 8)
    d = extreme(scales)[:, None] / np.float32(-32)
    codes = np.clip(nearest(inverse(d) * scales), -32, 31)
    indices = _indices(inverse(d * codes)[..., None] * groups).reshape(x.shape)
    stored = (codes + 32).astype(np.uint8)
    return {
        "d": half_codes(d),
        "scales_h": stored >> np.uint8(4),
        "scales_l": stored & np.uint8(15),
        "qs": interleave(indices, 2, 16).astype(np.uint8),
    }


def _decode_xs(fields: Fields, fmt: Packed) -> Float32:
    codes: NDArray[Any] = fields["scales_l"] | fields["scales_h"] << 4
    unit = half_values(fields["d"]) * (codes.astype(np.float32) - np.float32(32))
    values = _VALUES[deinterleave(fields["qs"], 2, 16)]
    return np.asarray(unit[..., None] * grouped(values, 32)).reshape(values.shape)


SCHEMES: dict[str, Scheme] = {
    "iq4_nl": Scheme(super_blocks(_encode_nl), _decode_nl),
    "iq4_xs": Scheme(super_blocks(_encode_xs), _decode_xs),
}
