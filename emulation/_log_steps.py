"""Products, quotients and square roots of logarithmic numbers, as sums, differences and halves of their logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._operands import Operand
from lowp.emulation._target import Target
from lowp.formats.logarithmic import LNS
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype, decode_codes
from lowp.formats.takum import Takum
from lowp.rounding.modes import HALF

#: Logarithms of wider takums, and their sums, do not fit float64.
_WIDEST_TAKUM = 45
_OPERATIONS = ("multiply", "divide", "sqrt")
#: Codes, and which of them are decided.
Decided = tuple[NDArray[Any], NDArray[np.bool_]]


def logarithmic_step(op: str, operands: list[Operand], target: Target) -> Decided | None:
    """Return what adding logarithms decides: results within the range of the format; None where this does not apply."""
    fmt = target.fmt
    formats = [x.fmt for x in operands]
    if op not in _OPERATIONS or any(x.codes is None for x in operands):
        return None
    if isinstance(fmt, LNS) and all(isinstance(f, LNS) and f.gamma == fmt.gamma and f.bits <= 62 for f in formats):
        return _lns(op, operands, fmt, target)
    takums = [f for f in (fmt, *formats) if isinstance(f, Takum) and f.logarithmic and f.bits <= _WIDEST_TAKUM]
    if len(takums) == 1 + len(formats) and target.request.mode.variant == 0:
        return _takum(op, operands, target)
    return None


def exponents(codes: NDArray[Any], fmt: LNS) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the integer exponents of logarithmic numbers, their signs, and which are numbers other than zero."""
    k = (codes.astype(np.uint64) & np.uint64((1 << (fmt.bits - 1)) - 1)).astype(np.int64)
    if fmt.signed_exponent:
        k -= k >> (fmt.bits - 2) << (fmt.bits - 1)
    return k, codes >> codes.dtype.type(fmt.bits - 1) != 0, k >= fmt.least_exponent


def exponent_codes(k: NDArray[np.int64], negative: NDArray[np.bool_], fmt: LNS) -> NDArray[Any]:
    """Return the codes of exponents within the range of the format."""
    low = (k & ((1 << (fmt.bits - 1)) - 1)).astype(np.uint64)
    return (low | negative.astype(np.uint64) << np.uint64(fmt.bits - 1)).astype(code_dtype(fmt.bits))


def _combined(op: str, logarithms: list[Any], negative: list[Any]) -> tuple[Any, Any]:
    """Return twice the logarithm of the result, and its sign."""
    if op == "sqrt":
        return logarithms[0], negative[0]
    a, b = logarithms
    return 2 * (a + b if op == "multiply" else a - b), negative[0] ^ negative[1]


def _lns(op: str, operands: list[Operand], fmt: LNS, target: Target) -> Decided:
    read = [exponents(x.codes, x.fmt) for x in operands if x.codes is not None and isinstance(x.fmt, LNS)]
    twice, negative = _combined(op, [r[0] for r in read], [r[1] for r in read])
    mode = target.request.mode
    k = twice >> 1
    half = twice & 1 != 0
    parity = k & 1
    rounded = k + np.where(half, _outward(mode.table, negative, parity), 0)
    decided = (rounded >= fmt.least_exponent) & (rounded <= fmt.largest_exponent)
    for _, _, number in read:
        decided &= number
    if op == "sqrt":
        decided &= ~negative
    if fmt.linear or mode.variant:
        decided &= ~half
    return exponent_codes(np.where(decided, rounded, fmt.least_exponent), negative, fmt), decided


def _outward(table: int, negative: NDArray[np.bool_], parity: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whether a number halfway between two values goes to the one farther from zero."""
    return np.asarray(table >> (HALF * 4 + negative * 2 + parity) & 1, dtype=np.int64)


def _takum(op: str, operands: list[Operand], target: Target) -> Decided:
    """Round the logarithm as the linear takum of equal bits: both cut the same bit string at the same place."""
    read = [_takum_logarithm(x.codes, x.fmt) for x in operands if x.codes is not None and x.fmt is not None]
    twice, negative = _combined(op, [r[0] for r in read], [r[1] for r in read])
    decided = np.isfinite(twice)
    if op == "sqrt":
        decided &= ~negative
    logarithm = np.where(decided, twice, 0.0) / 2
    characteristic = np.floor(logarithm)
    linear = np.ldexp(1 + (logarithm - characteristic), characteristic.astype(np.int64))
    twin = target._replace(fmt=Takum(target.fmt.bits))
    return twin.encode(np.where(negative, -linear, linear)), decided


def _takum_logarithm(codes: NDArray[Any], fmt: ScalarFormat) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return characteristic plus mantissa, and the sign; NaN for zero and NaR."""
    linear = decode_codes(codes, Takum(fmt.bits))
    significand, exponent = np.frexp(np.abs(linear))
    return np.where(linear == 0, np.nan, exponent - 1 + (2 * significand - 1)), linear < 0
