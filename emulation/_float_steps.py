"""Operations in float64: exactly rounded to odd where operands are exact, else an estimate and its error bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._target import EXACT, OPEN

Array = NDArray[np.float64]
#: A result and its states, see `_target`.
Odd = tuple[Array, NDArray[np.uint8]]
_QUIET = np.errstate(all="ignore")


def to_odd(op: str, operands: list[Array], negative_zero: bool) -> Odd:
    """Return the result of `op` on flat float64 arrays, rounded to odd; sums that cancel are -0 if `negative_zero`."""
    from lowp.emulation import _odd_kernels as kernels

    kernel = {
        "add": kernels.add,
        "subtract": kernels.add,
        "multiply": kernels.multiply,
        "divide": kernels.divide,
        "sqrt": kernels.square_root,
    }.get(op)
    if op == "fma":
        out, state = _multiply_add(*operands)
    elif kernel is None:
        return _EXACT_STEPS[op](*operands)
    else:
        inputs = [operands[0], -operands[1]] if op == "subtract" else operands
        out, error, state = _scratch(inputs[0].size)
        kernel(*inputs, out, error, state)
        kernels.make_odd(out.view(np.int64), error)
    if negative_zero:
        summands = [operands[0] * operands[1], operands[2]] if op == "fma" else [operands[0], operands[-1]]
        both_zero_plus = _plus_zero(summands[0]) & _plus_zero(-summands[1] if op == "subtract" else summands[1])
        out[(out == 0) & (state == EXACT) & ~both_zero_plus] = -0.0
    return out, state


def _plus_zero(x: Array) -> NDArray[np.bool_]:
    return np.asarray((x == 0) & ~np.signbit(x))


def _scratch(size: int) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Return arrays for results, errors and states."""
    return np.empty(size), np.empty(size), np.empty(size, np.uint8)


def nearest_multiply_add(a: Array, b: Array, c: Array) -> Odd:
    """Return the fused multiply-add rounded to nearest, and EXACT or OPEN (Boldo and Melquiond 2008, section 5)."""
    out, state, _ = _nearest_multiply_add(a, b, c)
    return out, np.where(state == OPEN, OPEN, EXACT).astype(np.uint8)


def _multiply_add(a: Array, b: Array, c: Array) -> Odd:
    from lowp.emulation import _odd_kernels as kernels

    out, state, error = _nearest_multiply_add(a, b, c)
    kernels.make_odd(out.view(np.int64), error)
    return out, state


def _nearest_multiply_add(a: Array, b: Array, c: Array) -> tuple[Array, NDArray[np.uint8], Array]:
    from lowp.emulation import _odd_kernels as kernels

    high, error, state = _scratch(a.size)
    small, out, added = _scratch(a.size)
    kernels.start_multiply_add(a, b, c, high, small, error, state)
    kernels.make_odd(small.view(np.int64), error)
    kernels.add(high, small, out, error, added)
    return out, np.maximum(state, added), error


def _exact(result: Array, undecided: NDArray[np.bool_] | None = None) -> Odd:
    state = np.full(result.shape, EXACT, np.uint8)
    if undecided is not None:
        state[undecided] = OPEN
    return result, state


@_QUIET
def _remainder(a: Array, b: Array) -> Odd:
    """IEEE 754 remainder, exact: two subtractions after a truncated one (Moler and others, fdlibm `e_remainder.c`)."""
    divisor = np.abs(b)
    twice = divisor + divisor
    rest = np.abs(np.fmod(a, twice))
    odd_half = np.where(rest + rest > divisor, rest - divisor, rest)
    again = (rest + rest > divisor) & (odd_half + odd_half >= divisor)
    rest = np.where(again, odd_half - divisor, odd_half)
    rest = np.where(np.isinf(b), np.abs(a), rest)
    result = np.where(np.signbit(a), -rest, rest)
    result = np.where(np.isinf(a) | (b == 0) | np.isnan(a) | np.isnan(b), np.nan, result)
    return _exact(result, (np.isfinite(b) & np.isinf(twice)) | (np.isfinite(a) & (divisor < 2.0**-1000) & (b != 0)))


@_QUIET
def _fmod(a: Array, b: Array) -> Odd:
    return _exact(np.fmod(a, b))


@_QUIET
def _modulo(a: Array, b: Array) -> Odd:
    """Floor modulo: the truncated remainder, plus the divisor where the signs differ."""
    rest = np.fmod(a, b)
    shifts = (rest != 0) & np.isfinite(rest) & (np.signbit(rest) != np.signbit(b))
    result, state = to_odd("add", [np.where(shifts, rest, 0.0), np.where(shifts, b, 0.0)], False)
    return np.where(shifts, result, np.where(rest == 0, np.copysign(0.0, b), rest)), state


def _minimum(a: Array, b: Array) -> Odd:
    lower = (a < b) | ((a == b) & np.signbit(a))
    return _exact(np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(lower, a, b)))


def _maximum(a: Array, b: Array) -> Odd:
    higher = (a > b) | ((a == b) & ~np.signbit(a))
    return _exact(np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(higher, a, b)))


_EXACT_STEPS: dict[str, Callable[..., Odd]] = {
    "remainder": _remainder,
    "fmod": _fmod,
    "modulo": _modulo,
    "minimum": _minimum,
    "maximum": _maximum,
    "negative": lambda a: _exact(-a),
    "absolute": lambda a: _exact(np.abs(a)),
    "convert": lambda a: _exact(a.copy()),
}

_ULP = 2.0**-52
#: op -> estimate from nearest values, and a bound on its error in ulps of 1; every bound has a factor of two to spare.
_ESTIMATES: dict[str, Callable[..., tuple[Array, Array]]] = {
    "add": lambda a, b: (a + b, np.abs(a) + np.abs(b)),
    "subtract": lambda a, b: (a - b, np.abs(a) + np.abs(b)),
    "multiply": lambda a, b: (a * b, np.abs(a * b)),
    "divide": lambda a, b: (a / b, np.abs(a / b)),
    "sqrt": lambda a: (np.sqrt(a), np.sqrt(np.abs(a))),
    "fma": lambda a, b, c: (a * b + c, np.abs(a * b) + np.abs(c)),
    "negative": lambda a: (-a, np.abs(a)),
    "absolute": lambda a: (np.abs(a), np.abs(a)),
    "convert": lambda a: (a, np.abs(a)),
}


def has_estimate(op: str) -> bool:
    """Whether `estimate` knows an operation."""
    return op in _ESTIMATES


@_QUIET
def estimate(op: str, operands: list[Array], negative_zero: bool) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return bounds below and above the results for operands rounded to nearest, and where they are void.

    A zero result is believed where IEEE 754 makes it of zero operands, except that sums may be -0 if `negative_zero`.
    """
    y, size = _ESTIMATES[op](*operands)
    margin = size * (6 * _ULP)
    ordinary = np.ones(y.shape, bool)
    for x in operands:
        ordinary &= np.isfinite(x) & (x != 0)
    void = ordinary & ((np.abs(y) < 2.0**-960) | (np.abs(y) > 2.0**960) | (margin < 2.0**-1000))
    margin = np.where(np.isfinite(y) & (y != 0), margin, 0.0)
    return y - margin, y + margin, void | (negative_zero & (y == 0))
