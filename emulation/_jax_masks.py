"""Masks of gradients in programs that take the gradient themselves: from the forward product to the backward one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lowp.emulation._jax_convolutions import mask_of_convolution
from lowp.emulation._jax_products import DotAxes, mask_of_product
from lowp.emulation._jax_sites import Mask, MaskKey, Plan, Scope, Site

#: Jaxprs out of which a mask comes with the results, and into which it goes.
_OUT = ("jit", "pjit", "closed_call", "core_call", "scan")
_IN = (*_OUT, "checkpoint", "remat2", "cond", "while")


class Product(NamedTuple):
    """A product of the forward pass.

    Attributes:
        site: Where it stands.
        primitive: Name of the primitive.
        params: Its parameters.
        shapes: Shapes of the operands.
        scope: Where its jaxpr stands.
    """

    site: Site
    primitive: str
    params: Any
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    scope: Scope


def is_masked(site: Site, number: int) -> bool:
    """Whether the gradient of an operand of the forward pass is masked."""
    return site.cast(site.roles[number], "forward").masks


def mask_for(forward: Product, number: int, eqn: Any, scope: Scope) -> Mask | None:
    """Return how the gradient of an operand is masked, where an equation computes it; None where it cannot be.

    The equation must be the one that JAX makes of the forward product, and the mask must get there.
    """
    site = forward.site
    if eqn.primitive.name != forward.primitive or site.cast(site.roles[number], "forward").hadamard:
        return None
    if not _reaches(forward.scope, scope):
        return None
    key = (site, number)
    if forward.primitive != "dot_general":
        return Mask(key) if eqn.outvars[0].aval.shape == forward.shapes[number] else None
    dimensions, order = _transposed(forward, number)
    return Mask(key, order) if _dimensions(eqn) == dimensions else None


def gradient_of(forward: Product, read: int, eqn: Any) -> int:
    """Return which operand's gradient an equation computes that reads operand `read` of a forward product.

    Where the two operands are one tensor, the axes tell which of them is read.
    """
    if eqn.primitive.name == forward.primitive == "dot_general":
        for number in (1 - read, read):
            if _dimensions(eqn) == _transposed(forward, number)[0]:
                return number
    return 1 - read


def _dimensions(eqn: Any) -> tuple[tuple[tuple[int, ...], ...], ...]:
    return tuple(tuple(tuple(int(i) for i in part) for part in pair) for pair in eqn.params["dimension_numbers"])


def _transposed(forward: Product, number: int) -> tuple[Any, tuple[int, ...]]:
    """Return the axes of the product that gives the gradient of an operand, and the operand's axes in its result.

    Source: JAX's rule for the transpose of `dot_general`.
    """
    axes = DotAxes.of(forward.params["dimension_numbers"], *map(len, forward.shapes))
    x, y = axes[number], axes[1 - number]
    batch, *outer = axes.result()
    sums = tuple(x.contract[i] for i in np.argsort(y.contract))
    return ((outer[1 - number], y.outer), (batch, y.batch)), (*x.batch, *x.outer, *sums)


def _reaches(source: Scope, target: Scope) -> bool:
    """Whether a mask that is made in one jaxpr can be had in another one: loops must have the same rounds."""
    common = 0
    for a, b in zip(source.chain, target.chain, strict=False):
        if a != b:
            break
        common += 1
    out, into = source.chain[common:], target.chain[common:]
    if not (all(kind in _OUT for kind, _ in out) and all(kind in _IN for kind, _ in into)):
        return False
    return _scans(out) == _scans(into) and source.rounds == target.rounds


def _scans(chain: Any) -> int:
    return sum(kind == "scan" for kind, _ in chain)


def produced(plan: Plan, wanted: set[MaskKey]) -> list[MaskKey]:
    """Return the masks that a plan makes and leaves to others, in order."""
    if not wanted:
        return []
    used = set(_consumed(plan))
    return [key for key in dict.fromkeys(_made(plan)) if key in wanted and key not in used]


def needed(plan: Plan, wanted: set[MaskKey]) -> list[MaskKey]:
    """Return the masks that a plan uses and others make, in order."""
    if not wanted:
        return []
    made = set(_made(plan))
    return [key for key in dict.fromkeys(_consumed(plan)) if key not in made]


def _made(plan: Plan) -> Iterator[MaskKey]:
    for eqn, step in zip(_equations(plan), plan.steps, strict=True):
        if step is None:
            continue
        if step.site is not None and step.site.product == "forward":
            yield from ((step.site, number) for number in range(len(step.site.roles)))
        if eqn.primitive.name in _OUT:
            for inner in step.inner:
                yield from _made(inner)


def _consumed(plan: Plan) -> Iterator[MaskKey]:
    for step in plan.steps:
        if step is not None:
            if step.mask is not None:
                yield step.mask.key
            for inner in step.inner:
                yield from _consumed(inner)


def _equations(plan: Plan) -> Any:
    return (plan.jaxpr.jaxpr if hasattr(plan.jaxpr, "jaxpr") else plan.jaxpr).eqns


def keep_masks(eqn: Any, site: Site, values: Any, word: Any, wanted: set[MaskKey], masks: dict[MaskKey, Any]) -> None:
    """Keep the masks of a forward product's operands that a backward product asks for."""
    for number in range(len(values)):
        if (site, number) in wanted:
            of = mask_of_product if eqn.primitive.name == "dot_general" else mask_of_convolution
            masks[site, number] = of(site, eqn.params, values, number, word)


def mask_at(mask: Mask | None, masks: dict[MaskKey, Any]) -> Any:
    """Return a mask in the layout of a backward product's result; None for none."""
    if mask is None:
        return None
    return masks[mask.key] if mask.order is None else jnp.transpose(masks[mask.key], mask.order)
