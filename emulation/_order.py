"""The values of a format in ascending order, as integers: the ranks behind neighbours and total order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._log_steps import exponent_codes, exponents
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithmic import LNS
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype

Ranks = NDArray[np.int64]


def ranks(codes: NDArray[Any], fmt: ScalarFormat) -> Ranks:
    """Return a rank per code, ascending with the values; -0 is just below +0.

    NaN of a float with several NaNs is ordered by sign and code beyond the infinities; a single NaN, and a code that
    a codebook does not use, is the highest rank of all; NaR, as every posit and takum, is its code as an integer.
    """
    if isinstance(fmt, Float):
        return _float_ranks(codes, fmt)
    if isinstance(fmt, LNS):
        return _lns_ranks(codes, fmt)
    if isinstance(fmt, Codebook):
        return np.asarray(_codebook_ranks(fmt)[codes.astype(np.intp)])
    n = codes.astype(np.uint64).view(np.int64)
    return _signed(n, fmt.bits) if fmt.signed else n


def from_ranks(rank: Ranks, fmt: ScalarFormat) -> NDArray[Any]:
    """Return the codes of ranks of numbers."""
    if isinstance(fmt, Float):
        code = _float_codes(rank, fmt)
    elif isinstance(fmt, LNS):
        negative = rank < 0
        magnitude = np.where(negative, -rank - 1, rank) if not fmt.zero else np.abs(rank) - 1
        code = exponent_codes(magnitude + fmt.least_exponent, negative, fmt)
    elif isinstance(fmt, Codebook):
        code = np.array(fmt.codes)[rank]
    else:
        code = rank.view(np.uint64) & np.uint64((1 << fmt.bits) - 1)
    return np.asarray(code).astype(code_dtype(fmt.bits))


def ends(fmt: ScalarFormat) -> tuple[int, int]:
    """Return the ranks of the least and the largest number, infinities included."""
    if isinstance(fmt, Float):
        top = (fmt.max_code if fmt.infinity_code is None else fmt.infinity_code) - _skipped(fmt)
        return (-top - fmt.has_negative_zero if fmt.signed else 0), top
    if isinstance(fmt, Integer | Fixed):
        return fmt.min_integer, fmt.max_integer
    if isinstance(fmt, LNS):
        return (-fmt.ranks, fmt.ranks) if fmt.zero else (-fmt.ranks, fmt.ranks - 1)
    if isinstance(fmt, Codebook):
        return 0, len(fmt.values) - 1
    return -(1 << (fmt.bits - 1)), (1 << (fmt.bits - 1)) - 1


def _signed(n: Ranks, bits: int) -> Ranks:
    return n - (n >> (bits - 1) << bits) if bits < 64 else n


def _skipped(fmt: Float) -> int:
    """How many codes above 0 stand for zero again."""
    return (1 << fmt.mantissa_bits) - 1 if fmt.normal_field and not fmt.subnormals else 0


def _float_ranks(codes: NDArray[Any], fmt: Float) -> Ranks:
    plain = codes.astype(np.uint64)
    magnitude = (plain & np.uint64((1 << (fmt.bits - fmt.signed)) - 1)).astype(np.int64)
    rank = np.maximum(magnitude - _skipped(fmt), 0)
    if not fmt.signed:
        return rank
    negative = plain >> np.uint64(fmt.bits - 1) != 0
    rank = np.where(negative, -rank - fmt.has_negative_zero, rank)
    if not fmt.has_negative_zero:
        rank[negative & (magnitude == 0)] = 1 << fmt.bits
    return rank


def _float_codes(rank: Ranks, fmt: Float) -> NDArray[Any]:
    negative = rank < 0
    magnitude = np.where(negative, -rank - fmt.has_negative_zero, rank)
    magnitude = np.where(magnitude > 0, magnitude + _skipped(fmt), 0).astype(np.uint64)
    sign = np.uint64(1 << (fmt.bits - 1)) if fmt.signed else np.uint64(0)
    return np.where(negative, magnitude | sign, magnitude)


def _lns_ranks(codes: NDArray[Any], fmt: LNS) -> Ranks:
    k, negative, number = exponents(codes, fmt)
    magnitude = k - fmt.least_exponent
    if not fmt.zero:
        return np.where(negative, -magnitude - 1, magnitude)
    rank = np.where(number, np.where(negative, -magnitude - 1, magnitude + 1), 0)
    rank[~number & negative] = fmt.ranks + 1
    return rank


@lru_cache(maxsize=64)
def _codebook_ranks(fmt: Codebook) -> Ranks:
    table = np.full(1 << fmt.bits, len(fmt.values), np.int64)
    table[np.array(fmt.codes)] = np.arange(len(fmt.values))
    return table
