"""Attention in other guises: flex_attention, kernels called inside C++, multi-head attention that returns weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import lowp.torch as lt  # noqa: E402
from lowp.emulation import Cast, Recipe, Rule  # noqa: E402

RECIPE = Recipe(
    activation=Cast("mxfp8", rounding="stochastic_a"),
    gradient="mxfp4",
    kv_cache=Cast("mxfp4", rounding="stochastic_a"),
    operations=["attention"],
)
ALONE = RECIPE.replace(activation=(), gradient=(), operations=["linear"])


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*flex_attention called without torch\.compile|`torch.jit")
        yield


def operands(*shape: int) -> list[Any]:
    return [(torch.randn(shape) * torch.exp2(torch.randn(shape))).requires_grad_() for _ in range(3)]


def run_both(one: Any, other: Any, recipe: Recipe, *shape: int) -> tuple[Any, Any]:
    """Return results and gradients of two functions of the same operands, and the report of the first."""
    given = operands(*shape)
    g = torch.randn(shape)
    found = []
    for function in (one, other):
        with lt.emulate(recipe) as run:
            y = function(*given)
            found.append([y.detach(), *torch.autograd.grad(y, given, g)])
        if function is one:
            report = run.report
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    return found[0], report


def flex(*args: Any, **options: Any) -> Any:
    return pytest.importorskip("torch.nn.attention.flex_attention").flex_attention(*args, **options)


def flex_operator(q: Any, k: Any, v: Any, score_mod: Any = None, block_mask: Any = None, whole: Any = None) -> Any:
    """The operator behind it, to which torch lets no CPU tensors with a gradient pass."""
    module = pytest.importorskip("torch.nn.attention.flex_attention")
    block_mask = block_mask or module._create_empty_block_mask(q, k)
    score_mod = score_mod or (lambda score, b, h, m, n: score)
    options = {"BACKEND": "AUTO"}
    found = torch.ops.higher_order.flex_attention(q, k, v, score_mod, block_mask.as_tuple(), 32**-0.5, options)
    return found[0] if whole is None else found


@pytest.mark.parametrize("recipe", [RECIPE, RECIPE.replace(kv_cache=())], ids=["cache", "plain"])
def test_flex_attention_is_scaled_dot_product_attention(recipe: Recipe) -> None:
    _, report = run_both(flex_operator, functional.scaled_dot_product_attention, recipe, 2, 3, 32, 32)
    assert len(report.find(operation="attention", product="grad_input"))
    assert not report.remarks
    q, k, v = (t.detach() for t in operands(2, 3, 32, 32))
    with lt.emulate(recipe):
        y = flex(q, k, v)
    with lt.emulate(recipe):
        assert torch.equal(y, functional.scaled_dot_product_attention(q, k, v))


def test_flex_attention_with_a_mask_and_a_score_function() -> None:
    flex_module = pytest.importorskip("torch.nn.attention.flex_attention")
    bias = torch.randn(3)
    block = flex_module.create_block_mask(lambda b, h, m, n: m >= n, 2, 3, 32, 32, device="cpu", BLOCK_SIZE=32)

    def flexible(q: Any, k: Any, v: Any) -> Any:
        return flex_operator(q, k, v, lambda s, b, h, m, n: s + bias[h], block)

    def plain(q: Any, k: Any, v: Any) -> Any:
        allowed = torch.ones(32, 32, dtype=torch.bool).tril()
        mask = torch.zeros(32, 32).masked_fill(~allowed, -torch.inf) + bias[:, None, None]
        return functional.scaled_dot_product_attention(q, k, v, mask)

    run_both(flexible, plain, RECIPE, 2, 3, 32, 32)


def test_flex_attention_returns_sums_and_shares_keys() -> None:
    q, k, v = torch.randn(2, 4, 16, 32), torch.randn(2, 2, 16, 32), torch.randn(2, 2, 16, 32)
    wide = Recipe(activation="float32", operations=["attention"])
    aux = pytest.importorskip("torch.nn.attention.flex_attention").AuxRequest(lse=True)
    with lt.emulate(wide) as run:
        y, found = flex(q, k, v, enable_gqa=True, return_aux=aux)
    wanted, wanted_found = flex(q, k, v, enable_gqa=True, return_aux=aux)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(found.lse, wanted_found.lse)
    with lt.emulate(wide):
        largest = flex_operator(q, k, v, whole=True)[2]
    scores = q @ k.repeat_interleave(2, 1).mT / 32**0.5
    torch.testing.assert_close(largest, scores.amax(-1) / math.log(2))
    assert len(run.report.rows) == 1


def scripted(q: Any, k: Any, v: Any) -> Any:
    return torch.jit.script(_attention)(q, k, v)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


@pytest.mark.parametrize("recipe", [RECIPE, RECIPE.replace(kv_cache=()), ALONE], ids=["cache", "plain", "alone"])
def test_a_kernel_inside_cpp_is_that_of_the_public_name(recipe: Recipe) -> None:
    found, report = run_both(scripted, _attention, recipe, 2, 3, 32, 32)
    assert report.remarks == ["layer '', attention: a fused operator inside C++ was emulated below autograd"]
    if recipe is not ALONE:
        assert report.find(product="forward", role="activation")[0].count == 4
        assert report.find(product="grad_input")
    with lt.emulate("float32"):
        assert not torch.equal(found[0], _attention(*operands(2, 3, 32, 32)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("operations", [["linear"], ["linear", "attention"]])
def test_the_cache_of_multi_head_attention_does_not_depend_on_its_weights(masked: bool, operations: Any) -> None:
    net, x = nn.MultiheadAttention(64, 2, batch_first=True), torch.randn(2, 32, 64)
    mask = torch.zeros(32, 32).masked_fill(~torch.ones(32, 32, dtype=torch.bool).tril(), -torch.inf) if masked else None
    recipe = Recipe(kv_cache=Cast("mxfp4", rounding="stochastic_a"), operations=operations)
    results = []
    for weights in (True, False):
        with lt.emulate(recipe, strict=True) as run:
            results.append(net(x, x, x, need_weights=weights, attn_mask=mask)[0])
        assert run.report.find(role="kv_cache")[0].count == 2
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(results[0], net(x, x, x)[0], rtol=1e-2, atol=1e-3)
    with lt.emulate(recipe.replace(rules=[Rule("*", exempt=True)])):
        assert torch.equal(net(x, x, x)[0], net(x, x, x)[0])


def test_flex_attention_reads_a_cache_alone() -> None:
    q, k, v = (t.detach() for t in operands(2, 3, 32, 32))
    with lt.emulate(Recipe(kv_cache="mxfp4")):
        y = flex(q, k, v)
    assert torch.equal(y, flex(q, lt.quantize(k, "mxfp4"), lt.quantize(v, "mxfp4")))


@pytest.mark.parametrize("recipe", [RECIPE, ALONE], ids=["cache", "alone"])
def test_the_backward_pass_of_a_kernel_is_emulated_after_the_context(recipe: Recipe) -> None:
    given, g = operands(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    with lt.emulate(recipe):
        y = scripted(*given)
        wanted = torch.autograd.grad(y, given, g, retain_graph=True)
    with lt.emulate(recipe) as run:
        y = scripted(*given)
    for got, other in zip(torch.autograd.grad(y, given, g), wanted, strict=True):
        assert torch.equal(got, other)
    assert (recipe is ALONE) or run.report.find(product="grad_input")


def test_the_backward_pass_of_a_scripted_layer_is_emulated_after_the_context() -> None:
    net, x = torch.jit.script(nn.Linear(32, 8)), torch.randn(4, 32, requires_grad=True)
    found = []
    for within in (True, False):
        with lt.emulate("mxfp4"):
            y = net(x)
            if within:
                found.append(torch.autograd.grad(y.square().sum(), [x, *net.parameters()]))
        if not within:
            found.append(torch.autograd.grad(y.square().sum(), [x, *net.parameters()]))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("masks", ["none", "padding", "scores"])
@pytest.mark.parametrize("operations", [["linear", "attention"], ["linear"]])
def test_a_scripted_encoder_layer_is_that_of_python(norm_first: bool, masks: str, operations: Any) -> None:
    options: Any = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first, "activation": "gelu"}
    net, x = nn.TransformerEncoderLayer(64, 2, 96, **options).eval(), torch.randn(2, 32, 64)
    given = {}
    if masks == "padding":
        given["src_key_padding_mask"] = torch.arange(32)[None] >= torch.tensor([[32], [20]])
    if masks == "scores":
        given["src_mask"] = ~torch.ones(32, 32, dtype=torch.bool).tril()
    script = torch.jit.script(net)
    recipe = Recipe(weight="mxfp4", activation="mxfp8", kv_cache="mxfp4", operations=operations)
    with torch.no_grad():
        with lt.emulate(recipe) as run:
            got = script(x, **given)
        with lt.emulate(recipe) as other:
            wanted = net(x, **given)
    assert len(run.report.remarks) == 1
    assert "emulated from its parts" in run.report.remarks[0]
    if masks == "none":  # python adds a mask
        assert torch.equal(got, wanted)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    count = {r: sum(row.count for row in run.report.find(role=r)) for r in ("weight", "activation", "kv_cache")}
    assert count == {r: sum(row.count for row in other.report.find(role=r)) for r in count}


def test_a_scripted_multi_head_attention_is_that_of_python() -> None:
    net, x = nn.MultiheadAttention(64, 2, batch_first=True).eval(), torch.randn(2, 32, 64)
    script = torch.jit.script(net)
    with torch.no_grad():
        near = Recipe(activation="mxfp8", weight="mxfp4", kv_cache="mxfp4")
        for recipe in (near.replace(operations=["linear", "attention"]), near.replace(operations=["attention"]), near):
            with lt.emulate(recipe):
                got = script(x, x, x, need_weights=False)[0]
            with lt.emulate(recipe):
                wanted = net(x, x, x, need_weights=False)[0]
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
