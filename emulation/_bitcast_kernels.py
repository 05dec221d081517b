"""Numbers as their bits and back, and fused multiply-adds, for compiled loops that vectorise.

An array's `view` would do the same only through memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_INTEGERS = {types.float32: types.int32, types.float64: types.int64}
#: Mantissa bits, exponent bits and bias.
_FIELDS = {types.float32: (23, 8, 127), types.float64: (52, 11, 1023)}


@intrinsic
def bits_of(_context: Any, value: Any) -> Any:
    """Return the bits of a float32 or float64 as an integer of its size."""
    integer = _INTEGERS[value]

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(integer.bitwidth))

    return integer(value), build


@intrinsic
def number_of(_context: Any, bits: Any, like: Any) -> Any:
    """Return the number that has some bits, of the type of `like`."""
    integer = _INTEGERS[like]

    def build(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        narrowed = context.cast(builder, arguments[0], bits, integer)
        return builder.bitcast(narrowed, context.get_value_type(like))

    return like(bits, like), build


@intrinsic
def exponent_of(_context: Any, value: Any) -> Any:
    """Return the exponent of a float32 or float64 as int32: `-bias` of subnormals and 0, `bias + 1` if not finite."""
    integer, (mantissa, exponent, bias) = _INTEGERS[value], _FIELDS[value]

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        whole = ir.IntType(integer.bitwidth)
        shifted = builder.lshr(builder.bitcast(arguments[0], whole), whole(mantissa))
        field = builder.and_(shifted, whole((1 << exponent) - 1))
        unbiased = builder.sub(field, whole(bias))
        return unbiased if integer is types.int32 else builder.trunc(unbiased, ir.IntType(32))

    return types.int32(value), build


@intrinsic
def power_of_two(_context: Any, exponent: Any, like: Any) -> Any:
    """Return a power of two that is a normal number, of the type of `like`; `exponent`: int32."""
    integer, (mantissa, _, bias) = _INTEGERS[like], _FIELDS[like]

    def build(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        whole = ir.IntType(integer.bitwidth)
        field = builder.add(context.cast(builder, arguments[0], exponent, integer), whole(bias))
        return builder.bitcast(builder.shl(field, whole(mantissa)), context.get_value_type(like))

    return like(exponent, like), build


@intrinsic
def fused(_context: Any, a: Any, _b: Any, _c: Any) -> Any:
    """Return `a * b + c` rounded once by the machine, for three numbers of one type."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), build
