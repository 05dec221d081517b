"""Codes of float32 numbers rounded to nearest even, in the same steps that round them; compiled.

What the addition of `_fast_kernels` leaves in the sum's mantissa is the number of quanta, which is the code of its
binade's first number and how far it is from there. A carry runs into the exponent by itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding._fast_kernels import _field, nearest_bits
from lowp.rounding._short_kernels import shifted_right

_compile = njit(nogil=True, cache=True, error_model="numpy")


@_compile
def codes_to_nearest_even(x: Any, codes: Any, integers: Any, clip: Any, ends: Any) -> Any:
    """Write the codes of float32 `x` in a format whose ends `are_mirrored`; return whether one is NaN.

    `integers`, `clip`: of its `FastPlan`. `ends`: bits that a float32 mantissa has more, the largest number's code, the
    code that larger ones get, the sign's, NaN's.
    """
    least, raise_by = integers[0], integers[1]
    shift, top, over, sign_code, nan_code = ends[0], ends[1], ends[2], ends[3], ends[4]
    some: Any = False
    for i in range(codes.size):
        v = x[i]
        a = min(abs(v), clip)
        e = _field(a, least)
        magic = np.int32(e + raise_by)
        quanta = np.int32(np.float32(a + magic.view(np.float32)).view(np.int32) - magic)
        c = np.int32(quanta + shifted_right(np.int32(e - least), shift))
        c = over if c > top else c
        c = np.int32(c | np.int32(np.int32(np.float32(v).view(np.int32) >> np.int32(31)) & sign_code))
        some |= v != v
        codes[i] = nan_code if v != v else c
    return some


@_compile
def codes_of_float32_exponents(x: Any, codes: Any, plan: Any, nan_code: Any) -> Any:
    """Write the leading bits of float32 bits (int32) rounded to fewer; `plan`: `shift_plan`, with ends as above."""
    shift, top, over = plan[0], plan[1], plan[2]
    below_half, kept = np.int32((1 << (shift - 1)) - 1), np.int32(-1 << shift)
    some: Any = False
    for i in range(codes.size):
        b = x[i]
        mag = np.int32(b & np.int32(0x7FFFFFFF))
        r = nearest_bits(mag, shift, below_half, kept)
        r = over if r > top else r
        c = shifted_right(np.int32(r | np.int32(b & np.int32(-0x80000000))), shift)
        some |= mag > np.int32(0x7F800000)
        codes[i] = nan_code if mag > np.int32(0x7F800000) else c
    return some
