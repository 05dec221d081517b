"""`lowp.jax.emulate_with_state`: delayed scaling against a simulation by hand."""

import numpy as np
import pytest

import lowp
from lowp.emulation.recipe import Cast, Recipe

jax = pytest.importorskip("jax")
jnp = jax.numpy
from lowp.emulation._jax_emulate import emulate  # noqa: E402
from lowp.emulation._jax_stateful import emulate_with_state  # noqa: E402

DELAYED = {"scaling": "delayed", "history": 3}
RECIPE = Recipe(
    weight={"format": "float8_e4m3fn", **DELAYED},
    activation={"format": "float8_e4m3fn", **DELAYED},
    gradient={"format": "float8_e5m2", **DELAYED, "margin": 1},
)


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def loss(params, x):
    return jnp.sum((x @ params["fc"]["w"]) ** 2)


class Operand:
    """One operand's history by hand, in TransformerEngine's order of operations."""

    def __init__(self, fmt, margin=0):
        self.fmt, self.margin, self.seen, self.scale = lowp.parse(fmt), margin, [], np.float32(1)

    def __call__(self, x):
        x = np.asarray(x, np.float32)
        if self.seen:
            largest = max(self.seen[-3:])
            if largest > 0 and np.isfinite(largest):
                self.scale = np.float32(self.fmt.max) / largest / np.float32(2**self.margin)
        self.seen.append(np.abs(x).max())
        return np.asarray(lowp.quantize(x * self.scale, self.fmt)) * (np.float32(1) / self.scale)


@pytest.mark.parametrize("compiled", [False, True])
def test_scales_follow_the_calls_before(rng, compiled):
    w = rng.normal(size=(8, 4)).astype(np.float32)
    init, apply = emulate_with_state(jax.value_and_grad(loss, (0, 1)), RECIPE)
    state = init({"fc": {"w": jax.ShapeDtypeStruct((8, 4), jnp.float32)}}, jax.ShapeDtypeStruct((6, 8), jnp.float32))
    assert len(state) == 6
    step = jax.jit(apply) if compiled else apply
    hand = {name: Operand(fmt, margin) for name, fmt, margin in (
        ("x", "float8_e4m3fn", 0), ("w", "float8_e4m3fn", 0), ("gi", "float8_e5m2", 1), ("wi", "float8_e4m3fn", 0),
        ("gw", "float8_e5m2", 1), ("xw", "float8_e4m3fn", 0))}  # fmt: skip
    for number in range(6):
        x = (rng.normal(size=(6, 8)) * 4.0 ** (number % 4)).astype(np.float32) * (number != 2)
        (value, (dw, dx)), state = step(state, {"fc": {"w": jnp.asarray(w)}}, jnp.asarray(x))
        y = hand["x"](x) @ hand["w"](w)
        g = 2 * y
        np.testing.assert_allclose(float(value), np.sum(y**2), rtol=1e-5)
        np.testing.assert_allclose(np.asarray(dx), hand["gi"](g) @ hand["wi"](w).T, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(np.asarray(dw["fc"]["w"]), hand["xw"](x).T @ hand["gw"](g), rtol=1e-5, atol=1e-4)
    assert {int(h.pushed) for h in state.values()} == {6}


def test_every_round_of_a_scan_has_its_own_histories(rng):
    ws = jnp.asarray(rng.normal(size=(3, 8, 8)), jnp.float32)

    def deep(params, x):
        return jax.jit(lambda w, x: jnp.sum(jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)[0] ** 2))(
            params["blocks"]["w"], x
        )

    init, apply = emulate_with_state(jax.value_and_grad(deep), RECIPE)
    args = {"blocks": {"w": ws}}, jnp.asarray(rng.normal(size=(4, 8)), jnp.float32)
    state = init(*args)
    for _ in range(2):
        (_, grads), state = jax.jit(apply)(state, *args)
    history = state["blocks/linear/0/forward/weight"]
    np.testing.assert_array_equal(np.asarray(history.amax[:, 0]), np.abs(np.asarray(ws)).max((1, 2)))
    assert history.pushed.tolist() == [2, 2, 2]
    assert bool(jnp.isfinite(grads["blocks"]["w"]).all())


def test_layers_in_a_scan_train_as_layers_in_a_row(rng):
    def row(params, x):
        for layer in params:
            x = jnp.tanh(x @ layer["w"])
        return jnp.sum(x**2)

    def scanned(params, x):
        return jnp.sum(jax.lax.scan(lambda h, layer: (jnp.tanh(h @ layer["w"]), None), x, params)[0] ** 2)

    weights = jnp.asarray(rng.normal(size=(3, 8, 8)) * np.array([0.001, 1, 30])[:, None, None], jnp.float32)
    layers = [{"w": w} for w in weights]
    init, apply = emulate_with_state(jax.value_and_grad(row), "fp8_transformer_engine")
    init_scan, apply_scan = emulate_with_state(jax.value_and_grad(scanned), "fp8_transformer_engine")
    state, state_scan = init(layers, weights[0]), init_scan({"w": weights}, weights[0])
    for number in range(4):
        x = jnp.asarray(rng.normal(size=(4, 8)) * 3.0**number, jnp.float32)
        (value, gradient), state = apply(state, layers, x)
        (other, other_gradient), state_scan = apply_scan(state_scan, {"w": weights}, x)
        assert value == other
        np.testing.assert_array_equal(np.stack([layer["w"] for layer in gradient]), other_gradient["w"])


def test_without_delayed_scaling_it_is_emulate(rng):
    args = {"fc": {"w": jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)}}, jnp.ones((6, 8))
    recipe = Recipe(weight="mxfp4", activation=Cast("mxfp4", rounding="stochastic_a"), gradient="mxfp4")
    init, apply = emulate_with_state(jax.grad(loss), recipe)
    state = init(*args)
    assert state == {}
    got, state = apply(state, *args, seed=3)
    wanted = emulate(jax.grad(loss), recipe)(*args, seed=3)
    np.testing.assert_array_equal(np.asarray(got["fc"]["w"]), np.asarray(wanted["fc"]["w"]))


def test_transformer_engine_trains(rng):
    x, w = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((16, 8), (8, 8)))
    target = x @ w

    def step(params, x):
        value, grads = jax.value_and_grad(lambda p: jnp.mean((x @ p["fc"]["w"] - target) ** 2))(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), value

    init, apply = emulate_with_state(step, "fp8_transformer_engine")
    params = {"fc": {"w": jnp.zeros((8, 8))}}
    state, run = init(params, x), jax.jit(apply)
    for _ in range(80):
        (params, value), state = run(state, params, x)
    assert float(value) < 0.02 * float(jnp.mean(target**2))


def test_operands_cast_once_are_the_same_in_both_passes(rng):
    """TransformerEngine casts a tensor once; the backward products read its transpose."""
    w, x = rng.normal(size=(8, 4)).astype(np.float32), 100 * rng.normal(size=(6, 8)).astype(np.float32)
    init, apply = emulate_with_state(jax.value_and_grad(loss, (0, 1)), "fp8_transformer_engine")
    args = {"fc": {"w": jnp.asarray(w)}}, jnp.asarray(x)
    state = init(*args)
    assert {key.partition("/0/")[2] for key in state} == {
        "forward/activation",
        "forward/weight",
        "grad_input/gradient",
        "grad_weight/gradient",
    }
    hand = {name: Operand(fmt) for name, fmt in (("x", "float8_e4m3fn"), ("w", "float8_e4m3fn"), ("g", "float8_e5m2"))}
    for _ in range(3):
        (_, (dw, dx)), state = apply(state, *args)
        qx, qw = hand["x"](x), hand["w"](w)
        g = hand["g"](2 * (qx @ qw))
        np.testing.assert_allclose(np.asarray(dx), g @ qw.T, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(np.asarray(dw["fc"]["w"]), qx.T @ g, rtol=1e-5, atol=1e-1)


def test_what_cannot_remember_is_refused(rng):
    args = {"fc": {"w": jnp.ones((8, 8))}}, jnp.ones((6, 8))
    loop = lambda p, x: jax.lax.fori_loop(0, 2, lambda i, x: x @ p["fc"]["w"], x)  # noqa: E731
    init, _ = emulate_with_state(lambda p, x: jax.lax.cond(x.sum() > 0, loop, lambda p, x: x, p, x), RECIPE)
    with pytest.raises(lowp.ArgumentError, match=r"delayed.*inside"):
        init(*args)
    init, apply = emulate_with_state(loss, RECIPE)
    state = init(*args)
    with pytest.raises(lowp.ArgumentError, match="no gradient of its own"):
        jax.grad(lambda p: apply(state, p, args[1])[0])(args[0])
    with pytest.raises(lowp.ArgumentError, match="no history"):
        apply({}, *args)
    with pytest.raises(lowp.ArgumentTypeError, match="state"):
        apply(args[1])
    with pytest.raises(lowp.ArgumentError, match="emulate_with_state"):
        emulate(loss, RECIPE)(*args)
