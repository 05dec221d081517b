"""Addition of logarithmic numbers by table, as hardware does it: Gauss logarithms in fixed point."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, unknown_name
from lowp.emulation._log_steps import exponent_codes, exponents
from lowp.emulation._operands import Operand
from lowp.emulation._target import Target
from lowp.formats.logarithmic import LNS

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


class _Numbers(NamedTuple):
    """Exponents, signs, which are numbers other than zero, and codes."""

    k: NDArray[np.int64]
    negative: NDArray[np.bool_]
    ordinary: NDArray[np.bool_]
    codes: NDArray[Any]


def add_by_table(operands: list[Operand], table: GaussTable, subtract: bool, target: Target) -> NDArray[Any]:
    """Return the codes of sums (differences) of flat logarithmic operands in the target's format.

    Raises:
        ArgumentError: The table does not serve the format.
    """
    fmt = target.fmt
    if not isinstance(fmt, LNS) or fmt.zero_code is None or fmt.nan_code is None or fmt.gamma & (fmt.gamma - 1):
        raise ArgumentError(f"add_table needs logarithmic numbers with zero and fraction bits, not {fmt.name!r}.")
    read = [_Numbers(*exponents(x.codes, fmt), x.codes) for x in operands if x.codes is not None and x.fmt == fmt]
    if len(read) < 2:
        raise ArgumentError(f"add_table needs both operands in {fmt.name!r}.")
    extra = (fmt.gamma.bit_length() - 1) - table.fraction_bits
    if extra < 0:
        raise ArgumentError(f"add_table has {table.fraction_bits} fraction bits, more than {fmt.name!r}.")
    first, second = read[0], read[1]._replace(negative=read[1].negative ^ subtract)
    k, negative, cancelled = _looked_up(first, second, table, extra)
    codes = exponent_codes(np.clip(k, fmt.least_exponent, fmt.largest_exponent), negative, fmt)
    if target.request.overflow == "infinity_or_nan":
        codes[k > fmt.largest_exponent] = fmt.nan_code
    codes[cancelled | (k < fmt.least_exponent)] = fmt.zero_code
    signed = np.where(second.ordinary, exponent_codes(second.k, second.negative, fmt), second.codes)
    codes = np.where(~first.ordinary, signed, np.where(~second.ordinary, first.codes, codes))
    codes[(first.codes == fmt.nan_code) | (second.codes == fmt.nan_code)] = fmt.nan_code
    return codes


def _looked_up(
    first: _Numbers, second: _Numbers, table: GaussTable, extra: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return exponents and signs of sums of ordinary numbers, and which are zero."""
    swap = second.k > first.k
    large, small = np.where(swap, second.k, first.k), np.where(swap, first.k, second.k)
    index, same = (large - small) >> extra, first.negative == second.negative
    entries = np.where(same, _past(table.sums, index), _past(table.differences, index))
    return large + (entries << extra), np.where(swap, second.negative, first.negative), ~same & (index == 0)


def _past(table: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return table entries, 0 past the end."""
    return np.where(index < len(table), table[np.minimum(index, len(table) - 1)], 0)


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
