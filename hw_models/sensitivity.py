"""How much a layer's precision matters: what mixed precision weighs. For torch modules see `sensitivity_torch`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats import parse
from lowp.hw_models.mixed_precision import PrecisionLayer
from lowp.rounding.verbs import quantize

#: Ways to weigh a layer's error.
METHODS = {
    "hessian": "average trace of the loss's Hessian (Hutchinson's estimate) times the weights' squared error: HAWQ-V2",
    "fisher": "squared errors of the weights, each times its mean squared gradient, halved: the empirical Fisher",
    "measured": "the loss with the layer's weights in the precision, less the loss without",
}


class HessianTrace(NamedTuple):
    """An estimate of the trace of a Hessian.

    Attributes:
        value: The mean over the samples.
        error: Its standard error; 0 of a single sample.
        values: How many weights there are; `value / values` is HAWQ-V2's average trace.
    """

    value: float
    error: float
    values: int


def weight_sensitivity(
    weights: Any, precisions: Iterable[str], trace: float | None = None, fisher: Any = None
) -> dict[str, float]:
    """Return what each precision of a layer's weights adds to the loss, to second order.

    With a trace `trace / n * sum((Q(w) - w)^2)`, HAWQ-V2's and V3's measure; with a Fisher diagonal
    `1/2 sum(fisher * (Q(w) - w)^2)`; with neither the squared error alone.

    Args:
        weights: The weights; blocks and rows of formats run along the last axis.
        precisions: Names of formats, or of "weights/activations", of which the first counts. Narrow formats need a
            scale: "int4_row" is symmetric with one scale per output channel.
        trace: The trace of the Hessian of the loss by these weights; a negative one, an artefact of sampling, counts
            as zero.
        fisher: Mean squared gradients, of the weights' shape.

    Raises:
        ArgumentError: Both `trace` and `fisher`, shapes that differ, or numbers that are not finite.
        FormatError: A precision is no format.

    Source:
        Z. Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", NeurIPS 2020.

    Example:
        >>> found = weight_sensitivity([[0.3, -0.7], [0.1, 0.9]], ["int8_row", "int4_row"], trace=8.0)
        >>> found["int8_row"] < found["int4_row"]
        True
    """
    array = _array("weights", weights)
    if trace is not None and fisher is not None:
        raise ArgumentError("give trace or fisher, not both.")
    factor = np.ones(1)
    if trace is not None:
        if not math.isfinite(trace):
            raise ArgumentError(f"trace={trace!r} must be a finite number.")
        factor = np.array([max(float(trace), 0.0) / array.size])
    elif fisher is not None:
        factor = _array("fisher", fisher) / 2
        if factor.shape != array.shape or factor.min() < 0:
            raise ArgumentError(
                f"fisher of shape {factor.shape} must be like the weights, {array.shape}, not negative."
            )
    return {p: float(np.sum(factor * (quantize(array, _weights_format(p)) - array) ** 2)) for p in precisions}


def measured_sensitivity(
    evaluate: Callable[[str, str], float], layers: Iterable[str], precisions: Iterable[str], baseline: float
) -> dict[str, dict[str, float]]:
    """Return what each precision of each layer adds to a measured loss, one layer at a time.

    Args:
        evaluate: A function of a layer's name and a precision that returns the loss with that layer alone in it.
        layers: The layers' names.
        precisions: The precisions.
        baseline: The loss with no layer in any of them.

    Raises:
        ArgumentError: A loss is not finite.

    Example:
        >>> measured_sensitivity(lambda layer, precision: 1.25, ["a"], ["int8"], baseline=1.0)
        {'a': {'int8': 0.25}}
    """
    listed = list(precisions)
    found: dict[str, dict[str, float]] = {}
    for layer in layers:
        found[layer] = {}
        for precision in listed:
            loss = float(evaluate(layer, precision))
            if not math.isfinite(loss):
                raise ArgumentError(f"evaluate({layer!r}, {precision!r}) is {loss!r}; allowed: finite numbers.")
            found[layer][precision] = loss - baseline
    return found


def hessian_trace(
    model: Any, loss: Callable[[Any, Any], Any], batches: Iterable[Any], samples: int = 32, seed: int = 0
) -> dict[str, HessianTrace]:
    """Estimate the trace of the loss's Hessian by the weights of each layer, with random signs (Hutchinson).

    The mean of `v . Hv` over vectors `v` of random signs is the trace. One vector for all layers at once serves: the
    signs of different layers are independent, so that their cross terms are zero in the mean.

    Args:
        model: A module; its linear and convolution layers count.
        loss: A function of the model and a batch that returns a scalar tensor; the mean over a batch.
        batches: The batches; the Hessian is the mean over them.
        samples: Random vectors per batch.
        seed: For the signs.

    Returns:
        By layer's name; layers whose weights do not require gradients are left out.

    Raises:
        ArgumentError: No batch, no layer, or `samples` below 1.

    Source:
        M. F. Hutchinson (1990); Z. Dong et al., "HAWQ-V2", NeurIPS 2020.
    """
    from lowp.hw_models import sensitivity_torch

    return sensitivity_torch.hessian_trace(model, loss, batches, samples, seed)


def empirical_fisher(model: Any, loss: Callable[[Any, Any], Any], batches: Iterable[Any]) -> dict[str, Any]:
    """Return the mean squared gradient of each weight of each layer: the diagonal of the empirical Fisher matrix.

    Args:
        model: A module; its linear and convolution layers count.
        loss: A function of the model and a batch that returns a scalar tensor.
        batches: The batches, of one example each for the Fisher matrix proper; gradients of larger ones are averaged
            before they are squared.

    Returns:
        By layer's name, tensors of the weights' shapes.

    Raises:
        ArgumentError: No batch or no layer.
    """
    from lowp.hw_models import sensitivity_torch

    return sensitivity_torch.empirical_fisher(model, loss, batches)


def precision_layers(
    model: Any,
    loss: Callable[[Any, Any], Any],
    batches: Iterable[Any],
    precisions: Sequence[str] = ("int8_row", "int4_row"),
    method: str = "hessian",
    samples: int = 32,
    seed: int = 0,
) -> list[PrecisionLayer]:
    """Return the layers of a module with their sizes and sensitivities, for `hw.assign_precisions`.

    Args:
        model: A module; its linear and convolution layers count. It is left as it was.
        loss: A function of the model and a batch that returns a scalar tensor.
        batches: The batches. Multiply-adds are those of the first one.
        precisions: Names of formats with scales, such as "int4_row", or of "weights/activations" pairs; sensitivities
            are of the weights' part.
        method: "hessian", "fisher" or "measured".
        samples: Random vectors per batch, of method "hessian".
        seed: For them.

    Raises:
        ArgumentError: An unknown method, no batch, or no layer.
        FormatError: A precision is no format.
    """
    from lowp.hw_models import sensitivity_torch

    return sensitivity_torch.precision_layers(model, loss, batches, precisions, method, samples, seed)


def _weights_format(precision: str) -> Any:
    return parse(precision.partition("/")[0])


def _array(name: str, given: Any) -> np.ndarray:
    array = np.asarray(given.detach().cpu().double() if hasattr(given, "detach") else given, dtype=np.float64)
    if array.ndim < 1 or not array.size:
        raise ArgumentTypeError(f"{name} must be an array with at least one number.")
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name} must hold finite numbers.")
    return array
