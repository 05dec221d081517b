"""Tracing leaves modules, gradients and optimizers as they were, and knows weights under other names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lowp import hw


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def roles(work: hw.Workload) -> list[str]:
    return [op.role for op in work.products]


@pytest.mark.parametrize("by_values", [False, True])
def test_a_training_step_leaves_nothing_behind(by_values: bool):
    net = model()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    before = [(p.detach().clone(), p.grad.clone()) for p in net.parameters()]
    moments = {p: s["exp_avg"].clone() for p, s in optimizer.state.items()}

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = net(x).sum()
        if by_values:
            loss.item()
        loss.backward()
        optimizer.step()

    work = hw.trace(step, torch.ones(5, 8))
    assert sorted(roles(work)) == ["input_gradient", "linear", "linear", "weight_gradient", "weight_gradient"]
    assert work.weight_values == 8 * 16 + 16 * 4
    for parameter, (value, gradient) in zip(net.parameters(), before, strict=True):
        assert type(parameter.grad) is torch.Tensor
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, gradient)
    assert all(torch.equal(s["exp_avg"], moments[p]) for p, s in optimizer.state.items())
    assert all(s["step"] == 1 for s in optimizer.state.values())
    step(torch.ones(5, 8))  # still trains


def test_a_new_optimizer_gets_no_state():
    net = model()
    optimizer = torch.optim.Adam(net.parameters())

    def step(x: torch.Tensor) -> None:
        net(x).sum().backward()
        optimizer.step()

    hw.trace(step, torch.ones(5, 8))
    assert not optimizer.state
    assert all(p.grad is None for p in net.parameters())


class Caching(nn.Module):
    def __init__(self, by_values: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.layer = nn.Linear(8, 8)
        self.calls, self.last, self.kept, self.by_values = 0, None, [], by_values

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x = self.norm(x)
        if self.by_values:
            x.sum().item()
        self.last = self.layer(x)
        self.kept.append(self.last)
        return self.last


@pytest.mark.parametrize("by_values", [False, True])
def test_modules_hold_what_they_held(by_values: bool):
    module = Caching(by_values)
    for program in (module, lambda x: module(x) + 0):
        assert hw.trace(program, torch.ones(5, 8)).multiply_adds == 5 * 64
    assert (module.calls, module.last, module.kept) == (0, None, [])
    assert module.norm.num_batches_tracked == 0
    assert torch.equal(module.norm.running_mean, torch.zeros(8))


def test_weights_are_known_through_casts_and_in_functions():
    net = model()

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(x)

    for program in (Cast(), lambda x: net(x) + 0, Cast().forward):
        work = hw.trace(program, torch.ones(5, 8))
        assert roles(work) == ["linear", "linear"]
        assert (work.weight_values, work.other_values) == (192, 20)
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 16))
    assert roles(hw.trace(normed, torch.ones(5, 8))) == ["linear"]


def test_what_only_looks_like_a_weight_is_none():
    weight = nn.Parameter(torch.ones(8, 8))

    def program(x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros_like(weight)
        return x @ (mask + x.T @ x)

    assert roles(hw.trace(program, torch.ones(5, 8))) == ["activations", "activations"]


def test_in_place_and_summed_products_are_products():
    a, b, c = torch.ones(4, 6), torch.ones(4, 5), torch.ones(5, 6)
    assert hw.trace(lambda a, b, c: a.addmm_(b, c), a, b, c).multiply_adds == 4 * 5 * 6
    batch = torch.ones(3, 4, 5), torch.ones(3, 5, 6)
    assert hw.trace(lambda a, b, c: torch.addbmm(a, b, c, beta=2), a, *batch).multiply_adds == 3 * 4 * 5 * 6
    assert hw.trace(lambda a, b, c: a.baddbmm_(b, c), torch.ones(3, 4, 6), *batch).multiply_adds == 3 * 4 * 5 * 6
    assert hw.trace(lambda a, b, c: a.addmv_(b, c), torch.ones(4), b, torch.ones(5)).multiply_adds == 20


def test_a_bilinear_layer_multiplies_twice():
    work = hw.trace(nn.Bilinear(3, 4, 5), torch.ones(2, 3), torch.ones(2, 4))
    assert [(op.m, op.n, op.k, op.groups, op.role) for op in work.products] == [
        (2, 20, 3, 1, "linear"),
        (5, 1, 4, 2, "activations"),
    ]
    assert (work.weight_values, work.other_values) == (60, 5)


@pytest.mark.parametrize(("layer", "given"), [("cpu", "meta"), ("meta", "cpu"), ("meta", "meta")])
def test_shapes_may_stand_for_numbers_on_either_side(layer: Any, given: Any):
    work = hw.trace(nn.Linear(8, 16, device=layer), torch.ones(4, 8, device=given))
    assert work.multiply_adds == 4 * 8 * 16
    assert work.weight_values == 128


def test_uneven_experts_count_every_token_once():
    x, w = torch.empty(10, 32, dtype=torch.bfloat16), torch.empty(4, 32, 48, dtype=torch.bfloat16)
    ends = torch.tensor([3, 5, 8, 10], dtype=torch.int32)
    work = hw.trace(lambda x, w, e: torch._grouped_mm(x, w, offs=e), x, w, ends, weights=1)
    assert work.multiply_adds == 10 * 32 * 48
