"""Tables of Gauss logarithms, by which hardware adds logarithmic numbers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, unknown_name

_ROUNDINGS = ("nearest", "floor")


@dataclass(frozen=True)
class GaussTable:
    """Two tables that add and subtract logarithmic numbers: `sb(z) = log2(1 + 2^z)` and `db(z) = log2(1 - 2^z)`.

    The sum of numbers with logarithms i >= j is `i + sb(j - i)` where their signs agree, else `i + db(j - i)`; numbers
    of opposite signs that are equal as far as the table sees give zero. z and the entries are multiples of
    `2^-fraction_bits`. In a format with more fraction bits, z is cut to the table's (rounded toward zero), and the
    entries count for its upper ones.

    Args:
        fraction_bits: Fraction bits of the index and of the entries, 0 to 20.
        entries: How many values of z from 0 on each table holds; past them the larger number is the result. Default:
            until the entries are 0 (rounded down, differences never are: until 2^-30 units).
        rounding: How entries are rounded: "nearest" or "floor".

    Raises:
        ArgumentError: An argument out of range.

    Source:
        Swartzlander and Alexopoulos, The Sign/Logarithm Number System, IEEE TC 1975.

    Example:
        >>> table = GaussTable(3)
        >>> table.sums[:4].tolist(), table.differences[1:4].tolist(), len(table.sums), len(table.differences)
        ([8, 8, 7, 7], [-29, -21, -17], 36, 37)
    """

    fraction_bits: int
    entries: int | None = None
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        if not _is_integer(self.fraction_bits, 0, 20):
            raise ArgumentError(f"fraction_bits={self.fraction_bits!r} must be an integer from 0 to 20.")
        if self.entries is not None and not _is_integer(self.entries, 1, 1 << 32):
            raise ArgumentError(f"entries={self.entries!r} must be a positive integer, or None.")
        if self.rounding not in _ROUNDINGS:
            raise ArgumentError(unknown_name("rounding", self.rounding, _ROUNDINGS))

    @property
    def sums(self) -> NDArray[np.int64]:
        """`sb` at z = 0, -1, -2, ... units."""
        return _tables(self)[0]

    @property
    def differences(self) -> NDArray[np.int64]:
        """`db` at z = 0, -1, -2, ... units; entry 0 is not used, the result is zero there."""
        return _tables(self)[1]


@lru_cache(maxsize=32)
def _tables(table: GaussTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    found = []
    for sign in (1, -1):
        numbers = _entries(table, sign)
        array = np.array(numbers, np.int64)
        array.flags.writeable = False
        found.append(array)
    return found[0], found[1]


def _entries(table: GaussTable, sign: int) -> list[int]:
    """Return entries up to the last that is not 0, or as many as asked for."""
    from mpmath import mp, workprec

    numbers = [] if sign > 0 else [0]
    unit = 1 << table.fraction_bits
    half = 0 if table.rounding == "floor" else Fraction(1, 2)
    with workprec(160):  # no entry comes near a tie or an integer: logarithms of algebraic numbers
        step = mp.power(2, mp.mpf(-1) / unit)
        power = mp.mpf(1) if sign > 0 else step
        while table.entries is None or len(numbers) < table.entries:
            exact = unit * mp.log(1 + sign * power, 2)
            entry = int(mp.floor(exact + mp.mpf(half.numerator) / half.denominator if half else exact))
            if table.entries is None and (entry == 0 or (sign < 0 and half == 0 and power * unit < 2.0**-30)):
                break
            numbers.append(entry)
            power *= step
    return numbers


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
