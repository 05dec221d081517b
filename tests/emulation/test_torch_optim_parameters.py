"""Parameters in low precision, saving and loading, and all that works with any optimizer."""

import copy
import io
from typing import Any

import pytest
import torch

import lowp
from lowp.emulation import Cast
from lowp.emulation.optimizer_states import site_seed, step_seed
from lowp.emulation.torch_optim import LowPrecision
from tests.emulation.optimizers import parameters, same, set_gradients

CONFIGURATIONS = {
    "states": {"states": Cast("float8_e4m3fn", rounding="stochastic_a")},
    "dynamic8": {"states": "dynamic8"},
    "muonq4": {"states": "muonq4"},
    "rounded": {"states": "dynamic8", "encoded": False},
    "masters": {"states": "mxfp8", "parameters": "float8_e4m3fn", "master_weights": True},
    "stochastic masters": {"parameters": Cast("mxfp4", rounding="stochastic_a"), "master_weights": True},
    "no masters": {"states": "dynamic8", "parameters": "bfloat16", "update_rounding": "stochastic_a"},
}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_first", [True, False])
def test_a_resumed_run_equals_an_uninterrupted_one(configuration: str, dtype: torch.dtype, model_first: bool) -> None:
    def start(params: list[torch.nn.Parameter]) -> LowPrecision:
        return LowPrecision(torch.optim.AdamW(params, lr=1e-2), seed=3, **CONFIGURATIONS[configuration])

    whole = parameters(dtype=dtype)
    optimizer = start(whole)
    for step in range(3):
        set_gradients(whole, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save({"model": whole, "optimizer": optimizer.state_dict()}, file)
    for step in range(3, 6):
        set_gradients(whole, step)
        optimizer.step()
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = parameters(seed=9, dtype=dtype)
    again = start(resumed)

    def load_model() -> None:
        with torch.no_grad():
            for p, s in zip(resumed, saved["model"], strict=True):
                p.copy_(s)

    if model_first:
        load_model()
    again.load_state_dict(saved["optimizer"])
    if not model_first:
        load_model()
    for step in range(3, 6):
        set_gradients(resumed, step)
        again.step()
    assert same(whole, resumed)
    assert same_tree(optimizer.state_dict(), again.state_dict())


def same_tree(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(
            a.view(torch.uint8) if a.ndim else a, b.view(torch.uint8) if b.ndim else b
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tree(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same_tree(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_masters_are_the_plain_run_and_the_model_holds_them_rounded() -> None:
    model, plain = parameters(), parameters()
    optimizer = LowPrecision(torch.optim.SGD(model, lr=0.1), parameters="float8_e4m3fn", master_weights=True)
    assert same(model, [lowp.quantize(p.detach(), "float8_e4m3fn") for p in parameters()])
    by_hand = torch.optim.SGD(plain, lr=0.1)
    for step in range(5):
        set_gradients(model, step)
        set_gradients(plain, step)
        optimizer.step()
        by_hand.step()
    assert same(model, [lowp.quantize(p.detach(), "float8_e4m3fn") for p in plain])
    assert optimizer.nbytes == sum(p.nbytes for p in plain)


def test_an_edit_of_the_model_becomes_part_of_the_masters() -> None:
    model = parameters()
    optimizer = LowPrecision(torch.optim.SGD(model, lr=0.0), parameters="float8_e4m3fn", master_weights=True)
    master = optimizer.state_dict()["state"][0]["lowp_master"].clone()
    with torch.no_grad():
        model[0][0, 0] = 12.0
    set_gradients(model, 0)
    optimizer.step()
    changed = optimizer.state_dict()["state"][0]["lowp_master"]
    assert changed[0, 0] == 12.0
    master[0, 0] = 12.0
    assert torch.equal(changed, master)


def test_bfloat16_parameters_are_updated_in_float32_and_rounded_once() -> None:
    model, plain = parameters(dtype=torch.bfloat16), parameters(dtype=torch.bfloat16)
    optimizer = LowPrecision(torch.optim.SGD(model, lr=1e-3), parameters="bfloat16", update_rounding="stochastic_a")
    for step in range(3):
        set_gradients(model, step)
        set_gradients(plain, step)
        optimizer.step()
        for i, p in enumerate(plain):
            exact = p.detach().float().add(p.grad.float(), alpha=-1e-3)
            seed = step_seed(site_seed(0, str(i), "parameter"), step + 1)
            p.data = lowp.quantize(exact, "bfloat16", rounding="stochastic_a", seed=seed).to(torch.bfloat16)
    assert same(model, plain)


def test_stochastic_updates_move_on_average_where_nearest_ones_stay() -> None:
    """Steps of a 64th of an ulp: nearest never moves; stochastic moves by the sum of the steps, within 5 sigma."""
    n, steps, ulp = 4096, 64, 2.0**-7
    for mode, mean in (("ties_to_even", 0.0), ("stochastic_a", 1.0)):
        p = torch.nn.Parameter(torch.full((n,), 1.25))
        optimizer = LowPrecision(torch.optim.SGD([p], lr=1.0), parameters="bfloat16", update_rounding=mode)
        for _ in range(steps):
            p.grad = torch.full((n,), -ulp / 64)
            optimizer.step()
        moved = float((p.detach().double() - 1.25).mean()) / ulp
        sigma = (steps * (1 / 64) * (63 / 64) / n) ** 0.5
        assert abs(moved - mean) <= 5 * sigma * (mean > 0), (mode, moved)


def test_schedulers_groups_and_the_scaler_work_on_the_wrapper() -> None:
    def run(wrap: bool) -> tuple[list[torch.nn.Parameter], float]:
        params = parameters()
        inner = torch.optim.AdamW([{"params": params[:1], "lr": 1e-2}, {"params": params[1:2]}], lr=1e-3)
        optimizer: torch.optim.Optimizer = LowPrecision(inner, "float32") if wrap else inner
        optimizer.add_param_group({"params": params[2:], "weight_decay": 0.5})
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            loss = sum(((p - torch.randn(p.shape, generator=generator)) ** 2).sum() for p in params)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
        return params, optimizer.param_groups[0]["lr"]

    (a, lr_a), (b, lr_b) = run(True), run(False)
    assert same(a, b)
    assert lr_a == lr_b


def test_lbfgs_runs_its_closure_and_its_lists_are_rounded() -> None:
    results = []
    for states, masters in ((None, False), ("float32", False), ("bfloat16", False), (None, True)):
        x = torch.nn.Parameter(torch.tensor([-1.0, 1.5]))
        inner = torch.optim.LBFGS([x], lr=0.5, max_iter=5)
        optimizer: Any = inner
        if states or masters:
            optimizer = LowPrecision(inner, states, parameters="float32" if masters else None, master_weights=masters)

        def closure(x: torch.nn.Parameter = x, optimizer: Any = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = (1 - x[0]) ** 2 + 2 * (x[1] - x[0] ** 2) ** 2
            loss.backward()
            return loss

        for _ in range(6):
            optimizer.step(closure)
        results.append(x.detach())
        if states == "bfloat16":
            assert optimizer.state[x]["old_dirs"][0].cast.format.name == "bfloat16"
            assert torch.allclose(x, torch.ones(2), atol=0.2)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[3])
    assert not torch.equal(results[0], results[2])


def test_parameters_by_pattern() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    LowPrecision(torch.optim.SGD(model.named_parameters()), parameters={"*weight": "int8", "1.*": None})
    assert torch.equal(model[0].weight, model[0].weight.round())
    assert not torch.equal(model[0].bias, model[0].bias.round())


def test_a_copy_goes_on_like_the_original() -> None:
    params = parameters()
    optimizer = LowPrecision(torch.optim.Adam(params), "dynamic8", parameters="bfloat16", master_weights=True)
    set_gradients(params, 0)
    optimizer.step()
    other, other_params = copy.deepcopy((optimizer, params))
    for p, o in ((params, optimizer), (other_params, other)):
        set_gradients(p, 1)
        o.step()
    assert same(params, other_params)


def test_a_failing_closure_leaves_the_states_as_they_were() -> None:
    params = parameters()
    optimizer = LowPrecision(torch.optim.Adam(params), "dynamic8")
    set_gradients(params, 0)
    optimizer.step()
    before = optimizer.state[params[0]]["exp_avg"]

    def closure() -> float:
        raise KeyError("no data")

    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert optimizer.state[params[0]]["exp_avg"] is before
