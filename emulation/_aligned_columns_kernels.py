"""Aligned sums of a tile of columns at a time, in loops that vectorise: the common description of tensor cores.

Products, their cuts and their sums are floating-point numbers that hold them exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.emulation._aligned_kernels import not_finite, special_step
from lowp.emulation._bitcast_kernels import bits_of, number_of

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: Ways of `store_columns`.
TRUNCATED, NEAREST, DOWN, UP = range(4)
#: Exponent field of infinities and NaN in float64.
_INFINITE = 0x7FF


@_compile
def aligned_columns(rows: Any, a: Any, b: Any, specials: Any, plan: Any, stored: Any, narrow: Any, state: Any) -> None:
    """Run the steps of an accumulator of one lane whose running sum is a term, cut toward zero or minus infinity.

    Products, their cuts and their sums are exact in floating point: that is what the caller chose its width for.

    Args:
        rows: First and last row, counted over the whole batch.
        a: Values and exponents (int16) of the left operand, (batch * rows, terms).
        b: The same of the right operand, cut in tiles of columns: (batch, tiles, terms, width).
        specials: Values as float64 in the same shapes, and which steps have operands that are not finite: (rows,
            steps), (batch, tiles, steps, width).
        plan: `AlignedPlan`.
        stored: `StoredPlan`.
        narrow: Room for the sums and powers of a tile, in the operands' dtype.
        state: Running sums, (batch * rows, tiles, width); results.
    """
    a_values, a_exponents = a
    b_values, b_exponents = b
    sums, powers = narrow
    tiles, terms, width = b_values.shape[1:]
    top, before = np.empty(width, np.int16), np.empty(width)
    for item in range(rows[0] // plan.rows, -(-rows[1] // plan.rows)):
        first, last = max(rows[0], item * plan.rows), min(rows[1], (item + 1) * plan.rows)
        for tile in range(tiles):
            for step, start in enumerate(range(0, terms, plan.group)):
                stop = min(start + plan.group, terms)
                least = plan.first_least_exponent if start == 0 else plan.least_exponent
                values, exponents = b_values[item, tile, start:stop], b_exponents[item, tile, start:stop]
                for row in range(first, last):  # innermost: a step of a tile of columns stays in the first-level cache
                    running = state[row, tile]
                    largest = _running_exponents(running, least, plan.zero_exponent, top)
                    _largest_exponents(a_exponents, row, start, exponents, top)
                    _powers(top, plan, powers)
                    _sum_of_terms(a_values, row, start, values, plan.floor, powers, sums)
                    if largest < _INFINITE and plan.special == 0:
                        _add_and_store(sums, top, running, plan, stored)
                        continue
                    before[:] = running
                    _add_and_store(sums, top, running, plan, stored)
                    place = row, item, tile, step, start, stop
                    _correct_specials(specials, place, plan.special, stored, before, running)


@_compile
def _correct_specials(specials: Any, place: Any, special: int, stored: Any, before: Any, running: Any) -> None:
    """Put right the running sums that NaN and infinities decide; `before`: what they were before the step."""
    row, item, tile, step, start, stop = place
    for j in range(running.size):
        bad = specials[2][row, step] | specials[3][item, tile, step, j] if special == 1 else False
        if bad:
            running[j] = special_step(
                specials[0][row, start:stop], specials[1][item, tile, start:stop, j], before[j], stored
            )
        elif not np.isfinite(before[j]):
            running[j] = not_finite(before[j], stored)


@_inline
def _running_exponents(running: Any, least: int, zero: int, top: Any) -> Any:
    """Write the exponents of the running sums, at least zero's; return the largest of the field that holds them."""
    largest = np.int64(0)
    for j in range(top.size):
        field = (bits_of(running[j]) >> 52) & 0x7FF
        largest = max(largest, field)
        top[j] = max(zero, field - 1023, least) if field > 0 else zero
    return largest


@_inline
def _largest_exponents(a: Any, row: int, start: int, b: Any, top: Any) -> None:
    """Raise exponents to the largest of the products of each column."""
    whole = len(b) // 4 * 4
    for k in range(0, whole, 4):  # four at a time, or the loop waits for loads and stores of `top`
        i = start + k
        e0, e1, e2, e3 = a[row, i], a[row, i + 1], a[row, i + 2], a[row, i + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(top.size):
            low = max(np.int16(e0 + b0[j]), np.int16(e1 + b1[j]))
            high = max(np.int16(e2 + b2[j]), np.int16(e3 + b3[j]))
            top[j] = max(top[j], low, high)
    for k in range(whole, len(b)):
        e, others = a[row, start + k], b[k]
        for j in range(top.size):
            top[j] = max(top[j], np.int16(e + others[j]))


@_inline
def _powers(top: Any, plan: Any, powers: Any) -> None:
    """Write `2^(fraction_bits - top)`; where that is beyond the dtype, all products are zero."""
    fraction, most, bias, shift = (
        np.int32(plan.fraction_bits), np.int32(plan.most_power), np.int32(plan.power_bias), plan.power_shift
    )  # fmt: skip
    for j in range(top.size):
        exponent = max(min(fraction - np.int32(top[j]), most), -most) + bias
        powers[j] = number_of(exponent << shift, powers[j])


@_inline
def _sum_of_terms(a: Any, row: int, start: int, b: Any, floor: int, powers: Any, sums: Any) -> None:
    """Write the sums of the products in units of the last bit kept, each cut to such units."""
    for j in range(sums.size):
        sums[j] = 0
    whole = len(b) // 4 * 4
    for k in range(0, whole, 4):  # the sums are exact, so their order does not matter
        i = start + k
        x0, x1, x2, x3 = a[row, i], a[row, i + 1], a[row, i + 2], a[row, i + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        if floor == 1:
            for j in range(sums.size):
                p = powers[j]
                low = np.floor(x0 * b0[j] * p) + np.floor(x1 * b1[j] * p)
                sums[j] += low + (np.floor(x2 * b2[j] * p) + np.floor(x3 * b3[j] * p))
        else:
            for j in range(sums.size):
                p = powers[j]
                low = np.trunc(x0 * b0[j] * p) + np.trunc(x1 * b1[j] * p)
                sums[j] += low + (np.trunc(x2 * b2[j] * p) + np.trunc(x3 * b3[j] * p))
    for k in range(whole, len(b)):
        x, others = a[row, start + k], b[k]
        if floor == 1:
            for j in range(sums.size):
                sums[j] += np.floor(x * others[j] * powers[j])
        else:
            for j in range(sums.size):
                sums[j] += np.trunc(x * others[j] * powers[j])


@_inline
def _power(exponent: Any) -> Any:
    """Return a power of two in float64."""
    return number_of((np.int64(exponent) + 1023) << 52, 0.0)


@_inline
def _total(terms: Any, top: Any, running: float, plan: Any) -> Any:
    """Return the sum of a step's products and a running sum, all bits kept."""
    units = running * _power(plan.fraction_bits - top)
    cut = np.floor(units) if plan.floor == 1 else np.trunc(units)
    return (np.float64(terms) + cut) * _power(top - plan.fraction_bits)


@_inline
def _units_bits(total: float, p: Any) -> Any:
    """Return the bits of the power of two that makes the last bit which is kept of a number 1."""
    exponent = ((bits_of(total) >> 52) & 0x7FF) - 1023
    return (1023 - max(exponent - p.precision + 1, np.int64(p.least_bit))) << 52


@_inline
def _within(units: float, bits: int, p: Any) -> Any:
    """Return a rounded number of units, flushed and within the range."""
    value = units * number_of((np.int64(2046) << 52) - bits, 0.0)
    value = value * 0.0 if abs(value) < p.smallest_normal else value
    value = p.above if value > p.largest else value
    value = p.below if value < p.least else value
    return value if p.signed_zero == 1 else value + 0.0


@_inline
def _rounded(total: float, way: int, p: Any) -> Any:
    """Return a number rounded to the format of a plan, as `_store` does."""
    bits = _units_bits(total, p)
    units = total * number_of(bits, 0.0)
    if way == TRUNCATED:
        units = np.trunc(units)
    elif way == NEAREST:
        units = np.rint(units)
    elif way == DOWN:
        units = np.floor(units)
    else:
        units = np.ceil(units)
    return _within(units, bits, p)


@_compile
def store_columns(total: Any, way: int, p: Any, result: Any) -> None:
    """Write float64 sums rounded to the format of a `StoredPlan`, in the four ways named above."""
    if way == TRUNCATED:
        for j in range(result.size):
            result[j] = _rounded(total[j], TRUNCATED, p)
    elif way == NEAREST:
        for j in range(result.size):
            result[j] = _rounded(total[j], NEAREST, p)
    elif way == DOWN:
        for j in range(result.size):
            result[j] = _rounded(total[j], DOWN, p)
    else:
        for j in range(result.size):
            result[j] = _rounded(total[j], UP, p)


@_compile
def _add_and_store(sums: Any, top: Any, running: Any, plan: Any, p: Any) -> None:
    """Replace running sums by the stored sums of products and them; one array in and out, or nothing vectorises."""
    if plan.way == TRUNCATED:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], top[j], running[j], plan), TRUNCATED, p)
    elif plan.way == NEAREST:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], top[j], running[j], plan), NEAREST, p)
    elif plan.way == DOWN:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], top[j], running[j], plan), DOWN, p)
    else:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], top[j], running[j], plan), UP, p)
