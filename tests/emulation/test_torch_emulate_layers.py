"""Emulated attention, embeddings, recurrent layers, and products inside C++ functions."""

import math
from typing import Any

import pytest

import lowp

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from lowp.torch import Recipe, Rule, emulate  # noqa: E402


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def q(x: Any, fmt: str, axis: int = -1) -> Any:
    return torch.from_numpy(lowp.quantize(x.detach().numpy(), fmt, axis=axis))


def heavy(*shape: int) -> Any:
    return torch.randn(shape) * torch.exp2(2 * torch.randn(shape))


def test_both_products_of_attention_forward_and_backward() -> None:
    query, key, value = (heavy(2, 3, 32, 64).requires_grad_() for _ in range(3))
    g = heavy(2, 3, 32, 64)
    recipe = Recipe(activation="mxfp8", gradient="mxfp4", kv_cache="int8_row", operations=["attention"])
    with emulate(recipe) as run:
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    y.backward(g)
    k, v = q(key, "int8_row"), q(value, "int8_row")
    scores = (q(query, "mxfp8") @ q(k, "mxfp8").mT).requires_grad_()
    causal = torch.ones(32, 32, dtype=torch.bool).tril()
    p = torch.softmax((scores * (1 / math.sqrt(64))).masked_fill(~causal, -math.inf), -1)
    assert torch.equal(y, q(p, "mxfp8") @ q(v, "mxfp8", -2))
    dp = q(g, "mxfp4") @ q(v, "mxfp8").mT
    assert torch.equal(value.grad, (q(g, "mxfp4", -2).mT @ q(p, "mxfp8", -2)).mT)
    (ds,) = torch.autograd.grad(p, scores, dp)
    assert torch.equal(query.grad, q(ds, "mxfp4") @ q(k, "mxfp8", -2))
    assert torch.equal(key.grad, q(ds, "mxfp4", -2).mT @ q(query, "mxfp8", -2))
    assert run.report.find(operation="attention", role="kv_cache")[0].count == 2


def test_a_cache_format_alone() -> None:
    query, key, value = (heavy(1, 2, 8, 32) for _ in range(3))
    with emulate(Recipe(kv_cache="mxfp4")) as run:
        y = F.scaled_dot_product_attention(query, key, value)
    assert torch.equal(y, F.scaled_dot_product_attention(query, q(key, "mxfp4"), q(value, "mxfp4")))
    assert run.report.find(role="kv_cache")
    with emulate(Recipe(kv_cache="mxfp4", rules=[Rule("*", exempt=True)])):
        assert torch.equal(
            F.scaled_dot_product_attention(query, key, value),
            torch.nn.functional.scaled_dot_product_attention(query, key, value),
        )


@pytest.mark.parametrize("weights", [True, False])
def test_multi_head_attention_is_seen_inside(weights: bool) -> None:
    net, x = nn.MultiheadAttention(32, 2, batch_first=True).eval(), torch.randn(2, 5, 32)
    recipe = Recipe(weight="mxfp4", activation="mxfp8", operations=["linear", "attention"])
    with torch.no_grad(), emulate(recipe) as run:
        y, _ = net(x, x, x, need_weights=weights)
    counts = {(row.layer, row.operation): row.count for row in run.report.find(role="activation")}
    assert counts == {("", "linear"): 1, ("", "attention"): 4, ("out_proj", "linear"): 1}
    with torch.no_grad():
        assert not torch.equal(y, net(x, x, x)[0])


def test_the_fast_path_of_encoder_layers_is_not_taken() -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), 2).eval()
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        fast = net(x)
        with emulate(Recipe(weight="float32", activation="float32", operations=["linear", "attention"])) as run:
            y = net(x)
    torch.testing.assert_close(y, fast, rtol=1e-4, atol=1e-5)
    layers = {row.layer for row in run.report.find(operation="linear")}
    assert layers == {
        f"layers.{i}.{n}" for i in range(2) for n in ("self_attn", "self_attn.out_proj", "linear1", "linear2")
    }
    assert not run.report.remarks


def test_embeddings_round_the_rows_they_read_and_the_gradients_they_get() -> None:
    table = nn.Embedding(20, 64, padding_idx=3)
    with torch.no_grad():
        table.weight.copy_(heavy(20, 64))
    tokens, g = torch.tensor([[1, 2, 3], [1, 7, 19]]), heavy(2, 3, 64)
    with emulate(Recipe(weight="mxfp4", gradient="mxfp8", operations=["embedding"])) as run:
        y = table(tokens)
    y.backward(g)
    assert torch.equal(y, q(table.weight[tokens], "mxfp4"))
    wanted = torch.zeros(20, 64).index_add(0, tokens.reshape(-1), q(g, "mxfp8").reshape(-1, 64))
    wanted[3] = 0
    assert torch.equal(table.weight.grad, wanted)
    assert [row.role for row in run.report.rows] == ["weight", "gradient"]


def test_embedding_bags_round_their_table() -> None:
    bag, tokens = nn.EmbeddingBag(20, 64, mode="sum"), torch.tensor([[1, 2, 3], [1, 7, 19]])
    with torch.no_grad():
        bag.weight.copy_(heavy(20, 64))
    g = heavy(2, 64)
    with emulate(Recipe(weight="mxfp4", gradient="mxfp8", operations=["embedding"])):
        y = bag(tokens)
    y.backward(g)
    assert torch.equal(y, F.embedding_bag(tokens, q(bag.weight, "mxfp4"), mode="sum"))
    wanted = torch.zeros(20, 64).index_add(0, tokens.reshape(-1), q(g, "mxfp8").repeat_interleave(3, 0))
    torch.testing.assert_close(bag.weight.grad, wanted, rtol=1e-6, atol=0)


def test_an_lstm_step_by_step() -> None:
    net, x = nn.LSTM(32, 16, bias=False), torch.randn(3, 2, 32)
    with emulate(Recipe(weight="mxfp4", activation="mxfp8")) as run:
        y, (h, c) = net(x)
    gates = q(x.reshape(6, 32), "mxfp8") @ q(net.weight_ih_l0, "mxfp4").T
    state, cell, steps = torch.zeros(2, 16), torch.zeros(2, 16), []
    for t in range(3):
        now = gates[2 * t : 2 * t + 2] + q(state, "mxfp8") @ q(net.weight_hh_l0, "mxfp4").T
        i, f, g, o = now.chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        steps.append(state)
    assert torch.equal(y, torch.stack(steps))
    assert torch.equal(h[0], state)
    assert torch.equal(c[0], cell)
    assert {row.operation for row in run.report.rows} == {"recurrent"}


LAYERS = {
    "lstm": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lstm projected": (nn.LSTM, {"proj_size": 4}),
    "gru": (nn.GRU, {"num_layers": 2, "bidirectional": True}),
    "rnn": (nn.RNN, {"nonlinearity": "relu", "bias": False}),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_are_those_of_torch(name: str, packed: bool) -> None:
    kind, options = LAYERS[name]
    net, x = kind(8, 6, **options), torch.randn(4, 4, 8)

    def run() -> tuple[Any, list[Any]]:
        net.zero_grad()
        given: Any = nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor([4, 2, 3, 1]), options.get("batch_first", False), enforce_sorted=False
        )
        y, state = net(given if packed else x)
        parts = [y.data if packed else y, *(state if isinstance(state, tuple) else [state])]
        sum(part.square().sum() for part in parts).backward()
        return parts, [p.grad for p in net.parameters()]

    plain = run()
    with emulate(Recipe(weight="float32", activation="float32", gradient="float32")) as seen:
        emulated = run()
    for a, b in zip([*plain[0], *plain[1]], [*emulated[0], *emulated[1]], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert seen.report.find(operation="recurrent", product="grad_weight")


EQUATIONS = [
    "ij,jk->ik",
    "bij,bjk->bik",
    "...ij,jk",
    "ij,kj->k",
    "i,j->ij",
    "bhqd,bhkd->bhqk",
    "ab,bc,cd->ad",
    "bi,bi->b",
]


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str) -> None:
    sizes = dict(zip("abcdhijkq", [3, 4, 5, 6, 2, 7, 8, 9, 5], strict=True))
    terms = equation.split("->", maxsplit=1)[0].replace("...", "bh").split(",")
    operands = [torch.randn([sizes[c] for c in t], requires_grad=True) for t in terms]
    wanted = torch.einsum(equation, *operands)
    gradients = torch.autograd.grad(wanted.square().sum(), operands)
    with emulate(Recipe(activation="float32", gradient="float32", operations=["matmul"])) as run:
        y = torch.einsum(equation, *operands)
    torch.testing.assert_close(y, wanted)
    for a, b in zip(gradients, torch.autograd.grad(y.square().sum(), operands), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert run.report.find(operation="matmul", product="forward")[0].count == 2 * (len(operands) - 1)
    assert not run.report.remarks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_are_emulated_below_autograd() -> None:
    eager = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))
    scripted = torch.jit.script(eager)
    x = torch.randn(32, 2, 16, requires_grad=True)
    with emulate("mxfp4"):
        wanted = eager(x)
        wanted.square().sum().backward()
    gradients = [x.grad, *(p.grad for p in eager.parameters())]
    x.grad = None
    eager.zero_grad()
    with emulate("mxfp4") as run:
        y = scripted(x)
        y.square().sum().backward()
    assert torch.equal(y, wanted)
    for a, b in zip(gradients, [x.grad, *(p.grad for p in scripted.parameters())], strict=True):
        assert torch.equal(a, b)
    assert any("below autograd" in remark for remark in run.report.remarks)


def test_what_is_exempt_stays_exempt_below() -> None:
    net, x = nn.Sequential(nn.Linear(32, 32), nn.LSTM(32, 8)), torch.randn(4, 2, 32)
    net(x)[0].sum().backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with emulate(Recipe(weight="mxfp4", operations=["linear"], rules=[Rule("0", exempt=True)])) as run:
        net(x)[0].sum().backward()
    for p, g in zip(net.parameters(), wanted, strict=True):
        assert torch.equal(p.grad, g)
    assert {row.cast for row in run.report.rows} == {"exempt", "not emulated"}
