"""Elementary functions against MPFR (gmpy2) and the exact oracle."""

import math
import operator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.rounding.random_bits import word
from tests.emulation.oracle import ask

UNARY = ("exp", "exp2", "log", "log2", "sin", "cos", "tanh")
FORMATS = [
    "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "int8", "fixed8_4", "nf4", "posit8_es2", "posit8_es0",
    "takum8_linear", "takum8_log", "lns8_f3", "lns8_f3_linear",
]  # fmt: skip
#: Format and MPFR's precision and exponent range for it.
BINARY = {"float16": (11, -23, 16), "bfloat16": (8, -132, 128), "float32": (24, -148, 128)}
MODES = {
    "ties_to_even": "RoundToNearest",
    "toward_positive": "RoundUp",
    "toward_negative": "RoundDown",
    "toward_zero": "RoundToZero",
}


def same_numbers(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    equal = (got == wanted) & (np.signbit(got) == np.signbit(wanted))
    return np.asarray(equal | (np.isnan(got) & np.isnan(wanted)))


def by_mpfr(function: str, fmt: str, mode: str, *operands: np.ndarray) -> np.ndarray:
    gmpy2 = pytest.importorskip("gmpy2")
    precision, emin, emax = BINARY[fmt]
    name = {"power": "pow"}.get(function, function)
    context = gmpy2.context(
        precision=precision, emin=emin, emax=emax, subnormalize=True, round=getattr(gmpy2, MODES[mode])
    )
    with context:
        return np.array(
            [float(getattr(context, name)(*map(gmpy2.mpfr, x))) for x in zip(*map(list, operands), strict=True)]
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", UNARY)
def test_half_precision_agrees_with_mpfr(function: str, mode: str) -> None:
    every = lowp.array.from_codes(
        np.arange(0, 1 << 16, 7 if mode == "ties_to_even" else 61, dtype=np.uint16), "float16"
    )
    got = getattr(lowp, function)(every, rounding=mode).values
    wanted = by_mpfr(function, "float16", mode, every.values)
    bad = ~same_numbers(got, wanted)
    assert not bad.any(), f"{bad.sum()}: {function}({every.values[bad][0]!r}) = {wanted[bad][0]!r}, not {got[bad][0]!r}"


@pytest.mark.parametrize("mode", ["ties_to_even", "toward_negative"])
@pytest.mark.parametrize("function", UNARY)
@pytest.mark.parametrize("fmt", ["bfloat16", "float32"])
def test_single_precision_agrees_with_mpfr(fmt: str, function: str, mode: str) -> None:
    rng = np.random.default_rng(1)
    bits = lowp.parse(fmt).bits  # type: ignore[attr-defined]
    codes = np.concatenate([rng.integers(0, 1 << bits, 500), lowp.encode(rng.standard_normal(500) * 9, fmt).codes])
    x = lowp.array.from_codes(codes.astype(np.uint32), fmt)
    got = getattr(lowp, function)(x, rounding=mode).values
    wanted = by_mpfr(function, fmt, mode, x.values)
    bad = ~same_numbers(got, wanted)
    assert not bad.any(), f"{bad.sum()}: {function}({x.values[bad][0]!r}) = {wanted[bad][0]!r}, not {got[bad][0]!r}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fmt", BINARY)
def test_powers_agree_with_mpfr(fmt: str, mode: str) -> None:
    rng = np.random.default_rng(2)
    special = [0.0, -0.0, 1.0, -1.0, 2.0, 3.0, 0.5, -2.0, -3.0, -0.5, 4.0, 9.0, np.inf, -np.inf, np.nan, 1.5, 65504.0]
    x, y = (grid.ravel() for grid in np.meshgrid(special, special))
    x, y = (lowp.array(np.concatenate([s, rng.standard_normal(400) * w]), fmt) for s, w in ((x, 3), (y, 6)))
    got = lowp.power(abs(x) if mode == "toward_zero" else x, y, rounding=mode).values
    wanted = by_mpfr("power", fmt, mode, np.abs(x.values) if mode == "toward_zero" else x.values, y.values)
    bad = ~same_numbers(got, wanted)
    assert not bad.any(), (
        f"{bad.sum()}: {x.values[bad][0]!r} ** {y.values[bad][0]!r}: {wanted[bad][0]!r}, not {got[bad][0]!r}"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_agrees_with_the_oracle(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    step = 5 if name in ("takum8_log", "lns8_f3", "lns8_f3_linear") else 1
    codes = np.arange(0, 1 << fmt.bits, step, dtype=np.uint8)
    x = lowp.array.from_codes(codes, fmt, nan="zero")
    for function in UNARY:
        got = getattr(lowp, function)(x).codes
        wanted = [ask(function, fmt, fmt.meaning(int(code))) for code in codes]
        bad = np.flatnonzero(got != wanted)
        assert not len(bad), (
            f"{function}({fmt.meaning(int(codes[bad[0]]))}) is {wanted[bad[0]]:#x}, not {got[bad[0]]:#x}"
        )


@pytest.mark.parametrize(
    "how", [{"rounding": "to_odd"}, {"rounding": "stochastic_a", "seed": 7}, {"overflow": "saturate"}]
)
@pytest.mark.parametrize("name", ["float16", "posit16_es2", "lns8_f3", "takum8_log", "float64", "posit64_es2"])
def test_samples_in_other_modes_agree_with_the_oracle(name: str, how: dict[str, Any]) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    codes = np.random.default_rng(4).integers(0, (1 << fmt.bits) - 1, 12, dtype=np.uint64)
    x = lowp.array.from_codes(codes, fmt)
    for function in UNARY:
        got = getattr(lowp, function)(x, **how).codes
        for i, code in enumerate(codes):
            exact = {"random": word(7, i)} if "seed" in how else {}
            rest = {k: v for k, v in how.items() if k != "seed"}
            assert got[i] == ask(function, fmt, fmt.meaning(int(code)), **rest, **exact), (function, int(code))


@pytest.mark.parametrize("name", ["posit8_es2", "takum8_log", "lns8_f3", "float8_e4m3fn", "int8"])
def test_powers_agree_with_the_oracle(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, lowp.ScalarFormat)
    a, b = np.random.default_rng(6).integers(0, 256, (2, 60), dtype=np.uint8)
    got = lowp.power(*(lowp.array.from_codes(c, fmt, nan="zero") for c in (a, b))).codes
    for i in range(len(a)):
        numbers = fmt.meaning(int(a[i])), fmt.meaning(int(b[i]))
        assert got[i] == ask("power", fmt, *numbers), numbers


def test_exact_cases_are_exact_in_every_direction() -> None:
    for mode in MODES:
        x = lowp.array([0.0, -0.0], "float32", mode)
        assert lowp.exp(x).values.tolist() == [1.0, 1.0]
        assert lowp.cos(x).values.tolist() == [1.0, 1.0]
        assert np.signbit(lowp.sin(x).values).tolist() == [False, True]
        assert lowp.log2(lowp.array([8.0, 0.125], "float32", mode)).values.tolist() == [3.0, -3.0]
        assert (lowp.array([2.25, 9.0], "float32", mode) ** 1.5).values.tolist() == [3.375, 27.0]
        assert lowp.log(lowp.array(1.0, "float32", mode)).item() == 0


def test_results_beside_one_are_not_one() -> None:
    tiny = lowp.array(2.0**-149, "float32", "toward_positive")
    assert lowp.exp(tiny).item() == 1 + 2.0**-23
    assert lowp.exp(lowp.array(-(2.0**-149), "float32", "toward_negative")).item() == 1 - 2.0**-24
    assert lowp.tanh(lowp.array(50.0, "float32", "toward_zero")).item() == 1 - 2.0**-24
    assert lowp.sin(tiny, rounding="toward_zero").item() == 0


def test_results_far_out_of_range_end_at_once() -> None:
    huge = lowp.array([1e300, -1e300], "float64")
    assert lowp.exp(huge).values.tolist() == [math.inf, 0.0]
    assert lowp.power(huge, 7).values.tolist() == [math.inf, -math.inf]
    assert lowp.exp(lowp.array([1e6, -1e6], "posit32_es2")).codes.tolist() == [0x7FFFFFFF, 1]


def test_logarithms_of_logarithmic_numbers_are_exact() -> None:
    x = lowp.array.from_codes([1, 2, 3], "lns8_f3")
    assert lowp.log2(x, fmt="float16", rounding="to_odd").values.tolist() == [0.125, 0.25, 0.375]
    assert lowp.exp2(lowp.array(0.375, "float16"), fmt="lns8_f3", rounding="toward_positive").codes == 3


def test_plain_numbers_need_a_format() -> None:
    assert lowp.exp(Fraction(1, 3), fmt="float16").item() == 1.3955078125
    with pytest.raises(lowp.ArgumentTypeError, match="fmt="):
        lowp.exp(1.0)


@pytest.mark.parametrize("function", [*UNARY, "power"])
def test_numpy_is_as_accurate_as_the_estimates_take_it_to_be(function: str) -> None:
    """Within 8 ulps, also of large angles and of powers with large exponents."""
    gmpy2 = pytest.importorskip("gmpy2")
    rng = np.random.default_rng(11)
    x = rng.standard_normal(1500) * np.exp2(rng.uniform(-8, 9, 1500))
    if function in ("sin", "cos"):
        x = np.concatenate([x, np.exp2(rng.uniform(10, 1000, 500))])
    operands = [np.abs(x)] if function.startswith("log") else [x]
    if function == "power":
        operands = [np.exp2(rng.uniform(-20, 20, 1500)), rng.uniform(-40, 40, 1500)]
    with np.errstate(all="ignore"):
        got = getattr(np, function)(*operands)
    with gmpy2.context(precision=120):
        exact = operator.pow if function == "power" else getattr(gmpy2, function)
        for i, numbers in enumerate(zip(*operands, strict=True)):
            wanted = exact(*(gmpy2.mpfr(float(n)) for n in numbers))
            if 2.0**-960 < abs(wanted) < 2.0**960:
                assert abs(gmpy2.mpfr(float(got[i])) - wanted) <= 8 * 2.0**-52 * abs(wanted), (function, numbers)
