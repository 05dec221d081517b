"""Logarithmic numbers: a sign and a fixed-point logarithm."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lowp._errors import FormatError
from lowp.formats.exact_real import Real
from lowp.formats.ranked import RankedFormat, checked_bits
from lowp.formats.spec import check_flag

#: Exponents of 2 beyond which a power is not written out as a fraction.
_LARGEST_POWER = 1 << 16


@dataclass(frozen=True)
class LNS(RankedFormat):
    """A logarithmic number: sign and integer k, worth `2^(k / gamma)`.

    The sign is the top bit, k the others in two's complement. The most negative k is zero, with the sign bit set NaN.
    Rounding to nearest decides in the log domain, at `2^((k + 1/2) / gamma)`, or in the linear domain, at the
    arithmetic mean of two values. A number whose rounded k is too small becomes zero, or the smallest value where the
    format has no zero; one whose k is too large overflows.

    Args:
        bits: 2 to 64, sign included.
        fraction_bits: Bits of k right of the point; gamma is then `2^fraction_bits`.
        gamma: Values per factor of two, instead of `fraction_bits`; a positive integer.
        signed_exponent: Whether k is signed; else it counts from 0 (LNS-Madam) and is read as unsigned.
        zero: Whether the least k stands for zero (and NaN); else it is a value like any other.
        linear: Whether rounding to nearest decides in the linear domain.

    Raises:
        FormatError: A parameter out of range.

    Source:
        Zhao et al., LNS-Madam, IEEE Transactions on Computers 2022, arXiv:2106.13914 (gamma, unsigned k, no zero);
        zero and NaN as in stillwater-sc/universal `lns`.

    Example:
        >>> LNS(8, 3).meaning(8), float(LNS(8, 3).meaning(1)), LNS(8, 3).meaning(0x40)
        (Fraction(2, 1), 1.0905077326652577, Fraction(0, 1))
    """

    bits: int
    gamma: int
    signed_exponent: bool = True
    zero: bool = True
    linear: bool = False

    def __init__(
        self,
        bits: int,
        fraction_bits: int | None = None,
        *,
        gamma: int | None = None,
        signed_exponent: bool = True,
        zero: bool = True,
        linear: bool = False,
    ) -> None:
        checked_bits("logarithmic numbers", bits, 2)
        for name, flag in (("signed_exponent", signed_exponent), ("zero", zero), ("linear", linear)):
            check_flag(name, flag)
        if (fraction_bits is None) == (gamma is None):
            raise FormatError(f"fraction_bits={fraction_bits!r}, gamma={gamma!r}: give one of the two.")
        wanted = gamma if fraction_bits is None else fraction_bits
        least = 1 if fraction_bits is None else 0
        if (
            isinstance(wanted, bool)
            or not isinstance(wanted, int)
            or not least <= wanted <= (62 if not least else 1 << 62)
        ):
            name = "gamma" if least else "fraction_bits"
            raise FormatError(f"{name}={wanted!r} must be an integer from {least} to {'2^62' if least else 62}.")
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "gamma", wanted if least else 1 << wanted)
        object.__setattr__(self, "signed_exponent", signed_exponent)
        object.__setattr__(self, "zero", zero)
        object.__setattr__(self, "linear", linear)

    @property
    def least_exponent(self) -> int:
        """Least k that is a value."""
        return (-(1 << (self.bits - 2)) if self.signed_exponent else 0) + self.zero

    @property
    def largest_exponent(self) -> int:
        """Largest k."""
        return (1 << (self.bits - 2 if self.signed_exponent else self.bits - 1)) - 1

    @property
    def ranks(self) -> int:
        return self.largest_exponent - self.least_exponent + 1

    def power(self, k: Fraction | int) -> Fraction | Real:
        """Return `2^(k / gamma)`."""
        exponent = Fraction(k) / self.gamma
        plain = exponent.denominator == 1 and abs(exponent) < _LARGEST_POWER
        return Fraction(2) ** int(exponent) if plain else Real.power_of_two(exponent)

    def rank_value(self, rank: int) -> Fraction | Real:
        return self.power(rank + self.least_exponent)

    def rank_code(self, rank: int, negative: bool) -> int:
        k = (rank + self.least_exponent) & ((1 << (self.bits - 1)) - 1)
        return k | int(negative) << (self.bits - 1)

    def code_rank(self, code: int) -> tuple[int, bool] | None:
        k = code & ((1 << (self.bits - 1)) - 1)
        if self.signed_exponent and k >> (self.bits - 2):
            k -= 1 << (self.bits - 1)
        negative = code >> (self.bits - 1) == 1
        return (k - self.least_exponent, negative) if k >= self.least_exponent else None

    def decision_point(self, rank: int) -> Fraction | Real | None:
        """Return the geometric or the arithmetic mean; below the least value that of it and the next smaller power."""
        if rank < 0 and not self.zero:
            return None
        k = rank + self.least_exponent
        if not self.linear:
            return self.power(k + Fraction(1, 2))
        if rank < 0:
            return self.rank_value(0) / 2
        middle = Real.of(self.power(k)) * Fraction(1, 2) + Real.of(self.power(k + 1)) * Fraction(1, 2)
        exact = middle.rational()
        return middle if exact is None else exact

    @property
    def zero_code(self) -> int | None:
        if not self.zero:
            return None
        return 1 << (self.bits - 2) if self.signed_exponent else 0

    @property
    def nan_code(self) -> int | None:
        return None if self.zero_code is None else self.zero_code | 1 << (self.bits - 1)

    @property
    def infinity_is_nan(self) -> bool:
        return False

    def _code_of_one(self) -> int:
        return 0

    def generated_name(self) -> str:
        power = self.gamma & (self.gamma - 1) == 0
        name = f"lns{self.bits}_" + (f"f{self.gamma.bit_length() - 1}" if power else f"gamma{self.gamma}")
        name += "" if self.signed_exponent else "_unsigned"
        return name + ("" if self.zero else "_nozero") + ("_linear" if self.linear else "")
