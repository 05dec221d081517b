"""The Hadamard transform of tensors: one operator for torch; kernels on the CPU, array code on other devices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._functorch.autograd_function import enable_single_level_autograd_function  # type: ignore[attr-defined]
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from lowp._errors import ArgumentTypeError
from lowp.rounding._torch_plain import numbers
from lowp.rounding.hadamard import block_signs, rotate, rotate_portable

_TWO_63, _TWO_64 = 1 << 63, 1 << 64


def hadamard_tensor(x: torch.Tensor, block: int, axis: int, seed: int, signs: str, inverse: bool) -> torch.Tensor:
    """Transform a tensor; every argument has been checked. See `lowp.rounding.hadamard.hadamard`."""
    if x.dtype == torch.bool or x.dtype.is_complex or x.layout != torch.strided:
        raise ArgumentTypeError(f"x is a {x.layout} tensor of dtype {x.dtype}; allowed: dense tensors of real numbers.")
    wide = x if x.dtype.is_floating_point else x.to(torch.float64)
    as_signed = seed - _TWO_64 if seed >= _TWO_63 else seed
    result: torch.Tensor = torch.ops.lowp.hadamard(wide, block, axis, as_signed, signs, inverse)
    return result


def hadamard(x: torch.Tensor, block: int, axis: int, seed: int, signs: str, inverse: bool) -> torch.Tensor:
    """Transform a tensor of floats; the seed is read as an unsigned number."""
    flips = block_signs(block, seed % _TWO_64, signs)
    wide = x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)
    if x.device.type == "cpu":
        result = torch.from_numpy(rotate(numbers(wide), flips, axis, inverse))
    else:
        own = torch.tensor(flips, dtype=wide.dtype, device=x.device)
        factor = torch.tensor(1 / math.sqrt(block), dtype=wide.dtype, device=x.device)
        result = rotate_portable(wide, own, axis, inverse, torch.stack, factor)
    return result.to(x.dtype)


def _fake(x: Any, block: int, axis: int, seed: int, signs: str, inverse: bool) -> Any:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


# The operator's own autograd kernel: those that torch.library.register_autograd makes refuse torch.func.grad, and give
# no forward-mode derivative.
_LIBRARY: Any = torch.library.Library("lowp", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("hadamard" + torch.library.infer_schema(hadamard, mutates_args=()), tags=torch.Tag.pt2_compliant_tag)
_LIBRARY.impl("hadamard", hadamard, "CompositeExplicitAutograd")
torch.library.register_fake("lowp::hadamard", _fake, lib=_LIBRARY)
_OP = torch.ops.lowp.hadamard.default


class _Node(_SingleLevelFunction):
    """What a call of the operator leaves for its derivatives, at one level of transforms."""

    @staticmethod
    def forward(ctx: Any, keyset: Any, x: Any, *how: Any) -> Any:
        lower = torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True)  # levels of transforms below record too
        with lower[0], lower[1], torch._C._AutoDispatchBelowAutograd():
            y = _OP.redispatch(keyset & torch._C._after_autograd_keyset, x, *how)
        *ctx.how, ctx.inverse = how
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        """The transpose of an orthonormal map is its inverse."""
        return None, torch.ops.lowp.hadamard(gradients[0], *ctx.how, not ctx.inverse), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return torch.ops.lowp.hadamard(tangents[1], *ctx.how, ctx.inverse)


def _autograd(keyset: Any, *args: Any) -> Any:
    transformed = forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None
    if transformed or (torch.is_grad_enabled() and args[0].requires_grad):
        with enable_single_level_autograd_function():
            return _Node.apply(keyset, *args)  # type: ignore[attr-defined]
    with torch._C._AutoDispatchBelowAutograd():
        return _OP.redispatch(keyset & torch._C._after_autograd_keyset, *args)


_LIBRARY.impl("hadamard", _autograd, "Autograd", with_keyset=True)


def _batched(
    info: Any, in_dims: Any, x: Any, block: int, axis: int, seed: int, signs: str, inverse: bool
) -> tuple[Any, int]:
    return torch.ops.lowp.hadamard(x.movedim(in_dims[0], 0), block, axis + 1, seed, signs, inverse), 0


torch.library.register_vmap("lowp::hadamard", _batched, lib=_LIBRARY)
