"""Block formats on float32 and float64 arrays: choose scales, round elements, multiply back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError
from lowp.formats.block import Block
from lowp.formats.integer import Integer
from lowp.formats.tables import code_dtype, decode_codes, scalar_format
from lowp.rounding import _exact_steps
from lowp.rounding._layout import Layout, make_layout
from lowp.rounding._scalar import encode_values, integer_values, quantize_values
from lowp.rounding._wrap import WRAPPING
from lowp.rounding.encoded import Encoded
from lowp.rounding.modes import rounding
from lowp.rounding.recipes import (
    FLOAT32_DECODING,
    Scales,
    choose_scales,
    stored_elements,
)
from lowp.rounding.request import Request, make_request

#: NaN, infinity and overflow are results here, and each has its rule.
_QUIET = np.errstate(all="ignore")
#: Numbers from which a kernel's call is worth its price.
_QUICK_FROM = 1 << 12
#: How a product is rounded to a dtype that NumPy's own cast would round twice.
_IEEE = make_request("ties_to_even", "infinity_or_nan", 0, None, 0, "keep", ("keep",))


@_QUIET
def quantize_blocks(x: NDArray[Any], fmt: Block, request: Request, axis: Any, dtype: str) -> NDArray[Any]:
    """Return `x` rounded to `fmt` and to the values of `dtype` (a dtype name; see `_rescale`)."""
    layout, scales, request = _prepare(x, fmt, request, axis)
    scaled = np.ascontiguousarray(scales.scaled(x))
    if scales.zero_points is not None:
        n = _offset_integers(scaled, scales, layout, fmt, request)
        elements = n - layout.spread(scales.zero_points)
        elements[np.isnan(scaled)] = np.nan
    else:
        elements = stored_elements(quantize_values(scaled, fmt.element, request), fmt)
    return _rescale(elements, scales, layout, dtype, fmt)


@_QUIET
def encode_blocks(x: NDArray[Any], fmt: Block, request: Request, axis: Any) -> Encoded:
    """Return the codes of `x` in `fmt`; elements of a block whose scale is NaN get code 0, or the recipe's own."""
    if x.size >= _QUICK_FROM and x.dtype == np.float32:
        from lowp.rounding._tiles import encode_tiled

        quick = encode_tiled(x, fmt, request, axis)
        if quick is not None:
            layout = make_layout(x.shape, fmt, axis)
            return Encoded(quick[0], fmt, quick[1], None, quick[2], _kept_axis(layout, fmt))
    layout, scales, request = _prepare(x, fmt, request, axis)
    codes = _quick_codes(x, scales, layout, fmt, request)
    if codes is None:
        codes = _codes(x, scales, layout, fmt, request)
    kept = _kept_axis(layout, fmt)
    return Encoded(codes, fmt, scales.codes, scales.zero_point_codes, scales.tensor_scale, kept)


def _kept_axis(layout: Layout, fmt: Block) -> int | tuple[int, int]:
    """Return the axis that an encoded array is said to have blocks along, or the pair."""
    if len(layout.axes) == 2 and isinstance(fmt.size, tuple):
        return layout.axes[0], layout.axes[1]
    return layout.axes[0] if len(layout.axes) == 1 else -1


def _codes(x: NDArray[Any], scales: Scales, layout: Layout, fmt: Block, request: Request) -> NDArray[Any]:
    """Return the codes of elements, by exact quotients."""
    scaled = np.ascontiguousarray(scales.scaled(x))
    if not scales.own_nan_codes:
        scaled = np.where(layout.spread(np.isnan(scales.values)), scaled.dtype.type(0), scaled)
    if scales.zero_points is None:
        return encode_values(scaled, fmt.element, request)
    return _offset_codes(_offset_integers(scaled, scales, layout, fmt, request), fmt)


def _quick_codes(x: NDArray[Any], scales: Scales, layout: Layout, fmt: Block, request: Request) -> NDArray[Any] | None:
    """Return the same for finite float32 in consecutive blocks, where a kernel rounds the elements; else None."""
    from lowp.rounding._fast_blocks import rounded_elements

    if x.size < _QUICK_FROM or x.dtype != np.float32 or not np.isfinite(scales.values).all():
        return None
    if not np.isfinite(x).all():
        return None
    elements = rounded_elements(x, layout, scales, fmt, request)
    if elements is None:
        return None
    if scales.zero_points is None:
        return encode_values(elements, fmt.element, request)
    return _offset_codes(elements + layout.spread(scales.zero_points), fmt)


def _offset_codes(n: NDArray[Any], fmt: Block) -> NDArray[Any]:
    return (n.astype(np.int64) & ((1 << fmt.element.bits) - 1)).astype(code_dtype(fmt.element.bits))


@_QUIET
def decode_blocks(encoded: Encoded, dtype: str) -> NDArray[Any]:
    """Return the values of block codes: `element * scale * tensor_scale`, rounded once to `dtype`."""
    fmt = encoded.format
    assert isinstance(fmt, Block)
    assert encoded.scales is not None
    layout = make_layout(encoded.codes.shape, fmt, encoded.axis)
    if encoded.scales.shape != layout.scale_shape:
        raise ArgumentError(
            f"scales have shape {encoded.scales.shape}; codes of shape {encoded.codes.shape} need {layout.scale_shape}."
        )
    values = decode_codes(encoded.scales, fmt.scale)
    zeros = None if encoded.zero_points is None else decode_codes(encoded.zero_points, fmt.element)
    scales = Scales(encoded.scales, values, lambda v: v, encoded.tensor_scale, zero_points=zeros)
    if encoded.codes.size >= _QUICK_FROM:
        from lowp.rounding._fast_blocks import decoded_quickly

        found = decoded_quickly(encoded.codes, scales, layout, dtype, fmt)
        if found is not None:
            return found
    elements = stored_elements(decode_codes(encoded.codes, fmt.element), fmt)
    if zeros is not None:
        elements = elements - layout.spread(zeros)
    return _rescale(elements, scales, layout, dtype, fmt)


def _prepare(x: NDArray[Any], fmt: Block, request: Request, axis: Any) -> tuple[Layout, Scales, Request]:
    layout = make_layout(x.shape, fmt, axis)
    finite = np.isfinite(x)
    chosen_from = x
    if not finite.all():
        if fmt.nonfinite == "error":
            raise RangeError(f"x holds NaN or infinity, which {fmt.name!r} refuses (nonfinite='error').")
        if fmt.nonfinite == "element":
            chosen_from = np.where(finite, x, x.dtype.type(0))
        elif not fmt.scale.has_nan:
            raise RangeError(
                f"x holds NaN or infinity, and scales in {fmt.scale.name!r} cannot mark a block as NaN; "
                "use a Block with nonfinite='element'."
            )
    scales = choose_scales(chosen_from, layout, fmt, request)
    if scales.element_rounding and request.mode.name == "ties_to_even":
        request = request._replace(mode=rounding(scales.element_rounding))
    return layout, scales, request


def _offset_integers(
    scaled: NDArray[Any], scales: Scales, layout: Layout, fmt: Block, request: Request
) -> NDArray[np.float64]:
    """Return `clamp(round(x / scale) + zero_point)`, the integers that are stored."""
    assert isinstance(fmt.element, Integer)
    assert scales.zero_points is not None
    if request.overflow in WRAPPING:
        raise ArgumentError(f"overflow={request.overflow!r} is not defined for {fmt.name!r}: its integers are offset.")
    n = integer_values(np.where(np.isnan(scaled), 0.0, scaled), fmt.element, request)
    shifted = np.clip(n, -(2.0**40), 2.0**40) + layout.spread(scales.zero_points)
    return np.asarray(np.clip(shifted, fmt.element.min_integer, fmt.element.max_integer))


def _rescale(elements: NDArray[Any], scales: Scales, layout: Layout, dtype: str, fmt: Block) -> NDArray[Any]:
    """Multiply elements by their scales; one rounding of the exact product to `dtype`.

    float16, float32 and float64 come back as such, other dtypes (bfloat16) as float32 that holds their values.
    """
    values, tensor_scale = scales.values, scales.tensor_scale
    if fmt.recipe in FLOAT32_DECODING:
        factors = layout.spread(values.astype(np.float32) * np.float32(1 if tensor_scale is None else tensor_scale))
        product = (elements.astype(np.float32) * factors).astype(np.float64)
        tensor_scale = None
    else:
        product = np.multiply(elements, layout.spread(values), dtype=np.float64)
    if tensor_scale is not None and tensor_scale != 1.0:
        factor = np.full_like(product, tensor_scale)
        product = product * factor if dtype == "float64" else _exact_steps.multiply(product, factor)
    if dtype in ("float64", "float32", "float16"):
        return np.asarray(product.astype(dtype, copy=False))
    narrowed = quantize_values(np.ascontiguousarray(product), scalar_format(dtype, "dtype"), _IEEE)
    return np.asarray(narrowed.astype(np.float32))


@_QUIET
def representable_range(x: NDArray[Any], fmt: Block, axis: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest value that each element's block can hold, given the scales `x` would get."""
    request = make_request("ties_to_even", "saturate", 0, None, 0, "keep", ("keep",))
    layout, scales, _ = _prepare(x, fmt, request, axis)
    unit = layout.spread(scales.values) * (1.0 if scales.tensor_scale is None else scales.tensor_scale)
    zero = 0.0 if scales.zero_points is None else layout.spread(scales.zero_points)
    ends = (fmt.element.min - zero) * unit, (fmt.element.max - zero) * unit
    return np.minimum(*ends), np.maximum(*ends)
