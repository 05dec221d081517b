"""Whatever changes what a model gives, or how it is scored, is measured anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from lowp.formats import Codebook
from tests.studies.conftest import FORMATS, StubEngine

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("no_report")
FACTOR = 1.0


@dataclass
class Item:
    """An input that is no tensor."""

    values: torch.Tensor
    name: str = "the same"


class Scaled(torch.nn.Module):
    """A layer whose output depends on a plain attribute and on how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(8, 4)
        self.factor = 1.0

    def forward(self, x: Any) -> torch.Tensor:
        y: torch.Tensor = self.inner(x.values if isinstance(x, Item) else x) * self.factor
        return y


class Metric:
    """A score that depends on its object's state."""

    def __init__(self) -> None:
        self.factor = 1.0

    def __call__(self, outputs: list[Any]) -> float:
        return float(outputs[0].sum()) * self.factor

    def method(self, outputs: list[Any]) -> float:
        return self(outputs)


def by_global(outputs: list[Any]) -> float:
    return float(outputs[0].sum()) * FACTOR


def was_measured(engine: StubEngine) -> bool:
    measured = set(engine.quantized)
    engine.quantized.clear()
    assert measured in (set(), set(FORMATS))
    return bool(measured)


@pytest.fixture
def scaled() -> Scaled:
    torch.manual_seed(0)
    return Scaled()


@pytest.fixture
def metric() -> Metric:
    return Metric()


def test_a_plain_attribute_of_the_module(run: Any, engine: Any, scaled: Scaled) -> None:
    first = run(model=scaled, evaluate=by_global)
    assert was_measured(engine)
    run(model=scaled, evaluate=by_global)
    assert not was_measured(engine)
    scaled.factor = 2.0
    assert run(model=scaled, evaluate=by_global).rows[1].score == pytest.approx(2 * first.rows[1].score)
    assert was_measured(engine)


def test_the_code_of_forward(run: Any, engine: Any, scaled: Scaled, monkeypatch: pytest.MonkeyPatch) -> None:
    run(model=scaled)
    was_measured(engine)
    monkeypatch.setattr(Scaled, "forward", lambda self, x: torch.tanh(self.inner(x)))
    run(model=scaled)
    assert was_measured(engine)


@pytest.mark.parametrize("kind", ["object", "method", "global"])
def test_what_evaluate_reads(run: Any, engine: Any, metric: Metric, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    evaluate = {"object": metric, "method": metric.method, "global": by_global}[kind]
    run(evaluate=evaluate)
    was_measured(engine)
    run(evaluate=evaluate)
    assert not was_measured(engine)
    metric.factor = 2.0
    monkeypatch.setattr("tests.studies.test_resume.FACTOR", 2.0)
    run(evaluate=evaluate)
    assert was_measured(engine)


def test_another_metric_with_the_same_float32_score(run: Any, engine: Any) -> None:
    def first(outputs: list[Any]) -> float:
        return 1.0

    def second(outputs: list[Any]) -> float:
        return 1.0

    run(evaluate=first)
    was_measured(engine)
    run(evaluate=second)
    assert was_measured(engine)


@pytest.mark.parametrize("wrap", [Item, lambda x: [x], lambda x: {"x": x}])
def test_a_value_deep_in_long_data(run: Any, engine: Any, scaled: Scaled, wrap: Any) -> None:
    x = torch.zeros(500, 8)
    run(model=scaled, data=[wrap(x)])
    was_measured(engine)
    run(model=scaled, data=[wrap(x)])
    assert not was_measured(engine)
    x[250, 4] = 1.0
    run(model=scaled, data=[wrap(x)])
    assert was_measured(engine)


def test_another_format_with_the_same_name(run: Any, engine: Any) -> None:
    first, second = (Codebook([-x, 0.0, x, 2 * x], label="mine") for x in (0.25, 0.5))
    assert str(first) == str(second)
    run(formats=[first], mode="weights")
    engine.quantized.clear()
    run(formats=[second], mode="weights")
    assert engine.quantized
