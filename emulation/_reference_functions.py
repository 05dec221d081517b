"""Functions that approximations are compared with: near exact, and correctly rounded into a format."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation import _accurate
from lowp.emulation._evaluate import evaluate
from lowp.emulation._operands import Coded, Settings, decoded, holds_exactly
from lowp.emulation._target import Result, Target
from lowp.emulation.array import array
from lowp.formats.spec import Meaning, ScalarFormat

Floats = NDArray[np.float64]
#: Bound on the relative errors of the float64 estimates of functions that are not arithmetic.
_MARGIN = 2.0**-40
#: Beyond this, tails are smaller than all that formats hold.
_FAR = 1 << 20
_HALF_ROOT = math.sqrt(0.5)
_erf, _erfc = np.frompyfunc(math.erf, 1, 1), np.frompyfunc(math.erfc, 1, 1)


class Function(NamedTuple):
    """A function in float64, in 240 bits, what rounds it correctly, and its values at -inf and inf."""

    estimate: Callable[[Floats], Any]
    big: Callable[[Any, Any], Any]
    rounded: tuple[str, tuple[Any, ...]] | None = None
    at_infinity: tuple[Meaning, Meaning] = (Fraction(0), Fraction(1))


def _sigmoid(x: Floats) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def _gelu(x: Floats) -> Any:
    return 0.5 * x * np.asarray(_erfc(-x * _HALF_ROOT), np.float64)


FUNCTIONS: dict[str, Function] = {
    "exp": Function(np.exp, lambda mp, x: mp.exp(x), ("exp", ("x",))),
    "exp2": Function(np.exp2, lambda mp, x: mp.mpf(2) ** x, ("exp2", ("x",))),
    "log2": Function(np.log2, lambda mp, x: mp.log(x) / mp.ln2, ("log2", ("x",))),
    "sqrt": Function(np.sqrt, lambda mp, x: mp.sqrt(x), ("sqrt", ("x",))),
    "rsqrt": Function(lambda x: 1.0 / np.sqrt(x), lambda mp, x: 1 / mp.sqrt(x), ("power", ("x", -0.5))),
    "reciprocal": Function(lambda x: 1.0 / x, lambda mp, x: 1 / x, ("divide", (1.0, "x"))),
    "tanh": Function(np.tanh, lambda mp, x: mp.tanh(x), ("tanh", ("x",))),
    "sigmoid": Function(_sigmoid, lambda mp, x: 1 / (1 + mp.exp(-x))),
    "silu": Function(
        lambda x: x * _sigmoid(x), lambda mp, x: x / (1 + mp.exp(-x)), at_infinity=("-0", "inf")
    ),
    "erf": Function(
        lambda x: np.asarray(_erf(x), np.float64), lambda mp, x: mp.erf(x), at_infinity=(Fraction(-1), Fraction(1))
    ),
    "gelu": Function(_gelu, lambda mp, x: x * mp.erfc(-x / mp.sqrt(2)) / 2, at_infinity=("-0", "inf")),
    "gelu_tail": Function(
        lambda x: _gelu(-np.abs(x)), lambda mp, x: -abs(x) * mp.erfc(abs(x) / mp.sqrt(2)) / 2, at_infinity=("-0", "-0")
    ),
}  # fmt: skip


def big(function: str, x: Any) -> Any:
    """Return a function of a number of 240 bits."""
    mp = _accurate.context()
    if mp.isnan(x):
        return x
    if not mp.isfinite(x):
        with np.errstate(all="ignore"):
            return mp.mpf(float(FUNCTIONS[function].estimate(np.array(float(x)))))
    if x == 0 and function in ("rsqrt", "reciprocal", "log2"):
        return -mp.inf if function == "log2" else mp.inf
    return FUNCTIONS[function].big(mp, x)


def exact(function: str, x: Coded, fine: bool) -> _accurate.Numbers:
    """Return a function of an array: float64, or `fine` numbers of 240 bits."""
    if fine:
        given = _accurate.numbers(x, True)
        out = np.empty(given.shape, object)
        for i in np.ndindex(given.shape):
            out[i] = big(function, given[i])
        return out
    with np.errstate(all="ignore"):
        return np.asarray(FUNCTIONS[function].estimate(decoded(x.codes, x.format)), np.float64)


def rounded(function: str, x: Any, fmt: ScalarFormat) -> array:
    """Return the correctly rounded function, to nearest, of an array or of plain numbers."""
    how = FUNCTIONS[function].rounded
    options: Any = Settings(nan="zero")._asdict() | {"fmt": fmt}
    if how is not None:
        op, operands = how
        return array._made(evaluate(op, tuple(x if a == "x" else a for a in operands), options))  # noqa: SLF001
    values = decoded(x.codes, x.format) if isinstance(x, Coded) else np.asarray(x, np.float64)
    meaning = _meanings(x, values)
    target = Target(fmt, Settings(nan="zero").request(fmt))
    flat = np.ascontiguousarray(values).reshape(-1)
    inexact = isinstance(x, Coded) and not holds_exactly(x.format)
    below, above = _bounds(function, flat)
    codes = target.encode_between(
        below, above, lambda i: _exactly(function, meaning(i)), np.isinf(flat) | np.full(flat.shape, inexact)
    )
    return array.from_codes(codes.reshape(values.shape), fmt)


def _meanings(x: Any, values: Floats) -> Callable[[int], Meaning]:
    if isinstance(x, Coded):
        codes = np.ascontiguousarray(x.codes).reshape(-1)
        return lambda i: x.format.meaning(int(codes[i]))
    flat = np.ascontiguousarray(values).reshape(-1)

    def of(i: int) -> Meaning:
        number = float(flat[i])
        if math.isnan(number):
            return "nan"
        return ("inf" if number > 0 else "-inf") if math.isinf(number) else Fraction(number)

    return of


@np.errstate(all="ignore")
def _bounds(function: str, x: Floats) -> tuple[Floats, Floats]:
    """Return bounds on a function that is not arithmetic; it keeps its sign where float64 underflows."""
    y = np.asarray(FUNCTIONS[function].estimate(x), np.float64)
    margin = np.abs(y) * _MARGIN
    below, above = np.where(y == 0, y, y - margin), np.where(y == 0, y, y + margin)
    tiny = (np.abs(y) < 2.0**-960) & (x != 0) & np.isfinite(x)
    negative = (x < 0) & (function not in ("sigmoid",)) | (function == "gelu_tail")
    below = np.where(tiny, np.where(negative, -(2.0**-960), 2.0**-1074), below)
    above = np.where(tiny, np.where(negative, -(2.0**-1074), 2.0**-960), above)
    special = np.isinf(x)  # from the table of values at infinity
    return np.where(special, 0.0, below), np.where(special, 0.0, above)


def _exactly(function: str, x: Meaning) -> Result:
    if x == "nan":
        return "nan"
    if x in ("inf", "-inf"):
        return FUNCTIONS[function].at_infinity[x == "inf"]
    if function == "sigmoid" and (x == "-0" or x == 0):
        return Fraction(1, 2)

    number = _accurate.rational(x)
    if abs(number) > _FAR and function != "erf" and (number < 0 or function == "gelu_tail"):  # the tail towards zero
        return Fraction(1 if function == "sigmoid" else -1, 1 << _FAR)

    def enclosure(bits: int) -> tuple[Fraction, Fraction]:
        from mpmath.ctx_mp import MPContext

        mp = MPContext()
        mp.prec = bits + 64
        value = FUNCTIONS[function].big(mp, mp.mpf(number.numerator) / number.denominator)
        slack = abs(value) * mp.mpf(2) ** -bits
        return _fraction(value - slack), _fraction(value + slack)

    return enclosure


def _fraction(x: Any) -> Fraction:
    sign, significand, exponent, _ = x._mpf_
    value = Fraction(int(significand)) * Fraction(2) ** int(exponent)
    return -value if sign else value
