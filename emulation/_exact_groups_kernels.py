"""Steps of a few products each, summed exactly with the running sum and rounded once; compiled.

Where all terms of a step fit 62 bits they are summed as integers under the lowest exponent, else in bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.emulation._aligned_columns_kernels import store_columns
from lowp.emulation._exact_bins_kernels import _MASK, _parts, _signed, store, top_of, window
from lowp.emulation._odd_kernels import _sum_error

_FAR = 1 << 20
#: Bits of a sum that are held in one integer.
_ROOM = 62
#: Columns that are summed at a time.
_TILE = 128

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_compile
def steps(
    a: Any, b: Any, x: Any, y: Any, specials: Any, how: Any, plan: Any, bins: int, values: Any, start: int, stop: int
) -> None:  # fmt: skip
    """Carry the running sums `values` on over all steps, in rows `start` to `stop`.

    Args:
        a: Left operand, (M, K).
        b: Right operand, transposed: (N, K).
        x: Integer significands and exponents of `a`, each a few entries if its products exceed 62 bits.
        y: The same of `b`.
        specials: Rows and columns with operands that are not finite.
        how: `Steps`.
        plan: `StoredPlan`.
        bins: Bins that the sum of any step needs.
        values: The running sums, (M, N).
        start: First row.
        stop: Row after the last.
    """
    own = np.zeros(bins, np.int64)
    for i in range(start, stop):
        for j in range(len(b)):
            running = values[i, j]
            for first in range(0, a.shape[1], how.group):
                last = min(first + how.group, a.shape[1])
                mark = specials[0][i] or specials[1][j]
                running = _stored_step(a[i], b[j], x, y, i, j, first, last, mark, running, how, plan, own)
            values[i, j] = running


@_compile
def steps_in_floats(
    a: Any, b: Any, x: Any, y: Any, floats: Any, how: Any, plan: Any, bins: int, values: Any, start: int, stop: int
) -> None:  # fmt: skip
    """Do what `steps` does, many columns at a time, for exact products in float64 and formats of few bits.

    Products are added in float64 as long as nothing is lost (Knuth's two-sum tells); their sum and the running sum are
    added and rounded to odd. Where products lose bits, or the sum is zero or not finite, the step is done by itself.

    Args:
        a: Left operand, (M, K).
        b: Right operand, transposed: (N, K).
        x: As for `steps`.
        y: As for `steps`.
        floats: Right operand, (K, N), the way to round of `store_columns`, and its `LanePlan`.
        how: `Steps`.
        plan: `StoredPlan`.
        bins: As for `steps`.
        values: The running sums, (M, N).
        start: First row.
        stop: Row after the last.
    """
    own = np.zeros(bins, np.int64)
    right, way, lanes = floats
    sums, lost, results = np.empty(_TILE), np.empty(_TILE), np.empty(_TILE)
    for i in range(start, stop):
        for left in range(0, len(b), _TILE):
            count = min(_TILE, len(b) - left)
            running = values[i, left : left + count]
            total, error, result = sums[:count], lost[:count], results[:count]
            for first in range(0, a.shape[1], how.group):
                last = min(first + how.group, a.shape[1])
                if how.flush != 0:
                    for j in range(count):
                        running[j] = _read(running[j], how)
                _sum_columns(a[i, first:last], right[first:last, left : left + count], running, total, error)
                store_columns(total, way, lanes, result)
                for j in range(count):
                    if error[j] == 0.0:
                        running[j] = result[j]
                    else:
                        running[j] = _stored_step(
                            a[i], b[left + j], x, y, i, left + j, first, last, True, running[j], how, plan, own
                        )


@_inline
def _sum_columns(x: Any, y: Any, running: Any, total: Any, error: Any) -> None:
    """Write sums rounded to odd, and an error of zero where they may be stored."""
    total[:] = 0.0
    error[:] = 0.0
    for k in range(x.size):
        factor, row = x[k], y[k]
        for j in range(total.size):
            product = factor * row[j]
            added = total[j] + product
            error[j] += abs(_sum_error(total[j], product, added))
            total[j] = added
    bits = total.view(np.int64)
    for j in range(total.size):
        added = total[j] + running[j]
        rest = _sum_error(total[j], running[j], added)
        total[j] = added
        outward = (rest > 0.0) == (added > 0.0)
        bits[j] += np.int64((rest != 0.0) & (bits[j] & 1 == 0)) * (2 * np.int64(outward) - 1)
        good = (error[j] == 0.0) & (abs(added) < np.inf) & (added != 0.0)
        error[j] = 0.0 if good else 1.0


@_compile
def _stored_step(
    a: Any, b: Any, x: Any, y: Any, i: int, j: int, first: int, last: int, special: bool, running: float,
    how: Any, plan: Any, own: Any,
) -> Any:  # fmt: skip
    """Return what the sum of terms `first` to `last` of row `i`, column `j`, and the running sum is stored as."""
    if special or not abs(running) < np.inf:
        total = _ieee(a[first:last], b[first:last], running)
        if not abs(total) < np.inf:
            return _not_finite(total, plan)
    running = _read(running, how)
    f, t = first * how.entries, last * how.entries
    stored, is_zero = _step(x[0][i, f:t], x[1][i, f:t], y[0][j, f:t], y[1][j, f:t], running, how, plan, own)
    if is_zero:
        return _zero(a[first:last], b[first:last], running, how.down) if how.minus_zero else 0.0
    return stored


@_inline
def _read(running: float, how: Any) -> Any:
    """Return the running sum, zero where it is subnormal and those are not kept."""
    if how.flush == 0 or running == 0.0 or not abs(running) < how.smallest_normal:
        return running
    return np.copysign(0.0, running) if how.flush == 1 else 0.0


@_compile
def _ieee(x: Any, y: Any, running: float) -> Any:
    """Return the sum of a step if it is not finite, else a number."""
    total = running if not abs(running) < np.inf else 0.0
    for k in range(x.size):
        if not (abs(x[k]) < np.inf and abs(y[k]) < np.inf):
            total += _signed(x[k]) * _signed(y[k])
    return total


@_inline
def _not_finite(total: float, plan: Any) -> Any:
    return total if np.isnan(total) else plan.infinite if total > 0 else plan.infinite_negative


@_compile
def _zero(x: Any, y: Any, running: float, down: bool) -> Any:
    """Return zero with the sign of adding term by term: minus if all terms are -0, or, `down`, if not all are +0."""
    alike = running == 0.0 and np.signbit(running) != down
    for k in range(x.size):
        alike = alike and (x[k] == 0.0 or y[k] == 0.0) and (np.signbit(x[k]) != np.signbit(y[k])) != down
    return -0.0 if alike != down else 0.0


@_compile
def _step(
    x_n: Any, x_e: Any, y_n: Any, y_e: Any, running: float, how: Any, plan: Any, own: Any
) -> Any:  # fmt: skip
    """Return the stored sum of one step, or the running sum and that the exact one is zero."""
    n, exponent, width = _significand(running, how.running_width)
    low = exponent if n != 0 else _FAR
    high = exponent + width if n != 0 else -_FAR
    for k in range(x_n.size):
        if x_n[k] != 0 and y_n[k] != 0:
            e = x_e[k] + y_e[k]
            low, high = min(low, e), max(high, e + how.width)
    if low >= high:
        return running, True
    if high - low + how.carries > _ROOM:
        return _in_bins(
            x_n, x_e, y_n, y_e, n, exponent, low, own[: (high - low + how.carries) // 32 + 3], running, plan
        )
    total = n << (exponent - low) if n != 0 else np.int64(0)
    for k in range(x_n.size):
        up = min(max(x_e[k] + y_e[k] - low, 0), _ROOM)  # of a zero it means nothing
        total += (x_n[k] * y_n[k]) << up
    if total == 0:
        return running, True
    return store(np.int64(total < 0), abs(total), low, 0, plan), False


@_compile
def _in_bins(
    x_n: Any, x_e: Any, y_n: Any, y_e: Any, n: int, exponent: int, low: int, own: Any, running: float, plan: Any
) -> Any:  # fmt: skip
    """Return what `_step` does, for terms that spread further than one integer; no bit is below `2^low`."""
    own[:] = 0
    if n != 0:
        _add(n, exponent - low, own)
    for k in range(x_n.size):
        if x_n[k] != 0 and y_n[k] != 0:
            _add(x_n[k] * y_n[k], x_e[k] + y_e[k] - low, own)
    negative, magnitude, lowest, sticky = top_of(own, own.size, low)
    if magnitude == 0:
        return running, True
    if plan.wrap_bits > 0:
        magnitude, lowest, sticky = window(own, own.size, low, plan.least_bit - 2)
    return store(negative, magnitude, lowest, sticky, plan), False


@_inline
def _significand(number: float, width: int) -> Any:
    """Return a number of `width` bits as integer significand, with sign, exponent and the bits that it may have."""
    bits = np.float64(number).view(np.int64)
    n, exponent = _parts(bits)
    drop = 53 - width if n >> 52 == 1 else 0  # numbers subnormal in float64 itself stay as they are
    n >>= drop
    return (-n if bits < 0 else n), exponent + drop, 53 - drop


@_inline
def _add(n: int, up: int, own: Any) -> None:
    """Add `n * 2^up` to the bins."""
    own[up >> 5] += (n << (up & 31)) & _MASK
    own[(up >> 5) + 1] += n >> (32 - (up & 31))
