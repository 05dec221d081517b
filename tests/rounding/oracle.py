"""The exact oracle at array speed: its decisions at every possible turning point, then a search.

Between two neighbouring values a deterministic mode turns from the lower to the upper one at one point: just above the
lower value, at the midpoint, just above it, or at the upper value. The oracle is asked at each of them; nothing of
the fast paths is used.
"""

import math
import sys
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np

from lowp.formats.spec import ScalarFormat, finite_values
from lowp.rounding import exact


class Oracle:
    """The oracle's codes of an array of numbers that are not NaN, for any mode; the search is done once."""

    def __init__(self, x: np.ndarray, fmt: ScalarFormat) -> None:
        """Find the turning point at or below each number."""
        self.fmt = fmt
        wide = x.astype(np.float64)
        self.position = np.searchsorted(np.array(turning_points(fmt)), wide, side="right") - 1
        self.negative_zero = np.flatnonzero((wide == 0) & np.signbit(wide))

    def codes(self, mode: str, overflow: str) -> np.ndarray:
        """Return the codes under a deterministic mode."""
        result = answers(self.fmt, mode, overflow)[self.position]
        result[self.negative_zero] = exact.encode("-0", self.fmt, mode, overflow, nan="max")
        return result


@cache
def answers(fmt: ScalarFormat, mode: str, overflow: str) -> np.ndarray:
    """Return the oracle's code at each turning point, which holds up to the next one."""
    codes = [exact.encode(p, fmt, mode, overflow, nan="max") for p in turning_points(fmt)]
    return np.array(codes, dtype=np.uint16)


@cache
def turning_points(fmt: ScalarFormat) -> tuple[float, ...]:
    """Return, ascending, every float64 at which some mode can change the code."""
    values = finite_values(fmt)
    grid = sorted({*values, *(-v for v in values), Fraction(0), *_beyond(values)})
    points = {-math.inf, math.inf, -sys.float_info.max, sys.float_info.max}
    for lower, upper in pairwise(grid):
        for candidate in (lower, (lower + upper) / 2, upper):
            point = float(candidate)
            points |= {point, math.nextafter(point, math.inf), math.nextafter(point, -math.inf)}
    for threshold in getattr(fmt, "thresholds", None) or ():
        points |= {threshold, math.nextafter(threshold, math.inf)}
    return tuple(sorted(points))


def _beyond(values: tuple[Fraction, ...]) -> list[Fraction]:
    """Grid points past both ends, where rounding still goes to a virtual next value before overflow is decided."""
    top, step = values[-1], max(values[-1] - values[-2], Fraction(1, 2**200))
    ends = [top + k * step for k in range(1, 4)] + [top * 2**k for k in range(1, 5)]
    bottom = values[0]
    return ends + [-e for e in ends] + [bottom - k * step for k in range(1, 4)]
