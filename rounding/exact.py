"""The exact oracle: how a real becomes a code, in plain integers and Fractions; slow, and meant to be read.

Every fast path of `lowp` is checked against these functions bit for bit. They share no code with it: from the
formats they take parameters and `meaning(code)`, from `lowp.rounding.modes` the names of the modes.

    >>> quantize(0.1, "float8_e4m3fn")
    Fraction(13, 128)
"""

from __future__ import annotations

from fractions import Fraction
from math import copysign, inf
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, RangeError, unknown_name
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import Format, Meaning, ScalarFormat
from lowp.rounding import exact_ranked as ranked
from lowp.rounding import exact_rules as rules
from lowp.rounding import modes

__all__ = ["decode", "encode", "error", "exact_value", "neighbours", "quantize"]

SPECIAL_NUMBERS = ("nan", "inf", "-inf", "-0")
NAN_POLICIES = ("error", "zero", "max")


def exact_value(x: Any) -> Meaning:
    """Return what a number stands for: a Fraction, or one of "nan", "inf", "-inf", "-0"; an irrational `Real` as it is.

    Args:
        x: An integer, a float, a Fraction, a NumPy scalar, a `Real`, or one of the four strings.

    Raises:
        ArgumentTypeError: `x` is not a number.
        ArgumentError: `x` is another string.

    Example:
        >>> exact_value(0.1), exact_value(-0.0)
        (Fraction(3602879701896397, 36028797018963968), '-0')
    """
    if isinstance(x, str):
        if x not in SPECIAL_NUMBERS:
            raise ArgumentError(unknown_name("x", x, SPECIAL_NUMBERS))
        return x
    if isinstance(x, Real):
        rational = x.rational()
        return x if rational is None else rational
    if isinstance(x, bool) or not (hasattr(x, "__index__") or hasattr(x, "as_integer_ratio")):
        raise ArgumentTypeError(f"x={x!r} must be a number, or one of: {', '.join(SPECIAL_NUMBERS)}.")
    if hasattr(x, "__index__"):
        return Fraction(x.__index__())
    if x != x or x in (inf, -inf):
        return "nan" if x != x else "inf" if x > 0 else "-inf"
    if x == 0 and copysign(1.0, float(x)) < 0:
        return "-0"
    return Fraction(*map(int, x.as_integer_ratio()))


def encode(
    x: Any,
    fmt: Format | str,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    *,
    random: int | None = None,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str = "error",
) -> int:
    """Return the code of `x`: the exact value is rounded once, then overflow is decided on the rounded value.

    Floats round on a grid without upper end, with quantum `2^(max(floor(log2|x|), emin) - mantissa_bits)`; without
    subnormals the neighbours below `2^emin` are 0 and `2^emin`. Parity is that of the code of the neighbour nearer
    zero. A zero or negative number in a format without zero (E8M0) gives NaN in "infinity_or_nan", else the smallest
    value, to which smaller positive numbers round in every mode.

    Posits and takums never round a nonzero number to zero or NaR, in any mode; infinities become NaR. Rounding to
    nearest decides at their value one bit longer, and for logarithmic numbers in the domain that the format says; there
    and for logarithmic takums the position `nu` of a stochastic mode is that of the logarithms.

    Args:
        x: The number, see `exact_value`.
        fmt: A scalar format, or the name of one.
        rounding: A rounding mode, see `lowp.rounding.modes`.
        overflow: An overflow mode, see there.
        random: The random 32-bit word of a stochastic mode; its top `random_bits` bits are R.
        random_bits: Random bits N, 1 to 32; default 32.
        saturation_bits: Saturated bits N of the two wrap modes.
        nan: What NaN becomes in a format without NaN: "error", "zero", or "max", the largest finite value.

    Raises:
        RangeError: `x` is NaN, the format has none, and `nan` is "error".
        FormatError: The format is a block format, or the overflow mode does not apply to it.
        ArgumentError: An unknown name, or `random` is missing or out of range.

    Source:
        IEEE P3109 interim report 4.0, OCP OFP8 1.0, AMD ap_fixed (quantization and overflow modes), Standard for Posit
        Arithmetic (2022), section 4.1.

    Example:
        >>> [encode(x, "float8_e4m3fn", overflow="infinity_or_nan") for x in (448, 464, 465)]
        [126, 126, 127]
        >>> encode(3.0, "float8_e8m0fnu")
        128
        >>> encode(9, "int4", overflow="wrap")
        9
        >>> [encode(x, "posit8_es2") for x in (2**19, 1e-30, float("inf"))]
        [126, 1, 128]
    """
    form = rules.scalar_format(fmt)
    mode = rules.named_mode(rounding, random, random_bits)
    beyond = _overflow(overflow, form, saturation_bits)
    if nan not in NAN_POLICIES:
        raise ArgumentError(unknown_name("nan", nan, NAN_POLICIES))
    value = exact_value(x)
    if value == "nan":
        if isinstance(form, Float | RankedFormat) and form.nan_code is not None:
            return form.nan_code
        if nan == "error":
            raise RangeError(f"x is NaN, and {form.name!r} has no NaN; choose nan='zero' or nan='max'.")
        value = "inf" if nan == "max" else Fraction(0)
        beyond = "saturate"
    return project_code(value, form, mode, beyond, saturation_bits)


def project_code(value: Meaning, form: ScalarFormat, mode: rules.Mode, overflow: str, saturation_bits: int = 0) -> int:
    """Return the code of a number that is not NaN, by the rules of the format's family.

    Among rational values an irrational number has the code of the numbers around it, near enough.
    """
    if isinstance(form, RankedFormat):
        return ranked.project_ranked(value, form, mode, overflow)
    if not isinstance(value, Real):
        return rules.project_code(value, form, mode, overflow, saturation_bits)
    precision = 2048  # more than any format's bits above its last one, so that wrapping is decided too
    while True:
        ends = [rules.project_code(end, form, mode, overflow, saturation_bits) for end in value.enclosure(precision)]
        if ends[0] == ends[1]:
            return ends[0]
        precision *= 2


def quantize(x: Any, fmt: Format | str, *args: Any, nan: str = "keep", **options: Any) -> Meaning:
    """Return the value that `x` rounds to: `decode(encode(x, ...), fmt)`.

    NaN in a format without NaN stays "nan"; the other policies are those of `encode`.

    Args:
        x: The number, see `exact_value`.
        fmt: A scalar format, or the name of one.
        *args: `rounding` and `overflow`, as `encode`.
        nan: "keep", or a policy of `encode`.
        **options: The keyword arguments of `encode`.

    Returns:
        A Fraction, one of "nan", "inf", "-inf", "-0", or an irrational `Real`.

    Raises:
        Error: As `encode`.

    Example:
        >>> quantize(1e9, "e5m2"), quantize(1e9, "e5m2", overflow="infinity_or_nan")
        (Fraction(57344, 1), 'inf')
        >>> quantize(float("nan"), "int8")
        'nan'
    """
    if nan == "keep":
        code = encode(x, fmt, *args, nan="zero", **options)
        return "nan" if exact_value(x) == "nan" else decode(code, fmt)
    return decode(encode(x, fmt, *args, nan=nan, **options), fmt)


def decode(code: int, fmt: Format | str) -> Meaning:
    """Return what a code stands for.

    Args:
        code: The code.
        fmt: A scalar format, or the name of one.

    Returns:
        A Fraction, one of "nan", "inf", "-inf", "-0", or an irrational `Real`.

    Raises:
        ArgumentError: The format has no such code.

    Example:
        >>> decode(0x7E, "float8_e4m3fn"), decode(0x7F, "float8_e4m3fn")
        (Fraction(448, 1), 'nan')
    """
    return rules.scalar_format(fmt).meaning(code)


def neighbours(x: Any, fmt: Format | str) -> tuple[Fraction | Real | None, Fraction | Real | None]:
    """Return the largest finite value not above `x` and the smallest not below it; None where there is none.

    Args:
        x: A number other than NaN, see `exact_value`.
        fmt: A scalar format, or the name of one.

    Raises:
        ArgumentError: `x` is NaN.

    Example:
        >>> neighbours(0.3, "float4_e2m1fn"), neighbours(7, "float4_e2m1fn")
        ((Fraction(0, 1), Fraction(1, 2)), (Fraction(6, 1), None))
    """
    value = exact_value(x)
    if value == "nan":
        raise ArgumentError("x is NaN, which has no neighbours.")
    form = rules.scalar_format(fmt)
    if isinstance(form, RankedFormat):
        return ranked.neighbours(value, form)
    lower = _finite(quantize(x, form, "toward_negative"))
    upper = _finite(quantize(x, form, "toward_positive"))
    if isinstance(value, str) and value != "-0":
        return (lower, None) if value == "inf" else (None, upper)
    number = _finite(value)
    return lower if lower <= number else None, upper if upper >= number else None


def error(x: Any, fmt: Format | str, *args: Any, **options: Any) -> Fraction | Real:
    """Return `quantize(x, fmt, ...) - x`, exactly.

    Args:
        x: A finite number, see `exact_value`.
        fmt: A scalar format, or the name of one.
        *args: `rounding` and `overflow`, as `encode`.
        **options: The keyword arguments of `encode`.

    Raises:
        RangeError: `x` or the result is not finite.

    Example:
        >>> error(17, "float8_e4m3fn"), error(1000, "float8_e4m3fn")
        (Fraction(-1, 1), Fraction(-552, 1))
    """
    value, result = exact_value(x), quantize(x, fmt, *args, **options)
    if any(isinstance(number, str) and number != "-0" for number in (value, result)):
        raise RangeError(f"x={x!r} becomes {result!r}: an error needs a finite number and a finite result.")
    return _finite(result) - _finite(value)


def _finite(value: Meaning) -> Fraction | Real:
    """Return a meaning that is finite as a number, "-0" as zero."""
    return value if isinstance(value, Real) else rules.finite_number(value)


def _overflow(overflow: str, form: ScalarFormat, saturation_bits: int) -> str:
    name = modes.overflow_mode(overflow)
    if name in modes.INTEGER_ONLY and not isinstance(form, Integer | Fixed):
        raise FormatError(f"overflow={overflow!r} is for integers and fixed point, not for {form.name!r}.")
    if name == "wrap_sign_magnitude" and not form.signed:
        raise FormatError(f"overflow={overflow!r} needs a signed format, not {form.name!r}.")
    if rules.checked_integer("saturation_bits", saturation_bits, form.bits) and not name.startswith("wrap"):
        raise ArgumentError(f"saturation_bits={saturation_bits!r} needs overflow 'wrap' or 'wrap_sign_magnitude'.")
    return name
