"""The scale recipes of `lowp.rounding.recipes` and `_mxfp4_recipes` as array code: same names, same results.

Arrays of elements are float32, or float64 where the caller's are, and cut into blocks (`_portable_shapes.Cut`). What
belongs to blocks or to the tensor is float64 and has length one along the other axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lowp._errors import ArgumentError, warn_caller
from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._mxfp4_recipes import _QUEST_FLOOR, GAUSSIAN_SCALE
from lowp.rounding._portable import decode_values, encode_values, quantize_values
from lowp.rounding._portable_shapes import Cut, largest, square_root
from lowp.rounding._portable_steps import (
    is_power_of_two,
    near_units,
    once_per_block,
    over_powers,
    over_units,
    settles,
)
from lowp.rounding.lowering import fits_float32
from lowp.rounding.recipes import element_precision, exponent_of, scale_request
from lowp.rounding.request import Request

#: Rounding modes of the recipes that round a quotient; the others make powers of two.
_ROUNDED = {"rceil": "toward_positive", "round": "ties_to_even"}


@dataclass(frozen=True)
class Work:
    """What a recipe works with besides the numbers.

    Attributes:
        xp: The array library.
        cut: Where the blocks lie.
        fmt: The block format.
        request: How elements are rounded.
        positions: Positions of the elements for random bits, as `quantize_values` takes them.
        amax: The largest magnitude of the tensor where the array is a part of it, else None.
        reach: A bound of the magnitudes that are finite.
        quick: Whether scaled numbers may be made in float32, see `_portable_steps`.
        near: Whether quotients of float32 numbers may be short of bits, see `near_units`.
    """

    xp: Any
    cut: Cut
    fmt: Block
    request: Request
    positions: Any
    amax: Any
    reach: float
    quick: bool = False
    near: bool = False

    def rounded(self, scaled: Any, element: ScalarFormat, request: Request) -> Any:
        """Return cut numbers rounded to a format, their random bits by their positions in the whole array."""
        plain = quantize_values(self.xp, self.cut.join(scaled), element, request, self.positions)
        return self.cut.split(self.xp, plain)

    def block_amax(self, x: Any) -> Any:
        """Return the largest magnitude of each block, NaN where there is one, or that of the whole tensor."""
        if self.amax is not None and self.fmt.size == "tensor":
            return self.amax.reshape((1,) * len(self.cut.shape))
        amax = doubles.from_bits(self.xp, largest(self.xp, doubles.size_of(self.xp, x), self.cut.inner))
        return doubles.widen(self.xp, amax)

    def tensor_amax(self, amax: Any) -> Any:
        """Return the largest of the magnitudes, NaN where there is one, or that of the whole tensor if it is given."""
        if self.amax is not None:
            return self.amax.reshape((1,) * len(self.cut.shape))
        bits = largest(self.xp, doubles.bits_of(self.xp, amax), tuple(range(len(self.cut.shape))))
        return doubles.from_bits(self.xp, bits)

    def number(self, value: float, like: Any) -> Any:
        """Return a float64 number in the shape of `like`."""
        return self.xp.full_like(like, value, "float64")

    def divisor(self, value: float, like: Any) -> Any:
        """Return the same, but nothing that a compiler knows to be constant: it would multiply by the reciprocal."""
        return self.xp.where(doubles.bits_of(self.xp, like) == -1, 1.0, self.number(value, like))

    def scaled_down(self, x: Any, units: Any) -> Any:
        """Return `x / unit` as the rounding of elements can tell it: to odd; 0 where the unit is 0, NaN where NaN."""
        scale = self.fmt.scale
        if self.near:
            return near_units(self.xp, x, units)
        if self.quick and self.fmt.tensor_scale is None and isinstance(scale, Float):
            if is_power_of_two(scale):
                return over_powers(self.xp, x, units)
            if fits_float32(scale) and self.request.mode.variant == 0:
                return over_units(self.xp, x, units)
        return divide_blocks(self.xp, doubles.widen(self.xp, x), units)

    def decoded(self, codes: Any) -> Any:
        """Return the values of scale codes."""
        values = decode_values(self.xp, codes, self.fmt.scale, "float64")
        return once_per_block(self.xp, values) if settles(self.fmt.scale) else values


@dataclass(frozen=True)
class Scales:
    """What a recipe decides, as `lowp.rounding.recipes.Scales`; `tensor_scale` is an array."""

    codes: Any
    values: Any
    scaled: Callable[[Any], Any]
    tensor_scale: Any = None
    zero_points: Any = None
    element_rounding: str | None = None
    own_nan_codes: bool = False


def choose_scales(x: Any, work: Work) -> Scales:
    """Return the scales of a cut array by the recipe that the format names."""
    recipe = work.fmt.recipe
    if work.amax is not None and (recipe in ("absmean", "quest", "mse") or work.fmt.zero_point):
        raise ArgumentError(f"amax is given, but scales of {work.fmt.name!r} depend on more of the tensor than that.")
    if recipe in RECIPES:
        return RECIPES[recipe](x, work)
    if recipe.startswith("fouroversix"):
        from lowp.rounding._portable_fouroversix import choose

        return choose(x, work)
    from lowp.rounding._portable_fp4_recipes import RECIPES as VENDORS

    return VENDORS[recipe](x, work)


def tensor_magnitude(x: Any, work: Work) -> Any:
    """Return the bits of the largest magnitude that counts for the tensor scale of `work.fmt`, as int64, one number.

    The largest of these over the parts of a tensor is what every part needs as `amax`.
    """
    xp = work.xp
    recipe = work.fmt.recipe
    if recipe == "nvfp4_te":
        x = xp.where(doubles.is_nan(xp, x), 0.0, x)
    amax = work.block_amax(x)
    if recipe in ("floor", "ceil", "even", "rceil", "round") and work.fmt.tensor_scale is not None:
        amax = xp.where(doubles.is_finite(xp, amax), amax, 0.0)
    return doubles.bits_of(xp, work.tensor_amax(amax)).reshape(())


def _standard(x: Any, work: Work) -> Scales:
    xp, fmt = work.xp, work.fmt
    if fmt.zero_point:
        return _asymmetric(x, work)
    amax = work.block_amax(x)
    if fmt.tensor_scale is None:
        return divided(scale_codes(amax, fmt.element.scale_target, work), work)
    finite = work.tensor_amax(xp.where(doubles.is_finite(xp, amax), amax, 0.0))
    tensor = _tensor_scale(xp.where(doubles.is_finite(xp, finite), finite, 0.0), work)
    return divided(scale_codes(amax, fmt.element.scale_target, work, tensor), work, tensor)


def encoded(xp: Any, x: Any, fmt: ScalarFormat, request: Request) -> Any:
    """Return codes as int64, which every library computes with."""
    return xp.cast(encode_values(xp, x, fmt, request), "int64")


def _tensor_scale(largest_finite: Any, work: Work) -> Any:
    xp, fmt = work.xp, work.fmt
    assert fmt.tensor_scale is not None
    reach = work.number(fmt.element.scale_target * fmt.scale.max, largest_finite)
    wanted = doubles.quotient(xp, largest_finite, reach, odd=True)
    code = encode_values(xp, wanted, fmt.tensor_scale, scale_request("ties_to_even"))
    tensor = decode_values(xp, code, fmt.tensor_scale, "float64")
    return xp.where(doubles.is_zero(xp, tensor), 1.0, tensor)


def _absmean(x: Any, work: Work) -> Scales:
    total = work.cut.sum(work.xp, doubles.magnitude(work.xp, doubles.widen(work.xp, x)))
    mean = doubles.quotient(work.xp, total, work.xp.constant(work.cut.counts(), x))
    return divided(rounded_scales(mean, work, "ties_to_even"), work)


def divided(codes: Any, work: Work, tensor: Any = None) -> Scales:
    """Return the scales of those codes; elements are the exact quotients."""
    values = work.decoded(codes)
    units = values
    if tensor is not None:
        units = doubles.product(work.xp, values, tensor)
        if settles(work.fmt.scale) and settles(work.fmt.tensor_scale):
            units = once_per_block(work.xp, units)
    return Scales(codes, values, partial(work.scaled_down, units=units), tensor)


def divide_blocks(xp: Any, x: Any, units: Any) -> Any:
    """Return `x / unit` rounded to odd; 0 where the unit is 0, NaN where it is NaN."""
    exact = doubles.quotient(xp, x, units, odd=True)
    return xp.where(doubles.is_zero(xp, units) & ~doubles.is_nan(xp, x), 0.0, exact)


def scale_codes(amax: Any, span: float, work: Work, tensor: Any = None, recipe: str = "") -> Any:
    """Return scale codes for blocks of largest magnitude `amax`, which `span` element units should cover."""
    xp = work.xp
    recipe = recipe or work.fmt.recipe
    if recipe in _ROUNDED:
        unit = work.number(span, amax)
        if tensor is not None:
            unit = doubles.product(xp, unit, tensor)
        reach = work.reach / span if tensor is None else math.inf
        return rounded_scales(doubles.quotient(xp, amax, unit, odd=True), work, _ROUNDED[recipe], reach)
    if tensor is not None:
        amax = doubles.quotient(xp, amax, tensor, odd=True)
    significand, exponent = doubles.parts_of(xp, amax)
    exponent = exponent + 52
    if recipe == "ceil":
        exponent = exponent + xp.cast(significand != doubles.HIDDEN, "int64")
    elif recipe == "even":
        # With a zero point the codes count from the lowest one up, and no bit is a sign.
        element = work.fmt.element
        precision = element.bits - 1 if work.fmt.zero_point else element_precision(element)
        bound = math.ceil((1 - 2.0 ** -(precision + 2)) * 2**53)
        exponent = exponent + xp.cast(significand >= bound, "int64")
    power = xp.minimum(xp.maximum(exponent - exponent_of(span), -1000), 1000)
    wanted = doubles.from_bits(xp, (power + 1023) << 52)
    wanted = xp.where(significand == 0, 0.0, wanted)
    wanted = xp.where(doubles.is_finite(xp, amax), wanted, math.nan)
    reach = math.inf
    if tensor is None and math.isfinite(work.reach):
        reach = math.ldexp(1.0, exponent_of(work.reach) + (recipe != "floor") - exponent_of(span))
    return rounded_scales(wanted, work, "ties_to_even", reach)


def rounded_scales(wanted: Any, work: Work, mode: str, reach: float = math.inf) -> Any:
    """Round to scale codes; NaN and infinity get the NaN code. No scale is beyond `reach`."""
    xp, scale = work.xp, work.fmt.scale
    finite = doubles.is_finite(xp, wanted)
    if reach > scale.max and xp.is_concrete(wanted) and xp.any(finite & (wanted > scale.max)):
        warn_caller(
            f"a block needs a scale beyond {scale.name!r}, which ends at {scale.max}; its elements clip. Use a "
            "scale format of more range, or divide x first."
        )
    codes = encoded(xp, xp.where(finite, wanted, 0.0), scale, scale_request(mode))
    nan_code = scale.nan_code if isinstance(scale, Float) else None
    return codes if nan_code is None else xp.where(finite, codes, nan_code)


def _asymmetric(x: Any, work: Work) -> Scales:
    xp, element, inner = work.xp, work.fmt.element, work.cut.inner
    assert isinstance(element, Integer)
    bits, size = doubles.bits_of(xp, x), doubles.size_of(xp, x)
    above = largest(xp, xp.where((bits >= 0) | doubles.is_nan(xp, x), size, 0), inner)
    below = largest(xp, xp.where(bits < 0, size, 0), inner)
    high, low = (doubles.widen(xp, doubles.from_bits(xp, ends)) for ends in (above, below))  # low as a magnitude
    span = float(element.max_integer - element.min_integer)
    codes = scale_codes(doubles.sum_to_odd(xp, high, low), span, work)
    values = work.decoded(codes)
    exact = doubles.quotient(xp, low, values, odd=True)
    capped = xp.where(doubles.is_finite(xp, exact), xp.minimum(exact, 2.0**40), 0.0)
    halves = xp.cast(capped * 2, "int64")
    tie = (halves & 1 == 1) & (xp.cast(halves, "float64") == capped * 2)
    below = halves >> 1
    upper_is_even = (below + element.min_integer) & 1  # the zero point is even, not the offset
    offset = below + xp.where(tie, upper_is_even, halves & 1)
    zero = xp.where(doubles.is_finite(xp, exact), element.min_integer + offset, 0)
    zero = xp.minimum(xp.maximum(zero, element.min_integer), element.max_integer)
    return Scales(codes, values, partial(work.scaled_down, units=values), zero_points=xp.cast(zero, "float64"))


def _quest(x: Any, work: Work) -> Scales:
    """QuEST and the forward pass of Quartet: a multiple of each block's standard deviation."""
    xp, cut = work.xp, work.cut
    x = doubles.widen(xp, x)
    count = xp.constant(cut.counts(), x)
    mean = doubles.quotient(xp, cut.sum(xp, x), count)
    square = doubles.quotient(xp, cut.sum(xp, doubles.product(xp, x, x)), count)
    variance = square - doubles.product(xp, mean, mean)
    nan = doubles.is_nan(xp, variance)
    root = xp.where(nan, math.nan, square_root(xp, xp.where(variance > 0, variance, 0.0)))
    wanted = doubles.product(xp, work.number(GAUSSIAN_SCALE, root), root) + _QUEST_FLOOR
    mode = "toward_negative" if getattr(work.fmt.scale, "mantissa_bits", 1) == 0 else "ties_to_even"
    return divided(rounded_scales(wanted, work, mode), work)


def _three_quarters(x: Any, work: Work) -> Scales:
    """The floor scale on 3/4 of the numbers; the tensor scale 4/3 undoes it."""
    xp = work.xp
    codes = scale_codes(work.block_amax(x), work.fmt.element.max, work, recipe="floor")
    values = work.decoded(codes)

    def scaled(v: Any) -> Any:
        exact = divide_blocks(xp, doubles.widen(xp, v), values)
        return doubles.product(xp, exact, work.number(0.75, exact), odd=True)

    return Scales(codes, values, scaled, work.number(float(np.float32(4 / 3)), values[(slice(0, 1),) * values.ndim]))


def _mse(x: Any, work: Work) -> Scales:
    """The power of two of least squared error among three, elements rounded to nearest."""
    xp, fmt = work.xp, work.fmt
    wide = doubles.widen(xp, x)
    start = scale_codes(work.block_amax(x), fmt.element.max, work, recipe="floor")
    middle = work.decoded(start)
    nearest = scale_request("ties_to_even")._replace(nan="keep")
    best, least = start, work.number(math.inf, middle)
    for factor in (0.5, 1.0, 2.0):
        codes = rounded_scales(doubles.product(xp, middle, work.number(factor, middle)), work, "ties_to_even")
        values = work.decoded(codes)
        rounded = work.rounded(divide_blocks(xp, wide, values), fmt.element, nearest)
        difference = doubles.product(xp, rounded, values) - wide
        error = work.cut.sum(xp, doubles.product(xp, difference, difference))
        better = error < least
        best, least = xp.where(better, codes, best), xp.where(better | doubles.is_nan(xp, error), error, least)
    return divided(best, work)


RECIPES: dict[str, Callable[[Any, Work], Scales]] = {
    **dict.fromkeys(("floor", "ceil", "even", "rceil", "round"), _standard),
    "absmean": _absmean,
    "quest": _quest,
    "three_quarters": _three_quarters,
    "mse": _mse,
}
