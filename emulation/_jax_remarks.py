"""What a report says of a recipe's parts that found nothing to do in a function of JAX arrays."""

from __future__ import annotations

from typing import Any

from lowp.emulation._jax_attention import wants_cache
from lowp.emulation.recipe import Recipe


def remark_missing(planner: Any, recipe: Recipe, has_parameters: bool) -> None:
    """Remark a KV cache without attention, and products left alone as no argument was taken for a parameter."""
    report = planner.report
    if wants_cache(recipe) and not planner.attention.found.keys:
        report.remark("kv_cache: no attention with keys and values was found; nothing is rounded by it")
    alone = [row for row in report.rows if row.operation == "matmul" and row.cast.startswith("left alone")]
    if recipe.weight and not has_parameters and alone and len(alone) == len(report.rows):
        report.remark(
            "no parameters: the first argument is no tree of arrays, so products are of two activations; name the "
            "arguments that are parameters, such as weights=0"
        )
