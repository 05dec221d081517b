"""Bit flips: right rate, right places, reproducible."""

import numpy as np
import pytest

import lowp
from lowp.rounding.random_bits import word


def test_flips_follow_seed_and_position() -> None:
    codes = np.arange(300, dtype=np.uint16)
    got = lowp.flip_bits(codes, 0.125, seed=9, fmt="float16")
    for i, code in enumerate(codes):
        mask = sum(1 << bit for bit in range(16) if word(9, i * 16 + bit) < 2**29)
        assert got[i] == code ^ mask


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.3, 1.0])
def test_rate(rate: float) -> None:
    x = lowp.array(np.zeros(20000), "float8_e4m3fn")
    flipped, where = lowp.flip_bits(x, rate, seed=1, positions=True)
    share = len(where) / (20000 * 8)
    assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) / 160000)
    assert np.bitwise_count(flipped.codes).sum() == len(where)
    assert (x.codes == 0).all()


def test_positions_say_what_was_flipped() -> None:
    x = lowp.array(np.ones((4, 50)), "posit16_es1")
    flipped, where = lowp.flip_bits(x, 0.05, seed=2, positions=True)
    codes = x.codes.ravel().copy()
    for element, bit in where:
        codes[element] ^= np.uint16(1 << bit)
    assert (codes == flipped.codes.ravel()).all()
    assert flipped.format == x.format
    assert flipped.shape == x.shape
    assert (np.diff(where[:, 0]) >= 0).all()


def test_lower_rates_flip_fewer_of_the_same_bits() -> None:
    codes = np.zeros(5000, np.uint8)
    low, high = (lowp.flip_bits(codes, rate, seed=4, fmt="int8") for rate in (0.01, 0.2))
    assert (low & ~high == 0).all()
    assert low.any()


def test_only_the_named_bits_flip() -> None:
    got = lowp.flip_bits(np.zeros(1000, np.uint8), 0.5, fmt="int8", bits=[7, 0])
    assert set(np.unique(got).tolist()) == {0, 1, 128, 129}
    assert (lowp.flip_bits(np.zeros(10, np.uint8), 1.0, fmt="int8", bits=3) == 8).all()


def test_narrow_codes_keep_their_width() -> None:
    got = lowp.flip_bits(np.zeros(1000, np.uint8), 1.0, fmt="int4")
    assert (got == 15).all()


@pytest.mark.parametrize(
    "bad",
    [{"rate": 1.5}, {"rate": "x"}, {"rate": 0.1, "bits": [8]}, {"rate": 0.1, "fmt": None}, {"rate": 0.1, "seed": -1}],
)
def test_bad_arguments(bad: dict[str, object]) -> None:
    with pytest.raises(lowp.ArgumentError):
        lowp.flip_bits(np.zeros(3, np.uint8), **({"fmt": "int8"} | bad))  # type: ignore[arg-type]


def test_codes_must_be_codes() -> None:
    with pytest.raises(lowp.ArgumentTypeError, match="integers"):
        lowp.flip_bits([0.5], 0.1, fmt="int8")
    with pytest.raises(lowp.RangeError):
        lowp.flip_bits([300], 0.1, fmt="int8")
