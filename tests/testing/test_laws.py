"""The laws of `lowp.testing`: they hold for `lowp` itself, and each catches bugs planted in an implementation."""

import math
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp import testing
from lowp._errors import ArgumentError, ArgumentTypeError

pytest.importorskip("hypothesis")

E4M3, E5M2, E2M1 = "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"
FORMATS = [
    E4M3, E5M2, E2M1, "float8_e4m3fnuz", "binary8p3se", "float16", "bfloat16", "dlfloat16", "int8", "int5_sym",
    "fixed8_3", "posit8_es2", "posit16_es1", "takum8_linear", "lns8_f3",
]  # fmt: skip
ONE_SIDED = ["float8_e8m0fnu", "binary5p2uf", "uint4", "nf4", "lns_madam"]
FEW: dict[str, Any] = {"max_examples": 20}


def encoder(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
    return lambda x: lowp.encode(x, name, *args, **options)


def quantizer(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
    return lambda x: lowp.quantize(x, name, *args, **options)


def message(law: Callable[..., None], *args: Any, **options: Any) -> str:
    """Return what a law that must fail says."""
    with pytest.raises(AssertionError) as caught:
        law(*args, **options)
    assert caught.value.__cause__ is None
    return str(caught.value)


# They hold


@pytest.mark.parametrize("name", [*FORMATS, *ONE_SIDED])
def test_laws_of_conversion_hold_for_lowp(name: str) -> None:
    testing.check_conversion(encoder(name), name, **FEW)
    testing.check_quantize(quantizer(name, "toward_zero"), name, "toward_zero", **FEW)
    testing.check_decode(lambda codes: lowp.decode(codes, name), name, **FEW)
    testing.check_round_trip(encoder(name), lambda codes: lowp.decode(codes, name), name, **FEW)


@pytest.mark.parametrize("name", [E4M3, "fixed8_3", "posit8_es2", "lns8_f3", "nf4", "float8_e8m0fnu"])
def test_laws_of_rounding_hold_for_lowp(name: str) -> None:
    quantize = quantizer(name)
    testing.check_monotone(quantize, name, **FEW)
    testing.check_idempotent(quantize, name, **FEW)
    testing.check_nearest(quantize, name, **FEW)
    testing.check_directed(quantizer(name, "toward_positive"), name, "toward_positive", **FEW)
    if name not in ONE_SIDED:
        testing.check_symmetric(quantize, name, **FEW)


@pytest.mark.parametrize("mode", ["ties_to_away", "toward_negative", "to_odd"])
@pytest.mark.parametrize("overflow", ["saturate", "infinity_or_nan"])
def test_conversion_holds_in_other_modes(mode: str, overflow: str) -> None:
    for name in (E5M2, "takum8_linear"):
        testing.check_conversion(encoder(name, mode, overflow), name, mode, overflow, **FEW)
    testing.check_conversion(encoder("ap_fixed<6,3>", mode, "wrap"), "ap_fixed<6,3>", mode, "wrap", **FEW)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_conversion_of_narrower_dtypes(dtype: str) -> None:
    seen: set[str] = set()

    def mine(x: np.ndarray) -> Any:
        seen.add(x.dtype.name)
        return lowp.encode(x, E4M3)

    testing.check_conversion(mine, E4M3, dtype=dtype, **FEW)
    assert seen == {dtype}


@pytest.mark.parametrize("name", [E2M1, "posit8_es2", "int4", "float8_e4m3fnuz"])
def test_stochastic_rounding_of_lowp(name: str) -> None:
    for variant in ("stochastic_a", "stochastic_c"):
        testing.check_stochastic(encoder(name, variant, seed=3, random_bits=8), name, 8, variant, draws=4000)
    testing.check_stochastic(encoder(name, "stochastic_b", seed=4, random_bits=8), name, 8, draws=4000)


@pytest.mark.parametrize("name", ["takum8_log", "lns6_f2", "lns6_f2_linear"])
def test_stochastic_rounding_between_irrational_values(name: str) -> None:
    def mine(x: float, r: int) -> int:
        return lowp.exact.encode(x, name, "stochastic_a", random=r << 29, random_bits=3)

    testing.check_stochastic(mine, name, 3)
    testing.check_stochastic(mine, name, 3, "stochastic_a")


def test_a_function_of_one_number_will_do() -> None:
    def mine(x: float) -> int:
        assert isinstance(x, float)
        return lowp.exact.encode(x, E2M1)

    testing.check_conversion(mine, E2M1, exhaustive=False, max_examples=50)
    told = message(testing.check_conversion, lambda x: min(mine(x), 6), E2M1, exhaustive=False)
    assert told.splitlines()[-2:] == ["  got      0x6 0|11|0 = 4", "  expected 0x7 0|11|1 = 6"]


def test_arithmetic_of_lowp_holds() -> None:
    def on_arrays(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        return lambda *codes: function(*(lowp.array.from_codes(c, name) for c in codes))

    if not hasattr(lowp, "array"):
        pytest.skip("no arrays in a format here")
    for name in (E2M1, E4M3, "posit8_es2"):
        testing.check_arithmetic(on_arrays(np.add, name), "+", name, rows=900, **FEW)
        testing.check_arithmetic(on_arrays(np.sqrt, name), "sqrt", name, **FEW)


# They catch planted bugs


def test_truncation_instead_of_rounding() -> None:
    told = message(testing.check_conversion, encoder(E4M3, "toward_zero"), E4M3)
    assert told.startswith(f"conversion to {E4M3}, ties_to_even, saturate: broken by ")
    assert told.splitlines()[1:] == [
        "  input    0.0029296875",
        "  got      0x01 0|0000|001 = 0.001953125",
        "  expected 0x02 0|0000|010 = 0.00390625",
    ]
    assert "nearest  0x01 0|0000|001" in message(testing.check_nearest, quantizer(E4M3, "toward_zero"), E4M3)


def test_ties_away_instead_of_to_even() -> None:
    told = message(testing.check_quantize, quantizer("float4_e2m1fn", "ties_to_away"), E2M1)
    assert told.splitlines()[1:] == ["  input    0.25", "  got      0x1 0|00|1 = 0.5", "  expected 0x0 0|00|0 = 0"]


def test_double_rounding_through_a_narrower_float() -> None:
    """Just above a tie float32 has the tie, which goes to the even neighbour."""

    def mine(x: np.ndarray) -> Any:
        with np.errstate(over="ignore"):
            return lowp.encode(x.astype(np.float32), E4M3)

    told = message(testing.check_conversion, mine, E4M3)
    assert told.splitlines()[1:] == [
        "  input    1.0625000000000002 (0x1.1000000000001p+0)",
        "  got      0x38 0|0111|000 = 1",
        "  expected 0x39 0|0111|001 = 1.125",
    ]
    testing.check_conversion(mine, E4M3, dtype="float32", **FEW)


def test_a_lost_sign_of_zero() -> None:
    told = message(testing.check_quantize, lambda x: lowp.quantize(x, E4M3) + 0.0, E4M3)
    assert told.splitlines()[1:] == [
        "  input    -0.0",
        "  got      0x00 0|0000|000 = 0",
        "  expected 0x80 1|0000|000 = -0",
    ]
    told = message(testing.check_symmetric, lambda x: lowp.quantize(x, E4M3) + 0.0, E4M3)
    assert told.splitlines()[1:] == ["  plus     0.0 -> 0x00 0|0000|000 = 0", "  minus    -0.0 -> 0x00 0|0000|000 = 0"]


def test_saturation_off_by_one() -> None:
    told = message(testing.check_conversion, lambda x: np.minimum(lowp.encode(x, "uint8").codes, 254), "uint8")
    assert told.splitlines()[1:] == [
        "  input    256",
        "  got      0xfe 11111110 = 254",
        "  expected 0xff 11111111 = 255",
    ]
    told = message(testing.check_conversion, encoder(E5M2, overflow="propagate"), E5M2, exhaustive=False)
    assert told.startswith(
        "conversion to float8_e5m2, ties_to_even, saturate: broken, after shrinking, by\n  input    inf\n"
    )


def test_a_table_out_of_order() -> None:
    table = np.arange(-8.0, 8.0)
    table[[11, 12]] = table[[12, 11]]

    def mine(x: np.ndarray) -> np.ndarray:
        return table[np.clip(np.rint(x), -8, 7).astype(int) + 8]

    told = message(testing.check_monotone, mine, "int4")
    assert told.splitlines()[1:] == [
        "  smaller  3.4999999999999996 (0x1.bffffffffffffp+1) -> 0x4 0100 = 4",
        "  larger   3.5 -> 0x3 0011 = 3",
    ]
    told = message(testing.check_idempotent, mine, "int4")
    assert told.splitlines()[1:] == ["  input    4", "  once     0x3 0011 = 3", "  twice    0x4 0100 = 4"]


def test_a_posit_that_rounds_to_zero_or_counts_in_the_linear_domain() -> None:
    def flushing(x: float) -> int:
        return 0 if abs(x) < 2.0**-25 else lowp.exact.encode(x, "posit8_es2")

    told = message(testing.check_conversion, flushing, "posit8_es2", exhaustive=False)
    assert told.splitlines()[2:] == [
        "  got      0x00 0|0000000 = 0",
        "  expected 0x01 0|0000001 = 0.000000059604644775390625",
    ]
    values = np.array([float(Fraction(v)) for v in map(lowp.Posit(8).rank_value, range(127))])

    def linear(x: np.ndarray) -> np.ndarray:
        nearest = np.abs(values[None, :] - np.abs(x[:, None])).argmin(axis=1)
        return np.where(x == 0, x, np.sign(x) * values[nearest])

    told = message(testing.check_nearest, linear, "posit8_es2", dtype="float16", max_examples=0)
    assert told.splitlines()[1:] == [
        "  input    0.000000476837158203125",
        "  got      0x01 0|0000001 = 0.000000059604644775390625",
        "  nearest  0x02 0|000001|0 = 0.00000095367431640625",
    ]


def test_wrong_codes_of_values_are_found_in_fields() -> None:

    def mine(x: float) -> int:
        return int(struct.unpack("<I", struct.pack("<f", x))[0]) + (x == 3)

    told = message(testing.check_conversion, mine, "float32", dtype="float16", max_examples=0)
    assert told == (
        "conversion to float32, ties_to_even, saturate: broken by 3 of 63491 inputs, the simplest:\n"
        "  input    3\n"
        "  got      0x40400001 0|10000000|10000000000000000000001 = 3.0000002384185791015625\n"
        "  expected 0x40400000 0|10000000|10000000000000000000000 = 3"
    )


def test_a_wrong_value_of_a_code() -> None:
    told = message(
        testing.check_decode, lambda c: np.where(c == 0x41, 1.5, lowp.decode(c, "takum8_linear")), "takum8_linear"
    )
    assert told == (
        "decoding of takum8_linear: broken by 1 of 256 inputs, the simplest:\n"
        "  code     0x41 0|1|000|001 = 1.125\n  got      1.5\n  expected 1.125"
    )
    told = message(testing.check_round_trip, lambda x: lowp.encode(abs(x), E2M1), lambda c: lowp.decode(c, E2M1), E2M1)
    assert told.splitlines()[1:] == [
        "  code     0x8 1|00|0 = -0",
        "  decoded  -0.0",
        "  encoded  0x0 0|00|0 = 0",
    ]


def test_a_directed_mode_on_the_wrong_side_or_too_far() -> None:
    told = message(testing.check_directed, quantizer("int8"), "int8", "floor")
    assert told.splitlines()[1:] == [
        "  input    -0.5",
        "  got      0x00 00000000 = 0, on the wrong side",
        "  expected 0xff 11111111 = -1",
    ]
    told = message(testing.check_directed, lambda x: np.clip(np.ceil(x / 2) * 2, -128, 127), "int8", "toward_positive")
    assert told.splitlines()[2] == "  got      0x02 00000010 = 2, not the next value"


def test_biased_stochastic_rounding() -> None:
    def too_often(x: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Add two random integers' worth."""
        low = np.floor(np.abs(x))
        part = np.abs(x) - low
        return np.copysign(low + ((part > 0) & (part * 16 + r >= 14)), x).astype(int) & 15

    told = message(testing.check_stochastic, too_often, "int4", 4)
    assert told.splitlines()[1:] == [
        "  input    0.5",
        "  between  0x0 0000 = 0 and 0x1 0001 = 1",
        "  away     10 of 16 random integers",
        "  expected 8",
    ]
    told = message(testing.check_stochastic, encoder("int4"), "int4", 4, draws=500)
    assert "of 500 draws" in told
    assert "fails with probability below 1e-09" in told
    told = message(testing.check_stochastic, lambda x, r: np.zeros(x.shape, int), "int4", 4)
    assert "got      0x0 0000 = 0" in told

    def right(x: float, r: int) -> int:
        return lowp.exact.encode(x, "int4", "stochastic_b", random=r << 28, random_bits=4)

    testing.check_stochastic(right, "int4", 4, "stochastic_b")
    assert "stochastic_a" in message(testing.check_stochastic, right, "int4", 4, "stochastic_a")


def test_arithmetic_that_rounds_twice() -> None:
    """A product rounded to bfloat16 first."""

    def mine(a: np.ndarray, b: np.ndarray) -> Any:
        product = lowp.decode(a, E4M3) * lowp.decode(b, E4M3)
        return lowp.encode(lowp.quantize(product, "e8m3"), E4M3, overflow="infinity_or_nan")

    told = message(testing.check_arithmetic, mine, "mul", E4M3, max_examples=300)
    assert told.startswith(f"multiply in {E4M3}, ties_to_even, infinity_or_nan: broken")
    assert told.count("  operand  0x") == 2
    assert "\n  got      0x" in told


# Arguments


def test_arguments_that_are_not_allowed() -> None:
    with pytest.raises(ArgumentTypeError, match="must be a function"):
        testing.check_conversion(3, E4M3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="must be a scalar format"):
        testing.check_conversion(encoder(E4M3), "mxfp4")
    with pytest.raises(ArgumentError, match="check_stochastic"):
        testing.check_conversion(encoder(E4M3), E4M3, "stochastic")
    with pytest.raises(ArgumentError, match="dtype='int8'"):
        testing.check_quantize(quantizer(E4M3), E4M3, dtype="int8")
    with pytest.raises(ArgumentError, match="0 or more"):
        testing.check_decode(math.floor, E4M3, max_examples=-1)
    with pytest.raises(ArgumentError, match="other positive values"):
        testing.check_symmetric(quantizer("nf4"), "nf4")
    with pytest.raises(ArgumentError, match="toward_positive"):
        testing.check_directed(quantizer(E4M3), E4M3, "nearest")
    with pytest.raises(ArgumentError, match="not stochastic"):
        testing.check_stochastic(encoder(E4M3), E4M3, 4, "floor")
    with pytest.raises(ArgumentError, match="random_bits=0"):
        testing.check_stochastic(encoder(E4M3), E4M3, 0)
    with pytest.raises(ArgumentError, match="no float64 between"):
        testing.check_stochastic(encoder("float64"), "float64", 8)
    with pytest.raises(ArgumentError, match="Did you mean"):
        testing.check_arithmetic(max, "ad", E4M3)


def test_what_the_function_raises_comes_through() -> None:
    def broken(x: Any) -> int:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        testing.check_conversion(broken, E4M3)
    answers = iter([np.zeros(2, int), np.zeros(1, int)])
    with pytest.raises(AssertionError, match=r"shape \(1,\)"):
        testing.check_conversion(lambda x: next(answers), E4M3)


def test_without_hypothesis_only_the_search_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    testing.check_conversion(encoder(E2M1), E2M1, max_examples=0)
    with pytest.raises(ImportError, match=r"lowp\[testing\]"):
        testing.check_conversion(encoder(E2M1), E2M1)
