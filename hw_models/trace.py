"""The operations of any PyTorch module or function, or JAX function or jaxpr, by running it on shapes alone."""

from __future__ import annotations

from typing import Any

from lowp._errors import ArgumentTypeError
from lowp.hw_models.workload import Workload


def trace(
    program: Any, *inputs: Any, weights: int | tuple[int, ...] = (), trips: int | None = None, name: str = ""
) -> Workload:
    """Return the operations of a program: products with their operands' roles, attention, and passes over memory.

    No values are computed where shapes suffice; gradients, modules and optimizers are left as they were. Every kernel
    counts as often as it runs: the body of a JAX scan once per step. What a JAX program computes and does not use does
    not count, as compilers drop it. Operations that only change how memory is read (views, transposes) are free; all
    others that are no products read and write memory once, as if nothing were fused. Keys and values of fused attention
    count per key and value head, and its result has the size of the queries.

    Args:
        program: A `torch.nn.Module`, or a function of tensors; a JAX function, or a (closed) jaxpr.
        inputs: What to call it with: tensors (of the "meta" device, if you like), arrays, `jax.ShapeDtypeStruct`s, or
            trees of them; nothing for a jaxpr. A function is run by JAX unless it is given a tensor.
        weights: For JAX and for functions of tensors, positions of the inputs that hold weights (trees of them), as
            parameters of a module do. `torch.nn.Parameter`s that a function of tensors uses and constants that a JAX
            function closes over are weights too, and so is what is made of weights alone, such as a cast.
        trips: How often the body of a JAX while loop runs that does not say so.
        name: Name of the workload; default that of the program.

    Returns:
        A workload with the phase "forward", of one device.

    Raises:
        ArgumentTypeError: `program` is none of these, or `weights` are no positions.
        ArgumentError: A while loop of JAX whose count is unknown while `trips` is not given, no such position, or an
            operation that multiplies matrices in a way that cannot be counted, such as a decomposition.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(256, 1024)
        >>> [(op.m, op.n, op.k, op.role) for op in trace(layer, torch.empty(32, 256)) if op.is_product]
        [(32, 1024, 256, 'linear')]
    """
    positions = _positions(weights, len(inputs))
    if _is_torch(program, inputs):
        from lowp.hw_models.traced_torch import trace_torch

        return trace_torch(program, inputs, positions, name or _name(program))
    if callable(program) or _is_from(program, "jax"):
        from lowp.hw_models.traced_jax import trace_jax

        return trace_jax(program, inputs, positions, trips, name or _name(program))
    raise ArgumentTypeError(
        f"program={program!r} must be a torch.nn.Module, a function or a jaxpr, not {type(program).__name__}."
    )


def _positions(weights: int | tuple[int, ...], count: int) -> tuple[int, ...]:
    positions = (weights,) if isinstance(weights, int) and not isinstance(weights, bool) else weights
    if not isinstance(positions, tuple) or not all(type(position) is int for position in positions):
        raise ArgumentTypeError(f"weights={weights!r} must be a position or a tuple of positions.")
    for position in positions:
        if not 0 <= position < count:
            raise ArgumentTypeError(f"weights={weights!r}: there are {count} inputs.")
    return positions


def _is_torch(program: Any, inputs: tuple[Any, ...]) -> bool:
    def holds(tree: Any) -> bool:
        if isinstance(tree, dict):
            return any(holds(leaf) for leaf in tree.values())
        if isinstance(tree, list | tuple):
            return any(holds(leaf) for leaf in tree)
        return _is_from(tree, "torch")

    return _is_from(program, "torch.nn") or (callable(program) and any(holds(tree) for tree in inputs))


def _is_from(thing: Any, package: str) -> bool:
    """Whether a class of the thing's comes from a package, found out without importing it."""
    return any(f"{cls.__module__}.".startswith(f"{package}.") for cls in type(thing).__mro__)


def _name(program: Any) -> str:
    return str(getattr(program, "__name__", type(program).__name__))
