"""The operators that torch's compilers, transforms and dispatch see: `lowp::quantize` and its kin.

Formats are strings (`lowp.rounding._format_keys`), seeds are signed. Results are C-contiguous whatever the strides of
the input. Under `vmap` every example is rounded as it would be alone: its random bits follow positions in the example,
and a tensor-wide scale is that of the example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from lowp._errors import ArgumentTypeError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.tables import code_dtype
from lowp.rounding import _torch_compile
from lowp.rounding._format_keys import format_of
from lowp.rounding._layout import make_layout
from lowp.rounding._packed import _counts, _field_shape
from lowp.rounding._torch_calls import Call, axis_of, axis_under_batch, flat, is_per_block, no_range, unflat
from lowp.rounding._torch_codes import decode_parts, encode_parts
from lowp.rounding._torch_plain import amax_plain, in_range_plain, quantize_plain
from lowp.rounding.gradients import gradient_rule
from lowp.rounding.request import check_format

_LIBRARY: Any = torch.library.Library("lowp", "FRAGMENT")  # type: ignore[no-untyped-call]


def _checked(x: torch.Tensor, call: Call) -> Call:
    if x.dtype == torch.bool or x.dtype.is_complex:
        raise ArgumentTypeError(f"x has dtype {x.dtype}; allowed: floats and integers.")
    check_format(call.fmt, call.request)
    call.check_shape(x.ndim)
    return call


def result_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype that a tensor is rounded to: its own, float64 for integers."""
    return x.dtype if x.dtype.is_floating_point else torch.float64


def quantize(
    x: torch.Tensor,
    fmt: str,
    rounding: str,
    overflow: str,
    seed: int,
    axis: Sequence[int],
    random_bits: int,
    saturation_bits: int,
    nan: str,
    offset: Sequence[int],
    shape: Sequence[int],
    gradient: str,
    amax: torch.Tensor | None,
) -> torch.Tensor:
    """Round a tensor; the arguments are those of `lowp.rounding._torch_calls.unflat`."""
    call = unflat(fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, nan, offset, shape)
    _checked(x, call)
    if call.shard is not None:
        call.shard.check(tuple(x.shape))
    return quantize_plain(x, call.fmt, call.request, call.axis, None, call.shard, amax)


def _quantize_fake(x: Any, fmt: str, *how: Any) -> Any:
    rounding, overflow, _, axis, random_bits, saturation_bits, nan, _, _, gradient, _ = how
    call = _checked(x, unflat(fmt, rounding, overflow, 0, axis, random_bits, saturation_bits, nan, (), ()))
    gradient_rule(gradient)
    if gradient == "clipped" and isinstance(call.fmt, Packed):
        raise no_range(call.fmt)
    return torch.empty(x.shape, dtype=result_dtype(x), device=x.device)


# The operator's own autograd kernel: those that torch.library.register_autograd makes refuse torch.func.grad and jvp.
_LIBRARY.define("quantize" + torch.library.infer_schema(quantize, mutates_args=()), tags=torch.Tag.pt2_compliant_tag)
_LIBRARY.impl("quantize", quantize, "CompositeExplicitAutograd")
torch.library.register_fake("lowp::quantize", _quantize_fake, lib=_LIBRARY)
_OP = torch.ops.lowp.quantize.default


class _Node(_SingleLevelFunction):
    """What a call of the operator leaves for the backward pass, at one level of transforms."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, *args: Any) -> Any:
        lower = torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True)  # levels of transforms below record too
        with lower[0], lower[1], torch._C._AutoDispatchBelowAutograd():
            y = _below_autograd(keyset, *args)
            x, fmt, axis, ctx.gradient, amax = args[0], args[1], args[5], args[11], args[12]
            saved: tuple[Any, ...] = ()
            if gradient_rule(ctx.gradient).rule is not None:
                saved = x, y
            elif ctx.gradient in ("clipped", "learned_scale"):
                inside = _torch_compile.in_range(x, fmt, axis, amax) if _torch_compile.is_taken_apart(x, fmt) else None
                saved = (torch.ops.lowp.in_range(x, fmt, axis, amax) if inside is None else inside,)
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return None, gradient_of(ctx.gradient, ctx.saved_tensors, gradients[0]), *([None] * 12)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return gradient_of(ctx.gradient, ctx.saved_tensors, tangents[1])


def _autograd(keyset: Any, *args: Any) -> Any:
    x, gradient = args[0], args[11]
    transformed = forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None
    recorded = transformed or (torch.is_grad_enabled() and x.requires_grad)
    if recorded and gradient != "none" and x.dtype.is_floating_point:
        with enable_single_level_autograd_function():
            return _Node.apply(keyset, *args)  # type: ignore[attr-defined]
    with torch._C._AutoDispatchBelowAutograd():
        return _below_autograd(keyset, *args)


def _below_autograd(keyset: Any, *args: Any) -> Any:
    x, fmt = args[:2]
    result = _torch_compile.quantize(*args) if _torch_compile.is_taken_apart(x, fmt) else None
    return _OP.redispatch(keyset & torch._C._after_autograd_keyset, *args) if result is None else result


_LIBRARY.impl("quantize", _autograd, "Autograd", with_keyset=True)


def gradient_of(name: str, saved: tuple[Any, ...], g: Any) -> Any:
    """Return the gradient of the input by a rule's name; `saved` is the mask of a clipped one, or (x, y).

    Rules act element by element, so their Jacobians are diagonal and a tangent passes as a gradient does.
    """
    if name == "none" or g is None:
        return None
    rule = gradient_rule(name).rule
    if rule is not None:
        x, y = saved
        return rule(x, y, g)
    return torch.where(saved[0], g, 0) if saved else g


def batched(x: torch.Tensor, call: Call, amax: Any, one: Callable[[torch.Tensor, Call], Any]) -> Any:
    """Apply `one` to every example along the first axis of `x`, at once where examples do not depend on each other."""
    call.check_shape(x.ndim - 1)
    if is_per_block(call) and amax is None and call.shard is None:
        return one(x, call._replace(axis=axis_under_batch(call.axis)))
    if not len(x):
        return torch.empty(x.shape, dtype=result_dtype(x), device=x.device)
    return torch.stack([one(example, call) for example in x])


def _rows(x: Any, dim: int | None, count: int) -> Any:
    """The examples of a batched tensor along its first axis; one that is not batched, again and again."""
    return x.unsqueeze(0).expand(count, *x.shape) if dim is None else x.movedim(dim, 0)


def _vmap_quantize(info: Any, in_dims: Any, x: Any, *rest: Any) -> Any:
    *how, gradient, amax = rest
    rows = _rows(x, in_dims[0], info.batch_size)
    if amax is not None and in_dims[-1] is not None:
        scales = amax.movedim(in_dims[-1], 0)
        return torch.stack([_OP(row, *how, gradient, a) for row, a in zip(rows, scales, strict=True)]), 0
    return batched(rows, unflat(*how), amax, lambda v, call: _OP(v, *flat(call), gradient, amax)), 0


torch.library.register_vmap("lowp::quantize", _vmap_quantize, lib=_LIBRARY)


@torch.library.custom_op("lowp::in_range", mutates_args=())
def in_range(x: torch.Tensor, fmt: str, axis: Sequence[int], amax: torch.Tensor | None = None) -> torch.Tensor:
    """Return where numbers lie between the smallest and the largest value of their format, in blocks of their block."""
    resolved = format_of(fmt)
    if isinstance(resolved, Packed):
        raise no_range(resolved)
    return in_range_plain(x, resolved, axis_of(axis), amax)


@in_range.register_fake
def _(x: Any, fmt: str, axis: Sequence[int], amax: Any = None) -> Any:
    if isinstance(format_of(fmt), Packed):
        raise no_range(format_of(fmt))
    return torch.empty(x.shape, dtype=torch.bool, device=x.device)


@torch.library.custom_op("lowp::tensor_amax", mutates_args=())
def tensor_amax(x: torch.Tensor, fmt: str, axis: Sequence[int]) -> torch.Tensor:
    """Return the largest magnitude that the tensor-wide scale of a format follows, as float64."""
    return amax_plain(x, format_of(fmt), axis_of(axis))


@tensor_amax.register_fake
def _(x: Any, fmt: str, axis: Sequence[int]) -> Any:
    return torch.empty((), dtype=torch.float64, device=x.device)


@torch.library.custom_op("lowp::encode", mutates_args=())
def encode(
    x: torch.Tensor,
    fmt: str,
    rounding: str,
    overflow: str,
    seed: int,
    axis: Sequence[int],
    random_bits: int,
    saturation_bits: int,
    nan: str,
) -> list[torch.Tensor]:
    """Return the parts of an encoded tensor, in the order of `part_names`."""
    call = unflat(fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, _code_nan(nan), (), ())
    _checked(x, call)
    return encode_parts(x, call.fmt, call.request, call.axis, nan or None)


def _code_nan(nan: str) -> str:
    return nan or "error"


@encode.register_fake
def _(x: Any, fmt: str, *how: Any) -> Any:
    rounding, overflow, _, axis, random_bits, saturation_bits, nan = how
    call = unflat(fmt, rounding, overflow, 0, axis, random_bits, saturation_bits, _code_nan(nan), (), ())
    _checked(x, call)
    return [torch.empty(shape, dtype=dtype, device=x.device) for shape, dtype in _part_types(x.shape, call)]


def _part_types(shape: Any, call: Call) -> list[tuple[Any, torch.dtype]]:
    fmt = call.fmt
    if isinstance(fmt, Packed):
        rows, blocks, _ = _counts(tuple(shape), fmt, call.axis)
        return [(_field_shape(field, rows, blocks), _torch_code_dtype(field.bits)) for field in fmt.fields]
    parts = [(shape, _torch_code_dtype(fmt.bits))]
    if isinstance(fmt, Block):
        scales = make_layout(tuple(shape), fmt, call.axis).scale_shape
        parts.append((scales, _torch_code_dtype(fmt.scale.bits)))
        if fmt.zero_point:
            parts.append((scales, _torch_code_dtype(fmt.element.bits)))
        if fmt.tensor_scale is not None:
            parts.append(((), torch.float64))
    return parts


def _torch_code_dtype(bits: int) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, code_dtype(bits).name)
    return dtype


@torch.library.custom_op("lowp::decode", mutates_args=())
def decode(
    parts: Sequence[torch.Tensor], fmt: str, axis: Sequence[int], shape: Sequence[int], dtype: torch.dtype
) -> torch.Tensor:
    """Return the values of encoded parts, in the order of `encode`."""
    return decode_parts(list(parts), format_of(fmt), axis_of(axis), tuple(shape), dtype)


@decode.register_fake
def _(parts: Any, fmt: str, axis: Sequence[int], shape: Any, dtype: torch.dtype) -> Any:
    return torch.empty(tuple(shape), dtype=dtype, device=parts[0].device)


def _vmap_in_range(info: Any, in_dims: Any, x: Any, fmt: str, axis: Any, amax: Any = None) -> Any:
    rows = _rows(x, in_dims[0], info.batch_size)
    scales = [amax] * len(rows) if amax is None or in_dims[3] is None else amax.movedim(in_dims[3], 0)
    results = [torch.ops.lowp.in_range(row, fmt, axis, a) for row, a in zip(rows, scales, strict=True)]
    return (torch.stack(results) if results else torch.empty(rows.shape, dtype=torch.bool, device=x.device)), 0


in_range.register_vmap(_vmap_in_range)


def _vmap_encode(info: Any, in_dims: Any, x: Any, *how: Any) -> Any:
    rows = x.movedim(in_dims[0], 0)
    encoded = [torch.ops.lowp.encode(row, *how) for row in rows]
    parts = [torch.stack(part) for part in zip(*encoded, strict=True)]
    return parts, [0] * len(parts)


encode.register_vmap(_vmap_encode)


def _vmap_decode(info: Any, in_dims: Any, parts: Any, fmt: str, axis: Any, shape: Any, dtype: Any) -> Any:
    dims = in_dims[0]
    results = [
        torch.ops.lowp.decode(
            [part if d is None else part.select(d, i) for part, d in zip(parts, dims, strict=True)],
            fmt, axis, shape, dtype,
        )
        for i in range(info.batch_size)
    ]  # fmt: skip
    return torch.stack(results), 0


decode.register_vmap(_vmap_decode)
