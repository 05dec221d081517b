"""Integers and fixed point: an integer code times a fixed power of two."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from lowp._errors import FormatError
from lowp.formats.spec import Meaning, ScalarFormat, check_flag


class _TwosComplement(ScalarFormat):
    """What integers and fixed point share: `value = n * 2^-fraction_bits`, negative `n` in two's complement."""

    kind = "arithmetic"
    bits: int
    fraction_bits: int
    signed: bool
    symmetric: bool

    @property
    def max_integer(self) -> int:
        """Largest integer `n`."""
        return (1 << (self.bits - self.signed)) - 1

    @property
    def min_integer(self) -> int:
        """Smallest integer `n`."""
        return (-self.max_integer if self.symmetric else -(1 << (self.bits - 1))) if self.signed else 0

    def meaning(self, code: int) -> Meaning:
        self.check_code(code)
        n = code - (1 << self.bits) if self.signed and code >> (self.bits - 1) else code
        return n / Fraction(2) ** self.fraction_bits

    @cached_property
    def _limits(self) -> tuple[Fraction, Fraction, Fraction, Fraction]:
        step = 1 / Fraction(2) ** self.fraction_bits
        smallest = step if self.max_integer else Fraction(0)
        return self.max_integer * step, self.min_integer * step, smallest, smallest

    @cached_property
    def eps(self) -> float:
        step = 1 / Fraction(2) ** self.fraction_bits
        return float(step) if step <= 1 and 1 + step <= self._limits[0] else float("nan")


def _checked_width(owner: object, field: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise FormatError(f"{field}={value!r} is not an integer.")
    number = value.__index__()
    if not low <= number <= high:
        raise FormatError(f"{field}={number!r} is out of range; allowed: {low} to {high}.")
    object.__setattr__(owner, field, number)


@dataclass(frozen=True)
class Integer(_TwosComplement):
    """An integer of 1 to 32 bits.

    Signed integers are two's complement. `symmetric=True` leaves out the most negative value, so that the range is
    `-(2^(bits-1) - 1) .. 2^(bits-1) - 1`; its code still decodes, but nothing encodes to it.

    Args:
        bits: Width, 1 to 32 (symmetric: 2 to 32).
        signed: Whether values may be negative.
        symmetric: Whether the range is symmetric about zero.

    Raises:
        FormatError: The width is out of range, or the format is symmetric but unsigned.

    Example:
        >>> Integer(4).min, Integer(4).max, Integer(4, symmetric=True).min
        (-8.0, 7.0, -7.0)
    """

    bits: int
    signed: bool = True
    symmetric: bool = False

    fraction_bits = 0

    def __post_init__(self) -> None:
        _checked_width(self, "bits", self.bits, 2 if self.symmetric else 1, 32)
        check_flag("signed", self.signed)
        check_flag("symmetric", self.symmetric)
        if self.symmetric and not self.signed:
            raise FormatError("symmetric=True needs signed=True.")

    def generated_name(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}{'_sym' if self.symmetric else ''}"


@dataclass(frozen=True)
class Fixed(_TwosComplement):
    """Fixed point: an integer of `bits` bits times `2^-fraction_bits`.

    `fraction_bits` may be negative or larger than `bits`. AMD's `ap_fixed<W, I>` is `Fixed(W, W - I)`.

    Args:
        bits: Width, 1 to 1024. Up to 53 every value is exact in float64; up to 64 arrays hold the codes, and values
            are rounded to float64 where they must be, with a PrecisionWarning; beyond, `lowp.exact` alone serves.
        fraction_bits: Bits right of the binary point, -900 to 900.
        signed: Two's complement if true.
        symmetric: Whether the most negative value is left out.

    Raises:
        FormatError: A width is out of range, or the format is symmetric but unsigned.

    Example:
        >>> Fixed(8, 3).max, Fixed(8, 3).min, Fixed(8, 3).eps
        (15.875, -16.0, 0.125)
    """

    bits: int
    fraction_bits: int
    signed: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        _checked_width(self, "bits", self.bits, 2 if self.symmetric else 1, 1024)
        _checked_width(self, "fraction_bits", self.fraction_bits, -900, 900)
        check_flag("signed", self.signed)
        check_flag("symmetric", self.symmetric)
        if self.symmetric and not self.signed:
            raise FormatError("symmetric=True needs signed=True.")

    def generated_name(self) -> str:
        sign, tail = "" if self.signed else "u", "_sym" if self.symmetric else ""
        return f"{sign}fixed{self.bits}_{self.fraction_bits}{tail}".replace("_-", "_m")
