"""The Walsh-Hadamard transform of blocks of float32 or float64, compiled; stages h = 1, 2, 4, ... as `hadamard` says.

Unsigned indices are never negative, which keeps loops over neighbours vector loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_compile = njit(nogil=True, cache=True, error_model="numpy")

#: Numbers that are transformed together: they stay in the first cache.
CHUNK = 2048


@_compile
def _pairs(b: Any) -> None:
    """The stage of neighbours."""
    for k in range(np.uint64(b.size) // np.uint64(2)):
        i, j = k + k, k + k + np.uint64(1)
        u, v = b[i], b[j]
        b[i], b[j] = u + v, u - v


@_compile
def _fours(b: Any) -> None:
    """The first two stages."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for k in range(np.uint64(b.size) // np.uint64(4)):
        i = k * np.uint64(4)
        a0, a1, a2, a3 = b[i], b[i + one], b[i + two], b[i + three]
        s0, d0, s1, d1 = a0 + a1, a0 - a1, a2 + a3, a2 - a3
        b[i], b[i + one], b[i + two], b[i + three] = s0 + s1, d0 + d1, s0 - s1, d0 - d1


@_compile
def _eights(b: Any) -> None:
    """The first three stages."""
    n1, n2, n3, n4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    n5, n6, n7 = np.uint64(5), np.uint64(6), np.uint64(7)
    for k in range(np.uint64(b.size) // np.uint64(8)):
        i = k * np.uint64(8)
        a0, a1, a2, a3 = b[i], b[i + n1], b[i + n2], b[i + n3]
        a4, a5, a6, a7 = b[i + n4], b[i + n5], b[i + n6], b[i + n7]
        s0, d0, s1, d1 = a0 + a1, a0 - a1, a2 + a3, a2 - a3
        s2, d2, s3, d3 = a4 + a5, a4 - a5, a6 + a7, a6 - a7
        a0, a1, a2, a3 = s0 + s1, d0 + d1, s0 - s1, d0 - d1
        a4, a5, a6, a7 = s2 + s3, d2 + d3, s2 - s3, d2 - d3
        b[i], b[i + n1], b[i + n2], b[i + n3] = a0 + a4, a1 + a5, a2 + a6, a3 + a7
        b[i + n4], b[i + n5], b[i + n6], b[i + n7] = a0 - a4, a1 - a5, a2 - a6, a3 - a7


@_compile
def _stages(b: Any, block: Any) -> None:
    """All stages of consecutive blocks, in place."""
    if block >= 8:
        _eights(b)
    elif block == 4:
        _fours(b)
    elif block == 2:
        _pairs(b)
    h = 8
    while h < block:
        for i in range(0, b.size, 2 * h):
            first, second = b[i : i + h], b[i + h : i + 2 * h]
            for k in range(first.size):
                u, v = first[k], second[k]
                first[k], second[k] = u + v, u - v
        h *= 2


@_compile
def rotate_runs(x: Any, out: Any, signs: Any, factor: Any, inverse: Any) -> None:
    """Transform blocks that are runs of a flat array; `signs` fill a block, and apply last if `inverse`."""
    block = signs.size
    chunk = max(block, CHUNK // block * block)
    b, tiled = np.empty(chunk, x.dtype), np.empty(chunk, x.dtype)
    for k in range(chunk):
        tiled[k] = signs[k % block]
    for i in range(0, x.size, chunk):
        source, sink = x[i : i + chunk], out[i : i + chunk]
        n = source.size
        for k in range(n):
            b[k] = source[k] if inverse else source[k] * tiled[k]
        _stages(b[:n], block)
        for k in range(n):
            value = b[k] * factor
            sink[k] = value * tiled[k] if inverse else value


@_compile
def _column_stages(b: Any) -> None:
    """All stages along the first axis, two at a time."""
    block, n, h = b.shape[0], b.shape[1], 1
    while 4 * h <= block:
        for i in range(block):
            if i & (3 * h) == 0:
                r0, r1, r2, r3 = b[i, :n], b[i + h, :n], b[i + 2 * h, :n], b[i + 3 * h, :n]
                for k in range(n):
                    a0, a1, a2, a3 = r0[k], r1[k], r2[k], r3[k]
                    s0, d0, s1, d1 = a0 + a1, a0 - a1, a2 + a3, a2 - a3
                    r0[k], r1[k], r2[k], r3[k] = s0 + s1, d0 + d1, s0 - s1, d0 - d1
        h *= 4
    if h < block:
        for i in range(h):
            r0, r1 = b[i, :n], b[i + h, :n]
            for k in range(n):
                a0, a1 = r0[k], r1[k]
                r0[k], r1[k] = a0 + a1, a0 - a1


@_compile
def rotate_columns(
    x: Any, out: Any, signs: Any, factor: Any, inverse: Any, first_band: Any, last_band: Any, first: Any, last: Any
) -> None:
    """Transform blocks along the middle axis of three, for columns `first` to `last` of some bands of blocks."""
    block = signs.size
    per, step = x.shape[1] // block, max(256, 4 * CHUNK // block)
    b = np.empty((block, step), x.dtype)
    for band in range(first_band, last_band):
        source, sink = x[band // per], out[band // per]
        top = band % per * block
        for j in range(first, last, step):
            n = min(step, last - j)
            for i in range(block):
                row, line, sign = source[top + i, j : j + n], b[i, :n], signs[i]
                for k in range(n):
                    line[k] = row[k] if inverse else row[k] * sign
            _column_stages(b[:, :n])
            for i in range(block):
                row, line, sign = sink[top + i, j : j + n], b[i, :n], signs[i]
                for k in range(n):
                    value = line[k] * factor
                    row[k] = value * sign if inverse else value
