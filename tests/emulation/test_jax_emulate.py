"""`lowp.jax.emulate`: the six operands of a product, bit for bit, wherever a program has its products."""

import numpy as np
import pytest

import lowp
from lowp.emulation.recipe import Recipe

jax = pytest.importorskip("jax")
jnp = jax.numpy
from lowp.emulation._jax_emulate import emulate  # noqa: E402

FP8 = Recipe(weight="float8_e4m3fn", activation="float8_e4m3fn", gradient="float8_e5m2")
MIXED = Recipe(
    forward={"activation": "float8_e4m3fn", "weight": "float6_e2m3fn"},
    grad_input={"gradient": "float8_e5m2", "weight": "float8_e4m3fn"},
    grad_weight={"gradient": "bfloat16", "activation": "float6_e3m2fn"},
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def q(x, fmt, **options):
    return np.asarray(lowp.quantize(np.asarray(x), fmt, **options))


def bits(x):
    return np.asarray(x).view(np.uint32)


def close(a, b):
    """The products are summed in another order; what is summed is the same."""
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=2e-5)


def layer(params, x):
    return x @ params["fc"]["w"]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_six_operands_of_a_layer_are_rounded_each_in_its_own_format(rng, compiled):
    x, w, g = normal(rng, 6, 8), normal(rng, 8, 5), normal(rng, 6, 5)
    low = emulate(layer, MIXED)
    y, pull = jax.vjp(jax.jit(low) if compiled else low, {"fc": {"w": jnp.asarray(w)}}, jnp.asarray(x))
    dw, dx = pull(jnp.asarray(g))
    close(y, q(x, "float8_e4m3fn") @ q(w, "float6_e2m3fn"))
    close(dx, q(g, "float8_e5m2") @ q(w, "float8_e4m3fn").T)
    close(dw["fc"]["w"], q(x, "float6_e3m2fn").T @ q(g, "bfloat16"))


def identity_operands(recipe, x, w, g):
    """Return the six rounded operands of `x @ w`, exactly: in each product the other operand is the identity."""
    tokens, inner, outer = x.shape[0], x.shape[1], w.shape[1]
    params = lambda v: {"fc": {"w": jnp.asarray(v)}}  # noqa: E731
    low = emulate(layer, recipe)
    eye = lambda n: np.eye(n, dtype=np.float32)  # noqa: E731
    x_forward = low(params(eye(inner)), jnp.asarray(x))
    w_forward = low(params(w), jnp.asarray(eye(inner)))
    g_input = jax.vjp(lambda v: low(params(eye(outer)), v), jnp.asarray(x[:, :1] * np.ones(outer, np.float32)))[1]
    w_input = jax.vjp(lambda v: low(params(w), v), jnp.asarray(np.ones((outer, inner), np.float32)))[1]
    g_weight = jax.vjp(lambda v: low(params(v), jnp.asarray(eye(tokens))), jnp.zeros((tokens, outer)))[1]
    x_weight = jax.vjp(lambda v: low(params(v), jnp.asarray(x)), jnp.zeros((inner, tokens)))[1]
    return {
        "x_forward": x_forward,
        "w_forward": w_forward,
        "g_input": g_input(jnp.asarray(g))[0],
        "w_input": w_input(jnp.asarray(eye(outer)))[0].T,
        "g_weight": g_weight(jnp.asarray(g))[0],
        "x_weight": x_weight(jnp.asarray(eye(tokens)))[0].T,
    }


@pytest.mark.parametrize(
    "fmt", ["mxfp4", "mxfp8_e4m3", "nvfp4", "float8_e4m3fn", "int8_row", "posit8", "e4m3fn_t128x128"]
)
def test_each_operand_has_its_blocks_along_its_own_contraction_axis(rng, fmt):
    x, w, g = (normal(rng, 32, 32) * np.exp2(rng.integers(-6, 6, (32, 32))).astype(np.float32) for _ in range(3))
    own = {
        "x_forward": (x, 1),
        "w_forward": (w, 0),
        "g_input": (g, 1),
        "w_input": (w, 1),
        "g_weight": (g, 0),
        "x_weight": (x, 0),
    }
    # identities must survive: the other operand of each product is left alone
    for name, (array, axis) in own.items():
        place = {
            "x_forward": {"forward": {"activation": fmt}},
            "w_forward": {"forward": {"weight": fmt}},
            "g_input": {"grad_input": {"gradient": fmt}},
            "w_input": {"grad_input": {"weight": fmt}},
            "g_weight": {"grad_weight": {"gradient": fmt}},
            "x_weight": {"grad_weight": {"activation": fmt}},
        }[name]
        got = identity_operands(Recipe(**place), x, w, g)[name]
        tiled = "t128" in fmt
        wanted = q(
            array, fmt, axis=((1 - axis, axis) if tiled else axis if fmt not in ("float8_e4m3fn", "posit8") else -1)
        )
        np.testing.assert_array_equal(bits(got + 0.0), bits(wanted + 0.0), err_msg=name)


def test_tokens_are_flattened_for_the_gradient_of_the_weight(rng):
    x, w, g = normal(rng, 3, 4, 8), normal(rng, 8, 16), normal(rng, 3, 4, 16)
    recipe = Recipe(grad_weight={"activation": "mxfp4", "gradient": "mxfp4"})
    _, pull = jax.vjp(lambda w: emulate(layer, recipe)({"fc": {"w": w}}, jnp.asarray(x)), jnp.asarray(w))
    flat_x, flat_g = x.reshape(12, 8), g.reshape(12, 16)
    close(pull(jnp.asarray(g))[0], q(flat_x, "mxfp4", axis=0).T @ q(flat_g, "mxfp4", axis=0))


@pytest.mark.parametrize(
    ("formula", "shape_x", "shape_w"),
    [
        ("bk,kn->bn", (4, 8), (8, 3)),
        ("bk,nk->bn", (4, 8), (3, 8)),
        ("kb,kn->nb", (8, 4), (8, 3)),
        ("bthd,hdn->btn", (2, 3, 4, 2), (4, 2, 5)),
        ("btd,dhe->bthe", (2, 3, 8), (8, 2, 4)),
        ("ebk,ekn->ebn", (3, 4, 8), (3, 8, 5)),
        ("k,kn->n", (8,), (8, 5)),
        ("bk,k->b", (4, 8), (8,)),
    ],
)
def test_products_of_any_layout(rng, formula, shape_x, shape_w):
    x, w = normal(rng, *shape_x), normal(rng, *shape_w)
    low = emulate(lambda p, x: jnp.einsum(formula, x, p["w"]), MIXED)
    y, pull = jax.vjp(lambda w, x: low({"w": w}, x), jnp.asarray(w), jnp.asarray(x))
    g = normal(rng, *y.shape)
    dw, dx = pull(jnp.asarray(g))
    product = lambda w, x: jnp.einsum(formula, x, w)  # noqa: E731
    pull_x = jax.vjp(lambda x: product(jnp.asarray(q(w, "float8_e4m3fn")), x), jnp.asarray(x))[1]
    pull_w = jax.vjp(lambda w: product(w, jnp.asarray(q(x, "float6_e3m2fn"))), jnp.asarray(w))[1]
    close(y, product(q(w, "float6_e2m3fn"), q(x, "float8_e4m3fn")))
    close(dx, pull_x(jnp.asarray(q(g, "float8_e5m2")))[0])
    close(dw, pull_w(jnp.asarray(q(g, "bfloat16")))[0])


# ---- where products can be


def mlp(params, x):
    for name in ("one", "two"):
        x = jnp.tanh(x @ params[name]["w"])
    return x


def by_hand(params, x, fmt="float8_e4m3fn"):
    for name in ("one", "two"):
        x = jnp.tanh(jnp.asarray(q(x, fmt)) @ jnp.asarray(q(params[name]["w"], fmt)))
    return x


@pytest.fixture
def params(rng):
    return {name: {"w": jnp.asarray(normal(rng, 8, 8))} for name in ("one", "two")}


def in_jit(params, x):
    return jax.jit(mlp)(params, x)


def in_checkpoint(params, x):
    return jax.checkpoint(mlp)(params, x)


def in_vmap(params, x):
    return jax.vmap(mlp, (None, 0))(params, x)


def in_scan(params, x):
    stacked = jnp.stack([params["one"]["w"], params["two"]["w"]])
    return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, stacked)[0]


def in_checkpointed_scan(params, x):
    stacked = jnp.stack([params["one"]["w"], params["two"]["w"]])
    return jax.lax.scan(jax.checkpoint(lambda h, w: (jnp.tanh(h @ w), None)), x, stacked)[0]


def in_fori(params, x):
    stacked = jnp.stack([params["one"]["w"], params["two"]["w"]])
    return jax.lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ stacked[i]), x)


def in_while(params, x):
    stacked = jnp.stack([params["one"]["w"], params["two"]["w"]])
    return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jnp.tanh(s[1] @ stacked[s[0]])), (0, x))[1]


def in_cond(params, x):
    return jax.lax.cond(x.sum() > -1e9, mlp, lambda p, x: x, params, x)


def in_switch(params, x):
    return jax.lax.switch(jnp.int32(2), [lambda p, x: x, lambda p, x: -x, mlp], params, x)


@jax.custom_jvp
def _ruled(x):
    return jnp.tanh(x)


_ruled.defjvp(lambda primals, tangents: (jnp.tanh(primals[0]), tangents[0] * (1 - jnp.tanh(primals[0]) ** 2)))


def in_custom_jvp(params, x):
    for name in ("one", "two"):
        x = _ruled(x @ params[name]["w"])
    return x


@jax.custom_jvp
def _whole(params, x):
    return mlp(params, x)


_whole.defjvp(lambda primals, tangents: jax.jvp(mlp, primals, tangents))


@jax.custom_vjp
def _product(x, w):
    return x @ w


_product.defvjp(lambda x, w: (x @ w, (x, w)), lambda res, g: (g @ res[1].T, res[0].T @ g))


def in_custom_vjp(params, x):
    for name in ("one", "two"):
        x = jnp.tanh(_product(x, params[name]["w"]))
    return x


PLACES = [in_jit, in_checkpoint, in_vmap, in_scan, in_checkpointed_scan, in_fori, in_while, in_cond, in_switch]
PLACES += [in_custom_jvp, _whole, in_custom_vjp]


@pytest.mark.parametrize("place", PLACES, ids=lambda f: getattr(f, "__name__", "custom_jvp"))
@pytest.mark.parametrize("compiled", [False, True])
def test_products_are_found_wherever_they_are(rng, params, place, compiled):
    x = jnp.asarray(normal(rng, 4, 8))
    low = emulate(place, FP8)
    close((jax.jit(low) if compiled else low)(params, x), by_hand(params, x))
    assert low.report.find(role="weight", cast="float8_e4m3fn")


def gradients(function, params, x):
    return jax.grad(lambda p, x: jnp.sum(function(p, x) ** 2), (0, 1))(params, x)


@pytest.mark.parametrize("place", [p for p in PLACES if p not in (in_while, _whole)], ids=lambda f: f.__name__)
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_are_those_of_emulated_layers_wherever_they_are(rng, params, place, compiled):
    x = jnp.asarray(normal(rng, 4, 8))
    plain = gradients(emulate(mlp, FP8), params, x)
    low = emulate(place, FP8)
    found = (jax.jit(gradients, static_argnums=0) if compiled else gradients)(low, params, x)
    jax.tree.map(close, found, plain)
    assert low.report.find(product="grad_weight", role="gradient", cast="float8_e5m2")


@pytest.mark.parametrize("place", [p for p in PLACES if p not in (in_while, _whole)], ids=lambda f: f.__name__)
def test_gradients_taken_inside_are_the_same(rng, params, place):
    x = jnp.asarray(normal(rng, 4, 8))
    plain = gradients(emulate(mlp, MIXED), params, x)
    low = emulate(lambda p, x: gradients(place, p, x), MIXED)
    jax.tree.map(close, jax.jit(low)(params, x), plain)
    assert {row.product for row in low.report.rows} == {"forward", "grad_input", "grad_weight"}


def test_transformations_compose_from_outside(rng, params):
    x = jnp.asarray(normal(rng, 5, 4, 8))
    low = emulate(mlp, FP8)
    close(jax.vmap(low, (None, 0))(params, x), jnp.stack([by_hand(params, part) for part in x]))
    per_example = jax.vmap(lambda p, x: gradients(low, p, x), (None, 0))(params, x)
    jax.tree.map(lambda a, b: close(a[2], b), per_example, gradients(low, params, x[2]))
    jax.tree.map(close, gradients(jax.checkpoint(low), params, x[0]), gradients(low, params, x[0]))
