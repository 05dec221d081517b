"""What the kernels of float32 lanes need to know of a format and mode, and the codes of the scales they make."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.rounding._grids import Grid
from lowp.rounding._scalar import encode_values
from lowp.rounding._tile_recipes import Numbers, ScaleRule, magnitudes, nvfp4_plan
from lowp.rounding.modes import Rounding
from lowp.rounding.recipes import scale_request

#: The kind of scaling for each rule that lanes follow.
_LANE_KINDS = {"power_of_two": 0, "nvfp4_te": 1, "quotient": 2, "rounded": 2}
#: How scales that are in a format become its codes.
_EXACT = scale_request("ties_to_even")


def lanes_of(fmt: Block, mode: Rounding, rule: ScaleRule, grid: Grid) -> Any:
    """Return the `_lane_choice_kernels.Lanes` of a format, None where float32 lanes do not serve.

    Products with units are to be exact in float32, and numbers to round are to differ from none of their quanta by
    less than they may stand for: with multiples of 2^-22 they are.
    """
    from lowp.rounding import _fast_directed_kernels as directed
    from lowp.rounding import _lane_choice_kernels as choice
    from lowp.rounding import _lane_tile_kernels as kernels
    from lowp.rounding._fast_kernels import can_be_added, fast_plan
    from lowp.rounding._scaled_kernels import significant_bits

    element, kind = fmt.element, _LANE_KINDS.get(rule.name)
    if kind is None or fmt.recipe == "three_quarters" or (kind == 2 and mode.variant > 1):
        return None
    if not isinstance(element, Float | Integer | Fixed) or not element.signed or not can_be_added(element):
        return None
    quantum = element.emin - element.mantissa_bits if isinstance(element, Float) else -element.fraction_bits
    if quantum < -22 or significant_bits(element) > 16 or abs(element.max) > 2.0**40:
        return None
    if kind == 2 and (fmt.tensor_scale is not None or significant_bits(fmt.scale) > 24):
        return None
    plan = fast_plan(element, mode, "saturate")
    how: Any
    if mode.variant:
        how = choice.Random(plan.integers, plan.floats, mode.variant, mode.random_bits)
    elif mode.name == "ties_to_even":
        how = choice.Nearest(plan.integers, plan.floats)
    else:
        how = choice.Corrected(plan.integers, plan.floats, directed.correcting(mode))
    scaling = (choice.Power, choice.Product, choice.Quotient)[kind]()
    ruled = _lane_scales(fmt, rule) if grid.c <= kernels.PIECE else None
    return choice.Lanes(scaling, how, ruled or choice.Given())


def _lane_scales(fmt: Block, rule: ScaleRule) -> Any:
    """Return the rule of scales as `_lane_choice_kernels` takes it, None: they are to be given."""
    from lowp.rounding import _lane_choice_kernels as choice

    if rule.name == "power_of_two":
        return choice.Powers(True, *rule.numbers[:3])
    if rule.name == "nvfp4_te":
        plan = nvfp4_plan(fmt)
        return None if plan is None else choice.Nvfp4(True, float(plan[0][0]), float(plan[0][1]), plan[1], plan[2])
    if rule.name == "quotient":
        return choice.Float32Scales(True, float(rule.numbers[0]))
    return choice.Rounded(True, *rule.numbers)


def needs_most(fmt: Block, rule: ScaleRule) -> bool:
    """Whether the largest magnitude of all is to be known before any tile is quantized."""
    if not rule.any_number or rule.name == "nvfp4_te":
        return True
    return rule.name == "rounded" and fmt.scale.max * fmt.element.scale_target < float(np.finfo(np.float32).max)


def most_of(seen: Numbers, fmt: Block, rule: ScaleRule) -> int | None:
    """Return the bits of the largest magnitude, 0 where no kernel asks for it; None: it is not served."""
    count = seen.values.size
    whole = Numbers(seen.values.reshape(1, 1, count), seen.kind)
    most = int(magnitudes(whole, Grid(1, 1, count, 1, count), (1, 1))[0, 0])
    if most >= 0x7F800000:
        return most if rule.name == "rounded" and rule.any_number else None
    if rule.name == "rounded" and float(np.int32(most).view(np.float32)) / rule.numbers[0] > fmt.scale.max:
        return None  # a warning is due
    return most if rule.name != "nvfp4_te" or fmt.tensor_scale is not None else 0


def codes_of_scales(scales: NDArray[np.float32], rule: ScaleRule, fmt: Block) -> NDArray[Any] | None:
    """Return the codes of scales that lanes use; None where the general path may warn."""
    if rule.name == "power_of_two":
        codes = (scales.view(np.uint32) >> np.uint32(23)).astype(np.uint8)  # 2^-127 is subnormal, NaN has 255
        return None if (codes == 254).any() else codes
    bad = np.isnan(scales)
    some = bool(bad.any())
    codes = encode_values(np.where(bad, np.float32(0), scales) if some else scales, fmt.scale, _EXACT)
    if some:
        assert isinstance(fmt.scale, Float)
        assert fmt.scale.nan_code is not None
        codes = np.where(bad, codes.dtype.type(fmt.scale.nan_code), codes)
    return codes
