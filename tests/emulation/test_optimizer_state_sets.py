"""Sets of formats for optimizer states: in recipes; encoded states of optax in Flax's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lowp
from lowp import ArgumentError, Cast, FormatError, Recipe, Rule
from lowp.emulation.casts import STATE_SETS
from lowp.emulation.optimizer_states import NON_NEGATIVE, STATE_FORMATS, StateRules


def test_recipes_know_every_set() -> None:
    assert tuple(STATE_FORMATS) == STATE_SETS


@pytest.mark.parametrize("name", STATE_FORMATS)
def test_a_set_in_a_recipe_is_the_set_alone(name: str) -> None:
    plain, in_recipe = StateRules(name), StateRules(Recipe(optimizer_state=name))
    for state in ("exp_avg", "mu", "momentum_buffer", "0.mu.layers.w", "0.nu.layers.w", *NON_NEGATIVE):
        assert in_recipe.cast(state) == plain.cast(state), state
    assert plain.cast("exp_avg") != plain.cast("exp_avg_sq")


def test_rounding_and_rules_change_a_set(tmp_path: Path) -> None:
    recipe = Recipe(
        optimizer_state=Cast("dynamic8", rounding="stochastic_a"),
        rules=[Rule("head", casts={"optimizer_state": "linear8"}), Rule("norm", casts={"optimizer_state": "bfloat16"})],
    )
    rules = StateRules(recipe)
    found = [rules.cast("exp_avg_sq", layer) for layer in ("body", "head", "norm")]
    names = ["bnb_dynamic8_unsigned", "bnb_linear8_unsigned", "bfloat16"]
    assert [cast.format.name for cast in found if cast] == names
    assert {cast.rounding for cast in found if cast} == {"stochastic_a"}
    recipe.save(tmp_path / "mine.toml")
    assert Recipe.load(tmp_path / "mine.toml") == recipe
    assert 'format = "dynamic8"' in str(recipe)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight": "dynamic8"}, FormatError, "weight='dynamic8' is a set of formats for optimizer states"),
        ({"kv_cache": Cast("mulaw4")}, FormatError, "kv_cache='mulaw4' is a set of formats"),
        ({"forward": {"weight": "linear8"}}, FormatError, "forward.weight='linear8' is a set of formats"),
        ({"optimizer_state": "dynamic9"}, FormatError, "optimizer_state: .*Sets of formats: dynamic8"),
        ({"optimizer_state": {"format": "dynamic8", "hadamard": 16}}, ArgumentError, "optimizer_state: hadamard=16"),
        ({"optimizer_state": {"format": "dynamic8", "method": "quest"}}, ArgumentError, "optimizer_state: method"),
    ],
)
def test_sets_are_for_states(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Recipe(**arguments)


def test_torch_takes_a_recipe_with_a_set() -> None:
    torch = pytest.importorskip("torch")
    from lowp.emulation.torch_optim import LowPrecision

    nbytes = []
    for states in ("dynamic8", Recipe(optimizer_state="dynamic8")):
        weight = torch.nn.Parameter(torch.ones(64, 64))
        optimizer = LowPrecision(torch.optim.AdamW([weight]), states)
        weight.square().sum().backward()
        optimizer.step()
        nbytes.append((optimizer.nbytes, repr(optimizer.state[weight]["exp_avg_sq"])))
    assert nbytes[0] == nbytes[1]


@pytest.mark.parametrize("states", ["dynamic8", "mulaw4", {"mu": "mxfp4", "nu": "bfloat16"}, "int4_g64"])
def test_flax_saves_encoded_states(states: Any) -> None:
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    from lowp.jax import optim

    params = {"w": jax.numpy.linspace(-1, 1, 100).reshape(10, 10), "b": jax.numpy.ones(7)}
    optimizer = optim.low_precision(optax.adam(1e-2), states)
    start = optimizer.init(params)
    _, state = optimizer.update(params, start, params)
    serialization = pytest.importorskip("flax.serialization")
    for restored in (
        serialization.from_state_dict(start, serialization.to_state_dict(state)),
        serialization.from_bytes(start, serialization.to_bytes(state)),
    ):
        assert jax.tree.structure(restored) == jax.tree.structure(state)
        for got, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            assert bool((got == wanted).all())
    first, second = (optimizer.update(params, s, params)[0] for s in (restored, state))
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    other = optim.low_precision(optax.adam(1e-2), "linear8").init(params)
    with pytest.raises(lowp.ArgumentError, match=r"state (holds|=)"):
        serialization.from_state_dict(other, serialization.to_state_dict(state))
