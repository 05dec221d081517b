"""The portable bit operations on torch tensors: what other devices than the CPU run, and what compilers fuse there."""

from __future__ import annotations

from typing import Any

import torch

from lowp._errors import ArgumentError, RangeError
from lowp.formats.block import Block
from lowp.formats.integer import Fixed
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.packed import Packed
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import FLOAT64_BITS
from lowp.rounding._portable import c_positions, decode_values, encode_values, namespace_of, quantize_values
from lowp.rounding._portable_blocks import (
    BlockParts,
    decode_blocks,
    encode_blocks,
    inside_range,
    quantize_blocks,
)
from lowp.rounding._portable_packed import decode_packed, encode_packed, quantize_packed
from lowp.rounding.request import Request
from lowp.rounding.shard import Shard

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def serves(fmt: Format) -> bool:
    """Whether the portable code has a format."""
    return not (isinstance(fmt, Fixed) and fmt.bits > FLOAT64_BITS)


def is_short(fmt: Format, request: Request) -> bool:
    """Whether the portable code is so few operations that compilers should see them: no search, no long logarithms."""
    element = fmt.element if isinstance(fmt, Block) else fmt
    long_logarithms = is_logarithmic(element) and (element.bits > 16 or request.mode.variant != 0)
    return serves(fmt) and not isinstance(fmt, Packed) and not long_logarithms


def _values(x: torch.Tensor) -> torch.Tensor | None:
    """Return floats that the portable code takes, or None for integers beyond float64."""
    x = x.detach().resolve_neg()
    if x.dtype in FLOATS:
        return x
    if x.dtype.is_floating_point:
        return x.to(torch.float32)
    return x.to(torch.float64) if x.dtype.itemsize < 8 else None


def _without_nan(x: torch.Tensor, fmt: Block | Packed, nan: str | None) -> torch.Tensor:
    """The NaN policies of block formats, as `lowp.rounding.request.without_nan`; no errors while a compiler traces."""
    if nan in (None, "keep"):
        return x
    if nan == "zero":
        return torch.where(x.isnan(), 0, x)
    if namespace_of(x).is_concrete(x) and bool(x.isnan().any()):
        if nan == "error":
            raise RangeError(f"x holds NaN, which nan='error' refuses; {fmt.name!r} has a rule of its own otherwise.")
        if isinstance(fmt, Packed) or fmt.nonfinite != "element":
            raise ArgumentError(f"nan={nan!r} needs a format with nonfinite='element', which {fmt.name!r} is not.")
    return x


def quantize(
    x: torch.Tensor, fmt: Format, request: Request, axis: Any, shard: Shard | None, amax: Any
) -> torch.Tensor | None:
    """Return `x` rounded, or None for what the portable code lacks."""
    values = _values(x) if serves(fmt) else None
    if values is None:
        return None
    xp = namespace_of(values)
    where = c_positions(xp, values, shard) if shard is not None and request.mode.variant else None
    if isinstance(fmt, ScalarFormat):
        result = quantize_values(xp, values.contiguous(), fmt, request, where)
    else:
        assert isinstance(fmt, Block | Packed)
        values = _without_nan(values, fmt, request.nan)
        rounded = quantize_blocks if isinstance(fmt, Block) else quantize_packed
        result = rounded(xp, values, fmt, request, axis, where, amax)  # type: ignore[arg-type]
        result = result.clone() if result is values else result.contiguous()
    narrow = x.dtype.is_floating_point and x.dtype != result.dtype
    return result.to(x.dtype) if narrow else result  # type: ignore[no-any-return]


def in_range(x: torch.Tensor, fmt: Block, axis: Any, amax: Any) -> torch.Tensor | None:
    """Return where numbers lie in the range of their block, or None for what the portable code lacks."""
    values = _values(x)
    return None if values is None else inside_range(namespace_of(values), values, fmt, axis, amax).contiguous()


def encode(x: torch.Tensor, fmt: Format, request: Request, axis: Any, nan: str | None) -> list[torch.Tensor] | None:
    """Return the parts of an encoded tensor, or None for what the portable code lacks."""
    values = _values(x) if serves(fmt) else None
    if values is None:
        return None
    xp = namespace_of(values)
    if isinstance(fmt, Block):
        parts = encode_blocks(xp, _without_nan(values, fmt, nan), fmt, request, axis)
        found = [part.contiguous() for part in parts if part is not None]
        return found if parts.tensor_scale is None else [*found[:-1], found[-1].to(torch.float64)]
    if isinstance(fmt, Packed):
        fields = encode_packed(xp, _without_nan(values, fmt, nan), fmt, request, axis)["fields"]
        return [fields[field.name].contiguous() for field in fmt.fields]
    assert isinstance(fmt, ScalarFormat)
    return [encode_values(xp, values.contiguous(), fmt, request)]


def decode(
    parts: list[torch.Tensor], fmt: Format, axis: Any, shape: tuple[int, ...], target: torch.dtype
) -> torch.Tensor | None:
    """Return the values of encoded parts, or None for what the portable code lacks."""
    if not serves(fmt) or target not in FLOATS:
        return None
    xp, name = namespace_of(parts[0]), str(target).removeprefix("torch.")
    if isinstance(fmt, Packed):
        fields = {field.name: part for field, part in zip(fmt.fields, parts, strict=True)}
        return decode_packed(xp, parts[0], fields, fmt, axis, shape, name).contiguous()  # type: ignore[no-any-return]
    if not isinstance(fmt, Block):
        assert isinstance(fmt, ScalarFormat)
        return decode_values(xp, parts[0].contiguous(), fmt, name)  # type: ignore[no-any-return]
    zero_points = parts[2] if fmt.zero_point else None
    tensor_scale = parts[-1] if fmt.tensor_scale is not None else None
    blocks = BlockParts(parts[0], parts[1], zero_points, tensor_scale)
    return decode_blocks(xp, blocks, fmt, axis, name).contiguous()  # type: ignore[no-any-return]
