"""How accurate formats are on given tensors, by the emulation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation.matmul import matmul
from lowp.formats import Format
from lowp.hw_models.exploration_points import Metric, named_metrics
from lowp.hw_models.fingerprints import digest
from lowp.hw_models.space import Candidate
from lowp.rounding.verbs import quantize

Array = NDArray[Any]
_ROLES = ("weights", "activations")
#: Digits of an error after the first: the order in which a machine's library sums products does not show.
_DIGITS = 10


@dataclass(frozen=True, eq=False)
class Tensors:
    """Tensors of one layer or of several.

    Attributes:
        layers: By name: weights (outputs, inputs), and activations (rows, inputs) or None.
        fingerprint: Tells these numbers from all others.
    """

    layers: tuple[tuple[str, Array, Array | None], ...]
    fingerprint: str

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tensors) and self.fingerprint == other.fingerprint


def read_tensors(given: Any) -> Tensors | None:
    """Return the tensors that accuracy is measured on; None stays None.

    Args:
        given: An array of weights; a dict with "weights" and perhaps "activations"; or a dict of such by layer's name.

    Raises:
        ArgumentTypeError: Something else, or arrays that are not of real numbers.
        ArgumentError: Shapes that do not fit, numbers that are not finite, or nothing but zeros.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        given = {"weights": given}
    by_layer = {"": given} if set(given) & set(_ROLES) else given
    if not by_layer:
        raise ArgumentError("tensors={} is empty; allowed: 'weights' and perhaps 'activations', or such by layer.")
    layers = tuple(_layer(str(name), layer) for name, layer in by_layer.items())
    parts = [
        f"{name}{w.shape}{w.dtype}".encode() + w.tobytes() + (b"" if x is None else x.tobytes())
        for name, w, x in layers
    ]
    return Tensors(layers, digest(b"|".join(parts)))


def _layer(name: str, given: Any) -> tuple[str, Array, Array | None]:
    label = f"tensors[{name!r}]" if name else "tensors"
    if not isinstance(given, Mapping):
        given = {"weights": given}
    if "weights" not in given or set(given) - set(_ROLES):
        raise ArgumentError(
            f"{label} has the keys {sorted(map(str, given))}; allowed: 'weights' and perhaps 'activations'."
        )
    weights = _array(f"{label}['weights']", given["weights"])
    if given.get("activations") is None:
        return name, weights, None
    activations = _array(f"{label}['activations']", given["activations"])
    if activations.shape[1] != weights.shape[1]:
        raise ArgumentError(
            f"{label}: weights of shape {weights.shape} and activations of shape {activations.shape} must have one "
            "number of inputs: their last axes."
        )
    return name, weights, activations


def _array(label: str, given: Any) -> Array:
    array = np.asarray(given.detach().cpu().double() if hasattr(given, "detach") else given)
    if array.dtype.kind not in "fiu" or array.ndim < 1:
        raise ArgumentTypeError(f"{label} must be an array of real numbers, not {array.dtype} of {array.ndim} axes.")
    flat = np.ascontiguousarray(array.reshape(-1, array.shape[-1]), dtype=np.float64)
    if not np.isfinite(flat).all() or not flat.any():
        raise ArgumentError(f"{label} must hold finite numbers that are not all zero.")
    return flat


def tensor_metrics(candidate: Candidate, tensors: Tensors) -> dict[str, Metric]:
    """Return the errors of a candidate: means over the layers of squared errors over squared numbers."""
    found: dict[str, list[float]] = {"weight_error": [], "activation_error": [], "error": []}
    for index, (_, weights, activations) in enumerate(tensors.layers):
        rounded = _rounded(tensors, index, 0, candidate.weights)
        found["weight_error"].append(_relative_error(rounded, weights))
        if activations is None:
            found["error"].append(found["weight_error"][-1])
            continue
        inputs = _rounded(tensors, index, 1, candidate.activations)
        found["activation_error"].append(_relative_error(inputs, activations))
        exact = _product(tensors, index)
        found["error"].append(_relative_error(_summed(inputs, rounded, candidate.accumulator), exact))
    names = [name or "all" for name, _, _ in tensors.layers]
    metrics = {name: _mean(errors, names) for name, errors in found.items() if len(errors) == len(names)}
    error = metrics["error"].value
    metrics["sqnr"] = Metric.of(math.inf if error == 0 else -10 * math.log10(error), unit="dB", provenance="emulated")
    return metrics


def _mean(errors: list[float], names: list[str]) -> Metric:
    total = math.fsum(errors)
    by_layer = {}
    if 0 < total < math.inf:
        by_layer = {name: error / total for name, error in zip(names, errors, strict=True)}
    shares = {"layer": by_layer} if len(names) > 1 else {}
    return Metric.of(total / len(errors), "error", provenance="emulated", shares=shares)


def _relative_error(approximate: Array, exact: Array) -> float:
    error, whole = float(np.sum((approximate - exact) ** 2)), float(np.sum(exact**2))
    if math.isnan(error):
        raise ArgumentError("the format turns some of the numbers into NaN.")
    if whole == 0:
        return 0.0 if error == 0 else math.inf
    return float(f"{error / whole:.{_DIGITS}e}")


@lru_cache(maxsize=16)
def _rounded(tensors: Tensors, index: int, operand: int, fmt: Format) -> Array:
    """Return the numbers of a layer in a format; blocks run along the inputs."""
    return np.asarray(quantize(tensors.layers[index][1 + operand], fmt), dtype=np.float64)


@lru_cache(maxsize=64)
def _product(tensors: Tensors, index: int) -> Array:
    _, weights, activations = tensors.layers[index]
    product: Array = activations @ weights.T
    return product


def _summed(activations: Array, weights: Array, accumulator: Any) -> Array:
    """Multiply in the accumulator; without one in float64, so that the operands' formats alone make the error."""
    if accumulator is None or accumulator == "exact":
        product: Array = activations @ weights.T
        return product
    return np.asarray(matmul(activations, weights.T, accumulator=accumulator), dtype=np.float64)


def arity(function: Callable[..., Any]) -> int:
    """Return how many of (weights, activations, accumulator) a caller's function takes: 1 to 3.

    Raises:
        ArgumentTypeError: It is not a function, or takes another number of arguments.
    """
    if not callable(function):
        raise ArgumentTypeError(f"accuracy={function!r} must be a function of formats.")
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a built-in function
        return 1
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return 3
    required = [p for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty]
    if not 1 <= len(required) <= 3:
        raise ArgumentTypeError(
            f"accuracy={function!r} needs {len(required)} arguments; allowed: the weights' format, and perhaps the "
            "activations' format, and the accumulator."
        )
    return len(required)


def function_metrics(candidate: Candidate, function: Callable[..., Any]) -> dict[str, Metric]:
    """Return what the caller's function says of a candidate: a number is called "accuracy"; a dict has names."""
    result = function(*candidate[: arity(function)])
    named = result if isinstance(result, Mapping) else {"accuracy": result}
    return named_metrics(named, "accuracy")
