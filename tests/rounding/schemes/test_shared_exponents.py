"""Shared exponents on one level (MSFP, Flexpoint, dynamic fixed point), on two (MX9, MX6, MX4) and on three (HiF4)."""

import itertools
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from lowp import FormatError, RangeError
from lowp.formats import Block, parse
from lowp.rounding import decode, encode, quantize
from tests.rounding.schemes.scaled import (
    ROUND,
    blocks_of,
    check_round_trip,
    clamped,
    floor_log2,
    gauss,
    joined,
    relative_error,
    same_bits,
    stored_bits,
)

MICRO = {"mx9": 7, "mx6": 4, "mx4": 2}
TWO = Fraction(2)


def exponent_field(x: Fraction) -> int:
    """Return the exponent that the 8-bit field of a float32 stands for, -127 for zero and all that has field 0."""
    return max(-127, min(127, floor_log2(abs(x)))) if x else -127


def micro_block(block: list[Fraction], bits: int, mode: str) -> list[Fraction]:
    shared = max(map(exponent_field, block))
    values = []
    for i, x in enumerate(block):
        pair = block[i // 2 * 2 : i // 2 * 2 + 2]
        shift = int(max(map(exponent_field, pair)) < shared)
        unit = TWO ** (shared - shift - (bits - 1))
        values.append(clamped(ROUND[mode](x / unit), 2**bits - 1) * unit)
    return values


def hif4_block(block: list[Fraction], mode: str) -> list[Fraction]:
    wanted = max(map(abs, block)) / 7
    step = TWO ** (floor_log2(wanted) - 2) if wanted else Fraction(1)
    scale = min(max(round(wanted / step) * step, TWO**-48), 3 * TWO**14)
    values = []
    for i, x in enumerate(block):
        eight = max(map(abs, block[i // 8 * 8 : i // 8 * 8 + 8]))
        four = max(map(abs, block[i // 4 * 4 : i // 4 * 4 + 4]))
        double = 2 if eight >= 4 * scale else 1
        double *= 2 if four >= 2 * scale * double else 1
        values.append(Fraction(clamped(ROUND[mode](4 * x / (scale * double)), 7), 4) * scale * double)
    return values


def spread_out(shape: tuple[int, ...], seed: int, dtype: str = "float32") -> np.ndarray:
    """Return numbers of very different sizes, some on a coarse grid so that ties occur, some zero."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-6, 6, shape))
    x = np.where(rng.random(shape) < 0.5, np.rint(x * 8) / 8, x)
    return np.where(rng.random(shape) < 0.1, 0, x).astype(dtype)


class TestBlockFloatingPoint:
    @pytest.mark.parametrize("name", ["bfp1_g4", "bfp2_g16", "msfp12", "msfp14", "msfp16", "bfp12_g8"])
    @pytest.mark.parametrize("mode", ROUND)
    def test_values_are_multiples_of_the_shared_quantum(self, name: str, mode: str) -> None:
        fmt = parse(name)
        assert isinstance(fmt, Block)
        assert isinstance(fmt.size, int)
        bits = fmt.element.bits - 1
        x = spread_out((6, 50), bits)
        expected = []
        for block in blocks_of(x, fmt.size):
            unit = TWO ** (max(map(exponent_field, block)) - (bits - 1))
            expected.append([clamped(ROUND[mode](v / unit), 2**bits - 1) * unit for v in block])
        assert np.array_equal(quantize(x, name, mode), joined(expected, x.shape, x.dtype))

    def test_every_pair_of_small_numbers(self) -> None:
        grid = np.arange(-16, 17) / 8
        x = np.array(list(itertools.product(grid, repeat=2)))
        expected = []
        for block in blocks_of(x, 2):
            unit = TWO ** (max(map(exponent_field, block)) - 1)
            expected.append([clamped(round(v / unit), 3) * unit for v in block])
        assert np.array_equal(quantize(x, "bfp2_g2"), joined(expected, x.shape, x.dtype))

    def test_a_worked_box(self) -> None:
        """MSFP12: exponent of 5.0 is 2, so the quantum is 1; 7.9 saturates at 7."""
        x = np.array([5.0, -2.5, 3.5, 0.4, 7.9, -7.4] + [0.0] * 10)
        encoded = encode(x, "msfp12")
        assert encoded.scales.tolist() == [129]
        assert encoded.codes.tolist()[:6] == [5, 14, 4, 0, 7, 9]
        assert decode(encoded).tolist()[:6] == [5.0, -2.0, 4.0, 0.0, 7.0, -7.0]

    @pytest.mark.parametrize(
        ("name", "bits"), [("msfp11", 3.5), ("msfp12", 4.5), ("msfp13", 5.5), ("msfp14", 6.5), ("msfp16", 8.5)]
    )
    def test_bits_match_the_memory_density_of_the_paper(self, name: str, bits: float) -> None:
        """Table 1 of the MSFP paper (NeurIPS 2020): 9.1, 7.1, 5.8, 4.9 and 3.8 times denser than float32."""
        density = {"msfp11": 9.1, "msfp12": 7.1, "msfp13": 5.8, "msfp14": 4.9, "msfp16": 3.8}
        assert parse(name).bits_per_value == bits  # type: ignore[attr-defined]
        assert round(32 / bits, 1) == density[name]

    def test_nan_takes_its_block_along(self) -> None:
        x = np.ones(32, np.float32)
        x[3] = np.inf
        assert np.isnan(quantize(x, "msfp12")).tolist() == [True] * 16 + [False] * 16


class TestOneExponentPerTensor:
    @pytest.mark.parametrize(("name", "bits"), [("dfp16", 16), ("dfp8", 8), ("dfp5", 5)])
    def test_dynamic_fixed_point_shifts_by_the_exponent_of_the_largest(self, name: str, bits: int) -> None:
        x = spread_out((7, 9), bits)
        amax = max(abs(Fraction(float(v))) for v in x.ravel())
        unit = TWO ** (floor_log2(amax) - (bits - 2))
        top = 2 ** (bits - 1) - 1
        expected = [[max(-top - 1, min(top, round(Fraction(float(v)) / unit))) * unit for v in x.ravel()]]
        assert np.array_equal(quantize(x, name).ravel(), joined(expected, (x.size,), x.dtype))

    def test_flexpoint_fills_its_mantissa(self) -> None:
        encoded = encode(np.array([1.0, -1.0, 0.75, 2.0**-14]), "flex16_5")
        assert encoded.scales.ravel().tolist() == [17]
        assert encoded.codes.tolist() == [16384, 49152, 12288, 1]

    def test_flexpoint_exponents_end(self) -> None:
        """The scale is 2^-31 to 1: numbers from 2^15 on clip, and small tensors lose bits."""
        assert quantize(np.array([1e6, -1e6]), "flex16_5").tolist() == [32767.0, -32768.0]
        assert quantize(np.array([2.0**-31, 2.0**-33]), "flex16_5").tolist() == [2.0**-31, 0.0]

    def test_flexpoint_refuses_nan(self) -> None:
        with pytest.raises(RangeError, match="refuses"):
            quantize(np.array([1.0, np.nan]), "flex16_5")


class TestMicroexponents:
    @pytest.mark.parametrize("name", MICRO)
    @pytest.mark.parametrize("mode", ROUND)
    def test_against_exact_rationals(self, name: str, mode: str) -> None:
        x = spread_out((8, 40), MICRO[name])
        expected = [micro_block(block, MICRO[name], mode) for block in blocks_of(x, 16)]
        assert np.array_equal(quantize(x, name, mode), joined(expected, x.shape, x.dtype))

    def test_every_pair_beside_a_larger_number(self) -> None:
        grid = np.arange(-17, 18) / 16
        pairs = np.array(list(itertools.product(grid, repeat=2)))
        x = np.zeros((len(pairs), 16))
        x[:, 0], x[:, 4:6] = 1.25, pairs
        expected = [micro_block(block, 2, "ties_to_even") for block in blocks_of(x, 16)]
        assert np.array_equal(quantize(x, "mx4"), joined(expected, x.shape, x.dtype))

    def test_a_worked_block(self) -> None:
        """MX4 has quanta of half the shared power of two, or a quarter where both of a pair are below it."""
        x = np.array([1.6, 0.3, 0.9, -0.3, -0.1, 1.0] + [0.0] * 10)
        encoded = encode(x, "mx4")
        assert encoded.fields is not None
        assert encoded.fields["exponents"].ravel().tolist() == [127]
        assert encoded.fields["shifts"].ravel().tolist() == [0, 1, 0, 1, 1, 1, 1, 1]
        assert encoded.codes.ravel().tolist()[:6] == [3, 1, 3, 5, 4, 2]
        assert decode(encoded).tolist()[:6] == [1.5, 0.5, 0.75, -0.25, -0.0, 1.0]

    @pytest.mark.parametrize(("name", "bits"), [("mx9", 9.0), ("mx6", 6.0), ("mx4", 4.0)])
    def test_bits_per_value_are_in_the_name(self, name: str, bits: float) -> None:
        """ISCA 2023, table of formats: m + 1 + 8/16 + 1/2 bits."""
        assert parse(name).bits_per_value == bits  # type: ignore[attr-defined]
        assert stored_bits(name, 3) == 3 * 16 * bits

    @pytest.mark.parametrize("name", MICRO)
    def test_numbers_below_the_exponents(self, name: str) -> None:
        """Subnormal numbers of float32 have exponent field 0, so pairs of them are not shifted."""
        tiny = np.ldexp(np.arange(-24, 24).reshape(3, 16), -133).astype(np.float32)
        expected = [micro_block(block, MICRO[name], "ties_to_even") for block in blocks_of(tiny, 16)]
        result = quantize(tiny, name)
        assert np.array_equal(result, joined(expected, tiny.shape, np.float32))
        assert np.any(result != 0)

    def test_numbers_beyond_the_exponents_saturate(self) -> None:
        x = np.array([1e300, -(2.0**127), 1e-300, 0.0] + [0.0] * 12)
        assert quantize(x, "mx9", "away_from_zero").tolist()[:3] == [127 * 2.0**121, -(2.0**127), 2.0**120]

    def test_zeros_are_all_zero_bits_and_keep_their_sign(self) -> None:
        assert not encode(np.zeros(32), "mx6").pack().any()
        assert same_bits(quantize(np.array([-0.0, 0.0]), "mx6"), np.array([-0.0, 0.0]))

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_nan_and_infinity_take_their_block_along(self, bad: float) -> None:
        x = np.ones(48, np.float32)
        x[17] = bad
        encoded = encode(x, "mx9")
        assert encoded.fields is not None
        assert encoded.fields["exponents"].ravel().tolist() == [127, 255, 127]
        assert np.isnan(decode(encoded)).tolist() == [False] * 16 + [True] * 16 + [False] * 16

    def test_stochastic_rounding_depends_on_the_seed_and_is_unbiased(self) -> None:
        x = np.full((4000, 16), 0.3)
        x[:, 0] = 1.0
        a, b = (quantize(x, "mx4", "stochastic", seed=s) for s in (1, 2))
        assert np.array_equal(a, quantize(x, "mx4", "stochastic", seed=1))
        assert not np.array_equal(a, b)
        assert set(np.unique(a[:, 2:])) == {0.25, 0.5}
        assert abs(a[:, 2:].mean() - 0.3) < 0.003


class TestHiF4:
    @pytest.mark.parametrize("mode", ROUND)
    def test_against_exact_rationals(self, mode: str) -> None:
        x = spread_out((6, 150), 5)
        x[5] *= np.exp2(np.linspace(-60, 20, 150)).astype(np.float32)
        expected = [hif4_block(block, mode) for block in blocks_of(x, 64)]
        assert np.array_equal(quantize(x, "hif4", mode), joined(expected, x.shape, x.dtype))

    @pytest.mark.parametrize("name", ["hif4", "hif4_bf16"])
    def test_a_worked_block(self, name: str) -> None:
        """A largest value of 7 gives scale 1; eights double from 4 on, fours from 2 on, or 4 if their eight doubled."""
        x = np.zeros(64)
        places = [0, 4, 8, 16, 20, 24]
        x[places] = 7.0, 3.0, -2.0, 1.1, 0.3, 4.0
        encoded = encode(x, name)
        assert encoded.fields is not None
        assert encoded.fields["scales"].ravel().tolist() == [48 * 4]
        assert encoded.fields["level2"].ravel().tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
        assert encoded.fields["level3"].ravel().tolist() == [1, 0, 1, 0, 0, 0, 1] + [0] * 9
        assert encoded.codes.ravel()[places].tolist() == [7, 6, 8 + 4, 4, 1, 4]
        assert decode(encoded)[places].tolist() == [7.0, 3.0, -2.0, 1.0, 0.25, 4.0]

    def test_bits_per_value(self) -> None:
        """ARCQuant, arXiv:2601.07475, and HiFloat4, arXiv:2602.11287: 4 + (8 + 8 + 16) / 64."""
        assert parse("hif4").bits_per_value == 4.5  # type: ignore[attr-defined]
        assert stored_bits("hif4", 2) == 2 * 64 * 4.5

    @pytest.mark.parametrize("name", ["hif4", "hif4_bf16"])
    def test_errors_of_normal_and_laplace_numbers(self, name: str) -> None:
        """6.88e-3 and 7.97e-3 of the power, computed from ARCQuant's definition (arXiv:2601.07475)."""
        laplace = np.random.default_rng(0).laplace(size=(256, 4096)) / np.sqrt(2)
        assert relative_error(gauss(), name) == pytest.approx(6.88e-3, rel=0.01)
        assert relative_error(laplace, name) == pytest.approx(7.97e-3, rel=0.01)

    def test_the_reference_code_step_by_step(self) -> None:
        """`hifx.py` of global-computing-consortium/HiFloat4, one block at a time, bfloat16 from ml_dtypes."""
        x = spread_out((40, 64), 9) * np.exp2(np.arange(40) * 2 - 60, dtype=np.float32)[:, None]
        expected = np.array([hif4_reference(row) for row in x])
        assert same_bits(quantize(x, "hif4_bf16") + 0, expected + 0)
        assert np.any(expected != quantize(x, "hif4"))

    @pytest.mark.parametrize("name", ["hif4", "hif4_bf16"])
    def test_nan_zero_and_the_ends_of_the_scale(self, name: str) -> None:
        x = np.zeros((4, 64))
        x[0, 1], x[1, 1], x[2, 1] = np.nan, 1e9, 2.0**-50
        result = quantize(x, name)
        assert np.isnan(result[0]).all()
        assert result[1, 1] == 7 * 1.5 * 2.0**15
        assert result[2, 1] == 2.0**-50
        assert not result[3].any()
        assert encode(x, name).fields["scales"].ravel().tolist() == [255, 254, 0, 0]  # type: ignore[index]

    def test_the_reference_code_has_one_rounding(self) -> None:
        with pytest.raises(ValueError, match="rounding of its own"):
            quantize(np.ones(64), "hif4_bf16", "toward_zero")


def hif4_reference(row: np.ndarray) -> np.ndarray:
    def bfloat16(v: np.float32) -> np.float32:
        return np.float32(ml_dtypes.bfloat16(v))

    scale = bfloat16(np.abs(row).max() * bfloat16(np.float32(1) / np.float32(7)))
    scale = min(max(scale, np.float32(2.0**-48)), np.float32(49152))
    step = np.float32(2.0 ** (floor_log2(Fraction(float(scale))) - 2))
    scale = np.float32(np.rint(scale / step) * step)
    inverse = bfloat16(np.float32(1) / scale)
    result = np.zeros(64, np.float32)
    for i, v in enumerate(row):
        eight = np.abs(row[i // 8 * 8 : i // 8 * 8 + 8]).max() * inverse
        four = np.abs(row[i // 4 * 4 : i // 4 * 4 + 4]).max() * inverse
        a = np.float32(2 if eight >= 4 else 1)
        b = np.float32(2 if four / a >= 2 else 1)
        quarters = min(np.floor(np.abs(v) / a / b * inverse * 4 + np.float32(0.5)), 7)
        result[i] = np.copysign(quarters / 4 * a * b * scale, v)
    return result


NAMES = ("msfp12", "bfp5_g32", "flex16_5", "dfp8", "mx9", "mx6", "mx4", "hif4", "hif4_bf16")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_fields_and_bytes_agree(name: str, dtype: str) -> None:
    x = spread_out((3, 70), 1, dtype)
    check_round_trip(x, name)
    check_round_trip(x, name, axis=0)
    check_round_trip(x.reshape(3, 7, 10), name, axis=1)


@pytest.mark.parametrize("name", ["mx6", "hif4", "msfp13"])
def test_stochastic_codes_agree_too(name: str) -> None:
    check_round_trip(spread_out((3, 70), 2), name, rounding="stochastic")


@pytest.mark.parametrize("name", NAMES)
def test_float64_and_float32_of_the_same_numbers_agree(name: str) -> None:
    x = spread_out((4, 128), 3)
    assert np.array_equal(quantize(x, name).astype(np.float64), quantize(x.astype(np.float64), name))


@pytest.mark.parametrize("name", NAMES)
def test_quantized_values_stay(name: str) -> None:
    """But for HiF4: a largest value that saturated or rounded asks for another scale."""
    if not name.startswith("hif4"):
        once = quantize(spread_out((4, 128), 4), name)
        assert same_bits(quantize(once, name), once)


@pytest.mark.parametrize("name", ["mx9", "hif4", "hif4_bf16", "msfp12"])
def test_empty_arrays(name: str) -> None:
    assert quantize(np.zeros((0, 64), np.float32), name).shape == (0, 64)
    assert quantize(np.zeros((3, 0), np.float32), name).shape == (3, 0)


def test_rules_of_names() -> None:
    assert parse("bfp3_g16") == parse("MSFP12")
    assert parse("flex16+5") == parse("flexpoint") == parse("flex16_5")
    assert parse("bfp7_g32") == parse("mxint8")
    assert parse("bfp4_t8x8").size == (8, 8)  # type: ignore[attr-defined]
    assert parse("bfp4_row").size == "row"  # type: ignore[attr-defined]
    assert all(parse(parse(name).name) == parse(name) for name in (*NAMES, "flex12_4", "dfp12", "bfp20_tensor"))


@pytest.mark.parametrize("name", ["bfp0_g16", "bfp53_g16", "bfp4_g0", "msfp9", "dfp1", "flex16_10", "flex1_5"])
def test_formats_that_cannot_be(name: str) -> None:
    with pytest.raises(FormatError):
        parse(name)
