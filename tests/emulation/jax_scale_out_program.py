"""Run by test_jax_scale_out in a process of its own: eight devices must round as one does."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import lowp
import lowp.jax as lj

RNG = np.random.default_rng(0)
MESH = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
GRID = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
CASES = [
    ("float8_e4m3fn", "stochastic_a"),
    ("mxfp4", "stochastic_a"),
    ("nvfp4", "ties_to_even"),
    ("e4m3fn_tensor", "stochastic_a"),
]


def bits(x):
    return np.asarray(x).view(np.uint32)


def same(a, b, what):
    assert np.array_equal(bits(a), bits(b)), what


def verbs():
    x = RNG.normal(size=(64, 96)).astype(np.float32)
    x[3, 5] = 100
    for fmt, mode in [*CASES, ("posit8", "stochastic_a"), ("int8_row", "ties_to_even")]:
        whole = lowp.quantize(x, fmt, mode, seed=7)
        quantize = jax.jit(lambda x, fmt=fmt, mode=mode: lj.quantize(x, fmt, mode, seed=7))
        for mesh, spec in ((MESH, P("data")), (MESH, P(None, "data")), (GRID, P("data", "model"))):
            same(quantize(jax.device_put(x, NamedSharding(mesh, spec))), whole, (fmt, mode, spec))

        def piece(x, fmt=fmt, mode=mode):
            shard = lj.Shard((jax.lax.axis_index("data") * 8, 0), (64, 96))
            return lj.quantize(x, fmt, mode, seed=7, shard=shard, axis_name="data")

        split = jax.jit(jax.shard_map(piece, mesh=MESH, in_specs=P("data"), out_specs=P("data")))
        same(split(x), whole, (fmt, mode, "shard_map"))


def operands(fmt, mode):
    """Recipes that each round one operand, by the product whose other operand is the identity."""
    cast = lj.Cast(fmt, rounding=mode)
    for product, role in (
        ("forward", "activation"),
        ("forward", "weight"),
        ("grad_input", "gradient"),
        ("grad_input", "weight"),
        ("grad_weight", "gradient"),
        ("grad_weight", "activation"),
    ):
        yield product, role, lj.Recipe(**{product: {role: cast}})


def layer(params, x):
    return x @ params["one"]["w"]


def step(function, params, x, g):
    """Return the results of a step, token by token: sums over tokens would depend on the devices."""
    y, pull = jax.vjp(function, params, x)
    return y, pull(g)[1]


def products():
    eye = np.eye(32, dtype=np.float32)
    weights = RNG.normal(size=(32, 32)).astype(np.float32)
    x, g = (RNG.normal(size=(256, 32)).astype(np.float32) for _ in range(2))
    x[3, 5] = 30
    seed = jnp.uint32(5)
    for fmt, mode in CASES:
        for product, role, recipe in operands(fmt, mode):
            # with identities the products are exact in any order
            ones = np.tile(eye, (8, 1))
            args = ({"one": {"w": weights}}, ones, ones) if role == "weight" else ({"one": {"w": eye}}, x, g)
            low = lj.emulate(layer, recipe)
            whole = jax.jit(lambda p, x, g, low=low: step(lambda p, x: low(p, x, seed=seed), p, x, g))
            wanted = whole(*args)
            placed = [jax.device_put(v, NamedSharding(MESH, P("data"))) for v in args[1:]]
            for got, want in zip(whole(args[0], *placed), wanted, strict=True):
                same(got, want, (fmt, mode, product, role, "NamedSharding"))
            split = lj.emulate(layer, recipe, shard_axis="data")

            def piece(p, x, g, split=split):
                return step(lambda p, x: split(p, x, seed=seed), p, x, g)

            specs = {"mesh": MESH, "in_specs": (P(), P("data"), P("data")), "out_specs": P("data")}
            mapped = jax.jit(jax.shard_map(piece, **specs, check_vma=mode != "ties_to_even"))
            for got, want in zip(mapped(*args), wanted, strict=True):
                same(got, want, (fmt, mode, product, role, "shard_map"))


def gradients_of_weights():
    """The operands of the weight's gradient, by tokens that each have an output of their own."""
    tokens = 256
    x, g = RNG.normal(size=(tokens, 32)).astype(np.float32), RNG.normal(size=(tokens, tokens)).astype(np.float32)
    for fmt in ("mxfp4", "e4m3fn_tensor"):
        for role in ("activation", "gradient"):
            recipe = lj.Recipe(grad_weight={role: lj.Cast(fmt, rounding="stochastic_a")})
            tree = {"fc": {"w": np.zeros((32, tokens), np.float32)}}
            operand = x if role == "activation" else g
            if role == "gradient":
                tree = {"fc": {"w": np.zeros((tokens, tokens), np.float32)}}

            def weight_gradient(x, g, low):
                return jax.grad(lambda p: jnp.sum(low(p, x) * g))(tree)["fc"]["w"]  # noqa: B023

            product = lambda p, x: x @ p["fc"]["w"]  # noqa: E731
            eye = np.eye(tokens, dtype=np.float32)
            args = (operand, eye) if role == "activation" else (eye, operand)
            low = lj.emulate(product, recipe)
            wanted = jax.jit(lambda x, g, low=low: weight_gradient(x, g, low))(*args)
            split = lj.emulate(product, recipe, shard_axis="data")

            def piece(x, g, split=split):
                return jax.lax.psum(weight_gradient(x, g, split), "data")

            mapped = jax.shard_map(piece, mesh=MESH, in_specs=P("data"), out_specs=P(), check_vma=False)
            same(jax.jit(mapped)(*args) + 0.0, wanted + 0.0, (fmt, role))


def inside():
    """A program that has its own shard_map; the split is found there."""
    params = {"one": {"w": np.eye(32, dtype=np.float32)}}
    x = RNG.normal(size=(256, 32)).astype(np.float32)
    recipe = lj.Recipe(activation=lj.Cast("nvfp4", rounding="stochastic_a"))
    wanted = jax.jit(lj.emulate(layer, recipe))(params, x)
    program = jax.shard_map(layer, mesh=MESH, in_specs=(P(), P("data")), out_specs=P("data"))
    same(jax.jit(lj.emulate(program, recipe))(params, x), wanted, "inside")
    try:
        blocks = lj.Recipe(grad_weight={"activation": "mxfp4"})
        split = lj.emulate(lambda p, x: x @ p["one"]["w"], blocks, shard_axis="data")
        mapped = jax.shard_map(
            jax.grad(lambda p, x: jnp.sum(split(p, x))),
            mesh=MESH,
            in_specs=(P(), P("data")),
            out_specs=P(),
            check_vma=False,
        )
        mapped(params, x[:128])
    except lowp.ArgumentError as error:
        refused = str(error)
    else:
        refused = "not at all"
    assert "borders of devices" in refused, refused


def embeddings():
    """Rows of a batch are rounded as one device rounds them; those of positions are the same on every device."""
    table = RNG.normal(size=(50, 32)).astype(np.float32)
    ids, g = RNG.integers(0, 50, (16, 6)), RNG.normal(size=(16, 6, 32)).astype(np.float32)
    recipe = lj.Recipe(
        weight=lj.Cast("nvfp4", rounding="stochastic_a"),
        gradient=lj.Cast("mxfp4", rounding="stochastic_a"),
        operations=("embedding",),
    )

    def looked_up(params, ids):
        return params["tok"]["embedding"][ids] + params["pos"]["embedding"][jnp.arange(ids.shape[1])]

    params = {"tok": {"embedding": table}, "pos": {"embedding": table[::-1].copy()}}
    whole, split = lj.emulate(looked_up, recipe), lj.emulate(looked_up, recipe, shard_axis="data")
    mapped = jax.shard_map(split, mesh=MESH, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=False)
    same(jax.jit(mapped)(params, ids), jax.jit(whole)(params, ids), "embedding")

    def rows(low):  # a table for each row of the batch, so that no gradients are added
        def gradient(tables, ids, g):
            return jax.grad(lambda t: jnp.sum(low({"tok": {"embedding": t}}, ids) * g))(tables)

        return gradient

    only = lambda params, ids: params["tok"]["embedding"][ids]  # noqa: E731
    ids = np.arange(96).reshape(16, 6)
    tables = RNG.normal(size=(96, 32)).astype(np.float32)
    wanted = jax.jit(rows(lj.emulate(only, recipe)))(tables, ids, g)
    part = rows(lj.emulate(only, recipe, shard_axis="data"))
    mapped = jax.shard_map(
        lambda t, ids, g: jax.lax.psum(part(t, ids, g), "data"),
        mesh=MESH, in_specs=(P(), P("data"), P("data")), out_specs=P(), check_vma=False,
    )  # fmt: skip
    same(jax.jit(mapped)(tables, ids, g) + 0.0, wanted + 0.0, "gradient of an embedding")


if __name__ == "__main__":
    assert jax.device_count() == 8
    verbs()
    inside()
    products()
    gradients_of_weights()
    embeddings()
    print("same bits")  # noqa: T201
