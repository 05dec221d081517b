"""Float32 to nearest-even at the speed of memory: one float addition rounds at any bit position.

Adding and subtracting `2^(exponent + 23 - mantissa_bits)` makes the hardware round a float32 to `mantissa_bits`, ties
to even, below the normal range too if the exponent stops at that of the smallest normal value. The kernels agree
bit for bit with `_kernels`, which they are tested against; they serve the formats for which `applies` holds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding import _start_kernels  # noqa: F401 - before the first kernel is made
from lowp.rounding._short_kernels import narrowed, shifted_right, widened
from lowp.rounding.lowering import fits_float32, lower
from lowp.rounding.modes import Rounding

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


def applies(fmt: ScalarFormat, mode: Rounding) -> bool:
    """Whether the addition trick serves this format and mode exactly."""
    return mode.name == "ties_to_even" and can_be_added(fmt)


def can_be_added(fmt: ScalarFormat) -> bool:
    """Whether one float32 addition rounds to the format's numbers."""
    if isinstance(fmt, Float):  # with 23 bits the sum would have one too few
        short = 1 <= fmt.mantissa_bits <= 22 and fmt.emax + 24 - fmt.mantissa_bits <= 127
        return fmt.subnormals and short and fits_float32(fmt)
    if isinstance(fmt, Integer | Fixed):
        return 1 < fmt.bits <= 20 and fits_float32(fmt) and abs(fmt.fraction_bits) <= 80
    return False


def has_float32_exponents(fmt: ScalarFormat) -> bool:
    """Whether a format is float32 with fewer mantissa bits, as bfloat16 and TF32."""
    if not (isinstance(fmt, Float) and fits_float32(fmt)):  # some have numbers where float32 has infinity
        return False
    return fmt.exponent_bits == 8 and fmt.bias == 127 and 1 <= fmt.mantissa_bits <= 22 and fmt.subnormals and fmt.signed


@lru_cache(maxsize=64)
def shift_plan(fmt: Float, mode: Rounding, overflow: str) -> NDArray[np.int32]:
    """Return the bits to drop, the largest value, the special results as float32 bits and whether ends are mirrored."""
    plan = lower(fmt, mode, overflow, 32)
    over, infinity = (
        (plan.overflow_bits, plan.overflow_bits_negative),
        (plan.infinity_bits, plan.infinity_bits_negative),
    )
    last = plan.negative_zero, aremirrored(plan)
    return np.array([23 - fmt.mantissa_bits, plan.max_bits, *over, *infinity, *last], np.int32)


def aremirrored(plan: Any) -> bool:
    """Whether -0 exists, infinity overflows as large numbers do, and negative numbers end as positive ones do."""
    ends = plan.overflow_bits, plan.infinity_bits
    others = plan.overflow_bits_negative, plan.infinity_bits_negative
    same = ends[0] == ends[1] and all(
        (int(b) ^ int(a)) & 0xFFFFFFFF == 1 << 31 for a, b in zip(ends, others, strict=True)
    )
    return bool(plan.negative_zero) and same


class FastPlan:
    """Numbers of the addition trick: integers in `.integers`, float32 values in `.floats`."""

    def __init__(self, fmt: Float | Integer | Fixed, mode: Rounding, overflow: str) -> None:
        plan = lower(fmt, mode, overflow, 32)
        if isinstance(fmt, Float):
            least_exponent, mantissa = fmt.emin + 127, fmt.mantissa_bits
        else:
            least_exponent, mantissa = 23 - fmt.fraction_bits + 127, 23
        mirrored = aremirrored(plan) and fmt.max == -fmt.min
        self.integers = np.array([least_exponent << 23, (23 - mantissa) << 23, plan.negative_zero, mirrored], np.int32)
        specials = [plan.overflow_bits, plan.overflow_bits_negative, plan.infinity_bits, plan.infinity_bits_negative]
        limits = [fmt.max, -fmt.min, 2.0 * max(fmt.max, -fmt.min)]
        self.floats = np.concatenate(
            [np.array(limits, np.float32), np.array(specials, np.int64).astype(np.int32).view(np.float32)]
        )


@lru_cache(maxsize=256)
def fast_plan(fmt: Float | Integer | Fixed, mode: Rounding, overflow: str) -> FastPlan:
    """Return the cached plan of a format for which `applies` holds."""
    return FastPlan(fmt, mode, overflow)


@_inline
def _field(a: Any, least: Any) -> Any:
    """Return the exponent field of a magnitude, in place, at least `least`; of 32 bits, or half a vector is empty."""
    return np.int32(max(np.int32(np.float32(a).view(np.int32) & np.int32(0x7F800000)), np.int32(least)))


@_inline
def _nearest_even(v: Any, least: Any, raise_by: Any, clip: Any) -> Any:
    """Round the magnitude of `v`; beyond `clip` the result is only known to be too large."""
    a = min(abs(v), clip)
    magic = np.int32(_field(a, least) + raise_by).view(np.float32)
    return np.float32(np.float32(a + magic) - magic)


@_inline
def _finished(v: Any, r: Any, zero_sign: Any, floats: Any) -> Any:
    """Return a rounded magnitude with the sign of `v`; what overflow, infinity and NaN become.

    `zero_sign`: the sign bit if -0 exists, else 0. `floats`: those of a `FastPlan`.
    """
    top, bottom, over, over_negative = floats[0], floats[1], floats[3], floats[4]
    sign = np.int32(np.float32(v).view(np.int32) & np.int32(-0x80000000))
    sign = sign if r != 0 else np.int32(sign & zero_sign)
    signed = np.int32(np.float32(r).view(np.int32) | sign).view(np.float32)
    signed = over if signed > top else signed
    signed = over_negative if signed < -bottom else signed
    signed = floats[5] if v == np.float32(np.inf) else signed
    signed = floats[6] if v == np.float32(-np.inf) else signed
    return v if v != v else signed


@_inline
def mirrored(v: Any, r: Any, floats: Any) -> Any:
    """As `_finished`, where ends `are_mirrored`."""
    r = floats[3] if r > floats[0] else r
    signed = np.int32(np.float32(r).view(np.int32) | np.int32(np.float32(v).view(np.int32) & np.int32(-0x80000000)))
    return v if v != v else signed.view(np.float32)


@_compile
def rounded_to_nearest_even(x: Any, out: Any, integers: Any, floats: Any) -> None:
    """Round `x` into `out`, another array of its kind, see `widened`; NaN passes through.

    `integers`, `floats`: of a `FastPlan`, whose numbers that kind has.
    """
    least, raise_by, zero_sign, clip = integers[0], integers[1], zero_sign_of(integers), floats[2]
    ends = _as_tuple(floats)
    alike = integers[3] == 1  # the compiler makes two loops of it
    for i in range(x.size):
        v = widened(x[i])
        r = _nearest_even(v, least, raise_by, clip)
        out[i] = narrowed(mirrored(v, r, ends) if alike else _finished(v, r, zero_sign, ends), x[i])


@_inline
def zero_sign_of(integers: Any) -> Any:
    """Return the sign bit if -0 exists, else 0."""
    return np.int32(-0x80000000) if integers[2] == 1 else np.int32(0)


@_inline
def _as_tuple(floats: Any) -> Any:
    """Return the numbers of a plan apart from memory, so that no store in a loop can change them."""
    return floats[0], floats[1], floats[2], floats[3], floats[4], floats[5], floats[6]


@_inline
def nearest_bits(mag: Any, shift: Any, below_half: Any, kept: Any) -> Any:
    """Round the bits of a magnitude to fewer mantissa bits; carries run into the exponent by themselves."""
    odd = np.int32(shifted_right(mag, shift) & np.int32(1))
    return np.int32(np.int32(mag + np.int32(below_half + odd)) & kept)


@_inline
def ends_of(plan: Any) -> Any:
    """Return the ends of a `shift_plan` apart from memory: top, what is beyond it and infinities become, -0."""
    return plan[1], plan[2], plan[3], plan[4], plan[5], plan[6] == 1


@_inline
def mirrored_bits(b: Any, r: Any, ends: Any) -> Any:
    """As `finished_bits`, where ends `are_mirrored`."""
    r = ends[1] if r > ends[0] else r
    value = np.int32(r | np.int32(b & np.int32(-0x80000000)))
    return b if np.int32(b & np.int32(0x7FFFFFFF)) > np.int32(0x7F800000) else value


@_inline
def finished_bits(b: Any, r: Any, ends: Any) -> Any:
    """Return a rounded magnitude with the sign of `b`; what overflow, infinity and NaN become."""
    top, over, over_negative, inf, inf_negative, negative_zero = ends
    mag = np.int32(b & np.int32(0x7FFFFFFF))
    value = np.int32(r | np.int32(b & np.int32(-0x80000000))) if (r != 0) | negative_zero else np.int32(0)
    value = (over_negative if b < 0 else over) if r > top else value
    value = (inf_negative if b < 0 else inf) if mag == 0x7F800000 else value
    return b if mag > 0x7F800000 else value


@_compile
def float32_exponents(x: Any, out: Any, plan: Any) -> None:
    """Round float32 bits (int32 views) to fewer mantissa bits; `plan`: `shift_plan`."""
    shift, ends = plan[0], ends_of(plan)
    below_half, kept = np.int32((1 << (shift - 1)) - 1), np.int32(-1 << shift)
    alike = plan[7] == 1
    for i in range(x.size):
        r = nearest_bits(np.int32(x[i] & np.int32(0x7FFFFFFF)), shift, below_half, kept)
        out[i] = mirrored_bits(x[i], r, ends) if alike else finished_bits(x[i], r, ends)
