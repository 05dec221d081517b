"""Codes of plain tensors as a list of tensors, the form in which operators pass them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import decode_codes
from lowp.rounding._blocks import decode_blocks, encode_blocks
from lowp.rounding._layout import checked_axes
from lowp.rounding._packed import decode_packed, encode_packed
from lowp.rounding._scalar import encode_values
from lowp.rounding._torch_plain import as_dtype, floats_of, narrowed, numbers, portable, portable_is_wanted
from lowp.rounding.encoded import Encoded
from lowp.rounding.request import Request, without_nan


def encode_parts(x: torch.Tensor, fmt: Format, request: Request, axis: Any, nan: str | None) -> list[torch.Tensor]:
    """Return the codes of a tensor and what decoding needs besides: scales, zero points, tensor scale; or fields."""
    if not x.is_cpu or portable_is_wanted():
        found: list[torch.Tensor] | None = portable().encode(x, fmt, request, axis, nan)
        if found is not None:
            return found
    values = floats_of(numbers(x, payloads=isinstance(fmt, Packed)))
    if isinstance(fmt, Block):
        encoded = encode_blocks(without_nan(values, fmt, nan), fmt, request, axis)
        arrays = [encoded.codes, encoded.scales, encoded.zero_points]
        if fmt.tensor_scale is not None:
            arrays.append(np.float64(encoded.tensor_scale))
    elif isinstance(fmt, Packed):
        encoded = encode_packed(without_nan(values, fmt, nan), fmt, request, axis)
        assert encoded.fields is not None
        arrays = list(encoded.fields.values())
    else:
        assert isinstance(fmt, ScalarFormat)
        arrays = [encode_values(values, fmt, request)]
    return [torch.from_numpy(np.require(a, requirements=["C", "W"])).to(x.device) for a in arrays if a is not None]


def encoded_from_parts(
    parts: list[Any], fmt: Format, axis: Any, shape: tuple[int, ...], dtype: Any, scale_of: Callable[[Any], Any]
) -> Encoded:
    """Return the encoded array of such parts; `scale_of` makes what `tensor_scale` becomes."""
    if isinstance(fmt, Packed):
        fields = {field.name: part for field, part in zip(fmt.fields, parts, strict=True)}
        return Encoded(parts[0], fmt, axis=axis, fields=fields, array_shape=shape, dtype=dtype)
    if not isinstance(fmt, Block):
        return Encoded(parts[0], fmt, dtype=dtype)
    zero_points = parts[2] if fmt.zero_point else None
    tensor_scale = None if fmt.tensor_scale is None else scale_of(parts[-1])
    return Encoded(parts[0], fmt, parts[1], zero_points, tensor_scale, kept_axis(fmt, axis, len(shape)), dtype=dtype)


def kept_axis(fmt: Block, axis: Any, ndim: int) -> Any:
    """Return the axis that an encoded array remembers: counted from the front, -1 where blocks have no one axis."""
    if fmt.size == "tensor":
        return 0 if ndim == 1 else -1
    axes = checked_axes(axis, ndim, isinstance(fmt.size, tuple), fmt)
    return axes if isinstance(fmt.size, tuple) else axes[0]


def decode_parts(
    parts: list[torch.Tensor], fmt: Format, axis: Any, shape: tuple[int, ...], target: torch.dtype
) -> torch.Tensor:
    """Return the values of such parts as a tensor of a dtype."""
    if not parts[0].is_cpu or portable_is_wanted():
        found: torch.Tensor | None = portable().decode(parts, fmt, axis, shape, target)
        if found is not None:
            return found
    arrays = [numbers(part) for part in parts]
    plain = encoded_from_parts(arrays, fmt, axis, shape, None, float)
    if isinstance(fmt, Block):
        values = as_dtype(np.asarray(decode_blocks(plain, str(target).removeprefix("torch."))), target)
    elif isinstance(fmt, Packed):
        values = as_dtype(np.asarray(decode_packed(plain)), target)
    else:
        assert isinstance(fmt, ScalarFormat)
        values = narrowed(decode_codes(arrays[0], fmt), target, fmt)
    return values.to(parts[0].device)
