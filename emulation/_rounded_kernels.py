"""Rows of sums of products whose every addition is rounded, step by step; compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.emulation._rounded_passes_kernels import add_plainly, flush, multiply_add, multiply_add_all

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_compile
def extent(numbers: Any) -> Any:
    """Return the significant bits that finite numbers have, and the exponents of the least and the most of them."""
    bits, least, most = np.int64(1), np.int64(1024), np.int64(-1075)
    for x in numbers:
        pattern = np.float64(x).view(np.int64)
        field = (pattern >> 52) & 0x7FF
        significand = pattern & ((np.int64(1) << 52) - 1)
        if field == 0x7FF or (field == 0 and significand == 0):
            continue
        if field > 0:
            significand |= np.int64(1) << 52
        unit = max(field, np.int64(1)) - 1075
        lowest = np.float64(significand & -significand).view(np.int64) // (np.int64(1) << 52) - 1023
        highest = np.float64(significand).view(np.int64) // (np.int64(1) << 52) - 1023
        bits = max(bits, highest - lowest + 1)
        least, most = min(least, unit + lowest), max(most, unit + highest)
    if least > most:
        return np.int64(1), np.int64(0), np.int64(0)
    return bits, least, most


@_compile
def _negate(source: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = -source[j]


@_compile
def _add(x: float, b: Any, s: Any, scratch: Any, draws: Any, q: Any, p: Any) -> None:
    """Replace `s` by the stored sum of `x * b` and `s`, two stored numbers; `b` is scratch."""
    if q.flushes_sums == 1:
        flush(b, q.smallest_normal, q.positive == 1)
        flush(s, q.smallest_normal, q.positive == 1)
    multiply_add(x, b, s, scratch, draws, p)


@_compile
def _multiply(x: float, b: Any, out: Any, scratch: Any, draws: Any, q: Any, p: Any) -> None:
    """Write rounded products."""
    out[:] = -0.0  # keeps the sign of a product
    multiply_add(x, b, out, scratch, draws, p)
    if q.flushes_products == 1:
        flush(out, q.smallest_normal_product, q.positive == 1)


@_compile
def _tree(a: Any, b: Any, merges: Any, stack: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """Write the sum of rounded products to the stack's first row."""
    _, _, product, both = plans
    start, stride = draws[0], draws[1]
    sums = start + a.size * stride
    top = -1
    for t in range(a.size):
        top += 1
        draws[0] = start + t * stride
        _multiply(a[t], b[t], stack[top], scratch, draws, q, product)
        draws[0] = sums
        for _ in range(merges[t]):
            _add(1.0, stack[top], stack[top - 1], scratch, draws, q, both)
            top -= 1
        sums = draws[0]


@_compile
def _fused(a: Any, b: Any, s: Any, fresh: bool, stack: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """Add the products of a step to `s`, rounded once; `fresh`: there is nothing in `s` yet."""
    term, alone, product, both = plans
    last = a.size - 1
    if q.rounds_products == 1:
        row = stack[0]
        for t in range(last + 1):
            _multiply(a[t], b[t], row, scratch, draws, q, product)
            if fresh and t == 0:
                s[:] = row
            elif t < last:
                add_plainly(1.0, row, s, both.mirror)
            if t == last:
                if fresh and t == 0:
                    s[:] = -0.0
                    multiply_add(1.0, row, s, scratch, draws, alone)
                else:
                    multiply_add(1.0, row, s, scratch, draws, both)
        return
    if fresh:
        s[:] = -0.0
        if last == 0:
            multiply_add(a[0], b[0], s, scratch, draws, alone)
            return
        add_plainly(a[0], b[0], s, np.int64(0))
    for t in range(np.int64(fresh), last):
        add_plainly(a[t], b[t], s, term.mirror)
    multiply_add(a[last], b[last], s, scratch, draws, term)


@_compile
def _in_order(a: Any, b: Any, s: Any, merges: Any, stack: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """Add the steps one by one."""
    if q.combine == 0 and q.group == 1 and q.rounds_products == 0 and q.flushes_sums == 0:
        multiply_add_all(a, b, s, scratch, draws, plans[0])
        return
    for first in range(0, a.size, q.group):
        x, y = a[first : first + q.group], b[first : first + q.group]
        if q.combine == 0:
            if q.flushes_sums == 1:
                flush(s, q.smallest_normal, q.positive == 1)
            _fused(x, y, s, False, stack, scratch, draws, q, plans)
        else:
            _tree(x, y, merges[0 if x.size == q.group else 1], stack, scratch, draws, q, plans)
            _add(1.0, stack[0], s, scratch, draws, q, plans[3])


@_compile
def _pairwise(a: Any, b: Any, s: Any, merges: Any, stack: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """Add the steps' own sums in a tree, then the running sum."""
    start, stride = draws[0], draws[1]
    steps = (a.size + q.group - 1) // q.group
    sums = start + q.draws * stride
    base, top = merges[2][0], np.int64(-1)
    for i in range(steps):
        x, y = a[i * q.group : (i + 1) * q.group], b[i * q.group : (i + 1) * q.group]
        top += 1
        own = stack[base + top]
        draws[0] = start
        if q.combine == 0:
            _fused(x, y, own, True, stack, scratch, draws, q, plans)
        else:
            _tree(x, y, merges[0 if x.size == q.group else 1], stack, scratch, draws, q, plans)
            own[:] = stack[0]
        start = draws[0]
        draws[0] = sums
        for _ in range(merges[3][i]):
            _add(1.0, stack[base + top], stack[base + top - 1], scratch, draws, q, plans[3])
            top -= 1
        sums = draws[0]
    draws[0] = sums
    if steps > 0:
        _add(1.0, stack[base], s, scratch, draws, q, plans[3])


@_compile
def _term(x: float, b: Any, s: Any, rows: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """Add one product, exact or rounded, to `s`; a rounded one is in the first of `rows`."""
    if q.rounds_products == 1:
        multiply_add(x, rows[0], s, scratch, draws, plans[3])
    else:
        multiply_add(x, b, s, scratch, draws, plans[0])


@_compile
def _kahan(a: Any, b: Any, s: Any, rows: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """`y = p - e; t = s + y; e = (t - s) - y; s = t`; `s - e` in the end."""
    both = plans[3]
    y, t, e = rows[1], rows[2], rows[3]
    e[:] = 0.0
    for k in range(a.size):
        if q.rounds_products == 1:
            _multiply(a[k], b[k], rows[0], scratch, draws, q, plans[2])
        _negate(e, y)
        _term(1.0 if q.rounds_products == 1 else a[k], b[k], y, rows, scratch, draws, q, plans)
        t[:] = s
        multiply_add(1.0, y, t, scratch, draws, both)
        e[:] = t
        multiply_add(-1.0, s, e, scratch, draws, both)
        multiply_add(-1.0, y, e, scratch, draws, both)
        s[:] = t
    multiply_add(-1.0, e, s, scratch, draws, both)


@_compile
def _neumaier(a: Any, b: Any, s: Any, rows: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """`t = s + p; e = e + ((x - t) + y); s = t`, x the larger of s and p; `s + e` in the end."""
    both = plans[3]
    t, e, d, o = rows[1], rows[2], rows[3], rows[4]
    e[:] = 0.0
    for k in range(a.size):
        x = a[k]
        factor = 1.0 if q.rounds_products == 1 else x
        if q.rounds_products == 1:
            _multiply(x, b[k], rows[0], scratch, draws, q, plans[2])
        t[:] = s
        _term(factor, b[k], t, rows, scratch, draws, q, plans)
        _negate(t, d)
        multiply_add(1.0, s, d, scratch, draws, both)  # s - t
        _term(factor, b[k], d, rows, scratch, draws, q, plans)
        _negate(t, o)
        _term(factor, b[k], o, rows, scratch, draws, q, plans)  # p - t
        multiply_add(1.0, s, o, scratch, draws, both)
        for j in range(s.size):
            size = abs(rows[0][j]) if q.rounds_products == 1 else abs(x * b[k][j])
            d[j] = d[j] if not size > abs(s[j]) else o[j]
        multiply_add(1.0, d, e, scratch, draws, both)
        s[:] = t
    multiply_add(1.0, e, s, scratch, draws, both)


@_compile
def _two_sum(a: Any, b: Any, s: Any, rows: Any, scratch: Any, draws: Any, q: Any, plans: Any) -> None:
    """TwoSum of h and p, `v = l + e`, then Fast2Sum of the two; `h + l` in the end."""
    both = plans[3]
    t, u, e, low, w = rows[1], rows[2], rows[3], rows[4], rows[5]
    low[:] = 0.0
    for k in range(a.size):
        x = a[k]
        factor = 1.0 if q.rounds_products == 1 else x
        if q.rounds_products == 1:
            _multiply(x, b[k], rows[0], scratch, draws, q, plans[2])
        t[:] = s
        _term(factor, b[k], t, rows, scratch, draws, q, plans)  # t = h + p
        u[:] = t
        multiply_add(-1.0, s, u, scratch, draws, both)  # u = t - h
        _negate(u, e)
        _term(factor, b[k], e, rows, scratch, draws, q, plans)  # p - u
        w[:] = t
        multiply_add(-1.0, u, w, scratch, draws, both)  # t - u
        u[:] = s
        multiply_add(-1.0, w, u, scratch, draws, both)  # h - (t - u)
        multiply_add(1.0, u, e, scratch, draws, both)
        multiply_add(1.0, e, low, scratch, draws, both)  # v = l + e
        s[:] = t
        multiply_add(1.0, low, s, scratch, draws, both)  # h = t + v
        u[:] = s
        multiply_add(-1.0, t, u, scratch, draws, both)  # h - t
        multiply_add(-1.0, u, low, scratch, draws, both)
    multiply_add(1.0, low, s, scratch, draws, both)


@_inline
def _task(task: int, a: Any, b: Any, s: Any, draws: Any, where: Any, q: Any) -> Any:
    """Return the operands and the running sums of a task, a tile of a row; set the position of its random words."""
    tiles, width = s.shape[1], s.shape[2]
    row, tile = task // tiles, task % tiles
    item = row // q.rows
    draws[0] = where[0] + item * where[4] + (row - item * q.rows) * where[2] + tile * width * where[3]
    return a[row], b[item, tile], s[row, tile]


@_inline
def _scratch(s: Any, where: Any, q: Any) -> Any:
    """Return rows of a stack, a row for losses and one for random words, and the state of `multiply_add`'s draws."""
    width = s.shape[2]
    draws = np.array([0, where[1], where[3], where[5], where[6]])
    return np.empty((q.depth, width)), (np.empty(width), np.zeros(width, np.uint32)), draws


@_compile
def sum_in_order(span: Any, a: Any, b: Any, s: Any, merges: Any, where: Any, q: Any, plans: Any) -> None:
    """Replace the running sums `s` (rows, tiles, width) of the tasks in `span`.

    `a`: (rows, terms). `b`: (batch, tiles, terms, width). `where`: position of the first output among the random words,
    then how far apart are the draws of one output, the rows of an item of the batch, its columns, the items; the keys.
    """
    stack, scratch, draws = _scratch(s, where, q)
    for task in range(span[0], span[1]):
        x, y, sums = _task(task, a, b, s, draws, where, q)
        _in_order(x, y, sums, merges, stack, scratch, draws, q, plans)


@_compile
def sum_pairwise(span: Any, a: Any, b: Any, s: Any, merges: Any, where: Any, q: Any, plans: Any) -> None:
    """As `sum_in_order`, in a tree of steps."""
    stack, scratch, draws = _scratch(s, where, q)
    for task in range(span[0], span[1]):
        x, y, sums = _task(task, a, b, s, draws, where, q)
        _pairwise(x, y, sums, merges, stack, scratch, draws, q, plans)


@_compile
def sum_corrected(span: Any, a: Any, b: Any, s: Any, _merges: Any, where: Any, q: Any, plans: Any) -> None:
    """As `sum_in_order`, with a second number for what rounding lost."""
    stack, scratch, draws = _scratch(s, where, q)
    for task in range(span[0], span[1]):
        x, y, sums = _task(task, a, b, s, draws, where, q)
        if q.compensation == 1:
            _kahan(x, y, sums, stack, scratch, draws, q, plans)
        elif q.compensation == 2:
            _neumaier(x, y, sums, stack, scratch, draws, q, plans)
        else:
            _two_sum(x, y, sums, stack, scratch, draws, q, plans)
