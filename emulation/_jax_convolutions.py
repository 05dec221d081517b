"""Convolutions and embedding tables whose operands are in low precision, forward and backward."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lowp._errors import ArgumentError
from lowp.emulation._jax_memory import current
from lowp.emulation._jax_operands import Reading, finish, round_axis, round_sum, same_basis
from lowp.emulation._jax_products import Hooks, Kept, Wanted, materialized, product_of
from lowp.emulation._jax_seeds import signs_at
from lowp.emulation._jax_sites import Site
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


def convolution(site: Site, params: Any, dtype: Any, a: Any, b: Any, word: Any, hooks: Hooks) -> Any:
    """Return a convolution at a site; at one of the forward pass its gradient is that of the emulated layer.

    Operands are rounded along the axis of input features, in the backward pass along that of output features (for the
    gradient of the input) and along the batch (for that of the weight).
    """
    rule = _ConvRule(site, params, dtype, (a.dtype, b.dtype), hooks)
    if site.product != "forward" or current() is not None:
        rounded = [rule.read_again(x, number, word).values for number, x in enumerate((a, b))]
        y = rule.summed(rule.plain(*rounded), site.product, word)
        return finish(y, site, site.product, word, dtype)
    function = jax.custom_vjp(rule.primal)
    function.defvjp(rule.forward, rule.backward, symbolic_zeros=True)
    return function(a, b, word)


class _ConvRule:
    """The three products of one convolution."""

    def __init__(self, site: Site, params: Any, dtype: Any, operands: tuple[Any, Any], hooks: Hooks) -> None:
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

    def summed(self, y: Any, product: str, word: Any) -> Any:
        """Round sums to the accumulator's format."""
        reading = Reading(self.site, product, "accumulator", word)
        if reading.cast.format and reading.cast.group:
            raise ArgumentError(
                f"{self.site.layer or 'outside any layer'}: accumulator with group={reading.cast.group} is not "
                "emulated in convolutions; use group=0, or exempt the layer with a rule."
            )
        return round_sum(y, reading, word) if reading.cast.format else y

    def read(self, x: Any, number: int, product: str, along: str, word: Any, forward: Any = None) -> Rounded:
        """Round operand `number` along its axis of "features" or "batch" (of a weight: input or output features)."""
        batch, features = (self.input if number == 0 else self.kernel)[:2]
        axis, outer = (features, batch) if along == "features" else (batch, features)
        role = self.site.roles[number]
        place = None if role == "weight" else batch
        return round_axis(x, Reading(self.site, product, role, word), axis, outer, place, forward)

    def read_again(self, x: Any, number: int, word: Any) -> Rounded:
        """Round operand `number` of a product that nobody differentiates."""
        batch, features = (self.input if number == 0 else self.kernel)[:2]
        role = self.site.roles[number]
        reading = Reading(*self.site.source(number), role, word)
        return round_axis(x, reading, features, batch, None if role == "weight" else batch)

    def primal(self, a: Any, b: Any, word: Any) -> Any:
        return self._forward(a, b, word)[0]

    def _forward(self, a: Any, b: Any, word: Any) -> tuple[Any, list[Rounded]]:
        rounded = [self.read(x, number, "forward", "features", word) for number, x in enumerate((a, b))]
        y = self.summed(self.plain(*(r.values for r in rounded)), "forward", word)
        return finish(y, self.site, "forward", word, self.dtype), rounded

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
        rounded = round_axis(g, gradient, axis, outer, batch).values
        source = kept[1 - number]
        same_basis(gradient, Reading(self.site, name, self.site.roles[1 - number], word))
        other = self.read(source.original, 1 - number, name, "batch", word, source.rounded).values
        dtype = jnp.promote_types(jnp.promote_types(other.dtype, rounded.dtype), jnp.float32)
        own = kept[number].original.astype(dtype)
        function = (lambda x: self.plain(x, other)) if number == 0 else (lambda x: self.plain(other, x))
        (y,) = jax.linear_transpose(function, own)(rounded.astype(dtype))
        y = self._in_own_basis(self.summed(y, name, word), number, name, kept[number].mask, word)
        return self.hooks.tell(self.site, name, finish(y, self.site, name, word, self.operands[number]))

    def _in_own_basis(self, y: Any, number: int, name: str, mask: Any, word: Any) -> Any:
        if mask is not None:
            y = jnp.where(mask, y, 0)
        cast = self.site.cast(self.site.roles[number], "forward")
        if not cast.hadamard or not self.site.cast(self.site.roles[1 - number], name).reuse:
            return y
        axis = (self.input if number == 0 else self.kernel)[1]
        return rotate_back(WORLD, y, cast, axis, signs_at(self.site, "forward", cast.signs, word))


def lookup(site: Site, rows: Any, axis: int, word: Any, hooks: Hooks) -> Any:
    """Return rows of an embedding table in the format of weights; their gradient is rounded as it arrives."""

    def primal(x: Any, word: Any) -> Any:
        reading = Reading(site, "forward", "weight", word)
        return round_axis(x, reading, axis, axis - 1, None).values.astype(x.dtype)

    def forward(x: Any, word: Any) -> Any:
        reading = Reading(site, "forward", "weight", word)
        rounded = round_axis(x, reading, axis, axis - 1, None)
        return rounded.values.astype(x.dtype), (rounded.mask, word)

    def backward(residuals: Any, g: Any) -> Any:
        mask, word = residuals
        hooks.note(site, "grad_weight", 0)
        reading = Reading(site, "grad_weight", "gradient", word)
        y = round_axis(g, reading, axis, axis - 1, 0).values.astype(g.dtype)
        return (y if mask is None else jnp.where(mask, y, 0)), None

    if current() is not None:
        return primal(rows, word)
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function(rows, word)
