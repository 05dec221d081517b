"""Programs that train inside themselves, emulated as a whole, whose parameters stay weights; arrays of nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

import lowp  # noqa: E402
from lowp._errors import ArgumentError, PrecisionWarning  # noqa: E402
from lowp.emulation import Cast, Recipe  # noqa: E402
from lowp.emulation._jax_world import WORLD  # noqa: E402
from lowp.emulation._numpy_world import NUMPY  # noqa: E402
from lowp.emulation.casting import round_operand  # noqa: E402
from lowp.jax import decode, emulate, encode, every_operation  # noqa: E402

RECIPE = Recipe(weight="float8_e4m3fn", activation="float8_e4m3fn", gradient="float8_e5m2")
STEPS = 3


def loss(params: Any, x: Any) -> Any:
    return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"]) ** 2)


def step(params: Any, x: Any, objective: Any = loss) -> Any:
    decayed = jax.tree.map(lambda p, g: g + 0.1 * p, params, jax.grad(objective)(params, x))
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, decayed)


def scanned(params: Any, x: Any) -> Any:
    return lax.scan(lambda p, _: (step(p, x), None), params, None, length=STEPS)[0]


def looped(params: Any, x: Any) -> Any:
    return lax.while_loop(lambda c: c[0] < STEPS, lambda c: (c[0] + 1, step(c[1], x)), (0, params))[1]


def unrolled(params: Any, x: Any) -> Any:
    for _ in range(STEPS):
        params = step(params, x)
    return params


@pytest.mark.parametrize("train", [scanned, looped, unrolled])
def test_parameters_that_a_program_trains_stay_weights(train: Any) -> None:
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.standard_normal((8, 6)), jnp.float32)
    params = {
        "w": jnp.asarray(rng.standard_normal((6, 5)), jnp.float32),
        "v": jnp.asarray(rng.standard_normal((5, 4)), jnp.float32),
    }
    low = emulate(lambda p, x: (trained := train(p, x), loss(trained, x)), RECIPE)
    trained, value = low(params, x)
    one = emulate(loss, RECIPE)
    for _ in range(STEPS):
        params = step(params, x, one)
    for got, wanted in zip(jax.tree.leaves(trained), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)  # compiled and eager sums; a wrong cast is 1e-3 off
    np.testing.assert_allclose(value, one(params, x), rtol=1e-5)
    assert low.report.find(layer="w", product="forward", role="weight")


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "int8_g64"])
@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_nothing_has_codes_too(fmt: str, shape: tuple[int, ...]) -> None:
    got, wanted = encode(jnp.zeros(shape), fmt), lowp.encode(np.zeros(shape, np.float32), fmt)
    assert got.codes.shape == wanted.codes.shape
    assert got.scales.shape == wanted.scales.shape
    assert decode(got).shape == shape


def test_patterns_over_primitives_that_match_nothing_are_said() -> None:
    x = jnp.ones(2)
    with pytest.warns(PrecisionWarning, match="'adx': matches no operation. Did you mean 'add'"):
        every_operation(lambda x: x + 1, "bfloat16", only="adx")(x)
    low = every_operation(lambda x: x + 1, "bfloat16", only=("add", "exp*"))
    low(x)
    assert low.report.remarks == ["primitive 'exp*': matches no operation."]
    with pytest.raises(ArgumentError, match="'adx': matches no operation"):
        every_operation(lambda x: x + 1, "bfloat16", only="adx", strict=True)(x)


TENSORS = np.random.default_rng(5).standard_normal((16, 6)).astype(np.float32)


@pytest.mark.parametrize("power", [0, -126, -140])
@pytest.mark.parametrize("fmt", ["bfloat16", "float32", "float8_e4m3fn"])
def test_scales_with_subnormal_reciprocals_give_the_bits_of_numpy(fmt: str, power: int) -> None:
    cast, x = Cast(fmt, scaling="current"), TENSORS * np.float32(2.0**power)
    wanted = round_operand(NUMPY, x, cast, axis=1).values
    for run in (round_operand, jax.jit(round_operand, static_argnums=(0, 2), static_argnames="axis")):
        got = np.asarray(run(WORLD, jnp.asarray(x), cast, axis=1).values)
        np.testing.assert_array_equal(got.view(np.uint32), wanted.view(np.uint32))
    if power == 0:
        low = emulate(lambda p, x: x @ p["w"], Recipe(weight=cast))
        np.testing.assert_array_equal(low({"w": jnp.asarray(x)}, jnp.eye(16)), wanted)


LOOKUPS = {
    "indexed": lambda table, i: table[i],
    "taken": lambda table, i: jnp.take(table, i, axis=0),
    "mapped": lambda table, i: jax.vmap(lambda k: table[k])(i),
    "twice": lambda table, i: table[i] + 3 * table[i[::-1]],
}


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS.keys())
@pytest.mark.parametrize("rounding", ["ties_to_even", "stochastic"])
def test_gradients_of_embeddings_taken_inside_are_those_taken_outside(lookup: Any, rounding: str) -> None:
    recipe = Recipe(weight="float8_e4m3fn", gradient=Cast("float8_e5m2", rounding=rounding), operations=("embedding",))
    tokens = jnp.array([3, 1, 4, 1, 5])

    def objective(params: Any, i: Any) -> Any:
        return jnp.sum(jnp.sin(lookup(params["table"], i)) ** 2)

    params = {"table": jnp.asarray(TENSORS)}
    low = emulate(jax.grad(objective), recipe, strict=True)
    got, wanted = low(params, tokens), jax.grad(emulate(objective, recipe))(params, tokens)
    np.testing.assert_array_equal(got["table"], wanted["table"])
    rows = low.report.find(layer="table", product="grad_weight")
    assert {(row.role, row.cast.split(",")[0]) for row in rows} == {("gradient", "float8_e5m2")}


def test_products_without_parameters_name_the_argument_that_makes_some() -> None:
    w, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    low = emulate(lambda w, x: x @ w, Recipe(weight="fp8"))
    low(w, x)
    assert any("weights=0" in remark for remark in low.report.remarks)
    named = emulate(lambda w, x: x @ w, Recipe(weight="fp8"), weights=0)
    named(w, x)
    assert not named.report.remarks
