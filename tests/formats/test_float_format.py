"""Limits of floats against ml_dtypes and against the list of all values; floats that cannot exist."""

import math
import re
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowp
from lowp.formats import Fixed, Float, Integer, names
from lowp.formats.float_format import SPECIALS
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat, finite_values

ml_dtypes = pytest.importorskip("ml_dtypes")

many = settings(max_examples=300, deadline=None, derandomize=True, database=None)
ML_DTYPES = [
    "bfloat16", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


def fmt_of(name: str) -> Float:
    """The float of that name."""
    fmt = lowp.parse(name)
    assert isinstance(fmt, Float)
    return fmt


@pytest.mark.parametrize("name", ML_DTYPES)
def test_limits_are_those_of_ml_dtypes(name: str) -> None:
    fmt, info = fmt_of(name), ml_dtypes.finfo(name)
    assert fmt.bits == info.bits
    assert fmt.max == float(info.max)
    assert fmt.min == float(info.min)
    assert fmt.smallest_normal == float(info.smallest_normal)
    assert fmt.smallest_subnormal == float(info.smallest_subnormal)
    assert fmt.eps == float(info.eps)
    assert fmt.mantissa_bits == info.nmant
    assert fmt.exponent_bits == info.iexp


@pytest.mark.parametrize(("name", "dtype"), [("float16", np.float16), ("float32", np.float32), ("float64", np.float64)])
def test_limits_are_those_of_numpy(name: str, dtype: Any) -> None:
    fmt, info = fmt_of(name), np.finfo(dtype)
    got = (fmt.bits, fmt.max, fmt.min, fmt.smallest_normal, fmt.smallest_subnormal, fmt.eps)
    assert got == (info.bits, info.max, info.min, info.tiny, info.smallest_subnormal, info.eps)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_specials_are_those_of_ml_dtypes(name: str) -> None:
    fmt = fmt_of(name)
    codes = np.arange(1 << fmt.bits, dtype=np.uint16 if fmt.bits == 16 else np.uint8)
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = codes.view(getattr(ml_dtypes, name)).astype(np.float64)
    assert fmt.has_nan == np.isnan(values).any()
    assert fmt.has_infinity == np.isinf(values).any()
    assert fmt.has_negative_zero == ((values == 0) & np.signbit(values)).any()
    assert fmt.has_zero == (values == 0).any()
    assert fmt.signed == (values < 0).any()


@st.composite
def small_floats(draw: st.DrawFn) -> Float:
    """Any float of at most 10 bits."""
    try:
        return Float(
            draw(st.integers(1, 5)), draw(st.integers(0, 4)), draw(st.none() | st.integers(-9, 20)),
            draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from(sorted(SPECIALS))), draw(st.booleans()),
        )  # fmt: skip
    except lowp.FormatError:
        return Float(3, 2, specials="finite")


@given(small_floats())
@many
def test_limits_are_those_of_the_list_of_values(fmt: Float) -> None:
    check_limits(fmt)
    finite = [v for v in finite_values(fmt) if v > 0]
    assert Fraction(2) ** fmt.emax <= finite[-1] < Fraction(2) ** (fmt.emax + 1)
    assert len(finite) >= 1
    codes = [fmt.meaning(c) for c in range(fmt.max_code + 1)]
    assert codes[-1] == finite[-1]
    if fmt.subnormals or not fmt.zero:
        assert codes == sorted(set(codes)), "magnitudes ascend with their codes"
    assert (fmt.nan_code is None) != fmt.has_nan
    assert fmt.nan_code is None or fmt.meaning(fmt.nan_code) == "nan"
    assert fmt.infinity_code is None or fmt.meaning(fmt.infinity_code) == "inf"


def is_small(fmt: ScalarFormat) -> bool:
    """Whether all its values are soon compared; logarithmic formats have tests of their own."""
    return fmt.bits <= 16 and not is_logarithmic(fmt)


@pytest.mark.parametrize("name", [n for n in names() if isinstance(f := lowp.parse(n), ScalarFormat) and is_small(f)])
def test_limits_of_registered_formats(name: str) -> None:
    fmt = lowp.parse(name)
    assert isinstance(fmt, ScalarFormat)
    check_limits(fmt)


def check_limits(fmt: ScalarFormat) -> None:
    """Compare what the format says of itself with what its codes mean."""
    values = finite_values(fmt)
    lowest = -values[-1] if getattr(fmt, "symmetric", False) else values[0]
    positive = [v for v in values if v > 0]
    assert Fraction(fmt.max) == values[-1]
    assert Fraction(fmt.min) == lowest
    assert Fraction(fmt.smallest_subnormal) == (positive[0] if positive else 0)
    above = [v for v in values if v > 1]
    wanted = float(above[0] - 1) if above and 1 in values else math.nan
    assert fmt.eps == wanted or (math.isnan(fmt.eps) and math.isnan(wanted))
    meanings = [fmt.meaning(code) for code in range(1 << fmt.bits)]
    table = lowp.values(fmt)
    assert [str(float(m)) for m in meanings] == [str(v) for v in table.tolist()]
    if isinstance(fmt, Float):
        assert fmt.has_nan == ("nan" in meanings)
        assert fmt.has_infinity == ("inf" in meanings)
        assert fmt.has_negative_zero == ("-0" in meanings)
        assert fmt.has_zero == (0 in meanings)
    with pytest.raises(lowp.ArgumentError, match=f"code={1 << fmt.bits} is not a code of"):
        fmt.meaning(1 << fmt.bits)


@given(
    small_floats(),
    st.sampled_from(["ties_to_even", "toward_zero", "toward_positive", "to_odd", "ties_to_away"]),
    st.sampled_from(["saturate", "propagate", "infinity_or_nan"]),
)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_every_float_rounds_as_the_oracle(fmt: Float, mode: str, overflow: str) -> None:
    grid = sorted({*finite_values(fmt), *(-v for v in finite_values(fmt))})
    points = [float(p) for a, b in pairwise(grid) for p in (a, (a + b) / 2, (3 * a + b) / 4)]
    points += [fmt.max * f for f in (1, 1.01, 1.0625, 1.25, 1.5, 2, 1e6)] + [5e-324, math.inf, -math.inf, -0.0, 0.0]
    wanted = [lowp.exact.encode(p, fmt, mode, overflow) for p in points]
    assert lowp.encode(points, fmt, mode, overflow).codes.tolist() == wanted
    if abs(fmt.emin) < 100 and fmt.emax < 100:
        assert lowp.encode(np.float32(points), fmt, mode, overflow).codes.tolist() == [
            lowp.exact.encode(p, fmt, mode, overflow) for p in np.float32(points).tolist()
        ]
        singles = lowp.quantize(np.float32(points), fmt, mode, overflow)
        doubles = lowp.quantize(np.float32(points).astype(np.float64), fmt, mode, overflow)
        assert np.array_equal(singles, doubles, equal_nan=True)
        assert np.array_equal(np.signbit(singles[~np.isnan(singles)]), np.signbit(doubles[~np.isnan(doubles)]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exponent_bits": 0, "mantissa_bits": 3}, "exponent_bits=0 is out of range; allowed: 1 to 11 (0 is fix"),
        ({"exponent_bits": -1, "mantissa_bits": 3}, "exponent_bits=-1 is out of range"),
        ({"exponent_bits": 12, "mantissa_bits": 3}, "exponent_bits=12 is out of range"),
        ({"exponent_bits": 4, "mantissa_bits": -1}, "mantissa_bits=-1 is out of range; allowed: 0 to 52"),
        ({"exponent_bits": 4, "mantissa_bits": 53}, "mantissa_bits=53 is out of range"),
        ({"exponent_bits": 4.0, "mantissa_bits": 3}, "exponent_bits=4.0 is not an integer"),
        ({"exponent_bits": True, "mantissa_bits": 3}, "exponent_bits=True is not an integer"),
        ({"exponent_bits": 4, "mantissa_bits": "3"}, "mantissa_bits='3' is not an integer"),
        ({"exponent_bits": 4, "mantissa_bits": 3, "bias": 1.5}, "bias=1.5 is not an integer"),
        ({"exponent_bits": 4, "mantissa_bits": 3, "specials": "fnz"}, "specials='fnz' is not known. Did you mean"),
        ({"exponent_bits": 4, "mantissa_bits": 3, "specials": "fnuz", "signed": False}, "needs signed=True"),
        ({"exponent_bits": 4, "mantissa_bits": 0}, "specials='ieee' needs mantissa_bits >= 1"),
        ({"exponent_bits": 4, "mantissa_bits": 3, "zero": False}, "zero=False needs signed=False, subnormals=False"),
        ({"exponent_bits": 11, "mantissa_bits": 3, "bias": 1024}, "bias=1024 puts the normal range 2^-1023 to"),
        ({"exponent_bits": 5, "mantissa_bits": 2, "bias": 2000}, "allowed here: -993 to 1023"),
        ({"exponent_bits": 11, "mantissa_bits": 3, "specials": "finite"}, "allowed here: none, use fewer"),
        ({"exponent_bits": 1, "mantissa_bits": 3, "subnormals": False}, "has no finite value besides zero"),
        ({"exponent_bits": 1, "mantissa_bits": 0, "specials": "fn"}, "has no finite value besides zero"),
        ({"exponent_bits": 1, "mantissa_bits": 0, "specials": "p3109"}, "has no finite value besides zero"),
    ],
)  # fmt: skip
def test_floats_that_cannot_exist(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(lowp.FormatError, match=re.escape(message)):
        Float(**fields)


def test_the_allowed_biases_are_allowed_and_the_next_are_not() -> None:
    for bias in (-993, 1023):
        assert math.isfinite(Float(5, 2, bias=bias).max)
    for bias in (-994, 1024):
        with pytest.raises(lowp.FormatError, match="allowed here: -993 to 1023"):
            Float(5, 2, bias=bias)


@pytest.mark.parametrize("bias", [-993, 1023])
def test_the_ends_of_float64_are_reached_exactly(bias: int) -> None:
    fmt = Float(5, 2, bias=bias)
    table = lowp.values(fmt)
    finite = table[np.isfinite(table)]
    assert lowp.encode(finite, fmt).codes.tolist() == [lowp.exact.encode(v, fmt) for v in finite.tolist()]
    assert np.array_equal(lowp.quantize(finite, fmt), finite)


def test_formats_are_values() -> None:
    assert Float(4, 3) == Float(4, 3, bias=7) == Float(np.int64(4), np.int8(3))
    assert hash(Float(4, 3)) == hash(Float(4, 3, bias=7))
    assert Float(4, 3) != Float(4, 3, specials="fn")
    assert len({Float(4, 3), Float(4, 3, bias=7), Integer(8), Fixed(8, 0)}) == 3
    with pytest.raises(AttributeError):
        Float(4, 3).bias = 3  # type: ignore[misc]


@pytest.mark.parametrize(("width", "signed"), [(1, True), (1, False), (2, True), (8, True), (32, True), (32, False)])
def test_integers_have_the_limits_of_their_width(width: int, signed: bool) -> None:
    fmt = Integer(width, signed)
    assert (fmt.min, fmt.max) == ((-(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1) if signed else (0.0, 2.0**width - 1))
    assert fmt.bits_per_value == width
    if width <= 8:
        check_limits(fmt)


@given(st.integers(1, 53), st.integers(-900, 900), st.booleans())
@many
def test_fixed_point_is_an_integer_times_a_power_of_two(bits: int, fraction: int, signed: bool) -> None:
    fmt = Fixed(bits, fraction, signed)
    largest = (1 << (bits - signed)) - 1
    assert Fraction(fmt.max) == largest * Fraction(2) ** -fraction
    assert Fraction(fmt.min) == (-(1 << (bits - 1)) if signed else 0) * Fraction(2) ** -fraction
    ends = np.array([fmt.min, fmt.max])
    assert lowp.encode(ends, fmt).codes.tolist() == [(1 << (bits - 1)) if signed else 0, largest]
    assert lowp.decode(lowp.encode(ends, fmt)).tolist() == ends.tolist()


def test_values_lists_formats_of_sixteen_bits_at_most() -> None:
    assert lowp.values("e5m10").size == 1 << 16
    for name, message in (
        ("e5m11", r"has 2\^17 codes; values lists formats of at most 16 bits"),
        ("mxfp4", "values needs a scalar format"),
    ):
        with pytest.raises(lowp.FormatError, match=message):
            lowp.values(name)
