"""Tapered formats (posits, linear takums) on arrays: one row of a small table per exponent of the input."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.codebook import Codebook
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.ranked import TaperedFormat
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import binade_table, code_dtype, value_table
from lowp.rounding._arrays import widen
from lowp.rounding._threads import split
from lowp.rounding.lowering import INPUTS
from lowp.rounding.modes import Rounding

_VIEW: dict[int, Any] = {4: np.int32, 8: np.int64}
_INFINITE = {4: 0x7F800000, 8: 0x7FF0000000000000}
_MASK = {4: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF}
#: Exponent bits that are cut off are joined into this many; below the first the last only says whether any is set.
_CUT_BITS = 8


@lru_cache(maxsize=64)
def rows(fmt: TaperedFormat, width: int) -> NDArray[np.int64]:
    """Return (start, cut, drop) for every exponent of an input of 32 or 64 bits, subnormal ones in front.

    Exponents that the format cannot say get rows that the kernels clamp to the smallest and the largest code.
    """
    source = INPUTS[width]
    low, high = 1 - source.bias - source.mantissa, source.bias
    table = np.zeros((high - low + 2, 3), np.int64)
    table[:, 2] = source.mantissa + 1
    table[:, 0] = [0 if low - 1 + i < 0 else fmt.ranks for i in range(len(table))]
    for binade in fmt.binades(low, high):
        joined, cut = min(binade.cut_bits, _CUT_BITS), binade.cut
        if binade.cut_bits > joined:
            extra = binade.cut_bits - joined
            cut = cut >> extra | int(cut & ((1 << extra) - 1) != 0)
        drop = source.mantissa + joined - binade.fraction_bits
        table[binade.exponent - low + 1] = binade.start, cut, drop
    table.flags.writeable = False
    return table


class Usual(NamedTuple):
    """Exponents of float32 whose numbers are rounded by one addition: they keep 1 to 22 fraction bits.

    `powers` are what to add, by exponent field; `low` and `high` the first and the last such field. `starts` are the
    codes of powers of two, `shifts` how many mantissa bits are not in the code; also of the field after the last.
    """

    powers: NDArray[np.float32]
    low: int
    high: int
    starts: NDArray[np.int32]
    shifts: NDArray[np.int32]


@lru_cache(maxsize=64)
def usual_exponents(fmt: TaperedFormat) -> Usual | None:
    """Return the usual exponents of a format; None if there are none."""
    whole = [b for b in fmt.binades(-126, 127) if not b.cut_bits]
    kept = {b.exponent: b.fraction_bits for b in whole if 1 <= b.fraction_bits <= 22}
    fitting = [e for e, bits in kept.items() if e + 23 - bits <= 127]
    if 0 not in fitting:
        return None
    low = high = 0
    while low - 1 in fitting:
        low -= 1
    while high + 1 in fitting:
        high += 1
    powers, starts, shifts = np.zeros(256, np.float32), np.zeros(256, np.int32), np.full(256, 23, np.int32)
    for binade in fmt.binades(low, min(high + 1, 127)):  # the power of two after the last is one that numbers round to
        starts[binade.exponent + 127] = binade.start
        if binade.exponent <= high:
            powers[binade.exponent + 127] = 2.0 ** (binade.exponent + 23 - binade.fraction_bits)
            shifts[binade.exponent + 127] = 23 - binade.fraction_bits
    return Usual(powers, low + 127, high + 127, starts, shifts)


def encode(x: NDArray[Any], fmt: TaperedFormat, mode: Rounding) -> NDArray[Any]:
    """Return the codes of contiguous float32 or float64 numbers under a deterministic mode."""
    from lowp.rounding._tapered_kernels import encode_tapered, encode_tapered_float32

    codes = np.empty(x.shape, code_dtype(fmt.bits))
    sink, size = codes.reshape(-1), x.dtype.itemsize
    source, table = x.reshape(-1).view(_VIEW[size]), rows(fmt, 8 * size)
    mask = -1 if fmt.bits == 64 else (1 << fmt.bits) - 1
    shared = (table, INPUTS[8 * size].mantissa, _INFINITE[size], _MASK[size], fmt.ranks, mask, mode.table)
    usual = usual_exponents(fmt) if size == 4 and fmt.bits <= 16 and mode.name == "ties_to_even" else None
    if usual is not None:
        flat, fixed = x.reshape(-1), (*usual, table, fmt.ranks, mask, mode.table)
        split(x.size, lambda a, b: encode_tapered_float32(flat[a:b], sink[a:b], *fixed), pieces=4)
        return codes
    split(x.size, lambda a, b: encode_tapered(source[a:b], sink[a:b], *shared), pieces=4)
    return codes


def quantize(x: NDArray[Any], fmt: TaperedFormat, mode: Rounding, out: NDArray[Any] | None) -> NDArray[Any]:
    """Return the values that numbers round to, for a format of at most 16 bits.

    float32 numbers give float64 where a value is none that float32 holds.
    """
    from lowp.rounding._tapered_kernels import quantize_tapered, quantize_tapered_float32

    size = x.dtype.itemsize
    values = held_values(fmt, size)[: fmt.ranks + 1]
    missing = _has_missing(fmt, size)
    if out is None or (missing and np.may_share_memory(out, x)):  # `x` may be needed once more
        out = np.empty(x.shape, values.dtype)
    source, sink, table = x.reshape(-1).view(_VIEW[size]), out.reshape(-1), rows(fmt, 8 * size)
    usual = usual_exponents(fmt) if size == 4 and mode.name == "ties_to_even" and values.dtype == np.float32 else None
    looked_up = []
    if usual is not None:
        flat, fixed = x.reshape(-1), (*usual[:3], values, table, fmt.ranks, mode.table)
        split(x.size, lambda a, b: looked_up.append(quantize_tapered_float32(flat[a:b], sink[a:b], *fixed)), pieces=4)
    else:
        shared = (values, table, INPUTS[8 * size].mantissa, _INFINITE[size], _MASK[size], fmt.ranks, mode.table)
        split(x.size, lambda a, b: quantize_tapered(source[a:b], sink[a:b], *shared), pieces=4)
        looked_up.append(True)
    if size == 4 and any(looked_up) and missing and (np.isnan(out) & np.isfinite(x)).any():
        return quantize(widen(x), fmt, mode, None)
    return out


def decode(codes: NDArray[Any], fmt: TaperedFormat) -> NDArray[np.float64]:
    """Return the values of codes of any width as float64, ties to even where that does not hold them."""
    from lowp.rounding._tapered_kernels import decode_tapered

    out, flat = np.empty(codes.shape, np.float64), np.ascontiguousarray(codes).reshape(-1)
    sink, (starts, units, powers) = out.reshape(-1), binade_table(fmt)
    largest = np.uint64(fmt.ranks)
    split(
        flat.size, lambda a, b: decode_tapered(flat[a:b], sink[a:b], starts, units, powers, fmt.bits, largest), pieces=4
    )
    return out


def held_values(fmt: ScalarFormat, size: int) -> NDArray[Any]:
    """Return the values by code as float64, or as float32 with NaN for those that it may not hold."""
    return value_table(fmt) if size == 8 else _float32_values(fmt)


@lru_cache(maxsize=128)
def _has_missing(fmt: TaperedFormat, size: int) -> bool:
    return bool(np.isnan(held_values(fmt, size)[: fmt.ranks + 1]).any())


@lru_cache(maxsize=64)
def _float32_values(fmt: ScalarFormat) -> NDArray[np.float32]:
    values = value_table(fmt)
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
    held = (narrow == values) | np.isnan(values)
    if isinstance(fmt, Codebook) or is_logarithmic(fmt):  # their values may be rounded to the dtype
        held |= np.isfinite(narrow)
    return np.where(held, narrow, np.float32(np.nan))
