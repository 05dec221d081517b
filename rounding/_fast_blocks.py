"""The common block cases of float32 in a pass or two over memory; codebooks and zero points to nearest even alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.tables import value_table
from lowp.rounding._layout import Layout, make_layout
from lowp.rounding._narrow import NARROWED, narrow_products
from lowp.rounding._threads import split
from lowp.rounding._tiles import quantize_tiled
from lowp.rounding.recipes import FLOAT32_DECODING, Scales, choose_scales, stored_elements
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
    layout = make_layout(x.shape, fmt, axis)
    if not _is_served(layout, fmt, request) or not _is_finite(x, layout):
        return None
    scales = choose_scales(x, layout, fmt)
    units = scales.values * (1.0 if scales.tensor_scale is None else scales.tensor_scale)
    if fmt.recipe in FLOAT32_DECODING:
        units = units.astype(np.float32).astype(np.float64)
    result = np.empty_like(x) if target is None else target
    products = result if dtype == "float32" else np.empty(x.shape)
    if not _round_elements(x, products, layout, scales, units, fmt, request):
        return None
    if products is not result:
        narrow_products(products, result, fmt, dtype)
    return result


@np.errstate(all="ignore")
def rounded_elements(
    x: NDArray[Any], layout: Layout, scales: Scales, fmt: Block, request: Request
) -> NDArray[np.float32] | None:
    """Return the stored elements of finite float32 numbers, zero points taken off; None where no kernel serves."""
    if x.dtype != np.float32 or x.size == 0 or not _is_served(layout, fmt, request):
        return None
    found = np.empty(x.shape, np.float32)
    ones = np.ones(scales.values.shape)
    return found if _round_elements(x, found, layout, scales, ones, fmt, request) else None


def _is_served(layout: Layout, fmt: Block, request: Request) -> bool:
    from lowp.rounding._scaled_kernels import serves

    return layout.consecutive is not None and fmt.recipe in _SERVED and serves(fmt, request.mode, request.overflow)


def _is_finite(x: NDArray[Any], layout: Layout) -> bool:
    return all(bool(np.isfinite(extreme).all()) for extreme in layout.extremes(x))


def _round_elements(
    x: NDArray[Any],
    out: NDArray[Any],
    layout: Layout,
    scales: Scales,
    units: NDArray[Any],
    fmt: Block,
    request: Request,
) -> bool:
    """Write rounded elements times units; return whether the kernels can."""
    from lowp.rounding._scaled_kernels import run

    size = layout.consecutive
    assert size is not None
    multiplies = scales.multiplier is not None
    if not multiplies and scales.tensor_scale is not None:
        return False  # the divisor has more bits than the kernel's float64 quotient can tell apart
    steps = scales.values if scales.multiplier is None else scales.multiplier.astype(np.float64)
    if not np.isfinite(steps).all():
        return False
    zeros = np.zeros(1) if scales.zero_points is None else scales.zero_points.reshape(-1)
    source, sink, flat_steps, flat_units = x.reshape(-1), out.reshape(-1), steps.reshape(-1), units.reshape(-1)

    def part(a: int, b: int) -> None:
        blocks = slice(a // size, -(-b // size))
        zero = zeros[blocks] if scales.zero_points is not None else zeros
        run(source[a:b], sink[a:b], fmt, request.mode, flat_steps[blocks], flat_units[blocks], zero, size, multiplies)

    split(x.size, part, unit=size)
    return True


@np.errstate(all="ignore")
def decoded_quickly(
    codes: NDArray[Any], scales: Scales, layout: Layout, dtype: str, fmt: Block
) -> NDArray[np.floating[Any]] | None:
    """Return `element * scale * tensor_scale` of consecutive blocks, rounded once; None where no kernel serves."""
    size, element = layout.consecutive, fmt.element
    if size is None or dtype not in ("float32", "float64") or not codes.size or element.bits > 16:
        return None
    from lowp.rounding._scaled_kernels import decode_scaled, has_exact_products

    table = stored_elements(value_table(element), fmt)
    if not has_exact_products(fmt) or codes.dtype.kind not in "iu" or not 0 <= codes.min() <= codes.max() < table.size:
        return None
    units = scales.values * (1.0 if scales.tensor_scale is None else scales.tensor_scale)
    if fmt.recipe in FLOAT32_DECODING:
        if dtype != "float32":
            return None
        tensor = np.float32(1 if scales.tensor_scale is None else scales.tensor_scale)
        units = (scales.values.astype(np.float32) * tensor).astype(np.float64)
    zeros = np.zeros(0) if scales.zero_points is None else scales.zero_points.reshape(-1)
    found: NDArray[Any] = np.empty(codes.shape, dtype)
    source, sink, flat = np.ascontiguousarray(codes).reshape(-1), found.reshape(-1), units.reshape(-1)

    def part(a: int, b: int) -> None:
        blocks = slice(a // size, -(-b // size))
        decode_scaled(source[a:b], table, flat[blocks], zeros[blocks] if zeros.size else zeros, size, sink[a:b])

    split(codes.size, part, unit=size)
    return found
