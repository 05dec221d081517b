"""Operations on exact numbers: what IEEE 754-2019 calls the infinitely precise result, before any rounding.

Numbers are as a format means them: Fraction, `Real`, or "nan", "inf", "-inf", "-0". Irrational results of rational
operands are enclosures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from lowp.emulation._target import Enclosure, Result
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning

_NEGATIVES: dict[str, Meaning] = {"nan": "nan", "inf": "-inf", "-inf": "inf", "-0": Fraction(0)}


def is_infinite(x: Meaning) -> bool:
    """Whether a number is an infinity."""
    return x in ("inf", "-inf")


def is_negative(x: Meaning) -> bool:
    """Whether a number has a minus sign; NaN has none."""
    return x in ("-inf", "-0") if isinstance(x, str) else x < 0


def is_zero(x: Meaning) -> bool:
    """Whether a number is a zero of either sign."""
    return x == "-0" or (not isinstance(x, str) and x == 0)


def zero(negative: bool) -> Meaning:
    """Return a zero of a sign."""
    return "-0" if negative else Fraction(0)


def infinity(negative: bool) -> Meaning:
    """Return an infinity of a sign."""
    return "-inf" if negative else "inf"


def finite(x: Meaning) -> Fraction | Real:
    """Return a finite number, -0 as zero."""
    return x if isinstance(x, Fraction | Real) else Fraction(0)


def simplified(x: Fraction | Real) -> Fraction | Real:
    """Return a rational number as a Fraction."""
    rational = x.rational() if isinstance(x, Real) else x
    return x if rational is None else rational


def magnitude(x: Fraction | Real) -> Fraction | Real:
    """Return the absolute value of a finite number."""
    return x if x > 0 else finite(negative(x))


def negative(x: Meaning) -> Meaning:
    """Return `-x`."""
    if isinstance(x, str):
        return _NEGATIVES[x]
    if isinstance(x, Real):
        return -x
    return -x if x else "-0"


def absolute(x: Meaning) -> Meaning:
    """Return `|x|`."""
    return negative(x) if is_negative(x) else x


def add(a: Meaning, b: Meaning, negative_zero: bool = False) -> Meaning:
    """Return `a + b`; a sum that cancels is -0 if `negative_zero` (rounding toward negative)."""
    if "nan" in (a, b) or (is_infinite(a) and is_infinite(b) and a != b):
        return "nan"
    if is_infinite(a) or is_infinite(b):
        return a if is_infinite(a) else b
    total = (
        simplified(Real.of(finite(a)) + finite(b))
        if isinstance(a, Real) or isinstance(b, Real)
        else finite(a) + finite(b)
    )
    if total != 0:
        return total
    signs = {is_negative(a), is_negative(b)} if is_zero(a) and is_zero(b) else {True, False}
    return zero(True in signs if negative_zero else signs == {True})


def subtract(a: Meaning, b: Meaning, negative_zero: bool = False) -> Meaning:
    """Return `a - b`."""
    return add(a, negative(b), negative_zero)


def multiply(a: Meaning, b: Meaning) -> Meaning:
    """Return `a * b`."""
    if "nan" in (a, b) or (is_infinite(a) and is_zero(b)) or (is_zero(a) and is_infinite(b)):
        return "nan"
    minus = is_negative(a) != is_negative(b)
    if is_infinite(a) or is_infinite(b):
        return infinity(minus)
    product = (
        simplified(Real.of(finite(a)) * finite(b))
        if isinstance(a, Real) or isinstance(b, Real)
        else finite(a) * finite(b)
    )
    return zero(minus) if product == 0 else product


def divide(a: Meaning, b: Meaning) -> Meaning:
    """Return `a / b`."""
    if "nan" in (a, b) or (is_infinite(a) and is_infinite(b)) or (is_zero(a) and is_zero(b)):
        return "nan"
    minus = is_negative(a) != is_negative(b)
    if is_infinite(a) or is_zero(b):
        return infinity(minus)
    return zero(minus) if is_infinite(b) or is_zero(a) else quotient(finite(a), finite(b))


def quotient(a: Fraction | Real, b: Fraction | Real) -> Fraction | Real:
    """Return the quotient of finite numbers; `b` is not zero."""
    return simplified(Real.of(a) / b) if isinstance(a, Real) or isinstance(b, Real) else a / b


def fma(a: Meaning, b: Meaning, c: Meaning, negative_zero: bool = False) -> Meaning:
    """Return `a * b + c`."""
    return add(multiply(a, b), c, negative_zero)


def sqrt(x: Meaning) -> Result:
    """Return the square root."""
    if x in ("nan", "inf") or is_zero(x):
        return x
    if is_negative(x):
        return "nan"
    number = finite(x)
    if isinstance(number, Real):
        return simplified(number.to_power(Fraction(1, 2)))
    top, bottom = math.isqrt(number.numerator), math.isqrt(number.denominator)
    if top * top == number.numerator and bottom * bottom == number.denominator:
        return Fraction(top, bottom)
    exponent = exponent_of_two(number)
    return square_root_enclosure(number) if exponent is None else Real.power_of_two(Fraction(exponent, 2))


def exponent_of_two(x: Fraction) -> int | None:
    """Return `e` where `x` is `2^e`."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if x == Fraction(2) ** exponent else None


def square_root_enclosure(x: Fraction) -> Enclosure:
    """Return bounds on an irrational square root."""

    def bounds(bits: int) -> tuple[Fraction, Fraction]:
        scale = max(bits + (x.denominator.bit_length() - x.numerator.bit_length()) // 2 + 1, 0)
        root = math.isqrt((x.numerator << (2 * scale)) // x.denominator)
        return Fraction(root, 1 << scale), Fraction(root + 1, 1 << scale)

    return bounds


def nearest_integer(x: Fraction | Real) -> int:
    """Return the nearest integer, ties to even."""
    if isinstance(x, Fraction):
        return round(x)
    bits = 96
    while True:  # an irrational number is no tie
        low, high = x.enclosure(bits)
        if round(low) == round(high):
            return round(low)
        bits *= 2


def whole(x: Fraction | Real, toward_zero: bool) -> int:
    """Return the integer part, toward zero or downward."""
    if isinstance(x, Fraction):
        return math.trunc(x) if toward_zero else math.floor(x)
    bits = 96
    while True:
        low, high = (math.trunc(end) if toward_zero else math.floor(end) for end in x.enclosure(bits))
        if low == high:
            return low
        bits *= 2


def _division_rest(a: Meaning, b: Meaning, integer: Callable[[Fraction | Real], int]) -> Meaning | None:
    """Return `a - b * integer(a / b)`; None where `b` is infinite."""
    if "nan" in (a, b) or is_infinite(a) or is_zero(b):
        return "nan"
    if is_infinite(b):
        return None
    x, y = finite(a), finite(b)
    return add(x, negative(multiply(y, Fraction(integer(quotient(x, y))))))


def remainder(a: Meaning, b: Meaning) -> Meaning:
    """Return the IEEE 754 remainder; zero has the sign of `a`."""
    rest = _division_rest(a, b, nearest_integer)
    return a if rest is None else zero(is_negative(a)) if is_zero(rest) else rest


def fmod(a: Meaning, b: Meaning) -> Meaning:
    """Return the remainder of the truncated quotient; zero has the sign of `a`."""
    rest = _division_rest(a, b, lambda q: whole(q, True))
    return a if rest is None else zero(is_negative(a)) if is_zero(rest) else rest


def modulo(a: Meaning, b: Meaning) -> Meaning:
    """Return the remainder of the quotient rounded down; zero has the sign of `b`."""
    rest = _division_rest(a, b, lambda q: whole(q, False))
    if rest is None:
        return a if is_negative(a) == is_negative(b) else zero(is_negative(b)) if is_zero(a) else b
    return zero(is_negative(b)) if is_zero(rest) else rest


def less(a: Meaning, b: Meaning) -> bool:
    """Whether `a < b`; NaN is not less than anything, and zeros are equal."""
    if "nan" in (a, b) or a == b:
        return False
    if is_infinite(a) or is_infinite(b):
        return a == "-inf" or b == "inf"
    return bool(Real.of(finite(a)) < finite(b))


def minimum(a: Meaning, b: Meaning) -> Meaning:
    """Return the smaller number; NaN if either is, and -0 is less than +0."""
    if "nan" in (a, b):
        return "nan"
    return a if less(a, b) or (not less(b, a) and is_negative(a)) else b


def maximum(a: Meaning, b: Meaning) -> Meaning:
    """Return the larger number; NaN if either is, and -0 is less than +0."""
    return negative(minimum(negative(a), negative(b)))


def convert(x: Meaning) -> Meaning:
    """Return the number itself."""
    return x


OPERATIONS: dict[str, Callable[..., Result]] = {
    "add": add, "subtract": subtract, "multiply": multiply, "divide": divide, "fma": fma, "sqrt": sqrt,
    "remainder": remainder, "fmod": fmod, "modulo": modulo, "minimum": minimum, "maximum": maximum,
    "negative": negative, "absolute": absolute, "convert": convert,
}  # fmt: skip
#: Operations in which a sum can cancel.
SUMS = ("add", "subtract", "fma")
