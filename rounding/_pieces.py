"""Pieces of larger arrays on NumPy: the positions of their numbers in the whole, and the whole's largest magnitude."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.spec import Format
from lowp.rounding._layout import make_layout
from lowp.rounding.shard import Shard

#: Recipes that look at the largest magnitudes of blocks and tensor alone.
_STANDARD = ("floor", "ceil", "even", "rceil", "round")
_BY_AMAX = (*_STANDARD, "nvfp4_te", "nvfp4_torchao", "nvfp4_modelopt", "mxfp4_modelopt", "three_quarters")


class Run(NamedTuple):
    """Numbers of a piece that lie one after the other in the whole array too: where in each they start, how many."""

    begin: int
    position: int
    size: int


def runs(piece: tuple[int, ...], shard: Shard) -> Iterator[Run]:
    """Yield the runs of a piece in C order."""
    size = math.prod(piece)
    if not size:
        return
    split = max((a for a, n in enumerate(piece) if n != shard.shape[a]), default=0)
    length = math.prod(piece[split:])
    strides = [math.prod(shard.shape[a + 1 :]) for a in range(len(piece))]
    first = sum(int(at) * stride for at, stride in zip(shard.offset, strides, strict=True))
    for number, index in enumerate(itertools.product(*(range(n) for n in piece[:split]))):
        there = sum(i * stride for i, stride in zip(index, strides, strict=False))
        yield Run(number * length, first + there, length)


def depends_on_whole(fmt: Format) -> bool:
    """Whether the values of a piece depend on numbers of the array outside the piece, if blocks lie within pieces."""
    if isinstance(fmt, Packed):
        return any(field.per == "tensor" for field in fmt.fields) or fmt.flat
    return isinstance(fmt, Block) and (fmt.size == "tensor" or _has_own_tensor_scale(fmt))


def _has_own_tensor_scale(fmt: Block) -> bool:
    return fmt.tensor_scale is not None and fmt.recipe != "three_quarters"


def check_amax_suffices(fmt: Format) -> None:
    """Raise ArgumentError where pieces need more of the whole array than its largest magnitude."""
    if not depends_on_whole(fmt):
        return
    by_amax = isinstance(fmt, Block) and (fmt.recipe in _BY_AMAX or fmt.recipe.startswith("fouroversix"))
    if not by_amax or (isinstance(fmt, Block) and fmt.zero_point):
        raise ArgumentError(
            f"{fmt.name!r} needs more of the whole array than its largest magnitude, so pieces cannot be rounded by "
            "themselves; gather the array first."
        )


def tensor_amax(x: NDArray[Any], fmt: Block, axis: Any) -> float:
    """Return the largest magnitude that the tensor-wide scale of `fmt` follows.

    NaN and infinity count as the recipe counts them: standard recipes leave out the blocks that hold one, nvfp4_te
    leaves out NaN, and nothing is left out elsewhere; nonfinite="element" leaves out both.
    """
    if not x.size:
        return 0.0
    if fmt.nonfinite == "element":
        x = np.where(np.isfinite(x), x, x.dtype.type(0))
    if fmt.recipe == "nvfp4_te":
        x = np.where(np.isnan(x), x.dtype.type(0), x)
    if fmt.size == "tensor" or fmt.recipe not in _STANDARD:
        return float(np.max(np.abs(x)))
    amax = make_layout(x.shape, fmt, axis).amax(np.ascontiguousarray(x))
    return float(np.max(amax, initial=0.0, where=np.isfinite(amax)))


def with_amax(x: NDArray[Any], fmt: Block, axis: Any, amax: float) -> tuple[NDArray[Any], Any, Any]:
    """Return an array that holds `x` and `amax`, the axis of its blocks, and the index of `x` in it.

    `amax` is in a block of its own, so that the tensor's scale follows it and nothing else does.
    """
    layout = make_layout(x.shape, fmt, axis)
    if fmt.size == "tensor" or 0 in layout.axes:
        moved = axis if fmt.size == "tensor" else tuple(a + 1 for a in layout.axes)
        axis, x, index = moved if isinstance(moved, int) or len(moved) > 1 else moved[0], x[None], (0,)
    else:
        index = (slice(0, x.shape[0]),)  # type: ignore[assignment]
    more = np.zeros((1, *x.shape[1:]), x.dtype)
    more.reshape(-1)[:1] = amax
    return np.concatenate([x, more]), axis, index
