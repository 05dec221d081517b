"""`lowp.jax.emulate`: which operand is a weight, what layers are called, reports, rules, errors; models unedited."""

import functools
import warnings

import numpy as np
import pytest

import lowp
from lowp.emulation.recipe import PASSES, Cast, Recipe, Rule

jax = pytest.importorskip("jax")
jnp = jax.numpy
from lowp.emulation._jax_emulate import emulate  # noqa: E402
from lowp.emulation._jax_explain import explain_function  # noqa: E402

EVERYTHING = ("linear", "matmul", "conv", "attention", "embedding", "recurrent")
FP8 = Recipe(weight="float8_e4m3fn", activation="float8_e4m3fn", gradient="float8_e5m2", operations=EVERYTHING)


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def array(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def layers(report):
    return list(dict.fromkeys((row.layer, row.operation) for row in report.rows))


# ---- which operand is a weight


def test_an_array_as_first_argument_is_data(rng):
    low = emulate(jnp.matmul, FP8)
    low(array(rng, 4, 4), array(rng, 4, 4))
    assert {row.operation for row in low.report.rows} == {"matmul"}


@pytest.mark.parametrize("weights", [1, (1,), "1", "1*", ["w"]])
def test_parameters_can_be_named(rng, weights):
    low = emulate(lambda x, w: x @ w, FP8, weights="w" if weights == ["w"] else weights)
    args = (array(rng, 4, 4), array(rng, 4, 4))
    low(args[0], w=args[1]) if weights == ["w"] else low(*args)
    assert {(row.operation, row.role) for row in low.report.rows} == {("linear", "activation"), ("linear", "weight")}


def test_paths_choose_parameters(rng):
    tree = {"frozen": {"w": array(rng, 4, 4)}, "trained": {"w": array(rng, 4, 4)}}
    low = emulate(lambda p, x: x @ p["frozen"]["w"] @ p["trained"]["w"], FP8, weights="0.trained")
    low(tree, array(rng, 2, 4))
    assert layers(low.report) == [("", "matmul"), ("trained", "linear")]


def test_what_parameters_alone_give_is_a_weight(rng):
    tree = {
        "fc": {"v": array(rng, 4, 4), "g": array(rng, 4)},
        "a": {"w": array(rng, 4, 2)},
        "b": {"w": array(rng, 2, 4)},
    }

    def normalized(p, x):
        w = p["fc"]["v"] * (p["fc"]["g"] / jnp.linalg.norm(p["fc"]["v"], axis=0)) + p["a"]["w"] @ p["b"]["w"]
        return x @ w.astype(jnp.float32).T

    low = emulate(normalized, FP8)
    low(tree, array(rng, 2, 4))
    assert layers(low.report) == [("b", "linear"), ("fc.v", "linear")]
    assert {row.role for row in low.report.rows if row.layer == "fc.v"} == {"activation", "weight"}


def test_captured_arrays_are_parameters_where_no_argument_is(rng):
    params = {"params": {"Dense_0": {"kernel": array(rng, 4, 4)}}}
    low = emulate(lambda x: x @ params["params"]["Dense_0"]["kernel"], FP8)
    low(array(rng, 2, 4))
    assert layers(low.report) == [("params.Dense_0", "linear")]
    data = array(rng, 2, 4)
    low = emulate(lambda p: data @ p["params"]["Dense_0"]["kernel"], FP8)
    low(params)
    assert [(row.role, row.layer) for row in low.report.rows] == [
        ("activation", "params.Dense_0"),
        ("weight", "params.Dense_0"),
    ]


def test_arguments_that_are_no_arrays_stay_as_they_are(rng):
    def apply(params, x, activation, train, scale=1):
        return (activation(x @ params["w"]) if train is True else x, scale)

    low = emulate(apply, FP8)
    y, scale = low({"w": array(rng, 4, 4)}, array(rng, 2, 4), jnp.tanh, True, scale="a string")
    assert y.shape == (2, 4)
    assert scale == "a string"


def test_a_captured_tracer_works(rng):
    x = array(rng, 4)

    def outer(w):
        return emulate(lambda x: x @ w, FP8)(x).sum()

    got = jax.jit(jax.grad(outer))(array(rng, 4, 4))
    np.testing.assert_array_equal(np.asarray(got), np.outer(lowp.quantize(np.asarray(x), "fp8"), np.ones(4)))


# ---- models


def test_flax_linen_models(rng):
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(10, 8)(ids)
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(x, x)
            x = nn.RNN(nn.LSTMCell(8))(nn.Conv(8, (3,))(x))
            return nn.Dense(4, name="head")(nn.gelu(nn.Dense(16)(x)))

    model, ids = Model(), jnp.arange(10).reshape(2, 5)
    variables = model.init(jax.random.key(0), ids)
    low = emulate(model.apply, FP8.replace(rules=[Rule("*.head", exempt=True)]))
    assert low(variables, ids).shape == (2, 5, 4)
    found = layers(low.report)
    for wanted in [
        ("params.Embed_0", "embedding"),
        ("params.MultiHeadDotProductAttention_0.query", "linear"),
        ("Model.MultiHeadDotProductAttention_0", "attention"),
        ("params.Conv_0", "conv"),
        ("params.LSTMCell_0.hi", "recurrent"),
        ("params.Dense_0", "linear"),
    ]:
        assert wanted in found
    assert low.report.find(layer="params.head")[0].cast == "exempt"
    loss = lambda v, ids: jnp.sum(low(v, ids) ** 2)  # noqa: E731
    grads = jax.jit(jax.grad(loss))(variables, ids)
    assert all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads["params"]["Dense_0"]))
    assert low.report.find(layer="params.LSTMCell_0.hi", product="grad_weight", role="gradient")


def test_flax_nnx_models(rng):
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(10, 8, rngs=rngs)
            self.linear = nnx.Linear(8, 4, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, ids):
            return self.dropout(self.linear(self.embed(ids)))

    model, ids = Model(nnx.Rngs(0)), jnp.arange(10).reshape(2, 5)
    low = emulate(model, FP8)
    assert low(ids).shape == (2, 5, 4)
    assert layers(low.report) == [("embed", "embedding"), ("linear", "linear")]
    low = emulate(lambda model, ids: model(ids).sum(), FP8)
    nnx.grad(low)(model, ids)
    assert low.report.find(layer="linear", product="grad_weight")
    graph, state = nnx.split(model)
    low = emulate(lambda state, ids: nnx.merge(graph, state)(ids), FP8)
    low(state, ids)
    assert layers(low.report) == [("embed", "embedding"), ("linear", "linear")]


def test_equinox_models(rng):
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    x = array(rng, 4, 3)
    wanted = [("layers.0", "linear"), ("layers.1", "linear")]
    plain = emulate(model, FP8)
    by_hand = jnp.stack([plain(row) for row in x])
    assert layers(plain.report) == wanted
    for function in (
        jax.vmap(model),
        lambda x: jax.vmap(model)(x) + 0,
        functools.partial(lambda m, x: jax.vmap(m)(x), model),
    ):
        low = emulate(function, FP8)
        np.testing.assert_allclose(np.asarray(low(x)), np.asarray(by_hand), rtol=1e-6, atol=1e-6)
        assert layers(low.report) == wanted
    loss = lambda model, x: jnp.sum(jax.vmap(model)(x) ** 2)  # noqa: E731
    outside = eqx.filter_jit(eqx.filter_grad(emulate(loss, FP8)))(model, x)
    inside = emulate(eqx.filter_grad(loss), FP8)(model, x)
    for a, b in zip(jax.tree.leaves(outside), jax.tree.leaves(inside), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5)


def test_a_whole_training_step_is_emulated(rng):
    optax = pytest.importorskip("optax")
    params = {name: {"kernel": array(rng, 8, 8)} for name in ("one", "two")}
    x, optimizer = array(rng, 16, 8), optax.adam(1e-2)

    def loss(params, x):
        return jnp.mean((jnp.tanh(x @ params["one"]["kernel"]) @ params["two"]["kernel"] - x) ** 2)

    def step(state, x):
        value, grads = jax.value_and_grad(loss)(state["params"], x)
        updates, moments = optimizer.update(grads, state["moments"])
        return {"params": optax.apply_updates(state["params"], updates), "moments": moments}, value

    low = emulate(step, FP8)
    compiled, state = jax.jit(low), {"params": params, "moments": optimizer.init(params)}
    losses = []
    for number in range(60):
        state, value = compiled(state, x, seed=jnp.uint32(number))
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    assert {(r.layer, r.product) for r in low.report.rows} == {
        ("params.one", "forward"),
        ("params.two", "forward"),
        ("params.two", "grad_input"),
        ("params.two", "grad_weight"),
        ("params.one", "grad_weight"),
    }


# ---- rules and reports


def mlp(params, x):
    for name, layer in params.items():
        with jax.named_scope(f"scope_{name}"):
            x = x @ layer["kernel"]
    return x


@pytest.fixture
def params(rng):
    return {name: {"kernel": array(rng, 8, 8)} for name in ("first", "middle", "last")}


@pytest.mark.parametrize("match", ["last", "last.kernel", "scope_last", "l*t", ["nothing*", "last"]])
def test_rules_match_layers_paths_and_scopes(rng, params, match):
    low = emulate(mlp, FP8.replace(rules=[{"match": match, "exempt": True}]))
    low(params, array(rng, 2, 8))
    assert [row.layer for row in low.report.rows if row.cast == "exempt"] == ["last"]


def test_rules_change_single_casts(rng, params):
    rule = {"match": "middle", "weight": "bfloat16", "grad_weight": {"gradient": "float16"}}
    low = emulate(mlp, FP8.replace(rules=[rule]))
    jax.grad(lambda p, x: low(p, x).sum())(params, array(rng, 2, 8))
    casts = {(r.layer, r.product, r.role): r.cast for r in low.report.rows}
    assert casts["middle", "forward", "weight"] == casts["middle", "grad_input", "weight"] == "bfloat16"
    assert casts["middle", "grad_weight", "gradient"] == "float16"
    assert casts["first", "forward", "weight"] == "float8_e4m3fn"


def test_a_pattern_that_matches_nothing_is_told(rng, params):
    low = emulate(mlp, FP8.replace(rules=[Rule("lst", exempt=True)]))
    with pytest.warns(lowp.PrecisionWarning, match="'lst': matches no layer.*'last'"):
        low(params, array(rng, 2, 8))
    assert "'lst': matches no layer" in low.report.remarks[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low(params, array(rng, 2, 8))  # once is enough
    with pytest.raises(lowp.ArgumentError, match=r"matches no layer.*first"):
        emulate(mlp, FP8.replace(rules=[Rule("lst", exempt=True)]), strict=True)(params, array(rng, 2, 8))


def test_explain_says_what_a_run_reports(rng, params):
    x = array(rng, 2, 8)
    low = emulate(mlp, FP8)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, x))
    before = low.explain(*shapes)
    jax.grad(lambda p: low(p, x).sum())(params)
    assert before.rows == low.report.rows
    assert str(explain_function(FP8, mlp, params, x)) == str(before) == str(FP8.explain(mlp, params, x))
    assert not before.find(layer="first", product="grad_input")  # its input needs no gradient
    with pytest.raises(lowp.ArgumentError, match="example arguments"):
        explain_function(FP8, mlp)


def test_explain_remarks_what_has_no_gradient(rng):
    loop = lambda p, x: jax.lax.while_loop(lambda x: x.sum() < 0, lambda x: x @ p["w"], x)  # noqa: E731
    report = emulate(loop, FP8).explain({"w": array(rng, 4, 4)}, array(rng, 2, 4))
    assert any("no gradient" in remark for remark in report.remarks)


def test_what_cannot_be_emulated_is_remarked_or_refused(rng):
    groups = jnp.array([2, 2], jnp.int32)
    ragged = lambda p, x: jax.lax.ragged_dot(x, p["w"], groups)  # noqa: E731
    args = ({"w": array(rng, 2, 4, 4)}, array(rng, 4, 4))
    low = emulate(ragged, FP8)
    low(*args)
    assert any("ragged_dot" in remark for remark in low.report.remarks)
    with pytest.raises(lowp.ArgumentError, match="ragged"):
        emulate(ragged, FP8, strict=True)(*args)


def test_products_of_integers_stay(rng):
    x = jnp.ones((3, 3), jnp.int8)
    low = emulate(lambda x: jax.lax.dot(x, x, preferred_element_type=jnp.int32), FP8)
    assert low(x).dtype == jnp.int32
    assert "int8" in low.report.remarks[0]


def test_delayed_scaling_needs_state(rng, params):
    recipe = Recipe(activation=Cast("float8_e4m3fn", scaling="delayed"))
    with pytest.raises(lowp.ArgumentError, match=r"delayed.*state"):
        emulate(mlp, recipe)(params, array(rng, 2, 8))


def test_nonfinite_results_are_remarked(rng, params):
    low = emulate(mlp, FP8)
    low({**params, "last": {"kernel": jnp.full((8, 8), jnp.nan)}}, array(rng, 2, 8))
    assert any("NaN" in remark for remark in low.report.remarks)
    low = emulate(mlp, FP8, check_finite=True)
    jax.block_until_ready(jax.jit(low)({**params, "middle": {"kernel": jnp.full((8, 8), jnp.nan)}}, array(rng, 2, 8)))
    jax.effects_barrier()
    assert "'middle'" in next(remark for remark in low.report.remarks if "NaN" in remark)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda f: emulate(3, "fp8"), lowp.ArgumentTypeError, "fn=3"),
        (lambda f: emulate(f, "mxfp9"), lowp.ArgumentError, "mxfp8"),
        (lambda f: emulate(f, "fp8", weights=1.5), lowp.ArgumentTypeError, "weights=1.5"),
        (lambda f: emulate(f, "fp8", weights=True), lowp.ArgumentTypeError, "weights"),
        (lambda f: emulate(f, "fp8", shard_axis=3), lowp.ArgumentTypeError, "shard_axis"),
        (
            lambda f: emulate(f, "fp8", weights="nothing")({"w": jnp.ones((2, 2))}),
            lowp.ArgumentError,
            "matches no array",
        ),
    ],
)
def test_bad_arguments(call, error, match):
    with pytest.raises(error, match=match):
        call(lambda p: p)


def delayed(name):
    recipe = Recipe.named(name)
    return any(recipe.cast(role, product).scaling == "delayed" for product, roles in PASSES.items() for role in roles)


@pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")
@pytest.mark.parametrize("name", [n for n in Recipe.names() if not delayed(n)])
def test_every_named_recipe_trains(rng, name):
    recipe = Recipe.named(name)
    params = {f"blocks.{i}": {"kernel": array(rng, 128, 128) / 11} for i in range(2)}
    x = array(rng, 128, 128)

    def loss(p, x):
        return jnp.mean((mlp(p, x) - x) ** 2)

    low = emulate(loss, recipe)
    value, grads = jax.jit(jax.value_and_grad(low))(params, x, seed=jnp.uint32(3))
    exact, right = jax.value_and_grad(loss)(params, x)
    assert abs(float(value) - float(exact)) < 0.5 * float(exact)
    for got, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(right), strict=True):
        cosine = jnp.sum(got * wanted) / jnp.linalg.norm(got) / jnp.linalg.norm(wanted)
        assert float(cosine) > (0.5 if "w1a1" not in name else 0.2)
