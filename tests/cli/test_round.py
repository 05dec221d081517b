"""`lowp round`: exact input, exact answer."""

import math
from fractions import Fraction

import pytest

from lowp._errors import ArgumentError
from lowp.cli.numbers import read_number
from tests.cli.conftest import Run, assert_refused


def test_a_tenth_is_a_tenth(lowp: Run) -> None:
    data = lowp("round", "0.1", "float8_e4m3fn", "--json").json
    assert data["input"] == {"text": "0.1", "exact": "1/10"}
    assert data["result"] == {
        "value": 0.1015625,
        "exact": "13/128",
        "hex": "0x1.ap-4",
        "code": 0x1D,
        "code_hex": "0x1d",
        "bits": "0|0011|101",
    }
    assert data["below"]["exact"] == "3/32"
    assert data["above"] == data["result"]
    assert Fraction(data["error"]["exact"]) == Fraction(13, 128) - Fraction(1, 10)
    assert data["relative_error"]["exact"] == "1/64"
    assert data["error_ulp"]["exact"] == "1/5"


def test_the_error_of_float64_itself_is_seen(lowp: Run) -> None:
    data = lowp("round", "0.1", "float64", "--json").json
    assert Fraction(data["error"]["exact"]) == Fraction(0.1) - Fraction(1, 10)


@pytest.mark.parametrize(
    ("value", "result", "code"), [("464", 448.0, 0x7E), ("465", "nan", 0x7F), ("-465", "nan", 0xFF)]
)
def test_overflow_is_decided_on_the_rounded_value(lowp: Run, value: str, result: object, code: int) -> None:
    data = lowp("round", value, "fp8", "--overflow", "infinity_or_nan", "--json").json
    assert data["result"]["value"] == result
    assert data["result"]["code"] & 0x7F == code & 0x7F


def test_text_names_everything(lowp: Run) -> None:
    out = lowp("round", "0.1", "fp8").out
    assert "0.1015625 = 0x1.ap-4" in out
    assert "0x1d  0|0011|101" in out
    assert "0.09375  0x1c  0|0011|100" in out
    assert "0.0015625 = 1/640" in out


def test_a_tenth_in_a_posit(lowp: Run) -> None:
    data = lowp("round", "0.1", "posit16", "--json").json
    assert (data["format"], data["result"]["code"], data["below"]["code"]) == ("posit16_es2", 0x24CD, 0x24CC)
    assert Fraction(data["result"]["exact"]) == Fraction(0x0CCD, 0x8000)
    assert data["error_ulp"]["exact"] == "1/5"


def test_irrational_values_are_named_and_their_errors_are_near(lowp: Run) -> None:
    data = lowp("round", "3.3", "takum16_log", "--json").json
    assert data["result"]["exact"] == "e^(2445/2048)"
    assert data["below"]["exact"] == "e^(2445/2048)"
    assert data["above"]["exact"] == "e^(1223/1024)"
    assert data["error"] == {"value": pytest.approx(math.exp(2445 / 2048) - 3.3), "exact": "e^(2445/2048) + -33/10"}
    gap = math.exp(1223 / 1024) - math.exp(2445 / 2048)
    assert data["error_ulp"] == {"value": pytest.approx((math.exp(2445 / 2048) - 3.3) / gap, rel=1e-9), "exact": None}
    out = lowp("round", "3.3", "lns8_f3").out
    assert "~3.36358566 = 2^(7/4) = 0x1.ae89f995ad3adp+1" in out
    assert "below           ~3.08442165  0x0d  0|0001101" in out
    assert "error           ~0.063585661" in out
    assert "error in ulp    ~0.227771699" in out


def test_logarithmic_formats_at_their_ends(lowp: Run) -> None:
    top = lowp("round", "300", "lns8_f3", "--json").json
    assert (top["above"], top["result"]["exact"]) == (None, "2^(63/8)")
    assert top["error_ulp"]["value"] == pytest.approx((2 ** (63 / 8) - 300) / (2 ** (63 / 8) - 2 ** (62 / 8)))
    low = lowp("round", "-300", "lns8_f3", "--json").json
    assert low["below"] is None
    assert low["error_ulp"]["value"] == pytest.approx(-top["error_ulp"]["value"])
    assert lowp("round", "2", "lns8_f3", "--json").json["error"]["exact"] == "0"
    assert lowp("round", "inf", "takum16_log", "--json").json["result"]["value"] == "nan"


def test_negative_numbers_are_no_options(lowp: Run) -> None:
    assert lowp("round", "-1e9", "int4", "--json").json["result"]["value"] == -8
    assert lowp("round", "-inf", "e5m2", "--overflow", "propagate", "--json").json["result"]["value"] == "-inf"
    assert lowp("round", "-0", "fp8", "--json").json["result"]["code"] == 0x80


def test_beyond_the_end_there_is_one_neighbour_and_the_last_ulp(lowp: Run) -> None:
    data = lowp("round", "500", "fp8", "--json").json
    assert data["above"] is None
    assert data["below"]["value"] == 448
    assert data["error_ulp"]["exact"] == str(Fraction(448 - 500, 32))
    low = lowp("round", "-8.5", "int4", "--json").json
    assert low["below"] is None
    assert low["error_ulp"]["exact"] == "1/2"


def test_modes_are_used(lowp: Run) -> None:
    assert lowp("round", "2.5", "int4", "--rounding", "rna", "--json").json["result"]["value"] == 3
    assert lowp("round", "9", "int4", "--overflow", "wrap", "--json").json["result"]["value"] == -7
    stochastic = ("round", "2.5", "int4", "--rounding", "stochastic_a", "--random-bits", "1", "--random")
    assert [lowp(*stochastic, word, "--json").json["result"]["value"] for word in (0, 1 << 31)] == [2, 3]


def test_bad_input_is_refused(lowp: Run) -> None:
    assert_refused(lowp("round", "one", "fp8"), "value='one' is not a number", "1/3")
    assert_refused(lowp("round", "1/0", "fp8"), "value='1/0'")
    assert_refused(lowp("round", "1e99999999", "fp8"), "out of reach")
    assert_refused(lowp("round", "nan", "int4"), "NaN", "'int4'")
    assert_refused(lowp("round", "1", "mxfp4"), "block format", "Round into its element")
    assert_refused(lowp("round", "1", "ggml_q4_k"), "block format; one number alone has no block.\n")
    assert_refused(lowp("round", "1", "fp8", "--rounding", "ties_to_evn"), "'ties_to_even'")
    assert_refused(lowp("round", "1", "fp8", "--overflow", "satrate"), "'saturate'")
    assert_refused(lowp("round", "1", "fp8", "--overflow", "wrap"), "integers and fixed point")
    assert_refused(lowp("round", "1", "fp8", "--rounding", "stochastic_a"), "random=None")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", Fraction(1, 1000)),
        ("-1/3", Fraction(-1, 3)),
        ("0x1.8p-3", Fraction(3, 16)),
        ("0x.8", Fraction(1, 2)),
        ("0x1e5", Fraction(0x1E5)),
        ("-0x0p0", "-0"),
        ("+Infinity", "inf"),
        ("-NaN", "nan"),
    ],
)
def test_numbers_are_read_exactly(text: str, value: object) -> None:
    assert read_number(text) == value


@pytest.mark.parametrize("text", ["", "0x", "0xp3", "1p3", "--1", "0b1", "1e2001", "0x1p-2001", "9" * 2000])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="value="):
        read_number(text)
