"""Quotients and products rounded to odd: the compiled pass, the NumPy one and rational numbers agree."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from lowp.rounding import _exact_steps


def numbers(rng: np.random.Generator, count: int, exponents: int) -> np.ndarray:
    """Return float64 numbers with few or many significant bits, of both signs."""
    x = np.ldexp(rng.standard_normal(count), rng.integers(-exponents, exponents, count))
    x[::3] = (x[::3].view(np.int64) & ~0x1FFFFFFF).view(np.float64)
    x[::5] = np.ldexp(rng.integers(1, 16, x[::5].size).astype(float), rng.integers(-20, 20, x[::5].size))
    return x


def by_numpy(step: Callable[..., np.ndarray], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Run a step in pieces that are too small for the compiled pass."""
    with np.errstate(all="ignore"):
        return np.concatenate([step(a[i : i + 500], b[i : i + 500]) for i in range(0, a.size, 500)])


def test_compiled_division_gives_the_bits_of_the_numpy_one() -> None:
    rng = np.random.default_rng(0)
    x, s = numbers(rng, 20000, 900), np.abs(numbers(rng, 20000, 60))
    x[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -1e-310, 1.7e308]
    s[8:11] = [0.0, np.nan, 5e-324]
    s[5:8] = [1.0, 3.0, 7e-300]
    got, wanted = _exact_steps.divide(x, s), by_numpy(_exact_steps.divide, x, s)
    same = got.view(np.int64) == wanted.view(np.int64)
    assert (same | (np.isnan(got) & np.isnan(wanted))).all(), (x[~same][:5], s[~same][:5], got[~same][:5])


def test_compiled_product_gives_the_bits_of_the_numpy_one() -> None:
    rng = np.random.default_rng(1)
    a, b = numbers(rng, 20000, 400), numbers(rng, 20000, 40)
    a[:5] = [0.0, -0.0, np.inf, np.nan, -np.inf]
    got, wanted = _exact_steps.multiply(a, b), by_numpy(_exact_steps.multiply, a, b)
    same = got.view(np.int64) == wanted.view(np.int64)
    assert (same | (np.isnan(got) & np.isnan(wanted))).all()


@pytest.mark.parametrize("name", ["divide", "multiply"])
def test_results_are_exact_or_odd_neighbours(name: str) -> None:
    rng = np.random.default_rng(2)
    a, b = numbers(rng, 2000, 30), np.abs(numbers(rng, 2000, 30))
    results = getattr(_exact_steps, name)(a, b)
    for x, y, r in zip(a, b, results, strict=True):
        exact = Fraction(x) / Fraction(y) if name == "divide" else Fraction(x) * Fraction(y)
        if Fraction(float(r)) != exact:
            assert np.float64(r).view(np.int64) & 1
            ends = sorted((np.nextafter(r, -np.inf), np.nextafter(r, np.inf)))
            assert Fraction(float(ends[0])) < exact < Fraction(float(ends[1]))
