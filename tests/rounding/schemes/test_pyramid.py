"""Pyramid vector quantization: counts, the order of indices, the search against all vectors."""

from itertools import product

import numpy as np
import pytest

import lowp
from lowp.formats.families.structured import pyramid_count
from lowp.rounding.schemes import pyramid

SMALL = [(1, 1), (1, 5), (2, 3), (3, 4), (4, 3), (5, 2), (6, 3), (3, 7)]


def all_vectors(n: int, pulses: int) -> np.ndarray:
    """Every vector, in the order 0, 1, -1, 2, -2, ... of the first place, then of the second, and so on."""
    order = sorted(range(-pulses, pulses + 1), key=lambda v: (abs(v), v < 0))
    return np.array([v for v in product(order, repeat=n) if sum(map(abs, v)) == pulses])


@pytest.mark.parametrize(
    ("n", "pulses", "count"), [(2, 3, 12), (4, 2, 32), (8, 4, 2816), (16, 8, 30316544), (16, 16, 148348809216)]
)
def test_published_counts(n: int, pulses: int, count: int) -> None:
    """Fischer 1986; sizes of arXiv:2410.16926."""
    assert pyramid_count(n, pulses) == count


def test_bits_of_an_index() -> None:
    """N(8,4) takes 12 bits, N(16,8) 25, N(16,16) 38, N(32,32) 78, which no field holds."""
    assert [lowp.parse(f"pvq_n{n}_k{k}").fields[0].bits for n, k in ((8, 4), (16, 8), (16, 16))] == [12, 25, 38]
    assert (pyramid_count(32, 32) - 1).bit_length() == 78


@pytest.mark.parametrize(("n", "pulses"), SMALL)
def test_indices_count_the_vectors_in_order(n: int, pulses: int) -> None:
    vectors = all_vectors(n, pulses)
    assert len(vectors) == pyramid_count(n, pulses)
    index = np.arange(len(vectors), dtype=np.uint64)
    assert np.array_equal(pyramid.vector_index(vectors, pulses), index)
    assert np.array_equal(pyramid.vector_of_index(index, n, pulses), vectors)


@pytest.mark.parametrize(("n", "pulses"), [(16, 16), (25, 28), (64, 12), (12, 60)])
def test_large_indices_go_both_ways(n: int, pulses: int) -> None:
    count = pyramid_count(n, pulses)
    assert count < 1 << 64
    rng = np.random.default_rng(n)
    index = np.array([0, 1, count - 1, count - 2, *(int(f * count) for f in rng.random(200))], np.uint64)
    vectors = pyramid.vector_of_index(index, n, pulses)
    assert (np.abs(vectors).sum(axis=1) == pulses).all()
    assert np.array_equal(pyramid.vector_index(vectors, pulses), index)


@pytest.mark.parametrize(("n", "pulses"), SMALL)
def test_the_search_is_almost_always_best(n: int, pulses: int) -> None:
    x = np.random.default_rng(pulses).standard_normal((500, n))
    vectors = all_vectors(n, pulses)
    best = (x @ (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T).max(axis=1)
    y = pyramid.find_pulses(x, pulses)
    found = (x * y).sum(axis=1) / np.linalg.norm(y, axis=1)
    assert (np.abs(y).sum(axis=1) == pulses).all()
    assert np.isclose(found, best).mean() > 0.95
    assert (found > 0.95 * best).all()


def test_a_vector_of_pulses_comes_back_and_so_does_its_gain() -> None:
    y = np.array([3.0, 0, -1, 0, 0, 0, 0, 0]) * 2
    assert lowp.quantize(y, "pvq_n8_k4_fp32") == pytest.approx(y, rel=1e-7)


def test_the_gain_makes_the_error_least() -> None:
    x = np.random.default_rng(1).standard_normal((200, 16))
    y = lowp.quantize(x, "pvq_n16_k8_fp32")
    scale = (x * y).sum(axis=1) / (y * y).sum(axis=1)
    assert scale == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("tiny", [1e-30, 1e30, 5e-324])
def test_the_search_does_not_depend_on_the_size_of_the_values(tiny: float) -> None:
    x = np.array([[3.0, -1.0, 0.0, 2.0]])
    assert np.array_equal(pyramid.find_pulses(x * tiny, 3), pyramid.find_pulses(x, 3))
