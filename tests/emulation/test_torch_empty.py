"""Emulated torch programs whose tensors hold no numbers: experts without tokens, sums over nothing."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import lowp.torch as lt  # noqa: E402
from lowp import Recipe  # noqa: E402

EVERY = ("linear", "matmul")


@pytest.mark.parametrize("recipe", ["mxfp4", "fp8_transformer_engine", "fp8_current", "bitnet_b158", "nvfp4", "int8"])
@pytest.mark.parametrize("shape", [(0, 64), (2, 0, 64)])
def test_a_layer_without_tokens(recipe: str, shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(64, 32), torch.randn(shape, requires_grad=True)
    with lt.emulate(recipe) as run:
        y = layer(x)
        y.sum().backward()
    assert y.shape == (*shape[:-1], 32)
    assert x.grad.shape == x.shape
    assert torch.equal(layer.weight.grad, torch.zeros(32, 64))
    assert len(run.report.find(product="grad_weight"))


def test_no_tokens_leave_a_delayed_scale_as_it_was() -> None:
    layer, x = nn.Linear(64, 32), torch.randn(8, 64)
    run = lt.emulate("fp8_transformer_engine")
    with run:
        layer(x)
        layer(x[:0])
        again = layer(x)
    other = lt.emulate("fp8_transformer_engine")
    with other:
        layer(x)
        wanted = layer(x)
    assert torch.equal(again, wanted)


@pytest.mark.parametrize("bias", [False, True])
def test_sums_over_nothing(bias: bool) -> None:
    x, w = torch.zeros(3, 0), torch.zeros(5, 0)
    b = torch.randn(5) if bias else None
    with lt.emulate("mxfp4"):
        y = nn.functional.linear(x, nn.Parameter(w), b)
    assert torch.equal(y, nn.functional.linear(x, w, b))


@pytest.mark.parametrize(
    ("product", "shapes"),
    [
        (torch.matmul, ((3, 0), (0, 5))),
        (torch.matmul, ((2, 3, 0), (0, 5))),
        (torch.matmul, ((2, 0, 4), (2, 4, 5))),
        (lambda a, b: torch.tensordot(a, b, 1), ((3, 0), (0, 5))),
        (lambda a, b: torch.einsum("ij,jk->ik", a, b), ((3, 0), (0, 5))),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), ((0, 3, 4), (0, 4, 5))),
        (lambda a, b: torch.einsum("bij,bjk->bik", a, b), ((1, 3, 4), (0, 4, 5))),
    ],
)
def test_products_of_activations(product: Any, shapes: Any) -> None:
    a, b = (torch.randn(shape, requires_grad=True) for shape in shapes)
    recipe = Recipe(weight="mxfp4", activation="mxfp4", gradient="mxfp4", operations=EVERY)
    with lt.emulate(recipe) as run:
        y = product(a, b)
        y.sum().backward()
    assert torch.equal(y, product(a, b))
    assert a.grad.shape == a.shape
    assert b.grad.shape == b.shape
    assert len(run.report.find(operation="matmul", product="forward"))


def test_convolutions_out_of_sight_are_told_of() -> None:
    x, w, b = torch.randn(6, 2, 3), nn.Parameter(torch.randn(3, 3, 4)), torch.randn(4)
    with lt.emulate("mxfp8") as run:
        torch.conv_tbc(x, w, b, 1)
    assert any("conv_tbc" in str(remark) for remark in run.report.remarks)
