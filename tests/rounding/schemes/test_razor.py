"""QRazor's significant data razoring."""

from fractions import Fraction

import numpy as np
import pytest

from lowp import ArgumentError, FormatError
from lowp.formats import parse
from lowp.rounding import decode, encode, quantize
from lowp.rounding.schemes.razor import razor
from tests.rounding.schemes.scaled import (
    blocks_of,
    check_round_trip,
    clamped,
    gauss,
    joined,
    relative_error,
    same_bits,
    stored_bits,
)

NAMES = {
    "qrazor_w4": (8, 3, 16),
    "qrazor_a4": (16, 3, 16),
    "qrazor4_b8_g32_mag": (8, 4, 32),
    "qrazor3_b5_g4": (5, 2, 4),
}


def razored(group: list[int], kept: int) -> list[int]:
    """Return what is left of integers: bit by bit, in words of the paper."""
    union = 0
    for n in group:
        union |= abs(n)
    shift = max(union.bit_length() - kept, 0)
    result = []
    for n in group:
        next_bit = abs(n) >> (shift - 1) & 1 if shift else 0
        short = (abs(n) >> shift) + next_bit
        if short == 1 << kept:
            short -= 1
        result.append((-1 if n < 0 else 1) * (short << shift))
    return result


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_every_group_of_two_small_integers(kept: int) -> None:
    groups = np.array([(a, b) for a in range(-31, 32) for b in range(32)])
    magnitudes, shifts = razor(groups, kept)
    values = np.sign(groups) * (magnitudes << shifts)
    assert values.tolist() == [razored(group, kept) for group in groups.tolist()]
    assert magnitudes.max() < 1 << kept


def test_rounding_never_needs_one_more_bit() -> None:
    """0b0111_1000 would round to 0b1000 of four bits: kept at 0b0111; 0b0110_1000 rounds up to it."""
    magnitudes, shifts = razor(np.array([[0b1111000, 0b1101000, 0b0001000, 0b0000111]]), 3)
    assert magnitudes.tolist() == [[0b111, 0b111, 0b001, 0b000]]
    assert shifts.tolist() == [[4]]


@pytest.mark.parametrize("name", NAMES)
def test_against_exact_rationals(name: str) -> None:
    base, kept, size = NAMES[name]
    rng = np.random.default_rng(base)
    x = (rng.standard_normal((5, 70)) * np.exp2(rng.integers(-4, 4, (5, 70)))).astype(np.float32)
    x[1] = np.rint(x[1])
    top = 2 ** (base - 1) - 1
    rows = []
    for row in x:
        scale = Fraction(float(np.float32(np.abs(row).max().astype(np.float64) / top)))
        values = []
        for block in blocks_of(row[None], size):
            values += [n * scale for n in razored([clamped(round(v / scale), top) for v in block], kept)]
        rows.append(values)
    assert np.array_equal(quantize(x, name), joined(rows, x.shape, x.dtype))


@pytest.mark.parametrize("mode", ["toward_zero", "stochastic"])
def test_modes_that_razoring_would_not_follow_are_refused(mode: str) -> None:
    for verb in (quantize, encode):
        with pytest.raises(ArgumentError, match=f"{mode}.*'qrazor_a4' has a rounding of its own"):
            verb(np.ones(16), "qrazor_a4", mode)


def test_a_worked_group() -> None:
    """Base integers 127, -64, 20, 8, 7 with scale 1; the razoring point is bit 6, and three bits are kept."""
    x = np.array([127.0, -64.0, 20.0, 8.0, 7.0])
    encoded = encode(x, "qrazor_w4")
    assert encoded.fields is not None
    assert encoded.fields["shifts"].ravel().tolist() == [4]
    assert encoded.codes.ravel().tolist()[:5] == [7, 8 + 4, 1, 1, 0]
    assert decode(encoded).tolist() == [112.0, -64.0, 16.0, 16.0, 0.0]


@pytest.mark.parametrize(
    ("name", "bits"), [("qrazor_w4", 4 + 3 / 16), ("qrazor_a4", 4 + 4 / 16), ("qrazor4_b8_g32_mag", 5 + 3 / 32)]
)
def test_bits_per_value(name: str, bits: float) -> None:
    fmt = parse(name)
    assert fmt.bits_per_value == bits  # type: ignore[attr-defined]
    assert stored_bits(name, 8) == 8 * fmt.block_elements * bits  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("qrazor4_b8_g16", 1.373e-2),
        ("qrazor4_b8_g32", 1.692e-2),
        ("qrazor4_b16_g16", 1.337e-2),
        ("qrazor4_b8_g16_mag", 3.58e-3),
    ],
)
def test_errors_of_normal_numbers(name: str, error: float) -> None:
    """Computed from QRazor's two stages (arXiv:2501.13331), with the sign among the kept bits and without."""
    assert relative_error(gauss(), name) == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_fields_and_bytes_agree(name: str, dtype: str) -> None:
    x = np.random.default_rng(1).standard_normal((3, 70)).astype(dtype)
    check_round_trip(x, name)
    check_round_trip(x, name, axis=0)


def test_float64_and_float32_of_the_same_numbers_agree() -> None:
    x = np.random.default_rng(2).standard_normal((3, 64)).astype(np.float32)
    for name in NAMES:
        assert np.array_equal(encode(x, name).pack(), encode(x.astype(np.float64), name).pack())


def test_zeros_tiny_numbers_and_nan() -> None:
    """A row of zeros is zero bits; a row whose scale rounds to zero is zero; NaN and infinity take their row along."""
    assert not encode(np.zeros((2, 32)), "qrazor_w4").pack().any()
    assert same_bits(quantize(np.array([[-0.0, 1e-60]]), "qrazor_w4"), np.array([[-0.0, 0.0]]))
    x = np.ones((3, 40), np.float32)
    x[0, 3], x[2, 39] = -np.nan, np.inf
    assert np.isnan(quantize(x, "qrazor_w4")).all(axis=1).tolist() == [True, False, True]
    assert not np.isnan(quantize(x, "qrazor_w4"))[1].any()
    assert quantize(np.zeros((0, 32)), "qrazor_w4").shape == (0, 32)
    assert quantize(np.zeros((3, 0)), "qrazor_w4").shape == (3, 0)


def test_names() -> None:
    assert parse("qrazor_kv4") == parse("qrazor4_b8_g16") == parse("qrazor_w4")
    assert all(parse(parse(name).name) == parse(name) for name in NAMES)
    for name in ("qrazor1_b8_g16", "qrazor8_b8_g16", "qrazor6_b6_g16_mag", "qrazor4_b17_g16", "qrazor4_b8_g0"):
        with pytest.raises(FormatError):
            parse(name)
