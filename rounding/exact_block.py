"""The exact oracle for blocks: the standard scale recipes on one block of exact values.

The recipes that follow one system's float32 arithmetic (`nvfp4_te`, `mxfp4_modelopt`, ...) have no exact definition and
are not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import floor
from typing import Any

from lowp._errors import ArgumentError, FormatError, RangeError, unknown_name
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format, Meaning, ScalarFormat
from lowp.rounding import exact
from lowp.rounding import exact_rules as rules

__all__ = ["EXACT_RECIPES", "decode_block", "encode_block"]

#: The recipes defined on real numbers, and the rounding of those that round a quotient into the scale format.
EXACT_RECIPES = {"floor": "", "ceil": "", "even": "", "rceil": "toward_positive", "round": "ties_to_even"}


def encode_block(
    values: Iterable[Any],
    element: Format | str,
    scale: Format | str = "float8_e8m0fnu",
    recipe: str = "floor",
    *,
    zero_point: bool = False,
    rounding: str = "ties_to_even",
    random: Sequence[int] | None = None,
    random_bits: int | None = None,
) -> tuple[int, list[int], int | None]:
    """Return the codes of one block: the scale follows from all values, then each `x / scale` is rounded once.

    With `amax` the largest magnitude of the block, `max` that of the element format (of a posit or takum the end of its
    most precise range) and `emax = floor(log2 max)`:

    - "floor", "ceil": `2^(floor(log2 amax) - emax)`, or with the ceiling; "even": "floor" of `amax` rounded half up to
      the significant bits of an element. They clamp to the positive values of the scale format.
    - "rceil", "round": `amax / max` rounded up, or to nearest, in the scale format, saturating.

    A block of zeros has the scale that zero encodes to (code 0; `2^-127` in E8M0). Elements saturate. Where the scale
    is zero, every element is the code of zero. With a zero point, `amax` is `max(x, 0) - min(x, 0)` over the block and
    `max` is `qmax - qmin`; the zero point is `qmin - min(x, 0) / scale`, and an element `round(x / scale)` plus that,
    both clamped to `qmin .. qmax`. A tail block is just a shorter one.

    Args:
        values: The numbers of the block, see `lowp.rounding.exact.exact_value`; finite, at least one.
        element: Scalar format of the elements; `Integer` if `zero_point`.
        scale: Scalar format of the scale; powers of two for "floor", "ceil" and "even".
        recipe: One of `EXACT_RECIPES`.
        zero_point: Whether the block carries an offset in element units.
        rounding: Rounding mode of the elements.
        random: One 32-bit word per value, for stochastic modes.
        random_bits: Random bits N of a stochastic mode.

    Returns:
        The code of the scale, the codes of the elements, and the zero point as a number, None without one.

    Raises:
        RangeError: A value is NaN or infinite.
        FormatError: The formats do not fit the recipe.
        ArgumentError: No values, or an unknown recipe.

    Source:
        OCP MX 1.0, section 6.3 ("floor"); torchao ScaleCalculationMode ("ceil", "even", "rceil").

    Example:
        >>> encode_block([957, -3, 0.5], "float8_e4m3fn")
        (128, [126, 188, 40], None)
        >>> encode_block([0.0, 1.5, 3.0], "uint2", "float16", "round", zero_point=True)
        (15360, [0, 2, 3], 0)
    """
    form, scale_form = rules.scalar_format(element), rules.scalar_format(scale)
    if recipe not in EXACT_RECIPES:
        raise ArgumentError(unknown_name("recipe", recipe, EXACT_RECIPES))
    numbers = [exact.exact_value(v) for v in values]
    words = [None] * len(numbers) if random is None else list(random)
    if not numbers or len(words) != len(numbers):
        raise ArgumentError(f"values has {len(numbers)} entries, random {len(words)}; allowed: as many, at least one.")
    if set(numbers) & {"nan", "inf", "-inf"}:
        raise RangeError("values holds a NaN or an infinity; the exact recipes need finite numbers.")
    modes = [rules.named_mode(rounding, word, random_bits) for word in words]
    if zero_point:
        return _asymmetric([rules.finite_number(x) for x in numbers], form, scale_form, recipe, modes)
    amax = max(abs(rules.finite_number(x)) for x in numbers)
    scale_code = _scale_code(amax, _largest(form), _significant_bits(form, recipe), scale_form, recipe)
    factor = _value(scale_code, scale_form)
    if factor == 0:
        return scale_code, [exact.encode(0, form)] * len(numbers), None
    quotients = [x if isinstance(x, str) else x / factor for x in numbers]  # the only string left is "-0"
    codes = [exact.project_code(q, form, mode, "saturate") for q, mode in zip(quotients, modes, strict=True)]
    return scale_code, codes, None


def decode_block(
    scale_code: int, codes: Iterable[int], zero_point: int | None, element: Format | str, scale: Format | str
) -> list[Meaning]:
    """Return the values of a block: `element * scale`, or `(element - zero_point) * scale`.

    A scale that is NaN makes every value NaN. The arguments are those that `encode_block` takes and returns.

    Raises:
        ArgumentError: A code is not one of its format.

    Example:
        >>> decode_block(128, [126, 188, 40], None, "float8_e4m3fn", "float8_e8m0fnu")
        [Fraction(896, 1), Fraction(-3, 1), Fraction(1, 2)]
    """
    factor = exact.decode(scale_code, scale)
    elements = [exact.decode(code, element) for code in codes]
    if not isinstance(factor, Fraction) and factor != "-0":
        return ["nan"] * len(elements)
    return [(e - (zero_point or 0)) * rules.finite_number(factor) if isinstance(e, Fraction) else e for e in elements]


def _scale_code(amax: Fraction, largest: Fraction, bits: int, scale: ScalarFormat, recipe: str) -> int:
    if amax == 0:
        return exact.encode(0, scale)
    if EXACT_RECIPES[recipe]:
        return exact.encode(amax / largest, scale, EXACT_RECIPES[recipe])
    if not isinstance(scale, Float) or scale.mantissa_bits:
        raise FormatError(f"recipe={recipe!r} makes powers of two; scale={scale.name!r} holds others too.")
    exponent = rules.floor_log2(amax)
    if recipe == "ceil" and amax != rules.power_of_two(exponent):
        exponent += 1
    if recipe == "even":
        last_bit = rules.power_of_two(exponent - (bits - 1))
        exponent = rules.floor_log2(floor(amax / last_bit + rules.HALF) * last_bit)
    # Every power of two in range is a value; upward, one too small becomes the smallest positive value.
    wanted = rules.power_of_two(exponent - rules.floor_log2(largest))
    return exact.encode(wanted, scale, "toward_positive")


def _asymmetric(
    numbers: Sequence[Fraction], form: ScalarFormat, scale_form: ScalarFormat, recipe: str, modes: Sequence[rules.Mode]
) -> tuple[int, list[int], int]:
    if not isinstance(form, Integer):
        raise FormatError(f"zero_point=True needs an Integer element format, not {form.name!r}.")
    low, high = min(Fraction(0), *numbers), max(Fraction(0), *numbers)
    qmin, qmax = rules.integer_range(form)
    steps = qmax - qmin
    scale_code = _scale_code(high - low, Fraction(steps), steps.bit_length(), scale_form, recipe)
    factor = _value(scale_code, scale_form)
    if factor == 0:
        return scale_code, [0] * len(numbers), 0
    offset = rules.round_to_integer(qmin - low / factor, rules.Mode("ties_to_even"))
    offset = min(max(offset, qmin), qmax)
    integers = [rules.round_to_integer(x / factor, mode) + offset for x, mode in zip(numbers, modes, strict=True)]
    return scale_code, [min(max(n, qmin), qmax) % (1 << form.bits) for n in integers], offset


def _value(code: int, form: ScalarFormat) -> Fraction:
    return rules.finite_number(form.meaning(code))


def _largest(form: ScalarFormat) -> Fraction:
    largest = Fraction(form.scale_target)
    if largest <= 0:
        raise FormatError(f"element={form.name!r} has no positive value, so no recipe can scale to it.")
    return largest


def _significant_bits(form: ScalarFormat, recipe: str) -> int:
    """Significant bits of the largest elements."""
    if isinstance(form, Float):
        return form.mantissa_bits + 1
    if isinstance(form, Integer | Fixed):
        return form.bits - form.signed
    if recipe == "even" and isinstance(form, Codebook):
        raise FormatError(f"recipe='even' needs elements with significant bits; {form.name!r} is a codebook.")
    return 0
