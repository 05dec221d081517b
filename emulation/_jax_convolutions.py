"""Convolutions and embedding tables whose operands are in low precision, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lowp._errors import ArgumentError
from lowp.emulation._jax_memory import current
from lowp.emulation._jax_operands import Reading, finish, round_axis, round_sum, same_basis
from lowp.emulation._jax_products import Hooks, Kept, Wanted, check_basis, materialized, product_of
from lowp.emulation._jax_seeds import signs_at
from lowp.emulation._jax_sites import Site
from lowp.emulation._jax_straight import Layout, straight, straight_back, straight_operand, straight_sum
from lowp.emulation._jax_world import WORLD
from lowp.emulation.casting import Rounded, rotate_back

_OPTIONS = (
    "window_strides",
    "lhs_dilation",
    "rhs_dilation",
    "dimension_numbers",
    "feature_group_count",
    "batch_group_count",
)


def convolution(site: Site, params: Any, dtype: Any, a: Any, b: Any, word: Any, hooks: Hooks, mask: Any = None) -> Any:
    """Return a convolution at a site; at one of the forward pass its gradient is that of the emulated layer.

    Operands are rounded along the axis of input features, in the backward pass along that of output features (for the
    gradient of the input) and along the batch (for that of the weight). `mask`: where the result, a gradient, is not
    zero; None: everywhere.
    """
    rule = _ConvRule(site, params, dtype, (a.dtype, b.dtype), hooks)
    if site.product != "forward" or current() is not None:
        rounded = [rule.read_again(x, number, word).values for number, x in enumerate((a, b))]
        y = rule.summed(rule.plain, rounded[0], rounded[1], site.product, word)
        y = y if mask is None else jnp.where(mask, y, 0)
        return straight(y, finish(y, site, site.product, word, dtype))
    function = jax.custom_vjp(rule.primal)
    function.defvjp(rule.forward, rule.backward, symbolic_zeros=True)
    return function(a, b, word)


def mask_of_convolution(site: Site, params: Any, values: Sequence[Any], number: int, word: Any) -> Any:
    """Return where the gradient of an operand passes its rounding in the forward pass."""
    rule = _ConvRule(site, params, None, (None, None), None)
    return rule.read(values[number], number, "forward", "features", word).mask


def round_in_groups(
    x: Any, reading: Reading, axis: int, outer: int, place: int | None, groups: tuple[int, int], forward: Any = None
) -> Rounded:
    """Round an operand of a convolution, of each group by itself: no sum goes from one group to another.

    `groups`: the axis along which groups lie one after another, and how many there are; the rest as `round_axis`.
    """
    at, count = groups
    moved = None if place is None else _moved(place, at, count)
    again = None if forward is None else _apart(forward, at, count)
    axes = _moved(axis, at, count), _moved(outer, at, count)
    apart = _apart(x, at, count)
    rounded = round_axis(apart, reading, *axes, moved, again)
    source = again if reading.cast.reuse else apart  # what the forward pass rounded has a tangent by itself
    rounded = straight_operand(source, rounded, reading, _layout(apart.shape, axes[0]))
    mask = None if rounded.mask is None else rounded.mask.reshape(x.shape)
    return Rounded(rounded.values.reshape(x.shape), mask, rounded.amax)


def _apart(x: Any, axis: int, count: int) -> Any:
    return x if count == 1 else x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])


def _layout(shape: tuple[int, ...], axis: int) -> Layout:
    return Layout(tuple(range(len(shape))), shape, axis)


def _moved(axis: int, groups: int, count: int) -> int:
    """Return where an axis is once groups have an axis of their own in front of what is left of theirs."""
    return axis + 1 if count > 1 and axis >= groups else axis


class _ConvRule:
    """The three products of one convolution."""

    def __init__(self, site: Site, params: Any, dtype: Any, operands: tuple[Any, Any], hooks: Any) -> None:
        self.site, self.params, self.dtype, self.operands, self.hooks = site, params, dtype, operands, hooks
        numbers = params["dimension_numbers"]
        # axes: batch, features, space... of input and result; output features, input features, space... of the weight
        self.input, self.kernel, self.result = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec

    def plain(self, a: Any, b: Any) -> Any:
        dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
        return lax.conv_general_dilated(
            a.astype(dtype),
            b.astype(dtype),
            padding=tuple(self.params["padding"]),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=dtype,
            **{name: self.params[name] for name in _OPTIONS},
        )

    def summed(self, plain: Callable[[Any, Any], Any], a: Any, b: Any, product: str, word: Any) -> Any:
        """Return a product of rounded operands, its sums rounded to the accumulator's format."""
        reading = Reading(self.site, product, "accumulator", word)
        if reading.cast.unit:
            raise ArgumentError(
                f"{self.site.layer or 'outside any layer'}: unit={reading.cast.unit!r} sums matrix products, not "
                "convolutions; exempt the layer with a rule, or take 'conv' out of the recipe's `operations`."
            )
        if reading.cast.format and reading.cast.group:
            raise ArgumentError(
                f"{self.site.layer or 'outside any layer'}: accumulator with group={reading.cast.group} is not "
                "emulated in convolutions; use group=0, or exempt the layer with a rule."
            )
        y = plain(a, b)
        return straight_sum(self.site, product, plain, round_sum(y, reading, word), a, b) if reading.cast.format else y

    def read(self, x: Any, number: int, product: str, along: str, word: Any, forward: Any = None) -> Rounded:
        """Round operand `number` along its axis of "features" or "batch" (of a weight: input or output features)."""
        batch, features = (self.input if number == 0 else self.kernel)[:2]
        axis, outer = (features, batch) if along == "features" else (batch, features)
        role = self.site.roles[number]
        place = None if role == "weight" else batch
        reading = Reading(self.site, product, role, word)
        return round_in_groups(x, reading, axis, outer, place, self.groups(number), forward)

    def groups(self, number: int) -> tuple[int, int]:
        """Return the axis of an operand along which groups lie one after another, and how many there are."""
        features, batches = self.params["feature_group_count"], self.params["batch_group_count"]
        if number == 1:
            return self.kernel[0], features * batches
        return (self.input[0], batches) if batches > 1 else (self.input[1], features)

    def read_again(self, x: Any, number: int, word: Any) -> Rounded:
        """Round operand `number` of a product that nobody differentiates."""
        batch, features = (self.input if number == 0 else self.kernel)[:2]
        role = self.site.roles[number]
        source, product, _ = self.site.source(number)
        reading = Reading(source, product, role, word)
        place = None if role == "weight" else batch
        return round_in_groups(x, reading, features, batch, place, self.groups(number))

    def primal(self, a: Any, b: Any, word: Any) -> Any:
        return self._forward(a, b, word)[0]

    def _forward(self, a: Any, b: Any, word: Any) -> tuple[Any, list[Rounded]]:
        rounded = [self.read(x, number, "forward", "features", word) for number, x in enumerate((a, b))]
        y = self.summed(self.plain, rounded[0].values, rounded[1].values, "forward", word)
        return straight(y, finish(y, self.site, "forward", word, self.dtype)), rounded

    def forward(self, a: Any, b: Any, word: Any) -> Any:
        wanted = Wanted((a.perturbed, b.perturbed))
        word = None if word is None else word.value
        y, rounded = self._forward(a.value, b.value, word)
        kept = []
        for number, x in enumerate((a.value, b.value)):
            reuse = self.site.cast(self.site.roles[number], product_of(self.site, 1 - number)).reuse
            kept.append(Kept(x, rounded[number].values if reuse else None, rounded[number].mask))
        return y, (kept, wanted, word)

    def backward(self, residuals: Any, g: Any) -> Any:
        kept, wanted, word = residuals
        g = materialized(g)
        grads = [self._gradient(n, kept, g, word) if needed else None for n, needed in enumerate(wanted.operands)]
        return (*grads, None)

    def _gradient(self, number: int, kept: Any, g: Any, word: Any) -> Any:
        name = product_of(self.site, number)
        self.hooks.note(self.site, name, number)
        batch, features = self.result[:2]
        # the gradient of the input sums over output features, that of the weight over the batch
        axis, outer = (features, batch) if number == 0 else (batch, features)
        gradient = Reading(self.site, name, "gradient", word)
        groups = features, self.groups(1)[1]
        rounded = round_in_groups(g, gradient, axis, outer, batch, groups).values
        source = kept[1 - number]
        same_basis(gradient, Reading(self.site, name, self.site.roles[1 - number], word))
        other = self.read(source.original, 1 - number, name, "batch", word, source.rounded).values
        dtype = jnp.promote_types(jnp.promote_types(other.dtype, rounded.dtype), jnp.float32)
        own = kept[number].original.astype(dtype)

        def plain(g: Any, other: Any) -> Any:
            function = (lambda x: self.plain(x, other)) if number == 0 else (lambda x: self.plain(other, x))
            return jax.linear_transpose(function, own)(g)[0]

        y = self.summed(plain, rounded.astype(dtype), other, name, word)
        y = self._in_own_basis(y, number, name, kept[number].mask, word)
        y = straight(y, finish(y, self.site, name, word, self.operands[number]))
        return self.hooks.tell(self.site, name, y)

    def _in_own_basis(self, y: Any, number: int, name: str, mask: Any, word: Any) -> Any:
        if mask is not None:
            check_basis(self.site, name, number)
            y = jnp.where(mask, y, 0)
        cast = self.site.cast(self.site.roles[number], "forward")
        if not cast.hadamard or not self.site.cast(self.site.roles[1 - number], name).reuse:
            return y
        axis, (place, count) = (self.input if number == 0 else self.kernel)[1], self.groups(number)
        apart = _apart(y, place, count)
        signs, moved = signs_at(self.site, "forward", cast.signs, word), _moved(axis, place, count)
        back = rotate_back(WORLD, apart, cast, moved, signs)
        return straight_back(apart, back, _layout(apart.shape, moved), cast.hadamard, signs).reshape(y.shape)


def round_rows(site: Site, g: Any, axis: int, word: Any) -> Any:
    """Return the gradient of rows of an embedding table in the format of gradients."""
    reading = Reading(site, "grad_weight", "gradient", word)
    return straight(g, round_axis(g, reading, axis, axis - 1, _place(g)).values.astype(g.dtype))


def _place(rows: Any) -> int | None:
    """Return the axis of looked-up rows that devices share: that of the batch; positions in a text are alike."""
    return 0 if rows.ndim > 2 and rows.shape[0] > 1 else None


def lookup(site: Site, rows: Any, axis: int, word: Any, hooks: Hooks) -> Any:
    """Return rows of an embedding table in the format of weights; their gradient is rounded as it arrives."""

    def primal(x: Any, word: Any) -> Any:
        reading = Reading(site, "forward", "weight", word)
        return straight(x, round_axis(x, reading, axis, axis - 1, _place(x)).values.astype(x.dtype))

    def forward(x: Any, word: Any) -> Any:
        reading = Reading(site, "forward", "weight", word)
        rounded = round_axis(x, reading, axis, axis - 1, _place(x))
        return straight(x, rounded.values.astype(x.dtype)), (rounded.mask, word)

    def backward(residuals: Any, g: Any) -> Any:
        mask, word = residuals
        hooks.note(site, "grad_weight", 0)
        y = round_rows(site, g, axis, word)
        return (y if mask is None else jnp.where(mask, y, 0)), None

    if current() is not None:
        return primal(rows, word)
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function(rows, word)
