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
        a: Values and exponents of the left operand, (batch * rows, terms).
        b: The same of the right operand, cut in tiles of columns: (batch, tiles, terms, width).
        specials: Values as float64 in the same shapes, and which steps have operands that are not finite: (rows,
            steps), (batch, tiles, steps, width).
        plan: `AlignedPlan`.
        stored: `StoredPlan`.
        p: The same as `LanePlan`.
        room: Room for the sums, powers and earlier running sums of a tile, like `state` in the operands' dtype, and for
            its largest exponents, in theirs.
        state: Running sums, (batch * rows, tiles, width); results.
    """
    a_values, a_exponents = a
    b_values, b_exponents = b
    sums, powers, before, top = room
    tiles, terms = b_values.shape[1:3]
    for item in range(rows[0] // plan.rows, -(-rows[1] // plan.rows)):
        first, last = max(rows[0], item * plan.rows), min(rows[1], (item + 1) * plan.rows)
        for tile in range(tiles):
            for step, start in enumerate(range(0, terms, plan.group)):
                stop = min(start + plan.group, terms)
                least = plan.first_least_exponent if start == 0 else plan.least_exponent
                values, exponents = b_values[item, tile, start:stop], b_exponents[item, tile, start:stop]
                for row in range(first, last):  # innermost: a step of a tile of columns stays in the first-level cache
                    running = state[row, tile]
                    _largest_exponents(a_exponents, row, start, exponents, plan, top)
                    largest = _powers(top, running, least, plan, p, powers)
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
def _higher(d: Any, b: Any, e: Any, c: Any, kind: Any) -> Any:
    return max(kind(d + b), kind(e + c))


@_inline
def _largest_exponents(a: Any, row: int, start: int, b: Any, plan: Any, top: Any) -> None:
    """Write the largest exponent of the products of each column; the integers are wide enough for all sums of two."""
    kind = top.dtype.type
    for j in range(top.size):
        top[j] = kind(2 * plan.absent_exponent)
    eights, fours = len(b) // 8 * 8, len(b) // 4 * 4
    for k in range(0, eights, 8):  # eight at a time, or the loop waits for loads and stores of `top`
        i = start + k
        e0, e1, e2, e3 = a[row, i], a[row, i + 1], a[row, i + 2], a[row, i + 3]
        e4, e5, e6, e7 = a[row, i + 4], a[row, i + 5], a[row, i + 6], a[row, i + 7]
        b0, b1, b2, b3, b4, b5, b6, b7 = b[k], b[k + 1], b[k + 2], b[k + 3], b[k + 4], b[k + 5], b[k + 6], b[k + 7]
        for j in range(top.size):
            low = max(_higher(e0, b0[j], e1, b1[j], kind), _higher(e2, b2[j], e3, b3[j], kind))
            high = max(_higher(e4, b4[j], e5, b5[j], kind), _higher(e6, b6[j], e7, b7[j], kind))
            top[j] = max(top[j], low, high)
    for k in range(eights, fours, 4):
        i = start + k
        f0, f1, f2, f3 = a[row, i], a[row, i + 1], a[row, i + 2], a[row, i + 3]
        c0, c1, c2, c3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(top.size):
            four = max(_higher(f0, c0[j], f1, c1[j], kind), _higher(f2, c2[j], f3, c3[j], kind))
            top[j] = max(top[j], four)
    for k in range(fours, len(b)):
        e, others = a[row, start + k], b[k]
        for j in range(top.size):
            top[j] = max(top[j], kind(e + others[j]))


@_inline
def _powers(top: Any, running: Any, least: int, plan: Any, p: Any, powers: Any) -> Any:
    """Write `2^(fraction_bits - e)`, `e` the largest exponent of products and running sums; return that of the latter.

    Where the power is beyond the dtype, all products are zero.
    """
    zero, present = np.int32(plan.zero_exponent), np.int32(plan.least_product_exponent)
    largest, floor = np.int32(p.no_exponent), np.int32(max(least, plan.zero_exponent))
    fraction, most = np.int32(plan.fraction_bits), np.int32(p.most_exponent - 1)
    for j in range(top.size):
        own, product = exponent_of(running[j]), np.int32(top[j])
        largest = max(largest, own)
        highest = max(floor, own) if own > p.no_exponent else zero
        highest = max(highest, product) if product >= present else highest
        exponent = max(min(np.int32(fraction - highest), most), np.int32(-most))
        powers[j] = power_of_two(exponent, powers[j])
    return largest


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
