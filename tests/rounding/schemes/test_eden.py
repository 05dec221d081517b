"""MS-EDEN of Quartet II (arXiv:2601.22813): published error, its two kinds of randomness, and what decoding needs."""

from dataclasses import replace

import numpy as np
import pytest

from lowp import ArgumentError
from lowp.formats import parse
from lowp.rounding import decode, encode, quantize
from lowp.rounding.random_bits import keys
from lowp.rounding.schemes import eden
from lowp.rounding.schemes.rotation import draw_signs, rotate, rotate_back
from tests.rounding.schemes.scaled import check_round_trip

GAUSS = np.random.default_rng(0).standard_normal((2**13, 128)).astype(np.float32)


def measured(x: np.ndarray, name: str, seed: int = 0) -> tuple[float, float]:
    """Return the squared error over the square, and 1 less the projection of the result on x."""
    x64, q = x.astype(np.float64), quantize(x, name, seed=seed).astype(np.float64)
    return float(((q - x64) ** 2).mean() / (x64**2).mean()), float(1 - (q * x64).sum() / (x64**2).sum())


def test_published_error():
    """`notebooks/unbiasedness.ipynb`, row EDEN: 9.8e-3, 3.34 bits, misalignment .00056."""
    error, misalignment = measured(GAUSS, "ms_eden")
    assert error == pytest.approx(9.8e-3, rel=0.01)
    assert -0.5 * np.log2(error) == pytest.approx(3.34, abs=0.005)
    assert misalignment == pytest.approx(0.00056, abs=0.0005)


def test_published_error_without_correction():
    """`notebooks/unbiasedness.ipynb`, row NO: 9.0e-3, 3.40 bits, misalignment .00792."""
    error, misalignment = measured(GAUSS, "ms_eden_uncorrected")
    assert error == pytest.approx(9.0e-3, rel=0.01)
    assert -0.5 * np.log2(error) == pytest.approx(3.40, abs=0.005)
    assert misalignment == pytest.approx(0.00792, rel=0.03)


def test_heavy_tails_cost_nothing_after_the_rotation():
    laplace = np.random.default_rng(0).laplace(size=(2**12, 128)).astype(np.float32)
    assert measured(laplace, "ms_eden")[0] == pytest.approx(measured(GAUSS, "ms_eden")[0], rel=0.01)


def test_mean_over_seeds_approaches_x():
    """Averages of 1, 4, 16, 64 results gain a bit each step, so the results are unbiased; no float rounding does so."""
    x = GAUSS[:64]
    total, bits = np.zeros(x.shape), []
    for seed in range(64):
        total += quantize(x, "ms_eden", seed=seed)
        if seed + 1 in (1, 4, 16, 64):
            mean = total / (seed + 1)
            bits.append(-0.5 * np.log2(((mean - x) ** 2).mean() / (x.astype(np.float64) ** 2).mean()))
    np.testing.assert_allclose(np.diff(bits), 1, atol=0.05)


def test_averages_of_products_gain_one_bit_for_four_samples():
    """`notebooks/unbiasedness.ipynb`, both factors with MS-EDEN: 2.847, 3.839, 4.843 bits for 1, 4, 16 samples."""
    x, y = np.random.default_rng(5).standard_normal((2, 256, 512)).astype(np.float32)
    exact_product = x.astype(np.float64) @ y.T.astype(np.float64)
    total, bits = np.zeros((256, 256)), []
    for seed in range(16):
        total += quantize(x, "ms_eden", seed=2 * seed) @ quantize(y, "ms_eden", seed=2 * seed + 1).T
        if seed + 1 in (1, 4, 16):
            error = ((total / (seed + 1) - exact_product) ** 2).mean() / (exact_product**2).mean()
            bits.append(float(-0.5 * np.log2(error)))
    np.testing.assert_allclose(bits, [2.847, 3.839, 4.843], atol=0.02)


def test_rotation_is_orthogonal_and_undone():
    negative = draw_signs(keys(7), 128)
    matrix = rotate(np.eye(128), negative)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(128), atol=1e-14)
    np.testing.assert_allclose(np.abs(matrix), 128**-0.5, rtol=1e-14)
    np.testing.assert_allclose(rotate_back(matrix, negative), np.eye(128), atol=1e-14)
    np.testing.assert_array_equal(matrix[:, 0] < 0, negative)


def test_signs_depend_on_the_seed_alone():
    signs = [tuple(draw_signs(keys(seed), 128)) for seed in range(64)]
    assert len(set(signs)) == 64
    assert abs(np.mean(signs) - 0.5) < 0.02
    assert np.abs(np.mean(signs, axis=0) - 0.5).max() < 0.25
    first, second = (encode(GAUSS[:n], "ms_eden", seed=3).fields for n in (2, 40))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first["signs"], second["signs"])


def test_scales_are_the_corrected_ones_rounded_either_way():
    """The stored scales of many seeds average to scale times correction; each is a neighbour of it."""
    x = np.random.default_rng(4).standard_normal((1, 128)).astype(np.float32)
    rows = np.repeat(x, 4096, axis=0)  # the same rotation for all, other random bits for their scales
    scales = encode(rows, "ms_eden").fields
    plain = encode(rows, "ms_eden_uncorrected").fields
    assert scales is not None
    assert plain is not None
    np.testing.assert_array_equal(scales["codes"], plain["codes"])
    value = decode(np.arange(127), "fp8")
    stored, nearest = value[scales["scales"][:, 0]], value[plain["scales"][0, 0]]
    z = rotate(x, scales["signs"]).astype(np.float32).reshape(8, 16)
    unit = plain["tensor_scale"].view(np.float32)[0]
    q = decode(plain["codes"][0, 0], "fp4").reshape(8, 16)
    scaled = z / (nearest[:, np.newaxis] * unit)
    corrected = nearest * (scaled**2).sum() / (scaled * q).sum()
    np.testing.assert_allclose(stored.mean(axis=0), corrected, rtol=2e-3)
    for block in range(8):
        below, above = value[value <= corrected[block]].max(), value[value >= corrected[block]].min()
        assert set(stored[:, block]) <= {below, above}


def test_halfway_elements_round_away_from_zero(monkeypatch):
    """The kernel's thresholds belong to the larger magnitude: 0.25 becomes 0.5, -2.5 becomes -3."""
    monkeypatch.setattr(eden, "rotate", lambda x, signs: x)
    halfway = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
    x = np.zeros((1, 128), np.float32)
    x[0, 1:15] = [*halfway, *(-v for v in halfway)]
    largest = np.float32(6 / (17 / 16 * 0.93))
    x[0, 0] = amax = np.float32(255.99 / 256) * largest  # the tensor scale is then 2^-8, the block's scale 256
    while x[0, 0] / np.float32(255.99) / largest < np.float32(2**-8):
        x[0, 0] = np.nextafter(x[0, 0], np.float32(np.inf))
    assert x[0, 0] < amax * 1.000001
    fields = encode(x, "ms_eden_uncorrected").fields
    assert fields is not None
    assert fields["tensor_scale"].view(np.float32)[0] == 2**-8
    assert fields["scales"][0, 0, 0] == 0x78
    assert fields["codes"][0, 0, 1:15].tolist() == [*range(1, 8), *range(9, 16)]


def test_bytes_and_size():
    assert parse("ms_eden").bits_per_value == 4.5
    x = GAUSS[:3, :100]
    check_round_trip(x, "ms_eden")
    check_round_trip(x.astype(np.float64), "nvfp4_eden", axis=0)
    encoded = encode(GAUSS[:4], "ms_eden", seed=9)
    assert encoded.nbytes == 4 * 64 + 4 * 8 + 4 + 16
    np.testing.assert_array_equal(decode(replace(encoded)), quantize(GAUSS[:4], "ms_eden", seed=9))


def test_nan_and_infinity_mark_their_group():
    x = np.array(GAUSS[:4])
    x[1, 5], x[2, 7] = np.nan, np.inf
    q = quantize(x, "ms_eden")
    assert np.isnan(q[1:3]).all()
    np.testing.assert_allclose(q[[0, 3]], x[[0, 3]], atol=0.6)


def test_other_roundings_are_refused():
    with pytest.raises(ArgumentError, match="'ms_eden' has a rounding of its own"):
        quantize(GAUSS[:1], "ms_eden", "stochastic")
