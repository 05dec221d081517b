"""The scale recipes of single systems and papers, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.rounding import _fp4_recipes, _mxfp4_recipes
from lowp.rounding._layout import Layout
from lowp.rounding.recipes import Scales

#: Recipe name -> the function that chooses the scales of an array.
VENDOR_RECIPES: dict[str, Callable[[NDArray[Any], Layout, Block], Scales]] = {
    "nvfp4_te": _fp4_recipes.nvfp4_te,
    "nvfp4_torchao": _fp4_recipes.nvfp4_torchao,
    "nvfp4_modelopt": _fp4_recipes.nvfp4_modelopt,
    "mxfp4_modelopt": _fp4_recipes.mxfp4_modelopt,
    "mse": _mxfp4_recipes.mse,
    "three_quarters": _mxfp4_recipes.three_quarters,
    "quest": _mxfp4_recipes.quest,
}
