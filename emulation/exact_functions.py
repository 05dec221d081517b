"""Elementary functions of exact numbers for the oracle, and what its operations know of signs and zeros.

An exact result is rational or a power of 2 or e wherever it can be: values of logarithmic formats are such powers.
Every other one is transcendental (Lindemann; Gelfond and Schneider) or an irrational root, so no rational number at
which a format changes over equals it, and bounds that close in on it decide in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeGuard

from lowp._errors import RangeError
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning

#: From a precision in bits to bounds below and above a number, about that many bits apart.
Bounds = Callable[[int], tuple[Fraction, Fraction]]
#: An exact result.
Result = Meaning | Bounds
#: Formats end far inside 2^-FARTHEST .. 2^FARTHEST: the widest floats, of 15 exponent bits, at 2^32768.
FARTHEST = 1 << 17
#: From here on tanh is nearer to 1 than any format tells.
_SATURATED = 1 << 12
_SPARE = 40
_NEGATIVES: dict[str, Meaning] = {"nan": "nan", "inf": "-inf", "-inf": "inf", "-0": Fraction(0)}
_EXPONENTIALS: dict[str, Meaning] = {"nan": "nan", "inf": "inf", "-inf": Fraction(0), "-0": Fraction(1)}


def number(x: Meaning) -> Fraction | Real:
    """Return a finite number, -0 as zero."""
    assert not isinstance(x, str) or x == "-0"
    return Fraction(0) if isinstance(x, str) else x


def is_zero(x: Meaning) -> bool:
    """Whether a number is a zero of either sign."""
    return x == "-0" or (not isinstance(x, str) and x == 0)


def negative_sign(x: Meaning) -> bool:
    """Whether a number has a minus sign."""
    return x in ("-0", "-inf") if isinstance(x, str) else x < 0


def signed_zero(minus: bool) -> Meaning:
    """Return a zero."""
    return "-0" if minus else Fraction(0)


def negative(x: Meaning) -> Meaning:
    """Return `-x`."""
    if isinstance(x, str):
        return _NEGATIVES[x]
    return "-0" if x == 0 else -x


def magnitude(x: Fraction | Real) -> Fraction | Real:
    """Return `|x|`."""
    return -x if x < 0 else x


def exp(x: Meaning) -> Result:
    """Return `e^x`."""
    if isinstance(x, str):
        return _EXPONENTIALS[x]
    if x == 0:
        return Fraction(1)
    if magnitude(x) > FARTHEST:
        return _out_of_reach(x > 0)
    return Real.power_of_e(x) if isinstance(x, Fraction) else _near("exp", x)


def exp2(x: Meaning) -> Result:
    """Return `2^x`."""
    return power(Fraction(2), x)


def log(x: Meaning) -> Result:
    """Return the natural logarithm."""
    special = _log_special(x)
    if special is not None:
        return special
    p, q = Real.of(number(x)).exponents() or (Fraction(0), Fraction(1))
    return p if q == 0 else _near("log", number(x))


def log2(x: Meaning) -> Result:
    """Return the logarithm to base 2."""
    special = _log_special(x)
    if special is not None:
        return special
    p, q = Real.of(number(x)).exponents() or (Fraction(1), Fraction(0))
    return q if p == 0 else _near("log2", number(x))


def _log_special(x: Meaning) -> Meaning | None:
    if x in ("nan", "inf"):
        return x
    if is_zero(x):
        return "-inf"
    return "nan" if negative_sign(x) else None


def sin(x: Meaning) -> Result:
    """Return the sine of an angle in radians."""
    if is_zero(x):
        return x
    return "nan" if isinstance(x, str) else _near("sin", x)


def cos(x: Meaning) -> Result:
    """Return the cosine of an angle in radians."""
    if is_zero(x):
        return Fraction(1)
    return "nan" if isinstance(x, str) else _near("cos", x)


def tanh(x: Meaning) -> Result:
    """Return the hyperbolic tangent."""
    if x in ("inf", "-inf"):
        return Fraction(1 if x == "inf" else -1)
    if x == "nan" or is_zero(x):
        return x
    if magnitude(number(x)) >= _SATURATED:
        return _mirrored(_beside_one(magnitude(number(x))), negative_sign(x))
    return _near("tanh", number(x))


def _beside_one(x: Fraction | Real) -> Bounds:
    """Return bounds on tanh of a large number: `1 - tanh x` lies between `e^-2x` and `2 e^-2x`."""
    n = 1 << min(floor_log2(x), 14)  # within a factor of two of x, as far as any format can tell
    return lambda _: (1 - Fraction(1, 1 << n), 1 - Fraction(1, 1 << 6 * n))


def power(x: Meaning, y: Meaning) -> Result:
    """Return `x^y` with the special cases of C's `pow`."""
    if is_zero(y) or x == 1:
        return Fraction(1)
    if "nan" in (x, y):
        return "nan"
    minus = _is_integer(y) and y.numerator % 2 == 1 and negative_sign(x)
    if is_zero(x) or x in ("inf", "-inf"):
        vanishes = is_zero(x) != negative_sign(y)
        return signed_zero(minus) if vanishes else "-inf" if minus else "inf"
    size = magnitude(number(x))
    if y in ("inf", "-inf"):
        return Fraction(1) if size == 1 else "inf" if (size > 1) == (y == "inf") else Fraction(0)
    if negative_sign(x) and not _is_integer(y):
        return "nan"
    result = _positive_power(size, number(y))
    return _mirrored(result, minus) if callable(result) else negative(result) if minus else result


def _is_integer(y: Meaning) -> TypeGuard[Fraction]:
    return isinstance(y, Fraction) and y.denominator == 1


def _positive_power(x: Fraction | Real, y: Fraction | Real) -> Result:
    """Return `x^y` for positive x: a power of 2 or e, rational, or bounds."""
    if x == 1:
        return Fraction(1)
    _, size = _near("power_exponent", x, y)(32)
    if abs(size) > FARTHEST:
        return _out_of_reach((x > 1) == (y > 0))
    if isinstance(y, Fraction):
        if Real.of(x).exponents() is not None:
            return Real.of(x).to_power(y)
        root = _rational_root(x, y.denominator) if isinstance(x, Fraction) else None
        if root is not None:
            return root**y.numerator
    return _near("power", x, y)


def _rational_root(x: Fraction, degree: int) -> Fraction | None:
    """Return the rational root of a degree, if there is one."""
    top, bottom = _integer_root(x.numerator, degree), _integer_root(x.denominator, degree)
    return Fraction(top, bottom) if top**degree == x.numerator and bottom**degree == x.denominator else None


def _integer_root(n: int, degree: int) -> int:
    """Return the largest integer whose power is at most `n`, by bisection on its bits."""
    if degree >= n.bit_length():
        return 1
    root = 0
    for bit in range(n.bit_length() // degree, -1, -1):
        if (root | 1 << bit) ** degree <= n:
            root |= 1 << bit
    return root


def _out_of_reach(large: bool) -> Bounds:
    """Return bounds on a result beyond every format; they never come closer, so a wrapped code stays undecided."""
    end = Fraction(1 << FARTHEST)

    def bounds(precision: int) -> tuple[Fraction, Fraction]:
        if precision > 96:
            raise RangeError(f"the result lies beyond 2^{FARTHEST}, too far out to be wrapped.")
        return (end, end * 2) if large else (1 / (2 * end), 1 / end)

    return bounds


def _mirrored(bounds: Bounds, minus: bool) -> Bounds:
    """Return bounds on the negative number, if asked to."""

    def swapped(precision: int) -> tuple[Fraction, Fraction]:
        low, high = bounds(precision)
        return -high, -low

    return swapped if minus else bounds


def _near(name: str, *arguments: Fraction | Real) -> Bounds:
    """Return bounds from mpmath: its result, give or take an error that is far above both of its causes.

    mpmath's functions are right to an ulp of the working precision, and the arguments are too; how far an error of an
    argument grows is `_GROWTH`.
    """

    def bounds(precision: int) -> tuple[Fraction, Fraction]:
        from mpmath import mp, workprec

        sizes = [max(0, floor_log2(x) + 1) for x in arguments]
        working = precision + _SPARE + sum(sizes)
        with workprec(working):
            values = [_to_mpmath(mp, x, working) for x in arguments]
            result = _from_mpmath(_FUNCTIONS[name](mp, *values))
        slack = (abs(result) + _GROWTH.get(name, 0)) / (1 << precision)
        return result - slack, result + slack

    return bounds


#: What `_near` computes.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": lambda mp, x: mp.exp(x),
    "log": lambda mp, x: mp.log(x),
    "log2": lambda mp, x: mp.log(x) / mp.log(2),
    "sin": lambda mp, x: mp.sin(x),
    "cos": lambda mp, x: mp.cos(x),
    "tanh": lambda mp, x: mp.tanh(x),
    "power": lambda mp, x, y: mp.exp(y * mp.log(x)),
    "power_exponent": lambda mp, x, y: y * mp.log(x) / mp.log(2),
}
#: Absolute part of the error in units of 2^-precision, where the result may be small though the arguments are not.
_GROWTH = {"log": 1, "log2": 2, "sin": 1, "cos": 1}


def floor_log2(x: Fraction | Real) -> int:
    """Return the exponent of a nonzero number, up to one."""
    near = x if isinstance(x, Fraction) else x.enclosure(64)[0]
    return near.numerator.bit_length() - near.denominator.bit_length()


def _to_mpmath(mp: Any, x: Fraction | Real, precision: int) -> Any:
    near = x if isinstance(x, Fraction) else x.enclosure(precision + 8)[0]
    return mp.mpf(near.numerator) / near.denominator


def _from_mpmath(x: Any) -> Fraction:
    sign, significand, exponent, _ = x._mpf_
    size = int(significand) * Fraction(2) ** int(exponent)
    return -size if sign else size


#: Elementary functions by name: how many operands, and the exact result.
FUNCTIONS: dict[str, tuple[int, Callable[..., Result]]] = {
    "exp": (1, exp), "exp2": (1, exp2), "log": (1, log), "log2": (1, log2), "sin": (1, sin), "cos": (1, cos),
    "tanh": (1, tanh), "power": (2, power),
}  # fmt: skip
