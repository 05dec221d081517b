"""Float64 rounded by a deterministic mode: as `_fast_kernels` and `_fast_directed_kernels`, with twice the width."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding._stochastic_kernels import _bits

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: Numbers in a piece.
_PIECE = 1024
_SIGN = -0x8000000000000000
_EXPONENT = 0x7FF0000000000000


@_inline
def _number(bits: Any) -> Any:
    return np.int64(bits).view(np.float64)


@_inline
def _finished(v: Any, r: Any, zero_sign: Any, floats: Any) -> Any:
    """Return a rounded magnitude with the sign of `v`; what overflow, infinity and NaN become."""
    sign = _bits(v) & np.int64(_SIGN)
    sign = sign if r != 0 else sign & zero_sign
    signed = _number(_bits(r) | sign)
    signed = floats[3] if signed > floats[0] else signed
    signed = floats[4] if signed < -floats[1] else signed
    signed = floats[5] if v == np.inf else signed
    signed = floats[6] if v == -np.inf else signed
    return v if v != v else signed


@_compile
def _round(x: Any, out: Any, integers: Any, floats: Any) -> None:
    least, raise_by, zero_sign, clip = integers[0], integers[1], integers[2], floats[2]
    ends = floats[0], floats[1], floats[2], floats[3], floats[4], floats[5], floats[6]
    for i in range(x.size):
        v = x[i]
        a = min(abs(v), clip)
        magic = _number(max(_bits(a) & np.int64(_EXPONENT), least) + raise_by)
        out[i] = _finished(v, (a + magic) - magic, zero_sign, ends)


@_compile
def _round_and_correct(x: Any, out: Any, integers: Any, floats: Any, how: Any) -> None:
    least, raise_by, zero_sign, clip = integers[0], integers[1], integers[2], floats[2]
    ends = floats[0], floats[1], floats[2], floats[3], floats[4], floats[5], floats[6]
    odd_mask, off, to_quantum = np.int64(how[0]), how[1], raise_by - (np.int64(52) << 52)
    up, up_negative, down, down_negative = how[2], how[3], how[4], how[5]
    for i in range(x.size):
        v = x[i]
        negative = _bits(v) < 0
        a = min(abs(v), clip)
        e = max(_bits(a) & np.int64(_EXPONENT), least)
        magic, quantum = _number(e + raise_by), _number(e + to_quantum)
        raised = a + magic
        near = raised - magic
        beyond, free = near - a, (_bits(raised) & odd_mask) == 0
        grows, shrinks = (up_negative if negative else up), (down_negative if negative else down)
        by = quantum * (grows if beyond < 0 else -shrinks)
        r = near + by if (abs(beyond) > quantum * off) & free else near
        out[i] = _finished(v, r, zero_sign, ends)


@_compile
def quantize_float64(x: Any, out: Any, corrects: bool, integers: Any, floats: Any, how: Any) -> None:
    """Round float64 `x` into `out`, which may be `x`; NaN passes through.

    Args:
        x: Numbers.
        out: As many.
        corrects: Whether the mode is another than ties to even.
        integers: Exponent field of the least normal number, what to add to a field for the addition, the sign bit or 0.
        floats: As those of a `FastPlan`.
        how: The mode's `Corrections`, in order.
    """
    apart = x.ctypes.data != out.ctypes.data
    buffer = np.empty(0 if apart else min(_PIECE, x.size))
    for i in range(0, x.size, _PIECE):
        source, sink = x[i : i + _PIECE], out[i : i + _PIECE]
        piece = source if apart else buffer[: source.size]
        if not apart:
            for j in range(source.size):
                piece[j] = source[j]
        if corrects:
            _round_and_correct(piece, sink, integers, floats, how)
        else:
            _round(piece, sink, integers, floats)
