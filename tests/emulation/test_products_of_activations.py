"""Products of two activations: torch and JAX have the same bits, forward and backward, whatever the recipe's casts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import lowp.jax as lj  # noqa: E402
import lowp.torch as lt  # noqa: E402
from lowp import Recipe  # noqa: E402

#: Few bits, so that sums of products are exact in float32, in any order; another format for each operand.
COARSE = Recipe(
    forward={"activation": "float8_e4m3fn"},
    activation="float6_e2m3fn",
    grad_input={"gradient": "float4_e2m1fn"},
    grad_weight={"gradient": "float8_e5m2", "activation": "float6_e3m2fn"},
    operations=("matmul", "attention"),
)
#: The gradient is rotated, and with it the activation that it meets.
TURNED = COARSE.replace(
    grad_input={
        "gradient": {"format": "float4_e2m1fn", "hadamard": 4},
        "weight": {"format": "float32", "hadamard": 4},
    },
)
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def in_torch(recipe: Recipe, program: Any, given: Any, g: Any) -> Any:
    operands = [torch.tensor(x).requires_grad_() for x in given]
    with lt.emulate(recipe) as run:
        y = program(*(o * 1 for o in operands))  # what is computed, so that no operand is a leaf
        y.backward(torch.tensor(g))
    return [y.detach().numpy(), *(o.grad.numpy() for o in operands)], run.report


def in_jax(recipe: Recipe, program: Any, given: Any, g: Any, inside: bool) -> Any:
    def whole(*operands: Any) -> Any:
        y, back = jax.vjp(program, *operands)
        return [y, *back(jnp.asarray(g))]

    low = lj.emulate(whole if inside else program, recipe)
    if inside:
        found = low(*given)
    else:
        y, back = jax.vjp(low, *given)
        found = [y, *back(jnp.asarray(g))]
    return [np.asarray(x) for x in found], low.report


def rows(report: Any) -> list[Any]:
    return sorted((r.product, r.role, r.cast) for r in report.rows if r.product != "forward")


@pytest.mark.parametrize("inside", [False, True], ids=["grad of emulate", "emulate of grad"])
@pytest.mark.parametrize("recipe", [COARSE, TURNED], ids=["formats", "rotation"])
@pytest.mark.parametrize("shapes", [((8, 12), (12, 16)), ((2, 8, 12), (2, 12, 4)), ((8, 8), (8, 8))])
def test_both_gradients_are_those_of_torch(shapes: Any, recipe: Recipe, inside: bool) -> None:
    given = [normal(*shape) for shape in shapes]
    g = normal(*shapes[0][:-1], shapes[1][-1])
    wanted, torch_report = in_torch(recipe, lambda x, y: x @ y, given, g)
    found, report = in_jax(recipe, lambda x, y: x @ y, given, g, inside)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert rows(report) == rows(torch_report)


@pytest.mark.parametrize("inside", [False, True], ids=["grad of emulate", "emulate of grad"])
def test_a_tensor_times_itself(inside: bool) -> None:
    given, g = [normal(8, 12)], normal(8, 8)
    wanted, _ = in_torch(COARSE, lambda x: x @ x.mT, given, g)
    found, _ = in_jax(COARSE, lambda x: x @ x.T, given, g, inside)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("inside", [False, True], ids=["grad of emulate", "emulate of grad"])
def test_values_of_attention_come_second(inside: bool) -> None:
    given, g = [normal(1, 4, 2, 8) for _ in range(3)], normal(1, 4, 2, 8)

    def attend(q: Any, k: Any, v: Any) -> Any:
        y = torch.nn.functional.scaled_dot_product_attention(
            q.mT.mT.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        )
        return y.transpose(1, 2)

    wanted, _ = in_torch(COARSE, attend, given, g)
    found, _ = in_jax(COARSE, jax.nn.dot_product_attention, given, g, inside)
    rough = COARSE.replace(grad_input={"gradient": "float8_e5m2"}, grad_weight={"gradient": "float4_e2m1fn"})
    other, _ = in_torch(rough, attend, given, g)
    close = np.abs(found[3] - wanted[3])
    assert np.quantile(close, 0.9) < 1e-5  # probabilities may differ by a bit, and fall to another number
    assert np.quantile(np.abs(found[3] - other[3]), 0.9) > 1e-3


def test_the_report_names_an_activation_turned_as_its_gradient() -> None:
    given, g = [normal(8, 12), normal(12, 16)], normal(8, 16)
    recipe = TURNED.replace(
        grad_input={
            "gradient": {"format": "float32", "hadamard": 8},
            "weight": {"format": "float32", "hadamard": 8},
        },
        activation="float32",
    )
    _, report = in_torch(recipe, lambda x, y: x @ y, given, g)
    _, other = in_jax(recipe, lambda x, y: x @ y, given, g, False)
    for one in (report, other):
        assert [r.cast for r in one.find(product="grad_input", role="activation")] == ["float32, hadamard 8"]
        assert [r.cast for r in one.find(product="grad_weight", role="activation")] == ["float6_e3m2fn"]


@pytest.mark.parametrize("inside", [False, True], ids=["grad of emulate", "emulate of grad"])
@pytest.mark.parametrize("shapes", [((8, 12), (12, 16)), ((2, 8, 12), (2, 12, 4)), ((8, 8), (8, 8))])
def test_random_bits_are_those_of_torch(shapes: Any, inside: bool) -> None:
    """Both operands have one role, and bits of their own."""
    recipe = Recipe(
        activation={"format": "float4_e2m1fn", "rounding": "stochastic"},
        gradient={"format": "float4_e2m1fn", "rounding": "stochastic"},
        operations=("matmul",),
    )
    given = [normal(*shape) for shape in shapes]
    g = normal(*shapes[0][:-1], shapes[1][-1])
    wanted, _ = in_torch(recipe, lambda x, y: x @ y, given, g)
    found, _ = in_jax(recipe, lambda x, y: x @ y, given, g, inside)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_both_operands_have_histories() -> None:
    recipe = Recipe(activation={"format": "float8_e4m3fn", "scaling": "delayed"}, operations=("matmul",))
    given = normal(8, 8), 100 * normal(8, 8)
    init, apply = lj.emulate_with_state(lambda x, y: x @ y, recipe)
    _, state = apply(init(*given), *given)
    assert {key: float(history.amax.max()) for key, history in state.items()} == {
        "/matmul/0/forward/activation": float(np.abs(given[0]).max()),
        "/matmul/0/forward/activation_2": float(np.abs(given[1]).max()),
    }
