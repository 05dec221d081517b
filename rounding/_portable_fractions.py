"""Stochastic rounding between neighbours that are no grid: an exact comparison of products, in words of 30 bits.

A number lies the fraction nu = A / D of the way from the neighbour nearer zero to the other; mode A asks whether
A 2^N >= (2^N - R) D, and B and C the same one bit finer. A and D are counted in the last place of the neighbours.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.codebook import Codebook
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_bits import MASK, order_keys
from lowp.rounding._portable_words import shift_right
from lowp.rounding.modes import Rounding

#: Bits of a word; the last word of a number holds all the rest, and its sign.
_BITS = 30
_MASK = (1 << _BITS) - 1
_WORDS = 4
#: The neighbours, counted in their last place, must be smaller than this, so that products have room in four words.
LIMIT = 1 << 88


class Gap(NamedTuple):
    """Two neighbours as integers times `2^unit`."""

    near: int
    far: int
    unit: int


def gap_of(near: Fraction, far: Fraction) -> Gap | None:
    """Return two neighbours as integers; None where they are too far apart for that."""
    unit = min(_last_place(v) for v in (near, far) if v)
    whole = [v / Fraction(2) ** unit for v in (near, far)]
    if any(abs(v) >= LIMIT for v in whole):
        return None
    return Gap(int(whole[0]), int(whole[1]), unit)


def _last_place(v: Fraction) -> int:
    twos = (v.numerator & -v.numerator).bit_length() - 1
    return twos - (v.denominator.bit_length() - 1)


def extra_bits(mode: Rounding) -> int:
    """Return how many bits of the fraction a mode looks at."""
    return mode.random_bits + (mode.variant != 1)


def product_words(gaps: list[Gap], mode: Rounding) -> NDArray[np.int64]:
    """Return for each gap: sign of the way out, unit, and in words the nearer neighbour times 2^bits and the width."""
    rows = []
    for near, far, unit in gaps:
        sign = 1 if far > near else -1
        start = (sign * near) << extra_bits(mode)
        rows.append((sign, unit, *_in_words(start), *_in_words(abs(far - near))))
    return np.array(rows, np.int64)


def _in_words(n: int) -> list[int]:
    parts = [n >> (_BITS * i) & _MASK for i in range(_WORDS - 1)]
    return [*parts, n >> (_BITS * (_WORDS - 1))]


def _carried(parts: list[Any]) -> list[Any]:
    """Bring words into range, the last one but for its size."""
    result, carry = [], 0
    for part in parts[:-1]:
        total = part + carry
        result.append(total & _MASK)
        carry = total >> _BITS
    return [*result, parts[-1] + carry]


def _shifted(xp: Namespace, z: Any, t: Any) -> list[Any]:
    """Return the words of floor(z * 2^t)."""
    parts = []
    for i in range(_WORDS):
        s = t - _BITS * i
        moved = xp.where(s < 0, z >> xp.minimum(xp.maximum(-s, 0), 62), z << xp.minimum(xp.maximum(s, 0), 62))
        parts.append(moved & _MASK if i < _WORDS - 1 else moved)
    return parts


def goes_far(xp: Namespace, significand: Any, place: Any, row: tuple[Any, ...], mode: Rounding, word: Any) -> Any:
    """Return where the numbers `significand * 2^place` go to the farther neighbour, under mode A, B or C.

    Args:
        xp: Namespace.
        significand: Signed int64 of at most 53 bits.
        place: Exponent of its last bit.
        row: The columns of `product_words`, one entry for each number.
        mode: Stochastic mode.
        word: Random words.
    """
    sign, unit, start, width = row[0], row[1], row[2 : 2 + _WORDS], row[2 + _WORDS :]
    z, t = significand * sign, place - unit + extra_bits(mode)
    passed = _carried([a - b for a, b in zip(_shifted(xp, z, t), start, strict=True)])
    n = mode.random_bits
    missing = (1 << n) - (xp.cast(shift_right(word, 32 - n), "int64") & 0xFFFFFFFF)
    needed = missing if mode.variant == 1 else 2 * missing - 1
    wanted = _carried([needed * part for part in width])
    more, same = passed[0] > wanted[0], passed[0] == wanted[0]
    for a, b in zip(passed[1:], wanted[1:], strict=True):
        more, same = (a > b) | ((a == b) & more), same & (a == b)
    away = more | same
    if mode.variant == 3:  # half to even: an exact tie at an odd multiple stays
        down = xp.minimum(xp.maximum(-t, 0), 62)
        exact = (z >> down) << down == z
        away = away & ~(same & exact & (missing & 1 == 1))
    return away


@lru_cache(maxsize=64)
def _codebook_gaps(fmt: Codebook, mode: Rounding) -> NDArray[np.int64]:
    gaps = []
    for lower, upper in zip(fmt.values, fmt.values[1:], strict=False):
        near, far = (lower, upper) if abs(lower) <= abs(upper) else (upper, lower)
        gaps.append(gap_of(Fraction(near), Fraction(far)))
    if None in gaps:
        raise ArgumentError(
            f"fmt={fmt.name!r} with rounding={mode.name!r} has neighbours whose sizes lie too far apart for its "
            "integers; use lowp.quantize or lowp.encode with NumPy."
        )
    return product_words([gap for gap in gaps if gap is not None], mode)


@lru_cache(maxsize=64)
def _codebook_keys(fmt: Codebook) -> NDArray[np.int64]:
    bits = np.array(fmt.values).view(np.int64)
    return np.where(bits < 0, -(bits & MASK[64]), bits)


def codebook_index(xp: Namespace, bits: Any, fmt: Codebook, mode: Rounding, word: Any) -> Any:
    """Return the index in `fmt.values` that float64 bits become under a stochastic mode; NaN gives any."""
    from lowp.rounding._portable_tables import count_below

    ends = np.array([fmt.values[0], fmt.values[-1]]).view(np.int64)
    keys, values = order_keys(xp, bits), _codebook_keys(fmt)
    inside = xp.where(keys < int(values[0]), int(ends[0]), xp.where(keys > int(values[-1]), int(ends[1]), bits))
    keys = order_keys(xp, inside)
    low = xp.minimum(xp.maximum(count_below(xp, keys, values) - 1, 0), len(values) - 2)
    outward = np.abs(np.array(fmt.values)[:-1]) <= np.abs(np.array(fmt.values)[1:])
    upward = xp.take(xp.constant(outward, bits), low)
    if mode.variant == 4:
        table = xp.constant(values, bits)
        lower, upper = xp.take(table, low), xp.take(table, low + 1)
        near, far = xp.where(upward, lower, upper), xp.where(upward, upper, lower)
        away = ((keys != near) & (word < 0)) | (keys == far)
    else:
        rows = _codebook_gaps(fmt, mode)
        row = tuple(xp.take(xp.constant(rows[:, i].copy(), bits), low) for i in range(rows.shape[1]))
        mag = inside & MASK[64]
        field = mag >> 52
        significand = xp.where(field > 0, mag & ((1 << 52) - 1) | 1 << 52, mag)
        significand = xp.where(inside < 0, -significand, significand)
        away = goes_far(xp, significand, xp.maximum(field, 1) - 1075, row, mode, word)
    return low + xp.cast(away == upward, "int32")
