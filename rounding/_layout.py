"""Where the blocks of an array lie: reduce to one number per block, spread one number per block over the elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.block import Block
from lowp.formats.spec import Format
from lowp.rounding._threads import split


@dataclass(frozen=True)
class Layout:
    """Blocks of an array: for each blocked axis its length and the elements per block.

    An axis that the block size does not divide ends in a shorter block; padding is never seen by a scale rule, except
    as zeros, which change no largest magnitude.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each blocked axis."""
        return tuple(-(-self.shape[a] // s) for a, s in zip(self.axes, self.sizes, strict=True))

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Shape of the array of scales: the array's, with the blocked axes counting blocks."""
        shape = list(self.shape)
        for axis, count in zip(self.axes, self.counts, strict=True):
            shape[axis] = count
        return tuple(shape)

    def blocks(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return `x` as `scale_shape + (elements per block,)`, padded with zeros."""
        missing = {a: n * s - self.shape[a] for a, n, s in zip(self.axes, self.counts, self.sizes, strict=True)}
        if any(missing.values()):
            x = np.pad(x, [(0, missing.get(a, 0)) for a in range(x.ndim)])
        split: list[int] = []
        inner: list[int] = []
        for a, length in enumerate(x.shape):
            if a in self.axes:
                size = self.sizes[self.axes.index(a)]
                split += [length // size, size]
                inner.append(len(split) - 1)
            else:
                split.append(length)
        outer = [i for i in range(len(split)) if i not in inner]
        return x.reshape(split).transpose(outer + inner).reshape(*self.scale_shape, int(np.prod(self.sizes)))

    def spread(self, per_block: NDArray[Any]) -> NDArray[Any]:
        """Return one number per element from one per block."""
        result = per_block
        for axis, size in zip(self.axes, self.sizes, strict=True):
            result = np.repeat(result, size, axis=axis)
        return result[tuple(slice(0, n) for n in self.shape)]

    @property
    def consecutive(self) -> int | None:
        """Elements per block where each block is one run of a C-contiguous array, else None."""
        size = int(np.prod(self.sizes))
        whole = len(self.axes) == len(self.shape)
        last = self.axes == (len(self.shape) - 1,) and self.shape[-1] % size == 0
        return size if (last or (whole and np.prod(self.counts) == 1)) and 0 not in self.shape else None

    def reduce(self, x: NDArray[Any], how: Callable[..., Any]) -> NDArray[Any]:
        """Return `how(block)` for each block, for example `np.max`; NaN propagates."""
        if how in (np.min, np.max) and x.dtype == np.float32 and x.flags.c_contiguous and self.consecutive:
            return self.extremes(x)[how is np.max]
        blocks = self.blocks(x)
        return np.asarray(how(blocks, axis=-1)) if blocks.size else np.zeros(self.scale_shape, x.dtype)

    def extremes(self, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the least and the greatest value of each block of a float32 array whose blocks are consecutive."""
        from lowp.rounding._scaled_kernels import block_extremes

        low, high = np.empty(self.scale_shape, np.float32), np.empty(self.scale_shape, np.float32)
        flat, flat_low, flat_high = x.reshape(-1), low.reshape(-1), high.reshape(-1)
        size = self.consecutive
        assert size is not None

        def part(a: int, b: int) -> None:
            block_extremes(flat[a:b], size, flat_low[a // size : -(-b // size)], flat_high[a // size : -(-b // size)])

        split(x.size, part, unit=size)
        return low, high

    def amax(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the largest magnitude of each block."""
        if x.dtype == np.float32 and x.flags.c_contiguous and self.consecutive:
            low, high = self.extremes(x)
            return np.asarray(np.abs(np.maximum(-low, high)))  # of two zeros, maximum may pick -0
        return self.reduce(np.abs(x), np.max)


def make_layout(shape: tuple[int, ...], fmt: Block, axis: int | tuple[int, int]) -> Layout:
    """Return where the blocks of `fmt` lie in an array.

    Raises:
        ArgumentError: The array has too few dimensions, or the axis does not exist or is named twice.
        ArgumentTypeError: `axis` is not an integer or a pair of integers.
    """
    ndim = len(shape)
    _need_axis(ndim, fmt)
    if fmt.size == "tensor":
        return Layout(shape, tuple(range(ndim)), tuple(max(n, 1) for n in shape))
    axes = checked_axes(axis, ndim, pair=isinstance(fmt.size, tuple), fmt=fmt)
    if fmt.size == "row":
        return Layout(shape, axes, (max(shape[axes[0]], 1),))
    sizes = fmt.size if isinstance(fmt.size, tuple) else (fmt.size,)
    return Layout(shape, axes, tuple(int(s) for s in sizes))


def _need_axis(ndim: int, fmt: Format) -> None:
    if ndim == 0:
        raise ArgumentError(
            f"x is a single number; the block format {fmt.name!r} needs an array of at least one dimension."
        )


def checked_axes(axis: Any, ndim: int, pair: bool, fmt: Format) -> tuple[int, ...]:
    """Return the axis, or pair of axes, that blocks run along, counted from the front; raises as `make_layout`."""
    _need_axis(ndim, fmt)
    if pair and isinstance(axis, int) and axis == -1:
        axis = (-2, -1)
    wanted = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    if any(isinstance(a, bool) or not hasattr(a, "__index__") for a in wanted):
        raise ArgumentTypeError(f"axis={axis!r} must be an integer, or a pair of integers for two-dimensional blocks.")
    if len(wanted) != (2 if pair else 1):
        raise ArgumentError(f"axis={axis!r}: {fmt.name!r} needs {'a pair of axes' if pair else 'one axis'}.")
    if any(not -ndim <= a < ndim for a in wanted):
        raise ArgumentError(
            f"axis={axis!r} does not exist in an array of {ndim} dimensions; allowed: {-ndim} to {ndim - 1}."
        )
    axes = tuple(int(a) % ndim for a in wanted)
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"axis={axis!r} names one axis twice.")
    return axes
