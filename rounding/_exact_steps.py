"""Products and quotients of float64 numbers, rounded to odd: a later rounding to fewer bits is as good as exact.

Rounding to odd keeps in the last bit whether anything was lost (Boldo & Melquiond, "Emulation of FMA and correctly
rounded sums", IEEE TC 57(4), 2008), so that ties and directed modes are decided as on the exact value, as long as
the final format keeps at most 50 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.rounding._threads import split

#: Numbers from which a compiled pass pays for loading Numba.
_COMPILED_FROM = 1 << 10
_SPLIT = float(2**27 + 1)


def product_error(a: NDArray[Any], b: NDArray[Any], product: NDArray[Any]) -> NDArray[Any]:
    """Return `a*b - product` exactly (Dekker 1971), for factors well inside float64's range."""
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    return np.asarray(a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low))


def _high(a: NDArray[Any]) -> NDArray[Any]:
    c = _SPLIT * a
    return np.asarray(c - (c - a))


def _to_odd(value: NDArray[Any], error_sign: NDArray[Any]) -> NDArray[Any]:
    """Move `value` to its odd neighbour on the side of the exact result where it is even and inexact."""
    bits = value.view(np.int64)
    even_inexact = (error_sign != 0) & (bits & 1 == 0)
    outward = (error_sign > 0) == (value > 0)
    return np.where(even_inexact, bits + np.where(outward, 1, -1), bits).view(np.float64)


def subtract(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return `a - b` rounded to odd."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.asarray(a - b, dtype=np.float64)
        shadow = a - difference  # Knuth's two-sum: what the rounding lost
        error = (a - (difference + shadow)) + (shadow - b)
    return _to_odd(difference, np.where(np.isfinite(error), np.sign(error), 0))


def multiply(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return `a * b` rounded to odd; factors with exponents within +-450."""
    if a.shape == b.shape and a.size >= _COMPILED_FROM:
        from lowp.rounding import _exact_kernels

        return _compiled(_exact_kernels.multiply, a, b)
    with np.errstate(invalid="ignore", over="ignore"):
        product = np.asarray(a * b, dtype=np.float64)
        error = product_error(a, b, product)
    return _to_odd(product, np.where(np.isfinite(error), np.sign(error), 0))


def divide(x: NDArray[Any], s: NDArray[Any]) -> NDArray[Any]:
    """Return `x / s` rounded to odd, for positive `s`; exact where `s` is a power of two.

    Zero divided by anything is zero of its sign; a zero or NaN scale gives NaN for the caller to replace.
    """
    if x.shape == s.shape and x.size >= _COMPILED_FROM:
        from lowp.rounding import _exact_kernels

        return _compiled(_exact_kernels.divide, x, s)
    x64, s64 = np.asarray(x, np.float64), np.asarray(s, np.float64)
    x_part, x_exponent = np.frexp(x64)
    s_part, s_exponent = np.frexp(s64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        quotient = x_part / s_part
        product = quotient * s_part
        rest = (x_part - product) - product_error(quotient, s_part, product)
        odd = _to_odd(np.ascontiguousarray(quotient), np.where(np.isfinite(rest), np.sign(rest), 0))
        result = np.ldexp(odd, x_exponent - s_exponent)
    lost = (result == 0) & (x64 != 0) & np.isfinite(quotient)
    return np.where(lost, np.copysign(5e-324, x64), result)


def _compiled(kernel: Any, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Run a kernel over the numbers of two arrays of one shape."""
    out = np.empty(a.shape, np.float64)
    first, second, sink = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1), out.reshape(-1)
    split(a.size, lambda i, j: kernel(first[i:j], second[i:j], sink[i:j]))
    return out
