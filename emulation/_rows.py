"""Arrays as rows that are reduced along the first axis, and sums along it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowp._errors import ArgumentError
from lowp.emulation._counted import Steps
from lowp.emulation._operands import Coded, array_format, decoded
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.array import array
from lowp.formats.spec import ScalarFormat
from lowp.rounding import verbs
from lowp.rounding._dispatch import is_torch
from lowp.rounding.encoded import Encoded


def given_numbers(x: Any) -> Any:
    """Return numbers as steps take them: in a format as they are, tensors and encoded blocks as NumPy arrays."""
    if isinstance(x, Coded):
        return x
    if isinstance(x, Encoded):
        if isinstance(x.format, ScalarFormat) and isinstance(x.codes, np.ndarray):
            return array.from_codes(x.codes, x.format)
        x = verbs.decode(x)
    if is_torch(x):
        from lowp.rounding._torch_plain import numbers

        return numbers(x)
    return np.asarray(x)


def rows_first(x: array, axis: Any) -> array:
    """Return an array of (length of the axis, everything else)."""
    if not hasattr(axis, "__index__") or not -x.ndim <= axis < x.ndim:
        raise ArgumentError(f"axis={axis!r} does not exist in an array of {x.ndim} dimensions.")
    moved = np.moveaxis(x.codes, axis, 0)
    if not moved.shape[0]:
        raise ArgumentError(f"axis={axis!r} has no elements: x has shape {x.shape}.")
    codes = np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
    return array.from_codes(codes, x.format).with_settings(x.settings)


def back(x: array, shape: tuple[int, ...], axis: int) -> array:
    """Return what `rows_first` made, in its former shape."""
    moved = np.moveaxis(np.empty(shape, bool), axis, 0).shape
    codes = np.ascontiguousarray(np.moveaxis(x.codes.reshape(moved), 0, axis))
    return array.from_codes(codes, x.format).with_settings(x.settings)


def running_sum(steps: Steps, step: str, rows: array, fmt: ScalarFormat) -> array:
    """Return the sum of rows from the first to the last, each rounded into a format."""
    total = rows[0] if rows.format == fmt else steps.do(step, "convert", rows[0], fmt=fmt)
    for k in range(1, len(rows)):
        total = steps.do(step, "add", total, rows[k], fmt=fmt)
    return total


def sum_of_rows(steps: Steps, rows: array, by: Accumulator | str, step: str = "sum") -> array:
    """Return the sum of rows by an accumulator, or exactly and rounded once; its own steps are not counted apart."""
    if isinstance(by, str):
        total = rows.sum(axis=0, accumulator="exact", **_how(steps))
    else:
        from lowp.emulation.matmul import matmul

        fmt = array_format((by.outer or by).format, "accumulator")
        ones = np.ones((1, len(rows)))
        total = array(np.asarray(matmul(ones, rows, accumulator=by), np.float64)[0], fmt)
    with np.errstate(all="ignore"):
        exact = decoded(rows.codes, rows.format).sum(axis=0)
    steps.count(step, "convert", [exact], total)
    return total


def _how(steps: Steps) -> Any:
    return steps.settings._asdict()
