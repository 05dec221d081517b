"""Addition of logarithmic numbers by table, as hardware does it: Gauss logarithms in fixed point."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.emulation._log_steps import exponent_codes, exponents
from lowp.emulation._operands import Operand
from lowp.emulation._target import Target
from lowp.emulation.gauss_table import GaussTable
from lowp.formats.logarithmic import LNS

__all__ = ["GaussTable", "add_by_table"]


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
