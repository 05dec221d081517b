"""Pyramid vector quantization as array code: `lowp.rounding.schemes.pyramid` step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import RangeError
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_scales import iterated, scale_values, stored_scales
from lowp.rounding._portable_shapes import joined, largest
from lowp.rounding._portable_structured import any_of, summed
from lowp.rounding.request import Request
from lowp.rounding.schemes.pyramid import _starts
from lowp.rounding.schemes.scaled_integers import only_nearest

Fields = dict[str, Any]
#: Bits of the high half of a significand: its product with a number of pulses is exact.
_HIGH = ~((1 << 27) - 1)
_ALL = (1 << 64) - 1


def _times_integer(xp: Any, x: Any, n: Any) -> Any:
    """Return `x * n`, rounded once, for small integers: a sum of exact products, to which a compiler can do no harm."""
    high = doubles.from_bits(xp, doubles.bits_of(xp, x) & _HIGH)
    return high * n + (x - high) * n


def find_pulses(xp: Any, x: Any, pulses: int) -> Any:
    """Return the integer vectors that the search finds for finite numbers along the last axis, as int64."""
    size = doubles.magnitude(xp, x)
    top = doubles.from_bits(xp, largest(xp, doubles.bits_of(xp, size), (x.ndim - 1,)))
    size = doubles.quotient(xp, size, xp.where(doubles.is_zero(xp, top), 1.0, top))
    total = summed(xp, size)
    share = doubles.quotient(xp, size, xp.where(total > 0, total, 1.0))
    start = xp.cast(_times_integer(xp, share, float(pulses)), "int64")
    places = xp.iota(tuple(x.shape), x.ndim - 1, "int64", x)

    def with_pulse(y: Any) -> Any:
        chosen = xp.cast(y, "float64")
        product = summed(xp, _times_integer(xp, size, chosen)) + size
        norm = (y * y).sum(-1)[..., None] + 2 * y + 1
        gained = doubles.bits_of(xp, product * product / xp.cast(norm, "float64"))
        best = gained == largest(xp, gained, (x.ndim - 1,))
        first = -largest(xp, xp.where(best, -places, -x.shape[-1]), (x.ndim - 1,))
        left = pulses - y.sum(-1)[..., None]
        return y + xp.cast((places == first) & (left > 0), "int64")

    y = iterated(xp, with_pulse, start, pulses)
    return xp.where((doubles.bits_of(xp, x) < 0) & ~doubles.is_zero(xp, x), -y, y)


@lru_cache(maxsize=16)
def _tables(n: int, pulses: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `_starts` as signed integers: counts [m, k], and first indices [m, k, j], both flat."""
    counts, starts = _starts(n, pulses)
    return counts.view(np.int64).reshape(-1), starts.view(np.int64).reshape(-1)


def vector_index(xp: Any, y: Any, pulses: int) -> Any:
    """Return the index of vectors along the last axis, unsigned ones as int64."""
    n, wide = y.shape[-1], pulses + 1
    counts, starts = _tables(n, pulses)
    size = xp.where(y < 0, -y, y)
    index, left = xp.full_like(y[..., 0], 0), xp.full_like(y[..., 0], pulses)
    for place in range(n):
        m, j = n - place, size[..., place]
        half = xp.take(xp.constant(counts[(m - 1) * wide : m * wide], y), left - j)
        first = xp.take(xp.constant(starts[m * wide * wide : (m + 1) * wide * wide], y), left * wide + j)
        index = index + first + xp.where(y[..., place] < 0, half, 0)
        left = left - j
    return index


def _unsigned(x: Any) -> Any:
    """Return integers whose order is that of unsigned ones."""
    return x ^ -(1 << 63)


def vector_of_index(xp: Any, index: Any, n: int, pulses: int) -> Any:
    """Return the vectors of indices along a new last axis; where a compiler traces, those of no vector mean nothing."""
    wide = pulses + 1
    counts, starts = _tables(n, pulses)
    count = int(counts[n * wide + pulses])
    xp.require(
        _unsigned(index) <= _unsigned(count - 1),
        index,
        lambda: RangeError(
            f"an index is beyond the {count & (1 << 64) - 1} vectors of {n} values and {pulses} pulses."
        ),
    )
    magnitudes = xp.constant(np.arange(1, wide), index)
    rest, left, parts = index, xp.full_like(index, pulses), []
    for place in range(n):
        m = n - place
        table = xp.constant(starts[m * wide * wide : (m + 1) * wide * wide], index)
        firsts = xp.take(table, left[..., None] * wide + magnitudes)
        reached = (_unsigned(firsts) <= _unsigned(rest[..., None])) & (magnitudes <= left[..., None])
        j = xp.cast(reached, "int64").sum(-1)
        rest = rest - xp.take(table, left * wide + j)
        half = xp.take(xp.constant(counts[(m - 1) * wide : m * wide], index), left - j)
        negative = (j > 0) & (_unsigned(rest) >= _unsigned(half))
        rest = xp.where(negative, rest - half, rest)
        parts.append(xp.where(negative, -j, j)[..., None])
        left = left - j
    return joined(xp, parts, -1)


def _unit(xp: Any, y: Any, pulses: int) -> Any:
    roots = xp.constant(np.sqrt(np.arange(pulses * pulses + 1)), y)
    return doubles.quotient(xp, xp.cast(y, "float64"), xp.take(roots, (y * y).sum(-1))[..., None])


def _encode(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    pulses: int = fmt.option("pulses")
    x = doubles.widen(xp, blocks)
    bad = any_of(xp, ~doubles.is_finite(xp, x), "block")
    x = xp.where(bad, 0.0, x)
    y = find_pulses(xp, x, pulses)
    gain = summed(xp, doubles.product(xp, x, _unit(xp, y, pulses)))
    codes, _ = stored_scales(xp, xp.where(bad, math.nan, gain), fmt.option("gain"))
    return {"index": vector_index(xp, y, pulses)[..., None], "gain": codes}


def _decode(xp: Any, fields: Fields, fmt: Packed) -> Any:
    y = vector_of_index(xp, fields["index"][..., 0], fmt.block_elements, fmt.option("pulses"))
    unit = _unit(xp, y, fmt.option("pulses"))
    return doubles.product(xp, unit, scale_values(xp, fields["gain"], fmt.option("gain")))


Coders = tuple[Callable[[Any, Any, Packed, Request], Fields], Callable[[Any, Fields, Packed], Any]]
CODERS: dict[str, Coders] = {"pyramid.shape_gain": (_encode, _decode)}
