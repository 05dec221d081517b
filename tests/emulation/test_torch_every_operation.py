"""Every operation of a torch program rounded: the same bits as a chain of primitives, each rounded by hand."""

from typing import Any

import numpy as np
import pytest

import lowp

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from lowp.torch import Recipe, Rule, emulate, every_operation  # noqa: E402


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def q(x: Any, fmt: str = "bfloat16") -> Any:
    x = x.detach()
    return torch.from_numpy(np.asarray(lowp.quantize(x.numpy(), fmt, overflow="infinity_or_nan"))).reshape(x.shape)


@pytest.mark.parametrize("fmt", ["bfloat16", "float16", "float8_e5m2", "posit16_es1"])
@pytest.mark.parametrize("late", [False, True])
def test_a_chain_forward_and_backward(fmt: str, late: bool) -> None:
    x, w = torch.randn(4, 8), nn.Parameter(torch.randn(8, 8))
    with every_operation(fmt):
        y = torch.softmax(x @ w, -1)
        loss = (y * y).sum()
        if not late:
            loss.backward()
    if late:
        loss.backward()
    a = q(x @ w, fmt)
    e = q(q(a - a.amax(-1, keepdim=True), fmt).exp(), fmt)
    p = q(e / q(e.sum(-1, keepdim=True), fmt), fmt)
    assert torch.equal(y, p)
    assert torch.equal(loss, q(q(p * p, fmt).sum(), fmt))
    gy = q(p + p, fmt)
    weighted = q(gy * p, fmt)
    ga = q(weighted - q(p * q(weighted.sum(-1, keepdim=True), fmt), fmt), fmt)
    assert torch.equal(w.grad, q(x.T @ ga, fmt))


def test_choice_of_primitives() -> None:
    x = torch.randn(16)
    with every_operation("float8_e4m3fn", only=["exp", "multiply"]) as run:
        y = torch.exp(x) * x + x
    assert torch.equal(y, q(q(x.exp(), "float8_e4m3fn") * x, "float8_e4m3fn") + x)
    assert [row.cast for row in run.report.find(operation="add")] == ["unchanged"]
    with every_operation("float8_e4m3fn", exclude="exp"):
        y = torch.exp(x) * x
    assert torch.equal(y, q(x.exp() * x, "float8_e4m3fn"))


def test_in_place_operators_lists_and_optimizers() -> None:
    x, y = torch.randn(8), torch.randn(8)
    total = x.clone()
    with every_operation("bfloat16"):
        total += y
        total.mul_(3)
        parts = torch._foreach_add([x, y], 1.5)
        out = torch.empty(8)
        torch.add(x, y, out=out)
    assert torch.equal(total, q(q(x + y) * 3))
    assert all(torch.equal(a, q(b + 1.5)) for a, b in zip(parts, (x, y), strict=True))
    assert torch.equal(out, q(x + y))
    for foreach in (False, True):
        net = nn.Linear(8, 8)
        with every_operation("bfloat16") as run:
            optimizer = torch.optim.AdamW(net.parameters(), foreach=foreach)
            net(x).sum().backward()
            optimizer.step()
        assert all(torch.equal(p, q(p)) for p in net.parameters())
        assert {"sqrt", "div", "mul", "add"} <= {row.operation for row in run.report.rows}
        assert not {"addcdiv", "addcmul", "lerp"} & {row.operation for row in run.report.rows}


@pytest.mark.parametrize("decompose", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_layers_of_networks(decompose: bool, late: bool) -> None:
    def build() -> Any:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2), nn.GroupNorm(2, 8), nn.Flatten(),
            nn.Linear(72, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4),
        )  # fmt: skip

    net, x, t = build(), torch.randn(2, 3, 8, 8), torch.tensor([0, 1])
    start = {k: v.clone() for k, v in net.state_dict().items()}

    def gradients(fmt: str) -> list[Any]:
        net.load_state_dict(start)
        net.zero_grad()
        run = every_operation(fmt, decompose=decompose)
        if late:
            loss = F.cross_entropy(every_operation(fmt, net, decompose=decompose)(x), t)
            loss.backward()
        else:
            with run:
                F.cross_entropy(net(x), t).backward()
        return [p.grad.clone() for p in net.parameters()]

    net.load_state_dict(start)
    F.cross_entropy(net(x), t).backward()
    plain = [p.grad.clone() for p in net.parameters()]
    for a, b in zip(plain, gradients("float32"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    rounded = gradients("bfloat16")
    assert all(torch.equal(g, q(g)) for g in rounded)
    assert any(not torch.equal(a, b) for a, b in zip(plain, rounded, strict=True))


def test_composites_round_each_primitive_inside() -> None:
    x, norm = torch.randn(4, 16), nn.LayerNorm(16)
    with every_operation("bfloat16") as run:
        y = norm(x)
    mean = q(q(x.sum(-1, keepdim=True)) / 16)
    centred = q(x - mean)
    variance = q(q(q(centred * centred).sum(-1, keepdim=True)) / 16)
    rstd = q(q(variance + 1e-5).rsqrt())
    assert torch.equal(y, q(q(q(centred * rstd) * norm.weight) + norm.bias))
    assert "native_layer_norm" not in {row.operation for row in run.report.rows}
    with every_operation("bfloat16", decompose=False):
        assert torch.equal(norm(x), q(F.layer_norm(x, (16,), norm.weight, norm.bias)))


def test_results_that_are_no_new_numbers_stay() -> None:
    x = torch.randn(4, 4)
    with every_operation("float8_e5m2") as run:
        results = [x.T, x.abs(), -x, x.relu(), torch.cat([x, x]), x.clone(), x.max(), torch.where(x > 0, x, 0.0), x[0]]
    for y, wanted in zip(
        results,
        [x.T, x.abs(), -x, x.relu(), torch.cat([x, x]), x, x.max(), torch.where(x > 0, x, 0.0), x[0]],
        strict=True,
    ):
        assert torch.equal(y, wanted)
    assert not run.report.rows


def test_double_precision_is_rounded_once() -> None:
    a, b = torch.tensor(1 + 2.0**-8, dtype=torch.float64), torch.tensor(2.0**-40, dtype=torch.float64)
    with every_operation("bfloat16"):
        assert (a + b).item() == 1 + 2.0**-7


def test_stochastic_rounding_is_fresh_and_repeats() -> None:
    x = torch.rand(1000)

    def run() -> Any:
        with every_operation("bfloat16", rounding="stochastic_a", seed=3):
            return torch.stack([x * 1.1, x * 1.1])

    first = run()
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, run())
    assert abs((first.double() - x.double() * 1.1).mean().item()) < 1e-4


def test_rules_by_layer_hold_backward_too() -> None:
    net, x = nn.Sequential(nn.Tanh(), nn.Sigmoid()), torch.randn(32, requires_grad=True)
    recipe = Recipe(operations=["elementwise"], elementwise="float8_e5m2", rules=[Rule("0", exempt=True)])
    with emulate(recipe, check_finite=False) as run:
        y = net(x)
    y.sum().backward()
    s = q(torch.sigmoid(torch.tanh(x)), "float8_e5m2")
    assert torch.equal(y, s)
    assert {(row.layer, row.cast) for row in run.report.rows} == {("0", "unchanged"), ("1", "float8_e5m2")}


def test_products_and_operations_together() -> None:
    net, x = nn.Sequential(nn.Linear(32, 32, bias=False), nn.Tanh()), torch.randn(8, 32)
    recipe = Recipe(weight="mxfp4", activation="mxfp4", elementwise="bfloat16", operations=["linear", "elementwise"])
    with emulate(recipe):
        y = net(x)
    product = (
        torch.from_numpy(lowp.quantize(x.numpy(), "mxfp4"))
        @ torch.from_numpy(lowp.quantize(net[0].weight.detach().numpy(), "mxfp4")).T
    )
    assert torch.equal(y, q(product.tanh()))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_repeats_every_rounding(reentrant: bool, late: bool) -> None:
    net, x = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16)), torch.randn(8, 16, requires_grad=True)
    results = []
    for recompute in (False, True):
        net.zero_grad()
        with every_operation("bfloat16", rounding="stochastic_a") as run:
            y = checkpoint(net, x, use_reentrant=reentrant) if recompute else net(x)
            loss = y.square().sum()
            if not late:
                loss.backward()
        if late:
            loss.backward()
        results.append((y.detach(), [p.grad.clone() for p in net.parameters()], dict(run.state.calls)))
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(a, b)


def test_a_solver_in_half_precision() -> None:
    """Newton's iteration for a square root stops moving once its step is below half a unit in the last place."""
    with every_operation("float16"):
        x = torch.tensor(1.0, dtype=torch.float64)
        for _ in range(10):
            x = (x + 2 / x) / 2
    assert x.item() == float(np.float16(np.sqrt(2)))


def test_bad_arguments() -> None:
    with pytest.raises(lowp.FormatError, match="blocks"):
        every_operation("mxfp4")
    with pytest.raises(lowp.ArgumentError, match="rounding"):
        every_operation("bfloat16", rounding="nearst")


def test_complex_numbers_are_rounded_by_their_parts() -> None:
    def rounded(t: Any) -> bool:
        parts = torch.view_as_real(t.resolve_conj()) if t.is_complex() else t
        return torch.equal(lowp.quantize(parts, "bfloat16"), parts)

    x = torch.randn(16, dtype=torch.complex64, requires_grad=True)
    with every_operation("bfloat16") as run:
        spectrum = torch.fft.fft(x)
        product = spectrum * spectrum.conj() / 3
        product += 0.1j
        size = spectrum.abs()
        (product.abs() + size).sum().backward()
    assert all(rounded(t) for t in (spectrum, product, size, x.grad))
    assert {"fft_c2c", "mul", "abs"} <= {row.operation for row in run.report.rows}
    one = torch.complex(torch.full((4000,), 1 + 2.0**-9), torch.full((4000,), 1 + 2.0**-9))
    with every_operation("bfloat16", rounding="stochastic"):
        same = one * 1
    assert 0.3 < (same.real != same.imag).float().mean() < 0.45  # two draws of 1 in 4 differ in 3 of 8 cases
