"""What a recipe would do to a function of JAX arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lowp._errors import ArgumentError
from lowp.emulation._jax_emulate import Emulated
from lowp.emulation.recipe import Recipe
from lowp.emulation.report import Report


def explain_function(recipe: Recipe, fn: Callable[..., Any], *args: Any) -> Report:
    """Return what happens to every operation of a function and of its gradient; nothing is computed.

    Args:
        recipe: What to do.
        fn: The function, or what `lowp.jax.emulate` made of one (then with its `weights`).
        *args: Example arguments; shapes (`jax.ShapeDtypeStruct`) are enough.

    Raises:
        ArgumentError: There are no arguments, and without shapes a function has no operations.
    """
    if not args:
        raise ArgumentError("explain needs example arguments of a JAX function; jax.ShapeDtypeStruct is enough.")
    emulated = fn.with_recipe(recipe) if isinstance(fn, Emulated) else Emulated(fn, recipe)
    return emulated.explain(*args)
