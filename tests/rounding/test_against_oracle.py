"""Every kernel against the exact oracle, code for code."""

import numpy as np
import pytest

import lowp
from lowp.formats.tables import decode_codes
from lowp.rounding import exact
from lowp.rounding.modes import INTEGER_ONLY, OVERFLOW_MODES, ROUNDING_MODES
from lowp.rounding.random_bits import word
from tests.rounding import inputs
from tests.rounding.oracle import Oracle

DETERMINISTIC = [m for m in ROUNDING_MODES if not m.startswith("stochastic")]
STOCHASTIC = [m for m in ROUNDING_MODES if m.startswith("stochastic")]
FLOATS = [
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3", "float8_e3m4", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e4m3b11fnuz", "float8_e8m0fnu", "float8_ue5m3fn", "float8_ue5m3f", "float8_ue5m3", "float6_e3m2fn",
    "float6_e2m3fn", "float4_e2m1fn", "e3m0f", "e4m3_nosub", "e2m2b-3fn", "ue3m3fn", "binary8p4se", "binary8p1uf",
    "binary6p3uf", "binary5p2sf", "binary4p4ue",
]  # fmt: skip
TABLES = ["nf4", "ternary", "binary"]
INTEGERS = ["int8", "uint8", "int4_sym", "int1", "uint3", "fixed8_4", "ufixed6_9", "fixed7_m3", "fixed5_2_sym"]
WIDE = ["bfloat16", "float16", "e5m7", "int24", "fixed32_16", "int32", "float32", "float64"]
SAMPLED = [
    "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "e4m3_nosub", "binary8p4se", "float16", "int8", "fixed8_4",
    "nf4", "ternary",
]  # fmt: skip


def overflow_modes(name: str) -> list[str]:
    """The overflow modes that a format has."""
    if name not in INTEGERS:
        return [m for m in OVERFLOW_MODES if m not in INTEGER_ONLY]
    unsigned = not lowp.parse(name).signed
    return [m for m in OVERFLOW_MODES if not (unsigned and m == "wrap_sign_magnitude")]


def searchable(name: str) -> list[str]:
    """The overflow modes under which the code is a step function of the input."""
    return [m for m in overflow_modes(name) if not m.startswith("wrap")]


def check_all_modes(x: np.ndarray, name: str) -> None:
    """Compare all deterministic modes under all overflow modes that make the code a step function of the input."""
    expected = Oracle(x, lowp.parse(name))
    for mode in DETERMINISTIC:
        for overflow in searchable(name):
            check(x, name, mode, overflow, expected.codes(mode, overflow))


def check(x: np.ndarray, name: str, mode: str, overflow: str, expected: np.ndarray) -> None:
    """Compare codes, and the quantized values with the decoded codes, signs of zero included."""
    fmt = lowp.parse(name)
    got = lowp.encode(x, fmt, mode, overflow, nan="max").codes
    bad = np.flatnonzero(got != expected)
    assert not bad.size, (
        f"{name} {mode} {overflow} {x.dtype}: {bad.size} of {x.size} codes differ, first x={x[bad[0]]!r} "
        f"got {got[bad[0]]:#x} expected {expected[bad[0]]:#x}"
    )
    values, decoded = lowp.quantize(x, fmt, mode, overflow), decode_codes(got, fmt)
    same = (values == decoded) & (np.signbit(values) == np.signbit(decoded)) | (np.isnan(values) & np.isnan(decoded))
    wrong = [(x[i], values[i], decoded[i]) for i in np.flatnonzero(~same)[:1]]
    if lowp.parse(name).kind == "table":  # float32 need not hold a codebook's values
        wrong = [w for w in wrong if np.dtype(x.dtype).type(w[2]) != w[1]]
    assert not wrong, f"{name} {mode} {overflow}: (x, quantized, decoded code) = {wrong}"


@pytest.mark.parametrize("name", FLOATS + TABLES + INTEGERS)
def test_every_half_precision_input_in_every_mode(name: str) -> None:
    for source in ("float16", "bfloat16"):
        check_all_modes(inputs.every_half(source), name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FLOATS + TABLES + INTEGERS)
def test_mixed_inputs_in_every_mode(name: str, dtype: type) -> None:
    check_all_modes(inputs.mixed(dtype, 20_000, lowp.parse(name)), name)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FLOATS + TABLES + INTEGERS)
def test_ten_million_inputs_in_every_mode(name: str, dtype: type) -> None:
    check_all_modes(inputs.mixed(dtype, 10_000_000, lowp.parse(name), seed=1), name)


@pytest.mark.parametrize("name", [*FLOATS, *TABLES, *INTEGERS, *WIDE])
def test_the_oracle_asked_for_each_number(name: str) -> None:
    fmt = lowp.parse(name)
    x = few(fmt)
    for mode in DETERMINISTIC:
        for overflow in overflow_modes(name):
            expected = np.array([exact.encode(v, fmt, mode, overflow, nan="max") for v in x.tolist()])
            check(x, name, mode, overflow, expected)


@pytest.mark.parametrize("bits", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["int8", "uint4", "fixed8_4", "ufixed6_9", "fixed7_m3"])
def test_wrapping_with_saturation_bits(name: str, bits: int) -> None:
    fmt = lowp.parse(name)
    x = few(fmt)
    for overflow in ("wrap", "wrap_sign_magnitude") if fmt.signed else ("wrap",):
        expected = [exact.encode(v, fmt, "ties_to_positive", overflow, saturation_bits=bits) for v in x.tolist()]
        got = lowp.encode(x, fmt, "ties_to_positive", overflow, saturation_bits=bits).codes
        assert got.tolist() == expected


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("mode", STOCHASTIC)
def test_stochastic_rounding(name: str, mode: str) -> None:
    fmt = lowp.parse(name)
    x = few(fmt)
    for n in (1, 4, 8, 23, 32):
        for overflow in ("saturate", "infinity_or_nan"):
            words = [word(5, i) for i in range(x.size)]
            expected = [
                exact.encode(v, fmt, mode, overflow, random=w, random_bits=n, nan="max")
                for v, w in zip(x.tolist(), words, strict=True)
            ]
            check_seeded(x, name, mode, overflow, n, np.array(expected))


def check_seeded(x: np.ndarray, name: str, mode: str, overflow: str, n: int, expected: np.ndarray) -> None:
    """Compare the codes of a stochastic mode, and the values it quantizes to."""
    got = lowp.encode(x, name, mode, overflow, seed=5, random_bits=n, nan="max").codes
    bad = np.flatnonzero(got != expected)
    assert not bad.size, f"{name} {mode} N={n}: {x[bad[:3]]} got {got[bad[:3]]} expected {expected[bad[:3]]}"
    values = lowp.quantize(x, name, mode, overflow, seed=5, random_bits=n)
    assert np.array_equal(values, decode_codes(got, lowp.parse(name)), equal_nan=True)


def few(fmt: lowp.formats.ScalarFormat) -> np.ndarray:
    """Some hundred float64 numbers: every kind that `inputs.mixed` makes."""
    if fmt.bits <= 8:
        return inputs.mixed(np.float64, 240, fmt, seed=2)
    rng = np.random.default_rng(3)
    step, top = fmt.smallest_subnormal, fmt.max
    grid = rng.integers(-(2**20), 2**20, 80) * step / 4
    with np.errstate(over="ignore"):
        ends = np.array([top, -top, fmt.min]) * np.array([1, 1 + 2**-20, 1 + 2**-9, 1.5, 2, 1e3])[:, None]
    bits = rng.integers(0, 2**64 - 1, 80, dtype=np.uint64).view(np.float64)
    x = np.concatenate([grid, ends.ravel(), bits, rng.standard_normal(80), [0.0, -0.0, np.inf, -np.inf]])
    return x[~np.isnan(x)]
