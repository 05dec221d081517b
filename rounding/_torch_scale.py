"""Rounding with a learned scale: LSQ, Esser et al., arXiv:1902.08153."""

from __future__ import annotations

import math
from typing import Any

import torch

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import scalar_format
from lowp.rounding._torch import quantize_tensor
from lowp.rounding._torch_gradients import is_plain

_OPTIONS = ("overflow", "seed", "random_bits", "shard")


def lsq_quantize_tensor(
    x: torch.Tensor, scale: Any, fmt: str | Format, rounding: str = "ties_to_even", **options: Any
) -> torch.Tensor:
    """Round in units of a scale; see `lowp.torch.lsq_quantize`."""
    low, high = _ends(fmt)
    step = _step(x, scale, options)
    v = x.detach() / step.detach()
    q = quantize_tensor(v, fmt, rounding, **options)
    inside = (v > low) & (v < high)
    weight = 1 / math.sqrt(max(x.numel() // max(step.numel(), 1), 1) * high)
    slope = torch.where(inside, q - v, torch.where(v <= low, low, high)) * weight
    # The value with two terms that are -0, which changes no number: the first carries the gradient of x, the second
    # that of the scale. Autograd, torch.func and torch.compile read them as any other arithmetic.
    of_x = -torch.where(inside, x.detach() - x, 0)
    of_scale = -(slope.abs() * torch.where(slope > 0, step.detach() - step, step - step.detach()))
    return q * step.detach() + of_x + of_scale


@torch.compiler.assume_constant_result
def _ends(fmt: str | Format) -> tuple[float, float]:
    scalar: ScalarFormat = scalar_format(fmt, "lsq_quantize")
    return scalar.min, scalar.max


def _step(x: Any, scale: Any, options: dict[str, Any]) -> torch.Tensor:
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ArgumentTypeError(f"lsq_quantize takes no {', '.join(unknown)}; its options are {', '.join(_OPTIONS)}.")
    if not isinstance(x, torch.Tensor) or not x.dtype.is_floating_point:
        kind = f"a tensor of {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ArgumentTypeError(f"x is {kind}; allowed: tensors of floats.")
    step = scale.to(x.dtype) if isinstance(scale, torch.Tensor) else torch.tensor(scale, dtype=x.dtype, device=x.device)
    if step.device != x.device:
        raise ArgumentError(f"scale is on device {step.device}, x on {x.device}; both must be on one device.")
    lengths = zip(step.shape[::-1], x.shape[::-1], strict=False)
    if step.ndim > x.ndim or any(n not in (1, m) for n, m in lengths):
        raise ArgumentError(
            f"scale has shape {tuple(step.shape)}, which does not broadcast to that of x, {tuple(x.shape)}."
        )
    if not torch.compiler.is_compiling() and is_plain(step) and step.is_cpu and not bool((step > 0).all()):
        raise ArgumentError(f"scale={scale!r:.80} must be positive.")
    return step


def lsq_scale_tensor(x: torch.Tensor, fmt: str | Format, axis: Any = None) -> torch.Tensor:
    """Return the scale to start from; see `lowp.torch.lsq_scale`."""
    _, high = _ends(fmt)
    magnitude = x.detach().abs()
    if axis is None:
        mean = magnitude.mean()
    else:
        kept = {a % x.ndim for a in (axis if isinstance(axis, tuple | list) else (axis,))}
        mean = magnitude.mean(dim=[a for a in range(x.ndim) if a not in kept], keepdim=True)
    start = 2 * mean / math.sqrt(high)
    return torch.where(start > 0, start, torch.ones_like(start))


class LearnedScale(torch.nn.Module):
    """A module that rounds its input in units of a scale that training learns; see `lsq_quantize`.

    Args:
        fmt: A scalar format or its name.
        scale: Where the scale starts, a tensor or a number, see `lsq_scale`; it becomes the parameter `scale`.
        rounding: As `lsq_quantize`.
        **options: As `lsq_quantize`.

    Example:
        >>> from lowp.torch import LearnedScale, lsq_scale
        >>> weight = torch.tensor([[0.5, -0.25], [4.0, 1.0]])
        >>> module = LearnedScale("int4", lsq_scale(weight, "int4", axis=0))
        >>> module.scale.shape, module(weight).shape
        (torch.Size([2, 1]), torch.Size([2, 2]))
    """

    def __init__(self, fmt: str | Format, scale: Any, rounding: str = "ties_to_even", **options: Any) -> None:
        super().__init__()
        self.fmt, self.rounding, self.options = scalar_format(fmt, "LearnedScale"), rounding, options
        self.scale = torch.nn.Parameter(torch.as_tensor(scale).detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Round `x` in units of the scale."""
        return lsq_quantize_tensor(x, self.scale, self.fmt, self.rounding, **self.options)

    def extra_repr(self) -> str:
        """What is printed of the module."""
        return f"{self.fmt.name}, scale of shape {tuple(self.scale.shape)}, {self.rounding}"
