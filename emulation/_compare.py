"""Comparisons at exact values: IEEE 754's, except that posits and takums of one format compare as integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.emulation._exact_results import is_zero, less
from lowp.emulation._operands import Operand, operand
from lowp.formats.ranked import TaperedFormat

Flags = NDArray[np.bool_]
_RELATIONS = {
    "less": lambda below, same: below,
    "less_equal": lambda below, same: below | same,
    "equal": lambda below, same: same,
}


def compare(relation: str, a: Any, b: Any) -> Flags:
    """Return whether `a` is in a relation to `b`: "less", "less_equal", "equal", or "not_equal", "greater", ...

    NaN is unordered and -0 equals +0. For two arrays in one posit or takum format, NaR equals NaR and is less than
    every number.
    """
    if relation == "not_equal":
        return ~compare("equal", a, b)
    if relation.startswith("greater"):
        return compare(relation.replace("greater", "less"), b, a)
    first, second = operand(a), operand(b)
    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError as error:
        raise ArgumentError(f"shapes {first.shape} and {second.shape} do not broadcast: {error}.") from None
    first, second = first.flat(shape), second.flat(shape)
    if first.fmt == second.fmt and isinstance(first.fmt, TaperedFormat):
        below, same = _as_integers(first, second, first.fmt.bits)
    else:
        below, same = _as_numbers(first, second)
    return np.asarray(_RELATIONS[relation](below, same).reshape(shape))


def _as_integers(a: Operand, b: Operand, bits: int) -> tuple[Flags, Flags]:
    assert a.codes is not None
    assert b.codes is not None
    top = a.codes.dtype.type(1 << (bits - 1))
    return (a.codes ^ top) < (b.codes ^ top), a.codes == b.codes


def _as_numbers(a: Operand, b: Operand) -> tuple[Flags, Flags]:
    """Compare nearest float64 numbers, and exact ones where those are equal: rounding to nearest keeps the order."""
    below, same = a.values < b.values, a.values == b.values
    if a.exact and b.exact:
        return below, same
    for i in np.flatnonzero(same):
        x, y = a.meaning(int(i)), b.meaning(int(i))
        below[i] = less(x, y)
        same[i] = not below[i] and not less(y, x) and (x == y or (is_zero(x) and is_zero(y)))
    return below, same
