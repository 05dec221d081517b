"""How much a layer's precision matters: sampled traces against whole Hessians, and measured losses."""

from __future__ import annotations

import math

import numpy as np
import pytest

import lowp
from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError

torch = pytest.importorskip("torch")
nn = torch.nn


def squared(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return ((model(batch[0]) - batch[1]) ** 2).mean()


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2)).double()


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    return [(draw(7, 5), draw(7, 2)) for _ in range(2)]


def whole_trace(net: nn.Module, batches: list, name: str) -> float:
    """The trace by the whole Hessian of one layer's weights."""
    net = net.eval()
    weight = net.get_submodule(name).weight

    def loss(flat: torch.Tensor) -> torch.Tensor:
        new = {f"{name}.weight": flat.reshape(weight.shape)}
        outputs = [(torch.func.functional_call(net, new, (x,)), y) for x, y in batches]
        return torch.stack([((out - y) ** 2).mean() for out, y in outputs]).mean()

    return float(torch.autograd.functional.hessian(loss, weight.detach().flatten()).trace())


def test_sampled_traces_are_those_of_the_hessian(net: nn.Module, batches: list) -> None:
    found = hw.hessian_trace(net, squared, batches, samples=400)
    assert all(module.training for module in net.modules())  # as it was, dropout on again
    assert list(found) == ["0", "3"]
    for name, trace in found.items():
        exact = whole_trace(net, batches, name)
        assert trace.value == pytest.approx(exact, abs=4 * trace.error)
        assert 0 < trace.error < 0.2 * exact
        assert trace.values == net.get_submodule(name).weight.numel()


def test_a_quadratic_loss_has_a_known_trace() -> None:
    torch.manual_seed(2)
    layer = nn.Linear(6, 3, bias=False).double()
    x = torch.randn(10, 6, dtype=torch.float64)
    ((_, trace),) = hw.hessian_trace(layer, lambda m, b: 0.5 * (m(b) ** 2).sum(), [x], samples=2000).items()
    assert trace.value == pytest.approx(3 * float((x**2).sum()), rel=0.05)


def test_traces_follow_from_the_seed(net: nn.Module, batches: list) -> None:
    first, again, other = (hw.hessian_trace(net, squared, batches, samples=3, seed=s) for s in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_loss_that_is_linear_has_no_curvature() -> None:
    found = hw.hessian_trace(nn.Linear(3, 2), lambda m, x: m(x).sum(), [torch.ones(1, 3)])
    assert found[""].value == 0


def test_the_fisher_is_the_mean_of_squared_gradients(net: nn.Module, batches: list) -> None:
    single = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(7)]
    found = hw.empirical_fisher(net, squared, single)
    net.eval()
    total = torch.zeros_like(net[0].weight)
    for one in single:
        net.zero_grad()
        squared(net, one).backward()
        total += net[0].weight.grad ** 2
    assert torch.allclose(found["0"], total / len(single), rtol=1e-12)
    assert found["3"].shape == net[3].weight.shape


def test_second_order_losses() -> None:
    rng = np.random.default_rng(0)
    w, fisher = rng.standard_normal((4, 16)), rng.uniform(0, 2, (4, 16))
    moved = lowp.quantize(w, "int4_row") - w
    plain = hw.weight_sensitivity(w, ["int4_row", "int4_row/int8_row"])
    assert plain["int4_row"] == plain["int4_row/int8_row"] == pytest.approx(np.sum(moved**2))
    traced = hw.weight_sensitivity(w, ["int4_row"], trace=128.0)
    assert traced["int4_row"] == pytest.approx(2 * np.sum(moved**2))
    assert hw.weight_sensitivity(w, ["int4_row"], trace=-3.0) == {"int4_row": 0.0}
    assert hw.weight_sensitivity(w, ["int4_row"], fisher=fisher)["int4_row"] == pytest.approx(
        0.5 * np.sum(fisher * moved**2)
    )


@pytest.mark.parametrize("method", ["hessian", "fisher", "measured"])
def test_layers_of_a_module(net: nn.Module, batches: list, method: str) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layers = hw.precision_layers(net, squared, batches, ["int8_row", "int2_row"], method, samples=8)
    assert [(la.name, la.weights, la.multiply_adds) for la in layers] == [("0", 20, 140), ("3", 8, 56)]
    assert all(la.sensitivity["int2_row"] > la.sensitivity["int8_row"] for la in layers)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    budget = {"size": hw.budget_between(layers, "size", 0.5)}
    assert hw.assign_precisions(layers, budget, "pareto").costs["size"] <= budget["size"]


def test_measured_losses_are_measured(net: nn.Module, batches: list) -> None:
    (layer, _) = hw.precision_layers(net, squared, batches, ["int3_row"], "measured")
    net.eval()
    with torch.no_grad():
        base = sum(float(squared(net, b)) for b in batches) / 2
        net[0].weight.copy_(torch.as_tensor(lowp.quantize(net[0].weight.numpy(), "int3_row")))
        changed = sum(float(squared(net, b)) for b in batches) / 2
    assert layer.sensitivity["int3_row"] == pytest.approx(changed - base)


def test_convolutions_have_a_scale_per_output_channel() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU())
    with torch.no_grad():
        model[0].weight[0] *= 1000
    x = torch.randn(2, 3, 6, 6)
    (layer,) = hw.precision_layers(model, lambda m, b: m(b).square().mean(), [x], ["int4_row"], "measured")
    assert (layer.name, layer.weights, layer.multiply_adds) == ("0", 108, 2 * 36 * 108)
    rows = model[0].weight.detach().reshape(4, -1).double().numpy()
    error = hw.weight_sensitivity(rows, ["int4_row"])["int4_row"]
    assert error < np.sum((lowp.quantize(rows.reshape(1, -1), "int4_row") - rows.reshape(1, -1)) ** 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hw.hessian_trace(nn.Linear(2, 2), squared, []), ArgumentError, "batches"),
        (lambda: hw.hessian_trace(nn.ReLU(), squared, [1]), ArgumentError, "no linear"),
        (lambda: hw.hessian_trace("net", squared, [1]), ArgumentTypeError, "Module"),
        (lambda: hw.hessian_trace(nn.Linear(2, 2), lambda m, b: m(b), [torch.ones(2, 2)]), ArgumentTypeError, "loss"),
        (lambda: hw.hessian_trace(nn.Linear(2, 2), squared, [1], samples=0), ArgumentError, "samples"),
        (lambda: hw.precision_layers(nn.Linear(2, 2), squared, [1], method="guess"), ArgumentError, "hessian"),
        (lambda: hw.weight_sensitivity([1.0], ["int8"], trace=1.0, fisher=[1.0]), ArgumentError, "not both"),
        (lambda: hw.weight_sensitivity([1.0], ["int8"], trace=math.inf), ArgumentError, "trace"),
        (lambda: hw.weight_sensitivity([1.0], ["int8"], fisher=[1.0, 2.0]), ArgumentError, "fisher"),
        (lambda: hw.weight_sensitivity([math.nan], ["int8"]), ArgumentError, "finite"),
        (lambda: hw.weight_sensitivity([1.0], ["nonsense"]), FormatError, "nonsense"),
        (lambda: hw.measured_sensitivity(lambda *_: math.nan, ["a"], ["int8"], 0.0), ArgumentError, "finite"),
    ],
)
def test_what_makes_no_sense_raises(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]
