"""Packed formats on arrays: cut into blocks, let the scheme fill its fields, put the values back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.packed import Field, Packed
from lowp.formats.packing import pack, unpack
from lowp.formats.tables import code_dtype
from lowp.rounding._layout import checked_axes
from lowp.rounding.encoded import Encoded, as_numpy
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, scheme_of

_QUIET = np.errstate(all="ignore")


@_QUIET
def quantize_packed(x: NDArray[Any], fmt: Packed, request: Request, axis: Any) -> NDArray[Any]:
    """Return `x` rounded to `fmt`, as float32 or float64, whichever the scheme's values are."""
    blocks = to_blocks(x, fmt, axis)
    if not x.size:
        return x
    scheme = scheme_of(fmt)
    fields = scheme.encode(blocks, fmt, request._replace(padding=_padding(x.shape, fmt, axis)))
    return from_blocks(scheme.decode(fields, fmt), x.shape, fmt, axis)


@_QUIET
def encode_packed(x: NDArray[Any], fmt: Packed, request: Request, axis: Any) -> Encoded:
    """Return the stored fields of `x`; `codes` is the first of them."""
    request = request._replace(padding=_padding(x.shape, fmt, axis))
    blocks = to_blocks(x, fmt, axis)
    fields = scheme_of(fmt).encode(blocks, fmt, request) if x.size else _no_fields(x.shape, fmt, axis)
    widths = {field.name: field.bits for field in fmt.fields}
    fields = {name: part.astype(code_dtype(widths[name]), order="C") for name, part in fields.items()}
    if fmt.flat:
        _clear_padding(fields, fmt, math.prod(x.shape))
    return Encoded(next(iter(fields.values())), fmt, axis=axis, fields=fields, array_shape=x.shape)


@_QUIET
def decode_packed(encoded: Encoded) -> NDArray[Any]:
    """Return the values of stored fields."""
    fmt = encoded.format
    assert isinstance(fmt, Packed)
    assert encoded.fields is not None
    if not math.prod(encoded.shape):
        return np.zeros(encoded.shape)
    values = scheme_of(fmt).decode(encoded.fields, fmt)
    return from_blocks(values, encoded.shape, fmt, encoded.axis)


def to_blocks(x: NDArray[Any], fmt: Packed, axis: Any) -> NDArray[Any]:
    """Return (rows, blocks, values per block): the blocked axis moved last and padded with zeros, others merged.

    Tiles: (bands of rows, tiles in a band, values per tile), the axes before the last two merged into the bands.
    """
    if fmt.flat:
        x, axis = x.reshape(_flat(x.shape, axis, fmt)), -1
    sizes = _sizes(fmt)
    moved = np.moveaxis(x, checked_axes(axis, x.ndim, len(sizes) == 2, fmt), range(-len(sizes), 0))
    pad = [(0, 0)] * (x.ndim - len(sizes)) + [
        (0, -n % s) for n, s in zip(moved.shape[-len(sizes) :], sizes, strict=True)
    ]
    whole = np.pad(moved, pad) if any(after for _, after in pad) else moved
    if len(sizes) == 1:
        return np.ascontiguousarray(whole).reshape(math.prod(whole.shape[:-1]), whole.shape[-1] // sizes[0], sizes[0])
    r, c = sizes
    *lead, rows, columns = whole.shape
    tiles = whole.reshape(*lead, rows // r, r, columns // c, c).swapaxes(-3, -2)
    return np.ascontiguousarray(tiles).reshape(math.prod(lead) * (rows // r), columns // c, r * c)


def from_blocks(blocks: NDArray[Any], shape: tuple[int, ...], fmt: Packed, axis: Any) -> NDArray[Any]:
    """Return an array of `shape`, the reverse of `to_blocks`."""
    if fmt.flat:
        return blocks.reshape(-1)[: math.prod(shape)].reshape(shape)
    sizes = _sizes(fmt)
    axes = checked_axes(axis, len(shape), len(sizes) == 2, fmt)
    moved = [n for a, n in enumerate(shape) if a not in axes] + [shape[a] for a in axes]
    lead, inner = moved[: -len(sizes)], moved[-len(sizes) :]
    counts = [-(-n // s) for n, s in zip(inner, sizes, strict=True)]
    whole = [n * s for n, s in zip(counts, sizes, strict=True)]
    if len(sizes) == 2:
        blocks = blocks.reshape(*lead, *counts, *sizes).swapaxes(-3, -2)
    inside: tuple[Any, ...] = (..., *(slice(0, n) for n in inner))
    cut = blocks.reshape(*lead, *whole)[inside]
    return np.ascontiguousarray(np.moveaxis(cut, range(-len(sizes), 0), axes))


def pack_fields(encoded: Encoded) -> dict[str, NDArray[np.uint8]]:
    """Return the bytes of each field; interleaved formats and schemes that pack themselves: one part, "blocks"."""
    fmt = encoded.format
    assert isinstance(fmt, Packed)
    assert encoded.fields is not None
    fields = {name: as_numpy(part) for name, part in encoded.fields.items()}
    own = scheme_of(fmt).pack
    if own:
        return {"blocks": own(fields, fmt)}
    if fmt.flat:
        size = math.prod(encoded.shape)
        return {f.name: pack(fields[f.name].reshape(-1)[: _flat_count(f, fmt, size)], f.bits) for f in fmt.fields}
    if not fmt.interleaved:
        return {field.name: pack(fields[field.name], field.bits) for field in fmt.fields}
    rows, blocks, _ = _counts(encoded.shape, fmt, encoded.axis)
    parts = [_bytes_per_block(fields[f.name], f, rows * blocks) for f in fmt.fields if f.per == "block"]
    shared = [pack(fields[f.name], f.bits) for f in fmt.fields if f.per != "block"]
    return {"blocks": np.concatenate([np.concatenate(parts, axis=1).reshape(-1), *shared])}


def unpack_fields(raw: NDArray[np.uint8], fmt: Packed, shape: tuple[int, ...], axis: Any) -> Fields:
    """Return the fields of packed bytes.

    Raises:
        ArgumentError: The number of bytes is not the one that format and shape need.
    """
    rows, blocks, needed = _counts(shape, fmt, axis)
    own = scheme_of(fmt).unpack
    if own:
        return own(raw, fmt, (rows, blocks))
    if raw.size != needed:
        raise ArgumentError(f"data has {raw.size} bytes; {fmt.name!r} of shape {shape} packs to {needed}.")
    fields: Fields = {}
    start = 0
    if fmt.interleaved:
        start = rows * blocks * fmt.block_bits // 8
        table = raw[:start].reshape(rows * blocks, fmt.block_bits // 8)
        column = 0
        for field in (f for f in fmt.fields if f.per == "block"):
            width = field.count * field.bits // 8
            part = unpack(table[:, column : column + width], field.bits, rows * blocks * field.count)
            fields[field.name] = part.reshape(rows, blocks, field.count)
            column += width
    for field in (f for f in fmt.fields if f.name not in fields):
        shape_of = _field_shape(field, rows, blocks)
        whole = math.prod(shape_of)
        stored = _flat_count(field, fmt, math.prod(shape)) if fmt.flat else whole
        stop = start + -(-stored * field.bits // 8)
        codes = unpack(raw[start:stop], field.bits, stored)
        fields[field.name] = np.pad(codes, (0, whole - stored)).reshape(shape_of)
        start = stop
    return fields


def packed_size(shape: tuple[int, ...], fmt: Packed, axis: Any) -> int:
    """Return the bytes that an array of that shape packs to; for formats without a packing of their own."""
    return _counts(shape, fmt, axis)[2]


def _bytes_per_block(codes: NDArray[Any], field: Field, blocks: int) -> NDArray[np.uint8]:
    if field.count * field.bits % 8:
        raise ArgumentError(f"field {field.name!r} takes {field.count * field.bits} bits; interleaved ones fill bytes.")
    return pack(codes, field.bits).reshape(blocks, field.count * field.bits // 8)


def _counts(shape: tuple[int, ...], fmt: Packed, axis: Any) -> tuple[int, int, int]:
    """Rows, blocks in a row, and bytes of the whole array."""
    if fmt.flat:
        size = _flat(shape, axis, fmt)[1]
        needed = sum(-(-_flat_count(f, fmt, size) * f.bits // 8) for f in fmt.fields)
        return 1, -(-size // fmt.block_elements), needed
    sizes = _sizes(fmt)
    axes = checked_axes(axis, len(shape), len(sizes) == 2, fmt)
    lead = math.prod(n for a, n in enumerate(shape) if a not in axes)
    counts = [-(-shape[a] // s) for a, s in zip(axes, sizes, strict=True)]
    rows, blocks = (lead * counts[0], counts[1]) if len(sizes) == 2 else (lead, counts[0])
    needed = sum(-(-math.prod(_field_shape(f, rows, blocks)) * f.bits // 8) for f in fmt.fields)
    return rows, blocks, needed


def _field_shape(field: Field, rows: int, blocks: int) -> tuple[int, ...]:
    if field.blocks:
        return rows, -(-blocks // field.blocks), field.count
    return {"row": (rows, field.count), "tensor": (field.count,)}[field.per]


def _flat(shape: tuple[int, ...], axis: Any, fmt: Packed) -> tuple[int, int]:
    if axis != -1:
        raise ArgumentError(f"axis={axis!r}: blocks of {fmt.name!r} run over the flattened array; leave axis out.")
    return 1, math.prod(shape)


def _flat_count(field: Field, fmt: Packed, size: int) -> int:
    """How many integers of a field a flat array of that size stores: its own, not those of the last block's padding."""
    return -(-size * field.count // (fmt.block_elements * field.blocks)) if field.blocks else field.count


def _clear_padding(fields: Fields, fmt: Packed, size: int) -> None:
    """Set the integers that a flat array does not store to the 0 that `unpack_fields` finds in their place."""
    for field in fmt.fields:
        fields[field.name].reshape(-1)[_flat_count(field, fmt, size) :] = 0


def _no_fields(shape: tuple[int, ...], fmt: Packed, axis: Any) -> Fields:
    """The fields of an array without values, which schemes never see; what the tensor stores is zero."""
    rows, blocks, _ = _counts(shape, fmt, axis)
    return {field.name: np.zeros(_field_shape(field, rows, blocks), np.uint64) for field in fmt.fields}


def _padding(shape: tuple[int, ...], fmt: Packed, axis: Any) -> tuple[int, ...]:
    """Zeros that fill up the last block along each blocked axis."""
    if fmt.flat:
        return (-math.prod(shape) % fmt.block_elements,)
    sizes = _sizes(fmt)
    axes = checked_axes(axis, len(shape), len(sizes) == 2, fmt)
    return tuple(-shape[a] % n for a, n in zip(axes, sizes, strict=True))


def _sizes(fmt: Packed) -> Sequence[int]:
    return fmt.block_size if isinstance(fmt.block_size, tuple) else (fmt.block_size,)
