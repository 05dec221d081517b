"""`lowp.jax.emulate`: convolutions, embeddings, attention, sums, rotations, reuse and random bits."""

import numpy as np
import pytest

import lowp
from lowp.emulation.recipe import Cast, Recipe
from lowp.emulation.seeds import sign_seed, site_seed

jax = pytest.importorskip("jax")
jnp = jax.numpy
from lowp.emulation._jax_emulate import emulate  # noqa: E402
from lowp.emulation._jax_world import WORLD, Key  # noqa: E402
from lowp.emulation._numpy_world import NUMPY  # noqa: E402

MIXED = Recipe(
    forward={"activation": "float8_e4m3fn", "weight": "float6_e2m3fn"},
    grad_input={"gradient": "float8_e5m2", "weight": "float8_e4m3fn"},
    grad_weight={"gradient": "bfloat16", "activation": "float6_e3m2fn"},
)
STOCHASTIC = Cast("float8_e4m3fn", rounding="stochastic_a")


@pytest.fixture
def rng():
    return np.random.default_rng(9)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def q(x, fmt, *args, **options):
    return np.asarray(lowp.quantize(np.asarray(x), fmt, *args, **options))


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


def close(a, b):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=2e-5)


def product(params, x):
    return x @ params["fc"]["w"]


def tree(w):
    return {"fc": {"w": jnp.asarray(w)}}


# ---- convolutions, embeddings, attention


@pytest.mark.parametrize(
    "options", [{}, {"strides": (2, 2)}, {"rhs_dilation": (2, 2)}, {"groups": 2}, {"layout": "NCHW"}]
)
@pytest.mark.parametrize("inside", [False, True])
def test_convolutions_are_rounded_along_their_own_axes(rng, options, inside):
    groups, channels_first = options.pop("groups", 1), options.pop("layout", "NHWC") == "NCHW"
    layout = ("NCHW", "OIHW", "NCHW") if channels_first else ("NHWC", "HWIO", "NHWC")
    strides = options.pop("strides", (1, 1))
    x, w = normal(rng, 4, 7, 7, 8), normal(rng, 3, 3, 8 // groups, 6)
    if channels_first:
        x, w = x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1)

    def by_groups(x, fmt, axis, at):
        return np.concatenate([q(part, fmt, axis=axis) for part in np.split(np.asarray(x), groups, at)], at)

    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x, w, strides, "SAME", dimension_numbers=layout, feature_group_count=groups, **options
        )

    axis_x, axis_w, out_w = (1, 1, 0) if channels_first else (3, 2, 3)
    recipe = Recipe(
        forward={"activation": "int8_row", "weight": "int4_row"},
        grad_input={"gradient": "int8_row", "weight": "int8_row"},
        grad_weight={"gradient": "int4_row", "activation": "int8_row"},
    )
    y = jax.eval_shape(conv, x, w)
    g = normal(rng, *y.shape)
    loss = lambda f: lambda w, x: jnp.sum(f(w, x) * g)  # noqa: E731
    plain = lambda p, x: conv(x, p["c"]["w"])  # noqa: E731
    params = {"c": {"w": jnp.asarray(w)}}
    if inside:
        low = emulate(jax.grad(loss(plain), (0, 1)), recipe)
        dw, dx = low(params, jnp.asarray(x))
    else:
        low = emulate(plain, recipe)
        rounded = by_groups(x, "int8_row", axis_x, axis_x), by_groups(w, "int4_row", axis_w, out_w)
        close(low(params, jnp.asarray(x)), conv(*rounded))
        dw, dx = jax.grad(loss(low), (0, 1))(params, jnp.asarray(x))
    assert low.report.find(operation="conv", layer="c")
    pull_x = jax.vjp(lambda x: conv(x, by_groups(w, "int8_row", out_w, out_w)), jnp.asarray(x))[1]
    pull_w = jax.vjp(lambda w: conv(q(x, "int8_row", axis=0), w), jnp.asarray(w))[1]
    close(dx, pull_x(jnp.asarray(by_groups(g, "int8_row", axis_x, axis_x)))[0])
    close(dw["c"]["w"], pull_w(jnp.asarray(q(g, "int4_row", axis=0)))[0])


def test_embeddings_round_the_rows_looked_up_and_their_gradient(rng):
    table, ids = normal(rng, 10, 32), np.array([[3, 1, 3], [9, 0, 3]])
    recipe = Recipe(operations=["embedding"], weight="mxfp4", gradient="mxfp8_e4m3")
    low = emulate(lambda p, ids: jnp.take(p["embed"]["embedding"], ids, axis=0), recipe)
    g = normal(rng, 2, 3, 32)
    y, pull = jax.vjp(lambda t: low({"embed": {"embedding": t}}, ids), jnp.asarray(table))
    same(y, q(table[ids], "mxfp4"))
    wanted = np.zeros_like(table)
    np.add.at(wanted, ids, q(g, "mxfp8_e4m3"))
    close(pull(jnp.asarray(g))[0], wanted)
    assert [(r.layer, r.product, r.role) for r in low.report.rows] == [
        ("embed", "forward", "weight"),
        ("embed", "grad_weight", "gradient"),
    ]


def test_attention_is_told_from_other_products_of_activations(rng):
    x = jnp.asarray(normal(rng, 2, 16, 2, 32))
    recipe = Recipe(operations=["attention"], activation="mxfp4")
    low = emulate(lambda x: jax.nn.dot_product_attention(x, x, x), recipe)
    q_row = q(x, "mxfp4", axis=3)  # along the heads' dimension
    scores = jnp.einsum("btnh,bsnh->bnts", q_row, q_row) / np.sqrt(np.float32(32))
    p = jax.nn.softmax(scores, axis=-1)
    wanted = jnp.einsum("bnts,bsnh->btnh", q(p, "mxfp4", axis=3), q(x, "mxfp4", axis=1))
    np.testing.assert_allclose(np.asarray(low(x)), np.asarray(wanted), rtol=1e-3, atol=1e-3)
    assert {row.operation for row in low.report.rows} == {"attention"}
    other = emulate(lambda x: jnp.einsum("btnh,bsnh->bnts", x, x), recipe)
    same(other(x), jnp.einsum("btnh,bsnh->bnts", x, x))
    assert other.report.rows[0].cast.startswith("left alone")


def test_products_of_two_activations_are_rounded_as_activations(rng):
    a, b = normal(rng, 4, 8), normal(rng, 8, 5)
    recipe = Recipe(operations=["matmul"], activation="float8_e4m3fn", gradient="float8_e5m2")
    y, pull = jax.vjp(emulate(jnp.matmul, recipe), jnp.asarray(a), jnp.asarray(b))
    g = normal(rng, 4, 5)
    da, db = pull(jnp.asarray(g))
    close(y, q(a, "float8_e4m3fn") @ q(b, "float8_e4m3fn"))
    close(da, q(g, "float8_e5m2") @ q(b, "float8_e4m3fn").T)
    close(db, q(a, "float8_e4m3fn").T @ q(g, "float8_e5m2"))


# ---- sums and results


def test_partial_sums_are_rounded_one_after_another(rng):
    x, w, g = normal(rng, 3, 10), normal(rng, 10, 4), normal(rng, 3, 4)
    recipe = Recipe(accumulator=Cast("bfloat16", group=4))
    y, pull = jax.vjp(emulate(product, recipe), tree(w), jnp.asarray(x))

    def summed(a, b):
        total = None
        for start in range(0, a.shape[1], 4):
            part = np.asarray(jnp.asarray(a[:, start : start + 4]) @ jnp.asarray(b[start : start + 4]))
            total = q(part if total is None else total + part, "bfloat16")
        return total

    same(y, summed(x, w))
    dw, dx = pull(jnp.asarray(g))
    same(dx, summed(g, w.T))
    same(dw["fc"]["w"], summed(np.ascontiguousarray(x.T), g))


def test_results_are_rounded_forward_and_backward(rng):
    x, w, g = normal(rng, 3, 8), normal(rng, 8, 4), normal(rng, 3, 4)
    recipe = Recipe(
        forward={"output": "float8_e4m3fn"}, grad_input={"output": "bfloat16"}, grad_weight={"output": "fp16"}
    )
    y, pull = jax.vjp(emulate(product, recipe), tree(w), jnp.asarray(x))
    dw, dx = pull(jnp.asarray(g))
    same(y, q(np.asarray(jnp.asarray(x) @ jnp.asarray(w)), "float8_e4m3fn"))
    assert np.array_equal(np.asarray(dx), q(dx, "bfloat16"))
    assert np.array_equal(np.asarray(dw["fc"]["w"]), q(dw["fc"]["w"], "fp16"))


def test_models_in_bfloat16_are_computed_in_float32_and_rounded_once(rng):
    x, w = (jnp.asarray(normal(rng, *s), jnp.bfloat16) for s in ((4, 32), (32, 6)))
    low = emulate(product, Recipe(weight="mxfp4", activation="mxfp4"))
    y = low({"fc": {"w": w}}, x)
    wide = [np.asarray(v.astype(jnp.float32)) for v in (x, w)]
    wanted = jnp.asarray(q(wide[0], "mxfp4", axis=1)) @ jnp.asarray(q(wide[1], "mxfp4", axis=0))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.asarray(y).view(np.uint16), np.asarray(wanted.astype(jnp.bfloat16)).view(np.uint16)
    )
    grads = jax.grad(lambda p, x: low(p, x).astype(jnp.float32).sum(), (0, 1))({"fc": {"w": w}}, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


def test_float64_programs_stay_float64(rng):
    with jax.enable_x64(True):
        x, w = jnp.asarray(rng.normal(size=(4, 8))), jnp.asarray(rng.normal(size=(8, 3)))
        recipe = Recipe(forward={"activation": "float32"})
        y = emulate(product, recipe)({"fc": {"w": w}}, x)
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(
            np.asarray(y), np.asarray(x).astype(np.float32).astype(np.float64) @ np.asarray(w), 1e-14
        )


# ---- rotations, reuse, masks


def test_rotations_cancel_in_all_three_products(rng):
    x, w, g = normal(rng, 16, 32), normal(rng, 32, 8), normal(rng, 16, 8)
    both = {"hadamard": 8}
    recipe = Recipe(activation=both, weight=both, gradient=both)
    y, pull = jax.vjp(emulate(product, recipe), tree(w), jnp.asarray(x))
    dw, dx = pull(jnp.asarray(g))
    for got, wanted in ((y, x @ w), (dx, g @ w.T), (dw["fc"]["w"], x.T @ g)):
        np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-5, atol=2e-5)


def test_operands_are_rounded_in_the_rotated_basis(rng):
    from lowp.rounding.hadamard import hadamard

    x, w = normal(rng, 16, 32), normal(rng, 32, 8)
    both = {"format": "mxfp4", "hadamard": 16}
    recipe = Recipe(forward={"activation": both, "weight": both}, seed=3)
    y = emulate(product, recipe)(tree(w), jnp.asarray(x))
    signs = sign_seed(3, "fc", "linear", 0, "forward", "random")
    rotated = [hadamard(v, 16, axis=axis, seed=signs) for v, axis in ((x, 1), (w, 0))]
    close(y, q(rotated[0], "mxfp4", axis=1) @ q(rotated[1], "mxfp4", axis=0))


def test_a_traced_seed_of_signs_gives_the_rotation_of_the_same_number(rng):
    from lowp.rounding.hadamard import hadamard
    from lowp.rounding.random_bits import keys

    x = normal(rng, 5, 64)
    for inverse in (False, True):
        wanted = hadamard(x, 32, axis=1, seed=77, inverse=inverse)
        key = Key(*(jnp.uint32(k) for k in keys(77)))
        same(jax.jit(lambda x, key, i=inverse: WORLD.hadamard(x, 32, 1, key, i))(x, key), wanted)
        same(WORLD.hadamard(jnp.asarray(x), 32, 1, None), hadamard(x, 32, axis=1, signs="none"))


def test_the_backward_pass_can_reuse_what_was_rounded_forward_in_its_basis(rng):
    from lowp.rounding.hadamard import hadamard

    x, w, g = normal(rng, 16, 32), normal(rng, 32, 8), normal(rng, 16, 8)
    both = {"format": "mxfp4", "hadamard": 16, "signs": "fixed", "gradient": "clipped"}
    recipe = Recipe(
        forward={"activation": both, "weight": both},
        grad_input={"weight": {"reuse": True}},
        grad_weight={"activation": {"reuse": True}},
    )
    _, pull = jax.vjp(emulate(product, recipe), tree(w), jnp.asarray(x))
    dw, dx = pull(jnp.asarray(g))
    signs = sign_seed(0, "", "", 0, "", "fixed")
    rx, rw = hadamard(x, 16, axis=1, seed=signs), hadamard(w, 16, axis=0, seed=signs)
    qx, qw = q(rx, "mxfp4", axis=1), q(rw, "mxfp4", axis=0)
    back = lambda v, axis: hadamard(v, 16, axis=axis, seed=signs, inverse=True)  # noqa: E731
    (low_x, high_x), (low_w, high_w) = (
        NUMPY.limits(rx, lowp.parse("mxfp4"), 1),
        NUMPY.limits(rw, lowp.parse("mxfp4"), 0),
    )
    mask_x, mask_w = (rx >= low_x) & (rx <= high_x), (rw >= low_w) & (rw <= high_w)
    assert not np.all(mask_x)
    close(dx, back(np.asarray((g @ qw.T) * mask_x, np.float32), 1))
    close(dw["fc"]["w"], back(np.asarray((qx.T @ g) * mask_w, np.float32), 0))


def test_a_rotation_that_does_not_fit_names_layer_and_length(rng):
    both = {"hadamard": 16}
    low = emulate(product, Recipe(forward={"activation": both, "weight": both}))
    with pytest.raises(lowp.ArgumentError, match=r"fc, forward, activation: hadamard=16 does not divide .* 24"):
        low(tree(normal(rng, 24, 8)), jnp.asarray(normal(rng, 4, 24)))


# ---- random bits


def test_random_bits_depend_on_the_site_alone(rng):
    x, w = normal(rng, 6, 8), np.eye(8, dtype=np.float32)
    low = emulate(product, Recipe(activation=STOCHASTIC, seed=4))
    seed = site_seed(4, "fc", "linear", 0, "forward", "activation")
    wanted = q(x, "float8_e4m3fn", "stochastic_a", seed=seed)
    same(low(tree(w), jnp.asarray(x)), wanted)
    same(jax.jit(low)(tree(w), jnp.asarray(x)), wanted)
    same(jax.jit(emulate(jax.jit(product), Recipe(activation=STOCHASTIC, seed=4)))(tree(w), jnp.asarray(x)), wanted)
    twice = emulate(lambda p, x: (product(p, x), product(p, x)), Recipe(activation=STOCHASTIC, seed=4))
    first, second = twice(tree(w), jnp.asarray(x))
    same(first, wanted)
    same(second, q(x, "float8_e4m3fn", "stochastic_a", seed=site_seed(4, "fc", "linear", 1, "forward", "activation")))


def test_the_seed_of_a_call_changes_all_bits_without_another_compilation(rng):
    x, w = jnp.asarray(normal(rng, 64, 8)), tree(np.eye(8, dtype=np.float32))
    traces = []

    def counted(params, x):
        traces.append(None)
        return product(params, x)

    low = jax.jit(emulate(counted, Recipe(activation=STOCHASTIC)))
    results = [np.asarray(low(w, x, seed=jnp.int32(step))) for step in (0, 1, 0, 2)]
    assert len(traces) == 1
    same(results[0], results[2])
    assert not np.array_equal(results[0], results[1])
    assert not np.array_equal(results[1], results[3])
    eager = emulate(product, Recipe(activation=STOCHASTIC))
    same(eager(w, x, seed=1), results[1])
    same(eager(w, x, seed=jnp.uint32(1)), results[1])
    assert not np.array_equal(eager(w, x, seed=1 << 40), eager(w, x, seed=0))


@pytest.mark.parametrize("bad", [-1, 1.5, "x", 1 << 64, np.ones(2, int)])
def test_a_seed_is_an_integer(rng, bad):
    with pytest.raises((lowp.ArgumentError, lowp.ArgumentTypeError), match="seed"):
        emulate(product, "fp8")(tree(np.eye(8, dtype=np.float32)), jnp.ones((2, 8)), seed=bad)


def scan(params, x):
    return jax.lax.scan(lambda h, _: (h, h @ params["fc"]["w"]), x, None, length=6)[1]


def fori(params, x):
    out = jnp.zeros((6, *x.shape))
    return jax.lax.fori_loop(0, 6, lambda i, out: out.at[i].set(x @ params["fc"]["w"]), out)


def remat(params, x):
    return jax.lax.scan(jax.checkpoint(lambda h, _: (h, h @ params["fc"]["w"])), x, None, length=6)[1]


@pytest.mark.parametrize("loop", [scan, fori, remat])
def test_every_round_of_a_loop_draws_its_own_bits(rng, loop):
    x, w = jnp.asarray(normal(rng, 32, 8)), tree(np.eye(8, dtype=np.float32))
    low = emulate(loop, Recipe(activation=STOCHASTIC))
    rows = np.asarray(low(w, x))
    for i in range(6):
        assert all(not np.array_equal(rows[i], rows[j]) for j in range(i))
    same(rows, jax.jit(low)(w, x))
    assert not np.array_equal(rows, low(w, x, seed=1))


def test_recomputing_draws_the_same_bits_again(rng):
    x, w = jnp.asarray(normal(rng, 16, 8)), {"fc": {"w": jnp.asarray(normal(rng, 8, 8))}}

    def deep(body):
        return lambda p, x: jnp.sum(jax.lax.scan(body(p), x, None, length=3)[0] ** 2)

    body = lambda p: lambda h, _: (jnp.tanh(h @ p["fc"]["w"]), None)  # noqa: E731
    recipe = Recipe(activation=STOCHASTIC, weight=STOCHASTIC, gradient=STOCHASTIC)
    kept = jax.grad(emulate(deep(body), recipe))(w, x)
    again = jax.grad(emulate(deep(lambda p: jax.checkpoint(body(p))), recipe))(w, x)
    close(kept["fc"]["w"], again["fc"]["w"])


def test_stochastic_rounding_is_unbiased_over_seeds(rng):
    x, w = jnp.asarray(normal(rng, 4, 8)), tree(np.eye(8, dtype=np.float32))
    low = emulate(product, Recipe(activation=Cast("float4_e2m1fn", rounding="stochastic_a")))
    mean = jax.jit(lambda: jnp.mean(jax.lax.map(lambda s: low(w, x, seed=s), jnp.arange(4096)), axis=0))()
    # values below 6 have steps of at most 2; a mean of 4096 has a standard deviation of at most 1/64
    np.testing.assert_allclose(np.asarray(mean), np.asarray(x), atol=5 / 64)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_gradient_taken_inside_draws_the_bits_of_one_taken_outside(rng, checkpoint, shared):
    params = {"blocks": {"w": jnp.asarray(normal(rng, 3, 8, 8))}, "head": {"w": jnp.asarray(normal(rng, 8, 8))}}

    def loss(p, x):
        body = lambda h, w: (jnp.tanh(h @ w), None)  # noqa: E731
        x, _ = jax.lax.scan(jax.checkpoint(body) if checkpoint else body, x, p["blocks"]["w"])
        x = x @ p["head"]["w"]
        return jnp.sum((jnp.tanh(x) @ p["head"]["w"] if shared else x) ** 2)

    cast = {"format": "float8_e4m3fn", "rounding": "stochastic_a"}
    recipe = Recipe(weight=cast, activation=cast, gradient=cast)
    x = jnp.asarray(normal(rng, 16, 8))
    outside = jax.jit(jax.grad(lambda p: emulate(loss, recipe)(p, x, seed=3)))(params)
    inside = jax.jit(lambda p: emulate(jax.grad(loss), recipe)(p, x, seed=3))(params)
    jax.tree.map(close, outside, inside)
