"""The errors of FP4 quantizers on normal and Laplace numbers, as published.

Published numbers are those of Quartet II (arXiv:2601.22813, `notebooks/unbiasedness.ipynb`). Others are cross-checks,
computed once in plain NumPy from the papers' definitions, and say so.
"""

from typing import Any

import numpy as np
import pytest

from lowp.rounding import encode, quantize
from lowp.rounding.random_bits import keys
from lowp.rounding.schemes.rotation import draw_signs, rotate

GAUSS = np.random.default_rng(0).standard_normal((2**13, 128)).astype(np.float32)
LAPLACE = (np.random.default_rng(0).laplace(size=(2**13, 128)) / np.sqrt(2)).astype(np.float32)


def measured(x: np.ndarray, fmt: Any, rounding: str = "ties_to_even") -> tuple[float, float]:
    """Return the squared error over the square, and 1 less the projection of the result on x."""
    x64, q = x.astype(np.float64), quantize(x, fmt, rounding, seed=1).astype(np.float64)
    return float(((q - x64) ** 2).mean() / (x64**2).mean()), float(1 - (q * x64).sum() / (x64**2).sum())


@pytest.mark.parametrize(
    ("name", "error", "bits"),
    [
        ("nvfp4_static6", 9.0e-3, 3.394),
        ("nvfp4", 9.0e-3, 3.394),
        ("nvfp4_4over6", 7.6e-3, 3.524),
        ("nvfp4_static6_2d", 12.4e-3, 3.167),
        ("nvfp4_4over6_2d", 12.4e-3, 3.168),
    ],
)
def test_published_error_of_nvfp4_on_normal_data(name, error, bits):
    """Quartet II, `notebooks/unbiasedness.ipynb`, 8192 x 8192 normal numbers."""
    got, _ = measured(GAUSS, name)
    assert got == pytest.approx(error, rel=0.01)
    assert -0.5 * np.log2(got) == pytest.approx(bits, abs=0.005)


def test_published_error_of_stochastic_nvfp4():
    """Quartet II, table of `notebooks/unbiasedness.ipynb`, row SR: 23.5e-3, 2.71 bits, misalignment 0."""
    error, misalignment = measured(GAUSS, "nvfp4_static6_unbiased", "stochastic")
    assert error == pytest.approx(23.5e-3, rel=0.01)
    assert -0.5 * np.log2(error) == pytest.approx(2.71, abs=0.005)
    assert abs(misalignment) < 0.0005


@pytest.mark.parametrize(
    ("name", "rounding", "error", "misalignment"),
    [
        ("mxfp4", "ties_to_even", 13.25e-3, 0.0197),
        ("mxfp4_three_quarters", "ties_to_even", 13.888e-3, 0.0089),
        ("mxfp4_three_quarters", "stochastic", 28.2e-3, 0.0),
        ("mxfp4_static6", "stochastic", 27.07e-3, 0.0),
        ("block[fp4,32,float32,recipe=quest]", "ties_to_even", 12.39e-3, 0.0117),
        ("nvfp4_fouroversix_mse_unbiased", "stochastic", 17.47e-3, -0.0073),
    ],
)
def test_error_and_bias_on_normal_data(name, rounding, error, misalignment):
    """Cross-checks with NumPy of the rules of arXiv:2502.20586, 2505.14669 and 2601.22813 on normal numbers."""
    got, bias = measured(GAUSS, name, rounding)
    assert got == pytest.approx(error, rel=0.01)
    assert bias == pytest.approx(misalignment, abs=0.0005)


def test_constant_that_aligns_nearest_mxfp4():
    """Quartet (arXiv:2505.14669), RTN-PMA: 1.009276 times the 3/4 rule has no bias on normal data."""
    q = 1.009276 * quantize(GAUSS.astype(np.float64), "mxfp4_three_quarters")
    assert abs(1 - (q * GAUSS).sum() / (GAUSS.astype(np.float64) ** 2).sum()) < 0.0005


@pytest.mark.parametrize(
    ("name", "normal", "laplace"),
    [
        ("mxfp4", 1.322e-2, 1.592e-2),
        ("mxfp4_rceil", 1.332e-2, 1.754e-2),
        ("mxfp4_static6", 1.332e-2, 1.754e-2),
        ("mxfp4_even", 1.251e-2, 1.530e-2),
        ("mxfp4_three_quarters", 1.389e-2, None),
        ("mxfp4_mse", 1.245e-2, 1.500e-2),
        ("fp4_g16_ue5m3", 9.04e-3, 8.60e-3),
    ],
)
def test_scale_rules_of_fp4_on_normal_and_laplace_data(name, normal, laplace):
    """Cross-checks with NumPy; UE5M3 scales without a tensor scale do as well as NVFP4 (arXiv:2509.17791)."""
    assert measured(GAUSS, name)[0] == pytest.approx(normal, rel=0.01)
    if laplace:
        assert measured(LAPLACE, name)[0] == pytest.approx(laplace, rel=0.01)


def test_the_best_power_of_two_is_never_worse():
    errors = {}
    for name in ("mxfp4_mse", "mxfp4", "mxfp4_rceil", "mxfp4_even"):
        wide = LAPLACE[:256].astype(np.float64)
        errors[name] = ((quantize(wide, name) - wide) ** 2).reshape(-1, 32).sum(axis=1)
    assert all((errors["mxfp4_mse"] <= other).all() for other in errors.values())


def test_the_best_power_of_two_may_clip_and_is_the_smallest_at_a_tie():
    clipped = np.array([4] + [0.25] * 31, np.float32)
    assert encode(clipped, "mxfp4_mse").scales.tolist() == [126]
    np.testing.assert_array_equal(quantize(clipped, "mxfp4_mse"), [3] + [0.25] * 31)
    assert encode(np.array([2.0] + [0] * 31), "mxfp4_mse").scales.tolist() == [126]  # as 4 * 0.5, not 2 * 1


def test_scale_from_the_standard_deviation_ignores_the_mean():
    """QuEST: 0.487 times a standard deviation of 1 rounds down to 1/4, whatever the mean; numbers above 6/4 clip."""
    x = np.tile(np.array([1, -1], np.float32), 16)
    assert encode(np.concatenate([x, x + 10]), "mxfp4_quest").scales.tolist() == [125, 125]
    np.testing.assert_array_equal(quantize(x + 10, "mxfp4_quest"), np.full(32, 1.5))
    assert encode(np.concatenate([2 * x[:8], np.zeros(24, np.float32)]), "mxfp4_quest").scales.tolist() == [125]


def test_fraction_of_blocks_that_choose_four_or_integers():
    """Cross-checks with NumPy on normal numbers: 0.452 of blocks scale to 4, 0.630 choose INT4, error 6.16e-3."""
    top = (encode(GAUSS, "nvfp4_4over6").codes & 7).reshape(-1, 16).max(axis=1)  # code 6 is 4, code 7 is 6
    assert (top == 6).mean() == pytest.approx(0.452, abs=0.003)
    fields = encode(GAUSS, "if4").fields
    assert fields is not None
    assert (fields["scales"] >= 128).mean() == pytest.approx(0.630, abs=0.003)
    assert measured(GAUSS, "if4")[0] == pytest.approx(6.16e-3, rel=0.01)
    assert measured(LAPLACE, "if4")[0] == pytest.approx(6.98e-3, rel=0.01)


def product_bits(name: str, samples: list[int]) -> list[float]:
    """Bits of X Y^T, averaged over samples in which both factors are rotated, then rounded stochastically."""
    x, y = np.random.default_rng(5).standard_normal((2, 128, 4, 128))
    exact_product = x.reshape(128, -1) @ y.reshape(128, -1).T
    total, bits = np.zeros((128, 128)), []
    for seed in range(max(samples)):
        signs = draw_signs(keys(seed), 128)
        left, right = (rotate(v, signs).astype(np.float32).reshape(128, -1) for v in (x, y))
        total += (
            quantize(left, name, "stochastic", seed=2 * seed) @ quantize(right, name, "stochastic", seed=2 * seed + 1).T
        )
        if seed + 1 in samples:
            error = ((total / (seed + 1) - exact_product) ** 2).mean() / (exact_product**2).mean()
            bits.append(float(-0.5 * np.log2(error)))
    return bits


def test_averages_of_stochastic_products_gain_one_bit_for_four_samples():
    """Quartet II, `notebooks/unbiasedness.ipynb`: 2.197, 3.196, 4.196 bits for 1, 4, 16 samples."""
    got = product_bits("nvfp4_static6_unbiased", [1, 4, 16])
    np.testing.assert_allclose(got, [2.197, 3.196, 4.196], atol=0.02)


def test_averages_of_stochastic_products_with_a_choice_fall_short():
    """Quartet II, `notebooks/unbiasedness.ipynb`: 2.401, 3.389, 4.339, 5.170 bits for 1, 4, 16, 64 samples."""
    got = product_bits("nvfp4_fouroversix_mse_unbiased", [1, 4, 16, 64])
    np.testing.assert_allclose(got, [2.401, 3.389, 4.339, 5.170], atol=0.03)
