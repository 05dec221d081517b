"""How a sum is stored in an accumulator's format, lowered to the integers and numbers that kernels read."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lowp.emulation._accumulator_checks import INFINITY
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding._scalar import quantize_values
from lowp.rounding.modes import rounding
from lowp.rounding.request import QUANTIZE_NAN, make_request

#: Float64 holds sums of these many bits, and the least bit of a sum that it may have to hold.
_MOST_PRECISION, _LEAST_BIT = 53, -1074


class StoredPlan(NamedTuple):
    """What `_store` needs to know; pairs are for positive and negative sums."""

    precision: int  # significant bits; 64 where only the least bit's weight limits them
    least_bit: int  # exponent of the weight of the last bit of the smallest numbers
    rounding_table: int
    parity_of_exponent: int  # 1: no mantissa bits; odd is a matter of the exponent
    largest: float
    least: float  # the most negative number
    above: float  # what rounds beyond `largest` becomes
    below: float
    infinite: float  # what an infinite sum becomes
    infinite_negative: float
    wrap_bits: int  # integers: only so many low bits are kept; 0: no wrapping
    wrap_signed: int
    smallest_normal: float  # 0 where subnormal results are kept
    signed_zero: int


class LanePlan(NamedTuple):
    """What loops that vectorise need to know of a `StoredPlan`, in the types of their numbers."""

    precision: Any
    least_bit: Any
    largest: Any
    least: Any
    above: Any
    below: Any
    smallest_normal: Any
    signed_zero: Any
    zero: Any
    no_exponent: Any  # what `_bitcast_kernels.exponent_of` gives for 0, and for the largest numbers
    most_exponent: Any
    twice_one: Any  # bits of a power of two and of its inverse, added


def lane_plan(plan: StoredPlan, dtype: type[np.floating[Any]]) -> LanePlan:
    """Return a plan in the types of float32 or float64; sums are 0 or far from the ends of the dtype's range."""
    bias, mantissa, integer = (127, 23, np.int32) if dtype is np.float32 else (1023, 52, np.int64)
    with np.errstate(over="ignore"):  # what is beyond any sum may be infinite
        return LanePlan(
            precision=np.int32(plan.precision),
            least_bit=np.int32(max(plan.least_bit, 2 - bias)),
            largest=dtype(plan.largest),
            least=dtype(plan.least),
            above=dtype(plan.above),
            below=dtype(plan.below),
            smallest_normal=dtype(plan.smallest_normal),
            signed_zero=np.int32(plan.signed_zero),
            zero=dtype(0),
            no_exponent=np.int32(-bias),
            most_exponent=np.int32(bias),
            twice_one=integer(2 * bias << mantissa),
        )


def is_storable(fmt: ScalarFormat, mode: str, overflow: str) -> bool:
    """Whether float64 numbers can stand for the numbers of a format, and a kernel round to it."""
    if rounding(mode).variant != 0:
        return False
    if isinstance(fmt, Float):
        small = fmt.emin - fmt.mantissa_bits
        return (
            fmt.mantissa_bits < _MOST_PRECISION
            and small >= _LEAST_BIT
            and fmt.emax <= 1023
            and fmt.signed
            and fmt.subnormals
            and fmt.has_zero
        )
    if isinstance(fmt, Integer | Fixed):
        return fmt.bits <= _MOST_PRECISION and overflow in ("wrap", "saturate", "saturate_symmetric", "propagate")
    return False


@lru_cache(maxsize=256)
def stored_plan(
    fmt: ScalarFormat, mode: str, overflow: str, flush: bool = False, signed_zero: bool | str = True
) -> StoredPlan:
    """Return the plan for a format that `is_storable`."""
    table = rounding(mode).table
    if isinstance(fmt, Float):
        above, below, infinite, infinite_negative = _beyond(fmt, mode, overflow)
        return StoredPlan(
            precision=fmt.mantissa_bits + 1,
            least_bit=fmt.emin - fmt.mantissa_bits,
            rounding_table=table,
            parity_of_exponent=int(fmt.mantissa_bits == 0),
            largest=fmt.max,
            least=fmt.min,
            above=above,
            below=below,
            infinite=infinite,
            infinite_negative=infinite_negative,
            wrap_bits=0,
            wrap_signed=0,
            smallest_normal=fmt.smallest_normal if flush else 0.0,
            signed_zero=int(signed_zero and fmt.has_negative_zero),
        )
    assert isinstance(fmt, Integer | Fixed)
    *_, infinite, infinite_negative = _beyond(fmt, mode, overflow)
    least = -fmt.max if overflow == "saturate_symmetric" and fmt.signed else fmt.min
    return StoredPlan(
        precision=64,
        least_bit=-getattr(fmt, "fraction_bits", 0),
        rounding_table=table,
        parity_of_exponent=0,
        largest=fmt.max,
        least=least,
        above=fmt.max,
        below=least,
        infinite=infinite,
        infinite_negative=infinite_negative,
        wrap_bits=fmt.bits if overflow == "wrap" else 0,
        wrap_signed=int(fmt.signed),
        smallest_normal=0.0,
        signed_zero=0,
    )


def _beyond(fmt: ScalarFormat, mode: str, overflow: str) -> list[float]:
    """Return what becomes of sums beyond the largest number, beyond the least, and of the infinities."""
    if overflow == INFINITY:
        return [math.inf, -math.inf, math.inf, -math.inf]
    large = 1e300 if fmt.max < 1e300 else math.nan  # float64's own overflow is an infinity
    given = np.array([large, -large, math.inf, -math.inf])
    request = make_request(mode, overflow, 0, None, 0, "keep", QUANTIZE_NAN)
    found = np.asarray(quantize_values(given, fmt, request)).tolist()
    if math.isnan(large):
        stops = mode in ("toward_zero", "to_odd") or overflow in ("saturate", "propagate")
        found[0] = fmt.max if stops or mode == "toward_negative" else math.inf
        found[1] = fmt.min if stops or mode == "toward_positive" else -math.inf
    return found  # type: ignore[no-any-return]
