"""Fronts of points with intervals, against plain definitions and against random truths within the intervals."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowp import hw
from lowp._errors import ArgumentError


def dominates(a: list[float], b: list[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def plain_standing(i: int, low: list[list[float]], value: list[list[float]], high: list[list[float]]) -> str:
    others = [j for j in range(len(value)) if j != i]
    if any(dominates(high[j], low[i]) for j in others):
        return "dominated"
    if any(dominates(value[j], value[i]) for j in others):
        return "possibly optimal"
    return "optimal" if any(dominates(low[j], high[i]) for j in others) else "surely optimal"


@st.composite
def clouds(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
    count, objectives = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    ends = st.lists(st.integers(0, 6), min_size=3, max_size=3).map(sorted)
    cells = [[draw(ends) for _ in range(objectives)] for _ in range(count)]
    low, value, high = ([[float(cell[k]) for cell in row] for row in cells] for k in range(3))
    return low, value, high


@settings(max_examples=300, deadline=None)
@given(clouds())
def test_standings_are_those_of_the_definition(cloud: tuple[list[list[float]], ...]) -> None:
    low, value, high = cloud
    assert hw.standings(value, low, high) == [plain_standing(i, low, value, high) for i in range(len(value))]


def test_standings_hold_for_every_truth_within_the_intervals() -> None:
    rng = np.random.default_rng(3)
    value = rng.uniform(1, 10, (40, 2))
    value[:2] = [[0.2, 20.0], [20.0, 0.2]]  # far from all others
    low, high = value * rng.uniform(0.7, 1, value.shape), value * rng.uniform(1, 1.4, value.shape)
    found = hw.standings(value, low, high)
    assert set(found) == set(hw.STANDINGS)
    for _ in range(200):
        truth = rng.uniform(low, high)
        for i, j in itertools.permutations(range(40), 2):
            if dominates(truth[j].tolist(), truth[i].tolist()):
                assert found[i] != "surely optimal"
        for i in (i for i in range(40) if found[i] == "dominated"):
            assert any(dominates(truth[j].tolist(), truth[i].tolist()) for j in range(40) if j != i)


def test_the_front_is_what_is_optimal_by_the_best_guesses() -> None:
    rng = np.random.default_rng(4)
    value = rng.uniform(1, 10, (300, 3))
    found = hw.standings(value, value * 0.9, value * 1.1)
    front = hw.pareto_front(value)
    assert sorted(front) == [i for i, name in enumerate(found) if name in ("surely optimal", "optimal")]
    assert value[front, 0].tolist() == sorted(value[front, 0])


def test_shared_errors_make_the_order_surer() -> None:
    value = np.array([[1.0, 5.0], [2.0, 6.0], [1.5, 4.0]])
    low, high = value / 3, value * 3
    assert hw.standings(value, low, high) == ["optimal", "possibly optimal", "optimal"]
    assert hw.standings(value, low, high, ["n7", "n7", "n7"]) == ["surely optimal", "dominated", "surely optimal"]
    assert hw.standings(value, low, high, ["n7", "n28", "n7"]) == ["optimal", "possibly optimal", "optimal"]
    assert hw.standings(value, low, high, [None, None, None]) == hw.standings(value, low, high)


@settings(max_examples=200, deadline=None)
@given(clouds(), st.lists(st.sampled_from(["a", "b", None]), min_size=8, max_size=8))
def test_shared_errors_never_contradict_the_best_guesses(cloud: tuple[list[list[float]], ...], labels: list) -> None:
    low, value, high = cloud
    front = set(hw.pareto_front(value))
    for i, name in enumerate(hw.standings(value, low, high, labels[: len(value)])):
        assert (i in front) == (name in ("surely optimal", "optimal"))


def test_equal_points_do_not_dominate_each_other() -> None:
    assert hw.standings([[1.0, 2.0], [1.0, 2.0]]) == ["surely optimal", "surely optimal"]
    assert hw.pareto_front([[1.0, 2.0], [1.0, 2.0]]) == [0, 1]


def test_the_knee_of_a_bent_front_is_its_corner() -> None:
    bent = [[1.0, 100.0], [2.0, 10.0], [3.0, 3.0], [10.0, 2.0], [100.0, 1.0], [50.0, 50.0]]
    assert hw.knees(bent)[0] == 2
    assert hw.knees([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]) == []  # a straight line has none
    assert hw.knees([[1.0, 3.0], [3.0, 1.0]]) == []


def test_a_knee_does_not_depend_on_units() -> None:
    rng = np.random.default_rng(5)
    value = rng.uniform(1, 100, (60, 2))
    assert hw.knees(value) == hw.knees(value * [1e-9, 1e6])


def test_three_objectives_have_one_knee() -> None:
    corners = [[0.0, 9.0, 9.0], [9.0, 0.0, 9.0], [9.0, 9.0, 0.0], [1.0, 1.0, 1.0], [4.0, 4.0, 0.5]]
    assert hw.knees(corners) == [3]


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ([1.0, 2.0], None, None),
        ([[float("nan")]], None, None),
        ([[1.0]], [[2.0]], None),
        ([[1.0]], None, [[0.5]]),
        ([[1.0]], [[1.0, 1.0]], None),
    ],
)
def test_what_is_not_points_raises(value: list, low: list | None, high: list | None) -> None:
    with pytest.raises(ArgumentError):
        hw.standings(value, low, high)


def test_many_points_are_compared_in_parts() -> None:
    value = np.stack([np.arange(3000.0), np.arange(3000.0)[::-1]], axis=1)
    assert hw.standings(value) == ["surely optimal"] * 3000
    assert hw.standings(np.concatenate([value, value + 1]))[3000:] == ["dominated"] * 3000
