"""Elementary functions: a float64 estimate with a margin, and the exact result for what the estimate leaves open.

NumPy's float64 functions are taken to be right to 8 ulps (they claim 4); the margin is twice that. Exact results are
rational numbers, powers of 2 or e, or enclosures by interval arithmetic. No other result can be a number at which a
format changes over: exp, log, sin, cos and tanh of an algebraic number are transcendental (Lindemann), and so is an
algebraic number to an irrational algebraic power (Gelfond and Schneider); so the enclosures decide.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation import _powers
from lowp.emulation._exact_results import finite, is_negative, is_zero, magnitude, negative
from lowp.emulation._intervals import TINY, clamped, enclosure, just_below, just_beside_one
from lowp.emulation._target import Result
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning

Array = NDArray[np.float64]
_MARGIN = 2.0**-49
_QUIET = np.errstate(all="ignore")
_EXPONENTIALS: dict[str, Meaning] = {"nan": "nan", "inf": "inf", "-inf": Fraction(0), "-0": Fraction(1)}
_TANGENTS: dict[str, Meaning] = {"nan": "nan", "inf": Fraction(1), "-inf": Fraction(-1)}


def exp(x: Meaning, reach: int) -> Result:
    """Return `e^x`."""
    if isinstance(x, str):
        return _EXPONENTIALS[x]
    if x == 0:
        return Fraction(1)
    if magnitude(x) < TINY:
        return just_beside_one(above=x > 0)
    if magnitude(x) > reach:
        return clamped(reach, large=x > 0)
    return Real.power_of_e(x) if isinstance(x, Fraction) else enclosure(lambda f, a: f.exp(a), x)


def exp2(x: Meaning, reach: int) -> Result:
    """Return `2^x`."""
    return _powers.power(Fraction(2), x, reach)


def log(x: Meaning, reach: int) -> Result:
    """Return the natural logarithm."""
    special = _log_special(x)
    if special is not None:
        return special
    number = finite(x)
    powers = number.exponents() if isinstance(number, Real) else None
    if powers is not None and powers[1] == 0:
        return powers[0]
    return enclosure(lambda f, a: f.log(a), number)


def log2(x: Meaning, reach: int) -> Result:
    """Return the logarithm to base 2."""
    special = _log_special(x)
    if special is not None:
        return special
    number = finite(x)
    powers = Real.of(number).exponents()
    if powers is not None and powers[0] == 0:
        return powers[1]
    return enclosure(lambda f, a: f.log(a) / f.log(2), number)


def _log_special(x: Meaning) -> Meaning | None:
    if x in ("nan", "inf"):
        return x
    if is_zero(x):
        return "-inf"
    if is_negative(x):
        return "nan"
    return Fraction(0) if x == 1 else None


def sin(x: Meaning, reach: int) -> Result:
    """Return the sine of an angle in radians."""
    if isinstance(x, str) or x == 0:
        return x if is_zero(x) else "nan"
    return just_below(x) if magnitude(x) < TINY else enclosure(lambda f, a: f.sin(a), x)


def cos(x: Meaning, reach: int) -> Result:
    """Return the cosine of an angle in radians."""
    if isinstance(x, str) or x == 0:
        return Fraction(1) if is_zero(x) else "nan"
    return just_beside_one(above=False) if magnitude(x) < TINY else enclosure(lambda f, a: f.cos(a), x)


def tanh(x: Meaning, reach: int) -> Result:
    """Return the hyperbolic tangent."""
    if isinstance(x, str) or x == 0:
        return _TANGENTS.get(str(x), x)
    if magnitude(x) < TINY:
        return just_below(x)
    if magnitude(x) > 100:
        one = just_beside_one(above=False)
        return one if x > 0 else negative(one)
    return enclosure(lambda f, a: 1 - 2 / (f.exp(2 * a) + 1), x)


#: Exact results; the last argument is the power of two beyond which the result format does not tell numbers apart.
EXACT_FUNCTIONS: dict[str, Callable[..., Result]] = {
    "exp": exp, "exp2": exp2, "log": log, "log2": log2, "sin": sin, "cos": cos, "tanh": tanh, "power": _powers.power,
}  # fmt: skip

_ESTIMATES: dict[str, Any] = {
    "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    "power": np.power,
}  # fmt: skip
#: How many times larger a relative error of an operand is in the result, or for logarithms and angles: the absolute
#: error of the result over the relative one of the operand.
_GROWTH: dict[str, Callable[..., Any]] = {
    "exp": lambda y, x: np.abs(x * y),
    "exp2": lambda y, x: np.abs(x * y),
    "log": lambda y, x: 1.0,
    "log2": lambda y, x: 2.0,
    "sin": lambda y, x: np.abs(x),
    "cos": lambda y, x: np.abs(x),
    "tanh": lambda y, x: np.abs(y),
    "power": lambda y, x, p: np.abs(y) * np.abs(p) * (1 + np.abs(np.log(np.abs(x)))),
}
#: Where the function is exact in float64 too.
_EXACT_POINTS: dict[str, Callable[..., Any]] = {
    "log": lambda x: x == 1,
    "log2": lambda x: x == 1,
    "power": lambda x, p: (x == 1) | (p == 0) | (x == 0) | ~np.isfinite(x) | ~np.isfinite(p),
}


def _zero_or_infinite(x: Array) -> Any:
    return (x == 0) | ~np.isfinite(x)


_BOUNDED = ("sin", "cos", "tanh")


@_QUIET
def estimate(op: str, operands: list[Array], exact: bool) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return bounds below and above the results, and where they are void; `exact` says whether the operands are."""
    y = _ESTIMATES[op](*operands)
    margin = np.abs(y) * _MARGIN
    if not exact:
        margin = margin + _GROWTH[op](y, *operands) * _MARGIN
    is_known: Callable[..., Any] = _EXACT_POINTS.get(op, _zero_or_infinite)
    known = is_known(*operands) | np.isnan(y)
    if op in ("log", "log2"):
        known |= (operands[0] == 0) | np.isinf(operands[0])
    void = ~known & ~((np.abs(y) > 2.0**-960) & (np.abs(y) < 2.0**960))
    margin = np.where(known | void, 0.0, margin)
    below, above = y - margin, y + margin
    if op in _BOUNDED:
        below, above = np.maximum(below, -1.0), np.minimum(above, 1.0)
    return below, above, void
