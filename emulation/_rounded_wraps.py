"""Integers that wrap around: only the last bits of the exact sum count, in whatever order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._rounded_plan import FLOAT64_BITS, Extent, extent_of
from lowp.formats.integer import Fixed, Integer

if TYPE_CHECKING:
    from lowp.emulation._rounded_sums import Operands
    from lowp.emulation.accumulator import Accumulator

Array = NDArray[np.float64]
#: Bits above the unit that a sum of 128 bits has room for, with one for a carry and two in front.
_WINDOW = 124


def wraps_exactly(given: Operands, accumulator: Accumulator) -> bool:
    """Whether a sum that wraps around is that of its terms' last bits: all are multiples of its unit."""
    fmt = accumulator.format
    if not isinstance(fmt, Integer | Fixed) or accumulator.overflow != "wrap" or accumulator.compensation is not None:
        return False
    if accumulator.product != "exact" or not all(np.isfinite(x).all() for x in given[:3]):
        return False
    term = _term(given)
    least = min(term.least, extent_of(given.c, None).least)
    return least >= -fmt.fraction_bits and term.most + fmt.fraction_bits < FLOAT64_BITS - 2


def keeps_last_bits(given: Operands, accumulator: Accumulator, product: Extent | None) -> bool:
    """Whether 128 bits hold sums that wrap around down to the unit: those above it count, and none may be lost.

    `product`: the bits of the format that products are rounded to, if they are.
    """
    fmt = accumulator.format
    if not isinstance(fmt, Integer | Fixed) or accumulator.overflow != "wrap":
        return True
    term, start = _term(given), extent_of(given.c, None)
    most = term.most if product is None else min(term.most + 1, product.most)
    whole = min(term.least, start.least) >= -fmt.fraction_bits
    return whole or max(most, start.most, fmt.bits) + fmt.fraction_bits <= _WINDOW


def wrapped_sums(given: Operands, accumulator: Accumulator) -> Array | None:
    """Return such sums, from exact products of matrices in float64; None: they are not such sums."""
    if not wraps_exactly(given, accumulator):
        return None
    fmt = accumulator.format
    assert isinstance(fmt, Integer | Fixed)
    most = _term(given).most
    length = 1 << (FLOAT64_BITS - 2 - most - fmt.fraction_bits)
    mask = (1 << fmt.bits) - 1
    total = _units(given.c, fmt.fraction_bits, mask)
    for start in range(0, given.a.shape[2], length):
        part = given.a[:, :, start : start + length] @ given.b[:, start : start + length]
        total += _units(part, fmt.fraction_bits, mask)
    total &= mask
    if fmt.signed:
        total -= (total >> (fmt.bits - 1)) << fmt.bits
    return np.ldexp(total.astype(np.float64), -fmt.fraction_bits)


def _units(x: Array, fraction_bits: int, mask: int) -> NDArray[np.int64]:
    """Return the last bits of whole numbers of units."""
    units = np.ldexp(x, fraction_bits)
    low = np.fmod(units, float(mask + 1))  # exact
    return low.astype(np.int64)


def _term(given: Operands) -> Extent:
    return extent_of(given.a, given.a_format).times(extent_of(given.b, given.b_format))
