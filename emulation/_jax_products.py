"""Matrix products and convolutions whose operands are in low precision, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lowp.emulation._jax_memory import current
from lowp.emulation._jax_operands import Axes, Reading, contracted, finish, matrix_order, round_axes, same_basis
from lowp.emulation._jax_seeds import signs_at
from lowp.emulation._jax_sites import Site
from lowp.emulation._jax_world import WORLD
from lowp.emulation.casting import Rounded, rotate_back
from lowp.emulation.casts import Cast


class Kept(NamedTuple):
    """What the forward pass leaves for the backward pass of one operand, in the operand's own layout.

    Attributes:
        original: The operand, if the gradient of the other one needs it.
        rounded: The operand as rounded forward, if the gradient of the other one reuses it.
        mask: Where the gradient of this operand passes; None: everywhere.
    """

    original: Any = None
    rounded: Any = None
    mask: Any = None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Wanted:
    """Which operands of a product need a gradient."""

    operands: tuple[bool, ...]


class Hooks(NamedTuple):
    """What is told to the caller while a program is traced.

    Attributes:
        note: Called with a site, a backward product that comes to be, and the operand whose gradient that is.
        watch: Called with a site, a product and its result; None if nobody wants to know.
    """

    note: Callable[[Site, str, int], None]
    watch: Callable[[Site, str, Any], None] | None = None

    def tell(self, site: Site, product: str, result: Any) -> Any:
        """Return the result, after the caller has seen it."""
        if self.watch is not None:
            self.watch(site, product, result)
        return result


class DotAxes(NamedTuple):
    """Axes of the operands of a `dot_general`, and where they are in its result."""

    a: Axes
    b: Axes

    @classmethod
    def of(cls, dimension_numbers: Any, ndim_a: int, ndim_b: int) -> DotAxes:
        (ca, cb), (ba, bb) = (tuple(tuple(int(i) for i in part) for part in pair) for pair in dimension_numbers)
        return cls(
            Axes(ba, ca, tuple(i for i in range(ndim_a) if i not in ca + ba)),
            Axes(bb, cb, tuple(i for i in range(ndim_b) if i not in cb + bb)),
        )

    def result(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the axes of the result: batch, those of `a`, those of `b`."""
        first, second = len(self.a.batch), len(self.a.batch) + len(self.a.outer)
        return (
            tuple(range(first)),
            tuple(range(first, second)),
            tuple(range(second, second + len(self.b.outer))),
        )


def tokens_of(axes: Axes, role: str, contract: bool = False) -> str:
    """Return which axes of an operand devices share: the first ones that activations and gradients have."""
    if role == "weight":
        return ""
    if axes.batch:
        return "batch"
    return "contract" if contract else "outer"


def product(site: Site, params: Any, dtype: Any, a: Any, b: Any, word: Any, hooks: Hooks) -> Any:
    """Return a `dot_general` at a site; at one of the forward pass its gradient is that of the emulated layer."""
    axes = DotAxes.of(params["dimension_numbers"], a.ndim, b.ndim)
    if site.product != "forward" or current() is not None:
        return _without_rule(site, axes, dtype, a, b, word)
    rule = _DotRule(site, axes, dtype, (a.dtype, b.dtype), hooks)
    function = jax.custom_vjp(rule.primal)
    function.defvjp(rule.forward, rule.backward, symbolic_zeros=True)
    return function(a, b, word)


def _without_rule(site: Site, axes: DotAxes, dtype: Any, a: Any, b: Any, word: Any) -> Any:
    """Return a product that nobody differentiates, such as those of a backward pass that the program itself holds."""
    summed = site.product == "grad_weight"
    readings = [Reading(*site.source(number), role, word) for number, role in enumerate(site.roles)]
    same_basis(*readings)
    rounded = [
        round_axes(x, reading, own, tokens_of(own, reading.role, contract=summed)).values
        for x, reading, own in zip((a, b), readings, axes, strict=True)
    ]
    y = contracted(rounded[0], rounded[1], axes.a, axes.b, Reading(site, site.product, "accumulator", word))
    return finish(y, site, site.product, word, dtype)


class _DotRule:
    """The three products of one `dot_general`."""

    def __init__(self, site: Site, axes: DotAxes, dtype: Any, operands: tuple[Any, Any], hooks: Hooks) -> None:
        self.site, self.axes, self.dtype, self.operands, self.hooks = site, axes, dtype, operands, hooks

    def primal(self, a: Any, b: Any, word: Any) -> Any:
        return self._forward(a, b, word)[0]

    def _forward(self, a: Any, b: Any, word: Any) -> tuple[Any, list[Rounded]]:
        readings = [Reading(self.site, "forward", role, word) for role in self.site.roles]
        same_basis(*readings)
        rounded = [
            round_axes(x, reading, axes, tokens_of(axes, reading.role))
            for x, reading, axes in zip((a, b), readings, self.axes, strict=True)
        ]
        reading = Reading(self.site, "forward", "accumulator", word)
        y = contracted(rounded[0].values, rounded[1].values, self.axes.a, self.axes.b, reading)
        return finish(y, self.site, "forward", word, self.dtype), rounded

    def forward(self, a: Any, b: Any, word: Any) -> Any:
        wanted = Wanted((a.perturbed, b.perturbed))
        word = None if word is None else word.value
        y, rounded = self._forward(a.value, b.value, word)
        kept = []
        for number, x in enumerate((a.value, b.value)):
            needed, reuse = wanted.operands[1 - number], self._backward_cast(number).reuse
            original = x if needed and not reuse else None
            values = rounded[number].values if needed and reuse else None
            kept.append(Kept(original, values, rounded[number].mask if wanted.operands[number] else None))
        return y, (kept, wanted, word)

    def _backward_cast(self, number: int) -> Cast:
        """Return the cast of operand `number` in the product that gives the gradient of the other."""
        return self.site.cast(self.site.roles[number], product_of(self.site, 1 - number))

    def backward(self, residuals: Any, g: Any) -> Any:
        kept, wanted, word = residuals
        g = materialized(g)
        grads = [self._gradient(n, kept, g, word) if needed else None for n, needed in enumerate(wanted.operands)]
        return (*grads, None)

    def _gradient(self, number: int, kept: Sequence[Kept], g: Any, word: Any) -> Any:
        """Return the gradient of operand `number`: the product of the result's gradient and the other operand."""
        site, product_name = self.site, product_of(self.site, number)
        self.hooks.note(site, product_name, number)
        own, other = self.axes[number], self.axes[1 - number]
        batch, *outer = self.axes.result()
        g_axes = Axes(batch, outer[1 - number], outer[number])
        x_axes = Axes(other.batch, other.outer, tuple(sorted(other.contract)))
        role = site.roles[1 - number]
        # the gradient of a weight sums over the tokens, that of an activation keeps them
        summed = site.roles[number] == "weight"
        g_reading = Reading(site, product_name, "gradient", word)
        g_rounded = round_axes(g, g_reading, g_axes, tokens_of(g_axes, "gradient", contract=summed))
        x_reading = Reading(site, product_name, role, word)
        source = kept[1 - number]
        x = source.original if source.rounded is None else source.rounded
        x_rounded = round_axes(x, x_reading, x_axes, tokens_of(x_axes, role, contract=summed), source.rounded)
        same_basis(g_reading, x_reading)
        y = contracted(
            g_rounded.values, x_rounded.values, g_axes, x_axes, Reading(site, product_name, "accumulator", word)
        )
        # axes now: batch, own outer ones, own contracted ones in the order of their partners
        paired = [own.contract[other.contract.index(i)] for i in x_axes.outer]
        y = jnp.transpose(y, tuple(np.argsort((*own.batch, *own.outer, *paired))))
        y = self._in_own_basis(y, number, x_reading, kept[number].mask, word)
        return self.hooks.tell(site, product_name, finish(y, site, product_name, word, self.operands[number]))

    def _in_own_basis(self, y: Any, number: int, reading: Reading, mask: Any, word: Any) -> Any:
        if mask is not None:
            y = jnp.where(mask, y, 0)
        forward = Reading(self.site, "forward", self.site.roles[number], word)
        if not reading.cast.reuse or not forward.cast.hadamard:
            return y
        axes = self.axes[number]
        order, axis, _ = matrix_order(axes)
        shape = tuple(y.shape[i] for i in order)
        folded = [math.prod(y.shape[i] for i in group) for group in _groups(axes, axis)]
        signs = signs_at(self.site, "forward", forward.cast.signs, word)
        back = rotate_back(WORLD, jnp.transpose(y, order).reshape(folded), forward.cast, axis, signs)
        return jnp.transpose(back.reshape(shape), tuple(np.argsort(order)))


def materialized(g: Any) -> Any:
    """Return a gradient as an array, also where JAX knows it to be zero."""
    return g if isinstance(g, jax.Array) else jnp.zeros(g.shape, g.dtype)


def _groups(axes: Axes, axis: int) -> list[tuple[int, ...]]:
    first = [axes.batch] if axes.batch else []
    swapped = axis == len(first) and bool(axes.outer)
    return [*first, axes.contract, axes.outer] if swapped else [*first, axes.outer, axes.contract]


def product_of(site: Site, number: int) -> str:
    """Return the name of the product that gives the gradient of operand `number`."""
    return "grad_weight" if site.roles[number] == "weight" or "weight" not in site.roles else "grad_input"
