"""Blocks of any array library's arrays: cut an array so that blocks are axes of their own, reduce, and put it together.

A cut array has two axes for each blocked one: blocks, then places in a block. What belongs to blocks keeps the second
with length one, so that it meets the elements by broadcasting; no element moves in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.rounding._layout import Layout

#: How NumPy sums: lanes, and values from which a sum is split in two (`pairwise_sum` of its loops_utils.h).
_LANES, _LEAF = 8, 128


def largest(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Return the largest element along axes, which are kept; for integers."""
    if xp.name == "torch":
        return x.amax(dim=axes, keepdim=True)
    return x.max(axis=axes, keepdims=True)


def transposed(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Return `x` with its axes in that order."""
    return x.permute(axes) if xp.name == "torch" else x.transpose(axes)


def padded(xp: Any, x: Any, after: tuple[int, ...]) -> Any:
    """Return `x` with so many zeros after the end of each axis."""
    if not any(after):
        return x
    if xp.name == "torch":
        from torch.nn.functional import pad

        return pad(x, [n for a in reversed(after) for n in (0, a)])
    widths = [(0, n) for n in after]
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.pad(x, widths)
    return np.pad(x, widths)


def joined(xp: Any, parts: list[Any], axis: int) -> Any:
    """Return arrays one after the other along an axis."""
    if xp.name == "torch":
        import torch

        return torch.cat(parts, dim=axis)
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.concatenate(parts, axis)
    return np.concatenate(parts, axis)


def spread(xp: Any, x: Any, shape: tuple[int, ...]) -> Any:
    """Return `x` broadcast to a shape."""
    if xp.name == "torch":
        return x.expand(shape)
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.broadcast_to(x, shape)
    return np.broadcast_to(x, shape)


def square_root(xp: Any, x: Any) -> Any:
    """Return square roots of numbers that are not negative."""
    if xp.name == "torch":
        return x.sqrt()
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.sqrt(x)
    return np.sqrt(x)


@dataclass(frozen=True)
class Cut:
    """The blocks of an array as axes, see above."""

    layout: Layout

    @cached_property
    def blocked(self) -> dict[int, tuple[int, int]]:
        """The blocked axes: how many blocks, and elements in a block."""
        counts = zip(self.layout.counts, self.layout.sizes, strict=True)
        return dict(zip(self.layout.axes, counts, strict=True))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of a cut array."""
        return tuple(n for a, length in enumerate(self.layout.shape) for n in self.blocked.get(a, (length,)))

    @cached_property
    def inner(self) -> tuple[int, ...]:
        """Axes of a cut array that run inside blocks."""
        return tuple(a + 1 + sum(b < a for b in self.layout.axes) for a in sorted(self.layout.axes))

    @cached_property
    def block_shape(self) -> tuple[int, ...]:
        """Shape of one number per block."""
        return tuple(1 if a in self.inner else n for a, n in enumerate(self.shape))

    def split(self, xp: Any, x: Any) -> Any:
        """Return the array cut, last blocks filled up with zeros."""
        after = tuple(math.prod(self.blocked.get(a, (n,))) - n for a, n in enumerate(self.layout.shape))
        return padded(xp, x, after).reshape(self.shape)

    def join(self, x: Any) -> Any:
        """Return the array of a cut one; what filled up last blocks is dropped."""
        whole = [math.prod(self.blocked.get(a, (n,))) for a, n in enumerate(self.layout.shape)]
        return x.reshape(whole)[tuple(slice(0, n) for n in self.layout.shape)]

    def per_block(self, scales: Any) -> Any:
        """Return an array of the shape of the scales, one number per block."""
        return scales.reshape(self.block_shape)

    def as_scales(self, per_block: Any) -> Any:
        """Return one number per block in the shape of the scales."""
        return per_block.reshape(self.layout.scale_shape)

    def counts(self) -> NDArray[np.float64]:
        """Return how many elements each block has, as an array that broadcasts to one number per block."""
        result = np.ones((1,) * len(self.shape))
        for axis, inner in zip(sorted(self.layout.axes), self.inner, strict=True):
            count, size = self.blocked[axis]
            elements = np.minimum(self.layout.shape[axis] - size * np.arange(count), size)
            result = result * elements.reshape([-1 if a == inner - 1 else 1 for a in range(len(self.shape))])
        return np.asarray(np.broadcast_to(result, self.block_shape)).copy()

    def sum(self, xp: Any, x: Any) -> Any:
        """Return the sum of each block of a cut float64 array, added up in the order that NumPy sums in."""
        outer = tuple(a for a in range(len(self.shape)) if a not in self.inner)
        flat = transposed(xp, x, outer + self.inner).reshape(
            (*(self.shape[a] for a in outer), math.prod(self.layout.sizes))
        )
        return numpy_sum(xp, flat).reshape(self.block_shape)


def numpy_sum(xp: Any, x: Any) -> Any:
    """Return the sum over the last axis in NumPy's order: halves of halves, then eight lanes, then what is left."""
    size = x.shape[-1]
    if size < _LANES:
        return _in_order([x[..., i] for i in range(size)])
    places = _leaves(0, size)
    depth = max(len(path) for path, _, _ in places)
    tail = size % _LANES
    order = np.full((1 << depth, _LEAF), size, np.int64)
    for path, start, count in places:
        order[int((path + "0" * depth)[:depth] or "0", 2), :count] = np.arange(start, start + count)
    ahead = padded(xp, x[..., : size - tail], (0,) * (x.ndim - 1) + (tail + 1,))
    if not np.array_equal(order.reshape(-1), np.arange(order.size)):
        ahead = _gathered(xp, ahead, order.reshape(-1))
    else:
        ahead = ahead[..., : order.size]
    rows = ahead.reshape((*x.shape[:-1], 1 << depth, _LEAF // _LANES, _LANES))
    used = -(-min(size, _LEAF) // _LANES)
    lanes = _in_order([rows[..., i, :] for i in range(used)])
    for half in (4, 2, 1):
        lanes = lanes.reshape((*lanes.shape[:-1], half, 2))
        lanes = lanes[..., 0] + lanes[..., 1]
    leaves = lanes[..., 0]
    last = int((places[-1][0] + "0" * depth)[:depth] or "0", 2)
    if tail:  # the last leaf adds what is left before it meets the others
        ends = [leaves[..., last : last + 1]] + [x[..., size - tail + i, None] for i in range(tail)]
        leaves = joined(xp, [leaves[..., :last], _in_order(ends), leaves[..., last + 1 :]], -1)
    while leaves.shape[-1] > 1:
        leaves = leaves[..., 0::2] + leaves[..., 1::2]
    return leaves[..., 0]


def _in_order(terms: list[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _leaves(start: int, size: int, path: str = "") -> list[tuple[str, int, int]]:
    """Return the runs that NumPy sums by lanes: which halves lead there, where it starts, how long it is."""
    if size <= _LEAF:
        return [(path, start, size - size % _LANES)]
    half = size // 2
    half -= half % _LANES
    return _leaves(start, half, path + "0") + _leaves(start + half, size - half, path + "1")


def _gathered(xp: Any, x: Any, order: NDArray[np.int64]) -> Any:
    index = xp.constant(order, x)
    if xp.name == "torch":
        return x.index_select(-1, index)
    return x[..., index]
