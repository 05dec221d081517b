"""Symmetric blocks of float32 in one or two passes over memory, along any axis, in any rounding mode; saturating."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding._grids import Grid, grid_of
from lowp.rounding._layout import Layout, make_layout
from lowp.rounding._narrow import narrow_numbers
from lowp.rounding._tile_recipes import OnePass, ScaleRule, element_numbers, factors_of, mode_numbers, one_pass, rule_of
from lowp.rounding.modes import Rounding
from lowp.rounding.request import Request


class _Prepared(NamedTuple):
    """What does not depend on the numbers: `one_pass` is None where it takes two, `element` may change its spill."""

    layout: Layout
    grid: Grid
    table: tuple[int, int]
    rule: ScaleRule
    one_pass: OnePass | None
    mode: NDArray[np.int64]
    element: tuple[NDArray[np.int64], NDArray[np.float64]]


def serves(element: ScalarFormat, fmt: Block, overflow: str) -> bool:
    """Whether elements are rounded here: arithmetic formats of few bits that saturate."""
    if overflow != "saturate" or fmt.zero_point or not isinstance(element, Float | Integer | Fixed):
        return False
    if isinstance(element, Float) and not (
        element.subnormals and element.has_zero and element.mantissa_bits >= 1 and abs(element.emin) < 200
    ):
        return False
    if not isinstance(fmt.scale, Float):
        return False
    from lowp.rounding._scaled_kernels import significant_bits

    tensor = significant_bits(fmt.tensor_scale) if fmt.tensor_scale else 0
    bits, scale = significant_bits(element), significant_bits(fmt.scale)
    return bits <= 16 and scale + tensor <= 28 and bits + 1 + scale + tensor <= 53


@lru_cache(maxsize=2048)
def _prepared(
    fmt: Block, mode: Rounding, overflow: str, shape: tuple[int, ...], axis: Any, by_rows: bool
) -> _Prepared | None:
    rule = rule_of(fmt, mode) if serves(fmt.element, fmt, overflow) else None
    if rule is None:
        return None
    layout = make_layout(shape, fmt, axis)
    grid = grid_of(layout, by_rows)
    if grid is None:
        return None
    element = element_numbers(fmt, np.nan)
    return _Prepared(layout, grid, grid.table, rule, one_pass(fmt, mode, grid), mode_numbers(mode), element)


def quantize_tiled(
    x: NDArray[Any],
    out: NDArray[Any] | None,
    fmt: Block,
    request: Request,
    axis: Any,
    start: int,
    pitch: int | None,
    dtype: str = "float32",
) -> NDArray[Any] | None:
    """Return the quantized array in float32, written to `out` if given, or None where this path does not serve.

    `dtype` names the dtype to whose values products are rounded.
    """
    axes = axis if type(axis) is tuple else (axis,)
    plain = all(type(a) is int for a in axes)  # as keys, 1 and True are one
    prepare = _prepared if plain else _prepared.__wrapped__
    it = prepare(fmt, request.mode, request.overflow, x.shape, axis, pitch is not None)
    if it is None:
        return None
    grid, narrow = it.grid, narrow_numbers(fmt, dtype)
    x3 = grid.seen(x)
    result = np.empty(x.shape, np.float32) if out is None else out
    sink = grid.seen(result)
    if it.one_pass is not None:
        from lowp.rounding._power_kernels import quantize_power_of_two_tiles as work

        fixed = (x3, sink, grid.r, grid.c, *it.one_pass, narrow)
        grid.split(lambda *bounds: work(*fixed, *bounds))
        return result
    factors = factors_of(x, x3, it.layout, grid, it.table, it.rule, fmt, request)
    if factors is None:
        return None
    from lowp.rounding._tile_kernels import quantize_tiles

    integers, floats = it.element if np.isnan(factors.spill) else element_numbers(fmt, factors.spill)
    steps, units = factors.steps.reshape(it.table), factors.units.reshape(it.table)
    fixed = (x3, sink, steps, units, grid.r, grid.c, factors.kind, integers, floats, it.mode, narrow)  # type: ignore[assignment]
    places = np.array([start, pitch or grid.columns])
    grid.split(lambda *bounds: quantize_tiles(*fixed, *bounds, places, request.key0, request.key1), whole_tiles=False)
    return result
