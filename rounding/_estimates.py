"""Ranked formats, number by number: the position between two neighbours in float64, exactly where that is too close."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.exact_real import Real
from lowp.formats.logarithmic import LNS
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.tables import code_dtype, decode_codes
from lowp.formats.takum import Takum
from lowp.rounding import _tapered, _thresholds
from lowp.rounding.modes import ABOVE_HALF, BELOW_HALF, HALF, Rounding, rounding
from lowp.rounding.random_bits import words
from lowp.rounding.request import Request

_TOWARD_ZERO, _AWAY = rounding("toward_zero"), rounding("away_from_zero")
_QUIET = np.errstate(all="ignore")
#: A position of at most 64 bits before the point is known better than this from a logarithm of 192 bits.
_TOO_CLOSE = 2.0**-100


@_QUIET
def encode(x: NDArray[np.float64], fmt: RankedFormat, request: Request, start: int) -> NDArray[Any]:
    """Return the codes of float64 numbers."""
    flat = x.reshape(-1)
    random = np.asarray(words((request.key0, request.key1), start, flat.size)) if request.mode.variant else None
    if isinstance(fmt, TaperedFormat) and not is_logarithmic(fmt):
        assert random is not None
        return _linear(flat, fmt, request.mode, random).reshape(x.shape)
    magnitude = np.abs(flat)
    low, high = fmt.rank_value(0), fmt.rank_value(fmt.ranks - 1)
    inside = (magnitude > _upper(low)) & (magnitude < _lower(high))
    rank, nu, doubt = _positions(np.where(inside, magnitude, 1.0), fmt)
    doubt = doubt if _is_logarithmic_position(fmt) or isinstance(fmt, LNS) else np.ones_like(doubt)
    away, sure = _by_estimate(
        nu, doubt, flat < 0, (rank + 1 if isinstance(fmt, TaperedFormat) else _k(rank, fmt)) & 1, request.mode, random
    )
    rank = rank + away
    codes = _codes(rank, flat < 0, fmt)
    decide = _Decisions(fmt, request)
    for i in np.flatnonzero(~(inside & sure)):
        word = 0 if random is None else int(random[i])
        codes[i] = decide(float(flat[i]), word, int(rank[i]) if inside[i] else None)
    return codes.reshape(x.shape)


class _Decisions:
    """The codes of numbers that an estimate cannot decide, each decided once."""

    def __init__(self, fmt: RankedFormat, request: Request) -> None:
        self._fmt, self._request = fmt, request
        self._known: dict[tuple[float, int], int] = {}
        self._values: dict[float, int] = {}

    def __call__(self, x: float, word: int, hint: int | None) -> int:
        """Return the code of `x`; `hint` is a rank near it where it lies within the range."""
        if x in self._values:
            return self._values[x]
        if (x, word) not in self._known:
            fmt, negative = self._fmt, x < 0
            rank = None if hint is None else _closely(abs(x), fmt, self._request.mode, negative, word)
            if rank is None:
                code = _exactly(x, fmt, self._request, word, hint or 0)
                if math.isfinite(x) and fmt.meaning(code) == Fraction(x):  # a value, whatever the random word
                    self._values[x] = code
            else:
                code = fmt.rank_code(rank, negative)
            self._known[x, word] = code
        return self._known[x, word]


def _linear(x: NDArray[Any], fmt: TaperedFormat, mode: Rounding, random: NDArray[np.uint32]) -> NDArray[Any]:
    """Stochastic rounding between neighbours that float64 holds: those of a float64 number always do."""
    near_codes, far_codes = (_tapered.encode(x, fmt, m) for m in (_TOWARD_ZERO, _AWAY))
    near, far = decode_codes(near_codes, fmt), decode_codes(far_codes, fmt)
    between = np.isfinite(near) & (near != far) & (x != near)
    safe = np.where(between, x, 1.0), np.where(between, near, 1.0), np.where(between, far, 2.0)
    away = between & _thresholds.rounds_away(*safe, mode, random)
    return np.where(away, far_codes, near_codes)


def _positions(m: NDArray[np.float64], fmt: RankedFormat) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return rank of the lower neighbour, position between the neighbours, and a bound on its error."""
    if isinstance(fmt, LNS):
        logarithm = np.log2(m)
        p = logarithm * fmt.gamma - fmt.least_exponent
        doubt = (np.abs(logarithm) * fmt.gamma + fmt.gamma + np.abs(p)) * 2.0**-49
    else:
        assert isinstance(fmt, Takum)
        p, doubt = _takum_position(m, fmt)
    rank = np.floor(p)
    nu = p - rank
    if isinstance(fmt, LNS) and fmt.linear:
        nu, doubt = np.expm1(nu * (math.log(2) / fmt.gamma)) / math.expm1(math.log(2) / fmt.gamma), doubt * 8 + 2.0**-40
    return np.clip(rank, -1, fmt.ranks - 1).astype(np.int64), nu, doubt


def _takum_position(m: NDArray[np.float64], fmt: Takum) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the bit string of a logarithmic takum as a real number, less one: its rank with a fraction."""
    log = 2 * np.log(m)
    c = np.clip(np.floor(log), -255, 254).astype(np.int64)
    binades = list(fmt.binades(-255, 254))
    starts = np.array([math.ldexp((b.start << b.cut_bits) | b.cut, -b.cut_bits) for b in binades])
    slopes = np.array([math.ldexp(1.0, b.fraction_bits - b.cut_bits) for b in binades])
    p = starts[c + 255] + (log - c) * slopes[c + 255] - 1
    return p, (np.abs(log) * slopes[c + 255] + np.abs(p) + 1) * 2.0**-49


def _k(rank: NDArray[Any], fmt: RankedFormat) -> NDArray[Any]:
    assert isinstance(fmt, LNS)
    return rank + (fmt.least_exponent & 1)


def _by_estimate(
    nu: NDArray[Any], doubt: NDArray[Any], negative: NDArray[Any], odd: NDArray[Any], mode: Rounding, random: Any
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each position rounds outward, and whether that is certain."""
    sure = (nu > doubt) & (nu < 1 - doubt)
    if mode.variant == 0:
        index = np.where(nu > 0.5, ABOVE_HALF, BELOW_HALF) * 4 + negative * 2 + odd
        far_from_half = np.abs(nu - 0.5) > doubt
        # rounding to nearest, a number next to a value becomes that value from either side
        return (mode.table >> index & 1) != 0, far_from_half & (sure | mode.name.startswith("ties_"))
    if mode.variant == 4:
        return random >> np.uint32(31) != 0, sure
    n = mode.random_bits
    needed = np.ldexp(
        (1 << n) - (random >> np.uint32(32 - n)).astype(np.float64) - (0 if mode.variant == 1 else 0.5), -n
    )
    return nu >= needed, sure & (np.abs(nu - needed) > doubt + 2.0**-50)


def _codes(rank: NDArray[Any], negative: NDArray[Any], fmt: RankedFormat) -> NDArray[Any]:
    kept = np.clip(rank, 0, fmt.ranks - 1)
    if isinstance(fmt, LNS):
        codes = (kept + fmt.least_exponent) & ((1 << (fmt.bits - 1)) - 1)
        codes = codes.astype(np.uint64) | negative.astype(np.uint64) << np.uint64(fmt.bits - 1)
    else:
        codes = np.where(negative, -(kept + 1), kept + 1).astype(np.uint64) & np.uint64((1 << fmt.bits) - 1)
    return np.asarray(codes.astype(code_dtype(fmt.bits)))


def _upper(x: Fraction | Real) -> float:
    return math.nextafter(float(x), math.inf)


def _lower(x: Fraction | Real) -> float:
    try:
        return math.nextafter(float(x), 0.0)
    except OverflowError:
        return math.inf


def _exactly(x: float, fmt: RankedFormat, request: Request, word: int, hint: int) -> int:
    """Return the code of one number, by exact comparisons."""
    nan, negative, m = fmt.nan_code or 0, x < 0, abs(x)
    if math.isnan(x) or (
        math.isinf(x) and (fmt.infinity_is_nan or (request.overflow == "infinity_or_nan" and fmt.nan_code is not None))
    ):
        return nan
    if m == 0:
        return fmt.rank_code(0, False) if fmt.zero_code is None else fmt.zero_code
    if math.isinf(m):
        return fmt.rank_code(fmt.ranks - 1, negative)
    exact = Fraction(m)
    rank = _rank_below(exact, fmt, hint)
    rank += _outward(exact, rank, fmt, request.mode, negative, word)
    if rank < 0:
        return fmt.rank_code(0, negative) if fmt.decision_point(-1) is None else _zero(fmt)
    if rank < fmt.ranks:
        return fmt.rank_code(rank, negative)
    last = fmt.rank_code(fmt.ranks - 1, negative)
    outward = request.mode.variant > 0 or request.mode.away(ABOVE_HALF, negative, bool(last & 1))
    beyond = outward and request.overflow == "infinity_or_nan" and fmt.nan_code is not None
    return nan if beyond else last


def _zero(fmt: RankedFormat) -> int:
    assert fmt.zero_code is not None
    return fmt.zero_code


def _rank_below(m: Fraction, fmt: RankedFormat, hint: int) -> int:
    """Return the rank of the largest value not above `m`, -1 below all, `ranks` from the next power on."""
    if m < fmt.rank_value(0):
        return -1
    if m >= fmt.rank_value(fmt.ranks - 1):
        return fmt.ranks if not fmt.infinity_is_nan and m >= fmt.rank_value(fmt.ranks) else fmt.ranks - 1
    low, high = 0, fmt.ranks - 1
    near, far = min(max(hint - 2, low), high), max(min(hint + 3, high), low)
    if fmt.rank_value(near) <= m < fmt.rank_value(far):
        low, high = near, far
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if m >= fmt.rank_value(middle) else (low, middle)
    return low


def _closely(m: float, fmt: RankedFormat, mode: Rounding, negative: bool, word: int) -> int | None:
    """Return the rank that a number becomes, from a logarithm of 192 bits.

    None where that is too close to call, or where the position between two values is not that of the logarithms.
    """
    if not _is_logarithmic_position(fmt):
        return None
    mp = _arithmetic()
    log = mp.log(mp.mpf(m))
    if isinstance(fmt, LNS):
        position = log / mp.ln2 * fmt.gamma - fmt.least_exponent
    else:
        assert isinstance(fmt, Takum)
        c = min(max(int(mp.floor(2 * log)), -255), 254)
        (binade,) = fmt.binades(c, c)
        string = (binade.start << binade.cut_bits | binade.cut) + (2 * log - c) * 2**binade.fraction_bits
        position = string / 2**binade.cut_bits - 1
    rank = int(mp.floor(position))
    nu = position - rank
    needed = _needed(mode, word) if mode.variant in (1, 2, 3) else Fraction(1, 2)
    nearest = mode.name.startswith("ties_")
    turns = [mp.mpf(needed.numerator) / needed.denominator] + ([] if nearest else [mp.mpf(0), mp.mpf(1)])
    if min(abs(nu - turn) for turn in turns) < _TOO_CLOSE or not 0 <= rank < fmt.ranks - 1:
        return None
    if mode.variant == 0:
        odd = bool(fmt.rank_code(rank, negative) & 1)
        return rank + mode.away(ABOVE_HALF if nu > turns[0] else BELOW_HALF, negative, odd)
    return rank + (word >> 31 if mode.variant == 4 else int(nu > turns[0]))


def _is_logarithmic_position(fmt: RankedFormat) -> bool:
    """Whether positions between two values are those of the logarithms: not where bits of a takum's regime are cut."""
    return not fmt.linear if isinstance(fmt, LNS) else fmt.bits >= 5


@lru_cache(maxsize=1)
def _arithmetic() -> Any:
    from mpmath.ctx_mp import MPContext

    context = MPContext()
    context.prec = 192
    return context


def _needed(mode: Rounding, word: int) -> Fraction:
    """Return the position from which a stochastic mode rounds outward."""
    n = mode.random_bits
    missing = (1 << n) - (word >> (32 - n))
    return Fraction(missing, 1 << n) - (0 if mode.variant == 1 else Fraction(1, 2 << n))


def _outward(m: Fraction, rank: int, fmt: RankedFormat, mode: Rounding, negative: bool, word: int) -> bool:
    """Whether a number at or above the value of `rank` (-1: zero) goes to the next one outward."""
    low = Fraction(0) if rank < 0 else fmt.rank_value(rank)
    if m == low or rank >= fmt.ranks or (rank < 0 and fmt.decision_point(-1) is None):
        return False
    if fmt.infinity_is_nan and rank == fmt.ranks - 1:
        return False
    odd = rank >= 0 and bool(fmt.rank_code(min(rank, fmt.ranks - 1), negative) & 1)
    if mode.variant == 0:
        decision = fmt.decision_point(rank)
        assert decision is not None
        position = HALF if m == decision else ABOVE_HALF if m > decision else BELOW_HALF
        return mode.away(position, negative, odd)
    if mode.variant == 4:
        return word >> 31 == 1
    point = _between(low, fmt.rank_value(rank + 1), _needed(mode, word), fmt)
    odd_multiple = (word >> (32 - mode.random_bits)) & 1
    return bool(m > point or (m == point and not (mode.variant == 3 and odd_multiple)))  # C: half to even


def _between(low: Fraction | Real, high: Fraction | Real, part: Fraction, fmt: RankedFormat) -> Real:
    """Return the number that part of the way from `low` to `high`, in the domain that the format rounds in."""
    if low == 0 or (isinstance(fmt, LNS) and fmt.linear):
        return Real.of(low) + (Real.of(high) - low) * part
    return Real.of(low) * (Real.of(high) / low).to_power(part)
