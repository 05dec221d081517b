"""What array code of structured formats shares: `lowp.rounding.schemes.structured` step by step.

Numbers are finite float64; those of blocks, rows or tensors have the axes (rows, blocks, 1), lengths of one where they
are shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding import _portable_scales as scales
from lowp.rounding._portable_scales import exponents_of, times_power
from lowp.rounding._portable_shapes import largest, numpy_sum
from lowp.rounding.request import Request
from lowp.rounding.schemes.structured import SCALE_FORMATS

_MOST = float(np.finfo(np.float64).max)


def present(xp: Any, x: Any, request: Request) -> Any:
    """Return which values of blocks belong to the array, and are not zeros that fill up a last block; None for all."""
    if not request.padding[-1]:
        return None
    shape = tuple(x.shape)
    last = xp.iota(shape, 1, "int64", x) == shape[1] - 1
    return ~(last & (xp.iota(shape, 2, "int64", x) >= shape[2] - request.padding[-1]))


def groups(x: Any, per: str) -> Any:
    """Return (rows, blocks, values) with the values of each block, row or tensor along the last axis."""
    rows, blocks, _ = x.shape
    return x.reshape({"block": (rows, blocks, -1), "row": (rows, 1, -1), "tensor": (1, 1, -1)}[per])


def any_of(xp: Any, condition: Any, per: str) -> Any:
    """Return whether a condition holds for any value of each block, row or tensor."""
    return largest(xp, groups(xp.cast(condition, "int64"), per), (2,)) == 1


def normalised(xp: Any, x: Any) -> tuple[Any, Any]:
    """Return `x` over the power of two above its largest magnitude along the last axis, and the exponent."""
    top = largest(xp, doubles.size_of(xp, x), (x.ndim - 1,))
    exponents = exponents_of(xp, doubles.from_bits(xp, top))
    return times_power(xp, x, -exponents), exponents


def restored(xp: Any, x: Any, exponents: Any) -> Any:
    """Return `x` times powers of two; what overflows is the largest finite number."""
    return xp.maximum(xp.minimum(times_power(xp, x, exponents), _MOST), -_MOST)


def summed(xp: Any, x: Any) -> Any:
    """Return the sum over the last axis, which is kept, as NumPy adds it up; a zero is +0."""
    total = numpy_sum(xp, x)[..., None]
    return xp.where(doubles.is_zero(xp, total), 0.0, total)


def shared_mean(xp: Any, x: Any, chosen: Any, per: str) -> Any:
    """Return the mean of the chosen values of each block, row or tensor, 0 where none is; None chooses all."""
    kept = groups(x if chosen is None else xp.where(chosen, x, 0.0), per)
    normal, exponents = normalised(xp, kept)
    count = xp.full_like(exponents, kept.shape[-1])
    if chosen is not None:
        count = xp.maximum(groups(xp.cast(chosen, "int64"), per).sum(-1)[..., None], 1)
    mean = doubles.quotient(xp, summed(xp, normal), xp.cast(count, "float64"))
    return times_power(xp, mean, exponents)


def scale_field(xp: Any, wanted: Any, fmt: Packed, name: str = "scale") -> tuple[Any, Any]:
    """Return the codes of scales, shaped as the field, and their values; scales have the axes (rows, blocks, count)."""
    field = next(f for f in fmt.fields if f.name == name)
    codes, values = scales.stored_scales(xp, wanted, SCALE_FORMATS[field.bits])
    shapes = {"block": tuple(codes.shape), "row": (codes.shape[0], field.count), "tensor": (field.count,)}
    return codes.reshape(shapes[field.per]), values


def scale_values(xp: Any, codes: Any, fmt: Packed, name: str = "scale") -> Any:
    """Return the values of a field of scales with the axes (rows, blocks, count)."""
    field = next(f for f in fmt.fields if f.name == name)
    values = scales.scale_values(xp, codes, SCALE_FORMATS[field.bits])
    shapes = {"block": tuple(values.shape), "row": (values.shape[0], 1, field.count), "tensor": (1, 1, field.count)}
    return values.reshape(shapes[field.per])
