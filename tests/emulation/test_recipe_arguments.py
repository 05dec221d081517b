"""Mistyped arguments of recipes and casts, and copies of recipes."""

import copy
import pickle
from collections.abc import Callable

import pytest

from lowp import Cast, Recipe, Rule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(wieght="fp8"), r"Recipe: argument='wieght' is not known\. Did you mean 'weight'"),
        (lambda: Cast("fp8", ruonding="rne"), r"Cast: argument='ruonding' is not known\. Did you mean 'rounding'"),
        (lambda: Rule("head", exmpt=True), r"Rule: argument='exmpt' is not known\. Did you mean 'exempt'"),
    ],
)
def test_a_mistyped_argument_gets_the_nearest_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


def test_recipes_can_be_copied() -> None:
    recipe = Recipe(weight="fp8", rules=[Rule("head", exempt=True)])
    assert copy.deepcopy(recipe) == pickle.loads(pickle.dumps(recipe)) == recipe  # noqa: S301
