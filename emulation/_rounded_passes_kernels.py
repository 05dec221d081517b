"""Passes over a row of sums: `s[j] = round(x * b[j] + s[j])`, each rounded once; compiled, free of branches inside.

`p` is a `_rounded_plan.SumPlan`. It says whether float64 holds the sums well enough: plainly (they are exact, or the
rounding that follows cannot tell them from exact ones), by rounding to odd, with their error as a number of its own
(for random bits), or not at all (`_rounded_wide_kernels`).

Adding and subtracting `1.5 * 2^(exponent + 52 - mantissa_bits)` rounds a float64 of either sign to a multiple of the
quantum, ties to even; other modes start from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.emulation._bitcast_kernels import bits_of, fused, number_of
from lowp.emulation._rounded_wide_kernels import wide_multiply_add
from lowp.rounding._random_kernels import _word

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: The `kind` of a plan. NATIVE: float64's own rounding. CLAMP: exact sums of integers, which only have to be clamped.
#: NEIGHBOUR: float64 rounded by another mode.
NATIVE, NEAREST_EVEN, CLAMP, CORRECTED, STOCHASTIC, WIDE, NEIGHBOUR = range(7)
_MAGNITUDE = 0x7FFFFFFFFFFFFFFF
#: 2^0 as the sum of the exponent fields of a power of two and its inverse.
_INVERSES = 2046 << 52


@_inline
def _float64(bits: int) -> Any:
    return number_of(bits, 0.0)


@_inline
def _mirrored(value: float, mirror: int) -> Any:
    """Return a number, or its negative: sums that cancel are +0, their mirror images -0."""
    return _float64(bits_of(value) ^ mirror)


@_inline
def _lost(x: float, b: float, s: float, total: float) -> Any:
    """Return `x * b + s - total`, for an exact product (Knuth); 0 where the total is not finite."""
    product = x * b
    shadow = total - product
    error = (product - (total - shadow)) + (s - shadow)
    return error if abs(total) < np.inf else 0.0


@_compile
def add_plainly(x: float, b: Any, s: Any, mirror: int) -> None:
    """Add products whose sums are exact, or as good."""
    x = _mirrored(x, mirror)
    for j in range(s.size):
        s[j] = _mirrored(fused(x, b[j], _mirrored(s[j], mirror)), mirror)


@_compile
def _add_to_odd(x: float, b: Any, s: Any, mirror: int) -> None:
    """Add products, sums rounded to odd: the last bit is set where anything is lost."""
    x = _mirrored(x, mirror)
    for j in range(s.size):
        t = _mirrored(s[j], mirror)
        total = fused(x, b[j], t)
        error = _lost(x, b[j], t, total)
        bits = bits_of(total)
        outward = (error > 0.0) == (bits >= 0)
        bits += np.int64((error != 0.0) & (bits & 1 == 0)) * (2 * np.int64(outward) - 1)
        s[j] = _float64(bits ^ mirror)


@_compile
def _add_with_loss(x: float, b: Any, s: Any, lost: Any, mirror: int) -> None:
    """Add products; what the sums lost goes to `lost`."""
    x = _mirrored(x, mirror)
    for j in range(s.size):
        t = _mirrored(s[j], mirror)
        total = fused(x, b[j], t)
        lost[j] = _mirrored(_lost(x, b[j], t, total), mirror)
        s[j] = _mirrored(total, mirror)


@_inline
def _nearest_even(v: float, p: Any) -> Any:
    bits = bits_of(v)
    magic = _float64(max(bits & p.exponent_mask, p.least_field) + p.raise_by)
    rounded = (v + magic) - magic
    return _float64(bits_of(rounded) | (bits & p.zero_sign))


@_inline
def _within(v: float, rounded: float, p: Any) -> Any:
    """Return the rounded number, or what stands for one beyond the largest; NaN where `v` is."""
    r = p.above if v >= p.top else rounded
    r = p.below if v <= p.bottom else r
    return v if v != v else r


@_compile
def _nearest_even_steps(x: float, b: Any, s: Any, p: Any) -> None:
    for j in range(s.size):
        v = fused(x, b[j], s[j])
        s[j] = _within(v, _nearest_even(v, p), p)


@_inline
def _is_quick(p: Any) -> Any:
    """Whether one loop does all: sums to nearest even that need neither be told from exact ones nor flushed."""
    return (p.kind == NEAREST_EVEN) & (p.lossy == 0) & (p.smallest_normal == 0.0) & (p.plus_zero == 0)


@_compile
def _round_nearest_even(s: Any, p: Any) -> None:
    for j in range(s.size):
        v = s[j]
        r = _nearest_even(v, p)
        zero = _float64(bits_of(r) & p.zero_sign)
        s[j] = _within(v, zero if abs(r) < p.smallest_normal else r, p)


@_compile
def _clamp(s: Any, p: Any) -> None:
    for j in range(s.size):
        v = s[j] + 0.0  # no -0
        r = p.above if v > p.largest else v
        s[j] = p.below if v < p.smallest else r


@_inline
def _finished(v: float, size: float, p: Any) -> Any:
    """Return a rounded magnitude with the sign of `v`, flushed, within the range; the results of what is infinite."""
    negative = bits_of(v) & ~np.int64(_MAGNITUDE)
    size = 0.0 if size < p.smallest_normal else size
    sign = negative if size != 0.0 else negative & p.zero_sign
    signed = _float64(bits_of(size) | sign)
    r = p.above if signed > p.largest else signed
    r = p.below if signed < p.smallest else r
    r = p.infinite_above if v == np.inf else r
    r = p.infinite_below if v == -np.inf else r
    return v if v != v else r


@_compile
def _round_corrected(s: Any, p: Any) -> None:
    """Round sums that have at least two bits more than the format keeps: to nearest even, then to the neighbour if due.

    That is where a magnitude is off by more than `p.off` quanta: just less than a half to find ties, or nothing.
    """
    for j in range(s.size):
        v = s[j]
        a = abs(v)
        field = max(bits_of(a) & p.exponent_mask, p.least_field)
        quantum = _float64(field + p.to_quantum)
        magic = _float64(field + p.raise_by)
        raised = a + magic
        near = raised - magic
        over, off = near - a, quantum * p.off
        negative = bits_of(v) < 0
        free = (bits_of(raised) & p.odd_mask) == 0
        up = quantum * (p.up_negative if negative else p.up)
        down = quantum * (p.down_negative if negative else p.down)
        near += up if (over < -off) & free else 0.0
        near -= down if (over > off) & free else 0.0
        s[j] = _finished(v, near, p)


@_compile
def _round_randomly(s: Any, lost: Any, words: Any, p: Any) -> None:
    """Round sums, and what they lost, by random words.

    The dropped fraction `w`, in units of `2^-n`, and the random integer reach `2^n` if `w` less their difference is not
    negative; that is an exact number of float64, to which the loss is added last: the sign is right.
    """
    shift = np.uint32(32 - p.random_bits)
    to_units = _INVERSES + (np.int64(p.random_bits) << 52)
    whole = np.float64(np.int64(1) << p.random_bits)
    half = 0.0 if p.variant == 1 else 0.5
    for j in range(s.size):
        v = s[j]
        a = abs(v)
        loss = _float64(bits_of(lost[j]) ^ (bits_of(v) & ~np.int64(_MAGNITUDE)))
        below = _float64(bits_of(a) - np.int64(loss < 0.0))
        field = max(bits_of(below) & p.exponent_mask, p.least_field)
        magic, quantum = _float64(field + p.raise_by), field + p.to_quantum
        inverse, q = _float64(to_units - quantum), _float64(quantum)
        near = (below + magic) - magic
        low = near - q if near > below else near
        w, w_lost = (a - low) * inverse, loss * inverse
        random = np.uint32(words[j] >> shift)
        excess = (w - (whole - np.float64(random) - half)) + w_lost
        tie_goes = (p.variant != 3) | (random & np.uint32(1) == np.uint32(0))
        away = (excess > 0.0) | ((excess == 0.0) & tie_goes)
        if p.variant == 4:
            away = (w + w_lost > 0.0) & (words[j] >> np.uint32(31) != np.uint32(0))
        s[j] = _finished(v, low + q if away else low, p)


@_inline
def _ordinary(x: float, low: float, high: float) -> Any:
    return ((abs(x) >= low) & (abs(x) <= high)) | (x == 0.0)


@_compile
def _add_to_neighbour(x: float, b: Any, s: Any, out: Any, left: Any, p: Any) -> None:
    """Write sums in float64 by any mode to `out`: the nearest number, or its neighbour towards the exact sum.

    The error of a fused multiply-add is the sum of two numbers (Boldo and Muller 2005, ErrFmaNearest). `left` tells the
    sums that are zero or come near the ends of float64's range.
    """
    ties = p.off > 0.0
    for j in range(s.size):
        y, z = b[j], s[j]
        v = fused(x, y, z)
        product = x * y
        low = fused(x, y, -product)
        middle = z + low
        middle_lost = _sum_error(z, low, middle)
        total = product + middle
        rest = (total - v) + _sum_error(product, middle, total)
        error = rest + middle_lost
        more = middle_lost - (error - rest)
        grows = (error > 0.0) == (v > 0.0)
        neighbour = _float64(bits_of(v) + (1 if grows else -1))
        negative = v < 0.0
        up = p.up_negative if negative else p.up
        down = p.down_negative if negative else p.down
        allowed = (up if grows else down) != 0.0
        free = (bits_of(v) & p.odd_mask) == 0
        tie = (error + error == neighbour - v) & (more == 0.0)
        out[j] = neighbour if allowed & free & (error != 0.0) & (tie | (not ties)) else v
        safe = _ordinary(x, 2.0**-400, 2.0**400) & _ordinary(y, 2.0**-400, 2.0**400) & _ordinary(z, 2.0**-800, 2.0**800)
        left[j] = np.uint32(not (safe & (abs(v) >= 2.0**-800)))


@_inline
def _sum_error(a: float, b: float, total: float) -> Any:
    """Return `a + b - total` (Knuth)."""
    shadow = total - a
    return (a - (total - shadow)) + (b - shadow)


@_compile
def flush(s: Any, smallest_normal: float, positive: bool) -> None:
    """Make numbers nearer zero than normal ones zero."""
    mask = np.int64(0) if positive else ~np.int64(_MAGNITUDE)
    for j in range(s.size):
        v = s[j]
        s[j] = _float64(bits_of(v) & mask) if (abs(v) < smallest_normal) & (v != 0.0) else v


@_compile
def _make_zeros_plus(s: Any) -> None:
    for j in range(s.size):
        s[j] = s[j] + 0.0


@_compile
def _draw(words: Any, draws: Any) -> None:
    """Write the random words of a row of sums."""
    first, stride, key0, key1 = draws[0], draws[2], draws[3], draws[4]
    for j in range(words.size):
        words[j] = np.uint32(_word(first + j * stride, key0, key1))


@_compile
def _add_then_round(x: float, b: Any, s: Any, lost: Any, words: Any, p: Any) -> None:
    """Replace `s` by sums in float64 as the plan needs them, then round these."""
    if p.kind == STOCHASTIC:
        _add_with_loss(x, b, s, lost, p.mirror)
    elif p.lossy == 1:
        _add_to_odd(x, b, s, p.mirror)
    else:
        add_plainly(x, b, s, p.mirror)
    if p.plus_zero == 1:
        _make_zeros_plus(s)
    if p.kind == STOCHASTIC:
        _round_randomly(s, lost, words, p)
    elif p.kind == NEAREST_EVEN:
        _round_nearest_even(s, p)
    elif p.kind == CLAMP:
        _clamp(s, p)
    elif p.kind == CORRECTED:
        _round_corrected(s, p)


@_compile
def multiply_add(x: float, b: Any, s: Any, scratch: Any, draws: Any, p: Any) -> None:
    """Replace `s` by `x * b + s`, each rounded once.

    `scratch`: a row for losses and one for random words. `draws`: the first number's position among the random words,
    what to move it by for the next pass, from column to column, and the keys.
    """
    lost, words = scratch
    if p.variant != 0:
        _draw(words, draws)
    draws[0] += draws[1]
    if _is_quick(p):
        _nearest_even_steps(x, b, s, p)
    elif p.kind == WIDE:
        for j in range(s.size):
            s[j] = wide_multiply_add(x, b[j], s[j], np.int64(words[j]), p)
    elif p.kind == NEIGHBOUR:
        _add_to_neighbour(x, b, s, lost, words, p)
        for j in range(s.size):
            s[j] = lost[j] if words[j] == 0 else wide_multiply_add(x, b[j], s[j], np.int64(0), p)
    else:
        _add_then_round(x, b, s, lost, words, p)


@_compile
def multiply_add_all(a: Any, b: Any, s: Any, scratch: Any, draws: Any, p: Any) -> None:
    """Add all products of a row, one by one: what most accumulators do, with the way chosen once."""
    if _is_quick(p):
        for k in range(a.size):
            _nearest_even_steps(a[k], b[k], s, p)
    elif p.kind == CORRECTED and p.lossy == 1 and p.plus_zero == 0:
        for k in range(a.size):
            _add_to_odd(a[k], b[k], s, p.mirror)
            _round_corrected(s, p)
    else:
        for k in range(a.size):
            multiply_add(a[k], b[k], s, scratch, draws, p)
