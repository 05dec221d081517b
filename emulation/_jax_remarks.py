"""What a report says of parts of a recipe that find nothing to do in a function of JAX arrays, or no float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lowp.emulation._evaluate import steps_per_octave_bits
from lowp.emulation._jax_attention import wants_cache
from lowp.emulation.recipe import Recipe
from lowp.formats.tables import scalar_format

#: A result of float32 numbers that is rounded to no more bits than these is the exact one rounded once.
_SAFE_BITS = 11


def remarks(planner: Any, recipe: Recipe, has_parameters: bool, arguments: Sequence[Any]) -> str:
    """Remark what found nothing to do, and where float64 is missing; return what to warn of, "" for nothing."""
    _remark_missing(planner, recipe, has_parameters)
    return _remark_narrow(planner.report, recipe, arguments)


def _remark_missing(planner: Any, recipe: Recipe, has_parameters: bool) -> None:
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


def _remark_narrow(report: Any, recipe: Recipe, arguments: Sequence[Any]) -> str:
    """Remark what float64 would be needed for where JAX has none; return what the caller should be warned of, or ""."""
    if jax.config.jax_enable_x64:
        return ""
    name = recipe.cast("elementwise").format if "elementwise" in recipe.operations else ""
    fmt = scalar_format(name, "elementwise") if name else None
    bits = 0 if fmt is None or fmt == scalar_format("float32", "elementwise") else steps_per_octave_bits(fmt)
    if bits > _SAFE_BITS:
        report.remark(
            f"{name!r} keeps up to {bits} bits, and float32 results are rounded twice above {_SAFE_BITS}: set "
            "jax_enable_x64, and use float64 arrays"
        )
    if not any(_loses(x) for x in arguments):
        return ""
    message = "arguments hold float64 numbers that JAX rounds to float32 without jax_enable_x64"
    report.remark(message)
    return f"{message}; set it, or convert them to float32 yourself."


def _loses(x: Any) -> bool:
    """Whether numbers of NumPy change where JAX takes them without float64."""
    if not isinstance(x, np.ndarray | np.generic) or x.dtype.name not in ("float64", "complex128"):
        return False
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = np.asarray(x).astype(np.complex64 if x.dtype.kind == "c" else np.float32)
    return not np.array_equal(narrow.astype(x.dtype), x, equal_nan=True)
