"""Packed formats as array code for NumPy, torch and JAX: arrays to blocks and back around the code of their schemes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lowp._errors import ArgumentError
from lowp.formats.packed import Packed
from lowp.formats.tables import code_dtype
from lowp.rounding import _packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._layout import checked_axes
from lowp.rounding._packed import _flat_count, _padding, _sizes
from lowp.rounding._portable_blocks import as_elements
from lowp.rounding._portable_schemes import SCHEMES
from lowp.rounding._portable_shapes import padded, transposed
from lowp.rounding.request import Request

#: Between (lead, counts, rows of a tile, counts, columns of a tile) and (lead, counts, counts, rows, columns).
_TILES = (0, 1, 3, 2, 4)


def quantize_packed(
    xp: Any, x: Any, fmt: Packed, request: Request, axis: Any, positions: Any = None, amax: Any = None
) -> Any:
    """Return `x` rounded to `fmt`, in its own dtype.

    Args:
        xp: The namespace of `x`.
        x: Array of float16, bfloat16, float32 or float64.
        fmt: The packed format.
        request: How values are rounded.
        axis: Axis or axes that blocks run along.
        positions: Not for packed formats, whose random bits count places in their own blocks: None.
        amax: Not for packed formats: None.

    Raises:
        ArgumentError: Positions of a shard are given with a stochastic mode.
    """
    _check(fmt, request, positions)
    if not math.prod(x.shape):
        _check_axis(fmt, axis, x.ndim)
        return x
    name = xp.dtype_name(x)
    with xp.wide():
        blocks = _elements_in_blocks(xp, x, fmt, axis)
        scheme = SCHEMES[fmt.scheme]
        values = scheme.decode(xp, scheme.encode(xp, blocks, fmt, _padded_request(x, fmt, request, axis)), fmt)
        return _in_dtype(xp, from_blocks(xp, values, tuple(x.shape), fmt, axis), name)


def encode_packed(
    xp: Any, x: Any, fmt: Packed, request: Request, axis: Any, positions: Any = None, amax: Any = None
) -> dict[str, Any]:
    """Return the parts of an encoded array, "codes" and "fields"; arguments as for `quantize_packed`."""
    _check(fmt, request, positions)
    if not math.prod(x.shape):
        encoded = _packed.encode_packed(np.zeros(tuple(x.shape), np.float32), fmt, request, axis)
        assert encoded.fields is not None
        none = {name: xp.constant(part, x) for name, part in encoded.fields.items()}
        return {"codes": next(iter(none.values())), "fields": none}
    with xp.wide():
        blocks = _elements_in_blocks(xp, x, fmt, axis)
        found = SCHEMES[fmt.scheme].encode(xp, blocks, fmt, _padded_request(x, fmt, request, axis))
        widths = {field.name: code_dtype(field.bits).name for field in fmt.fields}
        fields = {name: xp.cast(part, widths[name]) for name, part in found.items()}
        if fmt.flat:
            fields = {name: _without_padding(xp, part, name, fmt, math.prod(x.shape)) for name, part in fields.items()}
        return {"codes": next(iter(fields.values())), "fields": fields}


def decode_packed(
    xp: Any, codes: Any, fields: dict[str, Any], fmt: Packed, axis: Any, array_shape: tuple[int, ...], dtype: str
) -> Any:
    """Return the values of stored fields, rounded once to the dtype named; `codes` is the first field and not used."""
    with xp.wide():
        if not math.prod(array_shape):
            return doubles.narrow(xp, xp.constant(np.zeros(array_shape), codes), dtype)
        wide = {name: xp.cast(part, "int64") for name, part in fields.items()}
        values = SCHEMES[fmt.scheme].decode(xp, wide, fmt)
        return _in_dtype(xp, from_blocks(xp, values, array_shape, fmt, axis), dtype)


def _elements_in_blocks(xp: Any, x: Any, fmt: Packed, axis: Any) -> Any:
    """Return float32 or float64 elements in blocks.

    XLA moves what fills a constant array down the long code that follows, one operation in a pass, and reports that its
    passes do not end; so it is not shown the array's origin.
    """
    return to_blocks(xp, xp.computed_once(as_elements(xp, x)), fmt, axis)


def _check_axis(fmt: Packed, axis: Any, ndim: int) -> None:
    if not fmt.flat:
        checked_axes(axis, ndim, len(_sizes(fmt)) == 2, fmt)
    elif axis != -1:
        raise ArgumentError(f"axis={axis!r}: blocks of {fmt.name!r} run over the flattened array; leave axis out.")


def to_blocks(xp: Any, x: Any, fmt: Packed, axis: Any) -> Any:
    """Return (rows, blocks, values per block), as `lowp.rounding._packed.to_blocks`."""
    _check_axis(fmt, axis, x.ndim)
    if fmt.flat:
        x = x.reshape((1, -1))
    sizes = _sizes(fmt)
    axes = checked_axes(axis, x.ndim, len(sizes) == 2, fmt)
    others = tuple(a for a in range(x.ndim) if a not in axes)
    moved = transposed(xp, x, (*others, *axes))
    after = tuple(-x.shape[a] % size for a, size in zip(axes, sizes, strict=True))
    whole = padded(xp, moved, (0,) * len(others) + after)
    counts = tuple(n // size for n, size in zip(whole.shape[len(others) :], sizes, strict=True))
    if len(sizes) == 1:
        return whole.reshape((math.prod(whole.shape[:-1]), *counts, *sizes))
    lead = math.prod(whole.shape[:-2])
    tiles = transposed(xp, whole.reshape((lead, counts[0], sizes[0], counts[1], sizes[1])), _TILES)
    return tiles.reshape((lead * counts[0], counts[1], fmt.block_elements))


def from_blocks(xp: Any, blocks: Any, shape: tuple[int, ...], fmt: Packed, axis: Any) -> Any:
    """Return an array of `shape`, the reverse of `to_blocks`."""
    if fmt.flat:
        return blocks.reshape(-1)[: math.prod(shape)].reshape(shape)
    sizes = _sizes(fmt)
    axes = checked_axes(axis, len(shape), len(sizes) == 2, fmt)
    others = tuple(a for a in range(len(shape)) if a not in axes)
    counts = tuple(-(-shape[a] // size) for a, size in zip(axes, sizes, strict=True))
    if len(sizes) == 2:
        blocks = transposed(xp, blocks.reshape((-1, *counts, *sizes)), _TILES)
    whole = blocks.reshape((*(shape[a] for a in others), *(n * size for n, size in zip(counts, sizes, strict=True))))
    cut = whole[(..., *(slice(0, shape[a]) for a in axes))]
    order = sorted(range(len(shape)), key=lambda place: (*others, *axes)[place])
    return transposed(xp, cut, tuple(order))


def _in_dtype(xp: Any, values: Any, name: str) -> Any:
    """Return values rounded once to a dtype; what a scheme gives as float32 keeps the bits of NaN, quiet or not."""
    if xp.dtype_name(values) == "float64":
        return doubles.narrow(xp, values, name)
    if name == "float32":
        return values
    result = doubles.narrow(xp, doubles.widen(xp, values), name)
    if name != "bfloat16":
        return result
    kept = xp.cast(xp.bits(values) >> 16, "int16")
    return xp.floats(xp.where(doubles.is_nan(xp, values), kept, xp.bits(result)), name)


def _check(fmt: Packed, request: Request, positions: Any) -> None:
    if positions is not None and request.mode.variant:
        raise ArgumentError(
            f"a shard of {fmt.name!r} cannot be rounded by {request.mode.name!r}: its random bits count places in its "
            "own blocks. Gather the array, or take a deterministic mode."
        )


def _padded_request(x: Any, fmt: Packed, request: Request, axis: Any) -> Request:
    return request._replace(padding=_padding(tuple(x.shape), fmt, axis))


def _without_padding(xp: Any, part: Any, name: str, fmt: Packed, size: int) -> Any:
    """Set the integers that a flat array does not store to 0."""
    field = next(f for f in fmt.fields if f.name == name)
    stored = np.arange(math.prod(part.shape)) < _flat_count(field, fmt, size)
    if stored.all():
        return part
    kept = xp.where(xp.constant(stored.reshape(part.shape), part), xp.cast(part, "int64"), 0)
    return xp.cast(kept, code_dtype(field.bits).name)
