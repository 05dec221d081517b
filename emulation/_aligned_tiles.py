"""Operands of aligned sums in the layout of the kernels: rows as they are, columns in tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._factors import Factors
from lowp.emulation._scratch import room

if TYPE_CHECKING:
    from lowp.emulation._aligned_sums import AlignedPlan

#: Columns of a tile; with 32 terms it stays in the first or second level of cache.
_WIDTH = {np.float32: 256, np.float64: 128, None: 128}
#: Of integers for exponents: that of zeros, and the largest magnitude of others, so that sums of two tell them apart.
_EXPONENTS: dict[Any, tuple[int, int]] = {np.int8: (-64, 21), np.int16: (-(1 << 13), 400)}


def tile_width(columns: int, dtype: Any) -> int:
    """Return how many columns a tile has; all tiles have as many, a multiple of the widest vectors if it is large."""
    count = max(-(-columns // _WIDTH[dtype]), 1)
    each = max(-(-columns // count), 1)
    step = 64 if each > 64 else 8
    return -(-each // step) * step


def lane_operands(left: Factors, right: Factors, plan: AlignedPlan, width: int, dtype: Any) -> tuple[Any, Any, Any]:
    """Return numbers and exponents of both operands for `aligned_columns`, and a plan that knows their integers."""
    furthest = max(left.furthest, right.furthest)
    kind: Any = np.int8 if dtype is np.float32 and furthest <= _EXPONENTS[np.int8][1] else np.int16
    absent, most = _EXPONENTS[kind]

    def tiled(x: Factors, side: str, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
        batch, rows, columns = x.values.shape
        shape = batch, max(-(-columns // width), 1), rows, width
        return room(f"{side} numbers", shape, dtype), room(f"{side} exponents", shape, kind)

    a, b = tiled(left, "left", left.values.shape[2]), tiled(right, "right", width)
    left.tile(absent, *a)
    right.tile(absent, *b)
    rows = left.values.shape[0] * left.values.shape[1], left.values.shape[2]
    return (
        tuple(x.reshape(rows) for x in a),
        b,
        plan._replace(absent_exponent=absent, least_product_exponent=-2 * most),
    )


def tiles(x: NDArray[Any], width: int, fill: Any = 0, dtype: Any = None) -> NDArray[Any]:
    """Return (batch, terms, columns) as (batch, tiles, terms, width)."""
    batch, terms, columns = x.shape
    count = max(-(-columns // width), 1)
    found = np.empty((batch, count, terms, width), dtype or x.dtype)
    full = columns // width
    found[:, :full] = x[:, :, : full * width].reshape(batch, terms, full, width).transpose(0, 2, 1, 3)
    if full < count:
        found[:, full, :, : columns - full * width] = x[:, :, full * width :]
        found[:, full, :, columns - full * width :] = fill
    return found
