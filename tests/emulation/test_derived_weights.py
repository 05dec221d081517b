"""What is computed from parameters alone is a weight, in torch as in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")
import jax.numpy as jnp  # noqa: E402
from torch import nn  # noqa: E402

import lowp.jax as lj  # noqa: E402
import lowp.torch as lt  # noqa: E402
from lowp.emulation import Recipe  # noqa: E402

RECIPE = Recipe(weight="mxfp4", activation="float8_e4m3fn")
LENGTH = 32
#: Functions of the framework's module, x, and the parameters w (square), g (a vector), a and b (of low rank).
PROGRAMS: dict[str, Callable[..., Any]] = {
    "parameter": lambda f, x, w, g, a, b: x @ w,
    "scaled": lambda f, x, w, g, a, b: x @ (w * 2),
    "scaled on the left": lambda f, x, w, g, a, b: (w * 2 + 1) @ x.T,
    "rows": lambda f, x, w, g, a, b: x @ (w * f.exp(g)[:, None]),
    "sum": lambda f, x, w, g, a, b: x @ (w + a.T @ b.T),
    "function": lambda f, x, w, g, a, b: x @ f.tanh(w).T,
    "rounded": lambda f, x, w, g, a, b: x @ (w + 0.5 - f.abs(w)),
    "part": lambda f, x, w, g, a, b: x[:, :16] @ (w * 2)[:16],
    "normalized": lambda f, x, w, g, a, b: x @ (w / f.sqrt((w * w).sum(0))),
    "einsum": lambda f, x, w, g, a, b: f.einsum("bi,ji->bj", x, w * w),
    "two": lambda f, x, w, g, a, b: x @ w * 2 @ w,
    "data": lambda f, x, w, g, a, b: x @ (w * x.mean()),
    "activations": lambda f, x, w, g, a, b: (x * g) @ (x @ w).T,
    "sum with data": lambda f, x, w, g, a, b: x @ (w + x.T @ x),
}


class Layer(nn.Module):
    def __init__(self, program: Any, arrays: dict[str, Any]) -> None:
        super().__init__()
        self.program = program
        for name, value in arrays.items():
            setattr(self, name, nn.Parameter(torch.from_numpy(value)))

    def forward(self, x: Any) -> Any:
        return self.program(torch, x, self.w, self.g, self.a, self.b)


def _arrays() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    shapes = {"w": (LENGTH, LENGTH), "g": (LENGTH,), "a": (4, LENGTH), "b": (LENGTH, 4)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("recorded", [True, False], ids=["graph", "no_grad"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_torch_and_jax_agree(name: str, recorded: bool) -> None:
    program, arrays = PROGRAMS[name], _arrays()
    x = np.random.default_rng(3).standard_normal((8, LENGTH)).astype(np.float32)
    net = nn.ModuleDict({"layer": Layer(program, arrays)})
    with torch.set_grad_enabled(recorded), lt.emulate(RECIPE) as run:
        y = net["layer"](torch.from_numpy(x))
    low = lj.emulate(lambda p, x: program(jnp, x, p["w"], p["g"], p["a"], p["b"]), RECIPE)
    wanted = low({k: jnp.asarray(v) for k, v in arrays.items()}, jnp.asarray(x))
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
    rows = [sorted((r.operation, r.role, r.cast.replace("left alone: not among the recipe's operations",
                                                        "not emulated"), r.count) for r in report.find())
            for report in (run.report, low.report)]  # fmt: skip
    assert _summed(rows[0]) == _summed(rows[1])
    assert any(row[0] == "matmul" for row in rows[0]) == (name in ("data", "activations", "sum with data"))


def _summed(rows: list[Any]) -> dict[Any, int]:
    """Return counts by all but the layer's name."""
    found: dict[Any, int] = {}
    for *row, count in rows:
        found[tuple(row)] = found.get(tuple(row), 0) + count
    return found


def test_the_layer_is_that_of_the_largest_parameter() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = nn.Linear(8, 1, bias=False), nn.Linear(8, 8, bias=False)
            self.register_buffer("mask", torch.ones(8, 8).tril())

        def forward(self, x: Any) -> Any:
            return x @ (self.small.weight * self.large.weight * self.mask)

    with lt.emulate("fp8") as run:
        Outer()(torch.randn(2, 8))
    assert {(row.layer, row.operation) for row in run.report.rows} == {("large", "linear")}


def test_what_data_is_written_to_is_data() -> None:
    w, x = nn.Parameter(torch.randn(8, 8)), torch.randn(8, 8)
    with lt.emulate("fp8") as run, torch.no_grad():
        for change in (lambda t: t.add_(x), lambda t: t.__setitem__(0, x[0]), lambda t: t.copy_(x)):
            copy = w * 2
            change(copy)
            _ = x @ copy
        w.grad = x.clone()
        _ = x @ w.grad, x @ torch.zeros_like(w)
    assert {row.operation for row in run.report.rows} == {"matmul"}


def test_ones_that_are_data_stay_data() -> None:
    net = nn.Linear(8, 8)
    with lt.emulate("fp8") as run:
        h = net(torch.ones(4, 8))
        _ = h @ h.T
    assert [row.operation for row in run.report.find(role="")] == ["matmul"]
