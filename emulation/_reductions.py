"""Sums, products and dot products: in a stated order, each step rounded, or exactly and rounded once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError
from lowp.emulation import _exact_sums
from lowp.emulation._evaluate import after, compute, joint_settings, result_format
from lowp.emulation._operands import Coded, Operand, Options, array_format, check_options, coded, operand
from lowp.emulation._target import Target
from lowp.formats.spec import Format, ScalarFormat

EXACT_NAMES = ("exact", "quire")


def fold(op: str, x: Coded, axis: int | None, options: Options, into: ScalarFormat | None = None) -> Coded:
    """Combine the elements along an axis from first to last; step `k` draws random bits at positions from `k * size`.

    Raises:
        RangeError: There are no elements.
    """
    check_options(options)
    settings = joint_settings((x,), options)
    fmt = into or result_format(op, [operand(x)], options.get("fmt"))
    request = settings.request(fmt)
    rows = _rows(x.codes, axis)
    if not len(rows):
        raise RangeError(f"{op} of no elements is not defined; the array has shape {x.codes.shape}.")
    shape, size = rows.shape[1:], rows[0].size
    state = compute("convert", [_operand(rows[0], x.format)], Target(fmt, request))
    for k in range(1, len(rows)):
        state = compute(op, [_operand(state, fmt), _operand(rows[k], x.format)], Target(fmt, request, k * size))
    return Coded(state.reshape(shape), fmt, after(settings))


def total(x: Coded, axis: int | None, accumulator: str | Format | None, options: Options) -> Coded:
    """Return the sum along an axis."""
    if isinstance(accumulator, str) and accumulator in EXACT_NAMES:
        return _exact_total(x, axis, options, 1)
    inner = None if accumulator is None else array_format(accumulator, "accumulator")
    return _delivered(fold("add", x, axis, options, inner), x.format, options)


def mean(x: Coded, axis: int | None, accumulator: str | Format | None, options: Options) -> Coded:
    """Return the sum divided by the number of elements."""
    count = len(_rows(x.codes, axis))
    if isinstance(accumulator, str) and accumulator in EXACT_NAMES:
        return _exact_total(x, axis, options, count)
    inner = None if accumulator is None else array_format(accumulator, "accumulator")
    summed = fold("add", x, axis, options, inner)
    fmt = _final_format(x.format, options)
    request = summed.settings.request(fmt)
    divisor = Operand(True, plain=np.array(float(count)))
    parts = [_operand(summed.codes, summed.format), divisor.flat((summed.codes.size,))]
    return Coded(
        compute("divide", parts, Target(fmt, request)).reshape(summed.codes.shape), fmt, after(summed.settings)
    )


def dot(a: Coded, b: Coded, accumulator: str | Format | None, options: Options) -> Coded:
    """Return the dot product of rows of `a` and columns of `b`."""
    check_options(options)
    settings = joint_settings((a, b), options)
    fmt = result_format("dot", [operand(a), operand(b)], options.get("fmt"))
    left, right = _matrices(a.codes, b.codes)
    shape = a.codes.shape[:-1] + (b.codes.shape[1:] if b.codes.ndim > 1 else ())
    request = settings.request(fmt)
    if isinstance(accumulator, str) and accumulator in EXACT_NAMES:
        codes = _exact_sums.dot(left, a.format, right, b.format, Target(fmt, request))
        return Coded(codes.reshape(shape), fmt, after(settings))
    inner = fmt if accumulator is None else array_format(accumulator, "accumulator")
    chain = _chained(left, a.format, right, b.format, Target(inner, settings.request(inner)))
    return _delivered(Coded(chain.reshape(shape), inner, after(settings)), fmt, {})


def _chained(
    a: NDArray[Any], a_format: ScalarFormat, b: NDArray[Any], b_format: ScalarFormat, target: Target
) -> NDArray[Any]:
    """Return the chain of fused multiply-adds from +0: each product exact, each sum rounded, in order."""
    rows, columns = len(a), b.shape[1]
    state = Operand(True, plain=np.zeros(rows * columns))
    codes = compute("convert", [state], target)
    for k in range(a.shape[1]):
        left, right = np.repeat(a[:, k], columns), np.tile(b[k], rows)
        step = target._replace(start=target.start + k * rows * columns)
        codes = compute("fma", [_operand(left, a_format), _operand(right, b_format), state], step)
        state = _operand(codes, target.fmt)
    return codes


def _exact_total(x: Coded, axis: int | None, options: Options, divisor: int) -> Coded:
    check_options(options)
    settings = joint_settings((x,), options)
    fmt = _final_format(x.format, options)
    rows = _rows(x.codes, axis)
    flat = rows.reshape(len(rows), -1)
    codes = _exact_sums.total(flat, x.format, Target(fmt, settings.request(fmt)), divisor)
    return Coded(codes.reshape(rows.shape[1:]), fmt, after(settings))


def _delivered(x: Coded, default: ScalarFormat, options: Options) -> Coded:
    """Round an accumulator into the result's format."""
    fmt = _final_format(default, options)
    if fmt == x.format:
        return x
    codes = compute("convert", [_operand(x.codes, x.format)], Target(fmt, x.settings.request(fmt)))
    return Coded(codes.reshape(x.codes.shape), fmt, after(x.settings))


def _final_format(default: ScalarFormat, options: Options) -> ScalarFormat:
    asked = options.get("fmt")
    return default if asked is None else array_format(asked, "fmt")


def _operand(codes: NDArray[Any], fmt: ScalarFormat) -> Operand:
    return coded(np.ascontiguousarray(codes).reshape(-1), fmt)


def _rows(codes: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Return the codes with the axis to reduce in front."""
    if axis is None:
        return codes.reshape(-1)
    if not hasattr(axis, "__index__") or not -codes.ndim <= axis < codes.ndim:
        raise ArgumentError(f"axis={axis!r} does not exist in an array of {codes.ndim} dimensions.")
    return np.moveaxis(codes, axis, 0)


def _matrices(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if not 1 <= a.ndim <= 2 or not 1 <= b.ndim <= 2 or a.shape[-1] != b.shape[0]:
        raise ArgumentError(
            f"dot needs vectors or matrices whose inner lengths agree, not shapes {a.shape} and {b.shape}."
        )
    return np.atleast_2d(a), b.reshape(len(b), math.prod(b.shape[1:]))
