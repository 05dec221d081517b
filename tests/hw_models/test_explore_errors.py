"""Explorations that cannot be carried out as asked: what raises, and what is a reason in the table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.hw_models.exploring import WORK
from tests.hw_models.test_explore import run

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError


@pytest.mark.parametrize("numbers", [(np.nan, np.nan, np.nan), (1.0, 2.0, 3.0), (1.0, 0.0, np.nan)])
def test_metrics_out_of_order_are_a_reason(numbers: tuple[float, float, float]) -> None:
    def bad(fmt: Any) -> hw.Metric | float:
        return hw.Metric(*numbers) if fmt.name == "int8" else 1.0

    found = run(["int8", "fp8"], None, "accuracy", accuracy=bad)
    assert [p.weights for p in found.front()] == ["float8_e4m3fn"]
    assert "must have low <= value <= high" in found.failed[0].reason


def test_an_exception_says_which_formats_it_is_of() -> None:
    def fails(fmt: Any) -> float:
        return 1 / (fmt.bits - 8)

    with pytest.raises(ZeroDivisionError) as caught:
        run(["int4", "int8"], None, "accuracy", accuracy=fails)
    assert caught.value.__notes__ == ["raised by accuracy of ('int8', 'int8', '')"]


@pytest.mark.parametrize("objectives", [None, 3, [None], [3]])
def test_objectives_that_are_no_names_raise(objectives: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="objectives="):
        run(["int8"], WORK, objectives)


def test_an_unknown_target_is_found_before_any_work() -> None:
    with pytest.raises(ArgumentError, match=r"units='n6' is not known\. Did you mean 'n7'"):
        hw.Space(["int8"], units=["n7", "n6"])


def test_a_name_that_the_function_and_a_model_both_use_is_neithers() -> None:
    space = {"formats": ["fp8"], "devices": ["h100"]}
    found = run(space, WORK, ["size"], accuracy=lambda fmt: {"time": 5.0})
    assert "time" not in found.points[0].metrics
    assert "energy" in found.points[0].metrics
    assert "'time', which a model gives too" in found.points[0].reason


def test_objectives_that_no_point_has_say_what_there_is() -> None:
    with pytest.raises(ArgumentError, match="there are: acc, bits"):
        run({"formats": ["fp8"]}, None, {"aac": "max"}, accuracy=lambda fmt: {"acc": 5.0})
