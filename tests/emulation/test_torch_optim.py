"""Optimizers whose states and parameters are kept in low precision, against the same steps by hand."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

import lowp
from lowp.emulation import Cast, Recipe, Rule
from lowp.emulation.optimizer_states import STATE_FORMATS, site_seed, step_seed
from lowp.emulation.torch_optim import LowPrecision
from tests.emulation.optimizers import bits, parameters, same, set_gradients

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "adamw_amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "asgd": torch.optim.ASGD,
    "rprop": torch.optim.Rprop,
    "adafactor": torch.optim.Adafactor,
    "muon": lambda p: torch.optim.Muon([x for x in p if x.ndim == 2], lr=1e-3),
}


def state_tensors(optimizer: Any) -> list[tuple[int, str, dict[str, Any]]]:
    found = []
    for i, p in enumerate(p for g in optimizer.param_groups for p in g["params"]):
        for name, value in optimizer.state.get(p, {}).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim:
                found.append((i, name, optimizer.state[p]))
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fmt", ["bnb_dynamic8_signed", "float8_e5m2", "bfloat16", "mxfp8"])
def test_states_are_those_of_a_plain_optimizer_encoded_and_decoded_by_hand(name: str, fmt: str) -> None:
    wrapped, plain = parameters(), parameters()
    optimizer, by_hand = LowPrecision(OPTIMIZERS[name](wrapped), fmt), OPTIMIZERS[name](plain)
    for step in range(4):
        set_gradients(wrapped, step)
        set_gradients(plain, step)
        optimizer.step()
        by_hand.step()
        for _, key, state in state_tensors(by_hand):
            state[key] = lowp.decode(lowp.encode(state[key], fmt))
    assert same(wrapped, plain)
    assert not state_tensors(optimizer)  # all are codes


@pytest.mark.parametrize("encoded", [True, False])
def test_stochastic_states_follow_seed_parameter_name_and_step(encoded: bool) -> None:
    wrapped, plain = parameters(), parameters()
    cast = Cast("float8_e4m3fn", rounding="stochastic_a", random_bits=9)
    optimizer = LowPrecision(torch.optim.Adam(wrapped), cast, seed=5, encoded=encoded)
    by_hand = torch.optim.Adam(plain)
    for step in range(3):
        set_gradients(wrapped, step)
        set_gradients(plain, step)
        optimizer.step()
        by_hand.step()
        for i, key, state in state_tensors(by_hand):
            seed = step_seed(site_seed(5, str(i), key), step + 1)
            options = {"rounding": "stochastic_a", "random_bits": 9, "seed": seed}
            state[key] = lowp.quantize(state[key], "float8_e4m3fn", **options)
    assert same(wrapped, plain)
    other = parameters()
    again = LowPrecision(torch.optim.Adam(other), cast, seed=6, encoded=encoded)
    for step in range(3):
        set_gradients(other, step)
        again.step()
    assert not same(other, wrapped)


@pytest.mark.parametrize("states", [*STATE_FORMATS, "int8", "nvfp4", "mxfp4", "posit16", "muonq4_row", "bnb_nf4"])
def test_codes_and_rounded_tensors_hold_the_same_values(states: str) -> None:
    runs = []
    for encoded in (True, False):
        params = parameters()
        optimizer = LowPrecision(torch.optim.Adam(params, lr=1e-3), states, encoded=encoded)
        for step in range(3):
            set_gradients(params, step)
            optimizer.step()
        runs.append(params)
    assert same(*runs)


def test_a_set_of_formats_gives_second_moments_the_unsigned_map() -> None:
    params = parameters()
    optimizer = LowPrecision(torch.optim.Adam(params), "dynamic8")
    set_gradients(params, 0)
    optimizer.step()
    state = optimizer.state[params[0]]
    assert state["exp_avg"].cast.format.name == "bnb_dynamic8_signed"
    assert state["exp_avg_sq"].cast.format.name == "bnb_dynamic8_unsigned"
    assert isinstance(state["step"], torch.Tensor)


def test_moments_get_the_codes_of_bitsandbytes(vectors: Any) -> None:
    """SGD with dampening 0: the first momentum is the gradient, so its codes are those that the library gives."""
    data: Mapping[str, np.ndarray] = vectors("bitsandbytes/blockwise8")
    x, codes = (torch.from_numpy(data[f"signed_bs256_mix_f32/{name}"]) for name in ("x", "codes_default"))
    p = torch.nn.Parameter(torch.zeros_like(x))
    p.grad = x.clone()
    optimizer = LowPrecision(torch.optim.SGD([p], lr=1e-3, momentum=0.9), "dynamic8")
    optimizer.step()
    stored = optimizer.state[p]["momentum_buffer"].parts["codes"]
    assert torch.equal(stored.reshape(-1), codes.reshape(-1))


def test_bytes_are_those_of_the_codes() -> None:
    p = torch.nn.Parameter(torch.zeros(256, 256))
    p.grad = torch.randn(256, 256)
    n = 256 * 256
    for states, expected in [
        ("dynamic8", 2 * (n + 4 * n // 256)),
        ("mulaw4", n // 2 + 4 * n // 128 + n + 4 * n // 256),
        ("mxfp8", 2 * (n + n // 32)),
        ("mxfp4", 2 * (n // 2 + n // 32)),
        ("bfloat16", 4 * n),
        ("muonq4", n // 2 + 2 + 4 + n + 4 * n // 256),
    ]:
        optimizer = LowPrecision(torch.optim.Adam([p]), states)
        optimizer.step()
        assert optimizer.nbytes == expected + 4, states  # and the step
        assert sum(
            t.nbytes for s in optimizer.state[p].values() if not torch.is_tensor(s) for t in s.parts.values()
        ) == (expected)


def test_a_short_state_stores_no_padding() -> None:
    p = torch.nn.Parameter(torch.zeros(10))
    p.grad = torch.randn(10)
    optimizer = LowPrecision(torch.optim.SGD([p], momentum=0.9), "dynamic8")
    optimizer.step()
    assert optimizer.nbytes == 14
    assert torch.equal(optimizer.state[p]["momentum_buffer"].decode(), lowp.quantize(p.grad, "bnb_dynamic8_signed"))


def test_small_states_stay_by_option() -> None:
    small, large = torch.nn.Parameter(torch.ones(100)), torch.nn.Parameter(torch.ones(64, 64))
    optimizer = LowPrecision(torch.optim.Adam([small, large]), "dynamic8", min_size=4096)
    small.grad, large.grad = torch.ones(100), torch.ones(64, 64)
    optimizer.step()
    assert optimizer.state[small]["exp_avg"].dtype == torch.float32
    assert not isinstance(optimizer.state[large]["exp_avg"], torch.Tensor)
    table = optimizer.describe().splitlines()
    assert table[1].split() == ["0", "exp_avg", "float32", "100", "400"]
    assert table[3].split() == ["1", "exp_avg", "bnb_dynamic8_signed", "4096", "4160"]


def test_a_parameter_without_gradient_keeps_its_state() -> None:
    for encoded in (True, False):
        params = parameters()
        cast = Cast("mxfp4", rounding="stochastic_a")
        optimizer = LowPrecision(torch.optim.Adam(params), cast, parameters=cast, encoded=encoded)
        set_gradients(params, 0)
        optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict()["state"][1]["exp_avg"])
        before = params[1].detach().clone()
        for step in range(1, 4):
            set_gradients(params, step)
            params[1].grad = None
            optimizer.step()
        now = optimizer.state_dict()["state"][1]["exp_avg"]
        if encoded:
            assert all(torch.equal(now["parts"][k], saved["parts"][k]) for k in saved["parts"])
        else:
            assert torch.equal(bits(now), bits(saved))
        assert torch.equal(bits(params[1]), bits(before))


def test_recipes_give_the_format_by_layer_name() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    recipe = Recipe(
        optimizer_state={"format": "float8_e5m2", "rounding": "stochastic_a"},
        seed=7,
        rules=[Rule("1", casts=(("optimizer_state", (("format", "bfloat16"),)),))],
    )
    with pytest.raises(lowp.ArgumentError, match="named_parameters"):
        LowPrecision(torch.optim.Adam(model.parameters()), recipe)
    optimizer = LowPrecision(torch.optim.Adam(model.named_parameters()), recipe)
    model(torch.ones(2, 8)).sum().backward()
    optimizer.step()
    cast = optimizer.state[model[0].weight]["exp_avg"].cast
    assert (cast.format.name, cast.rounding) == ("float8_e5m2", "stochastic_a")
    assert optimizer.state[model[1].weight]["exp_avg"].cast.format.name == "bfloat16"
    assert optimizer.state_dict()["low_precision"]["seed"] == 7
    exempt = recipe.replace(rules=[Rule("1", exempt=True)])
    optimizer = LowPrecision(torch.optim.Adam(model.named_parameters()), exempt)
    optimizer.step()
    assert isinstance(optimizer.state[model[1].weight]["exp_avg"], torch.Tensor)


def test_a_plain_state_dict_is_rounded_when_loaded() -> None:
    params = parameters()
    plain = torch.optim.Adam(params)
    set_gradients(params, 0)
    plain.step()
    optimizer = LowPrecision(torch.optim.Adam(params), "bfloat16")
    optimizer.load_state_dict(plain.state_dict())
    expected = lowp.quantize(plain.state[params[0]]["exp_avg"], "bfloat16")
    assert torch.equal(optimizer.state[params[0]]["exp_avg"].decode(), expected)
    early = LowPrecision(plain, "bfloat16")  # states that are there already
    assert torch.equal(early.state[params[0]]["exp_avg"].decode(), expected)


@pytest.mark.parametrize("states", ["dynamic8", "mulaw4", "muonq4", {"exp_avg": "bnb_linear8_signed"}])
def test_a_regression_converges(states: Any) -> None:
    """Second moments in linear steps become zero, and Adam diverges: that is what the dynamic map is for."""
    generator = torch.Generator().manual_seed(0)
    x, truth = torch.randn(256, 32, generator=generator), torch.randn(32, 8, generator=generator)
    w = torch.nn.Parameter(torch.zeros(32, 8))
    optimizer = LowPrecision(torch.optim.Adam([w], lr=0.05), states)
    for _ in range(300):
        optimizer.zero_grad()
        loss = ((x @ w - x @ truth) ** 2).mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


def test_what_cannot_be_is_said() -> None:
    params = parameters()
    adam = torch.optim.Adam(params)
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (params, {"states": "dynamic8"}, lowp.ArgumentTypeError, "optimizer="),
        (adam, {}, lowp.ArgumentError, "nothing to keep"),
        (adam, {"states": "dynamic9"}, lowp.FormatError, "dynamic9"),
        (adam, {"states": {"exp_avg": "dynamic8"}}, lowp.ArgumentError, "set of formats"),
        (adam, {"states": {"exp_avg": 5}}, lowp.ArgumentTypeError, "exp_avg"),
        (adam, {"states": Cast("mxfp4", hadamard=32)}, lowp.ArgumentError, "hadamard=32"),
        (adam, {"states": {"format": "int8", "normalize": "max"}}, lowp.ArgumentError, "normalize='max'"),
        (adam, {"states": "int8", "rounding": "nearst"}, lowp.ArgumentError, "nearst"),
        (adam, {"states": "int8", "min_size": -1}, lowp.ArgumentError, "min_size=-1"),
        (adam, {"states": "int8", "encoded": 1}, lowp.ArgumentTypeError, "encoded=1"),
        (adam, {"states": "int8", "seed": -1}, lowp.ArgumentError, "seed=-1"),
        (adam, {"master_weights": True}, lowp.ArgumentError, "master_weights=True"),
        (adam, {"parameters": {"encoder.*": "int8"}}, lowp.ArgumentError, "encoder"),
        (LowPrecision(adam, "int8"), {"states": "int8"}, lowp.ArgumentTypeError, "not wrapped yet"),
    ]
    for optimizer, arguments, error, text in cases:
        with pytest.raises(error, match=text):
            LowPrecision(optimizer, **arguments)


def test_patterns_that_match_no_state_are_an_error_at_the_first_step() -> None:
    params = parameters()
    set_gradients(params, 0)
    with pytest.raises(lowp.ArgumentError, match=r"'momentum'.*'exp_avg', 'exp_avg_sq'"):
        LowPrecision(torch.optim.Adam(params), {"exp_avg": "int8", "momentum": "int8"}).step()


def test_sparse_gradients_nan_and_other_formats_are_errors() -> None:
    table = torch.nn.Embedding(10, 4, sparse=True)
    optimizer = LowPrecision(torch.optim.SGD(table.parameters(), momentum=0.9), "dynamic8")
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(lowp.ArgumentTypeError, match="sparse"):
        optimizer.step()
    params = parameters()
    for encoded in (True, False):
        optimizer = LowPrecision(torch.optim.SGD(params, momentum=0.9), "int8", encoded=encoded)
        set_gradients(params, 0)
        params[1].grad[3] = torch.nan
        with pytest.raises(lowp.RangeError, match="state 'momentum_buffer' of parameter 1"):
            optimizer.step()
    params = parameters()
    set_gradients(params, 0)
    saved = LowPrecision(torch.optim.Adam(params), "dynamic8")
    saved.step()
    with pytest.raises(lowp.ArgumentError, match="'bnb_dynamic8_signed'; this optimizer keeps 'int8'"):
        LowPrecision(torch.optim.Adam(params), "int8").load_state_dict(saved.state_dict())
