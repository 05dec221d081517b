"""Emulated layers under torch.func, and recurrent ones under autocast."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.func import functional_call  # noqa: E402

import lowp  # noqa: E402
import lowp.torch as lt  # noqa: E402


@pytest.mark.parametrize("recipe", ["quartet", "quartet2", "fp8_deepseek_v3", "mxfp4_sr_rht", "fp8_transformer_engine"])
def test_gradients_by_transform_are_those_of_a_backward_pass(recipe: str) -> None:
    """Also where the backward pass rotates and rounds again what the forward pass has rounded."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 128)), torch.randn(128, 128)
    with lt.emulate(recipe):
        model(x).square().sum().backward()
    with lt.emulate(recipe):
        found = torch.func.grad(lambda p: functional_call(model, p, (x,)).square().sum())(
            dict(model.named_parameters())
        )
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name], parameter.grad), name


def dtypes(result: Any) -> Any:
    return result.dtype if isinstance(result, torch.Tensor) else [dtypes(part) for part in result]


@pytest.mark.parametrize(("layers", "options"), [(1, {}), (2, {"bidirectional": True, "batch_first": True})])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_have_the_dtypes_of_autocast(kind: str, layers: int, options: dict[str, Any]) -> None:
    layer, x = getattr(nn, kind)(32, 32, layers, **options), torch.randn(3, 2, 32)
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(x)
        with lt.emulate("bf16") as run:
            low = layer(x)
    assert run.report.find(operation="recurrent")
    assert dtypes(low) == dtypes(plain)


@pytest.mark.parametrize("how", ["module", "context", "every operation"])
def test_what_a_tracer_would_keep_as_a_constant_is_refused(how: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    layer, x = nn.Linear(32, 8), torch.randn(4, 32)
    low = lt.emulate("mxfp4", layer)

    def program(t: Any) -> Any:
        if how == "module":
            return low(t)
        with lt.emulate("mxfp4") if how == "context" else lt.every_operation("fp8"):
            return layer(t)

    with pytest.raises(lowp.ArgumentError, match=r"cannot be traced by torch\.export or make_fx"):
        make_fx(program)(x)
    if how == "module":
        with pytest.raises(lowp.ArgumentError, match=r"cannot be traced by torch\.export or make_fx"):
            torch.export.export(low, (x,))
    assert program(x).shape == (4, 8)


def test_tensors_without_data_pass() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        y = lt.emulate("mxfp4", nn.Linear(32, 8))(torch.randn(4, 32))
    assert y.shape == (4, 8)
