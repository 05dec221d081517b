"""Gradients of gradients: rounding passes straight through, in the basis of each operand, in torch and in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lowp import Recipe
from lowp._errors import ArgumentError

torch: Any = pytest.importorskip("torch")
jax: Any = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import lowp.jax as lj  # noqa: E402
import lowp.torch as lt  # noqa: E402

EXACT = {"weight": "float32", "activation": "float32", "gradient": "float32"}
TURNED = {"format": "float32", "hadamard": 8, "signs": "random"}
REUSED = {"reuse": True, "requantize": True, "hadamard": 8, "signs": "random"}
#: Recipes that change no number by more than the rotations' rounding errors.
RECIPES = {
    "formats": EXACT,
    "grad_input": {**EXACT, "grad_input": {"weight": TURNED, "gradient": TURNED}},
    "grad_weight": {**EXACT, "grad_weight": {"activation": TURNED, "gradient": TURNED}},
    "forward": {"gradient": "float32", "forward": {"weight": TURNED, "activation": TURNED}},
    "reused": {
        "gradient": "float32",
        "forward": {"weight": TURNED, "activation": TURNED},
        "grad_input": {"weight": REUSED, "gradient": TURNED},
        "grad_weight": {"activation": REUSED, "gradient": TURNED},
    },
    "sums": {**EXACT, "output": "float32", "accumulator": "float32"},
}
X = np.random.default_rng(0).standard_normal((16, 16, 8)).astype(np.float32)
W = [np.random.default_rng(n).standard_normal((16, 16, 3)).astype(np.float32) / 8 for n in (1, 2)]

by_recipe = pytest.mark.parametrize("recipe", RECIPES)


def same(found: Any, wanted: Any) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-3, atol=1e-4 * float(abs(b).max()))


def torch_penalty(convolves: bool) -> list[Any]:
    """The gradient of the gradient's squared norm."""
    leaves = [torch.from_numpy(a if convolves else a[..., 0]).clone().requires_grad_() for a in (X, *W)]
    x, first, second = leaves
    layer: Callable[..., Any] = torch.nn.functional.conv1d if convolves else torch.nn.functional.linear
    loss = layer(layer(x, first).tanh(), second).square().sum()
    penalty = sum(g.square().sum() for g in torch.autograd.grad(loss, leaves, create_graph=True))
    found: list[Any] = list(torch.autograd.grad(penalty, leaves))
    return found


@by_recipe
@pytest.mark.parametrize("convolves", [False, True])
def test_of_torch(recipe: str, convolves: bool) -> None:
    with lt.emulate(Recipe(**RECIPES[recipe])):
        found = torch_penalty(convolves)
    same(found, torch_penalty(convolves))


def test_of_torch_func() -> None:
    x, first, second = (torch.from_numpy(a[..., 0]) for a in (X, *W))

    def loss(x: Any, first: Any) -> Any:
        return (((x @ first.T).tanh() @ second.T) ** 2).sum()

    def penalty(x: Any, first: Any) -> Any:
        return (torch.func.grad(loss)(x, first) ** 2).sum()

    for name in ("formats", "grad_input"):
        with lt.emulate(Recipe(**RECIPES[name], operations=("linear", "matmul"))) as run:
            found = torch.func.grad(penalty, (0, 1))(x, first)
        same(found, torch.func.grad(penalty, (0, 1))(x, first))
        assert len(run.report.find(product="grad_input"))


def test_of_torch_func_and_a_backward_pass_around() -> None:
    x, w = torch.from_numpy(X[..., 0]), torch.nn.Parameter(torch.from_numpy(W[0][..., 0]))

    def loss() -> Any:
        return torch.func.grad(lambda x: (x @ w.T).tanh().sum())(x).square().sum()

    with lt.emulate(Recipe(**EXACT)):
        found = torch.autograd.grad(loss(), w)
    same([g.detach() for g in found], [g.detach() for g in torch.autograd.grad(loss(), w)])


def jax_penalty(loss: Any) -> Any:
    return lambda *leaves: sum(jnp.sum(g**2) for g in jax.grad(loss, (0, 1, 2))(*leaves))


@by_recipe
@pytest.mark.parametrize("convolves", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_of_jax(recipe: str, convolves: bool, inside: bool) -> None:
    if inside and recipe == "reused":
        pytest.skip("reuse is refused where the program takes the gradient")

    def layer(x: Any, w: Any) -> Any:
        return jax.lax.conv(x, w, (1,), "VALID") if convolves else x @ w

    def loss(first: Any, second: Any, x: Any) -> Any:
        return jnp.sum(layer(jnp.tanh(layer(x, first)), second) ** 2)

    leaves = [jnp.asarray(a if convolves else a[..., 0]) for a in (*W, X)]
    kept = Recipe(**RECIPES[recipe])
    options = {"weights": (0, 1)}
    low = lj.emulate(jax_penalty(loss), kept, **options) if inside else jax_penalty(lj.emulate(loss, kept, **options))
    found = jax.jit(jax.grad(low, (0, 1, 2)))(*leaves)
    same(found, jax.grad(jax_penalty(loss), (0, 1, 2))(*leaves))


def test_of_looked_up_rows_in_jax() -> None:
    table = jnp.asarray(W[0][..., 0])

    def loss(table: Any) -> Any:
        return jnp.sum(jnp.tanh(table[jnp.array([1, 2, 2])]) ** 2)

    def penalty(loss: Any) -> Any:
        return jax.grad(lambda table: jnp.sum(jax.grad(loss)(table) ** 2))

    low = lj.emulate(loss, Recipe(**EXACT, operations=("embedding",)), weights=(0,))
    same([penalty(low)(table)], [penalty(loss)(table)])
    assert len(low.report.find(operation="embedding", product="forward"))


def test_a_gradient_that_is_rotated_meets_an_activation_that_is_rotated_too() -> None:
    a, b = (torch.from_numpy(x[..., 0].copy()).requires_grad_() for x in (X, W[0]))
    recipe = Recipe(**RECIPES["grad_input"], operations=("linear", "matmul"))
    with lt.emulate(recipe):
        found = torch.autograd.grad((a @ b.T).square().sum(), (a, b))
    same(found, torch.autograd.grad((a @ b.T).square().sum(), (a, b)))


def test_the_mask_of_an_activation_in_another_basis_is_refused() -> None:
    turned = {**TURNED, "gradient": "clipped"}
    recipe = Recipe(
        gradient="float32",
        forward={"weight": TURNED, "activation": turned},
        grad_input={"weight": REUSED, "gradient": TURNED},
        grad_weight={"activation": TURNED, "gradient": TURNED},
        operations=("linear", "matmul"),
    )
    a, b = (x[..., 0].copy() for x in (X, W[0]))
    with pytest.raises(ArgumentError, match="mask is in the basis"), lt.emulate(recipe):
        (torch.from_numpy(a).requires_grad_() @ torch.from_numpy(b)).sum().backward()
    low = lj.emulate(lambda parameters, a, b: jnp.sum(a @ b), recipe)
    with pytest.raises(ArgumentError, match="mask is in the basis"):
        jax.grad(low, 1)(jnp.zeros(1), jnp.asarray(a), jnp.asarray(b))


def test_products_of_a_custom_jvp_rule_are_told_of() -> None:
    @jax.custom_jvp
    def layer(x: Any, w: Any) -> Any:
        return jnp.sin(x @ w)

    @layer.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x, w), (dx, dw) = primals, tangents
        return layer(x, w), jnp.cos(x @ w) * (dx @ w + x @ dw)

    low = lj.emulate(lambda w, x: jnp.sum(layer(x, w)), "bf16", weights=(0,))
    low(jnp.ones((4, 4)), jnp.ones((2, 4)))
    assert not low.report.remarks
    jax.grad(low)(jnp.ones((4, 4)), jnp.ones((2, 4)))
    assert any("custom_jvp" in str(remark) for remark in low.report.remarks)
    strict = lj.emulate(low.function, "bf16", weights=(0,), strict=True)
    with pytest.raises(ArgumentError, match="custom_jvp"):
        jax.grad(strict)(jnp.ones((4, 4)), jnp.ones((2, 4)))
