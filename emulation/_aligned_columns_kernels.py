"""Aligned sums of a tile of columns at a time, in loops that vectorise: the common description of tensor cores.

Products, their cuts and their sums are floating-point numbers that hold them exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.emulation._aligned_kernels import not_finite, special_step
from lowp.emulation._bitcast_kernels import bits_of, exponent_of, number_of, power_of_two

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: Ways of `store_columns`.
TRUNCATED, NEAREST, DOWN, UP = range(4)


@_compile
def aligned_columns(
    rows: Any, a: Any, b: Any, specials: Any, plan: Any, stored: Any, p: Any, room: Any, state: Any
) -> None:
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
        p: The same as `LanePlan`.
        room: Room for the sums, powers and earlier running sums of a tile; like `state` in the operands' dtype.
        state: Running sums, (batch * rows, tiles, width); results.
    """
    a_values, a_exponents = a
    b_values, b_exponents = b
    sums, powers, before = room
    tiles, terms, width = b_values.shape[1:]
    top = np.empty(width, np.int16)
    for item in range(rows[0] // plan.rows, -(-rows[1] // plan.rows)):
        first, last = max(rows[0], item * plan.rows), min(rows[1], (item + 1) * plan.rows)
        for tile in range(tiles):
            for step, start in enumerate(range(0, terms, plan.group)):
                stop = min(start + plan.group, terms)
                least = plan.first_least_exponent if start == 0 else plan.least_exponent
                values, exponents = b_values[item, tile, start:stop], b_exponents[item, tile, start:stop]
                for row in range(first, last):  # innermost: a step of a tile of columns stays in the first-level cache
                    running = state[row, tile]
                    largest = _running_exponents(running, least, plan.zero_exponent, p, top)
                    _largest_exponents(a_exponents, row, start, exponents, top)
                    _powers(top, plan, p, powers)
                    if plan.floor == 1:
                        _sum_of_terms(a_values, row, start, values, True, powers, sums)
                    else:
                        _sum_of_terms(a_values, row, start, values, False, powers, sums)
                    if largest <= p.most_exponent and plan.special == 0:
                        _add_and_store(sums, powers, running, plan, p)
                        continue
                    before[:] = running
                    _add_and_store(sums, powers, running, plan, p)
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
                specials[0][row, start:stop], specials[1][item, tile, start:stop, j], np.float64(before[j]), stored
            )
        elif not np.isfinite(before[j]):
            running[j] = not_finite(np.float64(before[j]), stored)


@_inline
def _running_exponents(running: Any, least: int, zero: int, p: Any, top: Any) -> Any:
    """Write the exponents of the running sums, at least zero's; return the largest."""
    largest, floor, absent = np.int32(p.no_exponent), np.int32(max(least, zero)), np.int32(zero)
    for j in range(top.size):
        exponent = exponent_of(running[j])
        largest = max(largest, exponent)
        top[j] = max(floor, exponent) if exponent > p.no_exponent else absent
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
def _powers(top: Any, plan: Any, p: Any, powers: Any) -> None:
    """Write `2^(fraction_bits - top)`; where that is beyond the dtype, all products are zero."""
    fraction, most = np.int32(plan.fraction_bits), np.int32(p.most_exponent - 1)
    for j in range(top.size):
        exponent = max(min(np.int32(fraction - np.int32(top[j])), most), np.int32(-most))
        powers[j] = power_of_two(exponent, powers[j])


@_inline
def _cut(units: Any, floor: bool) -> Any:
    return np.floor(units) if floor else np.trunc(units)


@_inline
def _two(x: Any, b: Any, y: Any, c: Any, p: Any, floor: bool) -> Any:
    return _cut(x * b * p, floor) + _cut(y * c * p, floor)


@_inline
def _sum_of_terms(a: Any, row: int, start: int, b: Any, floor: bool, powers: Any, sums: Any) -> None:
    """Write the sums of the products in units of the last bit kept, each cut to such units.

    The sums are exact, so their order does not matter; eight or four at a time wait less for loads and stores.
    """
    for j in range(sums.size):
        sums[j] = 0
    eights, fours = len(b) // 8 * 8, len(b) // 4 * 4
    for k in range(0, eights, 8):
        i = start + k
        x0, x1, x2, x3 = a[row, i], a[row, i + 1], a[row, i + 2], a[row, i + 3]
        x4, x5, x6, x7 = a[row, i + 4], a[row, i + 5], a[row, i + 6], a[row, i + 7]
        b0, b1, b2, b3, b4, b5, b6, b7 = b[k], b[k + 1], b[k + 2], b[k + 3], b[k + 4], b[k + 5], b[k + 6], b[k + 7]
        for j in range(sums.size):
            p = powers[j]
            low = _two(x0, b0[j], x1, b1[j], p, floor) + _two(x2, b2[j], x3, b3[j], p, floor)
            high = _two(x4, b4[j], x5, b5[j], p, floor) + _two(x6, b6[j], x7, b7[j], p, floor)
            sums[j] += low + high
    for k in range(eights, fours, 4):
        i = start + k
        y0, y1, y2, y3 = a[row, i], a[row, i + 1], a[row, i + 2], a[row, i + 3]
        c0, c1, c2, c3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(sums.size):
            p = powers[j]
            sums[j] += _two(y0, c0[j], y1, c1[j], p, floor) + _two(y2, c2[j], y3, c3[j], p, floor)
    for k in range(fours, len(b)):
        one, column = a[row, start + k], b[k]
        for j in range(sums.size):
            sums[j] += _cut(one * column[j] * powers[j], floor)


@_inline
def _total(terms: Any, power: Any, running: Any, plan: Any, p: Any) -> Any:
    """Return the sum of a step's products and a running sum, all bits kept."""
    units = running * power
    cut = np.floor(units) if plan.floor == 1 else np.trunc(units)
    return (terms + cut) * number_of(p.twice_one - bits_of(power), power)


@_inline
def _last_bit(total: Any, p: Any) -> Any:
    """Return the exponent of the last bit that is kept of a number."""
    return max(np.int32(np.int32(exponent_of(total) - p.precision) + np.int32(1)), p.least_bit)


@_inline
def _within(value: Any, p: Any) -> Any:
    """Return a rounded number, flushed and within the range."""
    value = p.zero * value if abs(value) < p.smallest_normal else value
    value = p.above if value > p.largest else value
    value = p.below if value < p.least else value
    return value if p.signed_zero == 1 else value + p.zero


@_inline
def _rounded(total: Any, way: int, p: Any) -> Any:
    """Return a number rounded to the format of a plan, as `_store` does."""
    last = _last_bit(total, p)
    units = total * power_of_two(np.int32(-last), total)
    if way == TRUNCATED:
        units = np.trunc(units)
    elif way == NEAREST:
        units = np.rint(units)
    elif way == DOWN:
        units = np.floor(units)
    else:
        units = np.ceil(units)
    return _within(units * power_of_two(last, total), p)


@_compile
def store_columns(total: Any, way: int, p: Any, result: Any) -> None:
    """Write sums rounded to the format of a `LanePlan`, in the four ways named above."""
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
def _add_and_store(sums: Any, powers: Any, running: Any, plan: Any, p: Any) -> None:
    """Replace running sums by the stored sums of products and them; one array in and out, or nothing vectorises."""
    if plan.way == TRUNCATED:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], powers[j], running[j], plan, p), TRUNCATED, p)
    elif plan.way == NEAREST:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], powers[j], running[j], plan, p), NEAREST, p)
    elif plan.way == DOWN:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], powers[j], running[j], plan, p), DOWN, p)
    else:
        for j in range(running.size):
            running[j] = _rounded(_total(sums[j], powers[j], running[j], plan, p), UP, p)
