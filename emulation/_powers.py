"""Powers, exactly: which are rational, which are powers of 2 or e, and bounds for the others."""

from __future__ import annotations

import math
from fractions import Fraction

from lowp.emulation._exact_results import finite, infinity, is_infinite, is_negative, is_zero, magnitude, negative, zero
from lowp.emulation._intervals import TINY, clamped, enclosure, just_beside_one
from lowp.emulation._target import Enclosure, Result
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning

#: Powers of integers with more digits than this have more bits than any format keeps; they need not be exact.
_MOST_BITS = 1 << 12


def power(x: Meaning, y: Meaning, reach: int) -> Result:
    """Return `x^y` with the special cases of C and IEEE 754 `pow`."""
    if is_zero(y) or x == 1:
        return Fraction(1)
    if "nan" in (x, y):
        return "nan"
    odd, whole = _parity(y)
    if is_zero(x) or is_infinite(x):
        minus = odd and is_negative(x)
        return zero(minus) if is_zero(x) != is_negative(y) else infinity(minus)
    if is_infinite(y):
        size = magnitude(finite(x))
        if size == 1:
            return Fraction(1)
        return infinity(False) if (size > 1) != is_negative(y) else Fraction(0)
    if is_negative(x) and not whole:
        return "nan"
    result = _positive_power(magnitude(finite(x)), finite(y), reach)
    return _negated(result) if odd and is_negative(x) else result


def _negated(result: Result) -> Result:
    if not callable(result):
        return negative(result)
    bounds: Enclosure = result

    def mirrored(bits: int) -> tuple[Fraction, Fraction]:
        low, high = bounds(bits)
        return -high, -low

    return mirrored


def _parity(y: Meaning) -> tuple[bool, bool]:
    """Whether a number is an odd integer, and whether it is an integer; infinities are even."""
    if isinstance(y, str):
        return False, True
    rational = y if isinstance(y, Fraction) else y.rational()
    if rational is None or rational.denominator != 1:
        return False, False
    return rational.numerator % 2 == 1, True


def _positive_power(x: Fraction | Real, y: Fraction | Real, reach: int) -> Result:
    if x == 1:
        return Fraction(1)
    outward = (x > 1) == (y > 0)
    size = magnitude(_log2(x) * y)
    if size > reach:
        return clamped(reach, large=outward)
    if size < TINY:
        return just_beside_one(above=outward)
    exact = _exact_power(x, y) if isinstance(y, Fraction) else None
    if exact is not None:
        return exact
    return enclosure(lambda f, a, b: f.exp(f.log(a) * b), x, y)


def _log2(x: Fraction | Real) -> Fraction:
    """Return log2 of a number to about nine digits."""
    from mpmath import mp, workprec

    near = x if isinstance(x, Fraction) else x.enclosure(320)[0]
    with workprec(64 + near.numerator.bit_length()):
        return Fraction(float(mp.log(mp.mpf(near.numerator) / near.denominator, 2)))


def _exact_power(x: Fraction | Real, y: Fraction) -> Fraction | Real | None:
    """Return `x^y` as a rational number or a power of 2 or e; None where it is neither."""
    powers = Real.of(x).exponents()
    if powers is not None:
        result = Real.of(x).to_power(y)
        rational = result.rational()
        return result if rational is None else rational
    if not isinstance(x, Fraction):
        return None
    top, bottom = (_root(n, y.denominator) for n in (x.numerator, x.denominator))
    if top is None or bottom is None:
        return None
    if (max(top, bottom).bit_length() - 1) * abs(y.numerator) > _MOST_BITS:
        return None
    return Fraction(top, bottom) ** y.numerator


def _root(n: int, degree: int) -> int | None:
    """Return the integer root of `n` if it has one of that degree."""
    if n == 1 or degree == 1:
        return n
    if degree > n.bit_length():
        return None
    while degree % 2 == 0:
        root = math.isqrt(n)
        if root * root != n:
            return None
        n, degree = root, degree // 2
    low, high = 1, 1 << -(-n.bit_length() // degree)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**degree < n else (low, middle)
    return low if low**degree == n else None
