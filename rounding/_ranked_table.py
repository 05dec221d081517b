"""Logarithmic formats of at most 16 bits as sorted tables of decision points."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lowp.formats.exact_real import Real
from lowp.formats.logarithms import approximations, nearest_floats
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import to_float
from lowp.rounding._thresholds import Table
from lowp.rounding.modes import ABOVE_HALF, BELOW_HALF, HALF, Rounding

#: Which number a rounding mode switches at, between one value and the next one outward.
_LOWER, _MIDDLE, _UPPER = range(3)


@lru_cache(maxsize=64)
def ranked_table(fmt: RankedFormat, mode: Rounding, overflow: str) -> Table:
    """Return entries in ascending order: negative infinity and overflow, negative values, zero, the mirror image."""
    ranks = range(fmt.ranks)
    positive = nearest_floats(fmt, np.arange(fmt.ranks))
    below, above = (_cuts(fmt, mode, overflow, negative) for negative in (True, False))
    ends_below, ends_above = (_ends(fmt, mode, overflow, negative) for negative in (True, False))
    zero = (0.0, fmt.zero_code) if fmt.zero_code is not None else (positive[0], fmt.rank_code(0, False))
    values = [*(v for v, _ in reversed(ends_below)), *-positive[::-1], zero[0], *positive, *(v for v, _ in ends_above)]
    codes = [*(c for _, c in reversed(ends_below)), *(fmt.rank_code(rank, True) for rank in reversed(ranks)), zero[1]]
    codes += [*(fmt.rank_code(rank, False) for rank in ranks), *(c for _, c in ends_above)]
    mirrored = -np.nextafter(below, 0.0)[::-1] + 0.0  # the least number that is not yet outward
    return Table(np.concatenate([mirrored, above]), np.array(values), np.array(codes), fmt.nan_code or 0)


def _ends(fmt: RankedFormat, mode: Rounding, overflow: str, negative: bool) -> list[tuple[float, int]]:
    """Return value and code of what lies past the largest value: a finite number, and infinity."""
    largest, code = to_float(fmt.rank_value(fmt.ranks - 1)), fmt.rank_code(fmt.ranks - 1, negative)
    last, nan = (-largest if negative else largest, code), (math.nan, fmt.nan_code or 0)
    infinity = fmt.infinity_is_nan or (overflow == "infinity_or_nan" and fmt.nan_code is not None)
    return [nan if _leaves(fmt, mode, overflow, negative) else last, nan if infinity else last]


def _leaves(fmt: RankedFormat, mode: Rounding, overflow: str, negative: bool) -> bool:
    """Whether finite numbers can overflow to NaN."""
    if overflow != "infinity_or_nan" or fmt.nan_code is None or fmt.infinity_is_nan:
        return False
    return mode.away(ABOVE_HALF, negative, bool(fmt.rank_code(fmt.ranks - 1, negative) & 1))


def _cuts(fmt: RankedFormat, mode: Rounding, overflow: str, negative: bool) -> NDArray[np.float64]:
    """Return, for one sign, the least magnitude that leaves each entry outward: zero, each value, the overflow."""
    cuts = np.full(fmt.ranks + 2, np.inf)
    cuts[0] = _from_zero(fmt, mode, negative)
    last = fmt.ranks if _leaves(fmt, mode, overflow, negative) else fmt.ranks - 1
    ranks = np.arange(last)
    odd = np.array([fmt.rank_code(min(rank, fmt.ranks - 1), negative) & 1 for rank in range(last)], bool)
    for parity in (False, True):
        chosen = ranks[odd == parity]
        which = _switch(mode, negative, parity)
        above = which == _LOWER or (which == _MIDDLE and not mode.away(HALF, negative, parity))
        cuts[chosen + 1] = _least_floats(fmt, chosen, which, above)
    return cuts


def _switch(mode: Rounding, negative: bool, odd: bool) -> int:
    if mode.away(BELOW_HALF, negative, odd):
        return _LOWER
    return _MIDDLE if mode.away(ABOVE_HALF, negative, odd) else _UPPER


def _from_zero(fmt: RankedFormat, mode: Rounding, negative: bool) -> float:
    decision = fmt.decision_point(-1)
    if decision is None:
        return 5e-324
    which = _switch(mode, negative, False)
    if which == _LOWER:
        return 5e-324
    above = which == _MIDDLE and not mode.away(HALF, negative, False)
    return _least_float(decision if which == _MIDDLE else fmt.rank_value(0), above)


def _least_floats(fmt: RankedFormat, ranks: NDArray[np.int64], which: int, above: bool) -> NDArray[np.float64]:
    """Return the least float64 not below, or above, the values of ranks, the next values, or the points between."""
    shifted = ranks + 1 if which == _UPPER else ranks
    x, error = approximations(fmt, shifted, half=which == _MIDDLE)
    with np.errstate(over="ignore", under="ignore"):
        nearest = x.astype(np.float64)
    result = np.where(nearest > x, nearest, np.nextafter(nearest, np.inf))
    for i in np.flatnonzero(~(np.abs(nearest - x) > error) | ~np.isfinite(nearest) | (nearest == 0)):
        rank = int(shifted[i])
        exact = fmt.decision_point(rank) if which == _MIDDLE else fmt.rank_value(rank)
        assert exact is not None
        result[i] = _least_float(exact, above)
    return result


def _least_float(x: Fraction | Real, above: bool) -> float:
    nearest = to_float(x)
    if math.isinf(nearest):
        return nearest
    exact = Fraction(nearest)
    return nearest if exact > x or (exact == x and not above) else math.nextafter(nearest, math.inf)
