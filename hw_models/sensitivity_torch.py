"""How much the precision of each layer of a torch module matters, and the layers for `assign_precisions`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.hw_models.arguments import sizes
from lowp.hw_models.mixed_precision import PrecisionLayer
from lowp.hw_models.sensitivity import METHODS, HessianTrace, measured_sensitivity, weight_sensitivity
from lowp.rounding.verbs import quantize

Loss = Callable[[nn.Module, Any], Tensor]
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def hessian_trace(
    model: nn.Module, loss: Loss, batches: Iterable[Any], samples: int = 32, seed: int = 0
) -> dict[str, HessianTrace]:
    """See `lowp.hw_models.sensitivity.hessian_trace`."""
    (count,) = sizes(samples=samples)
    layers = _layers(model)
    weights = [layer.weight for layer in layers.values()]
    generator = torch.Generator().manual_seed(seed)
    found: list[list[float]] = [[] for _ in weights]
    with _evaluating(model), torch.enable_grad():
        for batch in _listed(batches):
            gradients = torch.autograd.grad(_scalar(loss(model, batch)), weights, create_graph=True, allow_unused=True)
            for _ in range(count):
                signs = [_signs(weight, generator) for weight in weights]
                for values, product in zip(found, _products(gradients, weights, signs), strict=True):
                    values.append(product)
    return {name: _trace(v, layer.weight.numel()) for (name, layer), v in zip(layers.items(), found, strict=True)}


def empirical_fisher(model: nn.Module, loss: Loss, batches: Iterable[Any]) -> dict[str, Tensor]:
    """See `lowp.hw_models.sensitivity.empirical_fisher`."""
    layers = _layers(model)
    weights = [layer.weight for layer in layers.values()]
    sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    count = 0
    with _evaluating(model), torch.enable_grad():
        for batch in _listed(batches):
            gradients = torch.autograd.grad(_scalar(loss(model, batch)), weights, allow_unused=True)
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total.add_(gradient.detach().double() ** 2)
            count += 1
    return {name: total / count for name, total in zip(layers, sums, strict=True)}


def precision_layers(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    precisions: Sequence[str] = ("int8_row", "int4_row"),
    method: str = "hessian",
    samples: int = 32,
    seed: int = 0,
) -> list[PrecisionLayer]:
    """See `lowp.hw_models.sensitivity.precision_layers`.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> layers = precision_layers(model, lambda m, x: m(x).square().mean(), [torch.randn(4, 8)])
        >>> [(layer.name, layer.weights, layer.multiply_adds) for layer in layers]
        [('0', 64, 256), ('2', 8, 32)]
    """
    if method not in METHODS:
        raise ArgumentError(unknown_name("method", method, METHODS))
    listed = _listed(batches)
    layers = _layers(model)
    work = _multiply_adds(model, loss, listed[0], layers)
    losses = _sensitivities(model, loss, listed, list(precisions), method, samples, seed)
    return [
        PrecisionLayer(name, layer.weight.numel(), max(1, work[name]), losses[name]) for name, layer in layers.items()
    ]


def _sensitivities(
    model: nn.Module, loss: Loss, batches: list[Any], precisions: list[str], method: str, samples: int, seed: int
) -> dict[str, dict[str, float]]:
    layers = _layers(model)
    rows = {name: _rows(layer.weight) for name, layer in layers.items()}
    if method == "hessian":
        traces = hessian_trace(model, loss, batches, samples, seed)
        return {name: weight_sensitivity(rows[name], precisions, trace=traces[name].value) for name in layers}
    if method == "fisher":
        fisher = empirical_fisher(model, loss, batches)
        return {name: weight_sensitivity(rows[name], precisions, fisher=_rows(fisher[name])) for name in layers}

    def mean_loss() -> float:
        with torch.no_grad():
            return math.fsum(float(_scalar(loss(model, batch))) for batch in batches) / len(batches)

    def with_layer(name: str, precision: str) -> float:
        with _rounded(layers[name].weight, precision):
            return mean_loss()

    with _evaluating(model):
        return measured_sensitivity(with_layer, layers, precisions, mean_loss())


def _layers(model: nn.Module) -> dict[str, Any]:
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"model={model!r} must be a torch.nn.Module, not {type(model).__name__}.")
    chosen = {name: m for name, m in model.named_modules() if isinstance(m, _LAYERS) and m.weight.requires_grad}
    if not chosen:
        raise ArgumentError("model has no linear or convolution layer whose weights require gradients.")
    return chosen


def _listed(batches: Iterable[Any]) -> list[Any]:
    listed = list(batches)
    if not listed:
        raise ArgumentError("batches is empty; allowed: at least one.")
    return listed


def _scalar(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ArgumentTypeError(f"loss returned {value!r}; allowed: a tensor of one number.")
    return value.reshape(())


def _rows(weight: Tensor) -> Tensor:
    """Return weights as (output channels, the rest), so that rows of formats are output channels."""
    return weight.detach().reshape(weight.shape[0], -1)


def _signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    bits = torch.randint(0, 2, weight.shape, generator=generator)
    return (2 * bits - 1).to(weight)


def _products(gradients: Sequence[Tensor | None], weights: Sequence[Tensor], signs: Sequence[Tensor]) -> list[float]:
    """Return v . Hv of each layer, v being random signs of all layers together."""
    pairs = [(g, s) for g, s in zip(gradients, signs, strict=True) if g is not None and g.requires_grad]
    if not pairs:  # the loss is linear in all weights
        return [0.0] * len(weights)
    total = torch.stack([(g * s).sum() for g, s in pairs]).sum()
    second: Sequence[Tensor | None] = torch.autograd.grad(total, weights, retain_graph=True, allow_unused=True)
    return [0.0 if h is None else float((h * s).sum()) for h, s in zip(second, signs, strict=True)]


def _trace(values: list[float], count: int) -> HessianTrace:
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return HessianTrace(mean, 0.0, count)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return HessianTrace(mean, math.sqrt(variance / len(values)), count)


def _multiply_adds(model: nn.Module, loss: Loss, batch: Any, layers: dict[str, Any]) -> dict[str, int]:
    work = dict.fromkeys(layers, 0)

    def counter(name: str) -> Callable[..., None]:
        def count(layer: Any, _: Any, output: Tensor) -> None:
            work[name] += output.numel() // layer.weight.shape[0] * layer.weight.numel()

        return count

    hooks = [layer.register_forward_hook(counter(name)) for name, layer in layers.items()]
    try:
        with _evaluating(model), torch.no_grad():
            loss(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return work


@contextmanager
def _rounded(weight: nn.Parameter, precision: str) -> Iterator[None]:
    """Put a layer's weights in a format for a while."""
    kept = weight.detach().clone()
    with torch.no_grad():
        rounded = quantize(_rows(weight), precision.partition("/")[0])
        weight.copy_(torch.as_tensor(rounded).reshape(weight.shape))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(kept)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout and the like off for a while."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
