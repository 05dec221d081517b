"""Rounding with a gradient, and learned scales."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

from lowp.formats.packed import Packed
from lowp.rounding._torch_calls import Call, flat, no_range
from lowp.rounding._torch_ops import gradient_of
from lowp.rounding._torch_plain import in_range_plain, quantize_plain
from lowp.rounding.gradients import gradient_rule

_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)


def is_plain(x: torch.Tensor) -> bool:
    """Whether a tensor holds data that kernels may read, and no mode or transform watches what is done to it."""
    return (
        type(x) in _PLAIN_TYPES
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.maybe_current_level() is None
        and forward_ad._current_level < 0
    )


def evaluate(x: torch.Tensor, call: Call, amax: torch.Tensor | None = None) -> torch.Tensor:
    """Round a tensor without gradient: at once where it is plain, else by the operator."""
    if is_plain(x):
        return quantize_plain(x, call.fmt, call.request, call.axis, None, call.shard, amax)
    result: torch.Tensor = torch.ops.lowp.quantize(x, *flat(call), "none", amax)
    return result


def differentiable(x: torch.Tensor, call: Call, gradient: str, amax: torch.Tensor | None = None) -> torch.Tensor:
    """Round a tensor such that gradients pass by the rule of that name."""
    if gradient == "none":
        x = x.detach()
    if is_plain(x):
        if not (x.requires_grad and torch.is_grad_enabled()):
            return quantize_plain(x, call.fmt, call.request, call.axis, None, call.shard, amax)
        result: torch.Tensor = _Quantize.apply(x, call, gradient, amax)  # type: ignore[no-untyped-call]
        return result
    return torch.ops.lowp.quantize(x, *flat(call), gradient, amax)  # type: ignore[no-any-return]


class _Quantize(torch.autograd.Function):
    """For plain tensors: a tenth of the cost of the operator."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, call: Call, gradient: str, amax: torch.Tensor | None) -> torch.Tensor:
        y = quantize_plain(x, call.fmt, call.request, call.axis, None, call.shard, amax)
        ctx.gradient = gradient
        if gradient_rule(gradient).rule is not None:
            ctx.save_for_backward(x, y)
        elif gradient in ("clipped", "learned_scale"):
            if isinstance(call.fmt, Packed):
                raise no_range(call.fmt)
            ctx.save_for_backward(in_range_plain(x, call.fmt, call.axis, amax))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradient_of(ctx.gradient, ctx.saved_tensors, gradients[0]), None, None, None
