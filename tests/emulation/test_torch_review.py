"""What an outside review of emulated torch programs found, each with the program that showed it."""

import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional

import lowp
import lowp.torch as lt
from lowp import ArgumentError, ArgumentTypeError, Cast, FormatError, Recipe, Rule

RECIPE = Recipe(weight="mxfp4", activation="mxfp4", gradient="mxfp8")


def _mlp() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8))


def _q(x: torch.Tensor, fmt: str, axis: int = -1) -> torch.Tensor:
    return lowp.quantize(x.detach(), fmt, axis=axis)


class _Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ab = nn.Linear(64, 32, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ab(x)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        return self(x)

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        return self.ab(x)


def test_rules_that_do_not_fit_together_in_one_layer() -> None:
    sixteen, thirty_two = ({role: {"hadamard": n} for role in ("weight", "activation")} for n in (16, 32))
    rules: list[Any] = [
        {"match": "a*", "forward": thirty_two},
        {"match": "*b", "forward": {"weight": {"hadamard": 16}}},
    ]
    recipe = Recipe(weight="mxfp4", activation="mxfp4", forward=sixteen, rules=rules)
    with pytest.raises(ArgumentError, match=r"forward of layer 'ab': hadamard=32 .* and hadamard=16 .* do not cancel"):
        lt.emulate(recipe, _Named())(torch.randn(4, 64))
    rules = [{"match": "a*", "weight": {"format": "fp8", "scaling": "current"}}, {"match": "*b", "weight": "mxfp4"}]
    with pytest.raises(FormatError, match=r"forward\.weight of layer 'ab': scaling='current'"):
        lt.emulate(Recipe(weight="fp8", rules=rules), _Named())(torch.randn(4, 64))


@pytest.mark.parametrize("equation", ["bii,ij->bj", "bibi,ij->bj", "ii,ij->j"])
def test_einsum_of_a_diagonal(equation: str) -> None:
    sizes = {"b": 3, "i": 8, "j": 5}
    x = torch.randn([sizes[c] for c in equation.partition(",")[0]])
    w = nn.Parameter(torch.randn(8, 5))
    with lt.emulate("fp4") as run:
        y = torch.einsum(equation, x, w)
    assert [row.role for row in run.report.rows] == ["activation", "weight"]
    torch.testing.assert_close(y, torch.einsum(equation, _q(x, "fp4"), _q(w, "fp4")))


def test_tensordot_that_broadcasts_and_vecdot() -> None:
    a, w = torch.randn(3, 1), nn.Parameter(torch.randn(5, 4))
    with lt.emulate("fp4") as run:
        y = torch.tensordot(a, w, dims=([1], [0]))
    assert torch.equal(y, _q(a, "fp4") @ _q(w.sum(0, keepdim=True), "fp4"))
    x, w = torch.randn(2, 6, 4), nn.Parameter(torch.randn(6, 4))
    with lt.emulate("mxfp4") as run:
        y = torch.linalg.vecdot(x, w, dim=1)
    assert [(row.role, row.count) for row in run.report.rows] == [("activation", 1), ("weight", 1)]
    torch.testing.assert_close(y, torch.linalg.vecdot(_q(x, "mxfp4", 1), _q(w, "mxfp4", 0), dim=1))


def test_methods_of_a_wrapped_module_are_emulated_too() -> None:
    model, x = _Named(), torch.randn(4, 64)
    low = lt.emulate(Recipe(weight="fp4", rules=[{"match": "ab", "activation": "fp4"}]), model)
    wanted = low(x)
    assert torch.equal(low.predict(x), wanted)
    assert not torch.equal(model.predict(x), wanted)
    assert torch.equal(low.shortcut(x), wanted)
    assert {row.layer for row in low.report.rows} == {"ab"}


def test_threads_share_a_run() -> None:
    model, x = _mlp(), torch.randn(6, 32)
    low = lt.emulate(RECIPE, model)
    plain, wanted = model(x), low(x)
    found: list[Any] = []

    def work() -> None:
        try:
            found.extend(torch.allclose(low(x), wanted, atol=1e-5) for _ in range(20))
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            found.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80
    assert torch.equal(model(x), plain), "a mode stayed behind"


def test_a_thread_that_did_not_enter_is_told_of() -> None:
    model = _mlp()
    with lt.emulate(RECIPE) as run:
        thread = threading.Thread(target=lambda: model(torch.randn(6, 32)))
        thread.start()
        thread.join()
    assert any("thread that did not enter" in remark for remark in run.report.remarks)
    assert not run.report.rows


def test_a_run_is_left_once() -> None:
    with pytest.raises(ArgumentError, match="left more often"):
        lt.emulate("fp8").__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_gradients_of_single_examples(kind: str) -> None:
    model = _mlp() if kind == "linear" else nn.Sequential(nn.Conv1d(32, 4, 3))
    x = torch.randn(5, 32) if kind == "linear" else torch.randn(5, 32, 7)
    parameters = dict(model.named_parameters())

    def loss(p: Any, one: torch.Tensor) -> torch.Tensor:
        return functional_call(model, p, (one[None],)).square().sum()

    with lt.emulate(RECIPE):
        found = vmap(grad(loss), (None, 0))(parameters, x)
    for i, one in enumerate(x):
        with lt.emulate(RECIPE):
            wanted = torch.autograd.grad(loss(parameters, one), list(parameters.values()))
        for name, g in zip(parameters, wanted, strict=True):
            torch.testing.assert_close(found[name][i], g, rtol=1e-6, atol=1e-5)
    masked = Recipe(weight=Cast("fp4", gradient="clipped"))
    for recipe in (masked, Recipe(weight="fp8", activation="fp8", grad_weight={"activation": {"reuse": True}})):
        with pytest.raises(ArgumentError, match="not kept where"), lt.emulate(recipe):
            vmap(grad(loss), (None, 0))(parameters, x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forward_mode_is_refused_by_name() -> None:
    x = torch.randn(6, 32)
    with pytest.raises(ArgumentError, match="layer '0', linear: forward-mode"), lt.emulate(RECIPE):
        jvp(_mlp(), (x,), (x,))


def test_a_recipe_that_resets_random_bits_survives_its_files(tmp_path: Any) -> None:
    recipe = Recipe(
        seed=np.int64(3),
        weight=Cast("fp8", rounding="stochastic", random_bits=np.int32(8), hadamard=np.int64(0)),
        rules=[{"match": "a", "weight": {"random_bits": None}}],
    )
    for name in ("r.toml", "r.json"):
        recipe.save(tmp_path / name)
        assert Recipe.load(tmp_path / name) == recipe
        assert Recipe.load(tmp_path / name).cast("weight", "forward", "a").random_bits is None


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Recipe(weight={"format": "fp8", "scaling": ["delayed"]}), ArgumentError, r"scaling=\['delayed'\]"),
        (lambda: Recipe(weight={"format": "mxfp4", "method": ["quest"]}), ArgumentError, "weight: method="),
        (lambda: Cast("fp8", scaling="delayed", margin=5000), ArgumentError, "margin=5000 .* to 64"),
        (lambda: Recipe(gradient=Cast("fp8", gradient="clipped")), ArgumentError, "grad_input.gradient: gradient="),
        (lambda: Recipe(output=Cast("fp8", gradient="none")), ArgumentError, "output: gradient='none'"),
        (lambda: Rule("a", operation=["linear"]), ArgumentError, "operation="),  # type: ignore[arg-type]
        (lambda: Rule("a", casts=5), ArgumentTypeError, "casts=5"),  # type: ignore[arg-type]
        (lambda: Rule(3), ArgumentTypeError, "match=3"),  # type: ignore[arg-type]
        (lambda: Recipe.load(3), ArgumentTypeError, "path=3"),  # type: ignore[arg-type]
        (lambda: Recipe.named(3), ArgumentTypeError, "name=3"),  # type: ignore[arg-type]
        (lambda: lt.emulate("fp8", shard=(True, 2)), ArgumentError, r"shard=\(True, 2\)"),
        (lambda: lt.every_operation("fp8", only=3), ArgumentTypeError, "only=3"),  # type: ignore[call-overload]
        (lambda: lt.emulate("fp8").report.find(lyer="a"), ArgumentError, "column='lyer' .* 'layer'"),
    ],
)
def test_bad_values_are_named(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_patterns_from_an_iterator() -> None:
    assert Rule(iter(["a", "b"])).match == ("a", "b")  # type: ignore[arg-type]


def test_patterns_where_nothing_runs() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Conv1d(2, 2, 1))
    rules = [Rule("0", exempt=True), Rule("1", operation="linear", exempt=True), Rule("0.0", exempt=True)]
    low = lt.emulate(Recipe(weight="fp8", rules=rules), model)
    low(torch.randn(3, 2, 8))
    assert low.report.remarks == [
        "rules: the pattern '0' matches '0', but no operation ran there. For the layers inside: '0.*'.",
        "rules: the pattern '1' matches '1', but no operation of 'linear' ran there.",
    ]
    with lt.every_operation("bfloat16", only=["ad"]) as run:
        torch.ones(3) + 1
    assert run.report.remarks == ["the pattern 'ad' over primitives matches none that ran. Did you mean 'add'?"]


def test_nan_that_a_format_swallows_is_told_of() -> None:
    model, x = nn.Linear(32, 8), torch.full((2, 32), float("nan"))
    with lt.emulate("nvfp4") as run:
        y = model(x)
    assert y.isfinite().all(), "nvfp4 has no NaN"
    text = "NaN or infinity went into layer '' (linear, forward, activation, call 0), and its result is finite"
    assert run.report.remarks == [text]
    with lt.emulate("fp8", check_finite=False) as run:
        model(torch.full((2, 32), float("inf")))
    assert not run.report.remarks


def test_what_runs_out_of_sight_is_told_of() -> None:
    w, x = nn.Parameter(torch.randn(8, 8)), torch.randn(4, 8)

    def branch() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.cond(torch.tensor(True), lambda a: a @ w.detach(), lambda a: a + 1, (x,))

    for name, program in (("cond", branch), ("_sparse_addmm", lambda: torch.sparse.mm(torch.eye(8).to_sparse(), w))):
        with lt.emulate("fp8") as run:
            program()
        assert any(f"{name}: not emulated" in remark for remark in run.report.remarks), name
        with pytest.raises(ArgumentError, match=f"{name}: not emulated"), lt.emulate("fp8", strict=True):
            program()


def test_the_gradient_rule_of_an_embedding() -> None:
    table = nn.Embedding(4, 8)
    table.weight.data.mul_(5)
    recipe = Recipe(weight=Cast("fp4", gradient="clipped"), operations=("embedding",))
    with lt.emulate(recipe):
        table(torch.tensor([0, 1, 1])).sum().backward()
    times = torch.tensor([[1.0], [2.0], [0.0], [0.0]])
    assert torch.equal(table.weight.grad, times * (table.weight.detach().abs() <= 6))
    assert (table.weight.grad[:2] == 0).any()


def test_padded_batches_of_a_fast_path_and_odd_layers() -> None:
    x = torch.randn(2, 5, 32)
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True).eval()
    padding = torch.tensor([[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]).bool()
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    everything = Recipe(weight="float32", activation="float32", operations=("linear", "attention"))
    with torch.no_grad(), lt.emulate(everything) as run:
        y = encoder(x, src_key_padding_mask=padding)
    assert len(run.report.find(operation="attention"))
    assert len(run.report.find(layer="layers.1.linear2"))
    with torch.no_grad():
        wanted = encoder(x, src_key_padding_mask=padding)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)


_TILED = "block[float4_e2m1fn,4x4,float8_e8m0fnu]"


@pytest.mark.parametrize("fmt", ["mxfp4", "int4_row", _TILED])
@pytest.mark.parametrize("case", ["groups", "transposed"])
def test_grouped_convolutions_are_as_many_convolutions(case: str, fmt: str) -> None:
    transposed = case == "transposed"
    function = functional.conv_transpose1d if transposed else functional.conv1d
    x, w = torch.randn(3, 18, 9, requires_grad=True), nn.Parameter(torch.randn(18, 6, 3))
    g = torch.randn_like(function(x, w, groups=3))
    with lt.emulate(fmt):
        y = function(x, w, groups=3)
        y.backward(g)
    for i in range(3):
        part = x.detach()[:, 6 * i : 6 * i + 6].clone().requires_grad_()
        kernel = nn.Parameter(w.detach()[6 * i : 6 * i + 6].clone())
        with lt.emulate(fmt):
            z = function(part, kernel)
            z.backward(g[:, 6 * i : 6 * i + 6])
        assert torch.allclose(y[:, 6 * i : 6 * i + 6], z, rtol=1e-5, atol=1e-5)
        assert torch.allclose(x.grad[:, 6 * i : 6 * i + 6], part.grad, rtol=1e-5, atol=1e-5)
        assert torch.allclose(w.grad[6 * i : 6 * i + 6], kernel.grad, rtol=1e-5, atol=1e-5)


def test_rotations_of_grouped_convolutions_stay_in_their_groups() -> None:
    x, w = torch.randn(16, 16, 5, requires_grad=True), nn.Parameter(torch.randn(16, 8, 3))
    turned = {"format": "float32", "hadamard": 8, "signs": "random"}
    recipe = Recipe(forward={"weight": turned, "activation": turned}, grad_input={"weight": turned, "gradient": turned})
    with lt.emulate(recipe):
        y = functional.conv1d(x, w, groups=2)
        y.square().sum().backward()
    other = x.detach().clone().requires_grad_()
    z = functional.conv1d(other, w.detach(), groups=2)
    z.square().sum().backward()
    torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-3)
