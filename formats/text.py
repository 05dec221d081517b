"""Numbers and codes as text, without rounding away what matters."""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction

from lowp.formats.codebook import Codebook
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed
from lowp.formats.logarithmic import LNS
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import Meaning, ScalarFormat
from lowp.formats.takum import Takum

#: Longest exact decimal that is written out; longer ones are shortened and marked with "~".
MAX_DIGITS = 24


def decimal(x: Fraction | Real | float, digits: int = MAX_DIGITS) -> str:
    """Return a number as an exact decimal, or as "~" and nine digits where that has more than `digits` or never ends.

    Example:
        >>> decimal(Fraction(1, 512)), decimal(448.0), decimal(Fraction(1, 3))
        ('0.001953125', '448', '~0.333333333')
    """
    if isinstance(x, Real):
        return "~" + _plain(Context(prec=9).create_decimal_from_float(float(x)))
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    x = Fraction(x)
    exact = _terminating(x)
    if exact is not None and len(exact.as_tuple().digits) <= digits:
        return _plain(exact)
    short = Context(prec=9).divide(Decimal(x.numerator), Decimal(x.denominator))
    return "~" + _plain(short)


def _terminating(x: Fraction) -> Decimal | None:
    """Return `x` as an exact Decimal, or None where its decimals never end or are surely too many."""
    rest, places = x.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest != 1 or places > 400 or x.numerator.bit_length() > 4000:
        return None
    digits = str(abs(x.numerator) * 10**places // x.denominator)
    stripped = digits.rstrip("0") or "0"
    sign = 1 if x < 0 else 0
    return Decimal((sign, tuple(map(int, stripped)), len(digits) - len(stripped) - places if x else 0))


def _plain(x: Decimal) -> str:
    """Write a Decimal without exponent while that stays readable."""
    if x == 0:
        return "0"
    return f"{x:f}" if -8 <= x.adjusted() <= 15 else f"{x:e}".replace("e+", "e")


def hex_float(x: float) -> str:
    """Return the hexadecimal form of a float without padding zeros; `float.fromhex` reads it back.

    Example:
        >>> hex_float(448.0), hex_float(2.0**-9)
        ('0x1.cp+8', '0x1p-9')
    """
    text = float(x).hex()
    if "p" not in text:
        return text
    mantissa, exponent = text.split("p")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}p{exponent}"


def meaning_text(meaning: Meaning, digits: int = MAX_DIGITS) -> str:
    """Return what a code stands for as text, a number as `decimal` writes it."""
    return meaning if isinstance(meaning, str) else decimal(meaning, digits)


def code_hex(code: int, bits: int) -> str:
    """Return a code in hexadecimal, padded to its width.

    Example:
        >>> code_hex(9, 8)
        '0x09'
    """
    return f"0x{code:0{(bits + 3) // 4}x}"


def fields(fmt: ScalarFormat) -> list[tuple[str, int]]:
    """Return the bit fields of a code, most significant first, as (name, width).

    Example:
        >>> fields(Float(4, 3, specials="fn"))
        [('sign', 1), ('exponent', 4), ('mantissa', 3)]
    """
    if isinstance(fmt, Float):
        parts = [("sign", int(fmt.signed)), ("exponent", fmt.exponent_bits), ("mantissa", fmt.mantissa_bits)]
        return [part for part in parts if part[1]]
    if isinstance(fmt, Fixed) and 0 < fmt.fraction_bits < fmt.bits:
        return [("integer", fmt.bits - fmt.fraction_bits), ("fraction", fmt.fraction_bits)]
    if isinstance(fmt, Takum) and fmt.bits >= 6:
        return [("sign", 1), ("direction", 1), ("regime", 3), ("characteristic, mantissa", fmt.bits - 5)]
    if isinstance(fmt, TaperedFormat):
        return [("sign", 1), ("regime, exponent, fraction", fmt.bits - 1)]
    if isinstance(fmt, LNS):
        return [("sign", 1), ("logarithm", fmt.bits - 1)]
    return [("index" if isinstance(fmt, Codebook) else "integer", fmt.bits)]


def code_bits(code: int, fmt: ScalarFormat, separator: str = " ") -> str:
    """Return a code in binary, split into the fields of its format.

    Example:
        >>> code_bits(0x7E, Float(4, 3, specials="fn"))
        '0 1111 110'
    """
    digits, parts = f"{code:0{fmt.bits}b}", []
    for _, width in fields(fmt):
        parts.append(digits[:width])
        digits = digits[width:]
    return separator.join(parts)


def special_codes(fmt: ScalarFormat) -> dict[str, list[range]]:
    """Return the codes that are no finite number: runs of codes for "nan", "inf", "-inf" and "-0".

    Example:
        >>> special_codes(Float(4, 3, specials="fn"))
        {'nan': [range(127, 128), range(255, 256)], '-0': [range(128, 129)]}
    """
    if isinstance(fmt, Float):
        return {name: runs for name, runs in _float_specials(fmt).items() if runs}
    if isinstance(fmt, Codebook):
        unused = [code for code in range(1 << fmt.bits) if code not in set(fmt.codes)]
        return {"nan": [range(code, code + 1) for code in unused]} if unused else {}
    if isinstance(fmt, RankedFormat) and fmt.nan_code is not None:
        return {"nan": [range(fmt.nan_code, fmt.nan_code + 1)]}
    return {}


def _float_specials(fmt: Float) -> dict[str, list[range]]:
    magnitudes = 1 << (fmt.bits - fmt.signed)
    zeros = 1 if fmt.subnormals or not fmt.normal_field else 1 << fmt.mantissa_bits
    found: dict[str, list[range]] = {"nan": [], "inf": [], "-inf": [], "-0": []}
    for sign in range(1 + fmt.signed):
        start = sign * magnitudes
        if sign and fmt.has_negative_zero:
            found["-0"].append(range(start, start + zeros))
        elif sign:
            found["nan"].append(range(start, start + 1))
        first_nan = start + fmt.max_code + 1
        if fmt.infinity_code is not None:
            found["-inf" if sign else "inf"].append(range(first_nan, first_nan + 1))
            first_nan += 1
        if first_nan < start + magnitudes:
            found["nan"].append(range(first_nan, start + magnitudes))
    return found
