"""Lower a format, a rounding mode and an overflow mode to the integers that the kernels read.

The kernels see a float input as `significand * 2^(exponent - input_bias - input_mantissa)` and never learn which
format they serve: every decision that depends on the format or the modes is taken here, once, and cached.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from lowp._errors import ArgumentError
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding.modes import ABOVE_HALF, INTEGER_ONLY, Rounding

#: An exponent that no input has; puts a threshold out of reach.
NEVER = 1 << 20


class Plan(NamedTuple):
    """What a kernel needs to know, as integers. `*_bits` are bit patterns of the input's float type.

    Fields that come in pairs hold the positive and the negative case.
    """

    input_mantissa: int  # 23 or 52
    normal_exponent: int  # biased input exponent of the smallest normal value
    normal_shift: int  # input bits dropped at and above it
    subnormal_shift: int  # below it: bits dropped = subnormal_shift - exponent
    quantum_bits: int  # value next to zero, reached when every input bit is dropped
    normal_bits: int  # smallest normal value
    code_base: int  # code of a normal value = (its bits >> normal_shift) - code_base
    exponent_parity: int  # 1: no mantissa bits, so a code's parity is that of its exponent
    max_bits: int
    max_bits_negative: int
    overflow_bits: int
    overflow_bits_negative: int
    overflow_code: int
    overflow_code_negative: int
    infinity_bits: int
    infinity_bits_negative: int
    infinity_code: int
    infinity_code_negative: int
    nan_code: int  # -1 where the format has none
    zero_bits: int  # what an input of zero becomes
    zero_code: int
    tiny_bits: int  # what a nonzero input that rounds to zero becomes
    tiny_code: int
    negative_zero: int
    twos_complement: int
    sign_code: int  # the code's sign bit
    code_mask: int
    rounding_table: int
    variant: int
    random_bits: int


class _Input(NamedTuple):
    """A float type as integers."""

    mantissa: int
    bias: int
    pack: str

    def bits(self, value: float) -> int:
        """Bit pattern of the magnitude of `value`, which must be exact in this type."""
        kind = {"<f": "<I", "<d": "<Q"}[self.pack]
        return int(struct.unpack(kind, struct.pack(self.pack, abs(value)))[0])

    def signed_bits(self, value: float) -> int:
        """Bit pattern of `value` as a two's-complement integer of the same width."""
        kind = {"<f": "<i", "<d": "<q"}[self.pack]
        return int(struct.unpack(kind, struct.pack(self.pack, value))[0])


INPUTS = {32: _Input(23, 127, "<f"), 64: _Input(52, 1023, "<d")}


def check_overflow(fmt: ScalarFormat, overflow: str) -> None:
    """Raise ArgumentError if the overflow mode is not defined for the format."""
    if overflow in INTEGER_ONLY and not isinstance(fmt, Integer | Fixed):
        raise ArgumentError(f"overflow={overflow!r} is for integers and fixed point, not for {fmt.name!r}.")
    if overflow == "wrap_sign_magnitude" and not fmt.signed:
        raise ArgumentError(f"overflow={overflow!r} needs a signed format, {fmt.name!r} is unsigned.")


def fits_float32(fmt: ScalarFormat) -> bool:
    """Whether float32 holds every value, with normal values where the format has normal values."""
    if isinstance(fmt, Float):
        return fmt.mantissa_bits <= 23 and fmt.emin >= -126 and fmt.emax <= 127
    assert isinstance(fmt, Integer | Fixed)
    return fmt.bits - fmt.signed <= 24 and -fmt.fraction_bits >= -126 and fmt.bits - fmt.fraction_bits <= 127


@lru_cache(maxsize=512)
def lower(fmt: Float | Integer | Fixed, mode: Rounding, overflow: str, width: int) -> Plan:
    """Return the plan for inputs of `width` bits (32 or 64); all values must be exact in that input type."""
    check_overflow(fmt, overflow)
    grid = _float_grid(fmt, INPUTS[width]) if isinstance(fmt, Float) else _integer_grid(fmt, INPUTS[width])
    return Plan(**grid, **_specials(fmt, mode, overflow, INPUTS[width]), rounding_table=mode.table,
                variant=mode.variant, random_bits=mode.random_bits)  # fmt: skip


@lru_cache(maxsize=512)
def kernel_plan(fmt: Float | Integer | Fixed, mode: Rounding, overflow: str, width: int) -> Plan:
    """Return the plan that compiled kernels take: all fields as signed 64-bit integers (codes of 64 bits wrap)."""
    return Plan(*(n - (1 << 64) if n >> 63 > 0 else n for n in lower(fmt, mode, overflow, width)))


def _float_grid(fmt: Float, source: _Input) -> dict[str, int]:
    m, normal = fmt.mantissa_bits, fmt.emin + source.bias
    quantum = fmt.smallest_subnormal if fmt.subnormals else fmt.smallest_normal
    if fmt.subnormals and fmt.emin - m >= -1074:
        quantum = 2.0**fmt.emin * 2.0**-m
    return {
        "input_mantissa": source.mantissa,
        "normal_exponent": normal,
        "normal_shift": source.mantissa - m,
        "subnormal_shift": normal + source.mantissa - (m if fmt.subnormals else 0),
        "quantum_bits": source.bits(quantum),
        "normal_bits": source.bits(2.0**fmt.emin),
        "code_base": (normal - fmt.normal_field) << m,
        "exponent_parity": int(m == 0),
    }


def _integer_grid(fmt: Integer | Fixed, source: _Input) -> dict[str, int]:
    return {
        "input_mantissa": source.mantissa,
        "normal_exponent": NEVER,
        "normal_shift": 0,
        "subnormal_shift": source.mantissa + source.bias - fmt.fraction_bits,
        "quantum_bits": source.bits(2.0**-fmt.fraction_bits),
        "normal_bits": (1 << 63) - 1,
        "code_base": 0,
        "exponent_parity": 0,
    }


def _specials(fmt: Float | Integer | Fixed, mode: Rounding, overflow: str, source: _Input) -> dict[str, int]:
    """Results that do not come from the grid: overflow, infinity, NaN and zero, each as bits and as code."""
    both = {}
    for negative, suffix in ((False, ""), (True, "_negative")):
        for what, result in (
            ("overflow", _overflow_result(fmt, mode, overflow, negative)),
            ("infinity", _infinity_result(fmt, overflow, negative)),
        ):
            both[f"{what}_bits{suffix}"] = source.signed_bits(result[0])
            both[f"{what}_code{suffix}"] = result[1]
    zero = _zero_result(fmt, overflow)
    nan = fmt.nan_code if isinstance(fmt, Float) else None
    return {
        **both,
        "max_bits": source.bits(_end(fmt, negative=False)),
        "max_bits_negative": source.bits(_end(fmt, negative=True)) if fmt.has_zero else -1,
        "nan_code": -1 if nan is None else nan,
        "zero_bits": source.bits(zero[0]),
        "zero_code": zero[1],
        "tiny_bits": 0 if fmt.has_zero else source.bits(fmt.smallest_normal),
        "tiny_code": 0,
        "negative_zero": int(fmt.has_negative_zero),
        "twos_complement": int(not isinstance(fmt, Float)),
        "sign_code": 1 << (fmt.bits - 1) if fmt.signed else 0,
        "code_mask": (1 << fmt.bits) - 1,
    }


def _end(fmt: Float | Integer | Fixed, negative: bool) -> float:
    """Magnitude of the last finite value, or of the last float64 inside the range of more than 53 bits."""
    nearest = abs(fmt.min if negative else fmt.max)
    if isinstance(fmt, Float):
        return nearest
    exact = abs(fmt.min_integer if negative else fmt.max_integer) / Fraction(2) ** fmt.fraction_bits
    return nearest if Fraction(nearest) <= exact else math.nextafter(nearest, 0.0)


def _largest(fmt: Float | Integer | Fixed, negative: bool) -> tuple[float, int]:
    """The finite value at one end of the range, and its code."""
    if isinstance(fmt, Float):
        if not negative:
            return fmt.max, fmt.max_code
        return (fmt.min, fmt.max_code | 1 << (fmt.bits - 1)) if fmt.signed else (fmt.min, 0)
    integer = fmt.min_integer if negative else fmt.max_integer
    return (fmt.min if negative else fmt.max), integer & ((1 << fmt.bits) - 1)


def _beyond(fmt: Float, negative: bool) -> tuple[float, int] | None:
    """What lies past the largest value in the non-saturating modes: infinity, NaN, or nothing."""
    if negative and not fmt.signed:
        return (float("nan"), fmt.nan_code) if fmt.nan_code is not None else None
    if fmt.infinity_code is not None:
        code = fmt.infinity_code | (1 << (fmt.bits - 1) if negative else 0)
        return (float("-inf" if negative else "inf"), code)
    if fmt.nan_code is not None and fmt.specials != "p3109_finite":
        return float("nan"), fmt.nan_code
    return None


def _overflow_result(fmt: Float | Integer | Fixed, mode: Rounding, overflow: str, negative: bool) -> tuple[float, int]:
    largest = _largest(fmt, negative)
    if not isinstance(fmt, Float):
        return _integer_overflow(fmt, overflow, negative)
    if overflow != "infinity_or_nan":
        return largest
    goes_beyond = mode.variant > 0 or mode.away(ABOVE_HALF, negative, bool(largest[1] & 1))
    if negative and not fmt.signed:  # P3109: an unsigned format has nothing below its least value but NaN
        goes_beyond = not fmt.has_zero or mode.name not in ("toward_zero", "toward_positive")
    return (_beyond(fmt, negative) if goes_beyond else None) or largest


def _infinity_result(fmt: Float | Integer | Fixed, overflow: str, negative: bool) -> tuple[float, int]:
    if not isinstance(fmt, Float):
        return _integer_overflow(fmt, overflow, negative)
    beyond = _beyond(fmt, negative)
    keeps = overflow == "infinity_or_nan" or (overflow == "propagate" and beyond and beyond[0] == beyond[0])
    return beyond if keeps and beyond else _largest(fmt, negative)


def _integer_overflow(fmt: Integer | Fixed, overflow: str, negative: bool) -> tuple[float, int]:
    if overflow == "saturate_zero":
        return 0.0, 0
    return _largest(fmt, negative)


def _zero_result(fmt: Float | Integer | Fixed, overflow: str) -> tuple[float, int]:
    if fmt.has_zero:
        return 0.0, 0
    assert isinstance(fmt, Float)
    if overflow == "infinity_or_nan" and fmt.nan_code is not None:
        return float("nan"), fmt.nan_code
    return fmt.smallest_normal, 0
