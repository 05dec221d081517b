"""What an emulation remembers and reports: delayed scaling, checkpointing, NaN, and bad input."""

import copy
import math
from typing import Any

import numpy as np
import pytest

import lowp

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from lowp.torch import Cast, Recipe, Rule, emulate  # noqa: E402

STOCHASTIC = Cast("mxfp4", rounding="stochastic_a")
RANDOM = Recipe(weight=STOCHASTIC, activation=STOCHASTIC, gradient=STOCHASTIC)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def delayed(fmt: str, history: int = 2) -> Cast:
    return Cast(fmt, scaling="delayed", history=history)


DELAYED = Recipe(weight=delayed("float8_e4m3fn"), activation=delayed("float8_e4m3fn"), gradient=delayed("float8_e5m2"))


class ByHand:
    """TransformerEngine's delayed scaling of one tensor: scale from the last amaxes, then this step's amax is added."""

    def __init__(self, fmt: str, history: int = 2) -> None:
        self.format, self.history, self.amax, self.scale = fmt, history, [], np.float32(1)

    def __call__(self, x: Any) -> Any:
        values = x.detach().numpy()
        if self.amax and max(self.amax) > 0:
            self.scale = np.float32(lowp.parse(self.format).max) / np.float32(max(self.amax))
        self.amax = [*self.amax, np.abs(values).max()][-self.history :]
        return torch.from_numpy(lowp.quantize(values * self.scale, self.format) * (np.float32(1) / self.scale))


def test_delayed_scaling_step_by_step() -> None:
    layer = nn.Linear(32, 16, bias=False)
    x_f, w_f, g_b = ByHand("float8_e4m3fn"), ByHand("float8_e4m3fn"), ByHand("float8_e5m2")
    with emulate(DELAYED) as run:
        for step in range(5):
            x = (torch.randn(8, 32) * 10 ** (step % 3)).requires_grad_()
            g = torch.randn(8, 16) * 3.0**step
            y = layer(x)
            layer.weight.grad = None
            y.backward(g)
            qx, qw, qg = x_f(x), w_f(layer.weight), g_b(g)
            assert torch.equal(y, qx @ qw.T)
            assert torch.equal(x.grad, qg @ qw)
            assert torch.equal(layer.weight.grad, qg.T @ qx)
            with torch.no_grad():
                layer.weight -= 0.1
    assert len(run.state.histories) == 3, "X, W and dY each have one"


def test_a_resumed_run_goes_on_as_the_first() -> None:
    net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))
    for recipe in (RANDOM, DELAYED):
        data = [torch.randn(16, 32) * 2.0**i for i in range(4)]
        first, second = emulate(recipe), emulate(recipe)
        for x in data[:2]:
            with first:
                net(x).sum().backward()
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        third = emulate(recipe)
        for x in data[2:]:
            results = []
            for run in (first, second, third):
                with run:
                    results.append(net(x))
                results[-1].sum().backward()
            assert torch.equal(results[0], results[1])
            assert not torch.equal(results[0], results[2])
    with pytest.raises(lowp.ArgumentError, match="state"):
        second.load_state_dict({"calls": {}})
    with pytest.raises(lowp.ArgumentTypeError, match="state"):
        second.load_state_dict(3)  # type: ignore[arg-type]


class Checkpointed(nn.Module):
    """Two blocks, with or without recomputation."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5))
        self.second = nn.Linear(64, 64)

    def forward(self, x: Any) -> Any:
        for block in (self.first, self.second, self.first):
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return x


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("recipe", [RANDOM, DELAYED], ids=["stochastic", "delayed"])
def test_recomputation_repeats_the_forward_pass(recipe: Recipe, reentrant: bool, late: bool) -> None:
    x, results = torch.randn(32, 64, requires_grad=True), []
    start = copy.deepcopy(Checkpointed(None).state_dict())
    for mode in (None, reentrant):
        net = Checkpointed(mode)
        net.load_state_dict(start)
        with emulate(recipe) as run:
            for _ in range(3):
                torch.manual_seed(1)
                net.zero_grad()
                y = net(x)
                if not late:
                    y.square().sum().backward()
        if late:
            y.square().sum().backward()
        amax = {key: h.amax for key, h in run.state.histories.items()}
        results.append((y, [p.grad for p in net.parameters()], run.state.calls, amax))
    plain, again = results
    assert torch.equal(plain[0], again[0])
    for a, b in zip(plain[1], again[1], strict=True):
        assert torch.equal(a, b)
    assert plain[2] == again[2]
    if not late:
        assert all(torch.equal(h, again[3][key]) for key, h in plain[3].items())


def test_the_first_layer_with_nan_is_named() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4))
    with torch.no_grad():
        net[1].weight[0, 0] = math.inf
    overflowing = Recipe(activation=Cast("float16", overflow="infinity_or_nan"))
    with emulate(overflowing) as run:
        loss = net(torch.randn(4, 8)).sum()
        loss.backward()
    assert run.report.remarks[0] == (
        "NaN or infinity appeared first in the result of layer '1' (linear, forward, call 0)"
    )
    assert any(text.startswith("the loss holds NaN or infinity") for text in run.report.remarks)
    with emulate(overflowing, check_finite=False) as quiet:
        net(torch.randn(4, 8)).sum().backward()
    assert not quiet.report.remarks


def test_a_nan_loss_from_elsewhere_is_reported() -> None:
    net = nn.Linear(8, 8)
    with emulate("mxfp8") as run:
        (net(torch.randn(4, 8)).sum() * math.nan).backward()
    assert "the loss holds NaN or infinity" in run.report.remarks


def test_patterns_that_match_nothing() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    recipe = Recipe(weight="mxfp8", rules=[Rule("lm_haed", exempt=True)])
    with pytest.raises(lowp.ArgumentError, match="'lm_haed' matches no layer"):
        emulate(recipe, net)
    run = emulate(recipe)
    with pytest.warns(lowp.PrecisionWarning, match="'lm_haed' matches no layer"), run:
        net(torch.ones(2, 8))
    assert any("'lm_haed'" in text for text in run.report.remarks)
    with run:  # told once
        net(torch.ones(2, 8))

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lm_head = nn.Linear(8, 8)

    with pytest.raises(lowp.ArgumentError, match="Did you mean 'lm_head'"):
        emulate(recipe, Named())


def test_bad_arguments() -> None:
    with pytest.raises(lowp.ArgumentTypeError, match="model"):
        emulate("mxfp4", lambda x: x)  # type: ignore[call-overload]
    with pytest.raises(lowp.ArgumentError, match="nonsense"):
        emulate("nonsense")
    with pytest.raises(lowp.ArgumentTypeError, match="strict"):
        emulate("mxfp4", strict=1)
    for shard in [(2, 2), (0,), 3, (-1, 2)]:
        with pytest.raises(lowp.ArgumentError, match="shard"):
            emulate("mxfp4", shard=shard)
    with pytest.raises(lowp.ArgumentError, match="group"):
        emulate("mxfp4", group="all")


def test_operands_on_different_devices_or_of_different_dtypes() -> None:
    layer = nn.Linear(8, 8, device="meta")
    with emulate("mxfp4"), pytest.raises(lowp.ArgumentError, match=r"layer '', linear: .* lie on cpu and meta"):
        layer(torch.ones(2, 8))
    with emulate("mxfp4"), pytest.raises(lowp.ArgumentError, match=r"bfloat16 and torch.float32"):
        nn.Linear(8, 8)(torch.ones(2, 8, dtype=torch.bfloat16))


def test_what_cannot_be_emulated_is_a_remark_or_an_error() -> None:
    a = torch.ones(4, 4, dtype=torch.complex64)
    recipe = Recipe(activation="mxfp4", operations=["matmul"])
    with emulate(recipe) as run:
        assert torch.equal(a @ a, 4 * a)
    assert any("not dense tensors of real" in text for text in run.report.remarks)
    with emulate(recipe, strict=True), pytest.raises(lowp.ArgumentError, match="strict"):
        a @ a


def test_shapes_that_do_not_fit_and_rotations_that_do_not_divide() -> None:
    with emulate("mxfp4"), pytest.raises(RuntimeError, match="shapes"):
        nn.Linear(8, 8)(torch.ones(2, 7))
    turn: Any = {"weight": Cast("mxfp4", hadamard=64), "activation": Cast("mxfp4", hadamard=64)}
    with (
        emulate(Recipe(forward=turn)),
        pytest.raises(lowp.ArgumentError, match="hadamard=64 does not divide the contraction axis, of length 96"),
    ):
        F.linear(torch.ones(2, 96), nn.Parameter(torch.ones(2, 96)))


def test_an_error_inside_leaves_nothing_behind() -> None:
    net = nn.Sequential(nn.Linear(8, 8))
    with pytest.raises(RuntimeError, match="shapes"), emulate("mxfp4"):
        net(torch.ones(1, 7))
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert torch.equal(net(torch.ones(1, 8)), F.linear(torch.ones(1, 8), net[0].weight, net[0].bias))


def test_copies_and_files_hold_counts_and_histories(tmp_path: Any) -> None:
    net, x = nn.Sequential(nn.Linear(64, 32)), torch.randn(8, 64)
    wrapped = emulate(RANDOM, net)
    wrapped(x)
    torch.save(wrapped, tmp_path / "net.pt")
    copies = [copy.deepcopy(wrapped), torch.load(tmp_path / "net.pt", weights_only=False)]
    wanted = wrapped(x)
    assert all(torch.equal(other(x), wanted) for other in copies)


def test_a_run_inside_itself_counts_once() -> None:
    net, x = nn.Sequential(nn.Linear(32, 32)), torch.randn(8, 32)
    recipe = Recipe(weight="mxfp4", operations=["linear"])
    wrapped = emulate(recipe, net)
    with wrapped.run:
        wrapped(x)
        x @ x.T
    counts = {(row.operation, row.role): row.count for row in wrapped.report.rows}
    assert counts == {("linear", "activation"): 1, ("linear", "weight"): 1, ("matmul", ""): 1}


def test_reports_print_and_counts() -> None:
    net = nn.Sequential(nn.Linear(8, 8))
    wrapped = emulate("mxfp4", net)
    for _ in range(3):
        wrapped(torch.ones(2, 8)).sum().backward()
    assert wrapped.report.find(product="grad_weight", role="gradient")[0].count == 3
    assert "grad_weight" in str(wrapped.report)
    assert "Emulation" in repr(wrapped.run)


def test_explain_lists_layers_and_runs_without_data() -> None:
    net = nn.Sequential(nn.Embedding(10, 32), nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), nn.Linear(32, 4))
    recipe = Recipe(weight="mxfp4", activation="mxfp8", gradient="mxfp8", rules=[Rule("2", exempt=True)])
    listed = recipe.explain(net)
    assert {row.layer for row in listed.find(product="forward", role="weight")} == {
        *("1.self_attn", "1.self_attn.out_proj", "1.linear1", "1.linear2")
    }
    assert [row.cast for row in listed.find(layer="2")] == ["exempt"]
    ran = recipe.explain(net, torch.zeros(2, 5, dtype=torch.long))
    with emulate(recipe) as run:
        net(torch.zeros(2, 5, dtype=torch.long)).sum().backward()
    assert ran.rows == run.report.rows
    assert all(p.grad is not None for p in net.parameters())
    unmatched = recipe.replace(rules=[Rule("nothing", exempt=True)]).explain(net)
    assert any("'nothing' matches no layer" in text for text in unmatched.remarks)


def test_explain_of_functions_and_of_what_depends_on_numbers() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Any) -> Any:
            return self.fc(x) if x.sum().item() > 0 else x

    recipe = Recipe(weight="mxfp4", activation="mxfp4", operations=["linear", "matmul"])
    assert recipe.explain(Odd(), torch.ones(2, 8)).find(layer="fc", role="weight")
    assert recipe.explain(lambda x: x @ x, torch.ones(4, 4)).find(operation="matmul")
    with pytest.raises(lowp.ArgumentTypeError, match="program"):
        recipe.explain(3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_modules_run_uncompiled_with_the_same_bits() -> None:
    net, x = nn.Sequential(nn.Linear(32, 32), nn.ReLU()), torch.randn(8, 32)
    with emulate("mxfp4"):
        wanted = net(x)
    assert torch.equal(torch.compile(emulate("mxfp4", net))(x), wanted)
    compiled = torch.compile(net)
    with emulate("mxfp4"):
        assert torch.equal(compiled(x), wanted)
