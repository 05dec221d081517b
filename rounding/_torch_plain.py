"""Formats on plain tensors: no autograd, no checks of arguments.

CPU tensors share their memory with the NumPy kernels. On other devices the portable bit operations run, and where these
lack a format, the CPU does the work.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lowp._errors import ArgumentError
from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.packed import Packed
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import value_table
from lowp.rounding._arrays import as_source, no_room, to_odd_float32
from lowp.rounding._blocks import quantize_blocks, representable_range
from lowp.rounding._fast_blocks import try_fast
from lowp.rounding._float32_runs import run_for
from lowp.rounding._packed import quantize_packed
from lowp.rounding._pieces import depends_on_whole, runs, tensor_amax, with_amax
from lowp.rounding._scalar import quantize_values
from lowp.rounding.request import Request, without_nan
from lowp.rounding.shard import Shard

#: The dtypes that are computed as float32.
_SHORT = (torch.float16, torch.bfloat16)
_WIDE = (torch.float32, torch.float64)
_NUMPY = {
    getattr(torch, name): np.dtype(name)
    for name in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
}


def quantize_plain(
    x: torch.Tensor,
    fmt: Format,
    request: Request,
    axis: Any = -1,
    out: torch.Tensor | None = None,
    shard: Shard | None = None,
    amax: torch.Tensor | None = None,
) -> torch.Tensor:
    """Round a dense tensor without autograd and without checks of arguments.

    Args:
        x: Tensor of any device; integers give float64.
        fmt: The format.
        request: How to round.
        axis: Axis, or pair of axes, of blocks.
        out: Tensor of the result's shape, dtype and device that takes the result; it may be `x`.
        shard: Which piece of a larger array `x` is; None: all of it.
        amax: The tensor-wide largest magnitude that tensor scales follow; None: that of `x`.

    Returns:
        A new C-contiguous tensor, or `out`.
    """
    if not x.is_cpu or _PORTABLE:
        result: torch.Tensor | None = portable().quantize(x, fmt, request, axis, shard, amax)
        if result is not None:
            return result if out is None else out.copy_(result)
    if shard is not None and request.mode.variant == 0:
        shard = None
    if shard is None and amax is None:
        return quantize_on_cpu(x, fmt, request, axis, out)
    result = _quantize_piece(x, fmt, request, axis, shard, amax)
    return result if out is None else out.copy_(result)


#: Not empty inside `portable_on_cpu()`.
_PORTABLE: list[bool] = []


@contextmanager
def portable_on_cpu() -> Iterator[None]:
    """Run the bit operations that other devices run on CPU tensors too; for tests."""
    _PORTABLE.append(True)
    try:
        yield
    finally:
        _PORTABLE.pop()


def portable_is_wanted() -> bool:
    """Whether this runs inside `portable_on_cpu()`."""
    return bool(_PORTABLE)


def portable() -> Any:
    """The module of the portable bit operations."""
    from lowp.rounding import _torch_portable

    return _torch_portable


def _quantize_piece(
    x: torch.Tensor, fmt: Format, request: Request, axis: Any, shard: Shard | None, amax: torch.Tensor | None
) -> torch.Tensor:
    """Round a piece of a larger array, or with a largest magnitude given, on the CPU."""
    if isinstance(fmt, ScalarFormat):
        return quantize_on_cpu(x, fmt, request, axis, shard=shard)
    if isinstance(fmt, Packed):
        _check_packed_piece(fmt, request, shard)
        return quantize_on_cpu(x, fmt, request, axis)
    assert isinstance(fmt, Block)
    tensor_wide = amax is not None and depends_on_whole(fmt) and x.numel() > 0
    if shard is None and not tensor_wide:
        return quantize_on_cpu(x, fmt, request, axis)
    if shard is None and amax is not None and float(amax) >= tensor_amax(floats_of(numbers(x)), fmt, axis):
        values, axis, index = with_amax(floats_of(numbers(x)), fmt, axis, float(amax))
        with_it = quantize_on_cpu(torch.from_numpy(values).to(x.dtype), fmt, request, axis)
        return with_it[index].contiguous().to(x.device)
    result: torch.Tensor | None = portable().quantize(x, fmt, request, axis, shard, amax)
    if result is None:
        raise ArgumentError(
            f"{fmt.name!r} with rounding={request.mode.name!r} cannot round a piece of an array; gather it first."
        )
    return result


def _check_packed_piece(fmt: Packed, request: Request, shard: Shard | None) -> None:
    if shard is not None and request.mode.variant:
        raise ArgumentError(
            f"{fmt.name!r} with rounding={request.mode.name!r} cannot round a piece of an array; gather it first."
        )


def numbers(x: torch.Tensor, payloads: bool = False) -> Any:
    """Return the numbers of a tensor as a contiguous NumPy array, exactly; CPU float32 and float64 share memory.

    Integers keep their dtype; other floats come as float32. NaN of float16 keep their payloads if `payloads`: torch
    keeps those of vectors and loses those of single numbers.
    """
    plain = x.detach()
    if plain.is_neg():
        plain = plain.resolve_neg()
    if payloads and plain.dtype == torch.float16:
        bits = _memory(plain.cpu().contiguous().view(torch.int16))
        return as_source(bits.view(np.float16)).values
    if plain.dtype.is_floating_point and plain.dtype not in _WIDE:
        plain = plain.to(torch.float32)
    return _memory(plain.cpu().contiguous())


def _memory(x: torch.Tensor) -> Any:
    """Return a contiguous CPU tensor as a NumPy array of the same memory.

    `Tensor.numpy` would forbid the storage to be resized for ever, which FSDP does with its parameters.
    """
    dtype = _NUMPY.get(x.dtype)
    if dtype is None:
        return x.numpy()
    if not x.numel():
        return np.empty(x.shape, dtype)
    buffer = (ctypes.c_byte * (x.numel() * dtype.itemsize)).from_address(x.data_ptr())
    buffer.owner = x  # type: ignore[attr-defined]
    return np.ndarray(x.shape, dtype, buffer)  # type: ignore[arg-type]


def floats_of(values: Any) -> Any:
    """Return NumPy numbers as float32 or float64; large integers rounded to odd."""
    return values if values.dtype.kind == "f" else as_source(values).values


def quantize_on_cpu(
    x: torch.Tensor,
    fmt: Format,
    request: Request,
    axis: Any,
    out: torch.Tensor | None = None,
    shard: Shard | None = None,
) -> torch.Tensor:
    """Round a tensor with the NumPy kernels; `shard` for scalar formats alone."""
    dtype, is_cpu = x.dtype, x.is_cpu
    if dtype in _SHORT and is_cpu:
        short = run_for(fmt, request, str(dtype).removeprefix("torch."))
        if short is not None:
            return _run_in_bits(short, x, out)
    run = run_for(fmt, request, "float32") if dtype.itemsize < 8 and dtype.is_floating_point else None
    if run is not None:
        values = numbers(x)
        if dtype != torch.float32 or not is_cpu:  # the numbers are a copy
            run(values.reshape(-1), values.reshape(-1))
            return _finished(narrowed(values, dtype, fmt), x, out)  # type: ignore[arg-type]
        target = _target(out, values)
        run(values.reshape(-1), target.reshape(-1))
        return _given(target, out)
    values = floats_of(numbers(x, payloads=isinstance(fmt, Packed)))
    if request.nan != "keep" and not isinstance(fmt, ScalarFormat):
        values = without_nan(values, fmt, request.nan)  # type: ignore[arg-type]
    if not dtype.is_floating_point:
        dtype = torch.float64
    if isinstance(fmt, Block):
        return _quantize_blocks_on_cpu(values, x, dtype, fmt, request, axis, out)
    if out is not None and is_cpu and dtype in _WIDE and isinstance(fmt, ScalarFormat) and shard is None:
        result = quantize_values(values, fmt, request, _target(out, values))
        return _given(result, out) if result.dtype == values.dtype else out.copy_(narrowed(result, dtype, fmt))
    return _finished(_rounded(values, dtype, fmt, request, axis, shard), x, out)


def _run_in_bits(run: Callable[[Any, Any], None], x: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Return a tensor of 16-bit floats, `out` if there is one, that a kernel makes of the bits of another."""
    source = _memory(x.detach().resolve_neg().contiguous().view(torch.int16))
    fits = out is not None and out.dtype == x.dtype
    target = _target(out.view(torch.int16) if fits else None, source)  # type: ignore[union-attr]
    run(source.reshape(-1).view(np.uint16), target.reshape(-1).view(np.uint16))
    if fits:
        return _given(target, out, in_bits=True)
    return _finished(torch.from_numpy(target).view(x.dtype), x, out)


def _finished(result: torch.Tensor, x: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    if out is not None:
        return out.copy_(result)
    return result if x.is_cpu else result.to(x.device)


def _target(out: torch.Tensor | None, values: Any) -> Any:
    """Return an array for the result: the memory of `out` if a kernel may write it while it reads `values`."""
    if out is None or not out.is_cpu or not out.is_contiguous() or out.is_neg():
        return np.empty_like(values)
    target = _memory(out.detach())
    same = target.ctypes.data == values.ctypes.data
    return target if same or not np.may_share_memory(target, values) else np.empty_like(values)


def _given(result: Any, out: torch.Tensor | None, in_bits: bool = False) -> torch.Tensor:
    """Return `out` with a result that may be its memory; `in_bits`: the result is the bits of its numbers."""
    if out is None:
        return torch.from_numpy(result)
    if result.ctypes.data != out.data_ptr() or not result.size:
        found = torch.from_numpy(result)
        return out.copy_(found.view(out.dtype) if in_bits else found)
    torch.autograd.graph.increment_version(out)  # so that a backward pass that needs what was there says so
    return out


def _rounded(
    values: Any, dtype: torch.dtype, fmt: Format, request: Request, axis: Any, shard: Shard | None
) -> torch.Tensor:
    if isinstance(fmt, Packed):
        result = quantize_packed(values, fmt, request, axis)
        return as_dtype(result.copy() if np.may_share_memory(result, values) else result, dtype)
    assert isinstance(fmt, ScalarFormat)
    if shard is None:
        return narrowed(quantize_values(values, fmt, request), dtype, fmt)
    flat = values.reshape(-1)
    parts = [quantize_values(flat[a : a + n], fmt, request, start=start) for a, start, n in runs(values.shape, shard)]
    return narrowed(np.concatenate(parts).reshape(values.shape) if parts else values.copy(), dtype, fmt)


def _quantize_blocks_on_cpu(
    values: Any, x: torch.Tensor, dtype: torch.dtype, fmt: Block, request: Request, axis: Any, out: torch.Tensor | None
) -> torch.Tensor:
    """Round `values`, the numbers of `x`, and return them as `dtype`, in `out` if given."""
    name, here = str(dtype).removeprefix("torch."), dtype == torch.float32 and x.is_cpu
    target = _target(out, values) if here else values if dtype in _SHORT else None  # short numbers are a copy
    result = try_fast(values, fmt, request, axis, target, dtype=name)
    if result is not None and here:
        return _given(result, out)
    if result is None:
        result = quantize_blocks(values, fmt, request, axis, name)
    return _finished(torch.from_numpy(result).to(dtype), x, out)


def _exactly(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """Return values as `dtype` if it holds all of them, NaN aside, else None."""
    if values.dtype == dtype:
        return values
    short = _cast(values, dtype)
    back = short.to(values.dtype)
    return short if bool(((back == values) | values.isnan()).all()) else None


def _cast(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return values rounded once to a dtype; torch rounds float64 to float32 on the way to less."""
    if values.dtype == torch.float64 and dtype.itemsize < 4:
        values = torch.from_numpy(to_odd_float32(values.numpy()))
    return values.to(dtype)


def as_dtype(values: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return NumPy values as a tensor of `dtype`; 16-bit numbers by their bits, since torch's cast drops payloads."""
    exact = torch.from_numpy(values)
    if dtype == torch.float16 and exact.dtype == torch.float32 and np.isnan(values).any():
        with np.errstate(invalid="ignore", over="ignore"):
            return torch.from_numpy(values.astype(np.float16))
    if dtype == torch.bfloat16 and exact.dtype == torch.float32:
        bits = exact.view(torch.int32)
        if not (bits & 0xFFFF).any():
            return (bits >> 16).to(torch.int16).view(torch.bfloat16)
    return _cast(exact, dtype)


def narrowed(values: Any, dtype: torch.dtype, fmt: ScalarFormat) -> torch.Tensor:
    """Return NumPy values as a tensor of `dtype`; those of codebooks and logarithms may be rounded, others must fit."""
    exact = torch.from_numpy(values)
    if dtype == exact.dtype or holds(fmt, dtype):
        return _cast(exact, dtype)
    if not (isinstance(fmt, Codebook) or is_logarithmic(fmt)):
        short = _exactly(exact, dtype)
    else:
        short = _cast(exact, dtype)
        kept = (short.isfinite() == exact.isfinite()) | exact.isnan()
        short = short if bool(kept.all()) else None
    if short is None:
        raise no_room(fmt.name, str(dtype))
    return short


@lru_cache(maxsize=256)
def holds(fmt: ScalarFormat, dtype: torch.dtype) -> bool:
    """Whether `dtype` holds every value of a format of at most 8 bits; of wider ones it is not known."""
    if fmt.bits > 8:
        return False
    return _exactly(torch.from_numpy(value_table(fmt).copy()), dtype) is not None


def amax_plain(x: torch.Tensor, fmt: Format, axis: Any) -> torch.Tensor:
    """Return the largest magnitude that the tensor-wide scale of a format follows, as float64."""
    assert isinstance(fmt, Block)
    x = x.detach()
    if x.numel() and x.dtype in (*_WIDE, *_SHORT):
        low, high = torch.aminmax(x)
        largest = torch.maximum(low.abs(), high.abs()).to(torch.float64)
        if bool(largest.isfinite()):
            return largest
    return torch.tensor(tensor_amax(floats_of(numbers(x)), fmt, axis), dtype=torch.float64, device=x.device)


def in_range_plain(x: torch.Tensor, fmt: Format, axis: Any, amax: torch.Tensor | None = None) -> torch.Tensor:
    """Return where a number lies between the smallest and the largest value of the format, in blocks of its block."""
    if isinstance(fmt, ScalarFormat):
        return _between(x, fmt)
    assert isinstance(fmt, Block)
    if not x.is_cpu or _PORTABLE:
        inside: torch.Tensor | None = portable().in_range(x, fmt, axis, amax)
        if inside is not None:
            return inside
    values, index = floats_of(numbers(x)), None
    if amax is not None and depends_on_whole(fmt) and x.numel():
        values, axis, index = with_amax(values, fmt, axis, float(amax))
    low, high = representable_range(values, fmt, axis)
    mask = np.asarray((values >= low) & (values <= high))
    return torch.from_numpy(np.ascontiguousarray(mask if index is None else mask[index])).to(x.device)


def _between(x: torch.Tensor, fmt: ScalarFormat) -> torch.Tensor:
    """Compare exactly: torch rounds a Python number to the tensor's dtype first, so the ends are rounded inwards."""
    x = x.detach()
    if x.dtype not in (*_WIDE, *_SHORT):
        x = torch.from_numpy(floats_of(numbers(x))).to(x.device)
    low, high = _ends(fmt, x.dtype)
    return ((x >= low) & (x <= high)).contiguous()


@lru_cache(maxsize=256)
def _ends(fmt: ScalarFormat, dtype: torch.dtype) -> tuple[float, float]:
    """Return the smallest and the largest number of `dtype` between the smallest and the largest value of `fmt`."""
    ends = torch.tensor([fmt.min, fmt.max], dtype=torch.float64)
    near = ends.to(dtype)
    below, above = near.to(torch.float64) < ends, near.to(torch.float64) > ends
    infinity = torch.tensor([math.inf, -math.inf], dtype=dtype)
    inwards = torch.nextafter(near, infinity)
    low = inwards[0] if below[0] else near[0]
    high = inwards[1] if above[1] else near[1]
    return float(low), float(high)
