"""The Hadamard transform of tensors: one operator for torch; kernels on the CPU, array code on other devices."""

from __future__ import annotations

import math
from typing import Any

import torch

from lowp._errors import ArgumentTypeError
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


@torch.library.custom_op("lowp::hadamard", mutates_args=())
def hadamard(x: torch.Tensor, block: int, axis: int, seed: int, signs: str, inverse: bool) -> torch.Tensor:
    """Transform a tensor of floats; the seed is read as an unsigned number."""
    flips = block_signs(block, seed % _TWO_64, signs)
    wide = x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)
    if x.device.type == "cpu":
        result = torch.from_numpy(rotate(wide.detach().resolve_neg().contiguous().numpy(), flips, axis, inverse))
    else:
        own = torch.tensor(flips, dtype=wide.dtype, device=x.device)
        factor = torch.tensor(1 / math.sqrt(block), dtype=wide.dtype, device=x.device)
        result = rotate_portable(wide, own, axis, inverse, torch.stack, factor)
    return result.to(x.dtype)


@hadamard.register_fake
def _(x: Any, block: int, axis: int, seed: int, signs: str, inverse: bool) -> Any:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, *ctx.how, ctx.inverse = inputs


def _backward(ctx: Any, g: Any) -> tuple[Any, ...]:
    """The transpose of an orthonormal map is its inverse."""
    return torch.ops.lowp.hadamard(g, *ctx.how, not ctx.inverse), None, None, None, None, None


hadamard.register_autograd(_backward, setup_context=_keep)


def _batched(
    info: Any, in_dims: Any, x: Any, block: int, axis: int, seed: int, signs: str, inverse: bool
) -> tuple[Any, int]:
    return torch.ops.lowp.hadamard(x.movedim(in_dims[0], 0), block, axis + 1, seed, signs, inverse), 0


hadamard.register_vmap(_batched)
