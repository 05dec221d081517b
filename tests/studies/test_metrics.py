"""Error measures on cases that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lowp.studies.metrics import bootstrap, cosines, decibels, norm, norms, sqnr_db
from lowp.studies.runner import worst_and_median

torch = pytest.importorskip("torch")


def test_sqnr_of_a_tenth_is_twenty_decibels() -> None:
    x = torch.tensor([10.0, -10.0], dtype=torch.float64)
    assert sqnr_db(x, torch.tensor([9.0, -11.0], dtype=torch.float64)) == pytest.approx(20.0, abs=1e-12)


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
    assert norms(x, x - 2**-11) == (pytest.approx(4097.0 * 2**9, rel=1e-15), pytest.approx(2.0**-2, rel=1e-15))


def test_sums_take_bfloat16_and_float64_as_they_are() -> None:
    x = torch.tensor([1 + 2**-40], dtype=torch.float64)
    assert norms(x, torch.tensor([1.0], dtype=torch.bfloat16)) == (float(x[0]), 2.0**-40)


def test_decibels_do_not_overflow() -> None:
    assert decibels(1e300, 1e-300) == pytest.approx(12000.0)


@pytest.mark.parametrize("size", [1e200, 1e-200, 5e-324])
def test_squares_neither_overflow_nor_vanish(size: float) -> None:
    x = torch.full((4,), size, dtype=torch.float64)
    assert norms(x, torch.zeros_like(x)) == (2 * size, 2 * size)
    assert sqnr_db(x, torch.zeros_like(x)) == 0.0
    pair = np.array([[3 * size, 0.0], [3 * size, 0.0]])
    assert cosines(pair, np.array([[4 * size, 0.0], [0.0, size]])) == pytest.approx([1.0, 0.0])


def test_norms_of_nothing_infinity_and_not_a_number() -> None:
    assert norm(np.array([])) == 0.0
    assert norm(np.array([1.0, -math.inf])) == math.inf
    assert math.isnan(norm(np.array([math.inf, math.nan])))
    assert np.isnan(cosines([[math.nan, 1.0], [math.inf, 1.0]], [[1.0, 1.0], [1.0, 1.0]])).all()


def test_the_median_with_not_a_number_is_not_a_number() -> None:
    fields = worst_and_median("sqnr", {"b": math.nan, "a": 1.0, "c": 2.0})
    assert fields["sqnr_worst_layer"] == "b"
    assert math.isnan(fields["sqnr_median_db"])
    assert worst_and_median("sqnr", {"a": 1.0, "b": -math.inf, "c": 2.0})["sqnr_median_db"] == 1.0


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
