"""Counterexamples cut codes where the fields of their format end, and write numbers exactly."""

from fractions import Fraction

import pytest

from lowp.formats import parse
from lowp.testing._show import code_fields, code_text, number_text, same, simplicity, value_text


@pytest.mark.parametrize(
    ("name", "code", "fields"),
    [
        ("float8_e4m3fn", 0x7E, "0|1111|110"),
        ("float8_e8m0fnu", 0x80, "10000000"),
        ("posit8_es2", 0x40, "0|10|00|000"),
        ("posit8_es2", 0xC1, "1|10|00|001"),
        ("posit8_es2", 0x7F, "0|1111111"),
        ("posit8_es2", 0x03, "0|000001|1"),
        ("posit8_es0", 0x62, "0|110|0010"),
        ("takum8_linear", 0x4A, "0|1|001|0|10"),
        ("takum16_log", 0x2F33, "0|0|101|11|100110011"),
        ("takum4_linear", 0x5, "0|1|01"),
        ("lns8_f3", 0x4B, "0|1001|011"),
        ("lns6_gamma3", 0x2B, "1|01011"),
        ("fixed8_3", 0x2D, "00101|101"),
        ("int8", 0x2D, "00101101"),
    ],
)
def test_fields_of_codes(name: str, code: int, fields: str) -> None:
    assert code_fields(code, parse(name)) == fields


def test_text_of_codes_and_numbers() -> None:
    e4m3 = parse("float8_e4m3fn")
    assert code_text(0x7F, e4m3) == "0x7f 0|1111|111 = nan"
    assert code_text(256, e4m3) == "256, no code of 8 bits"
    assert code_text(1, parse("lns8_f3")) == "0x01 0|0000|001 = ~1.0905077326652577"
    assert value_text(1.0625, e4m3) == "1.0625, no value of float8_e4m3fn"
    assert value_text(-0.0, parse("int8")) == "0x00 00000000 = 0"
    assert value_text(float("nan"), parse("int8")) == "nan"
    assert number_text(0.1) == "0.1 (0x1.999999999999ap-4)"
    assert number_text(Fraction(1, 3)) == "~0.333333333"
    assert [number_text(x) for x in (-0.0, float("inf"), "nan")] == ["-0.0", "inf", "nan"]


def test_simple_numbers_come_first() -> None:
    order = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 1024.0, 3.0, 0.75, 0.1, float("inf"), float("-inf"), float("nan")]
    shuffled = [order[i * 5 % len(order)] for i in range(len(order))]
    assert [repr(x) for x in sorted(shuffled, key=simplicity)] == [repr(x) for x in order]


def test_equality_of_values() -> None:
    assert same("-0", -0.0)
    assert not same("-0", 0.0)
    assert same(Fraction(0), -0.0, signed_zero=False)
    assert same("nan", float("nan"))
    assert not same("nan", 1.0)
