"""Keys and values of attention in JAX: found in the jaxpr, rounded as torch rounds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")
import jax.numpy as jnp  # noqa: E402
from torch.nn import functional  # noqa: E402

import lowp  # noqa: E402
import lowp.torch as lt  # noqa: E402
from lowp._errors import ArgumentError  # noqa: E402
from lowp.emulation import Cast, Recipe, Rule  # noqa: E402
from lowp.jax import emulate  # noqa: E402

B, T, S, N, H = 2, 5, 32, 4, 32
CACHE = Cast("mxfp4", rounding="stochastic_a")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def heavy(rng: np.random.Generator, *shape: int) -> Any:
    x = rng.standard_normal(shape) * np.exp2(2 * rng.standard_normal(shape))
    return jnp.asarray(x, jnp.float32)


def q(x: Any, fmt: Any, axis: int = -1, **options: Any) -> Any:
    return jnp.asarray(lowp.quantize(np.asarray(x), fmt, axis=axis, **options))


def library(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.dot_product_attention(q, k, v)


def linen(q: Any, k: Any, v: Any) -> Any:
    return pytest.importorskip("flax.linen").dot_product_attention(q, k, v)


def plain(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) / jnp.sqrt(q.shape[-1])
    return jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores), v)


def turned(q: Any, k: Any, v: Any) -> Any:
    """Keys are the left operand, the softmax runs over the middle axis, exponents are shifted by their logarithm."""
    scores = jnp.einsum("bsnh,btnh->bnst", k, q) * (1 / np.sqrt(q.shape[-1]))
    masked = jnp.where(jnp.ones(scores.shape[-2:], bool), scores, -1e30)
    p = jnp.exp(masked - jax.nn.logsumexp(masked, axis=-2, keepdims=True))
    return jnp.einsum("bsnh,bnst->btnh", v, p)


def vectorized(q: Any, k: Any, v: Any) -> Any:
    def head(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1])) @ v

    return jax.vmap(jax.vmap(head, 1, 1))(q, k, v)


def nested(q: Any, k: Any, v: Any) -> Any:
    scores = jax.jit(lambda q, k: jnp.einsum("btnh,bsnh->bnts", q, k))(q, k)
    p = jax.jit(lambda s: jax.nn.softmax(s / jnp.sqrt(q.shape[-1])))(scores)
    return jax.jit(lambda p, v: jnp.einsum("bnts,bsnh->btnh", p, v))(p, v)


def looped(q: Any, k: Any, v: Any) -> Any:
    return jax.lax.scan(lambda c, x: (c, plain(c, *x)), q, (k[None], v[None]))[1][0]


WAYS = [library, linen, plain, turned, vectorized, nested, looped]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tokens", [T, S])
def test_keys_and_values_come_out_of_the_cache(rng: Any, way: Any, tokens: int) -> None:
    query, key, value = heavy(rng, B, tokens, N, H), heavy(rng, B, S, N, H), heavy(rng, B, S, N, H)
    low = emulate(way, Recipe(kv_cache="mxfp4"), strict=True)
    got = jax.jit(low)(query, key, value)
    wanted = jax.jit(way)(query, q(key, "mxfp4"), q(value, "mxfp4"))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)  # compiled sums; a wrong operand is 1e-1 off
    assert not np.allclose(got, jax.jit(way)(query, key, value), atol=1e-2)
    assert low.report.find(role="kv_cache")[0].count == 2
    assert not low.report.remarks


@pytest.mark.parametrize("operations", [("linear",), ("attention",)])
def test_the_operands_are_those_of_torch(rng: Any, operations: Any) -> None:
    """Numbers with exact sums; probabilities are equal, so that the second product shows the values."""
    query, key, value = (rng.integers(-40, 40, (B, S, N, H)).astype(np.float32) for _ in range(3))

    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.einsum("btnh,bsnh->bnts", q, k)
        return scores, jnp.einsum("bnts,bsnh->btnh", jax.nn.softmax(scores * 0), v)

    recipe = Recipe(kv_cache=CACHE, seed=11, operations=operations)
    scores, mean = emulate(attention, recipe)(query, key, value)
    kept = _cached_by_torch(recipe, *(torch.from_numpy(x).transpose(1, 2) for x in (query, key, value)))
    np.testing.assert_array_equal(scores, np.einsum("btnh,bnsh->bnts", query, kept[0]))
    np.testing.assert_array_equal(mean[:, 0], kept[1].sum(2) / S)


def _cached_by_torch(recipe: Recipe, *operands: Any) -> list[Any]:
    """Return the keys and values that torch's attention reads."""
    from lowp.emulation._torch_calls import Call

    found: list[Any] = []
    original = Call.round

    def recorded(call: Any, x: Any, role: str, *args: Any, **kwargs: Any) -> Any:
        result = original(call, x, role, *args, **kwargs)
        if role == "kv_cache":
            found.append(result.values.numpy())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Call, "round", recorded)
        with lt.emulate(recipe):
            functional.scaled_dot_product_attention(*operands)
    return found


def test_projections_and_layers_of_flax(rng: Any) -> None:
    """Two layers, each with a cache of its own; what they compute is what comes out of plain products by hand."""
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):  # type: ignore[name-defined,misc]
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for _ in range(2):
                x = x + nn.MultiHeadDotProductAttention(num_heads=2, deterministic=True)(x)
            return x

    x = jnp.asarray(rng.standard_normal((2, 8, 32)), jnp.float32)
    net = Net()
    params = net.init(jax.random.key(0), x)
    low = emulate(net.apply, Recipe(kv_cache="mxfp4"), strict=True)
    wanted = x
    for i in range(2):
        p = params["params"][f"MultiHeadDotProductAttention_{i}"]
        query, key, value = (
            jnp.einsum("bsd,dnh->bsnh", wanted, p[n]["kernel"]) + p[n]["bias"] for n in ("query", "key", "value")
        )
        mixed = plain(query, q(key, "mxfp4"), q(value, "mxfp4"))
        wanted = wanted + jnp.einsum("bsnh,nhd->bsd", mixed, p["out"]["kernel"]) + p["out"]["bias"]
    np.testing.assert_allclose(low(params, x), wanted, rtol=1e-4, atol=1e-4)
    assert [row.count for row in low.report.find(role="kv_cache")] == [2, 2]


def test_heads_that_share_keys(rng: Any) -> None:
    query, key, value = heavy(rng, B, T, 4, H), heavy(rng, B, S, 2, H), heavy(rng, B, S, 2, H)
    got = emulate(library, Recipe(kv_cache="nvfp4"), strict=True)(query, key, value)
    np.testing.assert_allclose(got, library(query, q(key, "nvfp4"), q(value, "nvfp4")), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inside", [False, True])
def test_gradients_pass_the_cache_and_meet_what_came_out_of_it(rng: Any, inside: bool) -> None:
    query, key, value = heavy(rng, B, T, N, H), heavy(rng, B, S, N, H), heavy(rng, B, S, N, H)
    g = heavy(rng, B, T, N, H)

    def loss(q: Any, k: Any, v: Any) -> Any:
        return jnp.sum(plain(q, k, v) * g)

    recipe = Recipe(kv_cache="mxfp4")
    gradient = jax.grad(loss, (0, 1, 2))
    low = emulate(gradient, recipe, strict=True) if inside else jax.grad(emulate(loss, recipe, strict=True), (0, 1, 2))
    for got, wanted in zip(low(query, key, value), gradient(query, q(key, "mxfp4"), q(value, "mxfp4")), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)


def test_the_casts_of_both_products_follow_that_of_the_cache(rng: Any) -> None:
    query, key, value = heavy(rng, S, H), heavy(rng, S, H), heavy(rng, S, H)
    recipe = Recipe(activation="float8_e4m3fn", kv_cache="mxfp4", operations=["matmul", "attention"])

    def attention(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.softmax(q @ k.T) @ v

    got = emulate(attention, recipe)(query, key, value)
    fp8 = "float8_e4m3fn"
    p = jax.nn.softmax(q(query, fp8) @ q(q(key, "mxfp4"), fp8).T)
    np.testing.assert_allclose(got, q(p, fp8) @ q(q(value, "mxfp4"), fp8), rtol=1e-5, atol=1e-5)


def test_rules_of_layers(rng: Any) -> None:
    query, key, value = heavy(rng, B, T, N, H), heavy(rng, B, S, N, H), heavy(rng, B, S, N, H)

    def two(q: Any, k: Any, v: Any) -> Any:
        with jax.named_scope("first"):
            a = plain(q, k, v)
        with jax.named_scope("second"):
            return a, plain(q, k, v)

    rules = [Rule("first", exempt=True), Rule("second", casts={"kv_cache": "float8_e5m2"})]
    first, second = emulate(two, Recipe(kv_cache="mxfp4", rules=rules))(query, key, value)
    np.testing.assert_array_equal(first, plain(query, key, value))
    wanted = plain(query, q(key, "float8_e5m2"), q(value, "float8_e5m2"))
    np.testing.assert_allclose(second, wanted, rtol=1e-5, atol=1e-5)


def online(q: Any, k: Any, v: Any) -> Any:
    """Products in a scope that is called attention, and no softmax."""
    with jax.named_scope("attention"):
        return jnp.exp(q @ k.T) @ v


def test_what_is_not_found_is_said(rng: Any) -> None:
    x = heavy(rng, 8, 8) / 64
    low = emulate(online, Recipe(kv_cache="mxfp4"))
    np.testing.assert_array_equal(low(x, x, x), online(x, x, x))
    assert any("kv_cache: which operands of 'attention'" in remark for remark in low.report.remarks)
    with pytest.raises(ArgumentError, match="kv_cache"):
        emulate(online, Recipe(kv_cache="mxfp4"), strict=True)(x, x, x)
    other = emulate(lambda q, k: q @ k.T, Recipe(kv_cache="mxfp4"))
    other(x, x)
    assert other.report.remarks == ["kv_cache: no attention with keys and values was found; nothing is rounded by it"]


def test_products_of_other_kinds_are_no_attention(rng: Any) -> None:
    """A softmax over the axis of queries, logits of a classifier, a product that is not with the probabilities."""
    x = heavy(rng, 8, 8) / 64
    params = {"w": x}
    programs = [
        lambda q, k, v: jax.nn.softmax(q @ k.T, axis=0) @ v,
        lambda q, k, v: (q @ k.T) @ v,
        lambda q, k, v: v @ jax.nn.softmax(q @ k.T),
    ]
    for program in programs:
        low = emulate(program, Recipe(kv_cache="mxfp4"))
        low(x, x, x)
        assert not low.report.find(role="kv_cache"), program
    low = emulate(lambda p, x: jax.nn.softmax(x @ p["w"]) @ p["w"].T, Recipe(kv_cache="mxfp4"))
    low(params, x)
    assert not low.report.find(role="kv_cache")
