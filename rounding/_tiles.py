"""Symmetric blocks of float32 in one or two passes over memory, along any axis, in any rounding mode; saturating."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding._arrays import unlocked
from lowp.rounding._float32_runs import _code_plan as code_plan
from lowp.rounding._grids import Grid, grid_of
from lowp.rounding._lane_plans import codes_of_scales, lanes_of, most_of, needs_most
from lowp.rounding._layout import Layout, make_layout
from lowp.rounding._narrow import narrow_numbers
from lowp.rounding._tile_recipes import (
    KIND_OF_DTYPE,
    Factors,
    Numbers,
    ScaleRule,
    element_numbers,
    factors_of,
    mode_numbers,
    rule_of,
    tensor_scale,
)
from lowp.rounding.modes import Rounding, rounding
from lowp.rounding.request import Request

_NO_FACTORS = np.zeros((1, 2, 1))
#: Numbers of an array that is not worth threads.
_SMALL = 1 << 16


class Prepared(NamedTuple):
    """What does not depend on the numbers.

    `lanes` is None where float32 lanes do not serve, `kernels` is the module of them; `element` may change its spill.
    """

    layout: Layout
    grid: Grid
    table: tuple[int, int]
    rule: ScaleRule
    lanes: Any
    kernels: Any
    needs_most: bool
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
) -> Prepared | None:
    rule = rule_of(fmt, mode) if serves(fmt.element, fmt, overflow) else None
    if rule is None:
        return None
    layout = make_layout(shape, fmt, axis)
    grid = grid_of(layout, by_rows)
    if grid is None:
        return None
    lanes, element = lanes_of(fmt, mode, rule, grid), element_numbers(fmt, np.nan)
    from lowp.rounding import _lane_tile_kernels as kernels

    most = needs_most(fmt, rule)
    return Prepared(layout, grid, grid.table, rule, lanes, kernels, most, mode_numbers(mode), element)


def prepared(fmt: Block, request: Request, shape: tuple[int, ...], axis: Any, pitch: int | None) -> Prepared | None:
    """Return what does not depend on the numbers of an array, None where tiles do not serve."""
    axes = axis if type(axis) is tuple else (axis,)
    plain = all(type(a) is int for a in axes)  # as keys, 1 and True are one
    prepare = _prepared if plain else _prepared.__wrapped__
    return prepare(fmt, request.mode, request.overflow, shape, axis, pitch is not None)


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
    it = prepared(fmt, request, x.shape, axis, pitch)
    return None if it is None else quantize_prepared(it, x, out, fmt, request, start, pitch, dtype)


def quantize_prepared(
    it: Prepared,
    x: NDArray[Any],
    out: NDArray[Any] | None,
    fmt: Block,
    request: Request,
    start: int = 0,
    pitch: int | None = None,
    dtype: str = "float32",
) -> NDArray[Any] | None:
    """As `quantize_tiled`, with what `prepared` returns for the same arguments."""
    x = unlocked(x)
    grid, narrow = it.grid, narrow_numbers(fmt, dtype)
    lanes = it.lanes is not None and dtype == "float32"
    seen = Numbers(grid.seen(x))
    places = np.array([start, pitch or grid.columns])
    factors, most = None, None
    if lanes and it.lanes.rule.ruled:
        most = most_of(seen, fmt, it.rule) if it.needs_most else 0
    else:
        factors = factors_of(x, seen, it.layout, grid, it.table, it.rule, fmt, request)
    if factors is None and most is None:
        return None
    result = np.empty(x.shape, np.float32) if out is None else out
    sink = grid.seen(result)
    if lanes:
        _in_lanes(seen, Numbers(sink), it, factors, most or 0, narrow, places, request)
        return result
    from lowp.rounding._tile_kernels import quantize_tiles

    assert factors is not None
    integers, floats = it.element if np.isnan(factors.spill) else element_numbers(fmt, factors.spill)
    steps, units = factors.steps.reshape(it.table), factors.units.reshape(it.table)
    fixed = (seen.values, sink, steps, units, grid.r, grid.c, factors.kind, integers, floats, it.mode, narrow)
    grid.split(lambda *bounds: quantize_tiles(*fixed, *bounds, places, request.key0, request.key1), whole_tiles=False)
    return result


def quantize_short_tiled(
    x: NDArray[np.uint16],
    out: NDArray[np.uint16] | None,
    fmt: Block,
    request: Request,
    axis: Any,
    dtype: str,
    start: int = 0,
    pitch: int | None = None,
) -> NDArray[np.uint16] | None:
    """Return the quantized array of float16 or bfloat16 bits, as `quantize_tiled`."""
    it = prepared(fmt, request, x.shape, axis, pitch)
    return None if it is None else quantize_short_prepared(it, x, out, fmt, request, dtype, start, pitch)


def quantize_short_prepared(
    it: Prepared,
    x: NDArray[np.uint16],
    out: NDArray[np.uint16] | None,
    fmt: Block,
    request: Request,
    dtype: str,
    start: int = 0,
    pitch: int | None = None,
) -> NDArray[np.uint16] | None:
    """As `quantize_short_tiled`, with what `prepared` returns for the same arguments."""
    if it.lanes is None:
        return None
    x = unlocked(x)
    seen = Numbers(it.grid.seen(x), KIND_OF_DTYPE[dtype])
    factors, most = None, None
    if it.lanes.rule.ruled:
        most = most_of(seen, fmt, it.rule) if it.needs_most else 0
    else:
        factors = factors_of(x, seen, it.layout, it.grid, it.table, it.rule, fmt, request)
    if factors is None and most is None:
        return None
    result = np.empty(x.shape, np.uint16) if out is None else out
    places = np.array([start, pitch or it.grid.columns])
    sink = Numbers(it.grid.seen(result), seen.kind)
    _in_lanes(seen, sink, it, factors, most or 0, narrow_numbers(fmt, dtype), places, request)
    return result


def small_run(it: Prepared, fmt: Block, request: Request) -> Callable[[Any, Any], Any] | None:
    """Return what quantizes small contiguous float32 arrays of one shape, by scales that a rule makes of each block.

    What is returned may return None in turn, where that depends on the numbers.
    """
    grid = it.grid
    if it.lanes is None or not it.lanes.rule.ruled or grid.outer * grid.rows * grid.columns > _SMALL:
        return None
    work, shape = it.kernels.quantize_lanes, (grid.outer, grid.rows, grid.columns)
    wide = it.kernels.Wide(_wide_kind(it), *it.element, it.mode, narrow_numbers(fmt, "float32"))
    fixed = _NO_FACTORS, 0, grid.bands, 0, grid.columns, np.array([0, grid.columns]), request.key0, request.key1

    def run(x: Any, out: Any) -> Any:
        seen = unlocked(x.reshape(shape))
        most = most_of(Numbers(seen), fmt, it.rule) if it.needs_most else 0
        if most is None:
            return None
        work(seen, out.reshape(shape), 0, x is not out, grid.r, grid.c, it.lanes, wide, most, *fixed)
        return out

    return run


def _by_band(factors: Factors, table: tuple[int, int]) -> NDArray[np.float64]:
    """Return a row of steps and one of units for each band."""
    return np.stack((factors.steps.reshape(table), factors.units.reshape(table)), axis=1)


def _wide_kind(it: Prepared) -> int:
    """Return how float64 makes the numbers to round: a quotient as `rule.quotient` says, else the product."""
    kind: int = it.lanes.scaling.kind
    return it.rule.quotient if kind == 2 else kind


def _in_lanes(
    x: Numbers,
    out: Numbers,
    it: Prepared,
    factors: Factors | None,
    most: int,
    narrow: NDArray[np.int64],
    places: NDArray[np.int64],
    request: Request,
) -> None:
    """Quantize in float32 lanes, with the scales of a rule or those given."""
    grid, work = it.grid, it.kernels.quantize_lanes
    wide = it.kernels.Wide(_wide_kind(it), *it.element, it.mode, narrow)
    given = _NO_FACTORS if factors is None else _by_band(factors, it.table)
    apart = x.kind == 0 and not np.may_share_memory(x.values, out.values)
    arrays = (x.values, out.values, x.kind, apart)
    fixed = (*arrays, grid.r, grid.c, it.lanes, wide, most, given)
    grid.split(
        lambda *bounds: work(*fixed, *bounds, places, request.key0, request.key1),
        whole_tiles=grid.c <= it.kernels.PIECE,
    )


def encode_tiled(
    x: NDArray[Any], fmt: Block, request: Request, axis: Any
) -> tuple[NDArray[Any], NDArray[Any], float | None] | None:
    """Return the codes of float32 numbers, those of scales and the tensor's scale; None where lanes do not serve."""
    it = prepared(fmt, request, x.shape, axis, None)
    if it is None or it.lanes is None or x.dtype != np.float32 or not x.size:
        return None
    plan = code_plan(fmt.element, rounding("ties_to_even"), "saturate")
    if plan is None:
        return None
    grid, seen = it.grid, Numbers(it.grid.seen(unlocked(x)))
    factors, most = None, None
    if it.lanes.rule.ruled:
        most = most_of(seen, fmt, it.rule) if it.needs_most else 0
    else:
        factors = factors_of(x, seen, it.layout, grid, it.table, it.rule, fmt, request)
    if factors is None and most is None:
        return None
    work = it.kernels.encode_lanes
    tensor = tensor_scale(most or 0, fmt, it.rule) if factors is None else factors.tensor
    codes, scales = np.empty(x.shape, code_dtype(fmt.element.bits)), np.empty(it.table, np.float32)
    wide = it.kernels.Wide(_wide_kind(it), *it.element, it.mode, narrow_numbers(fmt, "float32"))
    given = _NO_FACTORS if factors is None else _by_band(factors, it.table)
    arrays = (seen.values, grid.seen(codes), scales)
    fixed = (*arrays, grid.r, grid.c, it.lanes, wide, most or 0, 1.0 if tensor is None else tensor, given, *plan)
    places = np.array([0, grid.columns])
    grid.split(
        lambda *bounds: work(*fixed, *bounds, places, request.key0, request.key1),
        whole_tiles=grid.c <= it.kernels.PIECE,
    )
    found = codes_of_scales(scales.reshape(-1), it.rule, fmt)
    return None if found is None else (codes, found.reshape(it.layout.scale_shape), tensor)
