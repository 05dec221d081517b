"""Convolutions whose operands are rounded: along input channels, output channels, and the batch for the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional

from lowp.emulation._torch_calls import Call, inside, wide
from lowp.emulation._torch_matmul import HANDLERS, PASS, prepared
from lowp.emulation._torch_products import _is_same, check_forgettable, mask_like, refuse_tangents
from lowp.emulation._torch_straight import straight, turned_back
from lowp.emulation.casting import Rounded

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor


class Geometry(NamedTuple):
    """The arguments of `aten.convolution` after input, weight and bias."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int

    @property
    def weight_axis(self) -> int:
        """Axis of the weight that the forward product sums over; its other channel axis is 1 minus that."""
        return 0 if self.transposed else 1


class Kept:
    """What the forward pass leaves for the backward pass beside the operands themselves."""

    __slots__ = ("w", "x")

    def __init__(self) -> None:
        self.x: Rounded | None = None
        self.w: Rounded | None = None


def rounded_in_groups(
    call: Call, geometry: Geometry, x: Tensor, role: str, product: str, axis: int, outer: int, forward: Any = None
) -> Rounded:
    """Round an operand, of each group of channels by itself: no sum goes from one group to another.

    Output channels (transposed: input channels) of the weight, and channels of the other operands, come in groups.
    """
    if geometry.groups == 1:
        return call.round(x, role, product, axis, outer, forward=forward)
    place = _group_axis(role)
    apart = None if forward is None else Rounded(_apart(forward.values, place, geometry))
    axis, outer = (d + 1 if d >= place else d for d in (axis, outer))
    rounded = call.round(_apart(x, place, geometry), role, product, axis, outer, forward=apart)
    mask = None if rounded.mask is None else rounded.mask.flatten(place, place + 1)
    return Rounded(rounded.values.flatten(place, place + 1), mask, rounded.amax)


def _group_axis(role: str) -> int:
    return 0 if role == "weight" else 1


def _apart(x: Tensor, axis: int, geometry: Geometry) -> Tensor:
    return x.unflatten(axis, (geometry.groups, -1))  # type: ignore[no-untyped-call,no-any-return]


def _turned_back(call: Call, geometry: Geometry, y: Tensor, role: str, product: str, axis: int) -> Tensor:
    """Return a tensor that lies as an operand in the basis of that operand, from that of its rotation in a product."""
    cast = call.cast(role, product)
    if geometry.groups == 1:
        return turned_back(call, y, product, cast, axis)
    place = _group_axis(role)
    axis = axis + 1 if axis >= place else axis
    return turned_back(call, _apart(y, place, geometry), product, cast, axis).flatten(place, place + 1)


def _convolve(x: Tensor, w: Tensor, bias: Any, geometry: Geometry) -> Tensor:
    result: Tensor = torch.ops.aten.convolution.default(x, w, bias, *geometry)
    return result


def _transposed_for_input(g: Tensor, x_shape: Any, w: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient of the input of a convolution; differentiable in g and w."""
    x = g.new_zeros(()).expand(x_shape)
    result: Tensor = torch.ops.aten.convolution_backward.default(g, x, w, None, *geometry, [True, False, False])[0]
    return result


def _for_weight(g: Tensor, x: Tensor, w_shape: Any, geometry: Geometry) -> Tensor:
    """Return the gradient of the weight of a convolution; differentiable in g and x."""
    w = g.new_zeros(()).expand(w_shape)
    result: Tensor = torch.ops.aten.convolution_backward.default(g, x, w, None, *geometry, [False, True, False])[1]
    return result


def _forward_sum(call: Call, x: Tensor, w: Tensor, bias: Any, geometry: Geometry) -> Tensor:
    """Return a convolution; an accumulator's groups are input channels (each with all taps of the kernel)."""
    x, w, axis = wide(x), wide(w), geometry.weight_axis
    bias = None if bias is None else bias.to(x.dtype)
    if not call.cast("accumulator", "forward"):
        return _convolve(x, w, bias, geometry)

    def part(channels: slice) -> Tensor:
        return _convolve(x[:, channels], w[(slice(None),) * axis + (channels,)], None, geometry)

    y = call.accumulate(x.shape[1], "forward", part, can_split=geometry.groups == 1)
    return y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))


def _input_sum(call: Call, g: Tensor, x_shape: Any, w: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient of the input; an accumulator's groups are output channels."""
    g, w, axis = wide(g), wide(w), 1 - geometry.weight_axis

    def part(channels: slice) -> Tensor:
        return _transposed_for_input(g[:, channels], x_shape, w[(slice(None),) * axis + (channels,)], geometry)

    return call.accumulate(g.shape[1], "grad_input", part, can_split=geometry.groups == 1)


def _weight_sum(call: Call, g: Tensor, x: Tensor, w_shape: Any, geometry: Geometry) -> Tensor:
    """Return the gradient of the weight; an accumulator's groups are entries of the batch."""
    g, x = wide(g), wide(x)
    return call.accumulate(
        len(x), "grad_weight", lambda batch: _for_weight(g[batch], x[batch], w_shape, geometry), pieces=False
    )


class Convolution(torch.autograd.Function):
    """`x * w + bias` with its two backward products."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Any, call: Call, geometry: Geometry, kept: Kept) -> Tensor:
        axis = geometry.weight_axis
        with inside(x.device.type):
            kept.x = rx = rounded_in_groups(call, geometry, x, "activation", "forward", 1, 0)
            kept.w = rw = rounded_in_groups(call, geometry, w, "weight", "forward", axis, 1 - axis)
            y = _forward_sum(call, rx.values, rw.values, bias, geometry)
            result: Tensor = call.output(y, "forward", x.dtype, axis=1)
            return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, w, bias, call, geometry, kept = inputs
        need_x, need_w = ctx.needs_input_grad[:2]
        keep_x = need_w and _is_kept(call, "activation", "grad_weight")
        keep_w = need_x and _is_kept(call, "weight", "grad_input")
        ctx.call, ctx.geometry, ctx.x_shape, ctx.w_shape = call, geometry, x.shape, w.shape
        ctx.dtypes = x.dtype, w.dtype, None if bias is None else bias.dtype
        if kept.x is None or kept.w is None:
            check_forgettable(call, ("activation", "weight"))
            ctx.save_for_backward(x if need_w else None, w if need_x else None, None, None, None, None)
            return
        ctx.save_for_backward(
            x if need_w else None,
            w if need_x else None,
            kept.x.values if keep_x else None,
            kept.w.values if keep_w else None,
            kept.x.mask if need_x else None,
            kept.w.mask if need_w else None,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (g,) = gradients
        x, w, kept_x, kept_w, mask_x, mask_w = ctx.saved_tensors
        call, geometry, axis = ctx.call, ctx.geometry, ctx.geometry.weight_axis
        need_x, need_w, need_bias = ctx.needs_input_grad[:3]
        dx = dw = dbias = None
        with inside(g.device.type):
            if need_x:
                rounded_g = _rounded_gradient(call, geometry, g, "grad_input", 1)
                rounded_w, rotated = _again(call, geometry, w, kept_w, "weight", "grad_input", 1 - axis, axis)
                dx = _input_sum(call, rounded_g, ctx.x_shape, rounded_w, geometry)
                dx = _finished(call, geometry, dx, "activation", "grad_input", mask_x, rotated, 1, ctx.dtypes[0])
            if need_w:
                rounded_g = _rounded_gradient(call, geometry, g, "grad_weight", 0)
                rounded_x, rotated = _again(call, geometry, x, kept_x, "activation", "grad_weight", 0, 1)
                dw = _weight_sum(call, rounded_g, rounded_x, ctx.w_shape, geometry)
                dw = _finished(call, geometry, dw, "weight", "grad_weight", mask_w, rotated, axis, ctx.dtypes[1])
            if need_bias:
                dbias = wide(g).sum((0, *range(2, g.ndim))).to(ctx.dtypes[2])
        return dx, dw, dbias, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, w: Any, bias: Any, call: Call, geometry: Geometry, kept: Kept) -> Any:
        """Run one convolution after another: each is a call of its own."""
        results = []
        for i in range(info.batch_size):
            one = [t if d is None else t.select(d, i) for t, d in zip((x, w, bias), in_dims[:3], strict=True)]
            another = call if i == 0 else call.run.call(call.operation, call.layer)
            results.append(Convolution.apply(*one, another, geometry, Kept()))  # type: ignore[no-untyped-call]
        return torch.stack(results), 0


Convolution.jvp = staticmethod(refuse_tangents)  # type: ignore[method-assign]


def convolution_gradients(
    call: Call, geometry: Geometry, g: Tensor, x: Tensor, w: Tensor, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of input, weight and bias, as far as they are wanted, of a cast that keeps nothing."""
    axis = geometry.weight_axis
    dx = dw = dbias = None
    if wanted[0]:
        rounded = [
            rounded_in_groups(call, geometry, g, "gradient", "grad_input", 1, 0),
            rounded_in_groups(call, geometry, w, "weight", "grad_input", 1 - axis, axis),
        ]
        dx = _input_sum(call, rounded[0].values, x.shape, rounded[1].values, geometry)
        dx = call.output(dx, "grad_input", x.dtype, axis=1)
    if wanted[1]:
        rounded = [
            rounded_in_groups(call, geometry, g, "gradient", "grad_weight", 0, 1),
            rounded_in_groups(call, geometry, x, "activation", "grad_weight", 0, 1),
        ]
        dw = _weight_sum(call, rounded[0].values, rounded[1].values, w.shape, geometry)
        dw = call.output(dw, "grad_weight", w.dtype, axis=axis, pieces=False)
    if wanted[2]:
        dbias = wide(g).sum((0, *range(2, g.ndim))).to(g.dtype)
    return dx, dw, dbias


def _is_kept(call: Call, role: str, product: str) -> bool:
    return call.cast(role, product).reuse or _is_same(call, role, product)


def _rounded_gradient(call: Call, geometry: Geometry, g: Tensor, product: str, axis: int) -> Tensor:
    rounded = rounded_in_groups(call, geometry, g, "gradient", product, axis, 1 - axis)
    return straight(g, rounded.values, lambda t: _turned_back(call, geometry, t, "gradient", product, axis))


def _again(
    call: Call, geometry: Geometry, x: Tensor, kept: Any, role: str, product: str, axis: int, outer: int
) -> tuple[Tensor, bool]:
    """Return the operand that meets the gradient, and whether it is in the basis of the forward rotation."""
    cast = call.cast(role, product)
    if kept is not None and not cast.reuse:
        call.note(product, role)
        return straight(x, kept), False
    forward = None if kept is None else Rounded(kept)
    rounded = rounded_in_groups(call, geometry, x, role, product, axis, outer, forward)

    def back(t: Tensor) -> Tensor:
        if not cast.reuse or cast.requantize:
            t = _turned_back(call, geometry, t, role, product, axis)
        return _turned_back(call, geometry, t, role, "forward", outer) if cast.reuse else t

    return straight(x, rounded.values, back), cast.reuse and bool(call.cast(role, "forward").hadamard)


def _finished(
    call: Call, geometry: Geometry, y: Tensor, role: str, product: str, mask: Any, rotated: bool, axis: int,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    if mask is not None:
        y = y * mask_like(mask, True, y)
    if rotated:
        y = _turned_back(call, geometry, y, role, "forward", axis)
    result: Tensor = call.output(y, product, dtype, axis=axis, pieces=role != "weight")
    return result


def _listed(value: Any, dims: int) -> list[int]:
    return [int(v) for v in value] * (dims // len(value)) if isinstance(value, tuple | list) else [int(value)] * dims


def _same_padding(x: Tensor, weight: Tensor, dilation: list[int]) -> tuple[Tensor, list[int]]:
    """Return the input and the padding on both sides of padding="same"; an odd total goes to the end, by zeros."""
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(t % 2 for t in totals):
        extra = [n for t in reversed(totals) for n in (0, t % 2)]
        x = functional.pad(x, extra)
    return x, [t // 2 for t in totals]


def _run(
    run: Emulation, name: str, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    call = run.start("conv", weight)
    if call is None:
        return PASS
    operands = prepared(run, name, x, weight, bias)
    if operands is None:
        return PASS
    x, weight, bias = operands
    dims = weight.ndim - 2
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.ndim not in (dims + 1, dims + 2) or x.shape[-dims - 1] != channels:
        return PASS  # torch says what is wrong
    batched = x.ndim == dims + 2
    x = x if batched else x[None]
    dilated = _listed(dilation, dims)
    if padding == "same":
        x, padding = _same_padding(x, weight, dilated)
    elif padding == "valid":
        padding = 0
    geometry = Geometry(
        _listed(stride, dims), _listed(padding, dims), dilated, transposed, _listed(output_padding, dims), int(groups)
    )
    y: Tensor = Convolution.apply(x, weight, bias, call, geometry, Kept())  # type: ignore[no-untyped-call]
    return y if batched else y[0]


def conv(
    run: Emulation, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,  # noqa: A002
    dilation: Any = 1, groups: int = 1,
) -> Any:  # fmt: skip
    """Emulate `torch.nn.functional.conv1d`, `conv2d` and `conv3d`."""
    return _run(run, f"conv{weight.ndim - 2}d", input, weight, bias, stride, padding, dilation, False, 0, groups)


def conv_transpose(
    run: Emulation, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,  # noqa: A002
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    """Emulate `torch.nn.functional.conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`."""
    name = f"conv_transpose{weight.ndim - 2}d"
    return _run(run, name, input, weight, bias, stride, padding, dilation, True, output_padding, groups)


def convolution(
    run: Emulation, input: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,  # noqa: A002
    transposed: bool, output_padding: Any, groups: int,
) -> Any:  # fmt: skip
    """Emulate `torch.convolution` and `torch.ops.aten.convolution`."""
    return _run(run, "convolution", input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)


HANDLERS.update(
    {
        **{getattr(torch, f"conv{n}d"): conv for n in (1, 2, 3)},
        **{getattr(functional, f"conv{n}d"): conv for n in (1, 2, 3)},
        **{getattr(torch, f"conv_transpose{n}d"): conv_transpose for n in (1, 2, 3)},
        **{getattr(functional, f"conv_transpose{n}d"): conv_transpose for n in (1, 2, 3)},
        torch.convolution: convolution,
        torch.ops.aten.convolution: convolution,
        torch.ops.aten.convolution.default: convolution,
    }
)
