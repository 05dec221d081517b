"""Emulated products of torch programs: the same bits as rounding every operand by hand."""

from itertools import pairwise
from typing import Any

import pytest

import lowp

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import lowp.torch as lt  # noqa: E402
from lowp.emulation.seeds import site_seed  # noqa: E402
from lowp.rounding.hadamard import hadamard  # noqa: E402
from lowp.torch import Cast, Recipe, Rule, emulate  # noqa: E402

FORMATS = ["float8_e4m3fn", "mxfp4", "mxfp8", "nvfp4", "int8_row", "e4m3fn_t128x128", "posit8_es1"]


def q(x: Any, fmt: str, axis: int = -1, **options: Any) -> Any:
    """Round by the NumPy front end, which shares no code with emulation."""
    if axis == -1 or fmt.startswith(("float", "posit")):
        return torch.from_numpy(lowp.quantize(x.detach().numpy(), fmt, **options))
    axes = (0, 1) if "_t" in fmt else axis
    return torch.from_numpy(lowp.quantize(x.detach().numpy(), fmt, axis=axes, **options))


def rolled(x: Any, fmt: str, axis: int) -> Any:
    """Round along an axis of a matrix; tiles cover both axes."""
    return q(x, fmt, axis) if "_t" not in fmt else torch.from_numpy(lowp.quantize(x.detach().numpy(), fmt, axis=(0, 1)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def heavy(*shape: int) -> Any:
    """Numbers of many magnitudes: blocks along different axes have different scales."""
    return torch.randn(shape) * torch.exp2(2 * torch.randn(shape))


def linear(a: int, b: int, **options: Any) -> Any:
    layer = nn.Linear(a, b, **options)
    with torch.no_grad():
        layer.weight.copy_(heavy(b, a))
    return layer


def model(*widths: int) -> Any:
    return nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(widths)])


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("late", [False, True])
def test_the_six_operands_of_a_linear_layer(fmt: str, late: bool) -> None:
    layer, x, g = linear(160, 96), heavy(64, 160).requires_grad_(), heavy(64, 96)
    with emulate(Recipe(weight=fmt, activation=fmt, gradient=fmt)) as run:
        y = layer(x)
        if not late:
            y.backward(g)
    if late:
        y.backward(g)
    w = layer.weight
    assert torch.equal(y, F.linear(rolled(x, fmt, 1), rolled(w, fmt, 1), layer.bias))
    assert torch.equal(x.grad, rolled(g, fmt, 1) @ rolled(w, fmt, 0))
    assert torch.equal(w.grad, rolled(g, fmt, 0).T @ rolled(x, fmt, 0))
    assert torch.equal(layer.bias.grad, g.sum(0))
    operands = {(row.product, row.role) for row in run.report.rows}
    assert operands == {
        ("forward", "activation"),
        ("forward", "weight"),
        ("grad_input", "gradient"),
        ("grad_input", "weight"),
        ("grad_weight", "gradient"),
        ("grad_weight", "activation"),
    }
    assert all(row.count == 1 for row in run.report.rows)


def test_each_operand_has_its_own_cast() -> None:
    recipe = Recipe(
        forward={"activation": "float8_e4m3fn", "weight": "mxfp4"},
        grad_input={"gradient": "float8_e5m2", "weight": "mxfp6_e3m2"},
        grad_weight={"gradient": "bfloat16", "activation": Cast("mxfp8", rounding="toward_zero")},
    )
    layer, x, g = linear(64, 32, bias=False), heavy(32, 64).requires_grad_(), heavy(32, 32)
    with emulate(recipe):
        y = layer(x)
    y.backward(g)
    w = layer.weight
    assert torch.equal(y, q(x, "float8_e4m3fn") @ q(w, "mxfp4").T)
    assert torch.equal(x.grad, q(g, "float8_e5m2") @ q(w, "mxfp6_e3m2", 0))
    assert torch.equal(w.grad, q(g, "bfloat16").T @ q(x, "mxfp8", 0, rounding="toward_zero"))


def test_stochastic_bits_follow_seed_site_and_call() -> None:
    cast = Cast("mxfp4", rounding="stochastic_a")
    recipe = Recipe(weight=cast, activation=cast, gradient=cast, seed=5)
    inner = nn.Linear(64, 64, bias=False)
    net = nn.Sequential(nn.Identity(), inner)
    x, g = torch.randn(32, 64, requires_grad=True), torch.randn(32, 64)

    def sr(t: Any, axis: int, call: int, product: str, role: str) -> Any:
        seed = site_seed(5, "1", "linear", call, product, role)
        return q(t, "mxfp4", axis, rounding="stochastic_a", seed=seed)

    results = []
    with emulate(recipe) as run:
        for call in range(2):
            x.grad = inner.weight.grad = None
            y = net(x)
            y.backward(g)
            w = inner.weight
            forward = [sr(x, 1, call, "forward", "activation"), sr(w, 1, call, "forward", "weight")]
            assert torch.equal(y, forward[0] @ forward[1].T)
            assert torch.equal(
                x.grad, sr(g, 1, call, "grad_input", "gradient") @ sr(w, 0, call, "grad_input", "weight")
            )
            assert torch.equal(
                w.grad, sr(g, 0, call, "grad_weight", "gradient").T @ sr(x, 0, call, "grad_weight", "activation")
            )
            results.append(y.detach())
    assert not torch.equal(*results), "fresh bits at each call"
    run.reset()
    with run:
        assert torch.equal(net(x), results[0]), "a run that is reset repeats them"
    with emulate(recipe.replace(seed=6)):
        assert not torch.equal(net(x), results[0])


def test_a_planted_error_is_seen() -> None:
    """Rounding a weight along the wrong axis gives other bits: the tests above can fail."""
    layer, x = linear(64, 64, bias=False), heavy(32, 64)
    with emulate(Recipe(weight="mxfp4", activation="mxfp4")):
        y = layer(x)
    assert not torch.equal(y, q(x, "mxfp4") @ q(layer.weight, "mxfp4", 0).T)


def test_wrapper_and_context_agree_and_leave_the_model_as_it_was() -> None:
    net, x = model(64, 32, 16), torch.randn(8, 64)
    plain = net(x)
    with emulate("mxfp4"):
        inside = net(x)
    wrapped = emulate("mxfp4", net)
    assert torch.equal(wrapped(x), inside)
    assert torch.equal(net(x), plain)
    assert not torch.equal(plain, inside)
    assert list(wrapped.parameters()) == list(net.parameters())
    assert wrapped.run.report.find(layer="1", role="weight", product="forward")
    assert wrapped[0] is net[0] if hasattr(type(wrapped), "__getitem__") else wrapped.module[0] is net[0]


PRODUCTS = {
    "matmul": lambda a, b: a @ b,
    "torch.matmul": lambda a, b: torch.matmul(a, other=b),
    "mm": lambda a, b: torch.mm(a, mat2=b),
    "einsum": lambda a, b: torch.einsum("ik,kj->ij", a, b),
    "tensordot": lambda a, b: torch.tensordot(a, b, 1),
    "addmm": lambda a, b: torch.addmm(torch.zeros(()), a, b),
    "aten": torch.ops.aten.mm.default,
    "out": lambda a, b: torch.mm(a.detach(), b.detach(), out=torch.empty(a.shape[0], b.shape[1])),
    "in place": lambda a, b: torch.zeros(a.shape[0], b.shape[1]).addmm_(a.detach(), b.detach()),
    "rmatmul": lambda a, b: b.__rmatmul__(a),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_public_product_is_emulated(name: str) -> None:
    a, b, g = heavy(32, 64), heavy(64, 96), heavy(32, 96)
    a.requires_grad_()
    recipe = Recipe(activation="mxfp8", gradient="mxfp4", operations=["matmul"])
    with emulate(recipe) as run:
        y = PRODUCTS[name](a, b)
    wanted = q(a, "mxfp8") @ q(b, "mxfp8", 0)
    assert torch.equal(y, wanted)
    assert run.report.find(operation="matmul", product="forward")[0].count == 2
    if y.requires_grad:
        y.backward(g)
        assert torch.equal(a.grad, q(g, "mxfp4") @ q(b, "mxfp8", 1).T)


def test_batched_products_and_their_gradients() -> None:
    a, b = heavy(3, 32, 64).requires_grad_(), heavy(3, 64, 32).requires_grad_()
    g = heavy(3, 32, 32)
    with emulate(Recipe(activation="mxfp8", gradient="mxfp4", operations=["matmul"])):
        y = torch.bmm(a, b)
    y.backward(g)

    def each(x: Any, fmt: str, axis: int) -> Any:
        return torch.from_numpy(lowp.quantize(x.detach().numpy(), fmt, axis=axis))

    assert torch.equal(y, each(a, "mxfp8", 2) @ each(b, "mxfp8", 1))
    assert torch.equal(a.grad, each(g, "mxfp4", 2) @ each(b, "mxfp8", 2).mT)
    assert torch.equal(b.grad, (each(g, "mxfp4", 1).mT @ each(a, "mxfp8", 1)).mT)


def test_a_parameter_is_a_weight_whichever_side_it_stands_on() -> None:
    w, x = nn.Parameter(heavy(32, 64)), heavy(64, 32)
    with emulate(Recipe(weight="mxfp4", activation="mxfp8")) as run:
        left, right = w @ x, x.T @ w.T
    assert torch.equal(left, q(w, "mxfp4") @ q(x, "mxfp8", 0))
    assert torch.equal(right, q(x.T.contiguous(), "mxfp8") @ q(w.T.contiguous(), "mxfp4", 0))
    assert {row.operation for row in run.report.rows} == {"linear"}


def test_leading_axes_are_tokens() -> None:
    layer, x = nn.Linear(32, 16), torch.randn(2, 3, 16, 32, requires_grad=True)
    g = torch.randn(2, 3, 16, 16)
    with emulate("mxfp4"):
        y = layer(x)
    y.backward(g)
    flat, upstream = x.detach().reshape(-1, 32), g.reshape(-1, 16)
    assert torch.equal(y, F.linear(q(flat, "mxfp4"), q(layer.weight, "mxfp4"), layer.bias).reshape(y.shape))
    assert torch.equal(layer.weight.grad, q(upstream, "mxfp4", 0).T @ q(flat, "mxfp4", 0))


def test_output_and_accumulator() -> None:
    x, w = torch.randn(8, 64), torch.randn(16, 64)
    b = torch.randn(16)
    with emulate(Recipe(weight="float8_e4m3fn", activation="float8_e4m3fn", output="bfloat16")):
        y = F.linear(x, w, b)
    exact = F.linear(q(x, "float8_e4m3fn"), q(w, "float8_e4m3fn"), b)
    assert torch.equal(y, q(exact, "bfloat16"))
    accumulator = Cast("float16", group=16)
    with emulate(Recipe(weight="float8_e4m3fn", activation="float8_e4m3fn", accumulator=accumulator)) as run:
        y = F.linear(x, w)
    qx, qw = q(x, "float8_e4m3fn"), q(w, "float8_e4m3fn")
    total = q(qx[:, :16] @ qw[:, :16].T, "float16")
    for k in range(16, 64, 16):
        total = q(total + qx[:, k : k + 16] @ qw[:, k : k + 16].T, "float16")
    assert torch.equal(y, total)
    assert run.report.find(role="accumulator", product="forward")


def test_rules_by_layer_name() -> None:
    net, x = model(32, 32, 32), torch.randn(8, 32)
    recipe = Recipe(weight="mxfp4", rules=[Rule("0", exempt=True), Rule("1", casts={"weight": "mxfp8"})])
    with emulate(recipe) as run:
        y = net(x)
    assert torch.equal(y, F.linear(net[0](x), q(net[1].weight, "mxfp8"), net[1].bias))
    assert run.report.find(layer="0")[0].cast == "exempt"


def test_layer_names_of_nested_shared_and_attending_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(32, 2)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(32, 32))])
            self.head = nn.Linear(32, 32)
            self.head.weight = self.blocks[0][0].weight

        def forward(self, x: Any) -> Any:
            x, _ = self.attn(x, x, x)
            return self.head(self.blocks[0](x)) @ self.head.weight

    with emulate("mxfp8") as run:
        Net()(torch.randn(4, 1, 32))
    counts = {row.layer: row.count for row in run.report.find(role="weight", product="forward")}
    assert counts == {"attn": 1, "attn.out_proj": 1, "blocks.0.0": 2, "head": 1}, "who reads a child's weight is it"


def test_reused_operands_and_rotations() -> None:
    rotated = Cast("int4_row", hadamard=32, signs="none")
    recipe = Recipe(
        forward={"weight": rotated, "activation": rotated},
        grad_input={"weight": {"reuse": True}},
        grad_weight={"activation": {"reuse": True}},
    )
    layer, x, g = nn.Linear(64, 16, bias=False), torch.randn(8, 64, requires_grad=True), torch.randn(8, 16)
    with emulate(recipe):
        y = layer(x)
    y.backward(g)

    def turned(t: Any, inverse: bool = False) -> Any:
        turned = hadamard(t.detach().numpy(), 32, axis=-1, signs="none", inverse=inverse)
        return torch.from_numpy(turned)

    qx, qw = q(turned(x), "int4_row"), q(turned(layer.weight), "int4_row")
    assert torch.equal(y, qx @ qw.T)
    assert torch.equal(x.grad, turned(g @ qw, inverse=True))
    assert torch.equal(layer.weight.grad, turned(g.T @ qx, inverse=True))


def test_random_rotation_cancels() -> None:
    turn = Cast(hadamard=16)
    recipe = Recipe(weight=turn, activation=turn, gradient=turn)
    layer, x = nn.Linear(64, 32).double(), torch.randn(48, 64, dtype=torch.float64, requires_grad=True)
    layer(x).square().sum().backward()
    wanted = [x.grad.clone(), layer.weight.grad.clone()]
    x.grad = layer.weight.grad = None
    with emulate(recipe):
        layer(x).square().sum().backward()
    for got, exact in zip([x.grad, layer.weight.grad], wanted, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_wide_and_rounded_once(dtype: Any) -> None:
    layer, x = nn.Linear(64, 32).to(dtype), torch.randn(16, 64).to(dtype)
    with emulate("mxfp4"):
        y = layer(x)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    qx, qw = q(x.to(wide), "mxfp4"), q(layer.weight.to(wide), "mxfp4")
    assert torch.equal(y, F.linear(qx, qw, layer.bias.to(wide)).to(dtype))


def test_autocast_operands() -> None:
    layer, x = nn.Linear(64, 32), torch.randn(16, 64, requires_grad=True)
    with emulate("mxfp4"), torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    qx, qw = (q(t.bfloat16().float(), "mxfp4") for t in (x, layer.weight))
    assert torch.equal(y, F.linear(qx, qw, layer.bias.bfloat16().float()).bfloat16())
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_frozen_and_absent_gradients_cost_nothing() -> None:
    layer, x = nn.Linear(32, 32), torch.randn(8, 32)
    layer.weight.requires_grad_(False)
    with emulate("mxfp4") as run:
        layer(x).sum().backward()
    assert {row.product for row in run.report.rows} == {"forward"}
    with torch.no_grad(), emulate("mxfp4"):
        assert not layer(x).requires_grad


def test_empty_and_single_tokens() -> None:
    layer = nn.Linear(32, 16)
    with emulate("mxfp4"):
        assert layer(torch.zeros(0, 32)).shape == (0, 16)
        x = torch.randn(32)
        assert torch.equal(layer(x), F.linear(q(x[None], "mxfp4"), q(layer.weight, "mxfp4"), layer.bias)[0])


def test_the_inner_of_two_contexts_wins() -> None:
    net, x = model(32, 32), torch.randn(8, 32)
    with emulate("mxfp4"):
        outer = net(x)
    with emulate("float8_e4m3fn"):
        inner = net(x)
    with emulate("mxfp4") as first:
        with emulate("float8_e4m3fn") as second:
            assert torch.equal(net(x), inner)
        assert torch.equal(net(x), outer)
        with emulate(Recipe()):
            net(x)
    assert first.report.find(role="weight")[0].count == second.report.find(role="weight")[0].count == 1


def test_second_derivatives_pass_straight_through() -> None:
    layer, x = nn.Linear(32, 32), torch.randn(8, 32, requires_grad=True)
    with emulate("mxfp4"):
        (g,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_functional_calls_and_transforms_of_torch_func() -> None:
    net, x = model(32, 32, 16), torch.randn(8, 32)
    with emulate("mxfp4"):
        y = net(x)
        y.square().sum().backward()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    with emulate("mxfp4"):
        assert torch.equal(torch.func.functional_call(net, parameters, (x,)), y)
        loss = torch.func.grad(lambda p: torch.func.functional_call(net, p, (x,)).square().sum())
        for name, g in loss(parameters).items():
            assert torch.equal(g, net.get_parameter(name).grad)
        one_by_one = torch.func.vmap(lambda t: torch.func.functional_call(net, parameters, (t,)))(x[:, None])
    assert torch.equal(one_by_one[:, 0], y)


def test_exports() -> None:
    assert lt.emulate is emulate
    assert isinstance(emulate("mxfp4"), lt.Emulation)
    assert isinstance(emulate("mxfp4", nn.Linear(2, 2)), lt.Emulated)
