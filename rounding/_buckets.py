"""Formats of few numbers as tables over the leading bits of a float32: whatever its rule, rounding is a lookup.

Rounding by a deterministic mode is monotone, so in a bucket of inputs with the same leading bits the result changes
once, or not at all, if buckets are small enough. Where it changes is found by bisection with the kernels that the table
stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.codebook import Codebook
from lowp.formats.spec import ScalarFormat
from lowp.rounding._threads import split

#: Leading bits that are tried: sign, exponent and 7 to 9 bits of the mantissa.
_LEADING = (16, 17, 18)
#: Values of a format up to which a table is tried.
_MOST_VALUES = 512
#: Numbers that are worth the milliseconds in which a table is made.
ENOUGH = 1 << 14
#: Rounds float32 numbers to values (float32) or codes.
Evaluate = Callable[[NDArray[np.float32]], NDArray[Any]]


class Buckets(NamedTuple):
    """By bucket: the first key of the second result, and the two results; `shift` makes a key a bucket."""

    cuts: NDArray[np.int32]
    below: NDArray[Any]
    above: NDArray[Any]
    shift: int


def is_worth_it(x: NDArray[Any], fmt: ScalarFormat) -> bool:
    """Whether these are many float32 numbers, and the format has few values."""
    if x.dtype != np.float32 or x.size < ENOUGH:
        return False
    return len(fmt.values) <= _MOST_VALUES if isinstance(fmt, Codebook) else fmt.bits <= 8


def looked_up(x: NDArray[np.float32], table: Buckets, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return what contiguous numbers become, written to `out` if that is given and of the table's dtype."""
    from lowp.rounding._bucket_kernels import look_up_buckets

    if out is None or out.dtype != table.below.dtype:
        out = np.empty(x.shape, table.below.dtype)
    source, sink = x.reshape(-1).view(np.int32), out.reshape(-1)
    split(x.size, lambda a, b: look_up_buckets(source[a:b], sink[a:b], *table), pieces=4)
    return out


def make_buckets(evaluate: Evaluate) -> Buckets | None:
    """Return the table of a monotone function; None where its steps are too close for the leading bits tried."""
    for leading in _LEADING:
        table = _with_leading(evaluate, leading)
        if table is not None:
            return table
    return None


def _with_leading(evaluate: Evaluate, leading: int) -> Buckets | None:
    shift = 32 - leading
    low = (np.arange(1 << leading, dtype=np.int64) - (1 << (leading - 1))) << shift
    high = low + (1 << shift) - 1
    below, above = _at(evaluate, low), _at(evaluate, high)
    changes = ~_same(below, above)
    first, last = low.copy(), high.copy()  # the result at `first` is still the first, at `last` it is not
    while (last - first)[changes].max(initial=0) > 1:
        middle = (first + last) >> 1
        still = _same(_at(evaluate, middle), below)
        first, last = np.where(still, middle, first), np.where(still, last, middle)
    if not _same(_at(evaluate, last), above)[changes].all():
        return None
    return Buckets(np.where(changes, last, np.iinfo(np.int32).max).astype(np.int32), below, above, shift)


def _at(evaluate: Evaluate, keys: NDArray[np.int64]) -> NDArray[Any]:
    """Return the function's values at keys."""
    ordered = keys.astype(np.int32)
    return evaluate((ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))).view(np.float32))


def _same(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where results are the same; NaN is NaN, and -0 is not 0."""
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    return np.asarray((a.view(np.int32) == b.view(np.int32)) | (np.isnan(a) & np.isnan(b)))
