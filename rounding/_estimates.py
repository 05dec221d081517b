"""Ranked formats, number by number: the position between two neighbours in float64, exactly where that is too close."""

from __future__ import annotations

import math
from fractions import Fraction
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
#: Beyond this many bits an estimate in float64 says nothing of the last ones.
_CLOSE_BITS = 44


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
    away, sure = _by_estimate(
        nu, doubt, flat < 0, (rank + 1 if isinstance(fmt, TaperedFormat) else _k(rank, fmt)) & 1, request.mode, random
    )
    rank = rank + away
    codes = _codes(rank, flat < 0, fmt)
    decided: dict[tuple[float, int], int] = {}
    for i in np.flatnonzero(~(inside & sure)):
        case = float(flat[i]), 0 if random is None else int(random[i])
        if case not in decided:
            decided[case] = _exactly(case[0], fmt, request, case[1], int(rank[i]))
        codes[i] = decided[case]
    return codes.reshape(x.shape)


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
    if fmt.bits > _CLOSE_BITS:
        hint = _close_rank(m, fmt)
    near, far = min(max(hint - 2, low), high), max(min(hint + 3, high), low)
    if fmt.rank_value(near) <= m < fmt.rank_value(far):
        low, high = near, far
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if m >= fmt.rank_value(middle) else (low, middle)
    return low


def _close_rank(m: Fraction, fmt: RankedFormat) -> int:
    """Return the rank of the value below `m`, give or take one, where float64 cannot: from a logarithm of 128 bits."""
    from mpmath.ctx_mp import MPContext

    mp = MPContext()
    mp.prec = 128
    log = mp.log(mp.mpf(m.numerator) / m.denominator)
    if isinstance(fmt, LNS):
        return int(mp.floor(log / mp.log(2) * fmt.gamma)) - fmt.least_exponent
    c = min(max(int(mp.floor(2 * log)), -255), 254)
    (binade,) = fmt.binades(c, c)  # type: ignore[attr-defined]
    string = (binade.start << binade.cut_bits | binade.cut) + (2 * log - c) * 2**binade.fraction_bits
    return int(mp.floor(string / 2**binade.cut_bits)) - 1


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
    n = mode.random_bits
    missing = (1 << n) - (word >> (32 - n))
    needed = Fraction(missing, 1 << n) - (0 if mode.variant == 1 else Fraction(1, 2 << n))
    point = _between(low, fmt.rank_value(rank + 1), needed, fmt)
    return bool(m > point or (m == point and not (mode.variant == 3 and missing & 1)))  # C: half to even


def _between(low: Fraction | Real, high: Fraction | Real, part: Fraction, fmt: RankedFormat) -> Real:
    """Return the number that part of the way from `low` to `high`, in the domain that the format rounds in."""
    if low == 0 or (isinstance(fmt, LNS) and fmt.linear):
        return Real.of(low) + (Real.of(high) - low) * part
    return Real.of(low) * (Real.of(high) / low).to_power(part)
