"""Operations on float64 numbers rounded to odd, compiled; what was lost is told apart from what was not.

A kernel writes the nearest results to `out`, their errors (the exact result less the nearest, or a number of that sign)
to `error`, and to `state` how good they are: EXACT, ODD (the exact result lies strictly between the two float64
neighbours of the result once `make_odd` has run), or OPEN (float64's range does not allow to say). The errors are
float64 numbers, found by Knuth's two-sum and Dekker's product. Loops are free of branches, so that they vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

EXACT, ODD, OPEN = range(3)
#: Factors within these bounds have products, quotients and errors well inside float64's range; then summands.
_LOW, _HIGH = 2.0**-450, 2.0**450
_LOWER, _HIGHER = 2.0**-900, 2.0**900
_SPLIT = float(2**27 + 1)

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


@_inline
def _sum_error(a: float, b: float, total: float) -> Any:
    """Return `a + b - total` (Knuth)."""
    shadow = total - a
    return (a - (total - shadow)) + (b - shadow)


@_inline
def _product_error(a: float, b: float, product: float) -> Any:
    """Return `a * b - product` (Dekker 1971)."""
    c, d = _SPLIT * a, _SPLIT * b
    a_high, b_high = c - (c - a), d - (d - b)
    a_low, b_low = a - a_high, b - b_high
    return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


@_inline
def _ordinary(a: float) -> Any:
    """Whether a number is finite and not zero."""
    return (abs(a) > 0.0) & (abs(a) < np.inf)


@_inline
def _moderate(a: float) -> Any:
    return (abs(a) >= _LOW) & (abs(a) <= _HIGH)


@_compile
def make_odd(bits: Any, error: Any) -> None:
    """Set the last bit of inexact results, on the side of the exact one; `bits` are the results seen as int64."""
    for i in range(bits.size):
        even_inexact = (error[i] != 0.0) & (bits[i] & 1 == 0)
        outward = (error[i] > 0.0) == (bits[i] >= 0)
        bits[i] += np.int64(even_inexact) * (2 * np.int64(outward) - 1)


@_compile
def add(a: Any, b: Any, out: Any, error: Any, state: Any) -> None:
    """Write `a + b`."""
    for i in range(a.size):
        x, y = a[i], b[i]
        total = x + y
        finite = abs(total) < np.inf
        lost = _sum_error(x, y, total)
        out[i] = total
        error[i] = lost if finite else 0.0
        decided = finite | ~((abs(x) < np.inf) & (abs(y) < np.inf))
        state[i] = (ODD if error[i] != 0.0 else EXACT) if decided else OPEN


@_compile
def multiply(a: Any, b: Any, out: Any, error: Any, state: Any) -> None:
    """Write `a * b`."""
    for i in range(a.size):
        x, y = a[i], b[i]
        product = x * y
        lost = _product_error(x, y, product)
        safe = _moderate(x) & _moderate(y)
        out[i] = product
        error[i] = lost if safe else 0.0
        decided = safe | ~(_ordinary(x) & _ordinary(y))
        state[i] = (ODD if error[i] != 0.0 else EXACT) if decided else OPEN


@_compile
def divide(a: Any, b: Any, out: Any, error: Any, state: Any) -> None:
    """Write `a / b`; a zero divisor gives infinity or NaN as IEEE 754."""
    for i in range(a.size):
        x, y = a[i], b[i]
        quotient = x / y
        product = quotient * y
        rest = (x - product) - _product_error(quotient, y, product)
        safe = _moderate(x) & _moderate(y)
        out[i] = quotient
        error[i] = (rest if y > 0.0 else -rest) if safe else 0.0
        decided = safe | ~(_ordinary(x) & _ordinary(y))
        state[i] = (ODD if error[i] != 0.0 else EXACT) if decided else OPEN


@_compile
def square_root(a: Any, out: Any, error: Any, state: Any) -> None:
    """Write the square root of `a`; NaN for negative numbers, -0 for -0."""
    for i in range(a.size):
        x = a[i]
        root = np.sqrt(x)
        square = root * root
        rest = (x - square) - _product_error(root, root, square)
        safe = _moderate(x) & (x > 0.0)
        out[i] = root
        error[i] = rest if safe else 0.0
        decided = safe | ~(_ordinary(x) & (x > 0.0))
        state[i] = (ODD if error[i] != 0.0 else EXACT) if decided else OPEN


@_compile
def start_multiply_add(a: Any, b: Any, c: Any, high: Any, small: Any, error: Any, state: Any) -> None:
    """Write the nearest sum of `a * b` and `c`, what it lost as a number of its own, and what that one lost.

    The product is two numbers, exactly. The larger is added to `c`; the small parts are added among themselves, to be
    rounded to odd before they are added to the sum (Boldo and Melquiond 2008, section 5): their last bit lies far
    below that of the sum, so that it survives. Where the product is no ordinary number, the sum is IEEE 754's.
    """
    for i in range(a.size):
        x, y, z = a[i], b[i], c[i]
        product = x * y
        low = _product_error(x, y, product)
        middle = z + low
        total = product + middle
        middle_lost, total_lost = _sum_error(z, low, middle), _sum_error(product, middle, total)
        rest = total_lost + middle_lost
        safe = _moderate(x) & _moderate(y) & ((z == 0.0) | ((abs(z) >= _LOWER) & (abs(z) <= _HIGHER)))
        finite_factors = (abs(x) < np.inf) & (abs(y) < np.inf)
        plain = z if finite_factors & ~(abs(z) < np.inf) else product + z
        decided = safe | ~(_ordinary(x) & _ordinary(y) & (abs(z) < np.inf))
        high[i] = total if safe else plain
        small[i] = rest if safe else -0.0  # which keeps the sign of a zero
        error[i] = _sum_error(total_lost, middle_lost, rest) if safe else 0.0
        state[i] = EXACT if decided else OPEN
