"""Figures of papers and standards, reproduced with the library's formats.

A test says where its figures are from. Those called cross-checks were computed once, apart from this library, in plain
NumPy from the definitions in the papers: agreement shows that two programs read a definition alike, no more.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import lowp
from lowp.formats.ranked import RankedFormat

GAUSS = np.random.default_rng(0).standard_normal((256, 4096))
LAPLACE = np.random.default_rng(0).laplace(size=(256, 4096)) / np.sqrt(2)


def relative_error(x: np.ndarray, name: str) -> float:
    """Mean squared error over mean square."""
    return float(np.mean((lowp.quantize(x, name) - x) ** 2) / np.mean(x**2))


def qsnr(x: np.ndarray, name: str) -> float:
    """Signal over quantization noise, in decibels."""
    return -10 * math.log10(relative_error(x, name))


# INT v.s. FP (arXiv:2510.25602), Table 2: integers and floats in the same blocks. The paper's own scales are rounded
# up, which is `rceil`; a name without it has OCP's rule.


@pytest.mark.parametrize(
    ("name", "decibels"),
    [
        ("mxint8_rceil", 41.61),
        ("mxint8", 41.66),
        ("mxfp8_rceil", 31.52),
        ("mxfp8", 30.65),
        ("block[int6_sym,32,e8m0,recipe=rceil]", 29.42),
        ("mxfp6_e2m3_rceil", 30.96),
        ("mxfp6_e3m2_rceil", 25.54),
        ("block[int4_sym,32,e8m0,recipe=rceil]", 16.84),
        ("int4_sym_g32_pow2", 17.56),
        ("mxfp4_rceil", 18.76),
        ("nvint4", 21.28),
        ("nvfp4", 20.44),
    ],
)
def test_signal_to_noise_of_normal_numbers(name: str, decibels: float) -> None:
    """Cross-checks; the paper measured 31.51, 31.03, 18.79 dB (MXFP8, 6, 4) and 20.35 (NVFP4) on rotated tensors."""
    assert qsnr(GAUSS, name) == pytest.approx(decibels, abs=0.03)


@pytest.mark.parametrize(
    ("name", "decibels"),
    [("nvint4", 19.78), ("nvfp4", 20.66), ("mxint8_rceil", 39.98), ("mxfp8_rceil", 31.54), ("mxfp4_rceil", 17.56)],
)
def test_signal_to_noise_of_laplace_numbers(name: str, decibels: float) -> None:
    """Cross-checks: with heavier tails FP4 is better than INT4, the paper's finding before rotation."""
    assert qsnr(LAPLACE, name) == pytest.approx(decibels, abs=0.03)


@pytest.mark.parametrize(("size", "mean"), [(32, 2.366), (16, 2.110)])
def test_crest_factor_of_blocks_of_normal_numbers(size: int, mean: float) -> None:
    """A cross-check: largest over root mean square; the paper's Table 2 has medians 2.35 and 2.10 after rotation."""
    blocks = GAUSS.reshape(-1, size)
    crest = np.abs(blocks).max(axis=1) / np.sqrt((blocks**2).mean(axis=1))
    assert crest.mean() == pytest.approx(mean, abs=0.005)


# Grids that suit the normal distribution: Quartet (arXiv:2505.14669), `mse_fitting.ipynb` and `quantizers/base.py`.


def normal_error(values: Sequence[float], scale: float) -> float:
    """The mean squared error of rounding N(0, 1) to the nearest of some values times a scale, by exact integrals."""
    grid = sorted(scale * v for v in values)
    cuts = [-math.inf, *((a + b) / 2 for a, b in pairwise(grid)), math.inf]
    return sum(_cell(low, high, v) for (low, high), v in zip(pairwise(cuts), grid, strict=True))


def _cell(low: float, high: float, v: float) -> float:
    """The integral of (x - v)^2 times the normal density from low to high."""

    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def first(x: float) -> float:
        return x * density(x) if math.isfinite(x) else 0.0

    mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
    return (1 + v * v) * mass - (first(high) - first(low)) + 2 * v * (density(high) - density(low))


def best(error: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum has it."""
    for _ in range(100):
        a, b = (2 * low + high) / 3, (low + 2 * high) / 3
        low, high = (low, b) if error(a) < error(b) else (a, high)
    return (low + high) / 2


BEST_GRIDS = [
    ("binary", 0.7978845587, 0.36338023, None),
    ("ternary", 1.2240089519, 0.19017404, None),
    ("bipolar2", 1.4935345, 0.11884605, None),
    ("bipolar3", 2.0510679, 0.03743966, None),
    ("bipolar4", 2.5139325, 0.01154288, None),
    ("bipolar5", 2.9160898, 0.00349521, None),
    ("bipolar6", 3.2765974, 0.00104005, 3.2779847),
    ("bipolar7", 3.6010436, 3.04366e-4, 3.6110975),
    ("bipolar8", 3.8849974, 8.782118e-5, 3.9222046),
    ("fp4", 6 * 0.487079484, 0.012684904, None),
]


@pytest.mark.parametrize(("name", "largest", "error", "exact_largest"), BEST_GRIDS)
def test_best_scale_for_normal_numbers(name: str, largest: float, error: float, exact_largest: float | None) -> None:
    """Quartet's table: the largest value of the best centred grid, and its error; bipolar grids are evenly spaced.

    Every published error is that of the published grid. From 6 bits on the published grid is not the best one: its
    search ended where the error hardly changes. There the exact integrals decide, and give an error up to 0.2 % less.
    """
    fmt = lowp.parse(name)
    values = [float(v) for v in lowp.values(fmt) if not np.isnan(v)]
    assert normal_error(values, largest / fmt.max) == pytest.approx(error, abs=1e-8)
    minimum = best(lambda s: normal_error(values, s / fmt.max), 0.5, 6)
    assert minimum == pytest.approx(exact_largest or largest, abs=1e-6 if exact_largest else 1e-4)
    scale = minimum / fmt.max
    measured = np.mean((scale * lowp.quantize(GAUSS / scale, fmt) - GAUSS) ** 2)
    assert measured == pytest.approx(normal_error(values, scale), rel=0.01)


# Logarithmic numbers and posits.


@pytest.mark.parametrize("x", [GAUSS, LAPLACE], ids=["normal", "Laplace"])
@pytest.mark.parametrize("name", ["lns8_f3", "lns12_f3"])
def test_error_of_a_logarithm_with_three_fraction_bits(x: np.ndarray, name: str) -> None:
    """LNS-Madam (arXiv:2106.13914), gamma 8: errors of the logarithm spread evenly over 1/8 of an octave."""
    assert relative_error(x, name) == pytest.approx((math.log(2) / 8) ** 2 / 12, rel=0.01)


def test_values_and_thresholds_of_the_smallest_useful_posit() -> None:
    """Posit(4,1): values, and thresholds at the codes of posit(5,1): the rule of the Posit Standard (2022)."""
    fmt = lowp.parse("posit4_es1")
    assert isinstance(fmt, RankedFormat)
    values = [0, Fraction(1, 16), Fraction(1, 4), Fraction(1, 2), 1, 2, 4, 16]
    assert [fmt.meaning(code) for code in range(8)] == values
    thresholds = [0.125, 0.375, 0.75, 1.5, 3.0, 8.0]
    below, above = (np.nextafter(thresholds, end) for end in (0, np.inf))
    assert lowp.quantize(below, fmt).tolist() == values[1:-1]
    assert lowp.quantize(above, fmt).tolist() == values[2:]
    assert lowp.quantize([5e-324, 1.7e308, -5e-324, -1.7e308], fmt).tolist() == [1 / 16, 16, -1 / 16, -16]


@pytest.mark.parametrize(
    ("name", "normal", "laplace"),
    [("posit4_es1", 3.831e-2, None), ("posit8_es0", 9.72e-5, 1.793e-4), ("posit16_es1", 2.74e-9, 3.58e-9)],
)
def test_error_of_posits(name: str, normal: float, laplace: float | None) -> None:
    """Cross-checks on numbers of variance 1 without a scale; of posit(4,1), too few Laplace numbers decide."""
    assert relative_error(GAUSS, name) == pytest.approx(normal, rel=0.01)
    if laplace:
        assert relative_error(LAPLACE, name) == pytest.approx(laplace, rel=0.015)


# Constants of optimizers in bfloat16: Collage (arXiv:2405.03637). The decay 0.999 is 1 there, so nothing ever decays.


def test_optimizer_constants_in_bfloat16() -> None:
    assert lowp.quantize([0.999, 0.99, 0.95], "bfloat16").tolist() == [1.0, 0.98828125, 0.94921875]


def test_a_pair_of_bfloat16_holds_the_decay() -> None:
    """0.999 as a sum of two: 1.0 - 0.0009994507, a cross-check."""
    high = lowp.exact.quantize(Fraction(999, 1000), "bfloat16")
    low = lowp.exact.quantize(Fraction(999, 1000) - Fraction(high), "bfloat16")
    assert (high, float(low)) == (1, pytest.approx(-0.0009994507, abs=5e-11))
    assert float(high + low) == pytest.approx(0.9990005493, abs=5e-11)
