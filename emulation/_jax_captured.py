"""Parameters that a function has captured instead of taking them as arguments, and what they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lowp.emulation._jax_origins import CONSTANT, Origin, path_of, weight


def captured_origins(function: Any, consts: Sequence[Any]) -> list[Origin]:
    """Return the origins of the constants of a function's jaxpr: JAX arrays of floats are parameters.

    Their paths are those in the object that the function holds; "" where that is not found.
    """
    names = {id(leaf): path for path, leaf in _held(function)}
    return [
        weight(names.get(id(const), ""), const.size)
        if isinstance(const, jax.Array) and const.ndim and jnp.issubdtype(const.dtype, jnp.floating)
        else CONSTANT
        for const in consts
    ]


def _held(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and array of what a function refers to: its own object, arguments bound to it, outer variables."""
    seen: set[int] = set()
    waiting = [function]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield from _leaves(value)
        waiting += [getattr(value, name) for name in ("__wrapped__", "func", "__self__") if hasattr(value, name)]
        if isinstance(value, functools.partial):
            waiting += [*value.args, *value.keywords.values()]
        if inspect.isfunction(value):
            waiting += [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
            for name in value.__code__.co_names:
                yield from _leaves(value.__globals__.get(name))


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    try:
        leaves, tree = jax.tree_util.tree_flatten_with_path(value)
    except (TypeError, ValueError):  # no tree that JAX can take apart
        return
    if not jax.tree_util.treedef_is_leaf(tree):
        yield from ((path_of(keys), leaf) for keys, leaf in leaves)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
