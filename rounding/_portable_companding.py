"""The mu-law curve, mu = 255, in integers and exact steps: the same numbers from NumPy, torch and JAX on any machine.

NumPy's own log1p and expm1 differ from machine to machine in the last bit. Here a table made in decimal arithmetic
serves the leading bits of a number, and a short series what is left. All is right to about 2^-50 and then rounded to
float32 once. Nothing depends on whether a compiler joins products and sums: those it could join are exact, or
`_product`.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.rounding import _portable_doubles as doubles

#: Pieces of a binade in the tables, as a power of two: what is left of a number is below 2^-10 of it.
_PIECES = 10
#: The first piece of the curve starts at 0; with this added to numbers, all below it lie in one binade.
_SHIFT = 2.0**-8
_SHIFT_INDEX = int(np.array(_SHIFT).view(np.int64)) >> (52 - _PIECES)
#: From here on 256^y is infinite in float32.
_MOST = 25.0
_LN2 = float(Decimal("0.693147180559945309417232121458"))


@lru_cache(maxsize=1)
def _log_tables() -> NDArray[np.float64]:
    """Return for x from 0 to 1, by leading bits of x + 2^-8: x, log_256(1 + 255 x), and the slope there, twice.

    The slopes are those of ln and of log_256.
    """
    index = np.arange((8 << _PIECES) + (1 << _PIECES - 8) + 1)
    starts = ((index + _SHIFT_INDEX) << (52 - _PIECES)).view(np.float64) - _SHIFT
    rows = []
    with localcontext(prec=30):
        whole = Decimal(256).ln()
        for start in starts.tolist():
            z = 1 + 255 * Decimal(start)
            rows.append((start, float(z.ln() / whole), float(255 / z), float(255 / z / whole)))
    return np.ascontiguousarray(np.array(rows).T)


@lru_cache(maxsize=1)
def _power_tables() -> NDArray[np.float64]:
    """Return for f = 0, 2^-10, ... below 1: 2^f - 1, and 2^f ln 2."""
    rows = []
    with localcontext(prec=30):
        ln2 = Decimal(2).ln()
        for index in range(1 << _PIECES):
            power = (ln2 * index / (1 << _PIECES)).exp()
            rows.append((float(power - 1), float(power * ln2)))
    return np.ascontiguousarray(np.array(rows).T)


def _product(xp: Any, a: Any, b: Any) -> Any:
    """Return the float64 product where a compiler could join it with the sum that follows."""
    return a * b if xp.name == "numpy" else doubles.product(xp, a, b)


def _taken(xp: Any, tables: NDArray[np.float64], index: Any) -> list[Any]:
    return [xp.take(xp.constant(table, index), index) for table in tables]


def _powers(xp: Any, r: Any) -> tuple[Any, Any, Any, Any]:
    """Return r 2^51, r^2 2^51, r^3 2^61 and r^4 2^71 as integers, for r from 0 to 2^-10 or a little below 0."""
    first = xp.cast(r * 2.0**51, "int64")
    short = first >> 10
    square = (short * short) >> 31
    return first, square, (square * short) >> 31, (square * square) >> 31


def compressed(xp: Any, x: Any) -> Any:
    """Return `sign(x) log_256(1 + 255 |x|)` of float64 numbers from -1 to 1 as float64 numbers that float32 holds.

    Example:
        >>> from lowp.rounding._namespaces import namespace_of
        >>> x = np.array([1.0, -1 / 17, 0.0])
        >>> compressed(namespace_of(x), x).tolist()
        [1.0, -0.5, 0.0]
    """
    result = doubles.to_float32(xp, _curve(xp, doubles.magnitude(xp, x)))
    return xp.where(doubles.bits_of(xp, x) < 0, -result, result)


def _curve(xp: Any, x: Any) -> Any:
    """Return `log_256(1 + 255 x)`."""
    index = (doubles.bits_of(xp, x + _SHIFT) >> (52 - _PIECES)) - _SHIFT_INDEX
    start, value, slope, slope256 = _taken(xp, _log_tables(), index)
    rest = x - start
    r, square, cube, fourth = _powers(xp, rest * slope)
    lost = r - (2 * square) // 3 + (cube >> 11) - (fourth >> 19) // 5  # log1p(r) = r (1 - lost / 2^52)
    factor = xp.cast((1 << 52) - lost, "float64") * 2.0**-52
    return value + _product(xp, rest * slope256, factor)


def expanded(xp: Any, y: Any) -> Any:
    """Return `sign(y) (256^|y| - 1) / 255` of float64 numbers of few bits as float64 numbers that float32 holds.

    Example:
        >>> from lowp.rounding._namespaces import namespace_of
        >>> y = np.array([1.0, -0.5, 0.0])
        >>> expanded(namespace_of(y), y).tolist()
        [1.0, -0.05882352963089943, 0.0]
    """
    size = xp.where(doubles.is_nan(xp, y), 0.0, doubles.magnitude(xp, y))
    result = doubles.to_float32(xp, _inverse(xp, xp.minimum(size, _MOST)))
    result = xp.where(doubles.is_nan(xp, y), y, result)
    return xp.where(doubles.bits_of(xp, y) < 0, -result, result)


def _inverse(xp: Any, y: Any) -> Any:
    """Return `(256^y - 1) / 255`."""
    size = y * 8.0
    whole = xp.cast(size, "int64")
    pieces = xp.cast((size - xp.cast(whole, "float64")) * float(1 << _PIECES), "int64")
    rest = size - (xp.cast(whole, "float64") + xp.cast(pieces, "float64") * 2.0**-_PIECES)
    less_one, slope = _taken(xp, _power_tables(), pieces)
    r, square, cube, fourth = _powers(xp, rest * _LN2)
    more = r + square // 3 + (cube >> 12) // 3 + (fourth >> 22) // 15  # expm1(r) = r (1 + more / 2^52)
    factor = xp.cast((1 << 52) + more, "float64") * 2.0**-52
    power = doubles.from_bits(xp, (whole + 1023) << 52)
    result = power * (less_one + _product(xp, rest * slope, factor)) + (power - 1.0)
    return result / xp.where(whole < 0, 1.0, xp.full_like(result, 255.0))
