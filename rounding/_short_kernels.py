"""Float32 of the bits of shorter floats and back, and steps on 32 bits, for compiled loops that vectorise."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WORD, _SHORT = ir.IntType(32), ir.IntType(16)


@intrinsic
def widened(_context: Any, value: Any) -> Any:
    """Return the float32 of a float32, of float16's bits (int16) or of bfloat16's bits (uint16)."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if value is types.float32:
            return arguments[0]
        if value is types.int16:
            return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())
        return builder.bitcast(builder.shl(builder.zext(arguments[0], _WORD), _WORD(16)), ir.FloatType())

    return types.float32(value), build


@intrinsic
def narrowed(_context: Any, _value: Any, like: Any) -> Any:
    """Return a float32 as a number of the kind of `like`, see `widened`, which has it."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        if like is types.float32:
            return arguments[0]
        if like is types.int16:
            return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), _SHORT)
        return builder.trunc(builder.lshr(builder.bitcast(arguments[0], _WORD), _WORD(16)), _SHORT)

    return like(types.float32, like), build


@intrinsic
def shifted_right(_context: Any, _bits: Any, _count: Any) -> Any:
    """Return an int32 shifted by less than 32 bits, zeros first; Numba's own `>>` takes 64 bits."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.lshr(*arguments)

    return types.int32(types.int32, types.int32), build


@intrinsic
def whole_of(_context: Any, value: Any) -> Any:
    """Return the whole part of a float32 that an int32 holds; Numba's own cast goes by 64 bits."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.fptosi(arguments[0], _WORD)

    return types.int32(types.float32), build
