"""The overflow modes that need the integer itself: wrap-around and its variants, and the symmetric clamp.

Bit rules: Vitis HLS user guide (UG1399), "Arbitrary precision fixed-point types", overflow modes AP_WRAP,
AP_WRAP_SM and AP_SAT_SYM, with N saturated bits.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.integer import Fixed, Integer
from lowp.rounding._thresholds import exact_away
from lowp.rounding.modes import ABOVE_HALF, BELOW_HALF, EXACT, HALF, Rounding

#: An exponent past every width and fraction.
_ENDLESS = 4096
WRAPPING = ("wrap", "wrap_sign_magnitude", "saturate_symmetric")


def apply(
    n: NDArray[np.int64], floor: NDArray[np.int64], fmt: Integer | Fixed, overflow: str, saturation_bits: int
) -> NDArray[np.int64]:
    """Bring unbounded integers `n` into the range of `fmt`; `floor` holds them as they were before rounding."""
    if overflow == "saturate_symmetric":
        return np.clip(n, -fmt.max_integer if fmt.signed else 0, fmt.max_integer)
    code = n & ((1 << fmt.bits) - 1)
    over = (n > fmt.max_integer) | (n < (-(1 << (fmt.bits - 1)) if fmt.signed else 0))
    if overflow == "wrap":
        wrapped = _wrap(n, code, fmt, saturation_bits)
    else:
        wrapped = _wrap_sign_magnitude(n, floor, code, fmt, saturation_bits)
    code = np.where(over, wrapped, code)
    result = code - (code >> (fmt.bits - 1) << fmt.bits) if fmt.signed else code
    return np.maximum(result, fmt.min_integer)


def _ones(count: int, above: int) -> int:
    return ((1 << max(count, 0)) - 1) << above


def _wrap(n: NDArray[np.int64], code: NDArray[np.int64], fmt: Integer | Fixed, bits: int) -> NDArray[np.int64]:
    if bits == 0:
        return code
    w = fmt.bits
    if not fmt.signed:
        return code | _ones(bits, w - bits)
    kept = code & _ones(w - bits, 0)
    return np.where(n < 0, kept | 1 << (w - 1), kept | _ones(bits - 1, w - bits))


def _wrap_sign_magnitude(
    n: NDArray[np.int64], floor: NDArray[np.int64], code: NDArray[np.int64], fmt: Integer | Fixed, bits: int
) -> NDArray[np.int64]:
    w = fmt.bits
    everything, top = _ones(w, 0), w - 1
    sign = (n < 0).astype(n.dtype)
    if bits > 1:
        inverted = code ^ np.where((code >> (w - bits)) & 1 == sign, everything, 0)
        middle = _ones(bits - 1, w - bits)
        body = np.where(sign == 1, inverted & ~middle, inverted | middle)
        return (body & ~(1 << top)) | sign << top
    wanted = sign if bits == 1 else (floor >> w) & 1  # the lowest bit that is dropped
    inverted = code ^ np.where((code >> top) != wanted, everything, 0)
    return (inverted & ~(1 << top)) | wanted << top


def unbounded(x: NDArray[Any], fmt: Integer | Fixed, mode: Rounding, words: NDArray[np.uint32]) -> NDArray[Any]:
    """Return finite or infinite `x` as Python integers, rounded multiples of the quantum: for formats of over 53 bits.

    An infinity becomes a multiple of every power of two that matters.
    """
    n = np.empty(x.shape, object)
    for i, value in enumerate(x.flat):
        number = Fraction(float(value)) if math.isfinite(value) else Fraction(math.copysign(1, value)) * (1 << _ENDLESS)
        n.flat[i] = _rounded(number * Fraction(2) ** fmt.fraction_bits, mode, int(words.flat[i]))
    return n


def _rounded(x: Fraction, mode: Rounding, word: int) -> int:
    below, negative = math.floor(abs(x)), x < 0
    rest = abs(x) - below
    if mode.variant == 0:
        position = (
            EXACT
            if rest == 0
            else HALF
            if rest == Fraction(1, 2)
            else ABOVE_HALF
            if rest > Fraction(1, 2)
            else BELOW_HALF
        )
        away = mode.away(position, negative, bool(below & 1))
    elif mode.variant == 4:
        away = rest != 0 and word >> 31 == 1
    else:
        away = exact_away(rest * (1 << mode.random_bits), word >> (32 - mode.random_bits), mode)
    return -(below + away) if negative else below + away
