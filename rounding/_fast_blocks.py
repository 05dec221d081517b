"""The common block cases in one or two passes: float32, blocks that lie in a row, nearest even, saturating."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import E8M0, Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.rounding._layout import make_layout
from lowp.rounding._threads import split
from lowp.rounding.recipes import FLOAT32_DECODING, choose_scales, element_precision, exponent_of
from lowp.rounding.request import Request

_NO_ROUND_UP = 1 << 30
#: Recipes whose elements are a quotient or a float32 product, and whose values are `element * scale * tensor_scale`.
_SERVED = ("floor", "ceil", "even", "rceil", "round", "absmean", "nvfp4_te", "nvfp4_torchao")


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
    inner = type(axis) is int and -x.ndim <= axis < x.ndim - 1 and axis != -1
    if inner and (isinstance(fmt.size, int) or fmt.size == "row"):  # two copies cost less than the general path
        moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        result = try_fast(moved, fmt, request, -1, None)
        return None if result is None else np.ascontiguousarray(np.moveaxis(result, -1, axis))
    result = _power_of_two(x, fmt, request, axis, target)
    return result if result is not None else _float_scales(x, fmt, request, axis, target)


def _destination(x: NDArray[Any], target: NDArray[Any] | None) -> NDArray[Any]:
    usable = target is not None and target.dtype == np.float32 and target.flags.c_contiguous
    return target if usable and target is not None else np.empty_like(x)


@np.errstate(all="ignore")
def _float_scales(
    x: NDArray[Any], fmt: Block, request: Request, axis: Any, target: NDArray[Any] | None
) -> NDArray[Any] | None:
    """Finite float32 in consecutive blocks, any scale: one pass for the extremes, one for the elements."""
    if x.dtype != np.float32 or x.ndim == 0 or x.size == 0:
        return None
    from lowp.rounding._scaled_kernels import run, serves

    layout = make_layout(x.shape, fmt, axis)
    size = layout.consecutive
    if size is None or fmt.recipe not in _SERVED or not serves(fmt, request.mode, request.overflow):
        return None
    if not all(np.isfinite(extreme).all() for extreme in layout.extremes(x)):
        return None
    scales = choose_scales(x, layout, fmt)
    if scales.multiplier is None and scales.tensor_scale is not None:
        return None  # the divisor has more bits than the kernel's float64 quotient can tell apart
    steps = scales.values if scales.multiplier is None else scales.multiplier.astype(np.float64)
    if not np.isfinite(steps).all():
        return None
    units = scales.values * (1.0 if scales.tensor_scale is None else scales.tensor_scale)
    if fmt.recipe in FLOAT32_DECODING:
        units = units.astype(np.float32).astype(np.float64)
    zeros = np.zeros(1) if scales.zero_points is None else scales.zero_points.reshape(-1)
    result = _destination(x, target)
    source, sink, flat_steps, flat_units = x.reshape(-1), result.reshape(-1), steps.reshape(-1), units.reshape(-1)

    def part(a: int, b: int) -> None:
        blocks = slice(a // size, -(-b // size))
        zero = zeros[blocks] if scales.zero_points is not None else zeros
        multiplies = scales.multiplier is not None
        run(source[a:b], sink[a:b], fmt, request.mode, flat_steps[blocks], flat_units[blocks], zero, size, multiplies)

    split(x.size, part, unit=size)
    return result


def _power_of_two(
    x: NDArray[Any], fmt: Block, request: Request, axis: Any, target: NDArray[Any] | None
) -> NDArray[Any] | None:
    """Power-of-two scales along the last axis: everything in one pass."""
    rule = _scale_rule(fmt)
    element = fmt.element
    last = axis in (-1, x.ndim - 1) and isinstance(axis, int) and not isinstance(axis, bool)
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
    result = _destination(x, target)
    source, sink = x.reshape(-1), result.reshape(-1)
    size, emax = fmt.size, exponent_of(element.max)

    def part(a: int, b: int) -> None:
        quantize_power_of_two_blocks(source[a:b], sink[a:b], plan.integers, plan.floats, size, emax, *rule)

    split(x.size, part, unit=size)
    return result
