"""Float32 by the stochastic modes in float32 and 32-bit integers, formats as for `_fast_directed_kernels`; compiled.

With `u = floor(nu * 2^N)` and the random integer `R`, both moved up to the top of 32 bits, `u + R >= 2^N` is a carry
out of their sum. Modes B and C add one to `u` where the bits that are dropped from it say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from lowp.rounding._fast_kernels import _as_tuple, _field, _finished, ends_of, finished_bits, zero_sign_of
from lowp.rounding._lane_random_kernels import rounded_by_carries
from lowp.rounding._short_kernels import whole_of
from lowp.rounding._stochastic_kernels import fill_words

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: Numbers in a piece.
_PIECE = 1024


@intrinsic
def _as_float(_context: Any, value: Any) -> Any:
    """Return an int32 as a float32."""

    def build(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


@_inline
def _carries(u: Any, more: Any, random: Any) -> Any:
    """Whether the sum of three numbers of 32 bits, of which `more` is a single bit, has more than 32."""
    first = np.uint32(u + random)
    return (first < u) | (np.uint32(first + more) < first)


@_compile
def _round_randomly(x: Any, out: Any, words: Any, integers: Any, floats: Any, variant: int, bits: int) -> None:
    """Round float32 `x` by random words into `out`, another array; plan as `rounded_to_nearest_even`."""
    least, raise_by, zero_sign, clip = integers[0], integers[1], zero_sign_of(integers), floats[2]
    ends, to_quantum = _as_tuple(floats), np.int32(raise_by - np.int32(23 << 23))
    to_units = np.int32(np.int32(254 << 23) + np.int32((bits - 1) << 23))  # less a quantum's: 2^(N - 1) / quantum
    shift = np.uint32(32 - bits)
    kept, one = np.uint32(np.uint32(0xFFFFFFFF) << shift), np.uint32(np.uint32(1) << shift)
    half_is_up, even_only, equal = variant == 2, variant == 3, variant == 4
    for i in range(x.size):
        v = x[i]
        a = min(abs(v), clip)
        e = _field(a, least)
        magic, quantum = np.int32(e + raise_by).view(np.float32), np.int32(e + to_quantum).view(np.float32)
        near = np.float32(np.float32(a + magic) - magic)
        low = np.float32(near - quantum) if near > a else near
        rest = np.float32(a - low)
        scaled = np.float32(rest * np.int32(to_units - np.int32(e + to_quantum)).view(np.float32))
        whole = whole_of(scaled)  # N - 1 bits: there is an instruction for signed integers everywhere
        left = np.float32(np.float32(scaled - _as_float(whole)) * np.float32(2))
        last = np.int32(left >= 1)
        left = np.float32(left - _as_float(last))
        u = np.uint32(np.int32(np.int32(whole << 1) | last))
        tie = (left == np.float32(0.5)) & ((u & np.uint32(1)) == 1)
        up = (half_is_up & (left >= np.float32(0.5))) | (even_only & ((left > np.float32(0.5)) | tie))
        random = np.uint32(words[i] & kept)
        away = _carries(np.uint32(u * one), one if up else np.uint32(0), random)
        away = (rest > 0) & (words[i] >= np.uint32(0x80000000)) if equal else away
        r = np.float32(low + quantum) if away else low
        out[i] = _finished(v, r, zero_sign, ends)


@_compile
def _round_bits_randomly(x: Any, out: Any, words: Any, plan: Any, variant: int, bits: int) -> None:
    """Round float32 bits (int32 views) to fewer mantissa bits by random words; plan as `float32_exponents`."""
    shift, ends = plan[0], ends_of(plan)
    quantum, to_top = np.int32(1 << shift), np.uint32(32 - shift)
    dropped = np.int32(quantum - np.int32(1))
    kept = np.uint32(np.uint32(0xFFFFFFFF) << np.uint32(32 - bits))
    one, half = np.uint32(~kept + np.uint32(1)), np.uint32((~kept >> np.uint32(1)) + np.uint32(bits < 32))
    half_is_up, even_only, equal = variant == 2, variant == 3, variant == 4
    for i in range(x.size):
        b = x[i]
        mag = np.int32(b & np.int32(0x7FFFFFFF))
        rest, low = np.int32(mag & dropped), np.int32(mag & np.int32(~dropped))
        fraction = np.uint32(np.uint32(rest) << to_top)
        u, left = np.uint32(fraction & kept), np.uint32(fraction & ~kept)
        tie = (left == half) & ((u & one) != 0)
        up = (half_is_up & (left >= half)) | (even_only & ((left > half) | tie))
        up &= half != 0
        away = _carries(u, np.uint32(np.uint32(up) * one), np.uint32(words[i] & kept))
        away = (rest > 0) & (words[i] >= np.uint32(0x80000000)) if equal else away
        r = np.int32(low + quantum) if away else low
        out[i] = finished_bits(b, r, ends)


@_compile
def quantize_randomly(
    x: Any,
    out: Any,
    in_bits: bool,
    integers: Any,
    floats: Any,
    variant: int,
    bits: int,
    start: int,
    key0: int,
    key1: int,
) -> None:
    """Round float32 `x` into `out`, which may be `x`; `in_bits`: exponents are float32's; `start`: first position."""
    apart = x.ctypes.data != out.ctypes.data
    buffer, words = np.empty(0 if apart else _PIECE, np.float32), np.empty(_PIECE, np.uint32)
    for i in range(0, x.size, _PIECE):
        source, sink = x[i : i + _PIECE], out[i : i + _PIECE]
        piece, random = source if apart else buffer[: source.size], words[: source.size]
        if not apart:
            for j in range(source.size):
                piece[j] = source[j]
        fill_words(random, start + i, key0, key1)
        if in_bits:
            _round_bits_randomly(piece.view(np.int32), sink.view(np.int32), random, integers, variant, bits)
        elif variant == 1:
            rounded_by_carries(piece, sink, random, integers, floats, bits)
        else:
            _round_randomly(piece, sink, random, integers, floats, variant, bits)
