"""Float32 by any deterministic mode at the speed of memory: to nearest even by one addition, then corrected.

Where the nearest number is off by more than the mode bears it becomes the neighbour on the other side of the exact one.
Formats as for `_fast_kernels`; the kernels agree bit for bit with `_kernels`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.rounding._corrections import corrections
from lowp.rounding._fast_kernels import (
    _as_tuple,
    _field,
    _finished,
    ends_of,
    finished_bits,
    mirrored,
    mirrored_bits,
    nearest_bits,
    zero_sign_of,
)
from lowp.rounding._short_kernels import narrowed, widened
from lowp.rounding.modes import Rounding

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")
#: Significant bits of float32.
_BITS = 24


def has_normal_quanta(fmt: ScalarFormat) -> bool:
    """Whether the least number of a format, and what is a little less than half of it, keep all bits in float32."""
    return not isinstance(fmt, Float) or fmt.emin - fmt.mantissa_bits >= -124


@lru_cache(maxsize=64)
def correcting(mode: Rounding) -> NDArray[np.float32]:
    """Return a mode's `Corrections` as numbers of float32, in order."""
    return np.array(corrections(mode, _BITS), np.float32)


@_inline
def _corrected(v: Any, least: Any, raise_by: Any, clip: Any, to_quantum: Any, how: Any) -> Any:
    """Round the magnitude of `v`; `how`: a tuple: the bits that say odd, how far off is borne, and the corrections."""
    odd_mask, off, up, up_negative, down, down_negative = how
    negative = np.float32(v).view(np.int32) < 0
    a = min(abs(v), clip)
    e = _field(a, least)
    magic, quantum = np.int32(e + raise_by).view(np.float32), np.int32(e + to_quantum).view(np.float32)
    raised = np.float32(a + magic)
    near = np.float32(raised - magic)
    beyond_exact = np.float32(near - a)
    free = np.int32(raised.view(np.int32) & odd_mask) == 0
    grows, shrinks = (up_negative if negative else up), (down_negative if negative else down)
    by = np.float32(quantum * (grows if beyond_exact < 0 else -shrinks))
    return np.float32(near + by) if (abs(beyond_exact) > np.float32(quantum * off)) & free else near


@_compile
def rounded_and_corrected(x: Any, out: Any, integers: Any, floats: Any, how: Any) -> None:
    """Round `x` into `out`; `how`: `correcting`; the rest as `rounded_to_nearest_even`."""
    least, raise_by, zero_sign, clip = integers[0], integers[1], zero_sign_of(integers), floats[2]
    ends, to_quantum = _as_tuple(floats), np.int32(raise_by - np.int32(23 << 23))
    plan = np.int32(how[0]), how[1], how[2], how[3], how[4], how[5]
    alike = integers[3] == 1
    for i in range(x.size):
        v = widened(x[i])
        r = _corrected(v, least, raise_by, clip, to_quantum, plan)
        out[i] = narrowed(mirrored(v, r, ends) if alike else _finished(v, r, zero_sign, ends), x[i])


@_inline
def _corrected_bits(b: Any, shift: Any, below_half: Any, kept: Any, how: Any) -> Any:
    """Round the magnitude of bits; `how` as above, in units of the last bit of float32."""
    odd_mask, borne, up, up_negative, down, down_negative = how
    mag = np.int32(b & np.int32(0x7FFFFFFF))
    near = nearest_bits(mag, shift, below_half, kept)
    beyond_exact = np.int32(near - mag)
    free = np.int32(near & odd_mask) == 0
    grows, shrinks = (up_negative if b < 0 else up), (down_negative if b < 0 else down)
    by = grows if beyond_exact < 0 else np.int32(-shrinks)
    return np.int32(near + by) if (abs(beyond_exact) > borne) & free else near


@_compile
def float32_exponents_corrected(x: Any, out: Any, plan: Any, how: Any) -> None:
    """Round float32 bits (int32 views) to fewer mantissa bits; `how` as above, the rest as `float32_exponents`."""
    shift, ends = plan[0], ends_of(plan)
    quantum = np.int32(1 << shift)
    below_half, kept = np.int32((quantum >> 1) - np.int32(1)), np.int32(-1 << shift)
    borne = below_half if how[1] > 0 else np.int32(0)
    odd_mask = quantum if how[0] > 0 else np.int32(0)
    up, up_negative = np.int32(np.int32(how[2]) * quantum), np.int32(np.int32(how[3]) * quantum)
    down, down_negative = np.int32(np.int32(how[4]) * quantum), np.int32(np.int32(how[5]) * quantum)
    own = odd_mask, borne, up, up_negative, down, down_negative
    alike = plan[7] == 1
    for i in range(x.size):
        r = _corrected_bits(x[i], shift, below_half, kept, own)
        out[i] = mirrored_bits(x[i], r, ends) if alike else finished_bits(x[i], r, ends)
