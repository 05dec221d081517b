"""ggml's searches for the scale of a group as array code: `schemes.ggml_fits` step by step, and the sums beneath.

Numbers are float64 that float32 holds, and every step is rounded to float32. The values of a group are the first axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_fp4_recipes import times
from lowp.rounding._portable_ggml import extreme
from lowp.rounding._portable_shapes import transposed
from lowp.rounding.schemes.ggml_fits import Search
from lowp.rounding.schemes.ggml_steps import TINY

#: Bits of the largest float32 number as float64, and of what float64 has beyond float32's fraction.
_TOP_BITS = int(np.array(np.finfo(np.float32).max, np.float64).view(np.int64))
_BEYOND = (1 << 29) - 1
_MAGIC = 1.5 * 2.0**23
TINY_SIZE = float(TINY)


def plus(xp: Any, a: Any, b: Any) -> Any:
    """Return the float32 sum. Those below 2^-126 are exact, so one rounding of the bits serves all."""
    raw = doubles.bits_of(xp, a + b)
    bits = (raw + (_BEYOND >> 1) + (raw >> 29 & 1)) & ~_BEYOND
    size = bits & doubles.MAGNITUDE
    bits = xp.where(size > _TOP_BITS, bits - size + doubles.INFINITE, bits)
    return doubles.from_bits(xp, xp.where(raw & doubles.MAGNITUDE > doubles.INFINITE, raw, bits))


def over(xp: Any, a: Any, b: Any) -> Any:
    """Return the float32 quotient; XLA multiplies by the reciprocal where it sees that one divisor serves many."""
    divisor = xp.where(doubles.bits_of(xp, a) == -1, 1.0, b) if xp.name == "jax" else b
    return doubles.to_float32(xp, a / divisor)


def ordered_sum(xp: Any, terms: Any) -> Any:
    """Return the float32 sum over the first axis, one term after the other."""
    if xp.name == "jax":  # whose compilers flush float32 numbers to zero

        def step(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
            return (plus(xp, state[0], part[0]),), None

        first = xp.where(doubles.is_zero(xp, terms[0]), 0.0, terms[0])
        return xp.scan(step, (first,), (terms[1:],))[0][0]
    terms = xp.cast(terms, "float32")
    total = xp.full_like(terms[0], 0)
    for i in range(terms.shape[0]):
        total = total + terms[i]
    return xp.cast(total, "float64")


def ordered_sums(xp: Any, *terms: Any) -> list[Any]:
    """Return the sums of several arrays of one shape."""
    whole = xp.stack(list(terms))
    sums = ordered_sum(xp, transposed(xp, whole, (1, 0, *range(2, whole.ndim))))
    return [sums[i] for i in range(len(terms))]


def nearest(xp: Any, x: Any, low: int, high: int) -> Any:
    """Round to an integer from `low` to `high`, ties to even, as ggml reads it from the bits of a float32 sum."""
    total = plus(xp, x, _MAGIC)
    n = (doubles.bits_of(xp, total) >> 29 & 0x7FFFFF) - 0x400000
    n = xp.where(doubles.is_nan(xp, total), 0, n)
    return xp.cast(xp.minimum(xp.maximum(n, low), high), "float64")


def values_first(xp: Any, x: Any, size: int) -> Any:
    """Return (rows, blocks, values) as (values of a group, rows, blocks, groups)."""
    return transposed(xp, x.reshape((*x.shape[:-1], x.shape[-1] // size, size)), (3, 0, 1, 2))


def values_last(xp: Any, x: Any) -> Any:
    """Return (values of a group, rows, blocks, groups) as (rows, blocks, groups, values of a group)."""
    return transposed(xp, x, (1, 2, 3, 0))


def extremes(xp: Any, x: Any) -> Any:
    """Return the first element of largest magnitude along the first axis."""
    return extreme(xp, values_last(xp, x))[..., 0]


def _greatest(xp: Any, x: Any) -> Any:
    """Return the largest of finite numbers along the first axis; of zeros any."""
    return x.amax(dim=0) if xp.name == "torch" else x.max(axis=0)


def scale_and_minimum(xp: Any, x: Any, weights: Any, top: int, search: Search, absolute: bool) -> tuple[Any, Any, Any]:
    """Return scales, minima (negated) and codes 0 to `top` with `x ~ scale * code - minimum`."""
    low, high = xp.minimum(-_greatest(xp, -x), 0.0), _greatest(xp, x)
    flat = low == high
    sum_w, sum_x = ordered_sums(xp, weights, times(xp, weights, x))

    def error(scale: Any, code: Any, low: Any) -> Any:
        difference = plus(xp, plus(xp, times(xp, scale, code), low), -x)
        loss = doubles.magnitude(xp, difference) if absolute else times(xp, difference, difference)
        return ordered_sum(xp, times(xp, weights, loss))

    def codes_under(steps: Any, low: Any) -> Any:
        return nearest(xp, times(xp, steps, plus(xp, x, -low)), 0, top)

    def step(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
        best, scale, low, codes = state
        steps = over(xp, xp.where(flat, 1.0, part[0]), plus(xp, high, -low))  # `low` moves with the best fit
        trial = codes_under(steps, low)
        new_scale, new_low, usable = _line(xp, x, weights, trial, sum_w, sum_x)
        trial_error = error(new_scale, trial, new_low)
        better = usable & (trial_error < best) & ~flat
        pairs = ((trial_error, best), (new_scale, scale), (new_low, low), (trial, codes))
        return tuple(xp.where(better, new, old) for new, old in pairs), None

    steps = over(xp, xp.full_like(high, top), plus(xp, high, -low))
    codes = codes_under(steps, low)
    scale = over(xp, xp.full_like(high, 1), steps)
    ranges = np.array([float(offset + np.float32(top)) for offset in search.offsets()])
    state = (error(scale, codes, low), scale, low, codes)
    _, scale, low, codes = xp.scan(step, state, (xp.constant(ranges, x),))[0]
    return xp.where(flat, 0.0, scale), -low, xp.where(flat, 0.0, codes)


def _line(xp: Any, x: Any, weights: Any, code: Any, sum_w: Any, sum_x: Any) -> tuple[Any, Any, Any]:
    """Return scale and minimum of the weighted least-squares line through codes, and whether there is one."""
    weighted = times(xp, weights, code)
    sum_l, sum_l2, sum_xl = ordered_sums(xp, weighted, times(xp, weighted, code), times(xp, weighted, x))

    def difference(a: Any, b: Any, c: Any, d: Any) -> Any:
        return plus(xp, times(xp, a, b), -times(xp, c, d))

    determinant = difference(sum_w, sum_l2, sum_l, sum_l)
    low = over(xp, difference(sum_l2, sum_x, sum_l, sum_xl), determinant)
    scale = over(xp, difference(sum_w, sum_xl, sum_x, sum_l), determinant)
    scale = xp.where(low > 0, over(xp, sum_xl, sum_l2), scale)
    return scale, xp.where(low > 0, 0.0, low), determinant > 0


def best_of(xp: Any, fitted: Any, first: Any, numerators: list[float], largest: Any, start: tuple[Any, Any]) -> Any:
    """Return the best scale and its codes among those of `fitted(numerator / largest)`, tried after `start`.

    `fitted` returns codes and the sums of x * code and of code^2, all weighted; `start` is the first scale and codes,
    `first` the first sum.
    """

    def step(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
        best, scale, codes = state
        numerator = xp.where(doubles.is_nan(xp, largest), 1.0, part[0])
        trial, sum_lx, sum_l2 = fitted(over(xp, numerator, largest))
        better = (sum_l2 > 0) & (times(xp, sum_lx, sum_lx) > times(xp, best, sum_l2))
        new_scale = over(xp, sum_lx, sum_l2)
        pairs = ((times(xp, new_scale, sum_lx), best), (new_scale, scale), (trial, codes))
        return tuple(xp.where(better, new, old) for new, old in pairs), None

    scale, codes = start
    state = (times(xp, scale, first), scale, codes)
    _, scale, codes = xp.scan(step, state, (xp.constant(np.array(numerators), largest),))[0]
    return scale, codes


def signed_scale(xp: Any, x: Any, center: int) -> tuple[Any, Any]:
    """Return scales and codes 0 to `2 center - 1` with `x ~ scale * (code - center)`, weights x^2."""
    weights, largest = times(xp, x, x), extremes(xp, x)
    weighted = times(xp, weights, x)

    def fitted(steps: Any) -> tuple[Any, Any, Any]:
        code = nearest(xp, times(xp, steps, x), -center, center - 1)
        return code, *ordered_sums(xp, times(xp, weighted, code), times(xp, times(xp, weights, code), code))

    tenths = [float(-(np.float32(center) + np.float32(0.1) * np.float32(n))) for n in (*range(-9, 0), *range(1, 10))]
    codes, sum_lx, sum_l2 = fitted(over(xp, xp.full_like(largest, -center), largest))
    scale = xp.where(doubles.is_zero(xp, sum_l2), 0.0, over(xp, sum_lx, sum_l2))
    scale, codes = best_of(xp, fitted, sum_lx, tenths, largest, (scale, codes))
    return _unless_tiny(xp, largest, scale, codes + float(center))


def refined_scale(xp: Any, x: Any, center: int) -> tuple[Any, Any]:
    """Return scales and codes as `signed_scale`, found by moving one code at a time to where it fits better."""
    weights, largest = times(xp, x, x), extremes(xp, x)
    weighted = times(xp, weights, x)

    def move(sums: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        (sum_lx, sum_l2), (value, weight, weighted_value, code) = sums, part
        rest_lx = plus(xp, sum_lx, -times(xp, weighted_value, code))
        rest_l2 = plus(xp, sum_l2, -times(xp, times(xp, weight, code), code))
        moved = nearest(xp, over(xp, times(xp, value, rest_l2), rest_lx), -center, center - 1)
        new_lx = plus(xp, rest_lx, times(xp, weighted_value, moved))
        new_l2 = plus(xp, rest_l2, times(xp, times(xp, weight, moved), moved))
        better = (rest_lx > 0) & (moved != code) & (new_l2 > 0)
        gain = times(xp, times(xp, new_lx, new_lx), sum_l2) > times(xp, times(xp, sum_lx, sum_lx), new_l2)
        pairs = ((new_lx, sum_lx), (new_l2, sum_l2), (moved, code))
        *sums_now, code = (xp.where(better & gain, new, old) for new, old in pairs)
        return tuple(sums_now), code

    def sweep(state: tuple[Any, ...], _: Any) -> tuple[tuple[Any, ...], None]:
        *sums, codes = state
        found, codes = xp.scan(move, tuple(sums), (x, weights, weighted, codes))
        return (*found, codes), None

    steps = over(xp, xp.full_like(largest, -center), largest)
    codes = nearest(xp, times(xp, steps, x), -center, center - 1)
    sums = ordered_sums(xp, times(xp, weighted, codes), times(xp, times(xp, weights, codes), codes))
    sum_lx, sum_l2, codes = xp.scan(sweep, (*sums, codes), (xp.constant(np.arange(5), x),))[0]
    scale = xp.where(sum_l2 > 0, over(xp, sum_lx, sum_l2), 0.0)
    return _unless_tiny(xp, largest, scale, codes + float(center))


def _unless_tiny(xp: Any, largest: Any, scale: Any, codes: Any) -> tuple[Any, Any]:
    tiny = doubles.magnitude(xp, largest) < TINY_SIZE
    return xp.where(tiny, 0.0, scale), xp.where(tiny, 0.0, codes)
