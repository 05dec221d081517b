"""Arrays of float32, float16 and bfloat16 rounded by a deterministic mode, a piece at a time; compiled.

Where the caller's arrays are one, a piece is copied to a buffer first: a loop vectorises only if what it reads and what
it writes are apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding._fast_directed_kernels import float32_exponents_corrected, rounded_and_corrected
from lowp.rounding._fast_kernels import float32_exponents, rounded_to_nearest_even
from lowp.rounding._short_kernels import narrowed, shifted_right, whole_of, widened

_compile = njit(nogil=True, cache=True, error_model="numpy")

#: Numbers in a piece: three buffers stay in the first cache.
_PIECE = 2048
#: How to round: by an addition, to nearest even or corrected; by bits where exponents are float32's.
NEAREST, CORRECTED, BITS_NEAREST, BITS_CORRECTED = range(4)


@_compile
def widen_float16(x: Any, out: Any) -> None:
    """Write float16 bits (uint16) as float32."""
    for i in range(out.size):
        out[i] = widened(np.int16(x[i]))


@_compile
def narrow_float16(x: Any, out: Any) -> None:
    """Write float32 numbers that float16 holds as its bits (uint16)."""
    for i in range(out.size):
        out[i] = narrowed(x[i], np.int16(0))


@_compile
def widen_bfloat16(x: Any, out: Any) -> None:
    """Write bfloat16 bits (uint16) as float32."""
    for i in range(out.size):
        out[i] = widened(x[i])


@_compile
def narrow_bfloat16(x: Any, out: Any) -> None:
    """Write float32 numbers that bfloat16 holds as its bits (uint16)."""
    for i in range(out.size):
        out[i] = narrowed(x[i], np.uint16(0))


@_compile
def _round(x: Any, out: Any, way: int, integers: Any, floats: Any, how: Any) -> None:
    """`how`: the mode, as `correcting`."""
    if way == NEAREST:
        rounded_to_nearest_even(x, out, integers, floats)
    elif way == CORRECTED:
        rounded_and_corrected(x, out, integers, floats, how)
    elif way == BITS_NEAREST:
        float32_exponents(x.view(np.int32), out.view(np.int32), integers)
    else:
        float32_exponents_corrected(x.view(np.int32), out.view(np.int32), integers, how)


@_compile
def quantize_float32(x: Any, out: Any, way: int, integers: Any, floats: Any, how: Any) -> None:
    """Round float32 `x` into `out`, which may be `x`."""
    apart = x.ctypes.data != out.ctypes.data
    buffer = np.empty(0 if apart else min(_PIECE, x.size), np.float32)
    for i in range(0, x.size, _PIECE):
        source, sink = x[i : i + _PIECE], out[i : i + _PIECE]
        piece = source if apart else buffer[: source.size]
        if not apart:
            for j in range(source.size):
                piece[j] = source[j]
        _round(piece, sink, way, integers, floats, how)


@_compile
def quantize_short(x: Any, out: Any, way: int, integers: Any, floats: Any, how: Any) -> None:
    """Round float16 bits (int16) or bfloat16 bits (uint16) `x` into `out`; they may be one."""
    apart = x.ctypes.data != out.ctypes.data
    buffer = np.empty(0 if apart else min(_PIECE, x.size), x.dtype)
    for i in range(0, x.size, _PIECE):
        source, sink = x[i : i + _PIECE], out[i : i + _PIECE]
        piece = source if apart else buffer[: source.size]
        if not apart:
            for j in range(source.size):
                piece[j] = source[j]
        if way == NEAREST:
            rounded_to_nearest_even(piece, sink, integers, floats)
        elif way == CORRECTED:
            rounded_and_corrected(piece, sink, integers, floats, how)
        else:
            _round_short_bits(piece, sink, way, integers, how)


@_compile
def _round_short_bits(x: Any, out: Any, way: int, integers: Any, how: Any) -> None:
    wide, rounded = np.empty(x.size, np.float32), np.empty(x.size, np.float32)
    for i in range(x.size):
        wide[i] = widened(x[i])
    if way == BITS_NEAREST:
        float32_exponents(wide.view(np.int32), rounded.view(np.int32), integers)
    else:
        float32_exponents_corrected(wide.view(np.int32), rounded.view(np.int32), integers, how)
    for i in range(x.size):
        out[i] = narrowed(rounded[i], x[i])


@_compile
def _codes(values: Any, codes: Any, how: Any, to_quanta: Any) -> Any:
    """Write the codes of float32 numbers that a format has; return whether one is NaN.

    `how`: `_float32_runs.code_plan`. `to_quanta`: reciprocal of the least positive number.
    """
    shift, base, normal, infinity, nan_code = how[0], how[1], how[2], how[3], how[4]
    sign_code, mask, twos_complement = how[5], how[6], how[7] == 1
    some: Any = False
    bits = values.view(np.int32)
    if twos_complement:
        for i in range(codes.size):
            v = values[i]
            some |= v != v
            codes[i] = whole_of(np.float32(v * to_quanta)) & mask
        return some
    for i in range(codes.size):
        b = bits[i]
        mag = np.int32(b & np.int32(0x7FFFFFFF))
        some |= mag > np.int32(0x7F800000)
        small = whole_of(min(np.float32(abs(values[i]) * to_quanta), np.float32(1.0e9)))
        c = np.int32(shifted_right(mag, shift) - base) if mag >= normal else small
        c = infinity if mag == np.int32(0x7F800000) else c
        c = np.int32(c | sign_code) if b < 0 else c
        codes[i] = nan_code if mag > np.int32(0x7F800000) else c
    return some


@_compile
def encode_float32(
    x: Any, codes: Any, way: int, integers: Any, floats: Any, how: Any, code_plan: Any, to_quanta: Any
) -> Any:
    """Round float32 `x` to codes; return whether `x` has NaN."""
    rounded = np.empty(min(_PIECE, x.size), np.float32)
    some = False
    for i in range(0, x.size, _PIECE):
        source, sink = x[i : i + _PIECE], codes[i : i + _PIECE]
        results = rounded[: source.size]
        _round(source, results, way, integers, floats, how)
        some |= _codes(results, sink, code_plan, to_quanta)
    return some
