"""The definitions of fake quantizers where they are not a format, a rounding and an overflow mode of lowp's.

Each rule repeats the peer's float32 steps around a rounding by lowp. A peer that agrees with its rule in every element
has the differences to the standard that the rule makes, and no others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import lowp
from lowp.formats import Format

Array = np.ndarray
Rule = Callable[[Array], Array]

WIDE = lowp.Integer(32)
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Setting:
    """What lowp is asked for: a format, a rounding mode and an overflow mode."""

    format: str | Format
    rounding: str = "ties_to_even"
    overflow: str = "saturate"
    label: str = ""

    def __call__(self, x: Any) -> Any:
        """Return `x` quantized, in the array type of `x`."""
        return lowp.quantize(x, self.format, self.rounding, self.overflow)

    def __str__(self) -> str:
        name = self.label or (self.format if isinstance(self.format, str) else self.format.name)
        modes = [m for m in (self.rounding, self.overflow) if m not in ("ties_to_even", "saturate")]
        return ", ".join([name, *modes])


def amax(x: Array) -> Array:
    return np.abs(x).max(-1, keepdims=True)


def blocks(rule: Rule, size: int) -> Rule:
    """Apply a rule for rows to the blocks of `size` elements along the rows."""
    return lambda x: rule(x.reshape(-1, size)).reshape(x.shape)


# Scales of rows, in float32 steps.


def over(bound: float, least: float = 0.0) -> Rule:
    """The scale `amax / bound`, at least `least`."""
    return lambda x: np.maximum(amax(x) / np.float32(bound), np.float32(least))


def times(factor: float) -> Rule:
    """The scale `amax * factor`: what XLA makes of a division by a constant; 1 where that is next to nothing."""

    def scale(x: Array) -> Array:
        product = amax(x) * np.float32(factor)
        return np.where(product < np.sqrt(TINY), np.float32(1), product)

    return scale


def power_of_two(emax: int, log2: Rule = np.log2) -> Rule:
    """The scale `2^(floor(log2 amax) - emax)` by a float32 logarithm, which is too large just below powers of two.

    NaN and infinity make it NaN.
    """

    def scale(x: Array) -> Array:
        largest = amax(x)
        known = np.isfinite(largest)
        exponent = np.floor(log2(np.where(known & (largest > 0), largest, TINY))) - emax
        power = np.ldexp(np.float32(1), np.clip(exponent, -127, 127).astype(np.int32))
        return np.where(known, power, np.float32(np.nan))

    return scale


def torch_log2(x: Array) -> Array:
    import torch

    return torch.log2(torch.from_numpy(x)).numpy()


def scaled(element: Rule, scale_of: Rule, reciprocal: bool = False) -> Rule:
    """`element(x / s) * s`, the quotient rounded to float32 first; or `x * (1 / s)` in place of the quotient."""

    def rule(x: Array) -> Array:
        scale = scale_of(x)
        return element(x * (1 / scale) if reciprocal else x / scale) * scale

    return rule


def per_token(bits: int) -> Rule:
    """Asymmetric integers of torchao: `round(x * (1 / s)) + z`, clamped, with `z = low - round(min / s)`."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def rule(x: Array) -> Array:
        least, most = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
        scale = np.maximum((most - least) / np.float32(high - low), TINY)
        zero = np.clip(low - lowp.quantize(least / scale, WIDE), low, high)
        zero = np.nan_to_num(zero, nan=-(2.0**31))  # NaN as a 32-bit integer
        return (np.clip(lowp.quantize(x * (1 / scale), WIDE) + zero, low, high) - zero) * scale

    return rule


def span_of_tensor(bits: int) -> Rule:
    """The scale of pychop's symmetric integers: the tensor's maximum less its minimum, over `2^bits - 1`."""
    return lambda x: (x.max() - x.min()) / np.float32(2**bits - 1)


# Elements, whose exponent is the floor of a float32 logarithm.


def exponent_of(x: Array, least: int, log2: Rule = torch_log2) -> Array:
    magnitude = np.where(x == 0, np.float32(1), np.abs(x))
    return np.clip(np.nan_to_num(np.floor(log2(magnitude)), posinf=128), least, None).astype(np.int32)


def chop(exponent_bits: int, mantissa_bits: int) -> Rule:
    """Chop of pychop: rounds `significand - 1`, which loses bits of subnormals, and looks for overflow before rounding.

    A number with the exponent of infinity becomes 0, only a larger one infinity.
    """
    bias = 2 ** (exponent_bits - 1) - 1
    fraction = lowp.Fixed(mantissa_bits + 3, mantissa_bits)

    def rule(x: Array) -> Array:
        exponent = exponent_of(x, 1 - bias)
        scale = np.ldexp(np.float32(1), np.minimum(exponent, 127))
        y = np.sign(x) * (1 + lowp.quantize(np.abs(x) / scale - 1, fraction)) * scale
        y = np.where(exponent == bias + 1, 0, y)
        return np.where(np.isinf(x) | (exponent > bias + 1), np.copysign(np.float32(np.inf), x), y)

    return rule


def half_up(q: Array) -> Array:
    """`floor(q + 1/2)` in float32: numbers just below 1/2 become 1."""
    return lowp.quantize(q + np.float32(0.5), WIDE, "toward_negative")


def microxcaling(fmt: str | Format, even: bool, clip: bool) -> Rule:
    """Element of microxcaling: `floor(|x| / ulp + 1/2)` ulps, one less at ties if `even`; infinities as they are.

    `clip` says whether numbers past the largest become the largest, or infinity.
    """
    element = lowp.parse(fmt)
    fixed = isinstance(element, lowp.Fixed)

    def rule(x: Array) -> Array:
        if fixed:
            ulp = np.float32(element.eps)
        else:
            least = int(np.log2(element.smallest_normal))
            ulp = np.ldexp(np.float32(1), exponent_of(x, least)) * np.float32(element.eps)
        q = np.abs(x) / ulp
        y = np.sign(x) * (half_up(q) - ((q - 0.5) % 2 == 0 if even else 0)) * ulp
        beyond = np.abs(y) > element.max
        y = np.where(beyond, np.copysign(np.float32(element.max if clip else np.inf), y), y)
        return np.where(np.isinf(x), x, y)

    return rule


def least_distance(codebook: str) -> Rule:
    """The first value of the least float32 distance, where NaN has no distance and the first value counts."""
    values = np.asarray(lowp.values(codebook), np.float32)

    def rule(x: Array) -> Array:
        codes = np.zeros(x.shape, np.uint8)
        least = np.abs(values[0] - x)
        for code, value in enumerate(values):
            nearer = np.abs(value - x) < least
            codes[nearer], least = code, np.where(nearer, np.abs(value - x), least)
        return lowp.decode(codes, codebook, dtype=np.float32)

    return rule


# What becomes of NaN, infinities and zeros.


def infinity_as(value: Callable[[Array], Any], rule: Rule) -> Rule:
    """Follow `rule`, but replace the results of infinities; `value` gets the input."""
    return lambda x: np.where(np.isinf(x), value(x), rule(x)).astype(np.float32)


def nan_as(value: float, rule: Rule) -> Rule:
    """Follow `rule`, but give NaN a value."""
    return lambda x: np.where(np.isnan(x), np.float32(value), rule(x))


def infinity_alone(rule: Rule) -> Rule:
    """MX of torchao: an infinity in a block without NaN stays, and the others of the block become 0."""

    def apply(x: Array) -> Array:
        alone = np.isinf(x).any(-1, keepdims=True) & ~np.isnan(x).any(-1, keepdims=True)
        return np.where(alone, np.where(np.isinf(x), x, np.copysign(np.float32(0), x)), rule(x))

    return blocks(apply, 32)


def pychop_mx(element: Setting, emax: int) -> Rule:
    """MX of pychop: a NaN counts for nothing but itself, an infinity gives the scale 2^127."""

    def scale(x: Array) -> Array:
        known = np.where(np.isnan(x), 0, x)
        return np.where(np.isinf(amax(known)), np.float32(2.0**127), power_of_two(emax)(known))

    return blocks(scaled(element, scale), 32)
