"""Deterministic modes as corrections of rounding to nearest, ties to even."""

from __future__ import annotations

from typing import NamedTuple

from lowp.rounding.modes import ABOVE_HALF, BELOW_HALF, HALF, Rounding


class Corrections(NamedTuple):
    """When the nearest number becomes its neighbour: if it is off by more than `off` quanta, nearer zero or farther.

    Attributes:
        odd_mask: 1: only even numbers are corrected; 0: all.
        off: Almost a half to find ties alone, or 0 for all that is inexact.
        up: Quanta, 0 or 1, by which a magnitude below the exact one grows.
        up_negative: The same of negative numbers.
        down: Quanta by which a magnitude above the exact one shrinks.
        down_negative: The same of negative numbers.
    """

    odd_mask: int
    off: float
    up: float
    up_negative: float
    down: float
    down_negative: float


def corrections(mode: Rounding, bits: int = 53) -> Corrections:
    """Return the corrections of a deterministic mode, for numbers of so many significant bits.

    Example:
        >>> from lowp.rounding.modes import rounding
        >>> corrections(rounding("toward_zero"))
        Corrections(odd_mask=0, off=0.0, up=0.0, up_negative=0.0, down=1.0, down_negative=1.0)
    """
    even_only = mode.away(BELOW_HALF, False, False) != mode.away(BELOW_HALF, False, True)
    ties = not any(mode.away(BELOW_HALF, n, False) for n in (False, True)) and mode.away(ABOVE_HALF, False, False)
    ties = ties and mode.away(ABOVE_HALF, True, False)
    low, high = (HALF, HALF) if ties else (BELOW_HALF, ABOVE_HALF)
    up = [float(mode.away(low, negative, False)) for negative in (False, True)]
    down = [float(not mode.away(high, negative, True)) for negative in (False, True)]
    return Corrections(int(even_only), 0.5 - 2.0 ** -(bits + 1) if ties else 0.0, *up, *down)
