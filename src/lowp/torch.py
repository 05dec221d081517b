"""The verbs of `lowp` on torch tensors: same names, same bits, and gradients.

`lowp.quantize`, `lowp.encode` and `lowp.decode` accept tensors too; here `quantize` also takes the gradient's rule, and
the place of a piece in a larger tensor. All of them are operators to torch (`torch.ops.lowp`): torch.compile keeps them
in one graph, `torch.func` transforms them, autocast leaves their dtypes alone, and DDP, FSDP2 and DTensor give the bits
of one process.
"""

from __future__ import annotations

from typing import Any

import torch

from lowp.emulation import Cast, Recipe, Rule
from lowp.emulation import torch_optim as optim
from lowp.emulation._torch_emulate import Emulated, emulate, every_operation
from lowp.emulation._torch_mode import Emulation
from lowp.emulation._torch_unit import matmul as _matmul
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matrix_units import MatrixUnit
from lowp.formats import Format
from lowp.rounding import Encoded, decode
from lowp.rounding._torch import encode_tensor, quantize_tensor
from lowp.rounding._torch_scale import LearnedScale, lsq_quantize_tensor, lsq_scale_tensor
from lowp.rounding.gradients import GRADIENTS, register_gradient
from lowp.rounding.shard import Shard

__all__ = [
    "GRADIENTS",
    "Cast",
    "Emulated",
    "Emulation",
    "LearnedScale",
    "Recipe",
    "Rule",
    "Shard",
    "decode",
    "emulate",
    "encode",
    "every_operation",
    "lsq_quantize",
    "lsq_scale",
    "matmul",
    "optim",
    "quantize",
    "register_gradient",
]


def quantize(
    x: Any,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: int = 0,
    axis: int | tuple[int, int] = -1,
    out: Any = None,
    *,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
    gradient: str = "straight_through",
    shard: Shard | None = None,
    group: Any = None,
) -> Any:
    """Round a tensor to the values of a format, once; the same bits as `lowp.quantize` gives for the same numbers.

    Special cases are those of `lowp.quantize`. Backward, the gradient passes "straight_through" (Bengio, Leonard and
    Courville, arXiv:1308.3432), or "clipped": only where the value lies between the format's smallest and largest
    value (in a block: those of the block); "learned_scale" as "clipped", "none" not at all, or as a rule of your own
    says, see `register_gradient`. Tangents of forward-mode differentiation pass alike.

    The result has the dtype of `x`, under autocast too, and is C-contiguous whatever the strides of `x`
    (`channels_last` included). Under `torch.func.vmap` every example is rounded as it would be alone: random bits
    follow positions in the example, and a tensor-wide scale is that of the example. While a compiler traces, an unknown
    name raises; a value that has no place raises when the graph runs, and on other devices than the CPU becomes NaN.

    A DTensor gives a DTensor of the same placements, of the bits that one process would compute: random bits follow
    positions in the whole tensor, tensor-wide scales its largest magnitude. Pending sums are carried out first; a block
    that would lie in two pieces is an error.

    Args:
        x: Dense tensor of float16, bfloat16, float32, float64 or integers (which give float64), on any device,
            contiguous or not; or a DTensor. Never modified unless `out is x`.
        fmt: A format or its name.
        rounding: As `lowp.quantize`, like the arguments that follow.
        overflow: Overflow mode.
        seed: Seed of the stochastic modes.
        axis: Axis, or pair of axes, that blocks run along.
        out: Tensor to write into, of the result's shape, dtype and device; no gradient passes then. It may be `x`, and
            a leaf that requires a gradient.
        random_bits: Random bits of the stochastic modes.
        saturation_bits: Saturated bits of the wrapping overflow modes.
        nan: What becomes of NaN where the format has none.
        gradient: A key of `GRADIENTS`.
        shard: Where `x` lies in a larger tensor, whose positions the random bits follow.
        group: Process group whose processes hold the pieces of one tensor: tensor-wide scales follow the largest
            magnitude of all. Every process must call.

    Returns:
        A tensor of the shape, dtype and device of `x`.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError, RangeError: As `lowp.quantize`.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.3, 500.0], requires_grad=True)
        >>> quantize(x, "fp8", gradient="clipped").sum().backward()
        >>> x.grad.tolist()
        [1.0, 0.0]
    """
    return quantize_tensor(
        x, fmt, rounding, overflow, seed, axis, out, random_bits, saturation_bits, nan, gradient, shard, group
    )


def encode(
    x: Any, fmt: str | Format, rounding: str = "ties_to_even", overflow: str = "saturate", **options: Any
) -> Encoded:
    """Round a tensor to the codes of a format; codes and scales are tensors on its device, without gradient.

    Special cases, arguments and errors are those of `lowp.encode`. Inside torch.compile and `torch.func` the tensor
    scale is a tensor too.

    Example:
        >>> import torch
        >>> encode(torch.tensor([0.3, 448.0]), "float8_e4m3fn").codes.tolist()
        [42, 126]
    """
    return encode_tensor(x, fmt, rounding, overflow, **options)


def lsq_quantize(
    x: torch.Tensor, scale: Any, fmt: str | Format, rounding: str = "ties_to_even", **options: Any
) -> torch.Tensor:
    """Return `quantize(x / scale) * scale` with a gradient for the scale, so that it is learned (LSQ).

    Quotient and product are rounded to the dtype of `x`. The gradient of `x` passes strictly inside the format's range.
    That of the scale is `q(v) - v` inside, with `v = x / scale`, and the end of the range outside; summed, and divided
    by `sqrt(N * max)`, where N numbers share the scale and max is the format's largest value. Source: Esser et al.,
    "Learned Step Size Quantization", arXiv:1902.08153.

    Args:
        x: Tensor of floats.
        scale: Positive number or tensor that broadcasts to the shape of `x`; rounded to its dtype.
        fmt: A scalar format or its name.
        rounding: As `quantize`.
        **options: overflow, seed, random_bits and shard, as `quantize`.

    Returns:
        A tensor of the shape, dtype and device of `x`.

    Raises:
        FormatError: `fmt` is a block format, whose scales are no parameters.
        ArgumentError: `scale` has another device or does not broadcast, or on the CPU is not positive.
        ArgumentTypeError: `x` is no tensor of floats; unknown options.

    Example:
        >>> x, scale = torch.tensor([0.3, -1.0, 9.0]), torch.tensor(0.5, requires_grad=True)
        >>> lsq_quantize(x, scale, "int4").tolist()
        [0.5, -1.0, 3.5]
        >>> lsq_quantize(x, scale, "int4").sum().backward()
        >>> round(scale.grad.item(), 4)
        1.6148
    """
    return lsq_quantize_tensor(x, scale, fmt, rounding, **options)


def lsq_scale(x: torch.Tensor, fmt: str | Format, axis: int | tuple[int, ...] | None = None) -> torch.Tensor:
    """Return the scale from which LSQ starts: twice the mean magnitude over the square root of the largest value.

    1 where that is zero. Source: Esser et al., arXiv:1902.08153, section 2.1.

    Args:
        x: Tensor of floats.
        fmt: A scalar format or its name.
        axis: Axes along which each index has a scale of its own, such as 0 for one per output channel; None for one.

    Returns:
        A tensor that broadcasts to the shape of `x`.

    Example:
        >>> round(lsq_scale(torch.tensor([1.0, -3.0]), "uint4").item(), 4)
        1.0328
    """
    return lsq_scale_tensor(x, fmt, axis)


def matmul(
    a: Any,
    b: Any,
    c: Any = None,
    unit: str | MatrixUnit | None = None,
    *,
    accumulator: Accumulator | str | Format | None = None,
    fmt: str | Format | None = None,
    trace: bool = False,
) -> Any:
    """Return `a @ b + c`, summed as a matrix unit or an accumulator does; the same bits as `lowp.matmul`.

    One operator to torch (`torch.ops.lowp.matmul`): torch.compile keeps it in the graph, `torch.func` transforms it.
    Backward, the gradient is that of the plain product (straight-through), in the dtype of the result; scales of
    encoded operands get none. CPU tensors are summed by the NumPy kernels; those of other devices there, where array
    code has the unit, and otherwise on the CPU. Under `torch.func.vmap` every example is summed as it would be alone.

    Args:
        a: Tensor of shape (..., m, k) or (k,), or `lowp.Encoded` codes whose blocks run along the last axis.
        b: Tensor of shape (..., k, n) or (k,); blocks run along the axis of k.
        c: Addend of shape (..., m, n), or None for +0.
        unit: A matrix unit or its name, see `lowp.matrix_units()`.
        accumulator: An `Accumulator` in place of a unit, or a format for one that adds in it.
        fmt: Format that results are rounded to in the end, once more.
        trace: Return a `SumReport` with the result; not while torch compiles or transforms.

    Returns:
        A tensor of float32 where that holds the results' format, else float64.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: As `lowp.matmul`; operands on different devices.

    Example:
        >>> import torch
        >>> a = quantize(torch.full((1, 4096), 0.0625), "float8_e4m3fn").requires_grad_()
        >>> y = matmul(a, a.T, unit="hopper/wgmma_m64n8k32/e4m3_e4m3/f32")
        >>> y.backward()
        >>> y.item(), a.grad[0, 0].item()
        (16.0, 0.125)
    """
    return _matmul(a, b, c, unit=unit, accumulator=accumulator, fmt=fmt, trace=trace)
