"""Scale recipes: from the elements of each block to its scale, and from an element to the number that is rounded.

The recipes of the standards are exact: the scale is the exact quotient rounded once into the scale format, and an
element is the exact quotient by that scale rounded once into the element format. The recipes of vendors repeat the
vendor's float32 operations in the vendor's order; they live in `lowp.rounding._vendor_recipes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import FormatError, warn_caller
from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype, decode_codes
from lowp.rounding import _exact_steps
from lowp.rounding._layout import Layout
from lowp.rounding._scalar import encode_values
from lowp.rounding.request import Request, make_request

#: Recipes of systems that decode in two float32 steps: scale times tensor scale, then times the element.
FLOAT32_DECODING = ("nvfp4_torchao", "nvfp4_modelopt")


@dataclass(frozen=True)
class Scales:
    """What a recipe decides for one array.

    Attributes:
        codes: Scale codes, one per block.
        values: The same decoded, float64.
        scaled: Returns the numbers to be rounded into the element format, one per element of `x`.
        tensor_scale: The tensor's scale, or None.
        zero_points: Zero points per block as float64, or None.
        zero_point_codes: The codes that the zero points are stored as, or None.
        element_rounding: A rounding mode that the recipe prescribes instead of ties to even, or None.
        own_nan_codes: Whether elements of a block whose scale is NaN keep the codes that `scaled` leads to, as in the
            system; otherwise their codes are 0.
        multiplier: One float32 per block where `scaled` is, for finite numbers, the float32 product with it.
    """

    codes: NDArray[Any]
    values: NDArray[np.float64]
    scaled: Callable[[NDArray[Any]], NDArray[Any]]
    tensor_scale: float | None = None
    zero_points: NDArray[np.float64] | None = None
    zero_point_codes: NDArray[Any] | None = None
    element_rounding: str | None = None
    own_nan_codes: bool = False
    multiplier: NDArray[np.float32] | None = None


def exponent_of(value: float) -> int:
    """Return `floor(log2(value))`; for an element's largest value, `emax` of the OCP MX text."""
    return int(np.frexp(value)[1]) - 1


def element_precision(element: ScalarFormat) -> int:
    """Return the stored mantissa bits of the element (integers: magnitude bits less one), as the "even" rule needs."""
    if isinstance(element, Float):
        return element.mantissa_bits
    if isinstance(element, Integer | Fixed):
        return element.bits - element.signed - 1
    raise FormatError(f"recipe 'even' needs float or integer elements, not {element.name!r}.")


def choose_scales(x: NDArray[Any], layout: Layout, fmt: Block, request: Request | None = None) -> Scales:
    """Return the scales of `x` by the recipe that `fmt` names; `request` is how its elements will be rounded."""
    if fmt.recipe in _STANDARD:
        return _standard(x, layout, fmt)
    if fmt.recipe == "absmean":
        return _absmean(x, layout, fmt)
    if fmt.recipe.startswith("fouroversix"):
        from lowp.rounding._fouroversix_recipes import choose

        return choose(x, layout, fmt, request or scale_request("ties_to_even"))
    from lowp.rounding._vendor_recipes import VENDOR_RECIPES

    return VENDOR_RECIPES[fmt.recipe](x, layout, fmt)


def stored_elements(elements: NDArray[Any], fmt: Block) -> NDArray[Any]:
    """Return what decoded element codes count for: without the -0 that one system reads as +0."""
    return elements + 0.0 if fmt.recipe == "nvfp4_modelopt" else elements


def _exponent_floor(amax: NDArray[Any], fmt: Block) -> NDArray[Any]:
    return np.asarray(np.frexp(amax)[1] - 1)


def _exponent_ceil(amax: NDArray[Any], fmt: Block) -> NDArray[Any]:
    fraction, exponent = np.frexp(amax)
    return np.asarray(exponent - (fraction == 0.5))


def _exponent_even(amax: NDArray[Any], fmt: Block) -> NDArray[Any]:
    fraction, exponent = np.frexp(amax)
    # With a zero point the codes count from the lowest one up, and no bit is a sign.
    precision = fmt.element.bits - 1 if fmt.zero_point else element_precision(fmt.element)
    return np.asarray(exponent - 1 + (fraction >= 1 - 2.0 ** -(precision + 2)))


#: Recipes of the standards: the exponent of amax, less that of max, makes the scale; or amax / max is rounded.
_STANDARD: dict[str, Callable[..., Any] | str] = {
    "floor": _exponent_floor,
    "ceil": _exponent_ceil,
    "even": _exponent_even,
    "rceil": "toward_positive",
    "round": "ties_to_even",
}


def _standard(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    if fmt.zero_point:
        low = np.minimum(layout.reduce(x, np.min), 0).astype(np.float64)
        high = np.maximum(layout.reduce(x, np.max), 0).astype(np.float64)
        return _asymmetric(low, high, layout, fmt)
    amax = layout.amax(x).astype(np.float64)
    tensor = _tensor_scale(amax, fmt) if fmt.tensor_scale else None
    return divided(scale_codes(amax, fmt.element.scale_target, fmt, tensor or 1.0), layout, fmt, tensor)


def _tensor_scale(amax: NDArray[np.float64], fmt: Block) -> float:
    """Return the largest finite magnitude over what elements and scales can reach; 1 where that rounds to 0."""
    assert fmt.tensor_scale is not None
    largest = np.max(amax, initial=0.0, where=np.isfinite(amax))
    wanted = _exact_steps.divide(np.array([largest]), np.array([fmt.element.scale_target * fmt.scale.max]))
    code = encode_values(wanted, fmt.tensor_scale, scale_request("ties_to_even"))
    return float(decode_codes(code, fmt.tensor_scale)[0]) or 1.0


def _absmean(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """The mean over the elements that are there: padding of a last, shorter block does not count."""
    magnitude = np.abs(x).astype(np.float64)
    mean = layout.reduce(magnitude, np.sum) / layout.reduce(np.ones_like(magnitude), np.sum)
    return divided(rounded_scales(mean, fmt, "ties_to_even"), layout, fmt)


def divided(codes: NDArray[Any], layout: Layout, fmt: Block, tensor: float | None = None) -> Scales:
    """Return the scales of those codes; elements are the exact quotients."""
    values = decode_codes(codes, fmt.scale)
    units = values * (tensor or 1.0)
    return Scales(codes, values, lambda v: divide_blocks(v, units, layout), tensor_scale=tensor)


def divide_blocks(x: NDArray[Any], scales: NDArray[np.float64], layout: Layout) -> NDArray[np.float64]:
    """Return `x / scale` rounded to odd; 0 where the scale is 0, NaN where it is NaN."""
    spread = layout.spread(scales)
    quotient = _exact_steps.divide(x, spread)
    return np.where(spread == 0, np.where(np.isnan(x), np.nan, 0.0), quotient)


def scale_codes(amax: NDArray[np.float64], span: float, fmt: Block, tensor: float = 1.0) -> NDArray[Any]:
    """Return scale codes for blocks of largest magnitude `amax`, which `span` element units should cover."""
    rule = _STANDARD[fmt.recipe]
    if not callable(rule):
        return rounded_scales(_exact_steps.divide(amax, np.full_like(amax, span * tensor)), fmt, rule)
    if tensor != 1.0:
        amax = _exact_steps.divide(amax, np.full_like(amax, tensor))
    clean = np.where(np.isfinite(amax), amax, 0.0)
    wanted = np.ldexp(1.0, np.clip(rule(clean, fmt) - exponent_of(span), -1000, 1000))
    wanted = np.where(np.isfinite(amax), np.where(clean == 0, 0.0, wanted), np.nan)
    return rounded_scales(wanted, fmt, "ties_to_even")


def rounded_scales(wanted: NDArray[np.float64], fmt: Block, mode: str) -> NDArray[Any]:
    """Round to scale codes; NaN and infinity get the NaN code."""
    bad = ~np.isfinite(wanted)
    if (wanted[~bad] > fmt.scale.max).any():
        warn_caller(
            f"a block needs a scale beyond {fmt.scale.name!r}, which ends at {fmt.scale.max}; its elements clip. Use a "
            "scale format of more range, or divide x first."
        )
    codes = encode_values(np.where(bad, 0.0, wanted), fmt.scale, scale_request(mode))
    nan_code = fmt.scale.nan_code if isinstance(fmt.scale, Float) else None
    if bad.any() and nan_code is not None:
        codes = np.where(bad, codes.dtype.type(nan_code), codes)
    return codes


def scale_request(mode: str) -> Request:
    """Return how a scale is rounded into its format: saturating, with `mode`."""
    return make_request(mode, "saturate", 0, None, 0, "error", ("error",))


def _asymmetric(low: NDArray[np.float64], high: NDArray[np.float64], layout: Layout, fmt: Block) -> Scales:
    element = fmt.element
    assert isinstance(element, Integer)
    span = float(element.max_integer - element.min_integer)
    codes = scale_codes(_exact_steps.subtract(high, low), span, fmt)
    values = decode_codes(codes, fmt.scale)
    with np.errstate(invalid="ignore"):
        exact = _exact_steps.divide(-low, values)
        below = np.floor(exact)
        upper_is_even = (below + element.min_integer) % 2 == 1  # the zero point is even, not the offset
        offset = np.where(exact - below == 0.5, below + upper_is_even, np.rint(exact))
    zero = np.where(np.isfinite(offset), element.min_integer + offset, 0.0)
    zero = np.clip(zero, element.min_integer, element.max_integer)

    def scaled(x: NDArray[Any]) -> NDArray[np.float64]:
        return divide_blocks(x, values, layout)

    stored = (zero.astype(np.int64) & ((1 << element.bits) - 1)).astype(code_dtype(element.bits))
    return Scales(codes, values, scaled, zero_points=zero, zero_point_codes=stored)
