"""Dyadic scales and requantisation against Fractions and a transcription of HAWQ-V3's code."""

import ast
import decimal
import inspect
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp.emulation import _integer_arithmetic
from lowp.emulation.dyadic import DyadicScale
from lowp.formats.parse import parse

HALF = Fraction(1, 2)
#: mode -> whether floor goes up by one, from the value, its floor and the rest, which is not zero.
UP = {
    "ties_to_even": lambda x, q, r: r > HALF or (r == HALF and q % 2 == 1),
    "ties_to_odd": lambda x, q, r: r > HALF or (r == HALF and q % 2 == 0),
    "ties_to_away": lambda x, q, r: r > HALF or (r == HALF and x > 0),
    "ties_to_zero": lambda x, q, r: r > HALF or (r == HALF and x < 0),
    "ties_to_positive": lambda x, q, r: r >= HALF,
    "ties_to_negative": lambda x, q, r: r > HALF,
    "toward_zero": lambda x, q, r: x < 0,
    "away_from_zero": lambda x, q, r: x > 0,
    "toward_positive": lambda x, q, r: True,
    "toward_negative": lambda x, q, r: False,
    "to_odd": lambda x, q, r: q % 2 == 0,
}


def rounded(x: Fraction, mode: str) -> int:
    q = math.floor(x)
    return q + (x != q and bool(UP[mode](x, q, x - q)))


def expected(z: np.ndarray, scale: Fraction, fmt: str, mode: str) -> list[int]:
    low, high = int(lowp.parse(fmt).min), int(lowp.parse(fmt).max)
    return [min(max(rounded(int(v) * scale, mode), low), high) for v in z]


def batch_frexp(real: float) -> tuple[int, int]:
    """As HAWQ's quant_utils.py has it, for one number."""
    m, e = np.frexp(real)
    return int(Decimal(float(m) * 2**31).quantize(Decimal("1"), rounding=decimal.ROUND_HALF_UP)), 31 - int(e)


@pytest.mark.parametrize("mode", UP)
@pytest.mark.parametrize("bits", [1, 3, 31])
def test_every_accumulator_of_11_bits(mode, bits):
    z = np.arange(-1024, 1024)
    for real in (0.5, 0.25, 1 / 3, 0.0078125, 0.0123, 1.0, 3.0, 1 - 2.0**-40, 1e-4):
        scale = DyadicScale.of(real, bits)
        for fmt in ("int8", "uint8", "int4", "uint4", "int16"):
            want = expected(z, scale.exact(), fmt, mode)
            assert scale.apply(z, fmt, rounding=mode).tolist() == want, (real, fmt)
            assert scale.emulate(z, fmt, rounding=mode).tolist() == want, (real, fmt)


@pytest.mark.parametrize("mode", UP)
def test_accumulators_and_scales_at_their_limits(mode):
    draws = np.random.default_rng(5).integers(-(2**31), 2**31, 200)
    z = np.concatenate([draws, [-(2**31), -(2**31) + 1, 2**31 - 1, 0, 1, -1]])
    for real in (2.0**-1074, 1e-30, 2.0**-63, 2.0**-62, 2.0**-33.5, 2.0**-32, 2.0**-31, 2.0**-24, 7.0, 2.0**40, 1e300):
        scale = DyadicScale.of(real)
        for fmt in ("int8", "int32", "uint16"):
            want = expected(z, scale.exact(), fmt, mode)
            assert scale.apply(z, fmt, rounding=mode).tolist() == want, (real, fmt)
            assert scale.emulate(z, fmt, rounding=mode).tolist() == want, (real, fmt)


def test_ties_of_both_signs():
    z = np.array([-5, -3, -1, 1, 3, 5])
    got = {
        mode: DyadicScale.of(0.5).apply(z, rounding=mode).tolist()
        for mode in ("rne", "ties_to_positive", "rna", "floor")
    }
    assert got == {
        "rne": [-2, -2, 0, 0, 2, 2],
        "ties_to_positive": [-2, -1, 0, 1, 2, 3],  # adding one half before an arithmetic shift
        "rna": [-3, -2, -1, 1, 2, 3],
        "floor": [-3, -2, -1, 0, 1, 2],
    }


def test_adding_a_half_before_a_plain_shift_is_ties_to_positive():
    z = np.random.default_rng(0).integers(-(2**31), 2**31, 5000)
    scale = DyadicScale.of(0.00001234)
    b, c = int(scale.multiplier), int(scale.shift)
    plain = [min(max((int(v) * b + (1 << (c - 1))) >> c, -(2**15)), 2**15 - 1) for v in z]
    assert scale.apply(z, "int16", rounding="ties_to_positive").tolist() == plain


def test_a_product_that_float64_would_round_to_a_tie():
    """HAWQ's own code multiplies in float64 and rounds twice there: integers give another number."""
    scale = DyadicScale(np.array(1273290934), np.array(54))
    z = np.array([176848806])
    twice = np.rint(z.astype(np.float64) * 1273290934.0 / 2.0**54)
    assert (scale.apply(z).tolist(), scale.emulate(z).tolist(), twice.tolist()) == ([13], [13.0], [12.0])
    assert rounded(int(z[0]) * scale.exact(), "ties_to_even") == 13


def test_mantissas_are_those_of_batch_frexp():
    reals = np.exp(np.random.default_rng(1).normal(size=2000) * 6)
    reals = [*reals.tolist(), 0.5, 1.0, 2.0**-20, 1 - 2.0**-53, 0.5 + 2.0**-32, 0.5 + 3 * 2.0**-32]
    for real in reals:
        b, c = batch_frexp(real)
        got = DyadicScale.of(real)
        assert got.exact() == Fraction(b) / Fraction(2) ** c
        assert 1 << 30 <= int(got.multiplier) < 1 << 31


@pytest.mark.parametrize("bits", [1, 2, 8, 16, 31])
def test_dyadic_numbers_are_within_half_a_unit(bits):
    for real in (0.3, 1 / 7, Fraction(1, 3), 5, 0.999999, Fraction(2**31 - 1, 2**31)):
        scale = DyadicScale.of(real, bits)
        assert 1 << (bits - 1) <= int(scale.multiplier) < 1 << bits
        assert abs(scale.exact() - Fraction(real)) <= Fraction(real) / 2**bits


def test_scales_of_channels_meet_axis_1():
    scale = DyadicScale.of([0.5, 0.25, 2.0])
    z = np.arange(24).reshape(2, 3, 2, 2) - 12
    want = np.stack([DyadicScale.of(r).apply(z[:, i]) for i, r in enumerate([0.5, 0.25, 2.0])], axis=1)
    assert np.array_equal(scale.apply(z), want)
    assert np.array_equal(scale.emulate(z), want)
    assert scale.exact() == [Fraction(1, 2), Fraction(1, 4), Fraction(2)]


@pytest.mark.parametrize("real", [0, -1.0, float("inf"), float("nan"), "1", True, [1.0, 0.0]])
def test_what_is_no_scale(real):
    with pytest.raises(lowp.ArgumentError, match="scales are positive finite numbers"):
        DyadicScale.of(real)


def test_what_apply_refuses():
    scale = DyadicScale.of(0.5)
    with pytest.raises(lowp.ArgumentTypeError, match="z must be integers"):
        scale.apply([1.0])
    with pytest.raises(lowp.RangeError, match="more than 32 bits"):
        scale.apply(np.array([2**31]))
    with pytest.raises(lowp.ArgumentError, match="integer format"):
        scale.apply([1], "float16")
    with pytest.raises(lowp.ArgumentError, match="rounding"):
        scale.apply([1], rounding="stochastic")
    with pytest.raises(lowp.ArgumentError, match="at most 31 bits"):
        DyadicScale(np.array(2**31), np.array(3))
    with pytest.raises(lowp.ArgumentError, match="one for each channel"):
        DyadicScale(np.array([3, 5]), np.array(3))
    with pytest.raises(lowp.ArgumentError, match="bits=32"):
        DyadicScale.of(0.5, 32)


@pytest.mark.parametrize("mode", UP)
def test_quotients_of_sums(mode):
    total = np.arange(-600, 600, dtype=np.int32)
    for count in (1, 2, 3, 4, 9, 49):
        want = [rounded(Fraction(int(t), count), mode) for t in total]
        assert _integer_arithmetic.divided(total, count, mode).tolist() == want


def test_the_integer_arithmetic_has_no_division_and_no_float():
    """The module that integers pass through: no true division, no float constant, no name of a float."""
    tree = ast.parse(inspect.getsource(_integer_arithmetic))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Div | ast.Pow)
        assert not isinstance(getattr(node, "value", None), float)
        for name in (getattr(node, "id", ""), getattr(node, "attr", "")):
            assert "float" not in str(name)


@pytest.mark.parametrize("fmt", ["uint32", "int32", "uint8"])
@pytest.mark.parametrize("shift", [-30, -31, -32, -33, -71])
def test_scales_beyond_the_accumulator_saturate_all_but_zero(fmt, shift):
    scale = DyadicScale(np.array(1), np.array(shift))
    z = [-(2**31), -1, 0, 1, 2, 2**31 - 1]
    form = parse(fmt)
    want = [min(max(x << -shift, int(form.min)), int(form.max)) for x in z]
    assert scale.apply(z, fmt).tolist() == want
    assert scale.emulate(z, fmt).tolist() == want
