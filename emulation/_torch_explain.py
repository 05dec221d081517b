"""What a recipe would do to a torch program: layer by layer, or by a run on tensors without data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from lowp.emulation._torch_mode import Emulation
from lowp.emulation._torch_names import layers
from lowp.emulation._torch_run import unmatched_patterns
from lowp.emulation.recipe import PASSES, Recipe
from lowp.emulation.report import Report

#: Types of modules -> the operations that they own.
OPERATIONS_OF: dict[type, tuple[str, ...]] = {
    nn.Linear: ("linear",),
    nn.Bilinear: ("linear",),
    nn.modules.conv._ConvNd: ("conv",),
    nn.Embedding: ("embedding",),
    nn.EmbeddingBag: ("embedding",),
    nn.MultiheadAttention: ("linear", "attention"),
    nn.RNNBase: ("recurrent",),
    nn.RNNCellBase: ("recurrent",),
}
#: Operation -> products and the roles of their operands.
_ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "linear": {**PASSES},
    "conv": {**PASSES},
    "recurrent": {**PASSES},
    "attention": {
        "forward": ("activation", "kv_cache"),
        "grad_input": ("gradient", "activation"),
        "grad_weight": ("gradient", "activation"),
    },
    "embedding": {"forward": ("weight",), "grad_weight": ("gradient",)},
}


def explain_program(recipe: Recipe, program: Any, *inputs: Any) -> Report:
    """Return the report of a module's layers; with inputs, of a run forward and backward; see `explain`."""
    if not inputs:
        return _listed(recipe, program)
    run = Emulation(recipe, check_finite=False)
    small, given = _without_data(program, inputs)
    run.warns = False
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), run:
        result = small(*given)
        ends = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.requires_grad]
        if ends:
            torch.autograd.backward(ends, [torch.zeros_like(t) for t in ends])
    return run.report


def _without_data(program: Any, inputs: Any) -> tuple[Callable[..., Any], Any]:
    """Return the program and its inputs on torch's meta device; a function runs on copies of its inputs."""
    if not isinstance(program, nn.Module):
        return program, tree_map(
            lambda t: t.detach().clone().requires_grad_(t.requires_grad) if _is_tensor(t) else t, inputs
        )
    try:
        small = copy.deepcopy(program).to("meta")
        given = tree_map(lambda t: t.detach().to("meta") if _is_tensor(t) else t, inputs)
        with torch.no_grad():
            copy.deepcopy(small)(*given)
    except (NotImplementedError, RuntimeError):  # what the module does depends on numbers
        small = copy.deepcopy(program)
        given = tree_map(lambda t: t.detach().clone() if _is_tensor(t) else t, inputs)
    return small, given


def _is_tensor(t: Any) -> bool:
    return isinstance(t, torch.Tensor)


def _listed(recipe: Recipe, model: nn.Module) -> Report:
    report = Report()
    found = layers(model)
    for name, module in found.items():
        for kind, operations in OPERATIONS_OF.items():
            if isinstance(module, kind) and not _is_read_by_parent(found, name):
                for operation in operations:
                    _add(report, recipe, name, operation)
            elif isinstance(module, kind):
                _add(report, recipe, name, "linear")
    for text in unmatched_patterns(recipe, found):
        report.remark(text)
    unseen = [o for o in recipe.operations if o in ("matmul", "elementwise")]
    if unseen:
        report.remark(f"{' and '.join(unseen)}: modules do not tell of these operations; give example inputs")
    return report


def _is_read_by_parent(found: dict[str, nn.Module], name: str) -> bool:
    """Whether a layer's parent reads its weight instead of calling it."""
    return isinstance(found.get(name.rpartition(".")[0]), nn.MultiheadAttention)


def _add(report: Report, recipe: Recipe, name: str, operation: str) -> None:
    if not recipe.emulates(operation, name):
        exempt = operation in recipe.operations
        report.add(name, operation, "", "", "exempt" if exempt else "not emulated")
        return
    for product, roles in _ROLES[operation].items():
        results = ("output", "accumulator") if operation != "embedding" else ("output",) if product == "forward" else ()
        for role in (*roles, *results):
            cast = recipe.cast(role, product, name, operation)
            if cast or role not in ("output", "accumulator", "kv_cache"):
                report.add(name, operation, product, role, cast.describe())
