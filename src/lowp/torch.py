"""The verbs of `lowp` on torch tensors: same names, same bits, and gradients.

`lowp.quantize`, `lowp.encode` and `lowp.decode` accept tensors too; here `quantize` also takes the gradient's rule.
"""

from __future__ import annotations

from typing import Any

from lowp.formats import Format
from lowp.rounding import Encoded, decode
from lowp.rounding._torch import GRADIENTS, encode_tensor, quantize_tensor

__all__ = ["GRADIENTS", "decode", "encode", "quantize"]


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
) -> Any:
    """Round a tensor to the values of a format, once; the same bits as `lowp.quantize` gives for the same numbers.

    Special cases are those of `lowp.quantize`. Backward, the gradient passes "straight_through" (Bengio, Leonard and
    Courville, arXiv:1308.3432), or "clipped": only where the value lies between the format's smallest and largest
    value (in a block: those of the block). "none" detaches.

    Args:
        x: Dense tensor of float16, bfloat16, float32, float64 or integers (which give float64), on any device,
            contiguous or not. Never modified unless `out is x`.
        fmt: A format or its name.
        rounding: As `lowp.quantize`, like the arguments that follow.
        overflow: Overflow mode.
        seed: Seed of the stochastic modes.
        axis: Axis, or pair of axes, that blocks run along.
        out: Tensor to write into; no gradient passes then.
        random_bits: Random bits of the stochastic modes.
        saturation_bits: Saturated bits of the wrapping overflow modes.
        nan: What becomes of NaN where the format has none.
        gradient: "straight_through", "clipped" or "none".

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
    return quantize_tensor(x, fmt, rounding, overflow, seed, axis, out, random_bits, saturation_bits, nan, gradient)


def encode(
    x: Any, fmt: str | Format, rounding: str = "ties_to_even", overflow: str = "saturate", **options: Any
) -> Encoded:
    """Round a tensor to the codes of a format; codes and scales are tensors on its device, without gradient.

    Special cases, arguments and errors are those of `lowp.encode`.

    Example:
        >>> import torch
        >>> encode(torch.tensor([0.3, 448.0]), "float8_e4m3fn").codes.tolist()
        [42, 126]
    """
    return encode_tensor(x, fmt, rounding, overflow, **options)
