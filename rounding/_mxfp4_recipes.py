"""Scale rules for MXFP4 that papers on training and quantization use; exact up to one rounding of each scale.

Sources: Tseng, Yu, Park, "Training LLMs with MXFP4", arXiv:2502.20586 ("three_quarters"); Panferov et al., "QuEST",
arXiv:2502.05003, and Castro et al., "Quartet", arXiv:2505.14669 ("quest").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.tables import decode_codes
from lowp.rounding import _exact_steps
from lowp.rounding._layout import Layout
from lowp.rounding._scalar import quantize_values
from lowp.rounding.recipes import Scales, divide_blocks, divided, rounded_scales, scale_codes, scale_request

#: The scale of E2M1 elements of least squared error on normal data of standard deviation 1.
#: Source: IST-DASLab/Quartet, `notebooks/mse_fitting.ipynb`.
GAUSSIAN_SCALE = 2.92247856 / 6
#: Keeps the logarithm of a zero block finite. Source: IST-DASLab/Quartet, `quantizers/mxfp4.py`.
_QUEST_FLOOR = 1e-8


def quest(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """QuEST and the forward pass of Quartet: a multiple of each block's standard deviation; large elements clip."""
    wide = x.astype(np.float64)
    count = layout.reduce(np.ones_like(wide), np.sum)
    codes = quest_codes(layout.reduce(wide, np.sum), layout.reduce(wide * wide, np.sum), count, fmt)
    return divided(codes, layout, fmt)


def quest_codes(
    sums: NDArray[np.float64], squares: NDArray[np.float64], count: NDArray[np.float64], fmt: Block
) -> NDArray[Any]:
    """Return the scale codes of blocks of `count` numbers, given their sums and those of their squares."""
    mean = sums / count
    variance = squares / count - mean * mean
    wanted = GAUSSIAN_SCALE * np.sqrt(np.maximum(variance, 0)) + _QUEST_FLOOR
    mode = "toward_negative" if getattr(fmt.scale, "mantissa_bits", 1) == 0 else "ties_to_even"
    return rounded_scales(wanted, fmt, mode)


def three_quarters(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """The floor scale on 3/4 of the numbers, whose largest is then at most 6; the tensor scale 4/3 undoes it."""
    codes = scale_codes(layout.amax(x).astype(np.float64), fmt.element.max, fmt.with_recipe("floor"))
    values = decode_codes(codes, fmt.scale)

    def scaled(v: NDArray[Any]) -> NDArray[np.float64]:
        quotient = divide_blocks(v, values, layout)
        return np.asarray(_exact_steps.multiply(quotient, np.full_like(quotient, 0.75)))

    return Scales(codes, values, scaled, tensor_scale=float(np.float32(4 / 3)))


def mse(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """The power of two of least squared error among three, elements rounded to nearest."""
    start = scale_codes(layout.amax(x).astype(np.float64), fmt.element.max, fmt.with_recipe("floor"))
    middle = decode_codes(start, fmt.scale)
    best, least = start, np.full(start.shape, np.inf)
    for factor in (0.5, 1.0, 2.0):
        codes = rounded_scales(middle * factor, fmt, "ties_to_even")
        values = decode_codes(codes, fmt.scale)
        scaled = np.ascontiguousarray(divide_blocks(x, values, layout))
        rounded = quantize_values(scaled, fmt.element, scale_request("ties_to_even")._replace(nan="keep"))
        difference = rounded * layout.spread(values) - x
        error = layout.reduce(difference * difference, np.sum)
        best, least = np.where(error < least, codes, best), np.minimum(error, least)
    return divided(best, layout, fmt)
