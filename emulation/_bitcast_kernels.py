"""Numbers as their bits and back, and fused multiply-adds, for compiled loops that vectorise.

An array's `view` would do the same only through memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_INTEGERS = {types.float32: types.int32, types.float64: types.int64}


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
def fused(_context: Any, a: Any, _b: Any, _c: Any) -> Any:
    """Return `a * b + c` rounded once by the machine, for three numbers of one type."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return a(a, a, a), build
