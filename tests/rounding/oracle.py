"""The exact oracle at array speed: its decisions at every possible turning point, then a search.

Between two neighbouring values a deterministic mode turns from the lower to the upper one at one point: just above the
lower value, at the midpoint, just above it, or at the upper value. The oracle is asked at each of them; nothing of
the fast paths is used.
"""

import math
import sys
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np

from lowp.formats.spec import ScalarFormat, finite_values
from lowp.rounding import exact


@lru_cache(maxsize=64)
def turning_points(fmt: ScalarFormat, mode: str, overflow: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ascending float64 numbers and the code of every number from each of them up to the next."""
    probes = sorted(_probes(fmt))
    codes = [exact.encode(p, fmt, mode, overflow, nan="max") for p in probes]
    return np.array(probes), np.array(codes)


def _probes(fmt: ScalarFormat) -> set[float]:
    values = finite_values(fmt)
    grid = sorted({*values, *(-v for v in values), Fraction(0), *_beyond(values)})
    points = {-math.inf, math.inf, -sys.float_info.max, sys.float_info.max}
    for lower, upper in pairwise(grid):
        middle = (lower + upper) / 2
        for candidate in (lower, middle, upper):
            point = float(candidate)
            points |= {point, math.nextafter(point, math.inf), math.nextafter(point, -math.inf)}
    for threshold in getattr(fmt, "thresholds", None) or ():
        points |= {threshold, math.nextafter(threshold, math.inf)}
    return points


def _beyond(values: tuple[Fraction, ...]) -> list[Fraction]:
    """Grid points past both ends, where rounding still goes to a virtual next value before overflow is decided."""
    top, step = values[-1], max(values[-1] - values[-2], Fraction(1, 2**200))
    ends = [top + k * step for k in range(1, 4)] + [top * 2**k for k in range(1, 5)]
    bottom = values[0]
    return ends + [-e for e in ends] + [bottom - k * step for k in range(1, 4)]


def codes(x: np.ndarray, fmt: ScalarFormat, mode: str, overflow: str) -> np.ndarray:
    """Return the oracle's codes of numbers that are not NaN; -0 is answered apart."""
    points, answers = turning_points(fmt, mode, overflow)
    wide = x.astype(np.float64)
    result = answers[np.searchsorted(points, wide, side="right") - 1]
    negative_zero = (wide == 0) & np.signbit(wide)
    return np.where(negative_zero, exact.encode("-0", fmt, mode, overflow, nan="max"), result)
