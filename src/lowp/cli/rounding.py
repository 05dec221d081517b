"""`lowp round`: one number into one format, with everything exact."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

import typer

from lowp._errors import FormatError
from lowp.cli.numbers import read_number, to_float
from lowp.cli.output import JsonFlag, print_json
from lowp.formats import Block, ScalarFormat, parse
from lowp.formats.exact_real import Real
from lowp.formats.spec import Meaning
from lowp.formats.text import code_bits, code_hex, decimal, hex_float
from lowp.rounding import exact
from lowp.rounding.modes import overflow_mode
from lowp.rounding.modes import rounding as rounding_mode


@dataclass(frozen=True)
class Rounded:
    """A number, the format's answer, and the finite values on both sides; errors only where all is finite.

    Values of logarithmic formats are irrational; the error in ulp, a quotient of such numbers, is then a float.
    """

    value: Meaning
    result: Meaning
    code: int
    below: Fraction | Real | None
    above: Fraction | Real | None
    error: Fraction | Real | None
    relative_error: Fraction | Real | None
    ulps: Fraction | float | None


def round_value(
    value: Annotated[str, typer.Argument(metavar="VALUE", help="0.1, -1e-3, 1/3, 0x1.8p-3, inf, nan; read exactly.")],
    name: Annotated[str, typer.Argument(metavar="FORMAT", help="A format that is not a block format.")],
    rounding: Annotated[str, typer.Option(help="Mode, such as ties_to_away, toward_zero.")] = "ties_to_even",
    overflow: Annotated[str, typer.Option(help="Mode, such as infinity_or_nan, wrap.")] = "saturate",
    random: Annotated[int | None, typer.Option(help="The random 32-bit word of a stochastic mode.")] = None,
    random_bits: Annotated[int | None, typer.Option(help="How many of its top bits count; default 32.")] = None,
    nan: Annotated[str, typer.Option(help="What NaN becomes in a format without NaN: error, zero, max.")] = "error",
    json: JsonFlag = False,
) -> None:
    """Round a number exactly: code, bits, neighbours and error."""
    fmt = parse(name)
    if not isinstance(fmt, ScalarFormat):
        hint = " Round into its element." if isinstance(fmt, Block) else ""
        raise FormatError(f"format={name!r} is a block format; one number alone has no block.{hint}")
    modes = rounding_mode(rounding, random_bits).name, overflow_mode(overflow)
    rounded = round_exactly(read_number(value), fmt, *modes, random=random, random_bits=random_bits, nan=nan)
    if json:
        print_json(_as_data(value, fmt, modes, rounded))
    else:
        print(_as_text(value, fmt, modes, rounded))


def round_exactly(
    value: Meaning,
    fmt: ScalarFormat,
    rounding: str,
    overflow: str,
    *,
    random: int | None = None,
    random_bits: int | None = None,
    nan: str = "error",
) -> Rounded:
    """Return the code of `value`, its neighbours and the exact errors; arguments as `lowp.exact.encode`."""
    code = exact.encode(value, fmt, rounding, overflow, random=random, random_bits=random_bits, nan=nan)
    result = exact.decode(code, fmt)
    below, above = (None, None) if value == "nan" else exact.neighbours(value, fmt)
    number, answer = _number(value), _number(result)
    if number is None or answer is None:
        return Rounded(value, result, code, below, above, None, None, None)
    error = answer - number
    ulps = _quotient(error, _ulp(fmt, below, above)) if error != 0 else Fraction(0)
    size = -error if error < 0 else error
    relative = size / abs(number) if isinstance(number, Fraction) and number else None  # numbers read are rational
    return Rounded(value, result, code, below, above, error, relative, ulps)


def _number(meaning: Meaning) -> Fraction | Real | None:
    return meaning if not isinstance(meaning, str) else Fraction(0) if meaning == "-0" else None


def _quotient(a: Fraction | Real, b: Fraction | Real) -> Fraction | float:
    return a / b if isinstance(a, Fraction) and isinstance(b, Fraction) else float(a) / float(b)


def _ulp(fmt: ScalarFormat, below: Fraction | Real | None, above: Fraction | Real | None) -> Fraction | Real:
    """Return the gap that holds the number; beyond the ends, the last gap before the end."""
    inside = Fraction(fmt.smallest_subnormal or 1) / 2
    if below is None or above is None:
        end = above + inside if above is not None else below - inside  # type: ignore[operator]
        below, above = exact.neighbours(end, fmt)
    assert below is not None
    assert above is not None
    return above - below


def _as_text(text: str, fmt: ScalarFormat, modes: tuple[str, str], rounded: Rounded) -> str:
    rows = [
        ("result", _with_hex(rounded.result)),
        ("code", _code(rounded.code, fmt)),
        ("below", _neighbour(rounded.below, fmt)),
        ("above", _neighbour(rounded.above, fmt)),
    ]
    if rounded.error is not None:
        relative = "none" if rounded.relative_error is None else decimal(rounded.relative_error)
        rows += [("error", _exact(rounded.error)), ("relative error", relative)]
    if rounded.ulps is not None:
        rows.append(("error in ulp", _exact(rounded.ulps)))
    head = f"{text} in {fmt.name}, rounding {modes[0]}, overflow {modes[1]}"
    return "\n".join([head, *(f"  {label:<16}{line}" for label, line in rows)])


def _with_hex(meaning: Meaning) -> str:
    if isinstance(meaning, str):
        return meaning
    exactly = f" = {meaning}" if isinstance(meaning, Real) else ""
    return f"{decimal(meaning)}{exactly} = {hex_float(float(meaning))}"


def _exact(x: Fraction | Real | float) -> str:
    if not isinstance(x, Fraction):
        return decimal(Real.of(Fraction(x)) if isinstance(x, float) else x)
    ratio = f" = {x}" if x.denominator > 1 and len(str(x)) <= 24 else ""
    return decimal(x) + ratio


def _code(code: int, fmt: ScalarFormat) -> str:
    return f"{code_hex(code, fmt.bits)}  {code_bits(code, fmt, '|')}"


def _neighbour(value: Fraction | Real | None, fmt: ScalarFormat) -> str:
    if value is None:
        return "none"
    return f"{decimal(value)}  {_code(exact.encode(value, fmt), fmt)}"


def _as_data(text: str, fmt: ScalarFormat, modes: tuple[str, str], rounded: Rounded) -> dict[str, Any]:
    return {
        "input": {"text": text, "exact": str(rounded.value)},
        "format": fmt.name,
        "rounding": modes[0],
        "overflow": modes[1],
        "result": _point(rounded.result, rounded.code, fmt),
        "below": None if rounded.below is None else _point(rounded.below, exact.encode(rounded.below, fmt), fmt),
        "above": None if rounded.above is None else _point(rounded.above, exact.encode(rounded.above, fmt), fmt),
        "error": _error(rounded.error),
        "relative_error": _error(rounded.relative_error),
        "error_ulp": _error(rounded.ulps),
    }


def _point(meaning: Meaning, code: int, fmt: ScalarFormat) -> dict[str, Any]:
    return {
        "value": float(meaning),
        "exact": str(meaning),
        "hex": hex_float(float(meaning)),
        "code": code,
        "code_hex": code_hex(code, fmt.bits),
        "bits": code_bits(code, fmt, "|"),
    }


def _error(x: Fraction | Real | float | None) -> dict[str, Any] | None:
    if x is None:
        return None
    value = to_float(x) if isinstance(x, Fraction) else float(x)
    return {"value": value, "exact": None if isinstance(x, float) else str(x)}
