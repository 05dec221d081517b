"""Arithmetic of exact numbers for the oracle: results in the extended reals by IEEE 754-2019, before any rounding."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor, isqrt
from typing import Any

from lowp.emulation.exact_functions import Bounds, Result, is_zero, negative, negative_sign, number, signed_zero
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning

_FIRST_PRECISION, _LAST_PRECISION = 96, 1 << 18


def decided(bounds: Bounds, decide: Callable[[Any], int], step: Fraction | None = None) -> int:
    """Return the decision on which both bounds agree, closer than `step` if given."""
    precision = _FIRST_PRECISION
    while precision <= _LAST_PRECISION:
        low, high = bounds(precision)
        if (step is None or high - low < step) and decide(low) == decide(high):
            return decide(low)
        precision *= 2
    raise ArithmeticError(f"the result is undecided at {_LAST_PRECISION} bits of precision.")


def add(a: Meaning, b: Meaning, toward_negative: bool = False) -> Meaning:
    """Return `a + b`."""
    if "nan" in (a, b):
        return "nan"
    infinities = {x for x in (a, b) if x in ("inf", "-inf")}
    if infinities:
        return infinities.pop() if len(infinities) == 1 else "nan"
    total = number(a) + number(b)
    if total != 0:
        return total
    if is_zero(a) and negative_sign(a) == negative_sign(b):
        return a
    return signed_zero(toward_negative)


def subtract(a: Meaning, b: Meaning, toward_negative: bool = False) -> Meaning:
    """Return `a - b`."""
    return add(a, negative(b), toward_negative)


def multiply(a: Meaning, b: Meaning) -> Meaning:
    """Return `a * b`."""
    if "nan" in (a, b):
        return "nan"
    minus = negative_sign(a) != negative_sign(b)
    if any(x in ("inf", "-inf") for x in (a, b)):
        return "nan" if is_zero(a) or is_zero(b) else "-inf" if minus else "inf"
    if is_zero(a) or is_zero(b):
        return signed_zero(minus)
    return number(a) * number(b)


def divide(a: Meaning, b: Meaning) -> Meaning:
    """Return `a / b`."""
    if b == "nan":
        return "nan"
    if is_zero(b):  # one over zero is an infinity of its sign
        return "nan" if is_zero(a) else multiply(a, "-inf" if b == "-0" else "inf")
    if b in ("inf", "-inf"):
        return "nan" if a in ("inf", "-inf") else multiply(a, signed_zero(b == "-inf"))
    return multiply(a, 1 / number(b))


def fma(a: Meaning, b: Meaning, c: Meaning, toward_negative: bool = False) -> Meaning:
    """Return `a * b + c`."""
    return add(multiply(a, b), c, toward_negative)


def sqrt(x: Meaning) -> Result:
    """Return the square root: rational, a power of 2 or e, or decided by comparing squares."""
    if x in ("nan", "inf") or is_zero(x):
        return x
    if negative_sign(x):
        return "nan"
    square = number(x)
    if Real.of(square).exponents() is not None:
        return Real.of(square).to_power(Fraction(1, 2))
    if isinstance(square, Real):
        return lambda precision: _roots(*square.enclosure(precision), precision)
    top, bottom = isqrt(square.numerator), isqrt(square.denominator)
    if Fraction(top, bottom) ** 2 == square:
        return Fraction(top, bottom)
    return lambda precision: _roots(square, square, precision)


def _roots(low: Fraction, high: Fraction, precision: int) -> tuple[Fraction, Fraction]:
    """Return `m / 2^s` and `(n + 1) / 2^s` with `m^2 <= low * 4^s` and `high * 4^s < (n + 1)^2`."""
    shift = max(0, precision + (low.denominator.bit_length() - low.numerator.bit_length()) // 2)
    m, n = (isqrt(floor(square * (1 << 2 * shift))) for square in (low, high))
    return Fraction(m, 1 << shift), Fraction(n + 1, 1 << shift)


def remainder(a: Meaning, b: Meaning) -> Meaning:
    """Return `a - b * n` with n the integer nearest to `a / b`, ties to even."""
    return _division_rest(a, b, round)


def fmod(a: Meaning, b: Meaning) -> Meaning:
    """Return `a - b * n` with n the quotient `a / b` without its fraction."""
    return _division_rest(a, b, int)


def _division_rest(a: Meaning, b: Meaning, integer: Callable[[Fraction], int]) -> Meaning:
    if "nan" in (a, b) or a in ("inf", "-inf") or is_zero(b):
        return "nan"
    if b in ("inf", "-inf") or is_zero(a):
        return a
    quotient = number(a) / number(b)
    rest = number(a) - number(b) * _integer(quotient, integer)
    return signed_zero(negative_sign(a)) if rest == 0 else rest


def _integer(x: Fraction | Real, integer: Callable[[Fraction], int]) -> int:
    """Return an integer near `x`; an irrational number has that of bounds close enough."""
    rational = x.rational() if isinstance(x, Real) else x
    if rational is not None:
        return integer(rational)
    assert isinstance(x, Real)
    return decided(x.enclosure, integer)


def minimum(a: Meaning, b: Meaning) -> Meaning:
    """Return the smaller number, of zeros the negative one; NaN if either is."""
    return "nan" if "nan" in (a, b) else min(a, b, key=_Order)


def maximum(a: Meaning, b: Meaning) -> Meaning:
    """Return the larger number, of zeros the positive one; NaN if either is."""
    return "nan" if "nan" in (a, b) else max(a, b, key=_Order)


class _Order:
    """The order of the extended reals, -0 below +0."""

    def __init__(self, x: Meaning) -> None:
        self.zone = {"-inf": -1, "inf": 1}.get(x, 0) if isinstance(x, str) else 0
        self.value = Fraction(0) if isinstance(x, str) else x
        self.above_negative_zero = x != "-0"

    def __lt__(self, other: _Order) -> bool:
        if self.zone != other.zone:
            return self.zone < other.zone
        if self.value != other.value:
            return self.value < other.value
        return self.above_negative_zero < other.above_negative_zero


def absolute(x: Meaning) -> Meaning:
    """Return `x` without its sign."""
    return negative(x) if negative_sign(x) else x


def convert(x: Meaning) -> Meaning:
    """Return `x`."""
    return x


#: Arithmetic by name: how many operands, and the exact result; those of `SUMS` also take the sign of a cancelled sum.
ARITHMETIC: dict[str, tuple[int, Callable[..., Result]]] = {
    "add": (2, add), "subtract": (2, subtract), "multiply": (2, multiply), "divide": (2, divide), "fma": (3, fma),
    "sqrt": (1, sqrt), "remainder": (2, remainder), "fmod": (2, fmod), "minimum": (2, minimum), "maximum": (2, maximum),
    "negative": (1, negative), "absolute": (1, absolute), "convert": (1, convert),
}  # fmt: skip
SUMS = ("add", "subtract", "fma")
