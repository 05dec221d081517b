"""What `explain` says of a torch model with example inputs is what a run does, for every named recipe."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import lowp.torch as lt  # noqa: E402
from lowp import Recipe  # noqa: E402


@pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")  # of a recipe that is biased as published
@pytest.mark.parametrize("name", Recipe.names())
def test_named_recipes(name: str) -> None:
    recipe = Recipe.named(name)
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128))
    x = torch.randn(128, 128)
    expected = recipe.explain(model, x)
    with lt.emulate(recipe) as run:
        model(x).sum().backward()
    assert str(run.report) == str(expected)
