"""Stochastic mode A in float32 lanes: a number goes up where its fraction and the random integer carry; compiled.

As `_fast_stochastic_kernels`, which has all modes; this one takes half the time. A quotient keeps what its truncation
lost: with `q` the quotient truncated to float32 and `z` what remained, itself truncated, a fraction's whole units
are those of `q` and those of `z`, because `q` has no bits below a unit where `z` has some above.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from lowp.rounding._fast_kernels import _as_tuple, _field, _finished, mirrored, zero_sign_of
from lowp.rounding._lane_kernels import _fused, _kept_apart

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

_UNITS = np.float32(2.0**32)


@intrinsic
def _whole(_context: Any, value: Any) -> Any:
    """Return the whole part of a float32 from 0 to less than 2^32 as a uint32."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fptoui(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), build


@_inline
def _below(a: Any, least: Any, raise_by: Any, to_quantum: Any) -> Any:
    """Return the multiple of the quantum at or below a magnitude, and the quantum's exponent field."""
    e = _field(a, least)
    magic, field = np.int32(e + raise_by).view(np.float32), np.int32(e + to_quantum)
    near = np.float32(np.float32(a + magic) - magic)
    return (np.float32(near - np.int32(field).view(np.float32)) if near > a else near), field


@_inline
def _units(part: Any, field: Any) -> Any:
    """Return the whole 2^-32nds of a quantum in a part of it."""
    inverse = np.int32(np.int32(254 << 23) - field).view(np.float32)
    return _whole(np.float32(np.float32(part * inverse) * _UNITS))


@_inline
def _carried(u: Any, word: Any, kept: Any) -> Any:
    """Whether the leading bits of a fraction and of a random word carry."""
    fraction = np.uint32(u & kept)
    return np.uint32(fraction + np.uint32(word & kept)) < fraction


@_inline
def _by_carry(a: Any, word: Any, least: Any, raise_by: Any, to_quantum: Any, kept: Any) -> Any:
    low, field = _below(a, least, raise_by, to_quantum)
    up = _carried(_units(np.float32(a - low), field), word, kept)
    return np.float32(low + np.int32(field).view(np.float32)) if up else low


@_compile
def rounded_by_carries(x: Any, out: Any, words: Any, integers: Any, floats: Any, bits: Any) -> None:
    """Round float32 `x` by random words into `out`, another array; plan as `rounded_to_nearest_even`."""
    least, raise_by, zero_sign, clip = integers[0], integers[1], zero_sign_of(integers), floats[2]
    ends, to_quantum = _as_tuple(floats), np.int32(raise_by - np.int32(23 << 23))
    kept = np.uint32(np.uint32(0xFFFFFFFF) << np.uint32(32 - bits))
    if integers[3] == 1:
        for i in range(x.size):
            r = _by_carry(min(abs(x[i]), clip), words[i], least, raise_by, to_quantum, kept)
            out[i] = mirrored(x[i], r, ends)
        return
    for i in range(x.size):
        r = _by_carry(min(abs(x[i]), clip), words[i], least, raise_by, to_quantum, kept)
        out[i] = _finished(x[i], r, zero_sign, ends)


@_compile
def quotients_by_carries(x: Any, rests: Any, out: Any, words: Any, integers: Any, floats: Any, bits: Any) -> None:
    """Round the numbers of `truncated_quotients` likewise."""
    least, raise_by, zero_sign, clip = integers[0], integers[1], zero_sign_of(integers), floats[2]
    ends, to_quantum = _as_tuple(floats), np.int32(raise_by - np.int32(23 << 23))
    kept = np.uint32(np.uint32(0xFFFFFFFF) << np.uint32(32 - bits))
    for i in range(x.size):
        a = min(abs(x[i]), clip)
        low, field = _below(a, least, raise_by, to_quantum)
        u = np.uint32(_units(np.float32(a - low), field) + _units(rests[i], field))
        r = np.float32(low + np.int32(field).view(np.float32)) if _carried(u, words[i], kept) else low
        out[i] = _finished(x[i], r, zero_sign, ends)


@_inline
def _truncated(a: Any, divisor: Any, inverse: Any) -> Any:
    """Return the quotient of two positive float32 numbers truncated; see `_lane_kernels._quotient`."""
    q = np.float32(a * inverse)
    q = _fused(_fused(np.float32(-q), divisor, a), inverse, q)
    beyond = np.int32(_fused(np.float32(-q), divisor, a) < 0)
    return np.int32(np.float32(q).view(np.int32) - beyond).view(np.float32)


@_inline
def _quotient_and_rest(x: Any, power: Any, divisor: Any, inverse: Any, limit: Any) -> Any:
    a = min(np.float32(abs(x) * power), limit)
    q = _truncated(a, divisor, inverse)
    return _kept_apart(q, x), _truncated(_fused(np.float32(-q), divisor, a), divisor, inverse)


@_compile
def truncated_quotients(row: Any, q: Any, rests: Any, f: Any, c: Any, clip: Any) -> None:
    """Write quotients truncated to float32 and what remained of them; `f`, `c`: as in `_lane_kernels`."""
    before, divisor, inverse, limit = f[0], f[1], f[4], np.float32(4 * clip)
    if c == 1:
        for k in range(row.size):
            q[k], rests[k] = _quotient_and_rest(row[k], before[k], divisor[k], inverse[k], limit)
        return
    for t in range(-(-row.size // c)):
        part, goal, rest = row[t * c : (t + 1) * c], q[t * c : (t + 1) * c], rests[t * c : (t + 1) * c]
        step, by, back = before[t], divisor[t], inverse[t]
        for k in range(part.size):
            goal[k], rest[k] = _quotient_and_rest(part[k], step, by, back, limit)
