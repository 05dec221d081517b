"""Sums whose every addition is rounded in a handful of instructions, in float32 or float64; compiled.

Four terms at a time come to a row of sums, so that a sum is loaded and stored once for the four. The loops have no
branches inside; compiled for either type of number, with integers of its size.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from lowp.emulation._bitcast_kernels import bits_of, fused, number_of

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: How the kernel rounds: `(round(x * b) + s)`, `x * b + s` to nearest even; `x * b + s` toward zero.
PRODUCT_AND_SUM, SUM, SUM_TOWARD_ZERO = range(3)


@_inline
def _nearest_even(v: float, p: Any) -> Any:
    """Round to the format of a plan, ties to even, and see to what is beyond its range."""
    bits = bits_of(v)
    magic = number_of(max(bits & p.exponent_mask, p.least_field) + p.raise_by, v)
    r = number_of(bits_of((v + magic) - magic) | (bits & p.zero_sign), v)
    r = p.above if v >= p.top else r
    r = p.below if v <= p.bottom else r
    return v if v != v else r


@_inline
def _both(x: float, b: float, s: float, product: Any, p: Any) -> Any:
    return _nearest_even(_nearest_even(x * b, product) + s, p)


@_inline
def _sum(x: float, b: float, s: float, p: Any) -> Any:
    return _nearest_even(fused(x, b, s), p)


@_inline
def _truncated(x: float, b: float, s: float, p: Any) -> Any:
    return number_of(bits_of(fused(x, b, s)) & p.kept_bits, s)


@_compile
def _products_and_sums(a: Any, b: Any, s: Any, product: Any, p: Any) -> None:
    whole = a.size - a.size % 4
    for k in range(0, whole, 4):
        x0, x1, x2, x3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(s.size):
            v = _both(x1, b1[j], _both(x0, b0[j], s[j], product, p), product, p)
            s[j] = _both(x3, b3[j], _both(x2, b2[j], v, product, p), product, p)
    for k in range(whole, a.size):
        for j in range(s.size):
            s[j] = _both(a[k], b[k, j], s[j], product, p)


@_compile
def _sums(a: Any, b: Any, s: Any, p: Any) -> None:
    whole = a.size - a.size % 4
    for k in range(0, whole, 4):
        x0, x1, x2, x3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(s.size):
            s[j] = _sum(x3, b3[j], _sum(x2, b2[j], _sum(x1, b1[j], _sum(x0, b0[j], s[j], p), p), p), p)
    for k in range(whole, a.size):
        for j in range(s.size):
            s[j] = _sum(a[k], b[k, j], s[j], p)


@_compile
def _truncated_sums(a: Any, b: Any, s: Any, p: Any) -> None:
    whole = a.size - a.size % 4
    for k in range(0, whole, 4):
        x0, x1, x2, x3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for j in range(s.size):
            v = _truncated(x1, b1[j], _truncated(x0, b0[j], s[j], p), p)
            s[j] = _truncated(x3, b3[j], _truncated(x2, b2[j], v, p), p)
    for k in range(whole, a.size):
        for j in range(s.size):
            s[j] = _truncated(a[k], b[k, j], s[j], p)


@_compile
def sum_quickly(span: Any, a: Any, b: Any, s: Any, rows: int, way: int, product: Any, p: Any) -> None:
    """Replace the running sums `s` (rows, tiles, width) of the tasks in `span`, tiles of rows.

    `a`: (rows, terms). `b`: (batch, tiles, terms, width). `rows`: of each item of the batch.
    """
    tiles = s.shape[1]
    for task in range(span[0], span[1]):
        row, tile = task // tiles, task % tiles
        terms, sums = b[row // rows, tile], s[row, tile]
        if way == PRODUCT_AND_SUM:
            _products_and_sums(a[row], terms, sums, product, p)
        elif way == SUM:
            _sums(a[row], terms, sums, p)
        else:
            _truncated_sums(a[row], terms, sums, p)
