"""Neighbours, steps, classes and total order of the values of a format."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._exact_results import finite
from lowp.emulation._operands import Coded, decoded, holds_exactly
from lowp.emulation._order import ends, from_ranks, ranks
from lowp.emulation.array import array
from lowp.formats.float_format import Float
from lowp.formats.ranked import TaperedFormat
from lowp.formats.spec import to_float


def next_up(x: array) -> array:
    """Return the next larger value of the format, element by element.

    The largest value goes to infinity where the format has it and otherwise stays; the smallest negative one goes to
    -0 where that exists; NaN stays. Posits and takums take the next code, so that the largest value goes to NaR and NaR
    to the most negative value.

    Args:
        x: An array in a format.

    Raises:
        ArgumentTypeError: `x` is no such array.

    Source:
        IEEE 754-2019, 5.3.1 nextUp; Posit Standard (2022), 5.3 next.

    Example:
        >>> next_up(array([1.0, 448.0], "float8_e4m3fn")).values.tolist()
        [1.125, 448.0]
    """
    return _stepped(checked(x), 1)


def next_down(x: array) -> array:
    """Return the next smaller value of the format, element by element; see `next_up`.

    Args:
        x: An array in a format.

    Raises:
        ArgumentTypeError: `x` is no such array.

    Example:
        >>> next_down(array([1.0, 0.0], "posit8_es2")).values.tolist()
        [0.9375, -5.960464477539063e-08]
    """
    return _stepped(checked(x), -1)


def checked(x: Any) -> Coded:
    """Return `x` if it is an array in a format, else raise ArgumentTypeError."""
    if not isinstance(x, Coded):
        raise ArgumentTypeError(f"x={x!r} must be a lowp.array, not {type(x).__name__}.")
    return x


def _stepped(x: Coded, step: int) -> array:
    fmt = x.format
    rank = ranks(x.codes, fmt)
    low, high = ends(fmt)
    if isinstance(fmt, TaperedFormat):
        return array.from_codes(from_ranks(rank + step, fmt), fmt).with_settings(x.settings)
    if fmt.has_negative_zero:  # both zeros have the same neighbours
        rank = np.where(rank == -1, 0, rank) if step > 0 else np.where(rank == 0, -1, rank)
    codes = from_ranks(np.clip(np.clip(rank, low, high) + step, low, high), fmt)
    codes = np.where(np.isnan(decoded(x.codes, fmt)), x.codes, codes)
    return array.from_codes(codes, fmt).with_settings(x.settings)


def ulp(x: array) -> NDArray[np.float64]:
    """Return the distance from the magnitude of each value to the next larger one, of the largest to the next smaller.

    NaN gives NaN and infinity infinity; distances that float64 does not hold are rounded to nearest.

    Args:
        x: An array in a format.

    Returns:
        float64 numbers in the shape of `x`.

    Raises:
        ArgumentTypeError: `x` is no such array.

    Example:
        >>> ulp(array([0.0, 1.0, -448.0], "float8_e4m3fn")).tolist()
        [0.001953125, 0.125, 32.0]
    """
    fmt = checked(x).format
    here = ranks(x.codes, fmt)
    low, high = ends(fmt)
    low, high = (
        (low + 1, high)
        if isinstance(fmt, TaperedFormat)
        else (low + fmt.has_infinity * fmt.signed, high - fmt.has_infinity)
    )
    values = decoded(x.codes, fmt)
    negative = values < 0
    here = np.clip(np.where(fmt.has_negative_zero & (here == -1), 0, here), low, high)
    outward = np.where(negative, here - 1, here + 1)
    inward = np.where(negative, here + 1, here - 1)
    other = np.where((outward < low) | (outward > high), inward, outward)
    first, second = from_ranks(here, fmt), from_ranks(np.clip(other, low, high), fmt)
    gap = _distance(first, second, fmt)
    return np.asarray(np.where(np.isnan(values), np.nan, np.where(np.isinf(values), np.inf, gap)))


def _distance(a: NDArray[Any], b: NDArray[Any], fmt: Any) -> NDArray[np.float64]:
    if holds_exactly(fmt):
        return np.asarray(np.abs(decoded(a, fmt) - decoded(b, fmt)))
    gaps = np.empty(a.shape)
    for i in np.ndindex(a.shape):
        gap = finite(fmt.meaning(int(a[i]))) - finite(fmt.meaning(int(b[i])))
        gaps[i] = to_float(gap if gap > 0 else -gap)
    return gaps


def classify(x: array) -> NDArray[np.str_]:
    """Return the class of each value: "nan", or sign and "zero", "subnormal", "normal" or "infinity".

    Only floats with subnormals have "subnormal"; a zero without sign is "+zero".

    Args:
        x: An array in a format.

    Returns:
        An array of strings such as "-subnormal".

    Raises:
        ArgumentTypeError: `x` is no such array.

    Source:
        IEEE 754-2019, 5.7.2 class.

    Example:
        >>> classify(array([1.0, -0.0, 2.0**-24, float("nan")], "float16")).tolist()
        ['+normal', '-zero', '+subnormal', 'nan']
    """
    fmt = checked(x).format
    values = decoded(x.codes, fmt)
    size = np.abs(values)
    least_normal = fmt.smallest_normal if isinstance(fmt, Float) else 0.0
    kind = np.select(
        [size == 0, np.isinf(size) & fmt.has_infinity, size < least_normal], ["zero", "infinity", "subnormal"], "normal"
    )
    sign = np.where(np.signbit(values), "-", "+")
    return np.asarray(np.where(np.isnan(values), "nan", np.char.add(sign, kind)))


def total_order(a: array, b: array) -> NDArray[np.bool_]:
    """Return whether `a` comes before or equals `b` in the total order of their format.

    Floats: NaN with sign bit, -infinity, ..., -0, +0, ..., +infinity, NaN; NaNs of one sign by code. A NaN that has no
    sign comes last. Integers, fixed point, posits and takums: codes as integers, NaR first.

    Args:
        a: An array in a format.
        b: An array in the same format, of a shape that broadcasts.

    Raises:
        ArgumentTypeError: One of them is no such array.
        ArgumentError: They are in different formats.

    Source:
        IEEE 754-2019, 5.10 totalOrder.

    Example:
        >>> zeros = array([-0.0, 0.0], "float16")
        >>> total_order(zeros, zeros[::-1]).tolist()
        [True, False]
    """
    if checked(a).format != checked(b).format:
        raise ArgumentError(f"total_order needs one format, not {a.format.name!r} and {b.format.name!r}.")
    return np.asarray(ranks(a.codes, a.format) <= ranks(b.codes, b.format))
