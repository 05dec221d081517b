"""Logarithmic numbers and logarithmic takums as array code: positions and values from 200 bits, see `_portable_long`.

A number's logarithm gives the value below it and how far it lies beyond. Positions that are exactly on a decision point
come out exact, as the logarithm of a power of the base does. Any other is irrational, and 200 bits decide as exact
arithmetic does unless it is within 2^-140 of a point, which of all float64 numbers and codes not one is expected to be:
were they random, the chance would be below 2^-50. What lies beyond both ends is compared with float64 numbers that
exact arithmetic finds.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.exact_real import Real
from lowp.formats.logarithmic import LNS
from lowp.formats.ranked import RankedFormat
from lowp.formats.takum import Takum
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding import _portable_long as long
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_bits import INFINITE, MASK, with_sign
from lowp.rounding._portable_long import BITS, PLACES, WORDS, Words
from lowp.rounding._portable_room import nan_bits
from lowp.rounding._portable_words import shift_right
from lowp.rounding._ranked_table import _least_float
from lowp.rounding.modes import ABOVE_HALF, BELOW_HALF, EXACT, HALF, Rounding
from lowp.rounding.request import Request

#: The characteristics of takums.
_LEAST, _MOST = -255, 254


class Position(NamedTuple):
    """The largest value not above a number, and `part / whole`, how far on the way to the next one the number lies."""

    rank: Any
    part: Words
    whole: Words


class Ends(NamedTuple):
    """Bits of float64 numbers.

    The least not below the first value; the least past the last one, from its successor on, or where infinity is NaN
    from itself on; the least not below the point between zero and the first value, and the least above it.
    """

    first: int
    past: int
    half_below: tuple[int, int]


def _bits(x: float) -> int:
    return int(np.array(x, np.float64).view(np.int64))


def _least(x: Any, above: bool) -> int:
    return _bits(_least_float(x, above))


@lru_cache(maxsize=64)
def _ends(fmt: RankedFormat) -> Ends:
    below = fmt.decision_point(-1)
    half = (INFINITE[64], INFINITE[64]) if below is None else (_least(below, False), _least(below, True))
    past = fmt.rank_value(fmt.ranks - 1 if fmt.infinity_is_nan else fmt.ranks)
    return Ends(_least(fmt.rank_value(0), False), _least(past, False), half)


# Where numbers lie


def _position(xp: Namespace, mag: Any, fmt: RankedFormat) -> Position:
    parts = doubles.parts_of(xp, xp.floats(mag, "float64"))
    fraction, exponent = parts.significand & doubles.FRACTION, parts.exponent + 52
    if isinstance(fmt, LNS):
        return _lns_position(xp, fraction, exponent, fmt)
    assert isinstance(fmt, Takum)
    return _takum_position(xp, fraction, exponent, fmt)


def _lns_position(xp: Namespace, fraction: Any, exponent: Any, fmt: LNS) -> Position:
    product = long.times_integer(long.binary_logarithm(xp, fraction), long.split(fmt.gamma, 3))
    whole = sum(word << (BITS * i) for i, word in enumerate(product[WORDS : WORDS + 3]))
    rank = whole + exponent * fmt.gamma - fmt.least_exponent
    beyond = long.settled(xp, product[:WORDS])
    if not fmt.linear:
        return Position(rank, [*beyond, 0 * rank], [0] * WORDS + [1])
    if fmt.gamma == 1:
        return Position(rank, [*long.placed(xp, fraction, PLACES - 52, WORDS), 0 * rank], [0] * WORDS + [1])
    mp = long.arithmetic()
    part = long.power_of_two(xp, long.times(beyond, long.words_of(mp.mpf(1) / fmt.gamma)))
    part = long.settled(xp, part)
    return Position(rank, [*part, 0 * rank], [*long.words_of(mp.expm1(mp.ln2 / fmt.gamma)), 0])


@lru_cache(maxsize=64)
def _takum_rows(fmt: Takum) -> NDArray[np.int64]:
    """Return for each characteristic: the code it begins with, fraction bits, cut bits and how many those are."""
    return np.array([(b.start, b.fraction_bits, b.cut, b.cut_bits) for b in fmt.binades(_LEAST, _MOST)], np.int64)


def _takum_position(xp: Namespace, fraction: Any, exponent: Any, fmt: Takum) -> Position:
    mp = long.arithmetic()
    natural = long.logarithm(xp, fraction)
    per_binade = long.split(long.fixed(2 * mp.ln2), WORDS + 1)
    log = long.carried([2 * a + exponent * b for a, b in zip([*natural, 0], per_binade, strict=True)])
    c = xp.minimum(xp.maximum(log[-1], _LEAST), _MOST)
    table = _takum_rows(fmt)
    start, places, cut, cut_bits = (xp.take(xp.constant(table[:, i].copy(), c), c - _LEAST) for i in range(4))
    if fmt.bits < 5:  # the regime itself is cut, and neighbours are some characteristics apart
        values = [_logarithm(fmt.rank_value(rank)) for rank in range(fmt.ranks)]
        values.append(values[-1] + 1)
        rank = xp.minimum(xp.maximum(start - 1, 0), fmt.ranks - 1)
        low = xp.take(xp.constant(np.array(values[:-1]), c), rank)
        width = xp.take(xp.constant(np.diff(values), c), rank)
        return Position(start - 1, [*log[:-1], log[-1] - low], [0] * WORDS + [width])
    far = places >= BITS
    moved = [xp.where(far, low, high) for low, high in zip([0, *log[: WORDS - 1]], log[:WORDS], strict=True)]
    steps = xp.where(far, log[WORDS - 1], 0)
    near = places - xp.where(far, BITS, 0 * places)
    shifted = long.carried([*(word << near for word in moved), steps << near])
    tail = [*shifted[:-1], cut]
    low_bits = (1 << cut_bits) - 1
    part = [(a >> cut_bits) | ((b & low_bits) << (BITS - cut_bits)) for a, b in pairwise(tail)]
    return Position(start - 1 + shifted[-1], [*part, 0 * c], [0] * WORDS + [1])


def _logarithm(x: Any) -> int:
    """Return the logarithm to base sqrt(e) of 1 or of a whole power of that base."""
    if not isinstance(x, Real):
        return 0
    ((power, _),) = x._terms  # noqa: SLF001
    return int(2 * power)


# Which way they go


def _needed(xp: Namespace, mode: Rounding, word: Any) -> tuple[Any, int]:
    """Return the position from which a stochastic mode rounds outward, as an integer times 2^-bits, and the bits."""
    n = mode.random_bits
    missing = (1 << n) - (xp.cast(shift_right(word, 32 - n), "int64") & 0xFFFFFFFF)
    return (missing, n) if mode.variant == 1 else (2 * missing - 1, n + 1)


def _reaches(part: Words, whole: Words, needed: Any, bits: int) -> tuple[Any, Any]:
    """Return where `part / whole` is above `needed / 2^bits`, and where it is equal."""
    scaled = long.times_integer(part, long.split(1 << bits, 2))
    wanted = long.times_integer(whole, [needed & long.MASK, needed >> BITS])
    return long.compared(scaled, wanted)


def _goes_out(xp: Namespace, position: Position, negative: Any, odd: Any, mode: Rounding, word: Any) -> Any:
    """Return where numbers go to the value above instead of the one below."""
    exact = long.is_zero(position.part)
    if mode.variant == 0:
        more, same = _reaches(position.part, position.whole, xp.full_like(odd, 1), 1)
        return _by_table(xp, exact, more, same, negative, odd, mode)
    if mode.variant == 4:
        return ~exact & (word < 0)
    needed, bits = _needed(xp, mode, word)
    more, same = _reaches(position.part, position.whole, needed, bits)
    if mode.variant == 3:  # half to even: an exact tie at an odd multiple stays
        same = same & (needed >> 1 & 1 == 1)
    return ~exact & (more | same)


def _by_table(xp: Namespace, exact: Any, more: Any, same: Any, negative: Any, odd: Any, mode: Rounding) -> Any:
    place = xp.where(more, ABOVE_HALF, xp.where(same, HALF, xp.full_like(odd, BELOW_HALF)))
    index = xp.where(exact, EXACT, place) * 4 + xp.cast(negative, "int64") * 2 + odd
    return (xp.full_like(odd, mode.table) >> index) & 1 == 1


def _leaves_zero(xp: Namespace, mag: Any, negative: Any, fmt: RankedFormat, mode: Rounding, word: Any) -> Any:
    """Return where numbers below the first value become it instead of zero; 0 never does."""
    none = 0 * mag
    if fmt.decision_point(-1) is None:
        return mag != 0
    if mode.variant == 0:
        at, above = _ends(fmt).half_below
        return _by_table(xp, mag == 0, mag >= above, mag >= at, negative, none, mode)
    assert isinstance(fmt, LNS)
    exponent, rest = divmod(fmt.least_exponent, fmt.gamma)
    mp = long.arithmetic()
    whole = [*long.words_of(mp.power(2, mp.mpf(rest) / fmt.gamma) - 1), 1]
    parts = doubles.parts_of(xp, xp.floats(mag, "float64"))
    below = xp.minimum(xp.maximum(exponent - 52 - parts.exponent, 0), 100)
    part = long.placed(xp, parts.significand, PLACES - 52 - below, WORDS + 1)
    return _goes_out(xp, Position(none - 1, part, whole), negative, none, mode, word)


def codes(xp: Namespace, bits: Any, fmt: RankedFormat, request: Request, word: Any) -> Any:
    """Return the codes that float64 numbers, given by their bits, become; NaN gets the one for NaN, or 0."""
    mode, ends, last = request.mode, _ends(fmt), fmt.ranks - 1
    mag, negative = bits & MASK[64], bits < 0
    small, past = mag < ends.first, (mag >= ends.past) & (mag <= INFINITE[64])
    position = _position(xp, xp.where(small | (mag >= min(ends.past, INFINITE[64])), _bits(1.0), mag), fmt)
    rank = xp.where(small | past, 0, position.rank)
    odd = (rank + (fmt.least_exponent if isinstance(fmt, LNS) else 1)) & 1
    away = _goes_out(xp, position, negative, odd, mode, word) & ~small & ~past
    beyond = past | (away & (rank >= last))
    rank = xp.where(beyond, last, rank + xp.cast(away & (rank < last), "int64"))
    rank = xp.minimum(xp.maximum(rank, 0), last)
    code = _rank_codes(xp, rank, negative, fmt)
    if fmt.zero_code is not None:
        kept = small & ~_leaves_zero(xp, mag, negative, fmt, mode, word)
        code = xp.where(kept, _as_int64(fmt.zero_code), code)
    else:
        code = xp.where(mag == 0, _as_int64(fmt.rank_code(0, False)), code)
    if fmt.nan_code is not None:
        for sign in (False, True):
            if _overflows_to_nan(fmt, request, sign):
                code = xp.where(beyond & (negative == sign), _as_int64(fmt.nan_code), code)
        if fmt.infinity_is_nan or request.overflow == "infinity_or_nan":
            code = xp.where(mag == INFINITE[64], _as_int64(fmt.nan_code), code)
    return xp.where(mag > INFINITE[64], _as_int64(fmt.nan_code or 0), code)


def _overflows_to_nan(fmt: RankedFormat, request: Request, negative: bool) -> bool:
    """Whether finite numbers that go beyond the largest value become NaN."""
    if request.overflow != "infinity_or_nan" or fmt.infinity_is_nan:
        return False
    last = fmt.rank_code(fmt.ranks - 1, negative)
    return request.mode.variant > 0 or request.mode.away(ABOVE_HALF, negative, bool(last & 1))


def _as_int64(code: int) -> int:
    return code - (1 << 64) if code >> 63 else code


def _rank_codes(xp: Namespace, rank: Any, negative: Any, fmt: RankedFormat) -> Any:
    if isinstance(fmt, LNS):
        code = (rank + fmt.least_exponent) & ((1 << (fmt.bits - 1)) - 1)
        return xp.where(negative, code | _as_int64(1 << (fmt.bits - 1)), code)
    code = xp.where(negative, -(rank + 1), rank + 1)
    return code if fmt.bits == 64 else code & ((1 << fmt.bits) - 1)


# Values


def values(xp: Namespace, numbers: Any, fmt: RankedFormat) -> Any:
    """Return the bits of the float64 numbers nearest to the values of int64 codes."""
    negative = numbers >> (fmt.bits - 1) & 1 == 1
    if isinstance(fmt, LNS):
        low = numbers & ((1 << (fmt.bits - 1)) - 1)
        zero = low == (-1 if fmt.zero_code is None else fmt.zero_code)
        whole, fraction = _lns_exponents(xp, low, fmt)
        nan = zero & negative
    else:
        assert isinstance(fmt, Takum)
        size = xp.where(negative, -numbers, numbers) & (MASK[64] if fmt.bits == 64 else (1 << fmt.bits) - 1)
        nan = negative & ((size == 0) | (size > fmt.ranks))
        zero = (size == 0) & ~nan
        whole, fraction = _takum_exponents(xp, size, fmt)
    found = _power(xp, whole, fraction)
    found = with_sign(xp, xp.where(zero, 0, found), negative)
    return xp.where(nan, nan_bits("float64"), found)


def _lns_exponents(xp: Namespace, low: Any, fmt: LNS) -> tuple[Any, Words]:
    k = low - ((low >> (fmt.bits - 2)) << (fmt.bits - 1)) if fmt.signed_exponent else low
    places = fmt.gamma.bit_length() - 1
    if fmt.gamma == 1 << places:
        whole = k >> places
        return whole, long.placed(xp, k - (whole << places), xp.full_like(k, PLACES - places), WORDS)
    whole = k // fmt.gamma
    rest = k - whole * fmt.gamma
    words = [rest >> (BITS * i) & long.MASK for i in range(3)]
    return whole, long.times_integer(long.words_of(long.arithmetic().mpf(1) / fmt.gamma), words)[:WORDS]


def _takum_exponents(xp: Namespace, size: Any, fmt: Takum) -> tuple[Any, Words]:
    from lowp.rounding._portable_tables import count_below

    rows = _takum_rows(fmt)
    index = xp.maximum(count_below(xp, size, rows[:, 0].copy()) - 1, 0)
    start, places = (xp.take(xp.constant(rows[:, i].copy(), size), index) for i in range(2))
    fraction = long.placed(xp, xp.maximum(size - start, 0), PLACES - places, WORDS)
    factor = long.words_of(1 / (2 * long.arithmetic().ln2))
    c = xp.cast(index, "int64") + _LEAST
    product = [a + c * b for a, b in zip(long.times(fraction, factor), factor, strict=True)]
    words = long.carried([*product, 0 * c])
    return words[-1], words[:-1]


def _power(xp: Namespace, whole: Any, fraction: Words) -> Any:
    """Return the bits of the float64 nearest to `2^(whole + fraction)`, rounded once; beyond the range infinity."""
    p = long.power_of_two(xp, fraction)
    top = 1 << 55 | p[-1] << 25 | p[-2] >> 5
    sticky = xp.cast(~long.is_zero([p[-2] & 31, *p[:-2]]), "int64")
    kept, rest = top >> 3, (top & 7) << 1 | sticky
    kept = kept + xp.cast((rest > 8) | ((rest == 8) & (kept & 1 == 1)), "int64")
    carry = kept >> 53
    parts = doubles.Parts(kept >> carry, whole - 52 + carry)
    tiny = doubles.Parts(top << 1 | sticky, whole - 56)
    return xp.bits(doubles.from_parts(xp, parts, 0, tiny))
