"""Emulated convolutions: operands along input channels, output channels and the batch, as rounded by hand."""

from typing import Any

import pytest

import lowp

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from lowp.torch import Cast, Recipe, emulate  # noqa: E402


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def q(x: Any, fmt: str, axis: int) -> Any:
    return torch.from_numpy(lowp.quantize(x.detach().numpy(), fmt, axis=axis))


def by_groups(x: Any, fmt: str, axis: int, at: int, groups: int) -> Any:
    """Round each group by itself: groups lie along `at`."""
    return torch.cat([q(part, fmt, axis) for part in x.detach().chunk(groups, at)], at)


def heavy(*shape: int) -> Any:
    return torch.randn(shape) * torch.exp2(2 * torch.randn(shape))


CASES = {
    "conv1d": ("conv1d", (32, 40, 9), (48, 40, 3), {"padding": 1}),
    "conv2d": ("conv2d", (33, 40, 9, 8), (48, 40, 3, 2), {"stride": 2, "padding": (1, 0)}),
    "conv2d groups": ("conv2d", (4, 64, 9, 9), (48, 32, 3, 3), {"groups": 2, "dilation": 2}),
    "conv2d same": ("conv2d", (4, 40, 9, 9), (48, 40, 3, 3), {"padding": "same"}),
    "conv3d": ("conv3d", (3, 40, 5, 5, 5), (8, 40, 2, 2, 2), {"padding": "valid"}),
    "conv_transpose1d": ("conv_transpose1d", (4, 48, 9), (48, 40, 3), {"stride": 2, "output_padding": 1}),
    "conv_transpose2d": ("conv_transpose2d", (33, 48, 5, 5), (48, 40, 3, 3), {"padding": 1}),
    "conv_transpose3d": ("conv_transpose3d", (2, 48, 3, 3, 3), (48, 20, 2, 2, 2), {"groups": 2}),
}


@pytest.mark.parametrize("fmt", ["mxfp4", "float8_e4m3fn"])
@pytest.mark.parametrize("case", CASES)
def test_the_six_operands_of_a_convolution(case: str, fmt: str) -> None:
    name, x_shape, w_shape, options = CASES[case]
    run_conv = getattr(F, name)
    x, w = heavy(*x_shape).requires_grad_(), nn.Parameter(heavy(*w_shape))
    channels = w_shape[1] * options.get("groups", 1) if "transpose" in name else w_shape[0]
    bias = nn.Parameter(torch.randn(channels))
    with emulate(Recipe(weight=fmt, activation=fmt, gradient=fmt)) as run:
        y = run_conv(x, w, bias, **options)
    g = heavy(*y.shape)
    y.backward(g)
    axis_in, axis_out = (0, 1) if "transpose" in name else (1, 0)
    n = options.get("groups", 1)
    assert torch.equal(y, run_conv(by_groups(x, fmt, 1, 1, n), by_groups(w, fmt, axis_in, 0, n), bias, **options))

    def gradients(x: Any, w: Any, g: Any) -> tuple[Any, Any]:
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        return torch.autograd.grad(run_conv(x, w, **options), (x, w), g)

    assert torch.equal(x.grad, gradients(x, by_groups(w, fmt, axis_out, 0, n), by_groups(g, fmt, 1, 1, n))[0])
    assert torch.equal(w.grad, gradients(q(x, fmt, 0), w, q(g, fmt, 0))[1])
    torch.testing.assert_close(bias.grad, g.sum((0, *range(2, g.ndim))), rtol=1e-4, atol=1e-3)
    assert len(run.report.find(operation="conv")) == 6


def test_modules_and_inputs_without_a_batch() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    x = torch.randn(3, 8, 8)
    with emulate("int8_row") as run:
        y = net(x)
        batched = net(x[None])
    assert torch.equal(y, batched[0])
    assert [row.layer for row in run.report.find(role="weight")] == ["0", "2"]


def test_rotation_of_channels_cancels_and_one_that_does_not_fit_says_where() -> None:
    turn = Cast(hadamard=16)
    net = nn.Sequential(nn.Conv2d(32, 64, 3, groups=2)).double()
    x = torch.randn(16, 32, 6, 6, dtype=torch.float64, requires_grad=True)
    net(x).square().sum().backward()
    wanted = [x.grad.clone(), net[0].weight.grad.clone()]
    x.grad = net[0].weight.grad = None
    recipe = Recipe(weight=turn, activation=turn, gradient=turn)
    with emulate(recipe):
        net(x).square().sum().backward()
    torch.testing.assert_close(x.grad, wanted[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(net[0].weight.grad, wanted[1], rtol=1e-11, atol=1e-11)
    with (
        emulate(recipe),
        pytest.raises(lowp.ArgumentError, match=r"layer '0', conv, forward, activation: hadamard=16 does not divide"),
    ):
        nn.Sequential(nn.Conv2d(3, 4, 3))(torch.randn(2, 3, 8, 8))


def test_an_accumulator_sums_channels_in_groups() -> None:
    x, w = torch.randn(2, 8, 6, 6), torch.randn(4, 8, 3, 3)
    with emulate(Recipe(activation="float32", accumulator=Cast("bfloat16", group=4))):
        y = F.conv2d(x, w)
    half = torch.from_numpy(lowp.quantize(F.conv2d(x[:, :4], w[:, :4]).numpy(), "bfloat16"))
    total = half + F.conv2d(x[:, 4:], w[:, 4:])
    assert torch.equal(y, torch.from_numpy(lowp.quantize(total.numpy(), "bfloat16")))
