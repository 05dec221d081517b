"""Published errors of the training recipes' operands on normal data, and whether averages converge to the operand.

Sources: IST-DASLab/Quartet-II, `notebooks/unbiasedness.ipynb`; IST-DASLab/Quartet, `notebooks/mse_fitting.ipynb`. With
2^20 numbers there are 65,536 blocks of 16, whose errors spread by less than their mean: the mean is known to 0.4%.
"""

import warnings

import numpy as np
import pytest

from lowp import Cast, PrecisionWarning, Recipe
from lowp.emulation._numpy_world import NUMPY
from lowp.emulation.casting import rotate, rotate_back, round_operand

GAUSS = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
UNBIASED = "block[float4_e2m1fn,16,float8_e4m3fn,tensor=float32,recipe=fouroversix_mse_unbiased]"

LNS = "block[lns8_f3_unsigned_nozero,row,float32]"


def cast(recipe: str, product: str, role: str) -> Cast:
    return Recipe.named(recipe).cast(role, product)


def measured(given: Cast, x: np.ndarray = GAUSS, seed: int = 1) -> tuple[float, float]:
    """Return squared error over square, and 1 less the projection on x, both in the basis of the rounding."""
    turned = rotate(NUMPY, x, given, 1, seed) if given.hadamard else x
    plain = Cast(**{**{n: getattr(given, n) for n in given.__dataclass_fields__}, "reuse": False, "requantize": False})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        q = round_operand(NUMPY, x, plain, axis=1, outer=0, seed=seed, sign_seed=seed).values.astype(np.float64)
    reference = turned.astype(np.float64)
    return float(((q - reference) ** 2).mean() / (reference**2).mean()), float(
        1 - (q * reference).sum() / (reference**2).sum()
    )


@pytest.mark.parametrize(
    ("given", "error", "misalignment"),
    [
        (cast("nvfp4", "forward", "activation"), 9.045e-3, 0.0045),
        (cast("nvfp4_pretraining", "forward", "weight"), 12.388e-3, None),
        (cast("four_over_six", "forward", "activation"), 7.560e-3, None),
        (cast("four_over_six", "forward", "weight"), 12.382e-3, None),
        (cast("four_over_six_unbiased", "grad_input", "gradient"), 23.487e-3, -0.0002),
        (cast("four_over_six", "grad_input", "gradient"), 17.47e-3, -0.0073),
        (cast("quartet2", "forward", "activation"), 7.560e-3, None),
        (cast("quartet2", "grad_input", "gradient"), 9.731e-3, 0.0006),
        (cast("quartet2", "grad_input", "weight"), 9.731e-3, 0.0006),
        (cast("mxfp4", "forward", "activation"), 13.254e-3, 0.0197),
        (cast("mxfp4_sr_rht", "grad_input", "gradient"), 28.214e-3, 0.0001),
        (cast("quartet", "grad_weight", "gradient"), 28.214e-3, 0.0001),
        (cast("quartet", "forward", "activation"), 27.00e-3, 0.0644),  # computed in float64 over 2^22 numbers
        (cast("quest", "forward", "weight"), 11.54288e-3, None),
        (cast("quest_w2a2", "forward", "weight"), 0.11884605, None),
        (cast("quest_w1a1", "forward", "weight"), 0.36338023, None),
        (cast("bitnet_b158", "forward", "weight"), 0.2636, None),
        (cast("lns_madam", "forward", "weight"), 6.27e-4, None),
    ],
)
def test_published_errors_on_normal_data(given, error, misalignment):
    tolerance = 0.02 if given.format == LNS else 0.01  # the logarithmic grid hangs on the largest of each of 1024 rows
    found, projection = measured(given)
    assert found == pytest.approx(error, rel=tolerance)
    if misalignment is not None:
        assert projection == pytest.approx(misalignment, abs=0.0007)


def bits_of_averages(given: Cast, x: np.ndarray, counts: tuple[int, ...]) -> list[float]:
    """Return -log4 of the relative squared error of averages over seeds, in the operand's own basis."""
    total, bits = np.zeros(x.shape), []
    for seed in range(max(counts)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrecisionWarning)
            q = round_operand(NUMPY, x, given, axis=1, seed=2 * seed, sign_seed=2 * seed + 1).values
        total += rotate_back(NUMPY, q, given, 1, 2 * seed + 1)
        if seed + 1 in counts:
            error = ((total / (seed + 1) - x) ** 2).mean() / (x.astype(np.float64) ** 2).mean()
            bits.append(float(-0.5 * np.log2(error)))
    return bits


@pytest.mark.parametrize(
    "given",
    [
        cast("mxfp4_sr_rht", "grad_input", "gradient"),
        cast("quartet", "grad_weight", "gradient"),
        cast("quartet2", "grad_weight", "gradient"),
        cast("four_over_six_unbiased", "grad_input", "gradient"),
    ],
    ids=["mxfp4_sr_rht", "quartet", "quartet2", "four_over_six_unbiased"],
)
def test_averages_of_unbiased_operands_gain_a_bit_for_four_samples(given):
    """The error of the mean of k independent unbiased results is that of one over k; 2^15 numbers know it to 2%."""
    bits = bits_of_averages(given, GAUSS[:32], (1, 4, 16, 64))
    np.testing.assert_allclose(np.diff(bits), 1, atol=0.06)


def test_averages_of_stochastic_four_over_six_fall_short():
    """Published: 2.401, 3.389, 4.339, 5.170 bits for products of two operands; one operand falls behind likewise."""
    bits = bits_of_averages(Cast(UNBIASED, rounding="stochastic_a"), GAUSS[:32], (1, 4, 16, 64, 256))
    gains = np.diff(bits)
    assert gains[-1] < 0.9
    assert (np.diff(gains) < 0).all()


def test_rounding_to_nearest_gains_nothing_from_averages():
    bits = bits_of_averages(Cast("mxfp4"), GAUSS[:32], (1, 4))
    assert bits[0] == pytest.approx(bits[1])


def test_products_of_quartet2_backward():
    """Published for X: 2.847, 3.839, 4.843 bits of averages of 1, 4, 16 products of MS-EDEN operands."""
    x, y = np.random.default_rng(5).standard_normal((2, 256, 512)).astype(np.float32)
    given, exact = cast("quartet2", "grad_input", "gradient"), x.astype(np.float64) @ y.T.astype(np.float64)
    total, bits = np.zeros(exact.shape), []
    for k in range(16):
        a, b = (
            round_operand(NUMPY, operand, given, axis=1, seed=2 * k + i, sign_seed=k).values.astype(np.float64)
            for i, operand in enumerate((x, y))
        )
        total += a @ b.T
        if k + 1 in (1, 4, 16):
            bits.append(-0.5 * np.log2(((total / (k + 1) - exact) ** 2).mean() / (exact**2).mean()))
    np.testing.assert_allclose(bits, [2.847, 3.839, 4.843], atol=0.05)


def test_share_of_quartets_mask():
    """On normal data 92.7% of the numbers lie inside the range of their block."""
    mask = round_operand(NUMPY, GAUSS, cast("quartet", "forward", "activation"), axis=1).mask
    assert mask.mean() == pytest.approx(0.927, abs=0.002)
