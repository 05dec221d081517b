"""Sums and dot products without error, as integers times a power of two, and one rounding at the end."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation import _exact_results as exact
from lowp.emulation._operands import decoded, holds_exactly
from lowp.emulation._target import EXACT, ODD, OPEN, Result, Target
from lowp.formats.integer import Integer
from lowp.formats.ranked import TaperedFormat
from lowp.formats.spec import Meaning, ScalarFormat

_QUIET = np.errstate(all="ignore")
_ONE, _ZERO = Integer(2), Fraction(0)


def dot(
    a: NDArray[Any],
    a_format: ScalarFormat,
    b: NDArray[Any],
    b_format: ScalarFormat,
    target: Target,
    start: Meaning | None = _ZERO,
    divisor: int = 1,
) -> NDArray[Any]:
    """Return the codes of the exact dot products of rows of `a` and columns of `b`, divided by an integer.

    A sum that is zero has the sign that adding the products one by one to `start` gives it.
    """
    rows, columns = len(a), b.shape[1]
    one_by_one = _one_by_one(a, a_format, b, b_format, target, start, divisor)
    if not (holds_exactly(a_format) and holds_exactly(b_format)):
        return target.encode_where(np.ones(rows * columns, bool), one_by_one)
    x, y = decoded(a, a_format), decoded(b, b_format)
    special = _special(x, y)
    (left, low_left), (right, low_right) = _integers(x), _integers(y)
    sums = _products(left, right).reshape(-1)
    values, state = _odd_quotients(sums, low_left + low_right, divisor)
    values = np.where(np.isfinite(special), values, special)
    state = np.where(np.isfinite(special), state, EXACT)
    if target.fmt.has_negative_zero and (np.signbit(x).any() or np.signbit(y).any()):
        for i in np.flatnonzero((values == 0) & (state == EXACT)):
            values[i] = -0.0 if one_by_one(int(i)) == "-0" else 0.0
    return target.encode_odd(values, state, one_by_one)


def total(x: NDArray[Any], fmt: ScalarFormat, target: Target, divisor: int) -> NDArray[Any]:
    """Return the codes of the exact sums of columns, divided by an integer."""
    ones = np.ones((1, len(x)), np.uint8)
    return dot(ones, _ONE, x, fmt, target, None, divisor)


@_QUIET
def _special(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the dot products with every finite number replaced by its sign: not finite where an operand decides so."""
    if np.isfinite(x).all() and np.isfinite(y).all():
        return np.zeros(len(x) * y.shape[1])
    left, right = (np.where(np.isfinite(z), np.sign(z), z) for z in (x, y))
    return np.asarray(left @ right).reshape(-1)


def _integers(x: NDArray[np.float64]) -> tuple[NDArray[Any], int]:
    """Return numbers as Python's integers times `2^low`, `low` as large as can be."""
    clean = np.where(np.isfinite(x), x, 0.0)
    significand, exponent = np.frexp(clean)
    whole = np.ldexp(significand, 53).astype(np.int64)
    trailing = np.where(whole == 0, 0, np.frexp((whole & -whole).astype(np.float64))[1] - 1)
    exponents = np.where(whole == 0, 0, exponent - 53 + trailing)
    used = exponents[whole != 0]
    low = int(used.min()) if used.size else 0
    small, shift = whole >> trailing, np.where(whole == 0, 0, exponents - low)
    return small.astype(object) << shift.astype(object), low


def _products(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return the matrix product of integers, in 64 bits where that is enough."""
    bits = [max((abs(n).bit_length() for n in x.ravel().tolist()), default=0) for x in (a, b)]
    if sum(bits) + a.shape[1].bit_length() <= 62:
        return np.asarray(a.astype(np.int64) @ b.astype(np.int64))
    return np.asarray(a @ b)


def _odd_quotients(sums: NDArray[Any], exponent: int, divisor: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Return `sums * 2^exponent / divisor` as float64 rounded to odd, with states."""
    values, state = np.zeros(sums.size), np.full(sums.size, EXACT, np.uint8)
    for i, n in enumerate(sums.tolist()):
        spare = max(64 + divisor.bit_length() - abs(n).bit_length(), 0) if divisor > 1 else 0
        quotient, rest = divmod(abs(n) << spare, divisor)
        drop = max(quotient.bit_length() - 53, 0)
        kept = quotient >> drop
        lost = kept << drop != quotient or rest != 0
        scale = exponent - spare + drop
        if kept and not -1022 <= kept.bit_length() - 1 + scale <= 1023:
            state[i] = OPEN
            continue
        values[i] = np.ldexp(float(kept | lost), scale) * (-1 if n < 0 else 1)
        state[i] = ODD if lost else EXACT
    return values, state


def _one_by_one(
    a: NDArray[Any],
    a_format: ScalarFormat,
    b: NDArray[Any],
    b_format: ScalarFormat,
    target: Target,
    start: Meaning | None,
    divisor: int,
) -> Callable[[int], Result]:
    """Return the function that tells one result exactly."""
    columns = b.shape[1]
    negative_zero = target.request.mode.name == "toward_negative"
    tapered = isinstance(a_format, TaperedFormat) or isinstance(b_format, TaperedFormat)

    def exactly(i: int) -> Result:
        row, column = divmod(i, columns)
        result = start
        for x, y in zip(a[row].tolist(), b[:, column].tolist(), strict=True):
            product = exact.multiply(a_format.meaning(x), b_format.meaning(y))
            result = product if result is None else exact.add(result, product, negative_zero)
            if result == "nan" and tapered:
                return "nan"
        return exact.divide(Fraction(0) if result is None else result, Fraction(divisor))

    return exactly
