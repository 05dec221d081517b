"""Rows that data picks from a table are data: the layers behind them keep their roles and names."""

import numpy as np
import pytest

import lowp

jax = pytest.importorskip("jax")
jnp = jax.numpy
from lowp.emulation._jax_emulate import emulate  # noqa: E402

RNG = np.random.default_rng(0)
PARAMS = {name: jnp.asarray(RNG.standard_normal(shape), jnp.float32) for name, shape in
          (("table", (10, 8)), ("first", (8, 8)), ("head", (10, 8)))}  # fmt: skip
TOKENS = jnp.array([3, 1, 4, 1, 5])

LOOKUPS = {
    "indexed by an array": lambda table, i: table[i],
    "mapped over tokens": lambda table, i: jax.vmap(lambda k: table[k])(i),
    "mapped twice": lambda table, i: jax.vmap(jax.vmap(lambda k: table[k]))(i[None])[0],
    "take": lambda table, i: jnp.take(table, i, axis=0),
    "one by one in a loop": lambda table, i: jax.lax.map(lambda k: table[k], i),
}


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS.keys())
def test_products_behind_a_lookup_are_of_a_weight_and_data(lookup) -> None:
    def program(params, tokens):
        return lookup(params["table"], tokens) @ params["first"] @ params["head"].T

    recipe = lowp.Recipe(weight="float8_e4m3fn", activation="float8_e5m2")
    emulated = emulate(program, recipe)
    got = emulated(PARAMS, TOKENS)
    rows = [(r.layer, r.role, r.cast) for r in emulated.report.find(operation="linear")]
    assert sorted(rows) == [
        ("first", "activation", "float8_e5m2"), ("first", "weight", "float8_e4m3fn"),
        ("head", "activation", "float8_e5m2"), ("head", "weight", "float8_e4m3fn"),
    ]  # fmt: skip
    q = {name: lowp.quantize(np.asarray(w), "float8_e4m3fn") for name, w in PARAMS.items()}
    x = np.asarray(PARAMS["table"])[np.asarray(TOKENS)]
    hidden = np.asarray(jnp.asarray(lowp.quantize(x, "float8_e5m2")) @ jnp.asarray(q["first"]))
    wanted = jnp.asarray(lowp.quantize(hidden, "float8_e5m2")) @ jnp.asarray(q["head"]).T
    assert np.array_equal(np.asarray(got), np.asarray(wanted))


def test_a_weight_that_data_picks_stays_a_weight() -> None:
    experts = jnp.asarray(RNG.standard_normal((4, 8, 8)), jnp.float32)
    emulated = emulate(lambda w, x, i: x @ w["experts"][i], lowp.Recipe(weight="fp8", activation="fp8"))
    emulated({"experts": experts}, jnp.ones((3, 8)), jnp.int32(2))
    assert {r.role for r in emulated.report.find(layer="experts")} == {"weight", "activation"}
