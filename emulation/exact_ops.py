"""The exact oracle for operations: the exact result in the extended reals, rounded once; slow, and meant to be read.

Fast arithmetic is checked against these functions bit for bit. They share no code with it: numbers are what a code
means (a Fraction, an irrational `Real`, or one of "nan", "inf", "-inf", "-0"), and rounding is that of
`lowp.rounding.exact`.

    >>> operate("divide", (1, 3), "float8_e4m3fn")
    43
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, unknown_name
from lowp.emulation.exact_arithmetic import ARITHMETIC, SUMS, decided, fma
from lowp.emulation.exact_functions import FUNCTIONS, Result
from lowp.formats.block import Block
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import Format, Meaning, ScalarFormat
from lowp.rounding import exact, modes
from lowp.rounding.exact_block import encode_block
from lowp.rounding.exact_rules import scalar_format

__all__ = ["OPERATIONS", "dot", "exact_result", "operate", "quantize_block"]

#: Accumulators that hold every sum of products exactly.
EXACT_ACCUMULATORS = ("exact", "quire")
#: Overflow modes that are not monotone, so that bounds must lie within one step of the format to decide.
_WRAPPING = ("wrap", "wrap_sign_magnitude")
#: Operations by name: how many operands, and the exact result.
OPERATIONS: dict[str, tuple[int, Callable[..., Result]]] = ARITHMETIC | FUNCTIONS


def is_p3109(fmt: ScalarFormat) -> bool:
    """Whether a format is one of IEEE P3109, whose zero has no sign and cannot divide."""
    return isinstance(fmt, Float) and fmt.specials.startswith("p3109")


def operate(
    op: str,
    operands: Sequence[Any],
    fmt: Format | str,
    rounding: str = "ties_to_even",
    overflow: str = "infinity_or_nan",
    *,
    random: int | None = None,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str = "error",
) -> int:
    """Return the code of an operation's exact result, rounded once.

    Special cases are those of IEEE 754-2019: inf - inf, 0 * inf, 0/0, inf/inf, sqrt of a negative number,
    remainder(x, 0), remainder(inf, y), log of a negative number and sin(inf) are NaN; x/0 is an infinity; a sum that
    cancels is +0, or -0 where rounding is toward negative; the sign of a zero product or quotient is that of both signs
    multiplied; a zero remainder has the sign of the dividend; x/0 is NaN in the formats of P3109;
    power(x, 0) = power(1, y) = 1 even of NaN. Posits and
    takums: an operand that is NaN gives NaR always, and so does every NaN and infinity.

    Args:
        op: A key of `OPERATIONS`.
        operands: Its operands at their exact values, see `lowp.rounding.exact.exact_value`.
        fmt: Scalar format of the result.
        rounding: A rounding mode.
        overflow: An overflow mode; the default is that of IEEE 754.
        random: The random 32-bit word of a stochastic mode.
        random_bits: Random bits N, 1 to 32; default 32.
        saturation_bits: Saturated bits of the two wrap modes.
        nan: What NaN becomes in a format without NaN: "error", "zero" or "max".

    Raises:
        RangeError: The result is NaN, the format has none, and `nan` is "error".
        ArgumentError: An unknown name, or the wrong number of operands.

    Source:
        IEEE 754-2019, 5.3.1, 5.4.1, 6.1-6.3, 9.2.1 and 9.6; Standard for Posit Arithmetic (2022), 5.

    Example:
        >>> operate("fma", (1.5, 1.5, -2.25), "float16", "toward_negative") == 0x8000
        True
        >>> operate("add", (100, 100), "int8"), operate("sqrt", (-1,), "posit8_es2")
        (127, 128)
    """
    form, mode = scalar_format(fmt), modes.rounding(rounding, random_bits).name
    numbers = [exact.exact_value(x) for x in operands]
    if isinstance(form, TaperedFormat) and "nan" in numbers:
        result: Result = "nan"
    elif op == "divide" and is_p3109(form) and numbers[1] in (0, "-0"):
        result = "nan"
    else:
        result = exact_result(op, numbers, mode == "toward_negative")

    def code(x: Meaning) -> int:
        return exact.encode(
            x, form, rounding, overflow,
            random=random, random_bits=random_bits, saturation_bits=saturation_bits, nan=nan,
        )  # fmt: skip

    if isinstance(result, Real) and not isinstance(form, RankedFormat) and result.rational() is None:
        result = result.enclosure  # the codes change over at rational numbers, of which this is none
    if not callable(result):
        return code(result)
    return decided(result, code, _step(form) if modes.overflow_mode(overflow) in _WRAPPING else None)


def exact_result(op: str, operands: Sequence[Meaning], toward_negative: bool = False) -> Result:
    """Return the result of an operation before rounding.

    Args:
        op: A key of `OPERATIONS`.
        operands: Exact numbers.
        toward_negative: Whether a sum that cancels is -0.

    Returns:
        An exact number, or for an irrational one that `Real` does not hold a function from a precision in bits to
        bounds below and above it.

    Raises:
        ArgumentError: An unknown operation, or the wrong number of operands.

    Example:
        >>> exact_result("remainder", (Fraction(7), Fraction(4))), exact_result("divide", (Fraction(-1), Fraction(0)))
        (Fraction(-1, 1), '-inf')
    """
    if op not in OPERATIONS:
        raise ArgumentError(unknown_name("op", op, OPERATIONS))
    count, function = OPERATIONS[op]
    if len(operands) != count:
        raise ArgumentError(f"operands has {len(operands)} entries; {op!r} takes {count}.")
    return function(*operands, toward_negative) if op in SUMS else function(*operands)


def dot(
    a: Sequence[Any],
    b: Sequence[Any],
    fmt: Format | str,
    accumulator: str | Format | None = None,
    rounding: str = "ties_to_even",
    overflow: str = "infinity_or_nan",
    *,
    random: Sequence[int] | None = None,
    random_bits: int | None = None,
    nan: str = "error",
) -> int:
    """Return the code of a dot product.

    Args:
        a: Numbers at their exact values.
        b: As many numbers.
        fmt: Format of the result.
        accumulator: None: a chain of fused multiply-adds in `fmt`, from +0 and in order of the index. A format: the
            same chain in that format, its end rounded into `fmt`. "exact" or "quire": the exact sum, rounded once.
        rounding: Rounding mode of every step.
        overflow: Overflow mode of every step.
        random: One 32-bit word per rounding (see `roundings`), for stochastic modes.
        random_bits: Random bits of a stochastic mode.
        nan: As `operate`.

    Raises:
        ArgumentError: Operands of different lengths, or the wrong number of random words.
        RangeError: As `operate`.

    Source:
        Standard for Posit Arithmetic (2022), 5.10 and 5.11, the quire.

    Example:
        >>> dot((256, 1, -256), (256, 1, 256), "float16", "float32"), dot((256, 1, -256), (256, 1, 256), "bfloat16")
        (15360, 0)
    """
    if len(a) != len(b):
        raise ArgumentError(f"a has {len(a)} numbers, b {len(b)}; a dot product needs as many of each.")
    form = scalar_format(fmt)
    needed = roundings(len(a), form, accumulator)
    words: list[int | None] = [None] * needed if random is None else list(random)
    if len(words) != needed:
        raise ArgumentError(f"random has {len(words)} words; this dot product rounds {needed} times.")
    options: dict[str, Any] = {"rounding": rounding, "overflow": overflow, "random_bits": random_bits, "nan": nan}
    pairs = [(exact.exact_value(x), exact.exact_value(y)) for x, y in zip(a, b, strict=True)]
    if isinstance(accumulator, str) and accumulator in EXACT_ACCUMULATORS:
        down = modes.rounding(rounding, random_bits).name == "toward_negative"
        return operate("convert", (_exact_sum(pairs, down),), form, random=words[0], **options)
    inner = form if accumulator is None else scalar_format(accumulator)
    code = exact.encode(0, inner)
    for (x, y), word in zip(pairs, words, strict=False):
        code = operate("fma", (x, y, inner.meaning(code)), inner, random=word, **options)
    if inner == form:
        return code
    return operate("convert", (inner.meaning(code),), form, random=words[-1], **options)


def roundings(length: int, fmt: ScalarFormat, accumulator: str | Format | None) -> int:
    """Return how many times a dot product rounds: once per step, and once more where the accumulator is another format.

    Example:
        >>> roundings(4, scalar_format("float16"), "quire"), roundings(4, scalar_format("float16"), "float32")
        (1, 5)
    """
    if isinstance(accumulator, str) and accumulator in EXACT_ACCUMULATORS:
        return 1
    return length + (accumulator is not None and scalar_format(accumulator) != fmt)


def quantize_block(
    values: Sequence[Any],
    fmt: Block,
    rounding: str = "ties_to_even",
    *,
    random: Sequence[int] | None = None,
    random_bits: int | None = None,
) -> tuple[int, list[int], int | None]:
    """Return the codes of one block: scale, elements, zero point (None without one).

    Args:
        values: Finite numbers, see `lowp.rounding.exact.exact_value`.
        fmt: A block format whose scale follows one of `lowp.rounding.exact_block.EXACT_RECIPES`, without tensor scale.
        rounding: Rounding mode of the elements.
        random: One 32-bit word per value, for stochastic modes.
        random_bits: Random bits of a stochastic mode.

    Raises:
        FormatError: The scale has no exact definition.
        RangeError: A value is not finite.

    Example:
        >>> from lowp.formats import parse
        >>> quantize_block([957, -3, 0.5], parse("mxfp8_e4m3"))
        (128, [126, 188, 40], None)
    """
    if not isinstance(fmt, Block):
        raise ArgumentTypeError(f"fmt={fmt!r} must be a Block.")
    if fmt.tensor_scale is not None:
        raise FormatError(f"fmt={fmt.name!r} has a scale of the whole tensor; the oracle is for blocks by themselves.")
    return encode_block(
        values, fmt.element, fmt.scale, fmt.recipe,
        zero_point=fmt.zero_point, rounding=rounding, random=random, random_bits=random_bits,
    )  # fmt: skip


def _exact_sum(pairs: Sequence[tuple[Meaning, Meaning]], toward_negative: bool) -> Meaning:
    """Return the sum of the products, from +0; partial sums never round, so the order does not matter but for zeros."""
    total: Meaning = Fraction(0)
    for x, y in pairs:
        total = fma(x, y, total, toward_negative)
    return total


def _step(fmt: ScalarFormat) -> Fraction:
    """Return the distance between values of a format with equal steps."""
    return Fraction(1) / Fraction(2) ** getattr(fmt, "fraction_bits", 0)
