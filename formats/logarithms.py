"""Values of logarithmic formats as arrays: extended precision, and exact arithmetic where that cannot decide."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.logarithmic import LNS
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import to_float
from lowp.formats.takum import Takum

#: Relative error allowed to exp and exp2 in extended precision, and to an exponent that is a rounded quotient.
_ERROR = 8 * float(np.finfo(np.longdouble).eps)


def is_logarithmic(fmt: object) -> bool:
    """Whether the values of a format are powers with fractional exponents."""
    return isinstance(fmt, LNS) or (isinstance(fmt, Takum) and fmt.logarithmic)


def nearest_floats(fmt: RankedFormat, ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the float64 nearest to the value of each rank."""
    with np.errstate(all="ignore"):  # infinity less infinity is NaN, which exact arithmetic decides
        approximate, error = approximations(fmt, ranks)
        low, high = (approximate - error).astype(np.float64), (approximate + error).astype(np.float64)
    for i in np.flatnonzero(low != high):
        low.flat[i] = to_float(fmt.rank_value(int(ranks.flat[i])))
    return np.asarray(low)


def approximations(
    fmt: RankedFormat, ranks: NDArray[np.int64], half: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the value of each rank, or the decision point above it, in extended precision, and bounds on the error."""
    if isinstance(fmt, LNS):
        k = ranks.astype(np.longdouble) + fmt.least_exponent
        if half and fmt.linear:
            first, second = _powers_of_two(k, fmt.gamma), _powers_of_two(k + 1, fmt.gamma)
            return (first[0] + second[0]) / 2, first[1] + second[1]
        return _powers_of_two(k + np.longdouble(0.5) * half, fmt.gamma)
    assert isinstance(fmt, Takum)
    log = _takum_logarithms(fmt.bits + 1, 2 * ranks + 3) if half else _takum_logarithms(fmt.bits, ranks + 1)
    values = np.exp(log / 2)
    return values, values * _ERROR


def _powers_of_two(k: NDArray[Any], gamma: int) -> tuple[NDArray[Any], NDArray[Any]]:
    exponent = k / gamma
    values = np.exp2(exponent)
    exact = gamma & (gamma - 1) == 0
    return values, values * (1 if exact else 1 + np.abs(exponent)) * _ERROR


def _takum_logarithms(bits: int, codes: NDArray[np.int64]) -> NDArray[Any]:
    """Return characteristic plus mantissa of positive takum codes; at most 60 bits, exact in extended precision."""
    width = max(bits, 12)
    code = codes.astype(np.uint64) << np.uint64(width - bits)
    regime = (code >> np.uint64(width - 5) & np.uint64(7)).astype(np.int64)
    upward = code >> np.uint64(width - 2) != 0
    r = np.where(upward, regime, 7 - regime)
    mantissa_bits = width - 5 - r
    shift = mantissa_bits.astype(np.uint64)
    c = (code >> shift).astype(np.int64) & ((1 << r) - 1)
    characteristic = np.where(upward, (1 << r) - 1 + c, 1 - (2 << r) + c)
    mantissa = code & ((np.uint64(1) << shift) - np.uint64(1))
    return np.asarray(characteristic + np.ldexp(mantissa.astype(np.longdouble), -mantissa_bits))
