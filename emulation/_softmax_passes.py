"""The algorithms of `lowp.emulation.softmax`, on arrays whose first axis is reduced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._counted import Steps, rounded_constant
from lowp.emulation._operands import decoded
from lowp.emulation._order import ranks
from lowp.emulation._rows import running_sum
from lowp.emulation.array import array
from lowp.emulation.neighbours import ulp
from lowp.formats.spec import ScalarFormat

if TYPE_CHECKING:
    from lowp.emulation.approximations import Approximation

DIVISIONS = ("divide", "reciprocal")
_LOG2_E = float.fromhex("0x1.71547652b82fep+0")
_LN_2 = float.fromhex("0x1.62e42fefa39efp-1")
#: ln 2 minus that.
_LN_2_REST = float.fromhex("0x1.abc9e3b39803fp-56")
#: Powers of two at and below 2^this are taken as zero (XNNPACK: they have no exponent bits in binary32).
_NEGLIGIBLE = -127
#: Above the magnitude of every exponent; its negative is the exponent of zero.
_NO_EXPONENT = 1.7e308
#: Exponents apart, and then some: where numbers lie further apart than this, only equal ones count beside each other.
_FAR_APART = 128
#: Integers in float64: of numbers so large that it does not hold them, differences do not matter.
Exponents = NDArray[np.float64]


class Formats(NamedTuple):
    """Formats of the steps."""

    input: ScalarFormat
    exp: ScalarFormat
    sum: ScalarFormat
    result: ScalarFormat


class Rows(NamedTuple):
    """What is reduced along the first axis; `masked` places, if any, hold copies of others, and have no exponential."""

    x: array
    masked: NDArray[np.bool_] | None = None

    def without_masked(self, powers: array) -> array:
        """Return exponentials, those of masked places zero."""
        if self.masked is None:
            return powers
        kept = powers.copy()
        kept[self.masked] = 0.0
        return kept


def masked_rows(x: array, masked: NDArray[np.bool_]) -> Rows:
    """Return rows whose masked places hold the number before them, the first ones that after them.

    So no maximum changes.
    """
    places = np.arange(len(x))[:, None]
    before = np.maximum.accumulate(np.where(masked, -1, places), axis=0)
    source = np.where(before < 0, np.argmin(masked, axis=0), before)
    return Rows(array.from_codes(np.take_along_axis(x.codes, source, 0), x.format).with_settings(x.settings), masked)


def exponential(by: Any, reduced: bool) -> Approximation:
    """Return the approximation of exp that is asked for."""
    from lowp.emulation.approximations import resolved

    found = resolved(by, "exp_by", "exp")
    if reduced:
        found.require_scaled("exp_by")
    return found


def three_pass(
    steps: Steps, rows: Rows, formats: Formats, division: str, fused: bool, by: Approximation | None, summed: Any
) -> array:
    """Return the softmax by maximum, sum of exponentials, and division."""
    difference = steps.do("difference", "subtract", rows.x, largest(rows.x)[-1], fmt=formats.exp)
    powers = rows.without_masked(_exp(steps, difference, formats.exp, by, fused))
    total = running_sum(steps, "sum", powers, formats.sum) if summed is None else summed(powers)
    return _divided(steps, powers, total, formats, division)


def online(
    steps: Steps, rows: Rows, formats: Formats, division: str, fused: bool, by: Approximation | None, summed: Any
) -> array:
    """Return the softmax by a maximum and a sum that are kept together."""
    x = rows.x
    tops = largest(x)
    last = tops[-1]
    with_minus = formats.input.has_infinity
    empty = np.isneginf(decoded(tops.codes, tops.format)) if with_minus else np.zeros(tops.shape, bool)
    powers = rows.without_masked(_exp_of_difference(steps, x, tops, formats, by, fused, empty))
    total = steps.do("sum", "convert", powers[0], fmt=formats.sum)
    if len(x) > 1:
        factors = _exp_of_difference(steps, tops[:-1], tops[1:], formats, by, fused, empty[1:], "rescale exp")
        for k in range(1, len(x)):
            total = _multiply_add(steps, total, factors[k - 1], powers[k], formats.sum, fused)
    final = _exp_of_difference(steps, x, last, formats, by, fused, np.zeros(x.shape, bool))
    return _divided(steps, rows.without_masked(final), total, formats, division)


def _exp_of_difference(
    steps: Steps, x: array, top: array, formats: Formats, by: Any, fused: bool, empty: Any, step: str = "exp"
) -> array:
    """Return `exp(x - top)`, zero where nothing but -infinity has come so far."""
    difference = steps.do("difference", "subtract", x, top, fmt=formats.exp)
    if empty.any():
        difference[empty] = -np.inf if formats.exp.has_infinity else formats.exp.min
    return _exp(steps, difference, formats.exp, by, fused, step)


def two_pass(
    steps: Steps, rows: Rows, formats: Formats, division: str, fused: bool, by: Approximation | None, summed: Any
) -> array:
    """Return the softmax of pairs of a mantissa and an exponent."""
    mantissas, exponents = _pairs(steps, rows, formats.exp, by, fused)
    tops = np.maximum.accumulate(exponents, axis=0)
    terms = _scaled(steps, mantissas, exponents - tops, formats.sum)
    total = terms[0]
    for k in range(1, len(tops)):
        down = tops[k - 1] - tops[k]
        if fused:
            total = steps.do("sum", "fma", total, powers_of_two(down), terms[k], fmt=formats.sum)
        else:
            moved = _scaled(steps, total, down, formats.sum)
            total = steps.do("sum", "add", moved, terms[k], fmt=formats.sum)
    return _scaled(steps, _divided(steps, mantissas, total, formats, division), exponents - tops[-1], formats.result)


def _pairs(
    steps: Steps, rows: Rows, fmt: ScalarFormat, by: Approximation | None, fused: bool
) -> tuple[array, Exponents]:
    """Return `exp(x)` as mantissas and exponents; of -infinity 0 and an exponent below all others."""
    x = rows.x
    values = decoded(x.codes, x.format)
    nothing = np.isneginf(values) if rows.masked is None else rows.masked
    if by is not None:
        from lowp.emulation._approximation_worlds import FormatWorld

        start = x if x.format == fmt else steps.do("input", "convert", x, fmt=fmt)
        mantissas, exponents = by.scaled_parts(FormatWorld(fmt, steps, fused, "exp"), start)
    else:
        with np.errstate(over="ignore"):
            exponents = np.rint(np.where(np.isfinite(values), values, 0.0) * _LOG2_E)
        mantissas = steps.do("exp", "exp", _reduced(steps, x, exponents, fmt), fmt=fmt)
    if nothing.any():
        mantissas = mantissas.copy()
        mantissas[nothing] = 0.0
    most = _NO_EXPONENT / 2
    known = np.where(np.isfinite(values), np.clip(exponents, -most, most), 0.0)
    return mantissas, np.where(nothing, -_NO_EXPONENT, known)


def _reduced(steps: Steps, x: array, whole: Exponents, fmt: ScalarFormat) -> array:
    """Return `x - whole * ln 2`; zero where x is so large that only equal numbers count beside each other."""
    values = decoded(x.codes, x.format)
    large = np.abs(values) >= _FAR_APART
    if large.any():
        some = array.from_codes(x.codes[large], x.format)
        far = np.zeros(x.shape, bool)
        far[large] = np.isfinite(values[large]) & (ulp(some) >= _FAR_APART)
        if far.any():
            x, whole = x.copy(), np.where(far, 0.0, whole)
            x[far] = 0.0
    high = rounded_constant(_LN_2, fmt)
    low = rounded_constant(_LN_2 - high + _LN_2_REST, fmt)
    rest = steps.do("reduction", "fma", whole, -high, x, fmt=fmt)
    return steps.do("reduction", "fma", whole, -low, rest, fmt=fmt)


def _scaled(steps: Steps, x: array, exponents: Exponents, fmt: ScalarFormat) -> array:
    """Return numbers times powers of two; negligible ones are zero."""
    values = decoded(x.codes, x.format)
    steps.lost("scale", int(np.count_nonzero((values != 0) & np.isfinite(values) & (exponents <= _NEGLIGIBLE))))
    return steps.do("scale", "multiply", x, powers_of_two(exponents), fmt=fmt)


def powers_of_two(exponents: Exponents) -> NDArray[np.float64]:
    """Return powers of two of exponents up to 0; negligible ones are zero."""
    return np.asarray(
        np.where(exponents <= _NEGLIGIBLE, 0.0, np.ldexp(1.0, np.maximum(exponents, _NEGLIGIBLE).astype(np.int32)))
    )


def largest(x: array) -> array:
    """Return the largest number so far at every place along the first axis; exact, NaN if one is NaN."""
    order = ranks(x.codes, x.format)
    unknown = np.isnan(decoded(x.codes, x.format))
    order = np.where(unknown, np.iinfo(np.int64).max, order)
    places = np.arange(len(x))[:, None] * np.ones(x.shape, np.int64)
    best = np.maximum.accumulate(order, axis=0)
    fresh = np.ones(x.shape, bool)
    fresh[1:] = best[1:] > best[:-1]
    return array.from_codes(
        np.take_along_axis(x.codes, np.maximum.accumulate(np.where(fresh, places, 0), axis=0), 0), x.format
    )


def _exp(steps: Steps, x: array, fmt: ScalarFormat, by: Approximation | None, fused: bool, step: str = "exp") -> array:
    if by is None:
        return steps.do(step, "exp", x, fmt=fmt)
    from lowp.emulation._approximation_worlds import FormatWorld

    result: array = by.run(FormatWorld(fmt, steps, fused, step), x)
    return result


def _multiply_add(steps: Steps, a: array, b: array, c: array, fmt: ScalarFormat, fused: bool) -> array:
    if fused:
        return steps.do("sum", "fma", a, b, c, fmt=fmt)
    return steps.do("sum", "add", steps.do("rescale", "multiply", a, b, fmt=fmt), c, fmt=fmt)


def _divided(steps: Steps, x: array, total: array, formats: Formats, division: str) -> array:
    if division == "divide":
        return steps.do("division", "divide", x, total, fmt=formats.result)
    inverse = steps.do("reciprocal", "divide", 1.0, total, fmt=formats.sum)
    return steps.do("division", "multiply", x, inverse, fmt=formats.result)


ALGORITHMS: dict[str, Callable[..., array]] = {"three_pass": three_pass, "online": online, "two_pass": two_pass}
