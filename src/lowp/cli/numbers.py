"""Numbers as people type them, read exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from lowp._errors import ArgumentError
from lowp.formats.spec import Meaning

_HEX = re.compile(r"([+-]?)0x([0-9a-f]*)\.?([0-9a-f]*)(?:p([+-]?\d+))?")
_EXPONENT = re.compile(r"[ep]([+-]?\d+)$")
_WORDS = {"inf": "inf", "infinity": "inf", "nan": "nan"}
MAX_EXPONENT = 2000
MAX_LENGTH = 1000


def read_number(text: str) -> Meaning:
    """Return the number that a text stands for, exactly: 0.1 is one tenth, not the nearest float64.

    Args:
        text: A decimal ("0.1", "-1e-3"), a ratio ("1/3"), a hexadecimal float ("0x1.8p-3"), "inf" or "nan".

    Raises:
        ArgumentError: It is no number, or its exponent lies beyond ±2000.

    Example:
        >>> read_number("0.1"), read_number("0x1.8p-3"), read_number("-0")
        (Fraction(1, 10), Fraction(3, 16), '-0')
    """
    word = text.strip().lower().replace("_", "")
    sign, rest = ("-", word[1:]) if word.startswith("-") else ("", word.removeprefix("+"))
    if rest in _WORDS:
        return _WORDS[rest] if rest == "nan" else sign + _WORDS[rest]
    value = _finite(word, text)
    return "-0" if value == 0 and sign else value


def _finite(word: str, text: str) -> Fraction:
    exponent = _EXPONENT.search(word) if "x" in word or "p" not in word else None
    if len(word) > MAX_LENGTH or (exponent and "/" not in word and _is_huge(exponent[1], word)):
        raise ArgumentError(
            f"value={text[:40]!r} is out of reach; allowed: exponents from -{MAX_EXPONENT} to {MAX_EXPONENT}."
        )
    hexadecimal = _HEX.fullmatch(word)
    try:
        return _from_hex(*hexadecimal.groups()) if hexadecimal else Fraction(word)
    except (ValueError, ZeroDivisionError) as error:
        allowed = (
            'a decimal such as 0.1 or 1e-3, a ratio such as 1/3, a hexadecimal float such as 0x1.8p-3, "inf", "nan"'
        )
        raise ArgumentError(f"value={text!r} is not a number; allowed: {allowed}.") from error


def _is_huge(exponent: str, word: str) -> bool:
    is_hex_digits = "x" in word and "p" not in word  # 0x1e5 ends in hexadecimal digits, not in an exponent
    return not is_hex_digits and abs(int(exponent)) > MAX_EXPONENT


def _from_hex(sign: str, whole: str, fraction: str, exponent: str | None) -> Fraction:
    magnitude = Fraction(int(whole + fraction, 16), 16 ** len(fraction)) * Fraction(2) ** int(exponent or 0)
    return -magnitude if sign == "-" else magnitude


def to_float(x: Fraction) -> float:
    """Return the nearest float; infinity where it is beyond them."""
    try:
        return float(x)
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")
