"""The common block case in one pass: float32, blocks along the last axis, power-of-two scales, nearest even."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import E8M0, Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.rounding._threads import split
from lowp.rounding.recipes import element_precision, exponent_of
from lowp.rounding.request import Request

_NO_ROUND_UP = 1 << 30


def _scale_rule(fmt: Block) -> tuple[int, int] | None:
    """Return (mantissa from which the exponent goes up by one, bits added before), or None if there is no such rule."""
    if fmt.recipe == "floor":
        return _NO_ROUND_UP, 0
    if fmt.recipe == "ceil":
        return 1, 0
    if fmt.recipe == "even":
        return _NO_ROUND_UP, 1 << (22 - element_precision(fmt.element))
    if fmt.recipe == "rceil":  # amax > max * 2^k exactly when its mantissa exceeds that of max
        fraction = np.float32(fmt.element.max).view(np.int32) & 0x7FFFFF
        return int(fraction) + 1, 0
    return None


def try_fast(
    x: NDArray[Any], fmt: Block, request: Request, axis: Any, target: NDArray[Any] | None
) -> NDArray[Any] | None:
    """Return the quantized array, or None where the case is not the common one."""
    rule = _scale_rule(fmt)
    element = fmt.element
    last = axis in (-1, x.ndim - 1) and isinstance(axis, int)
    if rule is None or x.dtype != np.float32 or not last or x.ndim == 0 or x.size == 0 or not isinstance(fmt.size, int):
        return None
    if (
        fmt.scale != E8M0
        or fmt.tensor_scale
        or fmt.zero_point
        or fmt.nonfinite != "nan_block"
        or x.shape[-1] % fmt.size
    ):
        return None
    if request.overflow != "saturate" or not isinstance(element, Float | Integer | Fixed) or not element.signed:
        return None
    from lowp.rounding._fast_kernels import applies, fast_plan, quantize_power_of_two_blocks

    if not applies(element, request.mode) or exponent_of(element.max) > 20:
        return None
    plan = fast_plan(element, request.mode, request.overflow)
    usable = target is not None and target.dtype == np.float32 and target.flags.c_contiguous
    result = target if usable and target is not None else np.empty_like(x)
    source, sink = x.reshape(-1), result.reshape(-1)
    size, emax = fmt.size, exponent_of(element.max)

    def part(a: int, b: int) -> None:
        quantize_power_of_two_blocks(source[a:b], sink[a:b], plan.integers, plan.floats, size, emax, *rule)

    split(x.size, part, unit=size)
    return result
