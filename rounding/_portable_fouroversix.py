"""The recipes of `lowp.rounding._fouroversix_recipes` as array code: fouroversix's float32 steps, in its order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lowp.formats.block import ADAPTIVE_RECIPES, E8M0
from lowp.formats.spec import ScalarFormat
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._fouroversix_recipes import (
    _E2M1,
    _FOUR,
    ADAPTIVE_SCALE_MAX,
    Span,
    _adjustment,
    other_draws,
    warn_if_biased,
)
from lowp.rounding._portable_fp4_recipes import FLOAT32_MAX, float32, over, scaled_up, times, to_scale
from lowp.rounding._portable_recipes import Scales, Work
from lowp.rounding._portable_shapes import largest
from lowp.rounding.request import Request


class Candidate(NamedTuple):
    """Block scales, and the float32 factor that takes an element to the number that is rounded."""

    codes: Any
    values: Any
    inverse: Any

    def scaled(self, x: Any, work: Work) -> Any:
        """Return the numbers to be rounded, without -0; 0 where the scale is 0."""
        x = float32(x, work)
        zero = doubles.is_zero(work.xp, self.values) | doubles.is_zero(work.xp, x)
        return work.xp.where(zero, 0.0, scaled_up(x, self.inverse, work))


def scale_blocks(block_amax: Any, amax: Any, span: Span, work: Work, expansion: float = 1.0) -> Candidate:
    """Return E4M3 scales `amax of block / element max`, in units that make the tensor's largest one `span.scale`."""
    xp = work.xp
    encode_scale = over(xp, work.number(float(span.whole), amax), amax)
    encode_scale = xp.where(doubles.is_nan(xp, encode_scale), encode_scale, xp.minimum(encode_scale, FLOAT32_MAX))
    unit = work.divisor(float(np.float32(span.element * span.adjustment)), block_amax)
    wanted = times(xp, over(xp, block_amax, unit), encode_scale)
    wanted = xp.where(doubles.is_zero(xp, amax), 0.0, times(xp, wanted, float(np.float32(expansion))))
    codes = to_scale(wanted, work)
    values = work.decoded(codes)
    one = work.number(1.0, values)
    return Candidate(codes, values, over(xp, one, times(xp, over(xp, one, encode_scale), values)))


def rounded_elements(scaled: Any, element: ScalarFormat, request: Request, work: Work) -> Any:
    """Return the rounded elements that errors are measured on."""
    xp = work.xp
    elements = work.rounded(scaled, element, request._replace(nan="keep"))
    if not _may_pass(element, request):
        return elements
    eight = xp.where(doubles.bits_of(xp, scaled) < 0, -8.0, xp.full_like(scaled, 8.0))
    return xp.where(_beyond(scaled, work), eight, elements)


def storable(scaled: Any, element: ScalarFormat, request: Request, work: Work) -> Any:
    """Return the numbers whose rounding gives the stored codes."""
    return work.xp.where(_beyond(scaled, work), -0.0, scaled) if _may_pass(element, request) else scaled


def _may_pass(element: ScalarFormat, request: Request) -> bool:
    return element == _E2M1 and request.mode.name == "ties_to_even"


def _beyond(scaled: Any, work: Work) -> Any:
    """Where rounding to the nearest E2M1 number gives 8."""
    return doubles.magnitude(work.xp, scaled) >= 7


def errors(difference: Any, rule: str, work: Work) -> Any:
    """Return the error of each block from float32 differences; sums run in float64."""
    xp = work.xp
    size = doubles.magnitude(xp, difference)
    if rule == "abs_max":
        return doubles.from_bits(xp, largest(xp, doubles.bits_of(xp, size), work.cut.inner))
    return work.cut.sum(xp, size if rule == "mae" else times(xp, difference, difference))


def choose(x: Any, work: Work) -> Scales:
    """Return the scales of `x` by the rule of fouroversix that the format names."""
    return (_adaptive if work.fmt.recipe in ADAPTIVE_RECIPES else _static)(x, work)


def _static(x: Any, work: Work) -> Scales:
    """static_6 and static_4, also for NVINT4, NVFP6 and MXFP4."""
    fmt = work.fmt
    block_amax = work.block_amax(float32(x, work))
    element_max = 4.0 if fmt.recipe == "fouroversix_4" else fmt.element.max
    if fmt.scale == E8M0:
        return _powers_of_two(block_amax, element_max, work)
    span = Span(element_max, fmt.scale.max, _adjustment(fmt))
    amax = _tensor_amax(block_amax, span, work)
    chosen = scale_blocks(block_amax, amax, span, work)

    def scaled(v: Any) -> Any:
        return storable(chosen.scaled(v, work), fmt.element, work.request, work)

    return Scales(chosen.codes, chosen.values, scaled, _tensor_scale(amax, span, work))


def _adaptive(x: Any, work: Work) -> Scales:
    """Four Over Six: both scales, elements rounded as the request says, and the scale of less error; a tie takes 6."""
    xp, fmt, request = work.xp, work.fmt, work.request
    warn_if_biased(request, fmt.name)
    x = float32(x, work)
    block_amax = work.block_amax(x)
    span = Span(fmt.element.max, ADAPTIVE_SCALE_MAX, _adjustment(fmt))
    amax = _tensor_amax(block_amax, span, work)
    rule = fmt.recipe.removeprefix("fouroversix_").removesuffix("_unbiased")
    six = scale_blocks(block_amax, amax, span, work)
    four = scale_blocks(block_amax, amax, span, work, _FOUR)

    def elements_of(candidate: Candidate, v: Any) -> Any:
        own_draws = other_draws(request) if candidate is four else request
        return rounded_elements(candidate.scaled(v, work), fmt.element, own_draws, work)

    def error_of(candidate: Candidate) -> Any:
        values = times(xp, times(xp, doubles.widen(xp, elements_of(candidate, x)), candidate.values), amax)
        values = over(xp, values, work.divisor(float(span.whole), values))
        return errors(doubles.to_float32(xp, values - doubles.widen(xp, x)), rule, work)

    better = error_of(four) < error_of(six)

    def scaled(v: Any) -> Any:
        """Already rounded: elements stay as they are under every rounding mode."""
        return storable(xp.where(better, elements_of(four, v), elements_of(six, v)), fmt.element, request, work)

    codes = xp.where(better, four.codes, six.codes)
    return Scales(codes, xp.where(better, four.values, six.values), scaled, _tensor_scale(amax, span, work))


def _tensor_amax(block_amax: Any, span: Span, work: Work) -> Any:
    """The largest magnitude; without a tensor scale the number that makes it 1."""
    if work.fmt.tensor_scale:
        return work.tensor_amax(block_amax)
    return work.number(float(span.whole), block_amax[(slice(0, 1),) * block_amax.ndim])


def _tensor_scale(amax: Any, span: Span, work: Work) -> Any:
    return over(work.xp, amax, work.divisor(float(span.whole), amax)) if work.fmt.tensor_scale else None


def _powers_of_two(block_amax: Any, element_max: float, work: Work) -> Scales:
    """E8M0 scales: the exponent field of `amax / max`, one more unless the mantissa is zero; code 0 makes zeros."""
    xp = work.xp
    quotient = over(xp, block_amax, work.divisor(float(np.float32(element_max)), block_amax))
    bits = xp.bits(doubles.narrow(xp, quotient, "float32"))
    codes = xp.minimum((bits >> 23) + xp.cast(bits & 0x7FFFFF != 0, "int32"), 255)
    values = work.decoded(codes)
    divisor = xp.where(codes == 0, np.inf, values)

    def scaled(v: Any) -> Any:
        result = over(xp, doubles.widen(xp, float32(v, work)), divisor)
        return xp.where(doubles.is_zero(xp, result), 0.0, result)

    return Scales(codes, values, scaled)
