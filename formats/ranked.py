"""Ranked formats: signed sets of values that are not a floating-point grid: posits, takums, logarithmic numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from lowp._errors import FormatError
from lowp.formats.exact_real import Real, to_float64
from lowp.formats.spec import Meaning, ScalarFormat, to_float


class RankedFormat(ScalarFormat):
    """A format whose positive values, ascending, have ranks 0, 1, 2, ...; the negative ones mirror them.

    Zero and NaN (NaR) have a code each; there is no infinity and no -0.
    """

    kind = "table"

    @property
    @abstractmethod
    def ranks(self) -> int:
        """Number of positive values."""

    @abstractmethod
    def rank_value(self, rank: int) -> Fraction | Real:
        """Return the positive value of a rank, exactly."""

    @abstractmethod
    def rank_code(self, rank: int, negative: bool) -> int:
        """Return the code of the value of a rank, or of its negative."""

    @abstractmethod
    def code_rank(self, code: int) -> tuple[int, bool] | None:
        """Return rank and sign of a code; None for zero and NaN."""

    @abstractmethod
    def decision_point(self, rank: int) -> Fraction | Real | None:
        """Return the number between the values of `rank` and `rank + 1` at which rounding to nearest changes over.

        `rank` -1 stands for zero; None where no number but zero itself rounds to zero.
        """

    @property
    @abstractmethod
    def zero_code(self) -> int | None:
        """Code of zero, None where the format has none."""

    @property
    @abstractmethod
    def nan_code(self) -> int | None:
        """Code of NaN (posits: NaR), None where the format has none."""

    @property
    @abstractmethod
    def infinity_is_nan(self) -> bool:
        """Whether an infinity becomes NaN in every overflow mode; otherwise it overflows like a large number."""

    def meaning(self, code: int) -> Meaning:
        self.check_code(code)
        if code == self.nan_code:
            return "nan"
        if code == self.zero_code:
            return Fraction(0)
        found = self.code_rank(code)
        if found is None:
            return "nan"
        rank, negative = found
        value = self.rank_value(rank)
        return -value if negative else value

    @property
    def signed(self) -> bool:
        return True

    @property
    def has_nan(self) -> bool:
        return self.nan_code is not None

    @property
    def has_zero(self) -> bool:
        return self.zero_code is not None

    @cached_property
    def _limits(self) -> tuple[Fraction | Real, Fraction | Real, Fraction | Real, Fraction | Real]:
        largest, smallest = self.rank_value(self.ranks - 1), self.rank_value(0)
        return largest, -largest, smallest, smallest

    @cached_property
    def eps(self) -> float:
        found = self.code_rank(self._code_of_one())
        if found is None:
            return math.nan
        following = min(found[0] + 1, self.ranks - 1)
        above = self.rank_value(following) - 1
        return float(above) if isinstance(above, Real) else to_float64(above)

    @abstractmethod
    def _code_of_one(self) -> int:
        """Return the code of 1."""


class Binade(NamedTuple):
    """The codes of numbers in [2^exponent, 2^(exponent + 1)) in a tapered format.

    `start` is the code bits of 2^exponent with the fraction cut off, `fraction_bits` how many fraction bits are left;
    where bits of the exponent itself are cut, `cut` holds them and `cut_bits` counts them (then no fraction is left).
    """

    exponent: int
    start: int
    fraction_bits: int
    cut: int
    cut_bits: int


class TaperedFormat(RankedFormat):
    """A format read from a bit string: sign, a variable number of exponent bits, a fraction in what is left.

    Codes are two's complement: negative numbers are negated codes, 100...0 is NaR, and codes compare as integers.
    Rounding to nearest is on the bit string, so its decision points are the odd codes of the format one bit wider.
    Both ends saturate in every rounding mode: only zero becomes zero, only NaN and infinity become NaR.
    """

    bits: int

    @abstractmethod
    def exponent_string(self, exponent: int) -> tuple[int, int] | None:
        """Return the bits after the sign that say `exponent`, and how many; None beyond what the format can say."""

    @abstractmethod
    def wider(self) -> TaperedFormat:
        """Return the format with one bit more."""

    @property
    @abstractmethod
    def exponent_range(self) -> tuple[int, int]:
        """Least and largest exponent that a bit string of any length can say, or that these bits can."""

    @property
    def ranks(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def rank_code(self, rank: int, negative: bool) -> int:
        return (1 << self.bits) - rank - 1 if negative else rank + 1

    def code_rank(self, code: int) -> tuple[int, bool] | None:
        negative = code >> (self.bits - 1) == 1
        magnitude = (1 << self.bits) - code if negative else code
        return (magnitude - 1, negative) if 0 < magnitude <= self.ranks else None

    def decision_point(self, rank: int) -> Fraction | Real | None:
        """Return the value of the code between, in the format one bit wider; 0 has no neighbour to decide against."""
        if rank < 0:
            return None
        return self.wider().rank_value(2 * rank + 2)  # the code between U and U + 1 is 2U + 1, and rank = code - 1

    @property
    def zero_code(self) -> int | None:
        return 0

    @property
    def nan_code(self) -> int | None:
        return 1 << (self.bits - 1)

    @property
    def infinity_is_nan(self) -> bool:
        return True

    def _code_of_one(self) -> int:
        return 1 << (self.bits - 2)

    @property
    def scale_target(self) -> float:
        """The largest value with as many fraction bits as 1 has, rounded up to the end of its binade."""
        digits = {b.exponent: b.fraction_bits - b.cut_bits for b in self.binades(0, 64)}
        end = next((exponent for exponent in digits if digits[exponent] < digits[0]), None)
        return self.max if end is None else to_float(self.rank_value(self._start(end) - 1))

    def _start(self, exponent: int) -> int:
        (binade,) = self.binades(exponent, exponent)
        return binade.start

    def binades(self, low: int, high: int) -> Iterator[Binade]:
        """Yield the binades with exponents from `low` to `high` that the format can say."""
        least, largest = self.exponent_range
        for exponent in range(max(low, least), min(high, largest) + 1):
            string = self.exponent_string(exponent)
            assert string is not None
            prefix, length = string
            fraction_bits = self.bits - 1 - length
            if fraction_bits >= 0:
                yield Binade(exponent, prefix << fraction_bits, fraction_bits, 0, 0)
            else:
                yield Binade(
                    exponent, prefix >> -fraction_bits, 0, prefix & ((1 << -fraction_bits) - 1), -fraction_bits
                )


def checked_bits(family: str, bits: object, least: int, most: int = 64) -> None:
    """Raise FormatError unless `bits` is an integer in range."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= most:
        raise FormatError(f"bits={bits!r} must be an integer from {least} to {most} for {family}.")
