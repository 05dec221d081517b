"""Derivatives of backward passes: a rounded tensor has the gradient of the one it stands for, in that one's basis."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from lowp.emulation._torch_pieces import by_whole, is_distributed
from lowp.emulation._torch_world import TORCH
from lowp.emulation.casting import rotate, rotate_back
from lowp.emulation.casts import Cast

if TYPE_CHECKING:
    from lowp.emulation._torch_calls import Call

__all__ = ["below_transforms", "is_wrapped", "straight", "turned_back"]

Tensor = torch.Tensor
Turn = Callable[[Tensor], Tensor]


def is_wrapped(x: Tensor) -> bool:
    """Whether a tensor stands for another one inside a transform of torch.func."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def below_transforms() -> Any:
    """Return a context in which tensors that no transform of torch.func wraps give none that one wraps."""
    return nullcontext() if torch._C._functorch.maybe_current_level() is None else torch._C._DisableFuncTorch()


class Stand(torch.autograd.Function):
    """A rounded tensor in place of another one; `back` brings the gradient into that one's basis."""

    @staticmethod
    def forward(x: Tensor, rounded: Tensor, back: Turn | None) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.dtype, ctx.back = inputs[0].dtype, inputs[2]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (g,) = gradients
        return (g if ctx.back is None else ctx.back(g)).to(ctx.dtype), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, rounded: Any, back: Turn | None) -> Any:
        """Replace one tensor after another."""
        pairs = [
            [t if d is None else t.select(d, i) for t, d in zip((x, rounded), in_dims[:2], strict=True)]
            for i in range(info.batch_size)
        ]
        return torch.stack([Stand.apply(*pair, back) for pair in pairs]), 0  # type: ignore[no-untyped-call]


class Turned(torch.autograd.Function):
    """A tensor in another basis; the gradient is turned by the inverse rotation, which is the transpose."""

    @staticmethod
    def forward(x: Tensor, there: Turn, back: Turn) -> Tensor:
        y = by_whole(x, there) if is_distributed(x) else there(x.detach())
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, ctx.there, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return Turned.apply(gradients[0], ctx.back, ctx.there), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, there: Turn, back: Turn) -> Any:
        """Turn one tensor after another."""
        parts = [Turned.apply(part, there, back) for part in x.unbind(in_dims[0])]  # type: ignore[no-untyped-call]
        return torch.stack(parts), 0


def turned_back(call: Call, x: Tensor, product: str, cast: Cast, axis: int) -> Tensor:
    """Return `x`, in the basis of the rotation that `cast` made in a product, in the original basis; differentiable."""
    if not cast.hadamard:
        return x
    signs = call.sign_seed(product, cast)
    result: Tensor = Turned.apply(  # type: ignore[no-untyped-call]
        x, lambda t: rotate_back(TORCH, t, cast, axis, signs), lambda t: rotate(TORCH, t, cast, axis, signs)
    )
    return result


def straight(x: Tensor, rounded: Tensor, back: Turn | None = None) -> Tensor:
    """Return the rounded tensor; where a graph is recorded, with the gradient of `x`.

    Args:
        x: What was rounded.
        rounded: What became of it.
        back: Brings a gradient from the basis of `rounded` into that of `x`; None: they have one basis.
    """
    if torch.is_grad_enabled() and (x.requires_grad or is_wrapped(x)):
        result: Tensor = Stand.apply(x, rounded, back)  # type: ignore[no-untyped-call]
        return result
    return rounded
