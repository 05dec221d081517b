"""Fused dot-product steps whose terms are aligned and cut, compiled: the tensor cores' sums.

Arrays are (batch, rows, terms) and (batch, terms, columns); a call works on some of the batch's rows.
`_aligned_columns_kernels` serves the common description, a whole tile of columns at a time with loops that vectorise;
`aligned_general` serves every one, output by output. Both leave steps with NaN or infinities to `special_step`. The
running sums are float64.
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
_MOST_SHIFT = 62


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
def special_step(a: Any, b: Any, running: float, stored: Any) -> Any:
    """Return IEEE 754's answer to a step with NaN or infinities among its operands; numbers count as their signs."""
    total = running if not np.isfinite(running) else 0.0
    for k in range(a.size):
        x, y = a[k], b[k]
        x = np.sign(x) if np.isfinite(x) else x
        y = np.sign(y) if np.isfinite(y) else y
        product = x * y
        if not np.isfinite(product):
            total += product
    return not_finite(total, stored)


@_inline
def not_finite(total: float, stored: Any) -> Any:
    return total if np.isnan(total) else stored.infinite if total > 0 else stored.infinite_negative


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
                        state[row, tile, j] = special_step(
                            specials[0][row, start:stop],
                            specials[1][item, tile, start:stop, j],
                            running + infinite,
                            stored,
                        )
                    elif not np.isfinite(running + infinite):
                        state[row, tile, j] = not_finite(running + infinite, stored)
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
