"""Single compiled passes over float32, float16 and bfloat16 numbers, and the quick call, against the general kernel."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp.formats.tables import value_table
from lowp.rounding import _scalar, verbs
from lowp.rounding._float32_runs import float32_run, random_run, short_run
from lowp.rounding.modes import ROUNDING_MODES, rounding

MODES = [mode for mode in ROUNDING_MODES if rounding(mode).variant == 0]
OVERFLOWS = ["saturate", "propagate", "infinity_or_nan"]
FORMATS = [
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float16", "bfloat16", "tf32", "float6_e3m2fn", "float4_e2m1fn",
    "e5m7", "e8m3", "e7m5", "e7m22", "e6m23", "int8", "uint8", "fixed8_4", "int16", "int4_sym", "binary8p4se",
]  # fmt: skip
SHORT = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def numbers() -> np.ndarray:
    """Bit patterns of all kinds, and numbers at and beside ties of short formats, at every scale."""
    rng = np.random.default_rng(1)
    any_bits = rng.integers(0, 1 << 32, 1 << 14, dtype=np.uint64)
    short = rng.integers(0, 1 << 16, 1 << 14, dtype=np.uint64) << 16
    beside = (rng.integers(0, 1 << 13, 1 << 14, dtype=np.uint64) << 19) + rng.integers(0, 3, 1 << 14).astype(np.uint64)
    return np.concatenate([any_bits, short, beside]).astype(np.uint32).view(np.float32)


def differ(a: np.ndarray, b: np.ndarray) -> Any:
    """Places where two arrays have other bits; NaN is NaN."""
    bits = {2: np.uint16, 4: np.uint32}[a.dtype.itemsize]
    nan = np.isnan(a.astype(np.float32)) & np.isnan(b.astype(np.float32))
    return np.flatnonzero((a.view(bits) != b.view(bits)) & ~nan)


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`quantize` without the quick call and single passes."""

    def run(x: Any, *arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(_scalar, "_run_fast", lambda *_: False)
            patch.setattr(verbs, "quickly", lambda *_: False)
            return lowp.quantize(x, *arguments)

    return run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FORMATS)
def test_float32_is_rounded_as_by_the_general_kernel(name: str, mode: str, general: Any) -> None:
    x = numbers()
    for overflow in OVERFLOWS:
        assert not differ(lowp.quantize(x, name, mode, overflow), general(x, name, mode, overflow)).size, overflow


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*FORMATS, "float32", "e11m20", "e11m40", "int32", "fixed40_10"])
def test_float64_is_rounded_as_by_the_general_kernel(name: str, mode: str, general: Any) -> None:
    rng = np.random.default_rng(2)
    bits = rng.integers(0, 1 << 63, 1 << 12, dtype=np.uint64) * np.uint64(2)
    short = rng.integers(0, 1 << 16, 1 << 12, dtype=np.uint64) << np.uint64(48)
    near_one = (rng.integers(0, 1 << 20, 1 << 13, dtype=np.uint64) << np.uint64(38)) + np.uint64(0x3E8 << 52)
    x = np.concatenate([bits, short, near_one, near_one + np.uint64(1), near_one - np.uint64(1)]).view(np.float64)
    for overflow in OVERFLOWS:
        found, wanted = lowp.quantize(x, name, mode, overflow), general(x, name, mode, overflow)
        nan = np.isnan(found) & np.isnan(wanted)
        assert np.array_equal(np.where(nan, 0, found).view(np.int64), np.where(nan, 0, wanted).view(np.int64)), overflow
        whole = x.copy()
        assert lowp.quantize(whole, name, mode, overflow, out=whole) is whole
        assert np.array_equal(np.where(nan, 0, whole).view(np.int64), np.where(nan, 0, wanted).view(np.int64)), overflow


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["float8_e4m3fn", "e5m7", "int8", "fixed8_4"])
def test_beside_half_of_the_least_number(name: str, dtype: Any, mode: str) -> None:
    """Where an input has its most bits below a quantum, so that what is next to a tie is nearest to it."""
    fmt = lowp.parse(name)
    assert fmt.smallest_subnormal
    tie = np.array([fmt.smallest_subnormal / 2, fmt.smallest_subnormal], dtype)
    x = np.concatenate([np.nextafter(tie, dtype(0)), tie, np.nextafter(tie, dtype(1))])
    x = np.concatenate([x, -x])
    exact = [lowp.exact.quantize(v, fmt, mode) for v in x.tolist()]
    wanted = np.array([-0.0 if v == "-0" else float(v) for v in exact], dtype)
    assert lowp.quantize(x, fmt, mode).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_the_exact_oracle_agrees(mode: str) -> None:
    x = numbers()[:: 1 << 7]
    x = x[np.isfinite(x)]
    for name in ("float8_e4m3fn", "e5m7", "bfloat16", "fixed8_4"):
        found = lowp.quantize(x, name, mode, "infinity_or_nan")
        for given, result in zip(x.tolist(), found.tolist(), strict=True):
            meaning = lowp.exact.quantize(given, name, mode, "infinity_or_nan")
            wanted = -0.0 if meaning == "-0" else float(meaning)
            assert np.array_equal(result, wanted, equal_nan=True), (name, given)
            assert np.signbit(result) == np.signbit(wanted), (name, given)


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("mode", MODES)
def test_all_short_inputs(dtype: str, mode: str, general: Any) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(SHORT[dtype])
    for name in FORMATS:
        if short_run(lowp.parse(name), rounding(mode), "saturate", dtype) is None:
            continue
        for overflow in OVERFLOWS:
            found, wanted = lowp.quantize(x, name, mode, overflow), general(x, name, mode, overflow)
            assert found.dtype == SHORT[dtype]
            assert not differ(found, wanted).size, (name, overflow)


def test_what_a_short_dtype_holds() -> None:
    def held(name: str, dtype: str) -> bool:
        return short_run(lowp.parse(name), rounding("ties_to_even"), "saturate", dtype) is not None

    assert held("float8_e4m3fn", "float16")
    assert held("float8_e5m2", "bfloat16")
    assert held("bfloat16", "bfloat16")
    assert held("float16", "float16")
    assert not held("float16", "bfloat16")
    assert not held("bfloat16", "float16")
    assert held("int8", "bfloat16")
    assert not held("int16", "float16")
    assert not held("e5m12", "float16")


@pytest.mark.parametrize("dtype", ["float32", *SHORT])
@pytest.mark.parametrize("size", [0, 1, 7, 2048, 5001])
def test_in_place(dtype: str, size: int) -> None:
    given = np.resize(numbers()[np.isfinite(numbers())], size).astype(np.float32) * np.float32(2.0**-40)
    with np.errstate(over="ignore", under="ignore"):
        x = given.astype(SHORT.get(dtype, np.dtype(np.float32)))
    for mode in ("ties_to_even", "toward_zero"):
        for name in ("float8_e4m3fn", "e5m7" if dtype == "float16" else "e8m3"):
            y, other = x.copy(), np.full_like(x, 7)
            assert lowp.quantize(y, name, mode, out=y) is y
            assert lowp.quantize(x, name, mode, out=other) is other
            assert not differ(y, other).size
            assert not differ(y, lowp.quantize(x, name, mode)).size


def test_a_part_of_the_output_may_be_the_input() -> None:
    x = numbers()[: 1 << 12].copy()
    wanted = lowp.quantize(x[1:], "float8_e4m3fn")
    lowp.quantize(x[1:], "float8_e4m3fn", out=x[:-1])
    assert not differ(x[:-1].copy(), wanted).size


def test_the_quick_call_leaves_errors_to_the_checks() -> None:
    x = np.ones(3, np.float32)
    lowp.quantize(x, "float8_e4m3fn", random_bits=1)  # what is kept of it is for 0 and 1, not for False and True
    for arguments, words in [
        ({"fmt": "float8_e4m3"[:-1]}, "not known"),
        ({"fmt": "float8_e4m3fn", "rounding": "sideways"}, "rounding='sideways'"),
        ({"fmt": "float8_e4m3fn", "overflow": "wrap"}, "overflow='wrap'"),
        ({"fmt": "float8_e4m3fn", "nan": "loud"}, "nan='loud'"),
        ({"fmt": "float8_e4m3fn", "random_bits": 0}, "random_bits=0"),
        ({"fmt": "float8_e4m3fn", "saturation_bits": 3}, "saturation_bits=3"),
        ({"fmt": "float8_e4m3fn", "random_bits": True}, "random_bits=True"),
        ({"fmt": "float8_e4m3fn", "random_bits": 1, "saturation_bits": False}, "saturation_bits=False"),
        ({"fmt": "float8_e4m3fn", "seed": -1}, "seed=-1"),
        ({"fmt": "float8_e4m3fn", "axis": 5}, "axis=5"),
        ({"fmt": ["float8_e4m3fn"]}, "format="),
        ({"fmt": "float8_e4m3fn", "out": np.ones(4, np.float32)}, "out has shape"),
    ]:
        with pytest.raises((lowp.Error, TypeError), match=words):
            lowp.quantize(x, **arguments)
    frozen = np.ones(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(lowp.Error, match="read-only"):
        lowp.quantize(x, "float8_e4m3fn", out=frozen)
    with pytest.raises(lowp.RangeError):
        lowp.quantize(np.array([np.nan], np.float32), "int8", nan="error")


@pytest.mark.parametrize("specials", ["fn", "fnuz", "finite", "p3109_finite"])
def test_numbers_where_float32_has_infinity(specials: str) -> None:
    fmt = lowp.Float(8, 3, bias=127, specials=specials)
    largest = np.array([np.finfo(np.float32).max, -3.0, 1.0625], np.float32)
    for mode in ("ties_to_even", "toward_zero"):
        wanted = [lowp.exact.encode(v, fmt, mode) for v in largest.tolist()]
        assert lowp.encode(largest, fmt, mode).codes.tolist() == wanted
        assert lowp.quantize(largest[1:], fmt, mode).tolist() == [-3.0, 1.0]
    with pytest.raises(lowp.RangeError, match="float32"):
        lowp.quantize(largest, fmt)


def test_runs_are_found_once() -> None:
    fmt = lowp.parse("float8_e4m3fn")
    assert float32_run(fmt, rounding("to_odd"), "saturate") is float32_run(fmt, rounding("to_odd"), "saturate")
    assert float32_run(fmt, rounding("stochastic_a"), "saturate") is None
    assert random_run(fmt, rounding("stochastic_a"), "saturate") is not None
    assert random_run(fmt, rounding("to_odd"), "saturate") is None
    assert float32_run(lowp.parse("e8m3"), rounding("to_odd"), "saturate") is not None
    assert float32_run(lowp.parse("posit8_es2"), rounding("ties_to_even"), "saturate") is None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*FORMATS, "float8_e5m2fnuz", "binary8p3ue", "uint4", "int2", "e3m1b-60", "e4m7b60"])
def test_codes_are_those_of_the_general_kernel(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers()
    fmt = lowp.parse(name)
    for overflow in OVERFLOWS:
        for nan in ("zero", "max") if not fmt.has_nan else (None,):
            found = lowp.encode(x, fmt, mode, overflow, nan=nan).codes
            with monkeypatch.context() as patch:
                patch.setattr(_scalar, "encoding_run", lambda *_: None)
                patch.setattr(verbs, "quickly", lambda *_: False)
                wanted = lowp.encode(x, fmt, mode, overflow, nan=nan).codes
            assert found.dtype == wanted.dtype
            assert np.array_equal(found, wanted), (overflow, nan)


@pytest.mark.parametrize("specials", ["ieee", "finite", "fn"])
@pytest.mark.parametrize(("exponent_bits", "mantissa_bits"), [(1, 1), (1, 2), (1, 6), (2, 1), (2, 5)])
def test_codes_of_formats_of_few_exponents(exponent_bits: int, mantissa_bits: int, specials: Any) -> None:
    """Where all finite numbers may be subnormal, or one binade is normal."""
    for bias in (0, 1, 3, -3):
        fmt = lowp.formats.Float(exponent_bits, mantissa_bits, bias=bias, specials=specials)
        grid = np.abs([v for v in value_table(fmt) if np.isfinite(v)])
        points = np.concatenate(
            [grid, (grid[1:] + grid[:-1]) / 2, fmt.max * np.array([1.01, 1.25, 1.5, 2, 99]), [np.inf]]
        )
        x = np.concatenate([points, -points]).astype(np.float32)
        for overflow in OVERFLOWS:
            wanted = [lowp.exact.encode(v, fmt, "ties_to_even", overflow) for v in x.tolist()]
            assert lowp.encode(x, fmt, overflow=overflow).codes.tolist() == wanted, (bias, overflow)


@pytest.mark.parametrize("mode", ["stochastic_a", "stochastic_b", "stochastic_c", "stochastic_equal"])
@pytest.mark.parametrize("name", FORMATS)
def test_random_bits_decide_as_in_the_general_kernel(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers()
    for bits in (1, 2, 7, 16, 22, 23, 24, 31, 32):
        for overflow in OVERFLOWS if bits == 32 else ("saturate",):
            how = {"seed": bits + (bits << 40), "random_bits": bits}
            found = lowp.quantize(x, name, mode, overflow, **how)
            with monkeypatch.context() as patch:
                patch.setattr(_scalar, "random_run", lambda *_: None)
                patch.setattr(verbs, "quickly", lambda *_: False)
                wanted = lowp.quantize(x, name, mode, overflow, **how)
            assert not differ(found, wanted).size, (bits, overflow)
            whole = x.copy()
            assert lowp.quantize(whole, name, mode, overflow, out=whole, **how) is whole
            assert not differ(whole, wanted).size, (bits, overflow)


def test_a_nan_without_a_code_is_an_error() -> None:
    x = np.ones(5000, np.float32)
    x[4999] = np.nan
    with pytest.raises(lowp.RangeError, match="NaN"):
        lowp.encode(x, "int8")
    assert lowp.encode(x, "float8_e4m3fn").codes[-1] == 0x7F
