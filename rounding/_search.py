"""Table formats on arrays: find each number among sorted decision points, starting from its leading bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.codebook import Codebook
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding._ranked_table import ranked_table
from lowp.rounding._threads import split
from lowp.rounding._thresholds import Table, codebook_table
from lowp.rounding.modes import Rounding

_VIEW: dict[int, Any] = {4: np.int32, 8: np.int64}
_FLOAT: dict[int, Any] = {4: np.float32, 8: np.float64}
_INFINITE = {4: 0x7F800000, 8: 0x7FF0000000000000}
_MASK = {4: 0x7FFFFFFF, 8: 0x7FFFFFFFFFFFFFFF}
#: Writes what flat floats become.
Run = Callable[[Any, Any], None]
#: Up to here every decision point is compared; the comparisons are vectorized.
_FEW = 32


class Search(NamedTuple):
    """Decision points as integers in the order of the floats, and where those with the same leading bits begin."""

    cuts: NDArray[Any]
    starts: NDArray[np.int32]
    shift: int


def lower_table(fmt: ScalarFormat, mode: Rounding, overflow: str) -> Table:
    """Return the sorted entries of a table format and where each begins."""
    if isinstance(fmt, Codebook):
        return codebook_table(fmt, mode)
    assert isinstance(fmt, RankedFormat)
    return ranked_table(fmt, mode, overflow)


@lru_cache(maxsize=256)
def _plan(fmt: ScalarFormat, mode: Rounding, overflow: str, size: int) -> Search:
    keys = _keys(_ceiling(lower_table(fmt, mode, overflow).cuts, size))
    leading = 20 if len(keys) > 4096 else 16  # sign, exponent and some mantissa bits: few cuts share them
    shift = 8 * size - leading
    bounds = np.arange(-(1 << (leading - 1)), (1 << (leading - 1)) + 1, dtype=np.int64) << shift
    starts = np.searchsorted(keys.astype(np.int64), bounds[:-1], side="left")
    return Search(keys, np.append(starts, len(keys)).astype(np.int32), shift)


def _ceiling(cuts: NDArray[np.float64], size: int) -> NDArray[Any]:
    """Return the least float of `size` bytes that is not below each cut."""
    if size == 8:
        return cuts
    with np.errstate(over="ignore", under="ignore"):
        narrow = cuts.astype(np.float32)
    return np.where(narrow.astype(np.float64) < cuts, np.nextafter(narrow, np.float32(np.inf)), narrow)


def _keys(x: NDArray[Any]) -> NDArray[Any]:
    """Return floats as integers of the same order; -0 as 0."""
    bits = (x + x.dtype.type(0)).view(_VIEW[x.dtype.itemsize])
    return np.asarray(np.where(bits < 0, bits ^ _MASK[x.dtype.itemsize], bits), dtype=bits.dtype)


def encode(x: NDArray[Any], fmt: ScalarFormat, mode: Rounding, overflow: str) -> NDArray[Any]:
    """Return the codes of contiguous floats; NaN gets the table's code for it."""
    return _found(x, *_looking(fmt, mode, overflow, x.dtype.itemsize, True))


def quantize(x: NDArray[Any], fmt: ScalarFormat, mode: Rounding, overflow: str) -> NDArray[Any]:
    """Return the values that contiguous floats round to; NaN stays NaN. float32 where it holds all values."""
    return _found(x, *_looking(fmt, mode, overflow, x.dtype.itemsize, False))


def small_run(fmt: ScalarFormat, mode: Rounding, overflow: str, dtype: str) -> Run | None:
    """Return what rounds flat arrays of a dtype if that holds all values, and there are few."""
    if fmt.bits > 8 or mode.variant:
        return None
    results, run = _looking(fmt, mode, overflow, np.dtype(dtype).itemsize, False)
    return run if results.dtype == dtype else None


def _found(x: NDArray[Any], results: NDArray[Any], run: Run) -> NDArray[Any]:
    out = np.empty(x.shape, results.dtype)
    numbers, sink = x.reshape(-1), out.reshape(-1)
    split(x.size, lambda a, b: run(numbers[a:b], sink[a:b]), pieces=4)
    return out


@lru_cache(maxsize=256)
def _looking(fmt: ScalarFormat, mode: Rounding, overflow: str, size: int, codes: bool) -> tuple[NDArray[Any], Run]:
    """Return what each index stands for, what NaN does at the end, and what writes that for flat floats."""
    from lowp.rounding._table_kernels import count, find

    table = lower_table(fmt, mode, overflow)
    results = _codes(table, fmt) if codes else _values(table, size)
    if len(table.cuts) <= _FEW:
        ceiling = _ceiling(table.cuts, size)
        return results, lambda x, sink: count(x, sink, results, ceiling)
    plan, view = _plan(fmt, mode, overflow, size), _VIEW[size]
    shared = (results, plan.starts, plan.cuts, plan.shift, _INFINITE[size], _MASK[size])
    return results, lambda x, sink: find(x.view(view), sink, *shared)


def _codes(table: Table, fmt: ScalarFormat) -> NDArray[Any]:
    return np.append(table.codes, table.nan_code).astype(code_dtype(fmt.bits))


def _values(table: Table, size: int) -> NDArray[Any]:
    results = np.append(table.values, np.nan)
    if size == 8:
        return results
    with np.errstate(over="ignore", under="ignore"):
        narrow = results.astype(np.float32)
    return narrow if np.array_equal(narrow, results, equal_nan=True) else results
