"""Inputs of a model: how they are read, named by a hash, run and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.studies.metrics import cosines
from lowp.studies.models import hash_tensor

if TYPE_CHECKING:
    import numpy as np
    import torch


def read_inputs(data: Any) -> list[Any]:
    """Return the inputs as a list; a callable is called for them.

    Raises:
        ArgumentTypeError: `data` is neither, or a single tensor, or an item is an array.
        ArgumentError: There is none.
    """
    import numpy as np
    import torch

    inputs = data() if callable(data) else data
    if isinstance(inputs, (torch.Tensor, np.ndarray)):
        kind = "tensor" if isinstance(inputs, torch.Tensor) else "array"
        advice = "[tensor]" if kind == "tensor" else "[torch.from_numpy(array)]"
        raise ArgumentTypeError(f"data is a single {kind} of shape {tuple(inputs.shape)}; pass a list: {advice}.")
    if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, Iterable):
        raise ArgumentTypeError(f"data={data!r} must be an iterable of model inputs, or a function that returns one.")
    inputs = list(inputs)
    if not inputs:
        raise ArgumentError("data is empty; at least one input is needed.")
    for i, item in enumerate(inputs):
        if isinstance(item, np.ndarray):
            advice = "convert it to a tensor with torch.from_numpy"
            raise ArgumentTypeError(f"data[{i}] is a NumPy array of shape {item.shape}; {advice}.")
    return inputs


def hash_values(digest: Any, value: Any) -> None:
    """Add what nested tuples, lists and mappings hold to a hash: bits of tensors and arrays, numbers and texts.

    Of any other object only the type counts, since its text may hold an address, or leave values out.
    """
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        hash_tensor(digest, "", value)
    elif isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        digest.update(f"{value.dtype}{value.shape};".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        hash_values(digest, list(value.items()))
    elif isinstance(value, (list, tuple)):
        digest.update(f"{len(value)} in {type(value).__qualname__};".encode())
        for item in value:
            hash_values(digest, item)
    elif isinstance(value, (bool, int, float, complex, str, bytes)):
        digest.update(f"{value!r};".encode())
    else:
        digest.update(f"{type(value).__qualname__};".encode())


@dataclass(frozen=True)
class Outputs:
    """What a model gave for each input, as (samples, features) arrays, and the scores, if there is a task."""

    arrays: list[np.ndarray]
    scores: np.ndarray | None

    def cosines(self, reference: Outputs) -> np.ndarray:
        """Return the cosine of every sample with the reference's."""
        import numpy as np

        return np.concatenate([cosines(a, b) for a, b in zip(self.arrays, reference.arrays, strict=True)])


def run_model(
    module: torch.nn.Module, inputs: Sequence[Any], evaluate: Callable[[list[Any]], Any] | None, digest: Any = None
) -> Outputs:
    """Run a module on every input and score what it gave.

    A tuple or list is passed as positional arguments, a mapping as keyword arguments, anything else as one argument.

    Args:
        module: What is run.
        inputs: What it is run on.
        evaluate: What scores the list of outputs, or None.
        digest: A hash that takes in the outputs and the scores.

    Raises:
        ArgumentTypeError: An output holds no tensor, or the score is not a number or a vector of numbers.
    """
    raw = [_call(module, x) for x in inputs]
    if digest is not None:
        hash_values(digest, raw)
    arrays = [as_samples(first_tensor(output)) for output in raw]
    scores = None if evaluate is None else read_scores(evaluate(raw))
    if digest is not None:
        hash_values(digest, scores)
    return Outputs(arrays, scores)


def read_scores(score: Any) -> np.ndarray:
    """Return what `evaluate` returned as float64.

    Raises:
        ArgumentTypeError: It is neither a number nor a vector of numbers.
    """
    import numpy as np

    needed = "a number, or one number per example, is needed"
    try:
        scores = np.asarray(score.detach().double().cpu() if hasattr(score, "detach") else score)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"evaluate returned {score!r}; {needed}.") from error
    if scores.dtype.kind not in "biuf":
        raise ArgumentTypeError(f"evaluate returned {score!r}; {needed}.")
    if scores.ndim > 1 or scores.size == 0:
        raise ArgumentTypeError(f"evaluate returned shape {scores.shape}; {needed}.")
    return scores.astype(np.float64)


def _call(module: torch.nn.Module, x: Any) -> Any:
    if isinstance(x, (tuple, list)):
        return module(*x)
    return module(**x) if isinstance(x, Mapping) else module(x)


def first_tensor(output: Any) -> torch.Tensor:
    """Return the first floating-point tensor of a model's output: itself, or in a tuple, list or mapping.

    Raises:
        ArgumentTypeError: There is none.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return output
    parts = list(output.values()) if isinstance(output, Mapping) else output
    for part in parts if isinstance(parts, (tuple, list)) else ():
        if isinstance(part, torch.Tensor) and part.is_floating_point():
            return part
    needed = "a tensor, or a tuple or mapping with one"
    raise ArgumentTypeError(f"model returned {type(output).__name__}; {needed}, is needed.")


def as_samples(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as float64 (samples, features); a vector or a number is one sample."""
    import torch

    rows = tensor.detach().to("cpu", torch.float64)
    shaped = rows.reshape(1, -1) if rows.ndim < 2 else rows.reshape(rows.shape[0], -1)
    array: np.ndarray = shaped.numpy()
    return array
