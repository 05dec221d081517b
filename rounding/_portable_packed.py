"""Packed formats as array code, for the schemes that have it; others run on NumPy arrays alone.

`NATIVE` names the schemes. For the others a JAX program can ask for a call back to the host by name, `callback=True`;
nothing does that unasked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError
from lowp.formats.packed import Packed
from lowp.formats.tables import code_dtype
from lowp.rounding import _packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._layout import checked_axes
from lowp.rounding._packed import _flat_count, _padding
from lowp.rounding._portable_blocks import as_elements
from lowp.rounding._portable_schemes import SCHEMES as NATIVE
from lowp.rounding._portable_shapes import padded, transposed
from lowp.rounding.request import Request


def quantize_packed(
    xp: Any,
    x: Any,
    fmt: Packed,
    request: Request,
    axis: Any,
    positions: Any = None,
    amax: Any = None,
    callback: bool = False,
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
        callback: Whether a JAX program may call back to the host where the scheme is no array code.

    Raises:
        ArgumentError: The scheme is no array code and `callback` is not asked for; or positions of a shard are given
            with a stochastic mode.
    """
    _check(fmt, request, positions)
    if not math.prod(x.shape):
        return x
    name = xp.dtype_name(x)
    if fmt.scheme not in NATIVE:
        _check_callback(xp, fmt, callback)
        return _on_host(x, fmt, request, axis)
    with xp.wide():
        blocks = to_blocks(xp, as_elements(xp, x), fmt, axis)
        scheme = NATIVE[fmt.scheme]
        values = scheme.decode(xp, scheme.encode(xp, blocks, fmt, _padded_request(x, fmt, request, axis)), fmt)
        return doubles.narrow(xp, from_blocks(xp, values, tuple(x.shape), fmt, axis), name)


def encode_packed(
    xp: Any, x: Any, fmt: Packed, request: Request, axis: Any, positions: Any = None, amax: Any = None
) -> dict[str, Any]:
    """Return the parts of an encoded array, "codes" and "fields"; arguments as for `quantize_packed`."""
    _check(fmt, request, positions)
    if fmt.scheme not in NATIVE:
        _check_callback(xp, fmt, callback=False)
    if not math.prod(x.shape):
        encoded = _packed.encode_packed(np.zeros(tuple(x.shape), np.float32), fmt, request, axis)
        assert encoded.fields is not None
        none = {name: xp.constant(part, x) for name, part in encoded.fields.items()}
        return {"codes": next(iter(none.values())), "fields": none}
    with xp.wide():
        blocks = to_blocks(xp, as_elements(xp, x), fmt, axis)
        found = NATIVE[fmt.scheme].encode(xp, blocks, fmt, _padded_request(x, fmt, request, axis))
        widths = {field.name: code_dtype(field.bits).name for field in fmt.fields}
        fields = {name: xp.cast(part, widths[name]) for name, part in found.items()}
        if fmt.flat:
            fields = {name: _without_padding(xp, part, name, fmt, math.prod(x.shape)) for name, part in fields.items()}
        return {"codes": next(iter(fields.values())), "fields": fields}


def decode_packed(
    xp: Any, codes: Any, fields: dict[str, Any], fmt: Packed, axis: Any, array_shape: tuple[int, ...], dtype: str
) -> Any:
    """Return the values of stored fields, rounded once to the dtype named; `codes` is the first field and not used."""
    if fmt.scheme not in NATIVE:
        _check_callback(xp, fmt, callback=False)
    with xp.wide():
        if not math.prod(array_shape):
            return doubles.narrow(xp, xp.constant(np.zeros(array_shape), codes), dtype)
        wide = {name: xp.cast(part, "int64") for name, part in fields.items()}
        values = NATIVE[fmt.scheme].decode(xp, wide, fmt)
        return doubles.narrow(xp, from_blocks(xp, values, array_shape, fmt, axis), dtype)


def to_blocks(xp: Any, x: Any, fmt: Packed, axis: Any) -> Any:
    """Return (rows, blocks, values per block), as `lowp.rounding._packed.to_blocks`; for blocks along one axis."""
    if fmt.flat:
        if axis != -1:
            raise ArgumentError(f"axis={axis!r}: blocks of {fmt.name!r} run over the flattened array; leave axis out.")
        x = x.reshape((1, -1))
    (along,) = checked_axes(axis, x.ndim, False, fmt)
    others = tuple(a for a in range(x.ndim) if a != along)
    moved = transposed(xp, x, (*others, along))
    size = fmt.block_elements
    whole = padded(xp, moved, (0,) * (x.ndim - 1) + (-moved.shape[-1] % size,))
    return whole.reshape((math.prod(whole.shape[:-1]), whole.shape[-1] // size, size))


def from_blocks(xp: Any, blocks: Any, shape: tuple[int, ...], fmt: Packed, axis: Any) -> Any:
    """Return an array of `shape`, the reverse of `to_blocks`."""
    if fmt.flat:
        return blocks.reshape(-1)[: math.prod(shape)].reshape(shape)
    (along,) = checked_axes(axis, len(shape), False, fmt)
    others = tuple(a for a in range(len(shape)) if a != along)
    whole = blocks.reshape((*(shape[a] for a in others), -1))[..., : shape[along]]
    order = sorted(range(len(shape)), key=lambda place: (*others, along)[place])
    return transposed(xp, whole, tuple(order))


def _check(fmt: Packed, request: Request, positions: Any) -> None:
    if positions is not None and request.mode.variant:
        raise ArgumentError(
            f"a shard of {fmt.name!r} cannot be rounded by {request.mode.name!r}: its random bits count places in its "
            "own blocks. Gather the array, or take a deterministic mode."
        )


def _check_callback(xp: Any, fmt: Packed, callback: bool) -> None:
    if xp.name == "jax" and not callback:
        raise ArgumentError(
            f"fmt={fmt.name!r} is encoded by a search that is no array code, which a compiled JAX program cannot run; "
            "use lowp.quantize, encode or decode on NumPy arrays, or callback=True to call back to the host."
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


def _on_host(x: Any, fmt: Packed, request: Request, axis: Any) -> Any:
    """Return the values that the NumPy path gives, from inside a compiled JAX program where there is one."""
    if isinstance(x, np.ndarray):
        return _rounded_on_host(x, fmt, request, axis)
    import jax

    def run(numbers: Any, key0: Any, key1: Any) -> NDArray[Any]:
        keyed = request._replace(key0=int(key0), key1=int(key1))
        try:
            return _rounded_on_host(np.asarray(numbers), fmt, keyed, axis)
        except RangeError:
            return np.full(numbers.shape, np.nan).astype(numbers.dtype)

    given: tuple[Any, Any] = (request.key0, request.key1)
    keys = (np.uint32(k) if isinstance(k, int) else k for k in given)
    return jax.pure_callback(run, jax.ShapeDtypeStruct(x.shape, x.dtype), x, *keys, vmap_method="sequential")


def _rounded_on_host(x: NDArray[Any], fmt: Packed, request: Request, axis: Any) -> NDArray[Any]:
    from lowp.rounding._arrays import as_source, to_caller

    source = as_source(x)
    values = np.ascontiguousarray(source.values).reshape(source.values.shape)
    return np.asarray(to_caller(_packed.quantize_packed(values, fmt, request, axis), source, fmt))
