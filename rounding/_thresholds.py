"""Table formats: a rounding mode becomes one sorted list of decision points, exact in float64."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.codebook import Codebook
from lowp.rounding.modes import Rounding


class Table(NamedTuple):
    """A format under one deterministic mode: `x` becomes the entry at index `count(cuts <= x)`."""

    cuts: NDArray[np.float64]
    values: NDArray[np.float64]
    codes: NDArray[np.int64]
    nan_code: int = 0


@lru_cache(maxsize=256)
def codebook_table(fmt: Codebook, mode: Rounding) -> Table:
    """Return the decision points of a deterministic mode: the least float64 that becomes each upper entry."""
    pairs = zip(range(len(fmt.values) - 1), fmt.values, fmt.values[1:], strict=False)
    cuts = [_cut(fmt, mode, i, lower, upper) for i, lower, upper in pairs]
    return Table(np.array(cuts), np.array(fmt.values), np.array(fmt.codes))


def _cut(fmt: Codebook, mode: Rounding, index: int, lower: float, upper: float) -> float:
    if not mode.name.startswith("ties_"):
        return upper if not _directed_up(fmt, mode.name, index, lower, upper) else math.nextafter(lower, math.inf)
    if fmt.thresholds is not None:
        return math.nextafter(fmt.thresholds[index], math.inf)
    middle = (Fraction(lower) + Fraction(upper)) / 2
    rounded = float(middle)
    if Fraction(rounded) != middle:
        return rounded if Fraction(rounded) > middle else math.nextafter(rounded, math.inf)
    return rounded if _tie_up(fmt, mode.name, index, lower, upper) else math.nextafter(rounded, math.inf)


def _upper_is_away(lower: float, upper: float) -> bool:
    return abs(lower) <= abs(upper)


def _tie_up(fmt: Codebook, mode: str, index: int, lower: float, upper: float) -> bool:
    fixed = {"ties_to_positive": True, "ties_to_negative": False, "ties_to_away": _upper_is_away(lower, upper)}
    if mode in fixed:
        return fixed[mode]
    toward_zero = abs(upper) <= abs(lower)
    if mode == "ties_to_zero":
        return toward_zero
    lower_odd, upper_odd = fmt.codes[index] & 1, fmt.codes[index + 1] & 1
    if lower_odd == upper_odd:
        return toward_zero
    return upper_odd == (1 if mode == "ties_to_odd" else 0)


def _directed_up(fmt: Codebook, mode: str, index: int, lower: float, upper: float) -> bool:
    """Whether every number strictly between the neighbours goes to the upper one."""
    fixed = {"toward_positive": True, "toward_negative": False, "away_from_zero": _upper_is_away(lower, upper)}
    if mode in fixed:
        return fixed[mode]
    if mode == "toward_zero":
        return abs(upper) < abs(lower)
    lower_odd, upper_odd = fmt.codes[index] & 1, fmt.codes[index + 1] & 1
    return bool(upper_odd) if lower_odd != upper_odd else _upper_is_away(lower, upper)


def indices(x: NDArray[Any], fmt: Codebook, mode: Rounding, words: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Return the index in `fmt.values` that each number of `x` (no NaN) rounds to under a stochastic mode."""
    x = x.astype(np.float64)
    return _stochastic(x, fmt, mode, words)


def _stochastic(x: NDArray[np.float64], fmt: Codebook, mode: Rounding, words: NDArray[np.uint32]) -> NDArray[np.intp]:
    values = np.array(fmt.values)
    inside = np.clip(x, values[0], values[-1])
    low = np.clip(np.searchsorted(values, inside, side="right") - 1, 0, len(values) - 2)
    up_is_away = np.abs(values[low]) <= np.abs(values[low + 1])
    near, far = np.where(up_is_away, low, low + 1), np.where(up_is_away, low + 1, low)
    away = rounds_away(inside, values[near], values[far], mode, words)
    return np.where(away, far, near)


def rounds_away(
    x: NDArray[Any], near: NDArray[Any], far: NDArray[Any], mode: Rounding, words: NDArray[np.uint32]
) -> NDArray[np.bool_]:
    """Decide with the scaled fraction in float64, and again in rationals where that is too close to call."""
    n = mode.random_bits
    if mode.variant == 4:
        return np.asarray(((x != near) & (words >> np.uint32(31) != 0)) | (x == far))
    r = (words >> np.uint32(32 - n)).astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):  # a gap beyond float64 is decided in rationals
        nu = np.abs(x - near) / np.abs(far - near)
    scaled = np.ldexp(nu, n)
    needed = {1: (1 << n) - r, 2: (1 << n) - r - 0.5, 3: (1 << n) - r - 0.5}[mode.variant]
    away = scaled >= needed
    close = ~(np.abs(scaled - needed) > np.maximum(1e-9, 1e-12 * scaled)) | ~np.isfinite(far - near)
    for i in np.flatnonzero(close):
        exact = abs(Fraction(float(x.flat[i])) - Fraction(float(near.flat[i]))) * (1 << n)
        exact /= abs(Fraction(float(far.flat[i])) - Fraction(float(near.flat[i])))
        away.flat[i] = exact_away(exact, int(r.flat[i]), mode)
    return np.asarray(away)


def exact_away(scaled: Fraction, r: int, mode: Rounding) -> bool:
    whole = {1: math.floor(scaled), 2: math.floor(scaled + Fraction(1, 2)), 3: round(scaled)}[mode.variant]
    return whole + r >= 1 << mode.random_bits
