"""Logarithms and powers to 200 bits as array code: numbers are words of 30 bits in int64 arrays, the least first.

A number from 0 to 1 is `WORDS` words after the point; what a list has beyond them lies before the point. A logarithm
multiplies its number by short factors until it is one plus less than 2^-28, each factor's logarithm from a table, and
ends with a series; a power takes its bits eight at a time from tables, the rest by a series. Errors stay below 2^-200.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS, WORDS = 30, 7
MASK = (1 << BITS) - 1
PLACES = BITS * WORDS
Words = list[Any]
#: Bits of the fraction that choose a factor, and bits of the factor, level by level.
_LEVELS = ((8, 10), (15, 16), (22, 23), (29, 30))
_TERMS = 7


def split(n: int, count: int = WORDS) -> list[int]:
    """Return the words of a non-negative integer."""
    return [n >> (BITS * i) & MASK for i in range(count)]


def carried(words: Words) -> Words:
    """Bring words into their range; the last one keeps what is above it, and its sign."""
    result, carry = [], 0
    for word in words[:-1]:
        total = word + carry
        result.append(total & MASK)
        carry = total >> BITS
    return [*result, words[-1] + carry]


def placed(xp: Any, n: Any, power: Any, count: int) -> Words:
    """Return the words of the integer part of `n * 2^power`, for non-negative int64 numbers."""
    parts = []
    for i in range(count):
        s = power - BITS * i
        if isinstance(s, int):
            parts.append((n << s if 0 <= s < BITS else n >> -s if -63 < s < 0 else 0 * n) & MASK)
            continue
        down, up = xp.minimum(xp.maximum(-s, 0), 62), xp.minimum(xp.maximum(s, 0), 62)
        parts.append(xp.where(s < 0, n >> down, n << up) & MASK)
    return parts


def times(a: Words, b: Words) -> Words:
    """Return the product of two numbers below 1, a little too small."""
    columns = [sum_of([a[i] * b[k - i] for i in range(k - WORDS + 1, WORDS)]) for k in range(WORDS - 1, 2 * WORDS - 1)]
    return carried([*columns, 0 * columns[-1]])[1:]


def sum_of(terms: list[Any]) -> Any:
    """Return the sum of some arrays."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def times_integer(a: Words, n: Words) -> Words:
    """Return the product of a number and an integer of words, exactly; with as many words more as the integer has."""
    size = len(a) + len(n) - 1
    columns = [sum_of([a[i] * n[k - i] for i in range(len(a)) if 0 <= k - i < len(n)]) for k in range(size)]
    return carried([*columns, 0 * columns[-1]])


def compared(a: Words, b: Words) -> tuple[Any, Any]:
    """Return where a number is larger than another, and where it is equal."""
    more, same = a[0] > b[0], a[0] == b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        more, same = (x > y) | ((x == y) & more), same & (x == y)
    return more, same


def is_zero(a: Words) -> Any:
    """Where a number is zero."""
    found = a[0] == 0
    for word in a[1:]:
        found = found & (word == 0)
    return found


@lru_cache(maxsize=1)
def arithmetic() -> Any:
    """Return the mpmath context that constants are computed in."""
    from mpmath.ctx_mp import MPContext

    context = MPContext()
    context.prec = PLACES + 90
    return context


def fixed(x: Any) -> int:
    """Return a number of `arithmetic` as an integer of units in the last place, rounded down."""
    return int(arithmetic().floor(arithmetic().ldexp(x, PLACES)))


def words_of(x: Any) -> list[int]:
    """Return the words of a number from 0 to 1."""
    return split(fixed(x))


@lru_cache(maxsize=1)
def _factors() -> tuple[NDArray[np.int64], ...]:
    """Return, level by level, how many places an index has, bits of factors, their distances from 1, minus their logs.

    Distances are in the last place of the factors, logarithms in words.
    """
    mp = arithmetic()
    short, logarithms = np.zeros((len(_LEVELS), 256), np.int64), np.zeros((len(_LEVELS), WORDS, 256), np.int64)
    for level, (places, bits) in enumerate(_LEVELS):
        for i in range(256):
            factor = -(-(1 << (bits + places)) // ((1 << places) + i))
            short[level, i] = (1 << bits) - factor
            logarithms[level, :, i] = words_of(-mp.log(mp.mpf(factor) / (1 << bits)))
    places, bits = np.array(_LEVELS).T
    return places, bits, short, logarithms


@lru_cache(maxsize=1)
def _powers() -> NDArray[np.int64]:
    """Return, level by level, the words of `2^(i / 2^(8 level + 8)) - 1`, i from 0 to 255."""
    mp = arithmetic()
    levels = range(len(_LEVELS))
    rows = [[words_of(mp.power(2, mp.mpf(i) / (1 << 8 * n + 8)) - 1) for i in range(256)] for n in levels]
    return np.array(rows, np.int64).transpose(0, 2, 1).copy()


@lru_cache(maxsize=1)
def _constants() -> tuple[list[int], list[int], NDArray[np.int64], NDArray[np.int64]]:
    """Return ln 2, log2(e) - 1, and the coefficients of both series from the last one on, without the first."""
    mp, terms = arithmetic(), range(_TERMS, 1, -1)
    logarithm_terms = np.array([words_of(mp.mpf(1) / n) for n in terms])
    power_terms = np.array([words_of(1 / mp.factorial(n)) for n in terms])
    return words_of(mp.ln2), words_of(1 / mp.ln2 - 1), logarithm_terms, power_terms


def settled(xp: Any, a: Words) -> Words:
    """Return words that XLA computes once."""
    return list(xp.computed_once(list(a)))


def _series(xp: Any, x: Words, terms: NDArray[np.int64], sign: int) -> Words:
    """Return `x + sign x^2 (c2 + sign x (c3 + ...))`, coefficients from the last one on."""

    def step(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        next_term = times(x, list(state))
        return tuple(carried([part[0][i] + sign * n for i, n in enumerate(next_term)])), None

    first = tuple(0 * word + n for word, n in zip(x, terms[0].tolist(), strict=True))
    found, _ = xp.scan(step, first, (xp.constant(terms[1:], x[0]),))
    return [a + sign * b for a, b in zip(x, times(x, times(x, list(found))), strict=True)]


def logarithm(xp: Any, fraction: Any) -> Words:
    """Return the natural logarithm of `1 + fraction / 2^52`; exactly 0 for 1."""

    def step(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        u, total = state[:WORDS], state[WORDS:]
        places, bits, short, logarithms = part
        index = u[-1] >> (BITS - places)
        d = xp.take(short, index)
        # (1 + u) (1 - d / 2^bits) = 1 + u - (1 + u) d / 2^bits
        lost = carried([*(word * d for word in u), d])
        mask = (1 << bits) - 1
        moved = [(low >> bits) | ((high & mask) << (BITS - bits)) for low, high in pairwise(lost)]
        left = carried([a - b for a, b in zip(u, moved, strict=True)])
        return (*left, *(word + xp.take(logarithms[i], index) for i, word in enumerate(total))), None

    u = placed(xp, fraction, PLACES - 52, WORDS)
    tables = tuple(xp.constant(table, fraction) for table in _factors())
    state, _ = xp.scan(step, (*u, *(0 * word for word in u)), tables)
    rest = _series(xp, settled(xp, list(state[:WORDS])), _constants()[2], -1)
    return settled(xp, carried([a + b for a, b in zip(state[WORDS:], rest, strict=True)]))


def binary_logarithm(xp: Any, fraction: Any) -> Words:
    """Return the logarithm to base 2 of `1 + fraction / 2^52`; exactly 0 for 1."""
    natural = logarithm(xp, fraction)
    return carried([a + b for a, b in zip(natural, times(natural, _constants()[1]), strict=True)])


def power_of_two(xp: Any, exponent: Words) -> Words:
    """Return `2^exponent - 1` for exponents from 0 to below 1; exactly 0 for 0."""

    def step(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        table, shift = part
        index = leading >> shift & 255
        factor = [xp.take(table[i], index) for i in range(WORDS)]
        product = times(list(state), factor)
        return tuple(carried([a + b + c for a, b, c in zip(state, factor, product, strict=True)])), None

    exponent = settled(xp, exponent)
    leading = exponent[-1] << 2 | exponent[-2] >> 28
    rest = [*exponent[:-2], exponent[-2] & ((1 << 28) - 1), 0 * leading]
    start = carried(_series(xp, settled(xp, times(rest, _constants()[0])), _constants()[3], 1))
    shifts = xp.constant(np.array([24, 16, 8, 0]), leading)
    found, _ = xp.scan(step, tuple(start), (xp.constant(_powers(), leading), shifts))
    return list(found)
