"""Quotients and products rounded to odd, compiled: the operations of `_exact_steps` in one pass over the numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")
_SPLIT = float(2**27 + 1)
_LEAST = 5e-324


@_inline
def _error(a: Any, b: Any, product: Any) -> Any:
    """`a*b - product` exactly (Dekker 1971)."""
    ca, cb = _SPLIT * a, _SPLIT * b
    a_high, b_high = ca - (ca - a), cb - (cb - b)
    a_low, b_low = a - a_high, b - b_high
    return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


@_inline
def _odd(value: Any, error: Any) -> Any:
    bits = np.float64(value).view(np.int64)
    if (bits & 1 == 0) & (error != 0) & (abs(error) < np.inf):
        bits += np.int64(1) if (error > 0) == (value > 0) else np.int64(-1)
        return np.int64(bits).view(np.float64)
    return value


@_inline
def _fraction(x: Any) -> Any:
    """Return `x` with its exponent removed, in [1/2, 1) by magnitude, and the exponent; `x` is finite and not 0."""
    bits = np.float64(x).view(np.int64)
    field = (bits >> 52) & 0x7FF
    if field == 0:
        part, exponent = math.frexp(x)
        return part, np.int64(exponent)
    return np.int64((bits & ~(np.int64(0x7FF) << 52)) | (np.int64(1022) << 52)).view(np.float64), field - 1022


@_compile
def divide(x: Any, s: Any, out: Any) -> None:
    """Write `x / s` rounded to odd; where `x` or `s` is 0, infinite or NaN, the plain quotient."""
    for i in range(x.size):
        a, b = np.float64(x[i]), np.float64(s[i])
        if (a == 0) | (b == 0) | (not (abs(a) < np.inf)) | (not (abs(b) < np.inf)):
            out[i] = a / b
            continue
        a_part, a_exponent = _fraction(a)
        b_part, b_exponent = _fraction(b)
        q = a_part / b_part
        product = q * b_part
        odd = _odd(q, (a_part - product) - _error(q, b_part, product))
        e = a_exponent - b_exponent
        near = (e > -1020) & (e < 1020)  # a power of two that is a normal number, as is the result
        result = odd * np.int64((e + 1023) << 52).view(np.float64) if near else math.ldexp(odd, e)
        out[i] = math.copysign(_LEAST, a) if result == 0 else result


@_compile
def multiply(a: Any, b: Any, out: Any) -> None:
    """Write `a * b` rounded to odd; factors with exponents within +-450."""
    for i in range(a.size):
        x, y = np.float64(a[i]), np.float64(b[i])
        product = x * y
        out[i] = _odd(product, _error(x, y, product))
