"""Floats whose smallest numbers the kernels cannot see as they are: brought to numbers that round alike.

The kernels know grids whose smallest value is a power of two (or a subnormal) and inputs whose significand is whole.
DLFloat's smallest value is `2^emin * (1 + 2^-mantissa_bits)`; formats below float64's normal range meet its subnormals.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.float_format import LIFT, Float
from lowp.formats.spec import ScalarFormat
from lowp.rounding import _exact_steps
from lowp.rounding._arrays import widen

_LEAST_NORMAL = 2.0**-1022


def below_gap(x: NDArray[Any], fmt: ScalarFormat) -> NDArray[Any]:
    """Return `x` with the numbers between 0 and a DLFloat's smallest value scaled to lie between 0 and 2^emin.

    There they lie as far between the neighbours as before; the quotient is rounded to odd, which no rounding to fewer
    bits can tell from exact. The result is float64 where there are such numbers, else `x` itself.
    """
    if not isinstance(fmt, Float) or fmt.specials != "dlfloat":
        return x
    inside = (np.abs(x) < fmt.smallest_normal) & (x != 0)
    if not inside.any():
        return x
    wide = widen(x)
    quotient = _exact_steps.divide(wide, np.full_like(wide, 1 + 2.0**-fmt.mantissa_bits))
    return np.where(inside, quotient.reshape(x.shape), wide)


def subnormal_inputs(x: NDArray[Any], fmt: ScalarFormat) -> NDArray[np.bool_] | None:
    """Return which float64 numbers are subnormal, where the format's normal numbers reach below 2^-1022; else None."""
    if not isinstance(fmt, Float) or fmt.emin >= -1022 or x.dtype != np.float64:
        return None
    low = (np.abs(x) < _LEAST_NORMAL) & (x != 0)
    return low if low.any() else None


def lifted(fmt: ScalarFormat) -> Float:
    """Return the format with the same codes whose values are 2^LIFT times as large, for inputs as much larger."""
    assert isinstance(fmt, Float)
    assert fmt.bias is not None
    return replace(fmt, bias=fmt.bias - LIFT)
