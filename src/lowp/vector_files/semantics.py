"""What a set of test vectors computes: an operation, formats and modes, from a header and back, and case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentError, FileError, FormatError, RangeError, unknown_name
from lowp.emulation import exact_ops
from lowp.formats import Block, Format, Packed, ScalarFormat
from lowp.formats.float_format import Float
from lowp.formats.spec import Meaning
from lowp.rounding import encode, exact, modes
from lowp.rounding.exact_block import EXACT_RECIPES
from lowp.rounding.exact_rules import scalar_format
from lowp.vector_files.descriptions import describe_format, format_of

#: Short names of operations.
ALIASES = {"sub": "subtract", "mul": "multiply", "div": "divide", "rem": "remainder", "pow": "power", "min": "minimum",
           "max": "maximum", "neg": "negative", "abs": "absolute", "quantize": "block_quantize"}  # fmt: skip
#: Operations on scalars, then those on several numbers at once.
OPERATIONS = (*exact_ops.OPERATIONS, "dot", "block_quantize")
#: What becomes of a case whose result is NaN where the format has none.
NAN_POLICIES = ("skip", "zero", "max")
_NAMES = {1: ("x",), 2: ("a", "b"), 3: ("a", "b", "c")}
_FLOAT32 = Float(8, 23)


class Column(NamedTuple):
    """One operand or result of every case.

    Attributes:
        name: Its name.
        bits: Bits of a code.
        format: What the codes stand for; None for plain bits.
        length: How many codes a case has; None for a single one.
    """

    name: str
    bits: int
    format: ScalarFormat | None
    length: int | None = None

    @property
    def size(self) -> int:
        """Codes per case."""
        return 1 if self.length is None else self.length

    @property
    def labels(self) -> list[str]:
        """A name for each code of a case."""
        return [self.name] if self.length is None else [f"{self.name}{i}" for i in range(self.length)]

    @property
    def digits(self) -> int:
        """Hexadecimal digits of a code."""
        return (self.bits + 3) // 4


@dataclass(frozen=True)
class Semantics:
    """An operation with everything that decides its results; names are canonical.

    Attributes:
        operation: One of `OPERATIONS`.
        operand: Format of the operands.
        result: Format of the results; a block format for "block_quantize".
        rounding: Rounding mode.
        overflow: Overflow mode.
        random_bits: Random bits of a stochastic mode, else None.
        nan: One of `NAN_POLICIES`.
        length: Numbers in a dot product or a block, else None.
        accumulator: Of dot: "exact", a format, or None for the result's own.
    """

    operation: str
    operand: ScalarFormat
    result: Format
    rounding: str = "ties_to_even"
    overflow: str = "infinity_or_nan"
    random_bits: int | None = None
    nan: str = "skip"
    length: int | None = None
    accumulator: str | ScalarFormat | None = None

    @property
    def stochastic(self) -> bool:
        """Whether cases bring random words."""
        return self.random_bits is not None

    @cached_property
    def exact_blocks(self) -> bool:
        """Whether the block format has an exact definition."""
        fmt = self.result
        return isinstance(fmt, Block) and fmt.tensor_scale is None and fmt.recipe in EXACT_RECIPES

    @cached_property
    def operands(self) -> tuple[Column, ...]:
        """The columns of operands; random words are the last."""
        if self.operation in ("dot", "block_quantize"):
            names: tuple[str, ...] = ("a", "b") if self.operation == "dot" else ("x",)
        else:
            names = _NAMES[exact_ops.OPERATIONS[self.operation][0]]
        columns = [Column(name, self.operand.bits, self.operand, self.length) for name in names]
        if self.stochastic:
            columns.append(Column("random", 32, None, self._random_words))
        return tuple(columns)

    @property
    def _random_words(self) -> int | None:
        if self.operation != "dot":
            return self.length
        assert self.length is not None
        assert isinstance(self.result, ScalarFormat)
        words = exact_ops.roundings(self.length, self.result, self.accumulator)
        return words if words > 1 else None

    @cached_property
    def results(self) -> tuple[Column, ...]:
        """The columns of results."""
        fmt = self.result
        if isinstance(fmt, ScalarFormat):
            return (Column("result", fmt.bits, fmt),)
        if isinstance(fmt, Packed):
            return (Column("bytes", 8, None, _packed_bytes(fmt, self.length or 1)),)
        assert isinstance(fmt, Block)
        columns = [Column("scale", fmt.scale.bits, fmt.scale), Column("elements", fmt.bits, fmt.element, self.length)]
        if fmt.zero_point:
            columns.append(Column("zero_point", fmt.element.bits, fmt.element))
        if fmt.tensor_scale is not None:
            columns.append(Column("tensor_scale", fmt.tensor_scale.bits, fmt.tensor_scale))
        return tuple(columns)

    def evaluate(self, case: Sequence[int]) -> tuple[int, ...] | None:
        """Return the result codes of one case, by the exact oracle; None where a NaN has no code and is skipped."""
        numbers, words = self._split(case)
        try:
            if self.operation == "block_quantize":
                return self._blocks(numbers, words)
            return (self._scalar(numbers, words),)
        except RangeError:
            if self.nan != "skip":
                raise
            return None

    def _split(self, case: Sequence[int]) -> tuple[list[Meaning], list[int] | None]:
        count = sum(column.size for column in self.operands if column.name != "random")
        numbers = [_meaning(self.operand, code) for code in case[:count]]
        return numbers, list(case[count:]) if self.stochastic else None

    def _scalar(self, numbers: list[Meaning], words: list[int] | None) -> int:
        options: dict[str, Any] = {"random_bits": self.random_bits, "nan": "error" if self.nan == "skip" else self.nan}
        arguments = (self.rounding, self.overflow)
        if self.operation == "dot":
            half = len(numbers) // 2
            a, b = numbers[:half], numbers[half:]
            return exact_ops.dot(a, b, self.result, self.accumulator, *arguments, random=words, **options)
        word = words[0] if words else None
        return exact_ops.operate(self.operation, numbers, self.result, *arguments, random=word, **options)

    def _blocks(self, numbers: list[Meaning], words: list[int] | None) -> tuple[int, ...]:
        fmt = self.result
        if not self.exact_blocks:
            return _blocks_by_system(numbers, fmt, self.rounding, self.operand)
        assert isinstance(fmt, Block)
        scale, elements, zero_point = exact_ops.quantize_block(
            numbers, fmt, self.rounding, random=words, random_bits=self.random_bits
        )
        tail = () if zero_point is None else (zero_point % (1 << fmt.element.bits),)
        return (scale, *elements, *tail)

    def header(self) -> dict[str, Any]:
        """Return what a file says about the semantics."""
        formats = {f.name: f for f in (self.operand, self.result)}
        if isinstance(self.accumulator, ScalarFormat):
            formats[self.accumulator.name] = self.accumulator
        inner = self.accumulator.name if isinstance(self.accumulator, ScalarFormat) else self.accumulator
        return {
            "operation": self.operation,
            "definition": _definition(self),
            "operands": [_column_data(column) for column in self.operands],
            "results": [_column_data(column) for column in self.results],
            "operand_format": self.operand.name,
            "result_format": self.result.name,
            "accumulator": inner,
            "length": self.length,
            "rounding": self.rounding,
            "rounding_rule": f"away from zero if {modes.ROUNDING_MODES[self.rounding]}",
            "overflow": self.overflow,
            "overflow_rule": modes.OVERFLOW_MODES[self.overflow],
            "random_bits": self.random_bits,
            "nan": self.nan,
            "nan_rule": "a NaN result may be any NaN code; where there is none: " + _NAN_RULES[self.nan],
            "computed_by": _oracle_name(self),
            "formats": {name: describe_format(fmt) for name, fmt in formats.items()},
        }

    @staticmethod
    def from_header(header: dict[str, Any]) -> Semantics:
        """Return the semantics that a header describes, from its own parameters of the formats.

        Raises:
            FileError: The header lacks something.
        """
        try:
            formats = {name: format_of(data) for name, data in header["formats"].items()}
            operand, inner = formats[header["operand_format"]], header["accumulator"]
            assert isinstance(operand, ScalarFormat)
            names = ("operation", "rounding", "overflow", "random_bits", "nan", "length")
            found = {name: header[name] for name in names}
            return make_semantics(
                operand=operand, result=formats[header["result_format"]], accumulator=formats.get(inner, inner), **found
            )
        except (KeyError, TypeError, AttributeError, AssertionError) as error:
            raise FileError(f"the header does not describe test vectors completely: {error!r}.") from error


def make_semantics(
    operation: str,
    operand: ScalarFormat,
    result: Format,
    rounding: str,
    overflow: str,
    random_bits: int | None,
    nan: str,
    length: int | None,
    accumulator: Any,
) -> Semantics:
    """Return the semantics with canonical names, everything checked.

    Raises:
        ArgumentError: A name that is not known, or arguments that do not go together.
        FormatError: Formats that do not fit the operation.
    """
    mode = modes.rounding(rounding, random_bits)
    if nan not in NAN_POLICIES:
        raise ArgumentError(unknown_name("nan", nan, NAN_POLICIES))
    if isinstance(accumulator, str):
        accumulator = "exact" if accumulator in exact_ops.EXACT_ACCUMULATORS else scalar_format(accumulator)
    if operation != "dot" and accumulator is not None:
        raise ArgumentError(f"accumulator={accumulator!r} goes with operation 'dot' only, not {operation!r}.")
    is_block = operation == "block_quantize"
    if isinstance(result, ScalarFormat) == is_block:
        kind = "a block format" if is_block else "a scalar format"
        raise FormatError(f"result={result.name!r}: {operation!r} needs {kind}.")
    made = Semantics(
        operation, operand, result, mode.name, "saturate" if is_block else modes.overflow_mode(overflow),
        mode.random_bits if mode.variant else None, nan, _checked_length(operation, result, length), accumulator,
    )  # fmt: skip
    if is_block and made.stochastic and not made.exact_blocks:
        raise FormatError(f"rounding={rounding!r}: {result.name!r} takes its random bits from a seed, not from a case.")
    if not is_block:
        exact.encode(0, result, mode.name, made.overflow, random=0, random_bits=made.random_bits)  # do the modes fit?
    return made


def _checked_length(operation: str, result: Format, length: int | None) -> int | None:
    if operation not in ("dot", "block_quantize"):
        if length is not None:
            raise ArgumentError(f"length={length!r} goes with 'dot' and 'block_quantize', not {operation!r}.")
        return None
    if length is None:
        return 4 if operation == "dot" else _block_length(result)
    if isinstance(length, bool) or not hasattr(length, "__index__") or not 1 <= length <= 4096:
        raise ArgumentError(f"length={length!r} must be an integer from 1 to 4096.")
    if isinstance(result, Block | Packed) and isinstance(_size(result), tuple):
        raise ArgumentError(f"length={length!r}: a block of {result.name!r} has two dimensions, leave it out.")
    most = _block_length(result) if isinstance(_size(result), int) else length
    if operation == "block_quantize" and length > most:
        raise ArgumentError(f"length={length!r} is more than one block of {result.name!r}, which holds {most}.")
    return int(length)


def _size(fmt: Format) -> Any:
    return fmt.size if isinstance(fmt, Block) else fmt.block_size if isinstance(fmt, Packed) else None


def _block_length(fmt: Format) -> int:
    size = _size(fmt)
    return int(np.prod(size)) if isinstance(size, int | tuple) else 32


@lru_cache(maxsize=1 << 17)
def _meaning(fmt: ScalarFormat, code: int) -> Meaning:
    return fmt.meaning(code)


def _blocks_by_system(numbers: list[Meaning], fmt: Format, rounding: str, operand: ScalarFormat) -> tuple[int, ...]:
    """Return the codes of one block as `lowp.encode` makes them: rules that follow one system's own arithmetic."""
    size = _size(fmt)
    narrow = isinstance(operand, Float) and operand.exponent_bits <= 8 and operand.mantissa_bits <= 23
    values = [-0.0 if x == "-0" else float(x) for x in numbers]
    x = np.array(values, np.float32 if narrow else np.float64)
    done = encode(x.reshape(size if isinstance(size, tuple) else (1, -1)), fmt, rounding)
    if isinstance(fmt, Packed):
        return tuple(done.pack().tolist())
    assert isinstance(fmt, Block)
    tail = [] if done.zero_points is None else done.zero_points.ravel() % (1 << fmt.element.bits)
    codes = [*done.scales.ravel(), *done.codes.ravel(), *tail]
    if fmt.tensor_scale is not None:
        codes.append(exact.encode(done.tensor_scale, fmt.tensor_scale))
    return tuple(int(code) for code in codes)


@lru_cache(maxsize=64)
def _packed_bytes(fmt: Packed, length: int) -> int:
    return len(_blocks_by_system([Fraction(0)] * length, fmt, "ties_to_even", _FLOAT32))


def _column_data(column: Column) -> dict[str, Any]:
    name = None if column.format is None else column.format.name
    return {"name": column.name, "bits": column.bits, "length": column.length, "format": name}


_NAN_RULES = {
    "skip": "the case is left out",
    "zero": "the code of zero",
    "max": "the code of the largest finite value",
}
_FORMULAS = {
    "add": "a + b", "subtract": "a - b", "multiply": "a * b", "divide": "a / b", "fma": "a * b + c, rounded once",
    "sqrt": "the square root of x", "convert": "x", "negative": "-x", "absolute": "|x|",
    "remainder": "a - b * n, n the integer nearest to a / b, ties to even",
    "fmod": "a - b * n, n the quotient a / b without its fraction",
    "minimum": "the smaller number, NaN if either is, -0 < +0",
    "maximum": "the larger number, NaN if either is, -0 < +0",
    "power": "a^b, special cases as C's pow",
    "block_quantize": "the block format's codes of x0, x1, ... as one block",
}  # fmt: skip
_RULES = (
    "; operands are exact, special cases and signs of zeros as IEEE 754-2019 (posits and takums: NaN and infinity are "
    "NaR), the exact result is rounded once, overflow is decided on the rounded value"
)


def _definition(semantics: Semantics) -> str:
    """Return the operation in words."""
    operation, accumulator = semantics.operation, semantics.accumulator
    if operation == "block_quantize":
        return _FORMULAS[operation]
    if operation != "dot":
        return _FORMULAS.get(operation, f"{operation}(x)") + _RULES
    if accumulator == "exact":
        return "the exact sum of the products a0*b0 + a1*b1 + ..." + _RULES
    inner = accumulator if isinstance(accumulator, ScalarFormat) else semantics.result
    chain = f"s = fma(a_i, b_i, s) in {inner.name}, from s = +0 and i = 0 upward"
    return chain + (", then s converted" if inner != semantics.result else "") + _RULES


def _oracle_name(semantics: Semantics) -> str:
    if semantics.operation != "block_quantize":
        return "lowp.emulation.exact_ops, exact rational arithmetic"
    if semantics.exact_blocks:
        return "lowp.emulation.exact_ops.quantize_block, exact rational arithmetic"
    return "lowp.encode: the scale rule follows one system's own arithmetic and has no exact definition"
