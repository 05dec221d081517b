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
from lowp.emulation import Recipe  # noqa: E402
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
