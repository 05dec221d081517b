"""Cards, and the numbers and codes they are made of."""

import itertools
import json
from fractions import Fraction

import pytest

from lowp._errors import FormatError
from lowp.formats import Block, Codebook, Fixed, Float, Integer, ScalarFormat, describe, names, parse
from lowp.formats.describe import finite_count, properties
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import finite_values
from lowp.formats.table import markdown_table
from lowp.formats.text import code_bits, decimal, fields, hex_float, special_codes

SMALL = [name for name in names() if isinstance(parse(name), ScalarFormat) and parse(name).bits <= 12] + [
    "e1m1f",
    "e5m0fn",
    "ue2m3fn",
    "ue5m3f_nozero",
    "e3m2fn_nosub",
    "e4m3_nosub",
    "binary8p3se",
    "binary8p3sf",
    "binary6p3ue",
    "binary6p3uf",
    "fixed6_m2",
    "fixed5_9_sym",
]


@pytest.mark.parametrize("name", names())
def test_every_registered_format_has_a_card(name: str) -> None:
    card = describe(name)
    assert card.startswith(f"{name}: ")
    assert max(map(len, card.splitlines())) <= 130
    assert card == describe(parse(name))


@pytest.mark.parametrize("name", names())
def test_properties_are_strict_json(name: str) -> None:
    data = json.loads(json.dumps(properties(name), allow_nan=False))
    assert data["name"] == name
    assert data["bits_per_value"] == parse(name).bits_per_value


@pytest.mark.parametrize("name", SMALL)
def test_special_codes_are_those_the_format_means(name: str) -> None:
    fmt = parse(name)
    expected: dict[str, list[int]] = {}
    for code in range(1 << fmt.bits):
        meaning = fmt.meaning(code)
        if isinstance(meaning, str):
            expected.setdefault(meaning, []).append(code)
    found = {key: list(itertools.chain.from_iterable(runs)) for key, runs in special_codes(fmt).items()}
    assert found == expected


@pytest.mark.parametrize("name", SMALL)
def test_finite_values_are_counted(name: str) -> None:
    fmt = parse(name)
    least = min(finite_values(fmt)) if isinstance(fmt, RankedFormat) else Fraction(fmt.min)  # may be irrational
    reachable = {v for v in finite_values(fmt) if v >= least} | ({Fraction(0)} if "-0" in special_codes(fmt) else set())
    assert finite_count(fmt) == len(reachable)


@pytest.mark.parametrize("name", SMALL)
def test_fields_fill_the_code(name: str) -> None:
    fmt = parse(name)
    assert sum(width for _, width in fields(fmt)) == fmt.bits
    top = (1 << fmt.bits) - 1
    assert int(code_bits(top, fmt, ""), 2) == top


def test_card_of_fp8_names_the_facts() -> None:
    card = describe("fp8")
    assert "|  sign | exponent | mantissa |" in card
    assert "0x7f, 0xff" in card
    assert "448 = 0x1.cp+8" in card
    assert "0.001953125 = 0x1p-9" in card
    assert "values by code" not in card


def test_small_formats_list_their_values() -> None:
    assert "0xf  1 11 1    -6" in describe("fp4")
    assert "0x38:     -4   -4.5" in describe("fp6")


def test_symmetric_integer_says_what_its_spare_code_is() -> None:
    assert "0x8 decodes to -8, nothing encodes to it" in describe("int4_sym")


def test_card_of_a_block_names_its_parts() -> None:
    card = describe("nvfp4")
    for part in ("float4_e2m1fn", "float8_e4m3fn", "float32", "nvfp4_te: ", "nan_block: ", "4.5", "element 15"):
        assert part in card
    assert "(element - zero point) * scale" in describe("int4_g128_asym")
    assert "256 x 1 tile" in describe(Block("int8", (256, 1), "float32"))


def test_card_of_a_packed_format_names_what_it_stores() -> None:
    card = describe("bnb_nf4_dq")
    for part in (
        "64 of the flattened array", "field codes         32 of 8 bits, once per block", "once per 256 blocks",
        "codebook            nf4", "nan_scale: everything that shares a scale", "field after field",
        "4.126953125, and what is stored per row or tensor",
    ):  # fmt: skip
        assert part in card
    assert "None" not in card
    assert "4 x 1 tile" in describe("bitnet_i2_s_rows4")
    assert "block after block" in describe("ggml_q4_k")
    assert "16 before coding" in describe("dfloat11")
    data = properties("bitmod_fp3")
    assert data["fields"][0] == {"name": "codes", "count": 128, "bits": 3, "per": "block"}
    assert data["options"]["scale"] == "float16"
    assert data["nonfinite"] == "error"


@pytest.mark.parametrize("name", ["nvfp4_4over6", "bnb_nf4_dq", "posit16", "lns8_f3", "nf4", "mxfp4", "fp6"])
def test_long_rows_go_on_below_themselves(name: str) -> None:
    head, *rows = describe(name).splitlines()
    assert head.startswith(parse(name).name)
    assert all(row.startswith("  ") and row == row.rstrip() for row in rows)
    assert all(row[21] == " " for row in rows)
    assert max(map(len, rows)) <= 120


def test_cards_of_ranked_formats_say_how_they_round() -> None:
    assert "never to zero, never to NaR" in describe("posit16")
    assert "sqrt(e)^(c + m)" in describe("takum16_log")
    assert "2^(logarithm / 8)" in describe("lns8_f3")


def test_formats_without_a_name_have_cards() -> None:
    for fmt in (Float(2, 0, specials="finite"), Integer(31), Fixed(53, 900), Codebook([-1.0, 0.1])):
        assert describe(fmt).startswith(fmt.name)


def test_unknown_name_is_refused_with_suggestions() -> None:
    with pytest.raises(FormatError, match=r"'float9' is not known. Did you mean 'float"):
        describe("float9")


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (Fraction(0), "0"),
        (Fraction(-1, 8), "-0.125"),
        (Fraction(120), "120"),
        (Fraction(2**60), "1152921504606846976e0"),
        (Fraction(1, 3), "~0.333333333"),
        (Fraction(2) ** -1074, "~4.94065646e-324"),
        (Fraction(10) ** 30, "1e30"),
        (float("inf"), "inf"),
    ],
)
def test_decimals_are_exact_or_marked(x: Fraction, text: str) -> None:
    shown = decimal(x)
    if shown.startswith("~") or isinstance(x, float):
        assert shown == text
    else:
        assert Fraction(shown) == x == Fraction(text)


@pytest.mark.parametrize("x", [1.0, -0.1, 448.0, 5e-324, 0.0, -2.5e300])
def test_hex_floats_read_back(x: float) -> None:
    assert float.fromhex(hex_float(x)) == x


def test_table_has_a_row_per_format() -> None:
    rows = markdown_table().splitlines()
    assert len(rows) == len(names()) + 2
    assert {len(row.strip("|").split("|")) for row in rows} == {7}
    assert (
        "| `float8_e4m3fn` | `e4m3fn`, `fp8`, `fp8_e4m3`, `fp8_e4m3fn` | 8 | 448 | 0.001953125 | NaN, -0 |" in rows[8]
    )
