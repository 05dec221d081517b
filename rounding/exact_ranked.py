"""The rules of ranked formats behind `lowp.rounding.exact`: posits, takums and logarithmic numbers.

Their values may be irrational, so every decision is one comparison of exact numbers: of the magnitude with the values
of two ranks, with the point between them where rounding to nearest changes over, or with a point that a random integer
names. Nothing is asked of a format but its ranks, their values, codes and decision points.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from lowp.formats.exact_real import Real
from lowp.formats.logarithmic import LNS
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import Meaning
from lowp.formats.takum import Takum
from lowp.rounding import exact_rules as rules
from lowp.rounding.exact_rules import Mode

#: An exact number.
Number = Fraction | Real


class Gap(NamedTuple):
    """A magnitude and the two neighbouring values around it: `lower <= magnitude < upper`.

    `turn` is where rounding to nearest changes over, `odd` the parity of the lower one's code; `logarithmic` says that
    a stochastic mode takes the position between the two in the logarithm.
    """

    magnitude: Number
    lower: Number
    upper: Number
    turn: Number
    odd: bool
    logarithmic: bool

    def point(self, nu: Fraction) -> Number:
        """Return the number at position `nu`: 0 is the lower value, 1 the upper one."""
        if self.logarithmic:
            return Real.of(self.lower) * (Real.of(self.upper) / self.lower).to_power(nu)
        return Real.of(self.lower) + (Real.of(self.upper) - self.lower) * nu


def project_ranked(x: Meaning, fmt: RankedFormat, mode: Mode, overflow: str) -> int:
    """Return the code of a number that is not NaN.

    Posits and takums take an infinity for NaR and stop at both ends. Logarithmic numbers round on a grid without upper
    end before overflow is decided; below their least value zero is the neighbour, if they have one.
    """
    negative = x in ("-inf", "-0") or (not isinstance(x, str) and x < 0)
    if x in ("inf", "-inf"):
        return _infinite(negative, fmt, mode, overflow)
    if isinstance(x, str) or x == 0:
        return _zero(fmt, overflow)
    magnitude: Number = -x if negative else x
    last = fmt.ranks - isinstance(fmt, TaperedFormat)
    rank = rank_below(magnitude, fmt, last)
    if rank < last and (rank >= 0 or fmt.decision_point(-1) is not None):
        rank += rounds_away(_gap(magnitude, rank, fmt), mode, negative)
    elif rank < 0:
        rank = 0
    if rank < 0:
        assert fmt.zero_code is not None
        return fmt.zero_code
    return fmt.rank_code(rank, negative) if rank < fmt.ranks else _overflowed(negative, False, fmt, mode, overflow)


def rank_below(magnitude: Number, fmt: RankedFormat, last: int) -> int:
    """Return the largest rank up to `last` whose value is at most `magnitude`, by bisection; -1 where none is."""
    low, high = -1, last + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fmt.rank_value(middle) <= magnitude else (low, middle)
    return low


def rounds_away(gap: Gap, mode: Mode, negative: bool) -> bool:
    """Decide between two neighbours: true picks the one farther from zero."""
    if gap.magnitude == gap.lower:
        return False
    if mode.name.startswith("stochastic_"):
        return _stochastic(gap, mode)
    side = (gap.magnitude > gap.turn) - (gap.magnitude < gap.turn)
    return rules.rounds_away(mode, rules.HALF + Fraction(side, 4), negative, gap.odd)


def neighbours(x: Meaning, fmt: RankedFormat) -> tuple[Number | None, Number | None]:
    """Return the largest value not above `x` and the smallest not below it; `x` is not NaN."""
    if x in ("inf", "-inf"):
        largest = fmt.rank_value(fmt.ranks - 1)
        return (largest, None) if x == "inf" else (None, -largest)
    number = x if not isinstance(x, str) else Fraction(0)
    magnitude: Number = -number if number < 0 else number
    rank = rank_below(magnitude, fmt, fmt.ranks - 1)
    below_all = Fraction(0) if fmt.has_zero else -fmt.rank_value(0)
    lower = fmt.rank_value(rank) if rank >= 0 else below_all
    upper = lower if lower == magnitude else fmt.rank_value(rank + 1) if rank + 1 < fmt.ranks else None
    return (lower, upper) if number >= 0 else (None if upper is None else -upper, -lower)


def _gap(magnitude: Number, rank: int, fmt: RankedFormat) -> Gap:
    """Return the neighbours of a magnitude that lies at or above the value of `rank` (-1: zero) and below the next."""
    turn = fmt.decision_point(rank)
    assert turn is not None
    upper = fmt.rank_value(rank + 1)
    if rank < 0:
        return Gap(magnitude, Fraction(0), upper, turn, False, False)
    logarithmic = (isinstance(fmt, LNS) and not fmt.linear) or (isinstance(fmt, Takum) and fmt.logarithmic)
    return Gap(magnitude, fmt.rank_value(rank), upper, turn, bool(fmt.rank_code(rank, False) & 1), logarithmic)


def _stochastic(gap: Gap, mode: Mode) -> bool:
    """The formulas of IEEE P3109 as comparisons: `floor(nu * 2^N) + R >= 2^N` says `nu >= (2^N - R) / 2^N`."""
    n, r = mode.random_bits, mode.word >> (32 - mode.random_bits)
    missing = (1 << n) - r
    if mode.name == "stochastic_a":
        return gap.magnitude >= gap.point(Fraction(missing, 1 << n))
    if mode.name == "stochastic_b":
        return gap.magnitude >= gap.point(Fraction(2 * missing - 1, 2 << n))
    if mode.name == "stochastic_c":
        half_below = gap.point(Fraction(2 * missing - 1, 2 << n))  # rounds to `missing` itself only where that is even
        return gap.magnitude > half_below or (missing % 2 == 0 and gap.magnitude == half_below)
    return mode.word >> 31 == 1


def _zero(fmt: RankedFormat, overflow: str) -> int:
    """Return the code of zero; without one NaN or the smallest positive value."""
    if fmt.zero_code is not None:
        return fmt.zero_code
    return fmt.nan_code if overflow == "infinity_or_nan" and fmt.nan_code is not None else fmt.rank_code(0, False)


def _infinite(negative: bool, fmt: RankedFormat, mode: Mode, overflow: str) -> int:
    """Return the code of an infinity."""
    if fmt.infinity_is_nan and fmt.nan_code is not None:
        return fmt.nan_code
    return _overflowed(negative, True, fmt, mode, overflow)


def _overflowed(negative: bool, infinite: bool, fmt: RankedFormat, mode: Mode, overflow: str) -> int:
    """Return the code of a rounded value, or an infinity, beyond the largest value."""
    end = fmt.rank_code(fmt.ranks - 1, negative)
    inward = mode.name in ("toward_zero", "toward_positive" if negative else "toward_negative")
    stays = not infinite and (inward or (mode.name == "to_odd" and end & 1 == 1))
    return end if overflow != "infinity_or_nan" or stays or fmt.nan_code is None else fmt.nan_code
