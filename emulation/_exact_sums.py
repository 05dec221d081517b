"""Sums and dot products without error, and one rounding at the end."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation import _exact_bins, _exact_panels
from lowp.emulation import _exact_results as exact
from lowp.emulation._operands import decoded, holds_exactly
from lowp.emulation._stored_plan import is_storable, stored_plan
from lowp.emulation._target import Result, Target
from lowp.formats.float_format import Float
from lowp.formats.integer import Integer
from lowp.formats.ranked import TaperedFormat
from lowp.formats.spec import Meaning, ScalarFormat, to_float
from lowp.rounding.exact import exact_value

_ONE, _ZERO = Integer(2), Fraction(0)
_MOST_DIVISOR = 1 << 31


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
    one_by_one = _one_by_one(a, a_format, b, b_format, target, start, divisor)
    first = None if start is None else to_float(start)
    if (
        not (holds_exactly(a_format) and holds_exactly(b_format))
        or divisor >= _MOST_DIVISOR
        or (first is not None and exact_value(first) != start)
    ):
        return target.encode_where(np.ones(len(a) * b.shape[1], bool), one_by_one)
    x, y = decoded(a, a_format), decoded(b, b_format)
    c = None if first is None or (first == 0 and start != "-0") else np.full((len(x), y.shape[1]), first)
    down = target.request.mode.name == "toward_negative"
    if divisor == 1 and _stores(target):
        return target.encode(_stored(x, y, c, start is not None, down, target).reshape(-1))
    values, state, exactly = _exact_bins.whole(
        x, y, c, a_format, b_format, divisor=divisor, from_zero=start is not None, toward_negative=down
    )
    return target.encode_odd(_signed(values, target.fmt).reshape(-1), state.reshape(-1), exactly)


def total(x: NDArray[Any], fmt: ScalarFormat, target: Target, divisor: int) -> NDArray[Any]:
    """Return the codes of the exact sums of columns, divided by an integer."""
    ones = np.ones((1, len(x)), np.uint8)
    return dot(ones, _ONE, x, fmt, target, None, divisor)


def _stores(target: Target) -> bool:
    """Whether sums are rounded by a kernel because numbers rounded to odd do not do."""
    fmt, request = target.fmt, target.request
    if target.takes_odd or request.saturation_bits or request.mode.name == "to_odd":
        return False
    if not is_storable(fmt, request.mode.name, request.overflow):
        return False
    return not isinstance(fmt, Float) or fmt.has_infinity


def _stored(
    x: NDArray[np.float64], y: NDArray[np.float64], c: NDArray[np.float64] | None, from_zero: bool, down: bool,
    target: Target,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the sums rounded to the target's format, in float64; NaN and infinities as they are."""
    product = _exact_panels.surveyed(x, y, c)
    plan = stored_plan(target.fmt, target.request.mode.name, target.request.overflow)
    values, state = _exact_bins.sums(product, plan=plan)
    _exact_bins.sign_sums(product, from_zero, down, values, state)
    _exact_bins.mark_specials(product, values, state)
    return _signed(values, target.fmt)


def _signed(values: NDArray[np.float64], fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return the values with zeros positive where the format has no other."""
    return values if fmt.has_negative_zero else values + 0.0


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
