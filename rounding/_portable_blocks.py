"""Block formats as array code for NumPy, torch and JAX: the steps of `lowp.rounding._blocks`, the same bits.

Everything runs inside `xp.wide()`; 16-bit floats are widened by their bits. Where numbers cannot be looked at, under a
compiler, what would raise an error makes the block NaN instead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentError, RangeError
from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._layout import make_layout
from lowp.rounding._portable import decode_values, encode_values
from lowp.rounding._portable_bits import widen as widen_bits
from lowp.rounding._portable_quick import nearest, rounds_to_nearest
from lowp.rounding._portable_recipes import Scales, Work, choose_scales, tensor_magnitude
from lowp.rounding._portable_shapes import Cut
from lowp.rounding._portable_steps import float32_suffices, near_suffices
from lowp.rounding._wrap import WRAPPING
from lowp.rounding.lowering import fits_float32
from lowp.rounding.modes import rounding
from lowp.rounding.recipes import FLOAT32_DECODING
from lowp.rounding.request import Request, make_request

#: Integers of more bits than any sum of an element and a zero point needs.
_OFFSET, _QUICK_OFFSET = Fixed(50, 0), Fixed(25, 0)
_FAR = 2.0**40
#: Bits of units for decisions at 21 and at 25 bits by quotients three bits short, and the powers of two they reach.
_MOST_UNIT_BITS, _FEWEST_UNIT_BITS, _MOST_REACH = 28, 24, 160
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class BlockParts(NamedTuple):
    """The arrays of an encoded array: codes, scale codes, zero points or None, and the tensor scale or None."""

    codes: Any
    scales: Any
    zero_points: Any = None
    tensor_scale: Any = None


def quantize_blocks(
    xp: Any, x: Any, fmt: Block, request: Request, axis: Any, positions: Any = None, amax: Any = None
) -> Any:
    """Return `x` rounded to `fmt`, in its own dtype: float16, bfloat16, float32 or float64.

    Args:
        xp: The namespace of `x`.
        x: The array.
        fmt: The block format.
        request: How elements are rounded.
        axis: Axis or axes that blocks run along.
        positions: Positions of the elements for random bits, as for `quantize_values`.
        amax: The largest magnitude of the whole tensor, one number, for formats with a scale per tensor where `x` is
            a part of it; or its float bits as an integer, see `tensor_amax`.
    """
    layout = make_layout(tuple(x.shape), fmt, axis)
    if 0 in layout.shape:
        return x
    with xp.wide():
        work, wide, scales, poison = _prepare(xp, x, fmt, request, Cut(layout), positions, amax, values_only=True)
        scaled = scales.scaled(wide)
        if scales.zero_points is not None:
            elements = _offset_integers(scaled, scales, work) - scales.zero_points
            elements = xp.where(doubles.is_nan(xp, scaled), math.nan, elements)
        else:
            elements = _stored_elements(_rounded_elements(scaled, work), work)
        if poison is not None:
            elements = xp.where(poison, math.nan, elements)
        name = xp.dtype_name(x)
        return work.cut.join(_rescaled(elements, scales, name, work))


def encode_blocks(
    xp: Any, x: Any, fmt: Block, request: Request, axis: Any, positions: Any = None, amax: Any = None
) -> BlockParts:
    """Return the codes of `x` in `fmt`; arguments as for `quantize_blocks`."""
    layout = make_layout(tuple(x.shape), fmt, axis)
    if 0 in layout.shape:
        return _nothing(xp, x, fmt, request, axis)
    with xp.wide():
        work, wide, scales, _ = _prepare(xp, x, fmt, request, Cut(layout), positions, amax)
        cut = work.cut
        scaled = scales.scaled(wide)
        if not scales.own_nan_codes:
            scaled = xp.where(doubles.is_nan(xp, scales.values), 0.0, scaled)
        zero_codes = None
        if scales.zero_points is not None:
            mask = (1 << fmt.element.bits) - 1
            n = xp.cast(cut.join(_offset_integers(scaled, scales, work)), "int64") & mask
            codes = xp.cast(n, code_dtype(fmt.element.bits).name)
            zeros = xp.cast(cut.as_scales(scales.zero_points), "int64") & mask
            zero_codes = xp.cast(zeros, code_dtype(fmt.element.bits).name)
        else:
            codes = encode_values(xp, cut.join(scaled), fmt.element, work.request, positions)
        tensor = scales.tensor_scale
        if tensor is not None:
            assert isinstance(fmt.tensor_scale, Float)
            name = "float32" if fits_float32(fmt.tensor_scale) else "float64"
            tensor = doubles.narrow(xp, tensor, name).reshape(())
        scale_codes = xp.cast(cut.as_scales(scales.codes), code_dtype(fmt.scale.bits).name)
        return BlockParts(codes, scale_codes, zero_codes, tensor)


def decode_blocks(xp: Any, parts: BlockParts, fmt: Block, axis: Any, dtype: str) -> Any:
    """Return the values of block codes: `element * scale * tensor_scale`, rounded once to the dtype named."""
    layout = make_layout(tuple(parts.codes.shape), fmt, axis)
    if tuple(parts.scales.shape) != layout.scale_shape:
        raise ArgumentError(
            f"scales have shape {tuple(parts.scales.shape)}; codes of shape {layout.shape} need {layout.scale_shape}."
        )
    with xp.wide():
        cut = Cut(layout)
        request = make_request("ties_to_even", "saturate", 0, None, 0, "keep", ("keep",))
        work = Work(xp, cut, fmt, request, None, None, math.inf)
        elements = cut.split(xp, decode_values(xp, parts.codes, fmt.element, "float64"))
        elements = _stored_elements(elements, work)
        if parts.zero_points is not None:
            elements = elements - cut.per_block(decode_values(xp, parts.zero_points, fmt.element, "float64"))
        tensor = parts.tensor_scale
        if tensor is not None:
            if isinstance(tensor, float | int):
                tensor = work.number(tensor, elements[(slice(0, 1),) * elements.ndim])
            tensor = doubles.widen(xp, tensor).reshape((1,) * len(cut.shape))
        values = cut.per_block(decode_values(xp, parts.scales, fmt.scale, "float64"))
        return cut.join(_rescaled(elements, Scales(parts.scales, values, lambda v: v, tensor), dtype, work))


def representable_range(xp: Any, x: Any, fmt: Block, axis: Any, amax: Any = None) -> tuple[Any, Any]:
    """Return the least and the largest value that each element's block can hold, given the scales `x` would get.

    Float64, so to be used inside `xp.wide()`; `inside_range` compares right away.
    """
    request = make_request("ties_to_even", "saturate", 0, None, 0, "keep", ("keep",))
    with xp.wide():
        layout = make_layout(tuple(x.shape), fmt, axis)
        work, _, scales, _ = _prepare(xp, x, fmt, request, Cut(layout), None, amax)
        unit = scales.values
        if scales.tensor_scale is not None:
            unit = doubles.product(xp, unit, scales.tensor_scale)
        zero = 0.0 if scales.zero_points is None else scales.zero_points
        whole = work.number(1.0, work.cut.split(xp, x))
        ends = [
            work.cut.join(doubles.product(xp, work.number(end, unit) - zero, unit) * whole)
            for end in (fmt.element.min, fmt.element.max)
        ]
        return xp.minimum(*ends), xp.maximum(*ends)


def inside_range(xp: Any, x: Any, fmt: Block, axis: Any, amax: Any = None) -> Any:
    """Return whether each element lies in the range of its block: where a "clipped" gradient passes."""
    if 0 in x.shape:
        return x == x
    with xp.wide():
        low, high = representable_range(xp, x, fmt, axis, amax)
        wide = doubles.widen(xp, as_elements(xp, x))
        return (wide >= low) & (wide <= high)


def tensor_amax(xp: Any, x: Any, fmt: Block, axis: Any) -> Any:
    """Return what parts of one tensor reduce by their maximum to the `amax` that all of them need, as an integer.

    It is the bits of a float (float32, or float64 for a float64 array), so that NaN wins over infinity and infinity
    over numbers where a system has it so. None where no scale depends on the whole tensor.
    """
    if fmt.tensor_scale is None and fmt.size != "tensor":
        return None
    request = make_request("ties_to_even", "saturate", 0, None, 0, "keep", ("keep",))
    with xp.wide():
        name = "float64" if xp.dtype_name(x) == "float64" else "float32"
        if 0 in x.shape:
            return xp.constant(np.zeros((), "int64" if name == "float64" else "int32"), x)
        work = Work(xp, Cut(make_layout(tuple(x.shape), fmt, axis)), fmt, request, None, None, math.inf)
        wide = as_elements(xp, x)
        if fmt.nonfinite == "element":
            wide = xp.where(doubles.is_finite(xp, wide), wide, 0.0)
        bits = tensor_magnitude(work.cut.split(xp, wide), work)
        return xp.bits(doubles.narrow(xp, doubles.from_bits(xp, bits), name))


def _prepare(
    xp: Any, x: Any, fmt: Block, request: Request, cut: Cut, positions: Any, amax: Any, values_only: bool = False
) -> tuple[Work, Any, Scales, Any]:
    """Return how to work, the cut float64 array, its scales, and where blocks become NaN for want of an error."""
    if amax is not None:
        if "int" in xp.dtype_name(amax):
            amax = xp.floats(amax, "float64" if xp.dtype_name(amax) == "int64" else "float32")
        amax = doubles.magnitude(xp, doubles.widen(xp, as_elements(xp, amax)))
    name = xp.dtype_name(x)
    reach = math.inf if name == "float64" else _FLOAT32_MAX
    quick = name != "float64" and float32_suffices(fmt.element, request)
    near = name != "float64" and _near_suffices(fmt, request, values_only)
    work = Work(xp, cut, fmt, request, positions, amax, reach, quick, near)
    wide = cut.split(xp, as_elements(xp, x))
    chosen_from, poison = wide, None
    if fmt.nonfinite == "element":
        chosen_from = xp.where(doubles.is_finite(xp, wide), wide, 0.0)
    elif fmt.nonfinite == "error" or not fmt.scale.has_nan:
        poison = ~doubles.is_finite(xp, work.block_amax(wide))
        xp.require(~poison, x, lambda: _nonfinite(fmt))
        chosen_from = xp.where(doubles.is_finite(xp, wide), wide, 0.0)
    scales = choose_scales(chosen_from, work)
    if scales.element_rounding and request.mode.name == "ties_to_even":
        work = replace(work, request=request._replace(mode=rounding(scales.element_rounding)))
    return work, wide, scales, poison


def _near_suffices(fmt: Block, request: Request, values_only: bool) -> bool:
    """Whether quotients of float32 numbers may be three bits short: points of decision have at most 25 bits."""
    extents = [_extent(part) for part in (fmt.scale, fmt.tensor_scale) if part is not None]
    if not all(isinstance(part, Float) for part in (fmt.scale, fmt.tensor_scale) if part is not None):
        return False
    bits = sum(extent[0] for extent in extents if extent)
    reach = max(max(-extent[1], extent[2]) for extent in extents if extent)
    if reach > _MOST_REACH or fmt.zero_point:
        return False
    if values_only and rounds_to_nearest(fmt.element, request):
        return bits <= _MOST_UNIT_BITS
    return bits <= _FEWEST_UNIT_BITS and near_suffices(fmt.element, request)


def _rounded_elements(scaled: Any, work: Work) -> Any:
    """Return the elements of cut numbers."""
    element, request = work.fmt.element, work.request
    if work.near and rounds_to_nearest(element, request) and work.xp.dtype_name(scaled) == "float64":
        assert isinstance(element, Float | Integer | Fixed)
        return nearest(work.xp, scaled, element)
    return work.rounded(scaled, element, request)


def as_elements(xp: Any, x: Any) -> Any:
    """Return numbers as float32 where that holds them, else float64."""
    name = xp.dtype_name(x)
    return x if name in ("float32", "float64") else xp.floats(widen_bits(xp, xp.bits(x), name, 32), "float32")


def _nonfinite(fmt: Block) -> RangeError:
    if fmt.nonfinite == "error":
        return RangeError(f"x holds NaN or infinity, which {fmt.name!r} refuses (nonfinite='error').")
    return RangeError(
        f"x holds NaN or infinity, and scales in {fmt.scale.name!r} cannot mark a block as NaN; "
        "use a Block with nonfinite='element'."
    )


def _offset_integers(scaled: Any, scales: Scales, work: Work) -> Any:
    """Return `clamp(round(x / scale) + zero_point)`, the integers that are stored, as float64."""
    xp, fmt, request = work.xp, work.fmt, work.request
    assert isinstance(fmt.element, Integer)
    if request.overflow in WRAPPING:
        raise ArgumentError(f"overflow={request.overflow!r} is not defined for {fmt.name!r}: its integers are offset.")
    plain = request._replace(overflow="saturate", saturation_bits=0)
    grid = _QUICK_OFFSET if xp.dtype_name(scaled) == "float32" else _OFFSET
    n = doubles.widen(xp, work.rounded(xp.where(doubles.is_nan(xp, scaled), 0.0, scaled), grid, plain))
    shifted = xp.minimum(xp.maximum(n, -_FAR), _FAR) + scales.zero_points
    return xp.minimum(xp.maximum(shifted, float(fmt.element.min_integer)), float(fmt.element.max_integer))


def _stored_elements(elements: Any, work: Work) -> Any:
    """Return what elements count for: without the -0 that one system reads as +0."""
    if work.fmt.recipe != "nvfp4_modelopt":
        return elements
    return work.xp.where(doubles.is_zero(work.xp, elements), 0.0, elements)


def _rescaled(elements: Any, scales: Scales, dtype: str, work: Work) -> Any:
    """Multiply elements by their scales; one rounding of the exact product to `dtype`."""
    xp, fmt = work.xp, work.fmt
    values, tensor, elements = scales.values, scales.tensor_scale, doubles.widen(xp, elements)
    if fmt.recipe in FLOAT32_DECODING:
        factors = doubles.to_float32(xp, values if tensor is None else doubles.to_float32(xp, values) * tensor)
        product = doubles.to_float32(xp, doubles.to_float32(xp, elements) * factors)
        tensor = None
    elif _is_exact(fmt):
        product = elements * values
    else:
        product = doubles.product(xp, elements, values)
    if tensor is not None:
        if _is_exact(fmt, with_tensor=True):
            product = product * tensor
        else:
            product = doubles.product(xp, product, tensor, odd=dtype != "float64")
    return doubles.narrow(xp, product, dtype)


def _is_exact(fmt: Block, with_tensor: bool = False) -> bool:
    """Whether a product of element and scale, and the tensor's scale, is a float64 number and not subnormal."""
    extents = [_extent(part) for part in (fmt.element, fmt.scale, *([fmt.tensor_scale] if with_tensor else []))]
    known = [extent for extent in extents if extent is not None]
    if len(known) < len(extents):
        return False
    bits, least, top = (sum(numbers) for numbers in zip(*known, strict=True))
    return bool(bits <= 53 and least > -1000 and top < 1000)


def _extent(part: ScalarFormat | None) -> tuple[int, int, int] | None:
    """Return significant bits, and exponents of the least and the largest magnitude; None where those are unknown."""
    if isinstance(part, Float):
        return part.mantissa_bits + 1, part.emin - part.mantissa_bits, part.emax + 1
    if isinstance(part, Integer | Fixed):
        return part.bits + 1, -part.fraction_bits, part.bits
    return _codebook_extent(part) if isinstance(part, Codebook) else None


@lru_cache(maxsize=64)
def _codebook_extent(book: Codebook) -> tuple[int, int, int]:
    """Return the same of a codebook."""
    ratios = [abs(v).as_integer_ratio() for v in map(float, book.values) if v != 0 and math.isfinite(v)]
    parts = [(n >> (low := (n & -n).bit_length() - 1), low - (d.bit_length() - 1)) for n, d in ratios] or [(1, 0)]
    return (
        max(n.bit_length() for n, _ in parts),
        min(e for _, e in parts),
        max(n.bit_length() + e for n, e in parts),
    )


def _nothing(xp: Any, x: Any, fmt: Block, request: Request, axis: Any) -> BlockParts:
    """The parts of an array without elements."""
    from lowp.rounding._blocks import encode_blocks as encode_numpy

    encoded = encode_numpy(np.zeros(tuple(x.shape), np.float32), fmt, request, axis)
    with xp.wide():
        codes, scales, zero_points, tensor = (
            None if part is None else xp.constant(np.asarray(part), x)
            for part in (encoded.codes, encoded.scales, encoded.zero_points, encoded.tensor_scale)
        )
        return BlockParts(codes, scales, zero_points, None if tensor is None else xp.cast(tensor, "float32"))
