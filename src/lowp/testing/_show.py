"""Codes and numbers as counterexamples show them: field by field, exactly."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from lowp.formats.exact_real import Real
from lowp.formats.logarithmic import LNS
from lowp.formats.posit import Posit
from lowp.formats.spec import Meaning, ScalarFormat, to_float
from lowp.formats.takum import Takum
from lowp.formats.text import code_bits, code_hex, decimal, hex_float
from lowp.rounding import exact


def code_fields(code: int, fmt: ScalarFormat) -> str:
    """Return a code in binary, cut where its fields end: sign|exponent|mantissa, sign|regime|exponent|fraction, ..."""
    digits = f"{code:0{fmt.bits}b}"
    if isinstance(fmt, Posit):
        return _cut(digits, [1, _regime_length(digits[1:]), fmt.es])
    if isinstance(fmt, Takum):
        padded = digits.ljust(5, "0")
        regime = int(padded[2:5], 2)
        return _cut(digits, [1, 1, 3, regime if padded[1] == "1" else 7 - regime])
    if isinstance(fmt, LNS):
        power = fmt.gamma & (fmt.gamma - 1) == 0
        fraction = fmt.gamma.bit_length() - 1 if power else 0
        return _cut(digits, [1, max(fmt.bits - 1 - fraction, 0)])
    return code_bits(code, fmt, "|")


def _regime_length(body: str) -> int:
    """Bits of a posit's regime, its terminating bit included."""
    return len(body) - len(body.lstrip(body[0])) + 1


def _cut(digits: str, widths: list[int]) -> str:
    """Cut digits into fields of the given widths and a last one of what is left."""
    parts = []
    for width in widths:
        parts.append(digits[:width])
        digits = digits[width:]
    return "|".join(part for part in (*parts, digits) if part)


def number_text(x: Meaning | float) -> str:
    """Return a number in decimal; a float of many digits as the shortest decimal that names it, and in hexadecimal."""
    if isinstance(x, str):
        return x
    if isinstance(x, float) and (not math.isfinite(x) or x == 0):
        return str(x)
    if isinstance(x, Real):
        return f"~{float(x)!r}"
    text = decimal(Fraction(x))
    near = to_float(Fraction(x))
    return f"{near!r} ({hex_float(near)})" if text.startswith("~") and near == x else text


def code_text(code: int, fmt: ScalarFormat) -> str:
    """Return a code as hexadecimal, fields and value."""
    if not 0 <= code < 1 << fmt.bits:
        return f"{code}, no code of {fmt.bits} bits"
    return f"{code_hex(code, fmt.bits)} {code_fields(code, fmt)} = {number_text(fmt.meaning(code))}"


def value_text(x: float, fmt: ScalarFormat) -> str:
    """Return a value with its code, or say that the format has no such value."""
    if math.isnan(x) and not fmt.has_nan:
        return "nan"
    code = exact.encode(x, fmt, overflow="infinity_or_nan")
    if same(fmt.meaning(code), x, signed_zero=fmt.has_negative_zero):
        return code_text(code, fmt)
    return f"{number_text(float(x))}, no value of {fmt.name}"


def same(meaning: Meaning, x: float, dtype: Any = None, signed_zero: bool = True) -> bool:
    """Whether a float is what a meaning says, or the nearest float of its dtype; zeros need the same sign on demand."""
    wanted = to_float(meaning)
    if dtype is not None:
        wanted = float(dtype.type(wanted))
    if math.isnan(wanted) or math.isnan(x):
        return math.isnan(wanted) and math.isnan(x)
    return wanted == x and (wanted != 0 or not signed_zero or math.copysign(1.0, wanted) == math.copysign(1.0, x))


def simplicity(x: float | int) -> tuple[float, ...]:
    """Sort key that puts small integers and numbers of few digits first, NaN and infinity last."""
    if isinstance(x, int):
        return (x,)
    if not math.isfinite(x):
        return (2.0, math.isnan(x), x < 0)
    if x == 0:
        return (0.0, 0.0, 0.0, math.copysign(1.0, x) < 0)
    mantissa, exponent = math.frexp(x)
    digits = abs(int(math.ldexp(mantissa, 53)))
    return (1.0, digits.bit_length() - (digits & -digits).bit_length(), abs(exponent - 1), x < 0)


def same_code(got: int, wanted: int, fmt: ScalarFormat) -> bool:
    """Whether two codes are equal or mean the same."""
    return got == wanted or (0 <= got < 1 << fmt.bits and fmt.meaning(got) == fmt.meaning(wanted))


def lines(**parts: str) -> str:
    """Return the parts of a counterexample, one on a line."""
    return "\n".join(f"  {name:8} {text}" for name, text in parts.items())
