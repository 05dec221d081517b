"""What a recipe would do to a program, before it runs: `Recipe.explain`."""

from __future__ import annotations

import sys
from typing import Any

from lowp._errors import ArgumentTypeError
from lowp.emulation.recipe import Recipe
from lowp.emulation.report import Report


def explain(recipe: Recipe, program: Any, *inputs: Any) -> Report:
    """Return what would happen to every operation of a program.

    Args:
        recipe: The recipe.
        program: A torch module; or a function, of torch tensors or of JAX arrays as its inputs are.
        *inputs: Example inputs. Without them the layers of a torch module are listed by type and name.

    Returns:
        A `Report`: it prints as a table; remarks name patterns that match no layer.

    Raises:
        ArgumentTypeError: `program` is neither.
        ArgumentError: A function without inputs.
    """
    torch = sys.modules.get("torch")
    if torch is not None and (isinstance(program, torch.nn.Module) or (callable(program) and _holds(torch, inputs))):
        from lowp.emulation._torch_explain import explain_program

        return explain_program(recipe, program, *inputs)
    if callable(program) and "jax" in sys.modules:
        from lowp.emulation._jax_explain import explain_function

        return explain_function(recipe, program, *inputs)
    raise ArgumentTypeError(f"program={program!r:.80} must be a torch module, or a function with example inputs.")


def _holds(torch: Any, value: Any) -> bool:
    """Whether nested inputs hold a tensor."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, torch.Tensor) or (isinstance(value, list | tuple) and any(_holds(torch, v) for v in value))
