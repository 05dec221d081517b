"""The scales of blocks on a grid: by kernels for the recipes that formats use most, else by `recipes.choose_scales`.

Everything here gives the bits of the general path, or None where it does not serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import ADAPTIVE_RECIPES, E8M0, FLOAT32, Block
from lowp.formats.float_format import Float
from lowp.formats.tables import decode_codes
from lowp.rounding._grids import Grid
from lowp.rounding._layout import Layout
from lowp.rounding._threads import split
from lowp.rounding.modes import Rounding, rounding
from lowp.rounding.recipes import FLOAT32_DECODING, choose_scales, element_precision, exponent_of
from lowp.rounding.request import Request

_NEAREST = rounding("ties_to_even")
_NO_ROUND_UP = 1 << 30
#: A single tile is searched for its largest magnitude in pieces of this many numbers.
_PIECE = 1 << 16
#: The exact recipes, and those of systems whose elements are a float32 product and whose values are
#: `element * scale * tensor_scale`, which `choose_scales` decides where no kernel does.
_GENERAL = ("floor", "ceil", "even", "rceil", "round", "absmean", "quest", "mse", "nvfp4_torchao")


class Factors(NamedTuple):
    """One number per tile before rounding and one after.

    Attributes:
        steps: What makes the number to round of an element, as `kind` says.
        units: What multiplies the rounded number.
        kind: See `_tile_kernels.PRODUCT` and its neighbours.
        spill: Numbers of this magnitude and more become -0; NaN: none.
        tensor: The tensor's scale where "nvfp4_te" makes one.
    """

    steps: NDArray[np.float64]
    units: NDArray[np.float64]
    kind: int
    spill: float = np.nan
    tensor: float | None = None


#: As `_lane_kernels` numbers types.
KIND_OF_DTYPE = {"float32": 0, "float16": 1, "bfloat16": 2}


class Numbers(NamedTuple):
    """An array on three axes: of float32, or of the bits of 16-bit floats."""

    values: NDArray[Any]
    kind: int = 0


def mode_numbers(mode: Rounding) -> NDArray[np.int64]:
    """Return a mode as `_stochastic_kernels.round_chunk` takes it: kind, random bits, truth table."""
    if mode.variant == 0:
        return np.array([0 if mode.name == "ties_to_even" else 5, 0, mode.table])
    return np.array([mode.variant, 1 if mode.variant == 4 else mode.random_bits, 0])


def element_numbers(fmt: Block, spill: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    from lowp.rounding._scaled_kernels import element_plan

    integers, floats = element_plan(fmt)
    return integers, np.append(floats, spill)


def magnitudes(x: Numbers, grid: Grid, table: tuple[int, int]) -> NDArray[np.int32]:
    """Return the bits of each tile's largest magnitude."""
    from lowp.rounding._lane_tile_kernels import magnitudes_of_tiles

    pieces = grid
    if table == (1, 1) and grid.rows == 1 and grid.columns > _PIECE:
        pieces = grid._replace(c=_PIECE)
    largest = np.empty(table if pieces is grid else pieces.table, np.int32)
    fixed = (x.values, x.kind, largest, pieces.r, pieces.c)
    pieces.split(lambda *bounds: magnitudes_of_tiles(*fixed, *bounds))
    return largest if pieces is grid else largest.max(keepdims=True).reshape(1, 1)


def scale_rule(fmt: Block) -> tuple[int, int] | None:
    """Return (mantissa from which the exponent goes up by one, bits added before), or None if there is no such rule."""
    if fmt.recipe in ("floor", "three_quarters"):
        return _NO_ROUND_UP, 0
    if fmt.recipe == "ceil":
        return 1, 0
    if fmt.recipe == "even":
        return _NO_ROUND_UP, 1 << (22 - element_precision(fmt.element))
    if fmt.recipe == "rceil":  # amax > max * 2^k exactly when its mantissa exceeds that of max
        fraction = np.float32(fmt.element.max).view(np.int32) & 0x7FFFFF
        return int(fraction) + 1, 0
    return None


class ScaleRule(NamedTuple):
    """How a format makes scales of largest magnitudes.

    Attributes:
        name: "power_of_two", "quotient" (a float32 number), or the name of the family of recipes.
        numbers: What the kernel of that name needs.
        quotient: The kind of quotient that elements are, see `_tile_kernels.PRODUCT` and its neighbours.
        any_number: Whether NaN and infinity may be among the numbers.
    """

    name: str
    numbers: tuple[Any, ...]
    quotient: int
    any_number: bool


def rule_of(fmt: Block, mode: Rounding) -> ScaleRule | None:
    """Return the rule of a format, None where tiles do not serve it."""
    fouroversix = fmt.recipe.startswith("fouroversix") and fmt.scale != E8M0
    if not fouroversix and fmt.recipe not in (*_GENERAL, "nvfp4_te", "three_quarters"):
        return None
    quotient = 3 if mode.variant else 2
    marked = fmt.nonfinite == "nan_block"
    if _power_of_two(fmt):
        ends = (0.75, float(np.float32(4 / 3))) if fmt.recipe == "three_quarters" else (1.0, 1.0)
        numbers = (exponent_of(fmt.element.max), *(scale_rule(fmt) or ()), np.array(ends))
        return ScaleRule("power_of_two", numbers, quotient, marked)
    if _float32_quotient(fmt):
        return ScaleRule("quotient", (np.float32(fmt.element.scale_target),), quotient, marked)
    if _rounded_quotient(fmt):
        from lowp.rounding._scaled_kernels import addition_plan

        return ScaleRule("rounded", (float(fmt.element.scale_target), *addition_plan(fmt.scale)), quotient, marked)
    quest = fmt.recipe == "quest" and fmt.scale == E8M0
    name = "fouroversix" if fouroversix else fmt.recipe if quest or fmt.recipe == "nvfp4_te" else "general"
    return ScaleRule(name, (), quotient, False)


def nvfp4_plan(fmt: Block) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]] | None:
    """Return what `_tile_kernels.nvfp4_scales` needs: what elements and scales reach, the largest element, a plan."""
    from lowp.rounding._fast_kernels import applies, fast_plan

    if not applies(fmt.scale, _NEAREST):
        return None
    assert isinstance(fmt.scale, Float)
    plan, largest = fast_plan(fmt.scale, _NEAREST, "saturate"), np.float32(fmt.element.max)
    numbers = np.array([np.float32(fmt.scale.max) * largest, largest], np.float64)
    return numbers, plan.integers.astype(np.int64), plan.floats.astype(np.float64)


def factors_of(
    x: NDArray[Any],
    seen: Numbers,
    layout: Layout,
    grid: Grid,
    table: tuple[int, int],
    rule: ScaleRule,
    fmt: Block,
    request: Request,
) -> Factors | None:
    """Return the factors of all tiles, None where a number is not served."""
    largest = magnitudes(seen, grid, table)
    if not rule.any_number and not largest.max() < 0x7F800000:
        return None
    steps, units = np.empty(table), np.empty(table)
    if rule.name == "power_of_two":
        from lowp.rounding._tile_kernels import power_of_two_scales

        power_of_two_scales(largest.reshape(-1), steps.reshape(-1), units.reshape(-1), *rule.numbers)
        return Factors(steps, units, 0)
    if rule.name == "quotient":
        from lowp.rounding._tile_kernels import float32_scales

        float32_scales(largest.reshape(-1), steps.reshape(-1), units.reshape(-1), *rule.numbers)
        return Factors(steps, units, rule.quotient)
    if rule.name == "rounded":
        from lowp.rounding._tile_kernels import rounded_scales

        inside = rounded_scales(largest.reshape(-1), steps.reshape(-1), units.reshape(-1), *rule.numbers)
        return Factors(steps, units, rule.quotient) if inside else None  # where a warning is due
    if rule.name == "fouroversix":
        return _fouroversix(seen.values, largest, grid, fmt, request)
    if rule.name == "quest":
        return _quest(seen.values, grid, fmt)
    if rule.name == "nvfp4_te":
        return _nvfp4(largest, steps, units, fmt)
    return _by_recipe(x, layout, largest, fmt, rule.quotient)


def _power_of_two(fmt: Block) -> bool:
    """Whether the scale is a rule on the bits of the largest magnitude."""
    if fmt.scale != E8M0 or not 0 <= exponent_of(fmt.element.max) <= 20:
        return False
    return fmt.recipe == "three_quarters" or (scale_rule(fmt) is not None and fmt.tensor_scale is None)


def _float32_quotient(fmt: Block) -> bool:
    """Whether the scale is the largest magnitude divided by a float32 number of 1 or more, rounded to float32."""
    target = fmt.element.scale_target
    alone = fmt.scale == FLOAT32 and fmt.tensor_scale is None and fmt.recipe == "round"
    return alone and target >= 1 and float(np.float32(target)) == target


def _nvfp4(
    largest: NDArray[np.int32], steps: NDArray[np.float64], units: NDArray[np.float64], fmt: Block
) -> Factors | None:
    from lowp.rounding._tile_kernels import nvfp4_scales

    plan = nvfp4_plan(fmt)
    if plan is None:
        return None
    numbers, *how = plan
    most = 0 if fmt.tensor_scale is None else int(largest.max())
    flat = largest.reshape(-1), steps.reshape(-1), units.reshape(-1)
    split(largest.size, lambda a, b: nvfp4_scales(flat[0][a:b], flat[1][a:b], flat[2][a:b], most, *numbers, *how))
    return Factors(steps, units, 1, tensor=tensor_scale(most, fmt, ScaleRule("nvfp4_te", (), 1, False)))


def tensor_scale(most: int, fmt: Block, rule: ScaleRule) -> float | None:
    """Return the tensor's scale, given the bits of its largest magnitude; None where lanes know of none."""
    if rule.name != "nvfp4_te" or fmt.tensor_scale is None:
        return None
    from lowp.rounding._fp4_recipes import te_encode_scale

    span = np.float32(fmt.scale.max) * np.float32(fmt.element.max)
    with np.errstate(all="ignore"):
        return float(np.float32(1) / te_encode_scale(np.array([most], np.int32).view(np.float32), span))


def _rounded_quotient(fmt: Block) -> bool:
    """Whether the scale is the largest magnitude divided by a float32 number, rounded to any float of few bits."""
    target, scale = fmt.element.scale_target, fmt.scale
    if not isinstance(scale, Float) or fmt.tensor_scale is not None or fmt.recipe != "round":
        return False
    plain = scale.subnormals and scale.has_zero and 1 <= scale.mantissa_bits <= 22 and abs(scale.emin) < 200
    return plain and target > 0 and float(np.float32(target)) == target


@np.errstate(all="ignore")
def _fouroversix(
    x3: NDArray[Any], largest: NDArray[np.int32], grid: Grid, fmt: Block, request: Request
) -> Factors | None:
    """The scales of `_fouroversix_recipes`: those of one span, or the better of two."""
    from lowp.rounding._fast_kernels import applies, fast_plan
    from lowp.rounding._fouroversix_recipes import _E2M1, _FOUR, _tensor_amax, _tensor_scale, error_rule, span_of
    from lowp.rounding._tile_kernels import fouroversix_scales
    from lowp.rounding._tile_sum_kernels import block_errors

    adaptive = fmt.recipe in ADAPTIVE_RECIPES
    if not applies(fmt.scale, _NEAREST) or (adaptive and request.mode.variant):
        return None
    span = span_of(fmt)
    amax = _tensor_amax(largest.view(np.float32), span, fmt)
    plan = fast_plan(fmt.scale, _NEAREST, "saturate")
    spill = 7.0 if fmt.element == _E2M1 and request.mode.name == "ties_to_even" else np.nan

    def scales(expansion: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        steps, values = np.empty(largest.shape), np.empty(largest.shape)
        fouroversix_scales(
            largest.reshape(-1), steps.reshape(-1), values.reshape(-1), amax, span.whole,
            np.float32(span.element * span.adjustment), np.float32(expansion), plan.integers, plan.floats,
        )  # fmt: skip
        return steps, values

    steps, values = scales(1.0)
    if adaptive:
        integers, floats = element_numbers(fmt, spill)
        rule = ("mse", "mae", "abs_max").index(error_rule(fmt))

        def errors(steps: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
            result, mode = np.empty(largest.shape), mode_numbers(request.mode)
            grid.split(
                lambda *bounds: block_errors(
                    x3, result, steps, values, grid.r, grid.c, integers, floats, mode, amax, span.whole, rule, *bounds
                )
            )
            return result

        larger = scales(_FOUR)
        better = errors(*larger) < errors(steps, values)
        steps, values = np.where(better, larger[0], steps), np.where(better, larger[1], values)
    tensor = _tensor_scale(amax, span, fmt)
    return Factors(steps, values * (1.0 if tensor is None else tensor), 4, spill)


@np.errstate(all="ignore")
def _quest(x3: NDArray[Any], grid: Grid, fmt: Block) -> Factors:
    """Powers of two by the standard deviations of blocks, as `_mxfp4_recipes.quest`."""
    from lowp.rounding._mxfp4_recipes import quest_codes
    from lowp.rounding._tile_sum_kernels import tile_moments

    sums, squares = np.empty(grid.table), np.empty(grid.table)
    grid.split(lambda *bounds: tile_moments(x3, sums, squares, grid.r, grid.c, *bounds))
    values = decode_codes(quest_codes(sums, squares, grid.counts(), fmt), fmt.scale)
    return Factors(1 / values, values, 0)


@dataclass(frozen=True)
class _Searched(Layout):
    """A layout that knows the largest magnitudes of one array."""

    largest: NDArray[np.float32]

    def amax(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the largest magnitude of each block of the array."""
        return self.largest


@np.errstate(all="ignore")
def _by_recipe(
    x: NDArray[Any], layout: Layout, largest: NDArray[np.int32], fmt: Block, quotient: int
) -> Factors | None:
    found = largest.view(np.float32).reshape(layout.scale_shape)
    searched = _Searched(layout.shape, layout.axes, layout.sizes, found)
    scales = choose_scales(x, searched, fmt)
    if scales.zero_points is not None or scales.element_rounding is not None:
        return None
    tensor = 1.0 if scales.tensor_scale is None else scales.tensor_scale
    units = scales.values * tensor
    steps = units if scales.multiplier is None else scales.multiplier.astype(np.float64)
    if not (np.isfinite(steps).all() and np.isfinite(units).all()):
        return None
    if fmt.recipe in FLOAT32_DECODING:
        units = (scales.values.astype(np.float32) * np.float32(tensor)).astype(np.float64)
    return Factors(steps, units, quotient if scales.multiplier is None else 1)
