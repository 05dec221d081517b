"""Workloads of JAX programs: every product as often as it runs."""

from __future__ import annotations

from typing import Any

import jax
import pytest
from jax import lax
from jax import numpy as jnp

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError


def products(work: hw.Workload) -> list[tuple[int, int, int, int, int, str]]:
    return [(op.m, op.n, op.k, op.groups, op.count, op.role) for op in work.products]


def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def net(weights: jax.Array, x: jax.Array) -> jax.Array:
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0].sum()


def test_a_scan_runs_its_body_once_per_step():
    work = hw.trace(net, shape(12, 64, 64), shape(8, 64), weights=0)
    assert products(work) == [(8, 64, 64, 1, 12, "linear")]
    assert (work.weight_values, work.other_values) == (12 * 64 * 64, 0)
    (tanh,) = (op for op in work if "tanh" in op.name)
    assert tanh.count == 12


def test_scans_inside_scans_multiply():
    def outer(w: jax.Array, x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, 5, lambda _, x: lax.scan(lambda x, _: (x @ w, None), x, None, length=3)[0], x)

    assert products(hw.trace(outer, shape(8, 8), shape(2, 8), weights=0)) == [(2, 8, 8, 1, 15, "linear")]


def test_linear_solves_run_their_solver():
    def solve(matrix: jax.Array, x: jax.Array) -> jax.Array:
        def solver(apply: Any, y: jax.Array) -> jax.Array:
            return lax.fori_loop(0, 5, lambda _, z: y - apply(z), y)

        return lax.custom_linear_solve(lambda y: matrix @ y, x, solver, symmetric=True)

    work = hw.trace(solve, shape(4, 4), shape(4), weights=0)
    assert work.multiply_adds == 5 * 16
    assert (work.weight_values, work.other_values) == (16, 0)


def test_reductions_by_functions_of_two_numbers_read_the_whole_array():
    def worst(x: jax.Array) -> jax.Array:
        return lax.reduce(x, jnp.float32(0), lambda a, b: jnp.maximum(a, 2 * b), (0,))

    (op,) = hw.trace(worst, shape(100, 64))
    assert (op.left_values, op.out_values) == (6400, 64)


def test_gradients_have_their_products():
    work = hw.trace(jax.grad(net), shape(12, 64, 64), shape(8, 64), weights=0)
    assert work.multiply_adds == 12 * 3 * 8 * 64 * 64


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(f))])
def test_calls_are_entered(wrap):
    work = hw.trace(wrap(net), shape(12, 64, 64), shape(8, 64), weights=0)
    assert products(work) == [(8, 64, 64, 1, 12, "linear")]


def test_custom_derivatives_are_entered_once():
    @jax.custom_vjp
    def square(x: jax.Array) -> jax.Array:
        return x @ x

    square.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    assert products(hw.trace(square, shape(4, 4))) == [(4, 4, 4, 1, 1, "activations")]
    assert hw.trace(jax.value_and_grad(lambda x: square(x).sum()), shape(4, 4)).multiply_adds == 3 * 64


def test_what_is_not_used_is_not_counted_as_compilers_drop_it():
    def counted(function: Any, *inputs: Any) -> int:
        compiled = jax.jit(function).lower(*inputs).compile().cost_analysis()
        assert 2 * hw.trace(function, *inputs).multiply_adds == compiled["flops"]
        return hw.trace(function, *inputs).multiply_adds

    assert counted(jax.grad(lambda w, x: (x @ w).sum()), shape(8, 5), shape(4, 8)) == 160
    kernel, image = shape(8, 4, 3, 3), shape(2, 4, 9, 9)

    def convolved(kernel: jax.Array, image: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(image, kernel, (2, 2), "VALID").sum()

    assert counted(jax.grad(convolved), kernel, image) == 2 * 16 * 8 * 36
    assert counted(jax.grad(convolved, argnums=1), kernel, image) == 2 * 16 * 8 * 36


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_transposed_convolution_multiplies_its_input_alone(stride: int):
    def upsampled(image: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_transpose(image, kernel, (stride, stride), "VALID")

    work = hw.trace(upsampled, shape(2, 9, 9, 4), shape(3, 3, 4, 8), weights=1)
    assert products(work) == [(2 * 81, 8 * 9, 4, 1, 1, "linear")]


@pytest.mark.parametrize(
    ("start", "proceeds", "step", "trips"),
    [
        (0, lambda i: i < 10, lambda i: i + 2, 5),
        (0, lambda i: i < 9, lambda i: 2 + i, 5),
        (5, lambda i: i > 0, lambda i: i - 1, 5),
        (5, lambda i: lax.le(0, i), lambda i: i - 2, 3),
        (1, lambda i: i <= 7, lambda i: i + 3, 3),
        (0, lambda i: i != 12, lambda i: i + 4, 3),
        (9, lambda i: i < 3, lambda i: i + 1, 0),
        (0, lambda i: i < 5, lambda i: 2 * i + 1, None),
        (0, lambda i: i < 5, lambda i: i - 1, None),
        (0, lambda i: i != 5, lambda i: i + 2, None),
    ],
)
def test_loops_count_by_their_steps(start: int, proceeds: Any, step: Any, trips: int | None):
    def loop(x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda c: proceeds(c[0]), lambda c: (step(c[0]), c[1] @ c[1]), (start, x))[1]

    if trips is None:
        with pytest.raises(ArgumentError, match="does not say how often its body runs"):
            hw.trace(loop, shape(4, 4))
    else:
        assert hw.trace(loop, shape(4, 4)).multiply_adds == 64 * trips


def test_the_condition_of_a_loop_runs_once_more_than_its_body():
    def loop(x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda x: (x @ x).sum() < 5, lambda x: x + 1, x)

    assert hw.trace(loop, shape(4, 4), trips=6).multiply_adds == 7 * 64


def test_ragged_products_count_every_row_once():
    def experts(x: jax.Array, w: jax.Array, sizes: jax.Array) -> jax.Array:
        return lax.ragged_dot(x, w, sizes)

    sizes = jax.ShapeDtypeStruct((3,), jnp.int32)
    work = hw.trace(experts, shape(10, 8), shape(3, 8, 5), sizes, weights=1)
    assert work.multiply_adds == 10 * 8 * 5
    assert products(work) == [(4, 5, 8, 3, 1, "linear")]
    assert (work.products[0].left_values, work.products[0].out_values) == (80, 50)


def test_products_in_unknown_ways_are_refused():
    with pytest.raises(ArgumentError, match="program calls triangular_solve"):
        hw.trace(jax.scipy.linalg.solve_triangular, shape(4, 4), shape(4, 3))


def test_a_jaxpr_itself():
    jaxpr = jax.make_jaxpr(net)(shape(12, 64, 64), shape(8, 64))
    assert products(hw.trace(jaxpr)) == products(hw.trace(jaxpr.jaxpr)) == [(8, 64, 64, 1, 12, "activations")]
    with pytest.raises(ArgumentTypeError, match="a jaxpr knows its inputs"):
        hw.trace(jaxpr, shape(2))


def test_while_loops_say_how_often_or_are_refused():
    def loop(x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda x: x[0, 0] < 5, lambda x: x @ x, x)

    with pytest.raises(ArgumentError, match="does not say how often its body runs; give trips"):
        hw.trace(loop, shape(16, 16))
    assert products(hw.trace(loop, shape(16, 16), trips=3)) == [(16, 16, 16, 1, 3, "activations")]

    def counted(n: int, x: jax.Array) -> jax.Array:
        return lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, c[1] @ c[1]), (n, x))[1]

    assert products(hw.trace(lambda x: counted(2, x), shape(4, 4))) == [(4, 4, 4, 1, 7, "activations")]


def test_the_branch_that_multiplies_most_is_counted():
    def either(x: jax.Array) -> jax.Array:
        return lax.cond(x[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, x)

    assert hw.trace(either, shape(4, 4)).multiply_adds == 2 * 64


def test_batched_products_and_weights_on_the_left():
    batched = jnp.einsum
    assert products(hw.trace(lambda a, b: batched("bhqd,bhkd->bhqk", a, b), shape(2, 3, 5, 7), shape(2, 3, 9, 7))) == [
        (5, 9, 7, 6, 1, "activations")
    ]
    assert products(hw.trace(lambda w, x: w @ x, shape(10, 4), shape(4, 3), weights=0)) == [(3, 10, 4, 1, 1, "linear")]
    shared = jax.vmap(lambda x, w: x @ w, in_axes=(0, None))
    assert products(hw.trace(shared, shape(5, 4, 4), shape(4, 6), weights=1)) == [(20, 6, 4, 1, 1, "linear")]


def test_weights_are_followed_through_casts_views_and_calls():
    def cast(w: jax.Array, x: jax.Array) -> jax.Array:
        return x @ jax.jit(lambda w: w.astype(jnp.bfloat16).T)(w).astype(jnp.float32)

    assert products(hw.trace(cast, shape(10, 4), shape(3, 4), weights=0)) == [(3, 10, 4, 1, 1, "linear")]
    constant = jnp.ones((4, 6))
    work = hw.trace(lambda x: x @ constant, shape(3, 4))
    assert products(work) == [(3, 6, 4, 1, 1, "linear")]
    assert work.weight_values == 24


def test_convolutions():
    def conv(x: jax.Array, k: jax.Array, groups: int = 1) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=layout, feature_group_count=groups)

    work = hw.trace(conv, shape(2, 32, 32, 8), shape(3, 3, 8, 16), weights=1)
    assert products(work) == [(2 * 256, 16, 72, 1, 1, "linear")]
    assert work.products[0].left_values == 2 * 32 * 32 * 8
    grouped = hw.trace(lambda x, k: conv(x, k, 4), shape(2, 32, 32, 8), shape(3, 3, 2, 16))
    assert products(grouped) == [(512, 4, 18, 4, 1, "activations")]


def test_the_same_layer_as_in_torch():
    torch = pytest.importorskip("torch")
    mine = hw.trace(lambda w, v, x: jnp.tanh(x @ w) @ v, shape(64, 128), shape(128, 10), shape(32, 64), weights=(0, 1))
    theirs = hw.trace(
        torch.nn.Sequential(
            torch.nn.Linear(64, 128, bias=False), torch.nn.Tanh(), torch.nn.Linear(128, 10, bias=False)
        ),
        torch.empty(32, 64),
    )
    assert products(mine) == products(theirs)
    assert mine.weight_values == theirs.weight_values
    times = [hw.workload_cost(w, weights="fp8", activations="fp8").time.value for w in (mine, theirs)]
    assert times[0] == pytest.approx(times[1])


def test_flax_modules():
    linen = pytest.importorskip("flax.linen")
    model = linen.Sequential([linen.Dense(32), linen.gelu, linen.Dense(4)])
    variables = jax.eval_shape(model.init, jax.random.key(0), shape(2, 8))
    work = hw.trace(model.apply, variables, shape(2, 8), weights=0)
    assert products(work) == [(2, 32, 8, 1, 1, "linear"), (2, 4, 32, 1, 1, "linear")]
    assert (work.weight_values, work.other_values) == (8 * 32 + 32 * 4, 36)
