"""Masks of gradients that the program takes itself: those of a gradient taken outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from lowp._errors import ArgumentError  # noqa: E402
from lowp.emulation import Cast, Recipe  # noqa: E402
from lowp.jax import emulate, emulate_with_state  # noqa: E402

CLIPPED = Recipe(
    weight=Cast("float6_e2m3fn", gradient="clipped"),
    activation=Cast("float6_e2m3fn", gradient="clipped"),
    gradient="float8_e5m2",
)
NONE = CLIPPED.replace(weight=Cast("float6_e2m3fn", gradient="none"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(21)


def numbers(rng: np.random.Generator, *shape: int) -> Any:
    """Return numbers of which some lie outside the range of the format, up to 7.5."""
    return jnp.asarray(rng.integers(-40, 41, shape) / 4, jnp.float32)


def layer(p: Any, x: Any) -> Any:
    return jnp.tanh(x @ p["w"] / 64) * 16


def dense(p: Any, x: Any) -> Any:
    return jnp.sum(layer(p["b"], layer(p["a"], x)) ** 2)


def jitted(p: Any, x: Any) -> Any:
    return jnp.sum(jax.jit(layer)(p["b"], jax.jit(layer)(p["a"], x)) ** 2)


def scanned(p: Any, x: Any) -> Any:
    stacked = jax.tree.map(lambda *w: jnp.stack(w), p["a"], p["b"])
    return jnp.sum(lax.scan(lambda h, w: (layer(w, h), None), x, stacked)[0] ** 2)


def twice(p: Any, x: Any) -> Any:
    def outer(h: Any, w: Any) -> Any:
        return lax.scan(lambda h, w: (jax.jit(layer)(w, h), None), h, w)

    stacked = jax.tree.map(lambda *w: jnp.stack([jnp.stack(w)] * 2), p["a"], p["b"])
    return jnp.sum(lax.scan(outer, x, stacked)[0] ** 2)


def recomputed(p: Any, x: Any) -> Any:
    return jnp.sum(jax.checkpoint(layer)(p["b"], jax.checkpoint(layer)(p["a"], x)) ** 2)


def turned(p: Any, x: Any) -> Any:
    """Weights on the left, several axes summed over, and a batch."""
    h = jnp.einsum("oi,ti->ot", p["a"]["w"], x)
    batch = jnp.einsum("bcd,bed->bce", h.reshape(2, 4, -1), numbers(np.random.default_rng(1), 2, 3, h.size // 8))
    return jnp.sum((jnp.tensordot(p["b"]["w"].reshape(4, 2, -1), batch.reshape(2, 4, 3), [(1, 0), (0, 1)]) / 64) ** 2)


def convolved(p: Any, x: Any) -> Any:
    image, kernel = x.reshape(2, 2, 2, -1), p["a"]["w"].reshape(2, 2, 4, -1)
    y = lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )
    return jnp.sum(y**2) / 64


def fanned(p: Any, x: Any) -> Any:
    """Weights of one shape that read the same data, one of them twice, and one that reads what it has made."""
    first, second, third = x @ p["a"]["w"], x @ p["b"]["w"], jnp.tanh(x @ p["a"]["w"] / 64)
    return jnp.sum((first / 16 * third + second) ** 2) + jnp.sum(jnp.tanh(second / 16) @ p["b"]["w"])


PROGRAMS = [dense, fanned, jitted, scanned, twice, recomputed, turned, convolved]


@pytest.mark.parametrize("recipe", [CLIPPED, NONE], ids=["clipped", "none"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_gradient_taken_inside_is_masked_like_one_taken_outside(rng: Any, program: Any, recipe: Recipe) -> None:
    params = {"a": {"w": numbers(rng, 8, 8)}, "b": {"w": numbers(rng, 8, 8)}}
    x = numbers(rng, 8, 8)
    low = emulate(jax.grad(program, (0, 1)), recipe, weights=0, strict=True)
    outside = jax.jit(jax.grad(emulate(program, recipe, weights=0), (0, 1)))(params, x)
    inside = jax.jit(low)(params, x)
    plain = jax.jit(emulate(jax.grad(program, (0, 1)), _unmasked(recipe), weights=0))(params, x)
    assert not low.report.remarks
    for got, wanted in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(got == 0, wanted == 0)
    masked = zip(jax.tree.leaves(plain), jax.tree.leaves(inside), strict=True)
    assert sum(int(np.sum((a != 0) & (b == 0))) for a, b in masked) > 4


def _unmasked(recipe: Recipe) -> Recipe:
    plain = Cast("float6_e2m3fn")
    return recipe.replace(weight=plain, activation=plain)


def test_a_loop_over_steps_keeps_the_masks_of_each(rng: Any) -> None:
    params = {"a": {"w": numbers(rng, 8, 8)}, "b": {"w": numbers(rng, 8, 8)}}
    x = numbers(rng, 8, 8)

    def train(p: Any, x: Any, objective: Any = scanned) -> Any:
        def step(p: Any, _: Any) -> Any:
            return jax.tree.map(lambda w, g: w - g / 8, p, jax.grad(objective)(p, x)), None

        return lax.scan(step, p, None, length=3)[0]

    inside = jax.jit(emulate(train, CLIPPED, strict=True))(params, x)
    outside = jax.jit(lambda p, x: train(p, x, emulate(scanned, CLIPPED)))(params, x)
    for got, wanted in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_delayed_scales_have_masks_too(rng: Any) -> None:
    params, x = {"a": {"w": numbers(rng, 8, 8)}, "b": {"w": numbers(rng, 8, 8)}}, numbers(rng, 8, 8)
    init, apply = emulate_with_state(
        jax.grad(dense), CLIPPED.replace(weight=Cast("float6_e2m3fn", scaling="delayed", gradient="clipped"))
    )
    state = init(params, x)
    first, state = jax.jit(apply)(state, params, x)  # scale 1
    for got, wanted in zip(*map(jax.tree.leaves, (first, jax.grad(emulate(dense, CLIPPED))(params, x))), strict=True):
        np.testing.assert_array_equal(got == 0, wanted == 0)
    second, _ = jax.jit(apply)(state, params, x)
    assert not np.any(second["b"]["w"] == 0), "the largest weight is the largest number of the format now"
    assert state["a/linear/0/forward/weight"].pushed == 1


def test_what_the_forward_pass_rounded_is_used_again_under_a_mask(rng: Any) -> None:
    params, x = {"a": {"w": numbers(rng, 8, 8)}, "b": {"w": numbers(rng, 8, 8)}}, numbers(rng, 8, 8)
    recipe = CLIPPED.replace(grad_input={"weight": {"reuse": True}}, grad_weight={"activation": {"reuse": True}})
    inside = jax.jit(emulate(jax.grad(dense), recipe, strict=True))(params, x)
    outside = jax.jit(jax.grad(emulate(dense, recipe)))(params, x)
    for got, wanted in zip(jax.tree.leaves(inside), jax.tree.leaves(outside), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_masks_that_cannot_get_there_are_told_of(rng: Any) -> None:
    params, x = {"a": {"w": numbers(rng, 8, 8)}}, numbers(rng, 8, 8)

    def branched(p: Any, x: Any) -> Any:
        return jnp.sum(lax.cond(x[0, 0] > 0, layer, lambda p, x: layer(p, 2 * x), p["a"], x))

    low = emulate(jax.grad(branched), CLIPPED)
    low(params, x)
    assert any("mask is not applied" in remark for remark in low.report.remarks)
    with pytest.raises(ArgumentError, match="mask is not applied"):
        emulate(jax.grad(branched), CLIPPED, strict=True)(params, x)
