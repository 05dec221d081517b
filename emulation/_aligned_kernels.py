"""Fused dot-product steps whose terms are aligned and cut, compiled: the tensor cores' sums.

Arrays are (batch, rows, terms) and (batch, terms, columns); a call works on some of the batch's rows. `aligned_columns`
serves the common description, a whole tile of columns at a time with loops that vectorise; `aligned_general` serves
every one, output by output. Both leave steps with NaN or infinities to `_special_step`. The running sums are float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from lowp.emulation._stored_kernels import _bit_length, _store

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: Below this a term has exponent zero's.
_ABSENT = -(1 << 18)
#: Ways of `store_columns`.
TRUNCATED, NEAREST, DOWN, UP = range(4)
_MOST_SHIFT = 62
#: Exponent field of infinities and NaN in float64.
_INFINITE = 0x7FF


@_inline
def _cut(n: Any, shift: Any, table: int) -> Any:
    """Return `n / 2^shift` rounded by a deterministic mode's table; a negative shift is exact."""
    if shift <= 0:
        return n << min(-shift, _MOST_SHIFT)
    s = min(shift, _MOST_SHIFT)
    magnitude, negative = abs(n), np.int64(n < 0)
    kept = magnitude >> s
    rest = magnitude & ((np.int64(1) << s) - 1)
    half = np.int64(1) << (s - 1)
    above = rest > half and shift <= _MOST_SHIFT
    tie = rest == half and shift <= _MOST_SHIFT
    position = 3 if above else 2 if tie else 1 if rest > 0 else 0
    kept += (table >> (position * 4 + negative * 2 + (kept & 1))) & 1
    return -kept if negative == 1 else kept


@_compile
def _special_step(a: Any, b: Any, running: float, stored: Any) -> Any:
    """Return IEEE 754's answer to a step with NaN or infinities among its operands; numbers count as their signs."""
    total = running if not np.isfinite(running) else 0.0
    for k in range(a.size):
        x, y = a[k], b[k]
        x = np.sign(x) if np.isfinite(x) else x
        y = np.sign(y) if np.isfinite(y) else y
        product = x * y
        if not np.isfinite(product):
            total += product
    return _not_finite(total, stored)


@_inline
def _not_finite(total: float, stored: Any) -> Any:
    return total if np.isnan(total) else stored.infinite if total > 0 else stored.infinite_negative


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
        narrow: Room for the sums and powers of a tile, in the operands' dtype, and the latter's bits.
        state: Running sums, (batch * rows, tiles, width); results.
    """
    a_values, a_exponents = a
    b_values, b_exponents = b
    sums, powers, power_bits = narrow
    tiles, terms, width = b_values.shape[1:]
    top = np.empty(width, np.int16)
    total, unit, result = np.empty(width), np.empty(width), np.empty(width)
    total_bits, unit_bits = total.view(np.int64), unit.view(np.int64)
    for item in range(rows[0] // plan.rows, -(-rows[1] // plan.rows)):
        first, last = max(rows[0], item * plan.rows), min(rows[1], (item + 1) * plan.rows)
        for tile in range(tiles):
            for step, start in enumerate(range(0, terms, plan.group)):
                stop = min(start + plan.group, terms)
                least = plan.first_least_exponent if start == 0 else plan.least_exponent
                values, exponents = b_values[item, tile, start:stop], b_exponents[item, tile, start:stop]
                for row in range(first, last):  # innermost: a step of a tile of columns stays in the first-level cache
                    running = state[row, tile]
                    largest = _running_exponents(running.view(np.int64), least, plan.zero_exponent, top)
                    _largest_exponents(a_exponents[row, start:stop], exponents, top)
                    _powers(top, plan, power_bits)
                    _sum_of_terms(a_values[row, start:stop], values, plan.floor, powers, sums)
                    _with_running_sum(sums, top, running, plan, total, unit, unit_bits)
                    if largest < _INFINITE and plan.special == 0:
                        store_columns(total, total_bits, plan.way, stored, unit, unit_bits, running)
                        continue
                    store_columns(total, total_bits, plan.way, stored, unit, unit_bits, result)
                    _correct_specials(
                        specials, (row, item, tile, step, start, stop), plan.special, stored, running, result
                    )


@_compile
def _correct_specials(specials: Any, place: Any, special: int, stored: Any, running: Any, result: Any) -> None:
    """Write the results of a step, those that NaN and infinities decide put right, to the running sums."""
    row, item, tile, step, start, stop = place
    for j in range(running.size):
        bad = specials[2][row, step] | specials[3][item, tile, step, j] if special == 1 else False
        if bad:
            result[j] = _special_step(
                specials[0][row, start:stop], specials[1][item, tile, start:stop, j], running[j], stored
            )
        elif not np.isfinite(running[j]):
            result[j] = _not_finite(running[j], stored)
    running[:] = result


@_compile
def _running_exponents(bits: Any, least: int, zero: int, top: Any) -> Any:
    """Write the exponents of the running sums, at least zero's; return the largest of the field that holds them."""
    largest = np.int64(0)
    for j in range(top.size):
        field = (bits[j] >> 52) & 0x7FF
        largest = max(largest, field)
        top[j] = max(zero, field - 1023, least) if field > 0 else zero
    return largest


@_compile
def _largest_exponents(a: Any, b: Any, top: Any) -> None:
    """Raise exponents to the largest of the products of each column."""
    whole = a.size // 4 * 4
    for k in range(0, whole, 4):  # four at a time, or the loop waits for loads and stores of `top`
        e0, e1, e2, e3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(top.size):
            low = max(np.int16(e0 + b0[j]), np.int16(e1 + b1[j]))
            high = max(np.int16(e2 + b2[j]), np.int16(e3 + b3[j]))
            top[j] = max(top[j], low, high)
    for k in range(whole, a.size):
        e, others = a[k], b[k]
        for j in range(top.size):
            top[j] = max(top[j], np.int16(e + others[j]))


@_compile
def _powers(top: Any, plan: Any, bits: Any) -> None:
    """Write the bits of `2^(fraction_bits - top)`; where that is beyond the dtype, all products are zero."""
    for j in range(top.size):
        bits[j] = max(min(plan.fraction_bits - top[j], plan.most_power), -plan.most_power) + plan.power_bias
        bits[j] = bits[j] << plan.power_shift


@_compile
def _sum_of_terms(a: Any, b: Any, floor: int, powers: Any, sums: Any) -> None:
    """Write the sums of the products in units of the last bit kept, each cut to such units."""
    for j in range(sums.size):
        sums[j] = 0
    whole = a.size // 4 * 4
    for k in range(0, whole, 4):  # the sums are exact, so their order does not matter
        x0, x1, x2, x3 = a[k], a[k + 1], a[k + 2], a[k + 3]
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
    for k in range(whole, a.size):
        x, others = a[k], b[k]
        if floor == 1:
            for j in range(sums.size):
                sums[j] += np.floor(x * others[j] * powers[j])
        else:
            for j in range(sums.size):
                sums[j] += np.trunc(x * others[j] * powers[j])


@_compile
def _with_running_sum(sums: Any, top: Any, running: Any, plan: Any, total: Any, unit: Any, unit_bits: Any) -> None:
    """Write the sums of products and running sums, as numbers, all bits kept."""
    for j in range(running.size):
        unit_bits[j] = (plan.fraction_bits - np.int64(top[j]) + 1023) << 52
    for j in range(running.size):
        units = running[j] * unit[j]
        total[j] = np.float64(sums[j]) + (np.floor(units) if plan.floor == 1 else np.trunc(units))
    for j in range(running.size):
        unit_bits[j] = (np.int64(top[j]) - plan.fraction_bits + 1023) << 52
    for j in range(running.size):
        total[j] *= unit[j]


@_compile
def store_columns(total: Any, total_bits: Any, way: int, p: Any, unit: Any, unit_bits: Any, result: Any) -> None:
    """Write float64 sums rounded to the format of a `StoredPlan`, as `_store` does, in the four ways named above."""
    for j in range(result.size):
        exponent = ((total_bits[j] >> 52) & 0x7FF) - 1023
        unit_bits[j] = (1023 - max(exponent - p.precision + 1, np.int64(p.least_bit))) << 52
    if way == TRUNCATED:
        for j in range(result.size):
            result[j] = np.trunc(total[j] * unit[j])
    elif way == NEAREST:
        for j in range(result.size):
            result[j] = np.rint(total[j] * unit[j])
    elif way == DOWN:
        for j in range(result.size):
            result[j] = np.floor(total[j] * unit[j])
    else:
        for j in range(result.size):
            result[j] = np.ceil(total[j] * unit[j])
    for j in range(result.size):
        unit_bits[j] = np.int64(2046 << 52) - unit_bits[j]
    for j in range(result.size):
        value = result[j] * unit[j]
        value = value * 0.0 if abs(value) < p.smallest_normal else value
        value = p.above if value > p.largest else value
        value = p.below if value < p.least else value
        result[j] = value if p.signed_zero == 1 else value + 0.0


@_compile
def aligned_general(rows: Any, a: Any, b: Any, specials: Any, plan: Any, stored: Any, state: Any) -> None:
    """Run the steps of any aligned accumulator; arguments as `aligned_columns`, with significands in place of values.

    `a` and `b` are (significands, exponents, scales' significands, scales' exponents), the latter two per scaled group.
    """
    tiles, terms, width = b[0].shape[1:]
    significands, exponents = np.empty(plan.group, np.int64), np.empty(plan.group, np.int64)
    for row in range(rows[0], rows[1]):
        item = row // plan.rows
        for tile in range(tiles):
            for j in range(width):
                for step, start in enumerate(range(0, terms, plan.group)):
                    stop = min(start + plan.group, terms)
                    running = state[row, tile, j]
                    count = _terms(a, b, row, item, tile, j, start, stop, plan, significands, exponents)
                    least = plan.first_least_exponent if start == 0 else plan.least_exponent
                    infinite = _infinite_products(significands[:count], exponents[:count], plan)
                    if plan.special == 1 and specials[2][row, step] | specials[3][item, tile, step, j]:
                        state[row, tile, j] = _special_step(
                            specials[0][row, start:stop],
                            specials[1][item, tile, start:stop, j],
                            running + infinite,
                            stored,
                        )
                    elif not np.isfinite(running + infinite):
                        state[row, tile, j] = _not_finite(running + infinite, stored)
                    else:
                        state[row, tile, j] = _general_step(
                            significands[:count], exponents[:count], running, least, plan, stored
                        )


@_inline
def _terms(
    a: Any, b: Any, row: int, item: int, tile: int, j: int, start: int, stop: int, plan: Any, significands: Any,
    exponents: Any
) -> Any:  # fmt: skip
    """Write the terms of a step: products, or exact sums of scaled groups; return how many."""
    if plan.scaled_group == 0:
        for k in range(start, stop):
            significands[k - start] = a[0][row, k] * b[0][item, tile, k, j]
            exponents[k - start] = np.int64(a[1][row, k]) + b[1][item, tile, k, j]
        return stop - start
    count = 0
    for first in range(start, stop, plan.scaled_group):
        total, some = np.int64(0), False
        for k in range(first, min(first + plan.scaled_group, stop)):
            product = a[0][row, k] * b[0][item, tile, k, j]
            some |= product != 0
            # units of the least product: elements' exponents are small and not negative relative to it
            total += product << (
                np.int64(a[1][row, k]) + b[1][item, tile, k, j] - plan.element_exponent if product != 0 else 0
            )
        place = first // plan.scaled_group
        factor = a[2][row, place] * b[2][item, tile, place, j]
        significands[count] = total * factor
        present = some and factor != 0
        exponents[count] = np.int64(a[3][row, place]) + b[3][item, tile, place, j] if present else 2 * _ABSENT
        count += 1
    return count


@_inline
def _general_step(significands: Any, exponents: Any, running: float, least: int, plan: Any, stored: Any) -> Any:
    """Return the running sum after a step of finite terms."""
    fraction, power = math.frexp(abs(running))
    size, running_exponent = np.int64(fraction * 9007199254740992.0), np.int64(power) - 1
    running_units = -size if running < 0 else size  # times 2^(running_exponent - 52)
    own: Any = max(running_exponent, least) if size != 0 else least
    total, reference = np.int64(0), np.int64(2 * _ABSENT)
    for lane in range(plan.lanes):
        top = np.int64(plan.zero_exponent)
        for k in range(lane, significands.size, plan.lanes):
            if exponents[k] > _ABSENT:
                top = max(top, exponents[k])
        if plan.after == 0 and size != 0:
            top = max(top, own)
        part = np.int64(0)
        for k in range(lane, significands.size, plan.lanes):
            if exponents[k] > _ABSENT:
                part += _cut(significands[k], plan.right + top - exponents[k], plan.cut)
        if plan.after == 0 and size != 0:
            part += _cut(running_units, 52 - plan.fraction_bits + top - running_exponent, plan.cut)
        higher = max(reference, top)
        total = _cut(total, higher - reference, plan.sum_cut) + _cut(part, higher - top, plan.sum_cut)
        reference = higher
    unit = reference - plan.fraction_bits
    if plan.after == 1:
        dropped = plan.running_reach >= 0 and own < reference - plan.running_reach
        own = own if not dropped else reference
        higher = max(reference, own)
        bits = max(plan.sum_bits, plan.running_bits)
        total = _cut(total, plan.fraction_bits - plan.sum_bits + higher - reference, plan.sum_cut) << (
            bits - plan.sum_bits
        )
        if size != 0 and not dropped:
            total += _cut(running_units, 52 - plan.running_bits + higher - running_exponent, plan.sum_cut) << (
                bits - plan.running_bits
            )
        unit = higher - bits
    if plan.result_bits >= 0 and total != 0:
        last = max(_bit_length(abs(total)) - 1 + unit, plan.least_exponent) - plan.result_bits
        if last > unit:
            total, unit = _cut(total, last - unit, plan.sum_cut), last
    return _store(np.int64(total < 0), abs(total), unit, 0, stored)


@_inline
def _infinite_products(significands: Any, exponents: Any, plan: Any) -> Any:
    """Return the sum of the products beyond the limit, each infinite; 0 where there are none."""
    total = 0.0
    for k in range(significands.size):
        n = significands[k]
        if n != 0 and _bit_length(abs(n)) - 1 + exponents[k] - plan.product_bits >= plan.product_limit:
            total += np.inf if n > 0 else -np.inf
    return total
