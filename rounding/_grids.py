"""Where the blocks of an array lie, for kernels: every layout that is a grid of rectangles on three axes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.rounding._layout import Layout
from lowp.rounding._threads import SERIAL_BELOW, split, thread_count


class Grid(NamedTuple):
    """An array seen as `(outer, rows, columns)`, cut into tiles of `r` by `c`."""

    outer: int
    rows: int
    columns: int
    r: int
    c: int

    @property
    def bands(self) -> int:
        """Rows of tiles."""
        return self.outer * -(-self.rows // self.r)

    @property
    def table(self) -> tuple[int, int]:
        """Shape of an array of one number per tile."""
        return self.bands, -(-self.columns // self.c)

    def counts(self) -> NDArray[np.float64]:
        """Return the numbers in each tile."""
        rows = np.minimum(self.r, self.rows - np.arange(0, self.rows, self.r))
        columns = np.minimum(self.c, self.columns - np.arange(0, self.columns, self.c))
        return np.outer(np.tile(rows, self.outer), columns).astype(np.float64)

    def seen(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the view of an array."""
        return x.reshape(self.outer, self.rows, self.columns)

    def split(self, work: Any, whole_tiles: bool = True) -> None:
        """Call `work(first_band, last_band, first_column, last_column)` on all, on the machine's cores."""
        depth = self.outer * self.rows
        if depth * self.columns < SERIAL_BELOW:
            work(0, self.bands, 0, self.columns)
            return
        if self.bands >= 2 * thread_count():
            unit = self.r * self.columns
            split(self.bands * unit, lambda a, b: work(a // unit, b // unit, 0, self.columns), unit=unit)
            return
        unit = depth * (self.c if whole_tiles else 1)

        def columns(a: int, b: int) -> None:
            work(0, self.bands, a // depth, min(b // depth, self.columns))

        split(-(-self.columns * depth // unit) * unit, columns, unit=unit)


def grid_of(layout: Layout, by_rows: bool = False) -> Grid | None:
    """Return the grid of a layout, or None if its blocks are no rectangles of one; `by_rows`: a row per last axis."""
    shape, count = layout.shape, int(np.prod(layout.shape))
    blocked = sorted(zip(layout.axes, layout.sizes, strict=True))
    if len(blocked) == len(shape) and np.prod(layout.counts) == 1:
        return None if by_rows else Grid(1, 1, count, 1, count)
    axis, size = blocked[0]
    inner = int(np.prod(shape[axis + 1 :]))
    if len(blocked) == 2:
        if blocked[1][0] != axis + 1 or axis + 2 != len(shape):
            return None
        return Grid(count // (shape[axis] * inner), shape[axis], inner, size, blocked[1][1])
    if axis + 1 == len(shape):
        whole = shape[-1] % size == 0 and not by_rows
        return Grid(1, 1, count, 1, size) if whole else Grid(1, count // shape[-1], shape[-1], 1, size)
    if by_rows and axis + 2 != len(shape):
        return None
    return Grid(count // (shape[axis] * inner), shape[axis], inner, size, 1)
