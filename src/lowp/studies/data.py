"""Inputs of a model: how they are read, named by a hash, run and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
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
        ArgumentTypeError: `data` is neither.
        ArgumentError: There is none.
    """
    inputs = data() if callable(data) else data
    if isinstance(inputs, (str, bytes, Mapping)) or not isinstance(inputs, Iterable):
        raise ArgumentTypeError(f"data={data!r} must be an iterable of model inputs, or a function that returns one.")
    inputs = list(inputs)
    if not inputs:
        raise ArgumentError("data is empty; at least one input is needed.")
    return inputs


def data_digest(inputs: Sequence[Any], evaluate: Any = None) -> str:
    """Return a SHA-256 of the inputs and of the code of the scoring function."""
    digest = hashlib.sha256()
    _hash(digest, inputs)
    _hash(digest, evaluate)
    return digest.hexdigest()


def _hash(digest: Any, value: Any) -> None:
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        hash_tensor(digest, "", value)
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    elif isinstance(value, Mapping):
        for key in value:
            digest.update(repr(key).encode())
            _hash(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"{type(value).__name__}{len(value)}".encode())
        for item in value:
            _hash(digest, item)
    elif isinstance(value, CodeType):
        _hash(digest, [value.co_code, value.co_names, value.co_consts])
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _hash(digest, [value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, cells])
    else:
        # An object whose repr holds its address hashes anew in each run: its results are never taken for another's.
        digest.update(repr(value).encode())


@dataclass(frozen=True)
class Outputs:
    """What a model gave for each input, as (samples, features) arrays, and the scores, if there is a task."""

    arrays: list[np.ndarray]
    scores: np.ndarray | None

    def cosines(self, reference: Outputs) -> np.ndarray:
        """Return the cosine of every sample with the reference's."""
        import numpy as np

        return np.concatenate([cosines(a, b) for a, b in zip(self.arrays, reference.arrays, strict=True)])


def run_model(module: torch.nn.Module, inputs: Sequence[Any], evaluate: Callable[[list[Any]], Any] | None) -> Outputs:
    """Run a module on every input and score what it gave.

    A tuple is passed as positional arguments, a mapping as keyword arguments, anything else as one argument.

    Raises:
        ArgumentTypeError: An output holds no tensor, or the score is not a number or a vector of numbers.
    """
    import numpy as np

    raw = [_call(module, x) for x in inputs]
    arrays = [as_samples(first_tensor(output)) for output in raw]
    if evaluate is None:
        return Outputs(arrays, None)
    score = evaluate(raw)
    scores = np.asarray(score.detach().cpu() if hasattr(score, "detach") else score, dtype=np.float64)
    if scores.ndim > 1 or scores.size == 0:
        needed = "a number, or one number per example"
        raise ArgumentTypeError(f"evaluate returned shape {scores.shape}; {needed} is needed.")
    return Outputs(arrays, scores)


def _call(module: torch.nn.Module, x: Any) -> Any:
    if isinstance(x, tuple):
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
