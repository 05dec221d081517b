"""Arrays cut into groups along one axis, and sums in one defined order, through a `World`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lowp._errors import ArgumentError

if TYPE_CHECKING:
    from lowp.emulation.casting import World


def grouped(world: World, x: Any, axis: int, size: int, method: str) -> Any:
    """Return `x` with the axis moved last and cut into (groups, size).

    Raises:
        ArgumentError: The size does not divide the axis.
    """
    length = x.shape[axis]
    if length % size:
        raise ArgumentError(
            f"method={method!r} works on groups of {size}, which do not divide the axis, of length {length}; choose "
            "another size, or exempt the layer with a rule."
        )
    moved = world.moveaxis(x, axis, -1)
    return world.reshape(moved, (*moved.shape[:-1], length // size, size))


def ungrouped(world: World, groups: Any, like: Any, axis: int, size: int = 1) -> Any:
    """Return groups put together again in the shape of `like`, or with one number for `size` along the axis."""
    lead = tuple(n for a, n in enumerate(like.shape) if a != axis)
    return world.moveaxis(world.reshape(groups, (*lead, like.shape[axis] // size)), -1, axis)


def divide(world: World, a: Any, b: Any) -> Any:
    """Return the correctly rounded quotients.

    XLA turns a division by a broadcast number into a multiplication by its reciprocal, so the divisor is spread first;
    and it turns (a / b) / c into a / (b * c), so the quotient is fenced.
    """
    return world.fence(a / world.fence(b if a.shape == b.shape else world.where(a == a, b, b)))


def tree_sum(world: World, x: Any) -> Any:
    """Return the sum along the last axis, which is kept: first half plus second half, again and again.

    An odd element at the end is carried over, so the order of additions depends on the length alone.
    """
    while (length := x.shape[-1]) > 1:
        half = length // 2
        summed = x[..., :half] + x[..., half : 2 * half]
        x = world.concatenate([summed, x[..., 2 * half :]]) if length % 2 else summed
    return x


def block_largest(world: World, x: Any, axis: int, size: int) -> Any:
    """Return for each element the largest one of its block along an axis; a last block may be shorter."""
    moved = world.moveaxis(x, axis, -1)
    whole = moved.shape[-1] // size * size
    parts = []
    if whole:
        blocks = world.reshape(moved[..., :whole], (*moved.shape[:-1], whole // size, size))
        spread = world.where(blocks == blocks, world.largest(blocks, -1), world.largest(blocks, -1))
        parts.append(world.reshape(spread, (*moved.shape[:-1], whole)))
    if whole < moved.shape[-1]:
        rest = moved[..., whole:]
        parts.append(world.where(rest == rest, world.largest(rest, -1), world.largest(rest, -1)))
    return world.moveaxis(parts[0] if len(parts) == 1 else world.concatenate(parts), -1, axis)
