"""ggml's searches for the scale of a group of values: candidates around the obvious one, kept if they fit better.

Arrays are (values of a group, groups), so that every step runs over all groups. Sums are in order and every operation
is rounded to float32, because the choice between two candidates may hang on the last bit.
Source: ggml-org/ggml, `src/ggml-quants.c`: `make_qkx2_quants`, `make_qx_quants`, `make_q3_quants`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.rounding._fp4_recipes import Float32
from lowp.rounding.schemes.ggml_steps import TINY, extreme, nearest, ordered_sum


class Search(NamedTuple):
    """Which inverse scales `scale_and_minimum` tries: (top + first + step * i) / range, i = 0 to last."""

    first: float
    step: float
    last: int

    def offsets(self) -> list[np.float32]:
        """Return the float32 numbers `first + step * i`."""
        first, step = np.float32(self.first), np.float32(self.step)
        return [first + step * np.float32(i) for i in range(self.last + 1)]


def scale_and_minimum(
    x: Float32, weights: Float32, top: int, search: Search, absolute: bool
) -> tuple[Float32, Float32, Float32]:
    """Return scales, minima (negated) and codes 0 to `top` with `x ~ scale * code - minimum`.

    Every candidate is a weighted least-squares line through the rounded codes; the smallest weighted error wins, of
    squares or of magnitudes. Minima are at most 0 before negation.
    """
    low, high = np.minimum(x.min(axis=0), np.float32(0)), x.max(axis=0)
    flat = low == high
    sum_w, sum_x = ordered_sum(weights), ordered_sum(weights * x)

    def error(scale: NDArray[Any], code: Float32, low: NDArray[Any]) -> Float32:
        difference = scale * code + low - x
        return ordered_sum(weights * (np.abs(difference) if absolute else difference * difference))

    steps = np.float32(top) / (high - low)
    scale = np.float32(1) / steps
    codes = np.clip(nearest(steps * (x - low)), 0, top)
    best = error(scale, codes, low)
    for offset in search.offsets():
        steps = (offset + np.float32(top)) / (high - low)  # `low` moves with the best fit
        trial = np.clip(nearest(steps * (x - low)), 0, top)
        weighted = weights * trial
        sum_l, sum_l2, sum_xl = ordered_sum(weighted), ordered_sum(weighted * trial), ordered_sum(weighted * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_scale = np.where(new_low > 0, sum_xl / sum_l2, new_scale)
        new_low = np.minimum(new_low, np.float32(0))
        trial_error = error(new_scale, trial, new_low)
        better = (determinant > 0) & (trial_error < best) & ~flat
        codes = np.where(better, trial, codes)
        best, scale, low = (
            np.where(better, new, old) for new, old in ((trial_error, best), (new_scale, scale), (new_low, low))
        )
    zero = np.float32(0)
    return np.where(flat, zero, scale), -low, np.where(flat, zero, codes)


def signed_scale(x: Float32, center: int) -> tuple[Float32, Float32]:
    """Return scales and codes 0 to `2 center - 1` with `x ~ scale * (code - center)`, weights x^2.

    19 scales are tried, in tenths of a code step around the one that gives the extreme value the code 0.
    """
    weights = x * x
    largest = extreme(x.T)

    def fitted(offset: np.float32) -> tuple[Float32, Float32, Float32]:
        steps = -(np.float32(center) + offset) / largest
        code = np.clip(nearest(steps * x), -center, center - 1)
        return code, ordered_sum(weights * x * code), ordered_sum(weights * code * code)

    codes, sum_lx, sum_l2 = fitted(np.float32(0))
    scale = np.where(sum_l2 != 0, sum_lx / sum_l2, np.float32(0))
    best = scale * sum_lx
    for tenths in (*range(-9, 0), *range(1, 10)):
        trial, sum_lx, sum_l2 = fitted(np.float32(0.1) * np.float32(tenths))
        better = (sum_l2 > 0) & (sum_lx * sum_lx > best * sum_l2)
        codes = np.where(better, trial, codes)
        scale = np.where(better, sum_lx / sum_l2, scale)
        best = np.where(better, scale * sum_lx, best)
    return _unless_tiny(largest, scale, codes + np.float32(center))


def refined_scale(x: Float32, center: int) -> tuple[Float32, Float32]:
    """Return scales and codes as `signed_scale`, found by moving one code at a time to where it fits better."""
    weights = x * x
    largest = extreme(x.T)
    codes = np.clip(nearest(np.float32(-center) / largest * x), -center, center - 1)
    sum_lx, sum_l2 = ordered_sum(weights * x * codes), ordered_sum(weights * codes * codes)
    for _ in range(5):
        for value, weight, code in zip(x, weights, codes, strict=True):
            rest_lx, rest_l2 = sum_lx - weight * value * code, sum_l2 - weight * code * code
            moved = np.clip(nearest(value * rest_l2 / rest_lx), -center, center - 1)
            new_lx, new_l2 = rest_lx + weight * value * moved, rest_l2 + weight * moved * moved
            better = (rest_lx > 0) & (moved != code) & (new_l2 > 0)
            better &= new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2
            code[better] = moved[better]
            sum_lx, sum_l2 = np.where(better, new_lx, sum_lx), np.where(better, new_l2, sum_l2)
    scale = np.where(sum_l2 > 0, sum_lx / sum_l2, np.float32(0))
    return _unless_tiny(largest, scale, codes + np.float32(center))


def _unless_tiny(largest: Float32, scale: Float32, codes: Float32) -> tuple[Float32, Float32]:
    """Return scale and codes, both 0 in groups that count as zero."""
    tiny = np.abs(largest) < TINY
    return np.where(tiny, np.float32(0), scale), np.where(tiny, np.float32(0), codes)
