"""Matrix products and convolutions whose operands are in low precision, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lowp._errors import ArgumentError
from lowp.emulation._jax_memory import current
from lowp.emulation._jax_operands import Axes, Reading, contracted, finish, matrix_order, round_axes, same_basis
from lowp.emulation._jax_seeds import signs_at
from lowp.emulation._jax_sites import Site
from lowp.emulation._jax_straight import Layout, straight, straight_back, straight_operand, straight_sum
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


def product(site: Site, params: Any, dtype: Any, a: Any, b: Any, word: Any, hooks: Hooks, mask: Any = None) -> Any:
    """Return a `dot_general` at a site; at one of the forward pass its gradient is that of the emulated layer.

    `mask`: where the result, a gradient, is not zero; None: everywhere.
    """
    axes = DotAxes.of(params["dimension_numbers"], a.ndim, b.ndim)
    if site.product != "forward" or current() is not None:
        return _without_rule(site, axes, dtype, a, b, word, mask)
    rule = _DotRule(site, axes, dtype, (a.dtype, b.dtype), hooks)
    function = jax.custom_vjp(rule.primal)
    function.defvjp(rule.forward, rule.backward, symbolic_zeros=True)
    return function(a, b, word)


def mask_of_product(site: Site, params: Any, values: Sequence[Any], number: int, word: Any) -> Any:
    """Return where the gradient of an operand passes its rounding in the forward pass, in the operand's layout."""
    axes = DotAxes.of(params["dimension_numbers"], *(x.ndim for x in values))[number]
    reading = Reading(site, "forward", site.roles[number], word, number)
    return round_axes(values[number], reading, axes, tokens_of(axes, reading.role)).mask


def _without_rule(site: Site, axes: DotAxes, dtype: Any, a: Any, b: Any, word: Any, mask: Any) -> Any:
    """Return a product that nobody differentiates, such as those of a backward pass that the program itself holds."""
    summed = site.product == "grad_weight" and site.operation not in ("matmul", "attention")
    sources = [site.source(number) for number in range(len(site.roles))]
    readings = [
        Reading(source, product, role, word, number)
        for (source, product, number), role in zip(sources, site.roles, strict=True)
    ]
    same_basis(*readings)
    rounded = [
        _operand(x, reading, own, tokens_of(own, reading.role, contract=summed))
        for x, reading, own in zip((a, b), readings, axes, strict=True)
    ]
    y = _contracted(rounded[0], rounded[1], axes.a, axes.b, Reading(site, site.product, "accumulator", word))
    y = y if mask is None else jnp.where(mask, y, 0)
    return straight(y, finish(y, site, site.product, word, dtype))


def _operand(x: Any, reading: Reading, axes: Axes, tokens: str, forward: Any = None) -> Rounded:
    """Return a rounded operand whose tangent is that of `x`; arguments as `round_axes` has them."""
    rounded = round_axes(x, reading, axes, tokens, forward)
    return straight_operand(x, rounded, reading, _layout(x.shape, axes))


def _layout(shape: tuple[int, ...], axes: Axes) -> Layout:
    order, axis, _ = matrix_order(axes)
    return Layout(order, tuple(math.prod(shape[i] for i in group) for group in _groups(axes, axis)), axis)


def _contracted(first: Rounded, second: Rounded, axes_a: Axes, axes_b: Axes, reading: Reading) -> Any:
    """Return the product of two operands, with the tangent of the plain product; arguments as `contracted` has them."""
    y = contracted(first, second, axes_a, axes_b, reading)
    dimensions = ((axes_a.contract, axes_b.contract), (axes_a.batch, axes_b.batch))

    def plain(a: Any, b: Any) -> Any:
        return lax.dot_general(
            a,
            b,
            dimensions,
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.promote_types(a.dtype, b.dtype),
        )

    return straight_sum(reading.site, reading.product, plain, y, first.values, second.values)


class _DotRule:
    """The three products of one `dot_general`."""

    def __init__(self, site: Site, axes: DotAxes, dtype: Any, operands: tuple[Any, Any], hooks: Hooks) -> None:
        self.site, self.axes, self.dtype, self.operands, self.hooks = site, axes, dtype, operands, hooks

    def primal(self, a: Any, b: Any, word: Any) -> Any:
        return self._forward(a, b, word)[0]

    def _forward(self, a: Any, b: Any, word: Any) -> tuple[Any, list[Rounded]]:
        readings = [Reading(self.site, "forward", role, word, number) for number, role in enumerate(self.site.roles)]
        same_basis(*readings)
        rounded = [
            _operand(x, reading, axes, tokens_of(axes, reading.role))
            for x, reading, axes in zip((a, b), readings, self.axes, strict=True)
        ]
        reading = Reading(self.site, "forward", "accumulator", word)
        y = _contracted(rounded[0], rounded[1], self.axes.a, self.axes.b, reading)
        return straight(y, finish(y, self.site, "forward", word, self.dtype)), rounded

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
        g_rounded = _operand(g, g_reading, g_axes, tokens_of(g_axes, "gradient", contract=summed))
        x_reading = Reading(site, product_name, role, word)
        source = kept[1 - number]
        x = source.original if source.rounded is None else source.rounded
        x_rounded = _operand(x, x_reading, x_axes, tokens_of(x_axes, role, contract=summed), source.rounded)
        same_basis(g_reading, x_reading)
        y = _contracted(g_rounded, x_rounded, g_axes, x_axes, Reading(site, product_name, "accumulator", word))
        # axes now: batch, own outer ones, own contracted ones in the order of their partners
        paired = [own.contract[other.contract.index(i)] for i in x_axes.outer]
        y = jnp.transpose(y, tuple(np.argsort((*own.batch, *own.outer, *paired))))
        y = self._in_own_basis(y, number, x_reading, kept[number].mask, word)
        y = straight(y, finish(y, site, product_name, word, self.operands[number]))
        return self.hooks.tell(site, product_name, y)

    def _in_own_basis(self, y: Any, number: int, reading: Reading, mask: Any, word: Any) -> Any:
        if mask is not None:
            check_basis(self.site, reading.product, number)
            y = jnp.where(mask, y, 0)
        forward = Reading(self.site, "forward", self.site.roles[number], word)
        if not reading.cast.reuse or not forward.cast.hadamard:
            return y
        layout = _layout(y.shape, self.axes[number])
        signs = signs_at(self.site, "forward", forward.cast.signs, word)
        moved = jnp.transpose(y, layout.order)
        back = rotate_back(WORLD, moved.reshape(layout.folded), forward.cast, layout.axis, signs)
        back = jnp.transpose(back.reshape(moved.shape), tuple(np.argsort(layout.order)))
        return straight_back(y, back, layout, forward.cast.hadamard, signs)


def check_basis(site: Site, name: str, number: int) -> None:
    """Check that the gradient of operand `number` comes in the basis of the operand's mask.

    Raises:
        ArgumentError: The forward pass rotates the operand, and the other one is not reused as it was rotated there.
    """
    role, other = site.roles[number], site.roles[1 - number]
    rotation = site.cast(role, "forward").hadamard
    if rotation and not site.cast(other, name).reuse:
        raise ArgumentError(
            f"{site.layer or 'outside any layer'}, {name}: the {role}'s mask is in the basis of its rotation "
            f"(hadamard={rotation}); give the {other} of this product reuse=True."
        )


def materialized(g: Any) -> Any:
    """Return a gradient as an array, also where JAX knows it to be zero."""
    return g if isinstance(g, jax.Array) else jnp.zeros(g.shape, g.dtype)


def _groups(axes: Axes, axis: int) -> list[tuple[int, ...]]:
    first = [axes.batch] if axes.batch else []
    swapped = axis == len(first) and bool(axes.outer)
    return [*first, axes.contract, axes.outer] if swapped else [*first, axes.outer, axes.contract]


def product_of(site: Site, number: int) -> str:
    """Return the name of the product that gives the gradient of operand `number`.

    Of two activations the second one is in the place of a weight.
    """
    if "weight" not in site.roles:
        return "grad_input" if number == site.first else "grad_weight"
    return "grad_weight" if site.roles[number] == "weight" else "grad_input"
