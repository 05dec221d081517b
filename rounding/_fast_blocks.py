"""The common block cases of float32 in a pass or two over memory; codebooks and zero points to nearest even alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.rounding._layout import make_layout
from lowp.rounding._narrow import NARROWED, narrow_products
from lowp.rounding._threads import split
from lowp.rounding._tiles import quantize_tiled
from lowp.rounding.recipes import FLOAT32_DECODING, choose_scales
from lowp.rounding.request import Request

#: Recipes whose elements are a quotient or a float32 product, and whose values are `element * scale * tensor_scale`.
_SERVED = ("floor", "ceil", "even", "rceil", "round", "absmean", "nvfp4_te", "nvfp4_torchao")


def try_fast(
    x: NDArray[Any],
    fmt: Block,
    request: Request,
    axis: Any,
    target: NDArray[Any] | None,
    start: int = 0,
    pitch: int | None = None,
    dtype: str = "float32",
) -> NDArray[Any] | None:
    """Return the quantized array in float32, or None where the case is not a common one.

    `x` is C-contiguous; `dtype` names the dtype to whose values products are rounded: float32, float16 or bfloat16.
    Where `x` is a piece of a larger array, `start` is the position of its first element there, and `pitch` the distance
    from one row of its last axis to the next (default: its length, so that positions follow on).
    """
    if x.dtype != np.float32 or x.ndim == 0 or x.size == 0 or dtype not in NARROWED:
        return None
    out = target if target is not None and target.dtype == np.float32 and target.flags.c_contiguous else None
    result = quantize_tiled(x, out, fmt, request, axis, start, pitch, dtype)
    if result is not None or request.mode.variant:
        return result
    inner = type(axis) is int and -x.ndim <= axis < x.ndim - 1 and axis != -1
    if inner and (isinstance(fmt.size, int) or fmt.size == "row"):  # two copies cost less than the general path
        moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        result = _consecutive(moved, fmt, request, -1, None, dtype)
        return None if result is None else np.ascontiguousarray(np.moveaxis(result, -1, axis))
    return _consecutive(x, fmt, request, axis, out, dtype)


@np.errstate(all="ignore")
def _consecutive(
    x: NDArray[Any], fmt: Block, request: Request, axis: Any, target: NDArray[Any] | None, dtype: str
) -> NDArray[Any] | None:
    """Finite float32 in consecutive blocks, any scale: one pass for the extremes, one for the elements."""
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
    result = np.empty_like(x) if target is None else target
    products = result if dtype == "float32" else np.empty(x.shape)
    source, sink, flat_steps, flat_units = x.reshape(-1), products.reshape(-1), steps.reshape(-1), units.reshape(-1)

    def part(a: int, b: int) -> None:
        blocks = slice(a // size, -(-b // size))
        zero = zeros[blocks] if scales.zero_points is not None else zeros
        multiplies = scales.multiplier is not None
        run(source[a:b], sink[a:b], fmt, request.mode, flat_steps[blocks], flat_units[blocks], zero, size, multiplies)

    split(x.size, part, unit=size)
    if products is not result:
        narrow_products(products, result, fmt, dtype)
    return result
