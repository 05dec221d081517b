"""NVFP4 and its kin as fouroversix computes them: the same float32 operations in the same order.

A block's scale makes its largest magnitude 6 (the largest element), or 4; Four Over Six quantizes each block both ways
and keeps the better one. NaN and infinity reach the tensor's scale, so that every value becomes NaN. Where the source
divides by zero, in tensors whose largest magnitude is below 8e-36, the scales are clamped here.

One defect of the source is kept: its rounding to the nearest E2M1 number does not clamp. An element of 7 or more, which
occurs where a small block's scale is subnormal and rounds down, becomes 8 and gets the code of -0.

Sources: Cook et al., "Four Over Six", arXiv:2512.02010; mit-han-lab/fouroversix, `quantize/pytorch/reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import warn_caller
from lowp.formats.block import ADAPTIVE_RECIPES, E8M0, Block
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import decode_codes
from lowp.rounding._fp4_recipes import Float32, float32
from lowp.rounding._layout import Layout
from lowp.rounding._scalar import encode_values, quantize_values
from lowp.rounding.recipes import Scales, scale_request
from lowp.rounding.request import Request

#: The largest block scale of the adaptive rules: 1.5 times it is still in the range of E4M3.
ADAPTIVE_SCALE_MAX = 256.0
#: How much "4" scales are larger than "6" scales.
_FOUR = 1.5
#: Rounding to E4M3 makes a scale smaller by up to 1/17; with this factor elements still do not pass the largest one.
_UNBIASED = 16 / 17
_E2M1 = Float(2, 1, bias=1, specials="finite")
_FLOAT32_MAX = np.float32(np.finfo(np.float32).max)


class Span(NamedTuple):
    """What the largest magnitude of a block and of the tensor are mapped to.

    Attributes:
        element: The element that a block's largest magnitude becomes.
        scale: The scale of the block that holds the tensor's largest magnitude.
        adjustment: 16/17 for stochastic rounding, else 1.
    """

    element: float
    scale: float
    adjustment: float = 1.0

    @property
    def whole(self) -> np.float32:
        """The tensor's largest magnitude in units of the tensor scale."""
        return np.float32(self.element * self.scale * self.adjustment)


class Candidate(NamedTuple):
    """Block scales, and the float32 factor that takes an element to the number that is rounded."""

    codes: NDArray[Any]
    values: Float32
    inverse: Float32

    def scaled(self, x: Float32, spread: Callable[[NDArray[Any]], NDArray[Any]]) -> Float32:
        """Return the numbers to be rounded, without -0; 0 where the scale is 0."""
        zero = (spread(self.values) == 0) | (x == 0)
        return np.where(zero, np.float32(0), x * spread(self.inverse))


def scale_blocks(
    block_amax: Float32, amax: np.float32, span: Span, scale: ScalarFormat, expansion: float = 1.0
) -> Candidate:
    """Return E4M3 scales `amax of block / element max`, in units that make the tensor's largest one `span.scale`."""
    encode_scale = np.minimum(span.whole / amax, _FLOAT32_MAX)
    wanted = block_amax / np.float32(span.element * span.adjustment) * encode_scale * np.float32(expansion)
    wanted = np.where(amax == 0, np.float32(0), wanted)
    codes = encode_values(np.ascontiguousarray(wanted), scale, scale_request("ties_to_even"))
    values = decode_codes(codes, scale).astype(np.float32)
    return Candidate(codes, values, np.float32(1) / (np.float32(1) / encode_scale * values))


def other_draws(request: Request) -> Request:
    """Return the same request with random bits of its own, for the second of two candidates."""
    return request._replace(key1=request.key1 ^ 0x9E3779B9)


def rounded_elements(scaled: Float32, element: ScalarFormat, request: Request) -> Float32:
    """Return the rounded elements that errors are measured on."""
    elements = quantize_values(np.ascontiguousarray(scaled), element, request._replace(nan="keep"))
    return np.where(_beyond(scaled, element, request), np.copysign(np.float32(8), scaled), elements)


def storable(scaled: Float32, element: ScalarFormat, request: Request) -> Float32:
    """Return the numbers whose rounding gives the stored codes."""
    return np.where(_beyond(scaled, element, request), np.float32(-0.0), scaled)


def _beyond(scaled: Float32, element: ScalarFormat, request: Request) -> NDArray[np.bool_]:
    """Where rounding to the nearest E2M1 number gives 8."""
    return (np.abs(scaled) >= 7) & (element == _E2M1 and request.mode.name == "ties_to_even")


def errors(difference: Float32, rule: str, reduce: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    """Return the error of each block; sums run in float64, so that their order does not matter."""
    if rule == "abs_max":
        return reduce(np.abs(difference), np.max)
    terms = np.abs(difference) if rule == "mae" else difference * difference
    return reduce(terms.astype(np.float64), np.sum)


def warn_if_biased(request: Request, name: str) -> None:
    """Warn that choosing the better of two random results favours small magnitudes."""
    if request.mode.variant:
        warn_caller(
            f"{name!r} chooses between two stochastically rounded results, which biases them: their mean is not x. Use "
            "a static rule such as 'nvfp4_static6_unbiased', or rounding='ties_to_even'."
        )


def choose(x: NDArray[Any], layout: Layout, fmt: Block, request: Request) -> Scales:
    """Return the scales of `x` by the rule of fouroversix that `fmt` names, for elements rounded as `request` says."""
    return (_adaptive if fmt.recipe in ADAPTIVE_RECIPES else _static)(x, layout, fmt, request)


def _static(x: NDArray[Any], layout: Layout, fmt: Block, request: Request) -> Scales:
    """static_6 and static_4, also for NVINT4, NVFP6 and MXFP4."""
    block_amax = layout.amax(float32(x))
    span = span_of(fmt)
    if fmt.scale == E8M0:
        return _powers_of_two(block_amax, span.element, layout)
    amax = _tensor_amax(block_amax, span, fmt)
    chosen = scale_blocks(block_amax, amax, span, fmt.scale)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return storable(chosen.scaled(float32(v), layout.spread), fmt.element, request)

    return Scales(chosen.codes, decode_codes(chosen.codes, fmt.scale), scaled, _tensor_scale(amax, span, fmt))


def _adaptive(x: NDArray[Any], layout: Layout, fmt: Block, request: Request) -> Scales:
    """Four Over Six: both scales, elements rounded as `request` says, and the scale of less error; a tie takes 6."""
    warn_if_biased(request, fmt.name)
    x = float32(x)
    block_amax = layout.amax(x)
    span = span_of(fmt)
    amax = _tensor_amax(block_amax, span, fmt)
    rule = error_rule(fmt)
    six = scale_blocks(block_amax, amax, span, fmt.scale)
    four = scale_blocks(block_amax, amax, span, fmt.scale, _FOUR)

    def elements_of(candidate: Candidate, v: Float32) -> Float32:
        own_draws = other_draws(request) if candidate is four else request
        return rounded_elements(candidate.scaled(v, layout.spread), fmt.element, own_draws)

    def error_of(candidate: Candidate) -> NDArray[Any]:
        values = elements_of(candidate, x) * layout.spread(candidate.values) * amax / span.whole
        return errors(values - x, rule, layout.reduce)

    better = error_of(four) < error_of(six)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        """Already rounded: elements stay as they are under every rounding mode."""
        v = float32(v)
        return storable(
            np.where(layout.spread(better), elements_of(four, v), elements_of(six, v)), fmt.element, request
        )

    codes = np.where(better, four.codes, six.codes)
    return Scales(codes, decode_codes(codes, fmt.scale), scaled, _tensor_scale(amax, span, fmt))


def span_of(fmt: Block) -> Span:
    """Return the span of a recipe (an adaptive one: of its "6" scales)."""
    if fmt.recipe in ADAPTIVE_RECIPES:
        return Span(fmt.element.max, ADAPTIVE_SCALE_MAX, _adjustment(fmt))
    return Span(4.0 if fmt.recipe == "fouroversix_4" else fmt.element.max, fmt.scale.max, _adjustment(fmt))


def _adjustment(fmt: Block) -> float:
    return _UNBIASED if fmt.recipe.endswith("_unbiased") else 1.0


def error_rule(fmt: Block) -> str:
    """Return what an adaptive recipe minimizes: "mse", "mae" or "abs_max"."""
    return fmt.recipe.removeprefix("fouroversix_").removesuffix("_unbiased")


def _tensor_amax(block_amax: Float32, span: Span, fmt: Block) -> np.float32:
    """Return the largest magnitude; without a tensor scale the number that makes it 1."""
    return np.float32(np.max(block_amax, initial=np.float32(0))) if fmt.tensor_scale else span.whole


def _tensor_scale(amax: np.float32, span: Span, fmt: Block) -> float | None:
    """Return the tensor's scale, or None where the format has none."""
    return float(amax / span.whole) if fmt.tensor_scale else None


def _powers_of_two(block_amax: Float32, element_max: float, layout: Layout) -> Scales:
    """E8M0 scales: the exponent field of `amax / max`, one more unless the mantissa is zero; code 0 makes zeros."""
    bits = (block_amax / np.float32(element_max)).view(np.int32)
    codes = np.minimum((bits >> 23) + (bits & 0x7FFFFF != 0), 255).astype(np.uint8)
    values = decode_codes(codes, E8M0)
    divisor = np.where(codes == 0, np.inf, values).astype(np.float32)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(float32(v) / layout.spread(divisor) + np.float32(0))

    return Scales(codes, values, scaled)
