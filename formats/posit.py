"""Posits: regime, exponent and fraction of variable length."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lowp._errors import FormatError
from lowp.formats.ranked import TaperedFormat, checked_bits


@dataclass(frozen=True)
class Posit(TaperedFormat):
    """A posit of `bits` bits with `es` exponent bits; es = 2 is the Posit Standard (2022).

    After the sign a run of equal bits is the regime: `r` ones mean k = r - 1, `r` zeros k = -r; then the opposite bit,
    `es` exponent bits e and the fraction f; bits that are missing at the end are 0. The value is
    `2^(k * 2^es + e) * (1 + f)`; a negative posit is the two's complement of its magnitude; 100...0 is NaR.

    Args:
        bits: 2 to 64.
        es: Exponent bits, 0 to 16.

    Raises:
        FormatError: A parameter out of range.

    Source:
        Standard for Posit Arithmetic (2022), sections 3 and 4.1; es other than 2: Gustafson and Yonemoto (2017).

    Example:
        >>> [str(Posit(4, 1).meaning(code)) for code in range(9)]
        ['0', '1/16', '1/4', '1/2', '1', '2', '4', '16', 'nan']
    """

    bits: int
    es: int = 2

    def __post_init__(self) -> None:
        checked_bits("posits", self.bits, 2)
        if type(self.es) is not int or not 0 <= self.es <= 16:
            raise FormatError(f"es={self.es!r} must be an integer from 0 to 16 for posits.")

    def rank_value(self, rank: int) -> Fraction:
        digits = f"{rank + 1:0{self.bits - 1}b}"
        run = len(digits) - len(digits.lstrip(digits[0]))
        regime = run - 1 if digits[0] == "1" else -run
        rest = digits[run + 1 :]
        exponent = int(rest[: self.es].ljust(self.es, "0") or "0", 2)
        fraction = rest[self.es :]
        significand = 1 + (Fraction(int(fraction, 2), 1 << len(fraction)) if fraction else 0)
        return significand * Fraction(2) ** ((regime << self.es) + exponent)

    def exponent_string(self, exponent: int) -> tuple[int, int] | None:
        regime, rest = exponent >> self.es, exponent & ((1 << self.es) - 1)
        prefix, length = (((2 << regime) - 1) << 1, regime + 2) if regime >= 0 else (1, 1 - regime)
        return prefix << self.es | rest, length + self.es

    @property
    def exponent_range(self) -> tuple[int, int]:
        largest = (self.bits - 2) << self.es
        return -largest, largest

    def wider(self) -> Posit:
        return Posit._unchecked(self.bits + 1, self.es)

    @classmethod
    def _unchecked(cls, bits: int, es: int) -> Posit:
        """Return a posit whose parameters are known to be sound, 65 bits included."""
        made = object.__new__(cls)
        object.__setattr__(made, "bits", bits)
        object.__setattr__(made, "es", es)
        return made

    def generated_name(self) -> str:
        return f"posit{self.bits}_es{self.es}"
