"""Derivatives of derivatives of emulated programs: a rounded array has the tangent of the one it stands for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lowp.emulation._jax_operands import Reading
from lowp.emulation._jax_seeds import signs_at
from lowp.emulation._jax_sites import Site
from lowp.emulation._jax_world import rotation
from lowp.emulation.casting import Rounded


class Layout(NamedTuple):
    """How an operand is seen while it is rotated.

    Attributes:
        order: Its axes, moved first.
        folded: The shape that they are given then.
        axis: The axis of that shape along which the rotation goes.
    """

    order: tuple[int, ...]
    folded: tuple[int, ...]
    axis: int

    def turned(self, x: Any, block: int, signs: Any, inverse: bool) -> Any:
        """Return an operand in the basis of a rotation, or out of it; differentiable."""
        moved = jnp.transpose(x, self.order)
        turned = rotation(moved.reshape(self.folded), block, self.axis, signs, inverse)
        return jnp.transpose(turned.reshape(moved.shape), tuple(np.argsort(self.order)))


class Turn(NamedTuple):
    """A rotation of an operand: its block, and whether it goes back."""

    layout: Layout
    block: int
    inverse: bool = False


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _stand(turn: Turn | None, x: Any, rounded: Any, signs: Any) -> Any:
    return rounded


def _stand_jvp(turn: Turn | None, primals: Any, tangents: Any) -> Any:
    _, rounded, signs = primals
    tangent = tangents[0].astype(rounded.dtype)
    if turn is not None:
        tangent = turn.layout.turned(tangent, turn.block, signs, turn.inverse)
    return _stand(turn, *primals), tangent


_stand.defjvp(_stand_jvp)


def straight(x: Any, rounded: Any) -> Any:
    """Return the rounded array, with the tangent of `x`."""
    return _stand(None, x, rounded, None)


def straight_back(x: Any, turned: Any, layout: Layout, block: int, signs: Any) -> Any:
    """Return an array that was brought out of the basis of a rotation, with the tangent of `x` brought out of it."""
    return _stand(Turn(layout, block, inverse=True), x, turned, signs)


def straight_operand(x: Any, rounded: Rounded, reading: Reading, layout: Layout) -> Rounded:
    """Return a rounded operand whose tangent is that of `x`, in the basis of the operand's rotation."""
    cast = reading.cast
    if not cast:
        return rounded
    block = 0 if cast.reuse and not cast.requantize else cast.hadamard
    signs = signs_at(reading.site, reading.product, cast.signs, reading.word) if block else None
    return rounded._replace(values=_stand(Turn(layout, block) if block else None, x, rounded.values, signs))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _result(product: Callable[[Any, Any], Any], y: Any, a: Any, b: Any) -> Any:
    return y


def _result_jvp(product: Callable[[Any, Any], Any], primals: Any, tangents: Any) -> Any:
    y, *operands = primals
    _, tangent = jax.jvp(product, tuple(operands), tuple(tangents[1:]))
    return _result(product, *primals), tangent.astype(y.dtype)


_result.defjvp(_result_jvp)


def straight_sum(site: Site, name: str, product: Callable[[Any, Any], Any], y: Any, a: Any, b: Any) -> Any:
    """Return sums that an accumulator may have rounded, with the tangent of the plain product of the same operands."""
    return _result(product, y, a, b) if site.cast("accumulator", name) else y
