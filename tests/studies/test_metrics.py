"""Error measures on cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowp.studies.metrics import bootstrap, cosines, decibels, energies, sqnr_db

torch = pytest.importorskip("torch")


def test_sqnr_of_a_tenth_is_twenty_decibels() -> None:
    x = torch.tensor([10.0, -10.0], dtype=torch.float64)
    assert sqnr_db(x, torch.tensor([9.0, -11.0], dtype=torch.float64)) == 20.0


@pytest.mark.parametrize(
    ("x", "q", "expected"),
    [([1.0], [1.0], math.inf), ([0.0], [0.0], math.inf), ([0.0], [1.0], -math.inf), ([1.0], [math.inf], -math.inf)],
)
def test_sqnr_at_the_ends(x: list[float], q: list[float], expected: float) -> None:
    assert sqnr_db(torch.tensor(x), torch.tensor(q)) == expected


def test_sqnr_with_not_a_number_is_not_a_number() -> None:
    assert math.isnan(sqnr_db(torch.tensor([1.0]), torch.tensor([math.nan])))


def test_sums_are_exact_where_float32_would_lose_them() -> None:
    x = torch.ones(1 << 18, dtype=torch.float32) * 4097.0  # 4097^2 needs 25 bits
    signal, noise = energies(x, x - 2**-11)
    assert signal == 4097.0**2 * 2**18
    assert noise == 2.0**-22 * 2**18


def test_sums_take_bfloat16_and_float64_as_they_are() -> None:
    x = torch.tensor([1 + 2**-40], dtype=torch.float64)
    assert energies(x, torch.tensor([1.0], dtype=torch.bfloat16)) == (float(x[0]) ** 2, 2.0**-80)


def test_decibels_do_not_overflow() -> None:
    assert decibels(1e300, 1e-300) == pytest.approx(6000.0)


def test_cosines_by_sample() -> None:
    a = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    b = np.array([[2.0, 0.0], [-1.0, -1.0], [1.0, 0.0], [0.0, 3.0]])
    assert cosines(a, b) == pytest.approx([1.0, -1.0, 0.0, 0.0])


def test_cosine_flattens_each_sample() -> None:
    x = np.arange(12.0).reshape(2, 2, 3) + 1
    assert cosines(x, x) == pytest.approx([1.0, 1.0])


def test_bootstrap_of_coin_flips_is_near_the_normal_interval() -> None:
    flips = np.array([0.0, 1.0] * 200)
    interval = bootstrap(flips)
    half = 1.96 * 0.5 / math.sqrt(400)
    assert interval.value == 0.5
    assert interval.low == pytest.approx(0.5 - half, abs=0.006)
    assert interval.high == pytest.approx(0.5 + half, abs=0.006)


def test_bootstrap_repeats_with_its_seed_and_pairs_by_position() -> None:
    x = np.random.default_rng(1).uniform(size=50)
    assert bootstrap(x) == bootstrap(x)
    assert bootstrap(x, seed=1) != bootstrap(x)
    shifted = bootstrap(x + 0.25)
    assert shifted.low == pytest.approx(bootstrap(x).low + 0.25)
    assert bootstrap((x + 0.25) - x).low == pytest.approx(0.25)
