"""Takums: a fixed five-bit head says how many bits the exponent takes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lowp.formats.exact_real import Real
from lowp.formats.ranked import TaperedFormat, checked_bits
from lowp.formats.spec import check_flag


@dataclass(frozen=True)
class Takum(TaperedFormat):
    """A takum of `bits` bits, linear (a floating-point number) or logarithmic (a power of the root of e).

    Fields from the top: sign, direction D, regime R of 3 bits, characteristic of r bits, mantissa m of the rest; r is R
    if D = 1, else 7 - R. The characteristic c is `2^r - 1 + C` if D = 1, else `-2^(r+1) + 1 + C`, from -255 to 254.
    A positive linear takum is `(1 + m) * 2^c`, a logarithmic one `sqrt(e)^(c + m)`. Fewer than 12 bits are the upper
    bits of a takum whose others are 0. A negative takum is the two's complement of its magnitude; 100...0 is NaR.

    Args:
        bits: 2 to 64.
        logarithmic: Whether values are powers of sqrt(e).

    Raises:
        FormatError: A parameter out of range.

    Source:
        Hunhold, Beating Posits at Their Own Game: Takum Arithmetic, arXiv:2404.18603.

    Example:
        >>> Takum(8).meaning(0x4A), float(Takum(8, logarithmic=True).meaning(0x48))
        (Fraction(3, 1), 1.6487212707001282)
    """

    bits: int
    logarithmic: bool = False

    def __post_init__(self) -> None:
        checked_bits("takums", self.bits, 2)
        check_flag("logarithmic", self.logarithmic)

    def rank_value(self, rank: int) -> Fraction | Real:
        width = max(self.bits, 12)
        code = (rank + 1) << (width - self.bits)
        direction, regime = code >> (width - 2) & 1, code >> (width - 5) & 7
        r = regime if direction else 7 - regime
        mantissa_bits = width - 5 - r
        c = (code >> mantissa_bits) & ((1 << r) - 1)
        characteristic = (1 << r) - 1 + c if direction else -(2 << r) + 1 + c
        mantissa = Fraction(code & ((1 << mantissa_bits) - 1), 1 << mantissa_bits)
        if not self.logarithmic:
            return (1 + mantissa) * Fraction(2) ** characteristic
        power = characteristic + mantissa
        return Real.power_of_e(power / 2) if power else Fraction(1)

    def exponent_string(self, exponent: int) -> tuple[int, int] | None:
        if not -255 <= exponent <= 254:
            return None
        if exponent >= 0:
            r = (exponent + 1).bit_length() - 1
            return (8 | r) << r | (exponent + 1 - (1 << r)), 4 + r
        r = (-exponent).bit_length() - 1
        return (7 - r) << r | (exponent + (2 << r) - 1), 4 + r

    @property
    def exponent_range(self) -> tuple[int, int]:
        return -255, 254

    def wider(self) -> Takum:
        made = object.__new__(Takum)
        object.__setattr__(made, "bits", self.bits + 1)
        object.__setattr__(made, "logarithmic", self.logarithmic)
        return made

    def generated_name(self) -> str:
        return f"takum{self.bits}_{'log' if self.logarithmic else 'linear'}"
