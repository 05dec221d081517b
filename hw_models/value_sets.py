"""What a multiplier sees of a format: how wide its significands and exponents are, and the grid its numbers lie on.

Everything follows from the exact set of the format's finite numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from lowp._errors import FormatError
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithmic import LNS
from lowp.formats.posit import Posit
from lowp.formats.spec import ScalarFormat, finite_values
from lowp.formats.takum import Takum

#: Formats of at most so many bits that are not floats or fixed point are described by listing their numbers.
_LISTED_BITS = 11
#: Floats of at most so many bits may lack the significand that would have their last bit.
_TINY_BITS = 6
#: A codebook whose numbers are integers of at most so many bits more than their significands is decoded to integers.
_INTEGER_MARGIN = 3


@dataclass(frozen=True)
class Factor:
    """One factor of a product.

    Attributes:
        format: Whose numbers these are.
        significand: Bits that enter the multiplier: two's complement of fixed point, else the magnitude's.
        exponents: How many exponents there are; 1: numbers lie on a grid, and are multiplied as integers.
        unit: Every number is an integer times `2^unit`, and no larger unit has this property; None: no unit has.
        least: Least number, in units.
        largest: Largest number, in units.
        two_complement: Whether significands are two's complement, not sign and magnitude.
        logarithm: Bits of the logarithm, its sign included; 0 where numbers are not stored as logarithms.
        fraction: Bits of the logarithm right of its point; None where the base of a step is not a root of two of
            power-of-two order.
        natural: Whether the logarithm is to the base sqrt(e), not 2.
    """

    format: ScalarFormat
    significand: int
    exponents: int = 1
    unit: int | None = 0
    least: int = 0
    largest: int = 0
    two_complement: bool = False
    logarithm: int = 0
    fraction: int | None = 0
    natural: bool = False

    @property
    def exponent_bits(self) -> int:
        """Bits of the exponent; 0 for numbers on a grid."""
        return (self.exponents - 1).bit_length()


@lru_cache(maxsize=4096)
def factor(fmt: ScalarFormat) -> Factor:
    """Describe the numbers of a scalar format as factors.

    Raises:
        FormatError: The format is of no known family.

    Example:
        >>> from lowp.formats import parse
        >>> e4m3 = factor(parse("float8_e4m3fn"))
        >>> e4m3.significand, e4m3.exponent_bits, e4m3.unit, e4m3.largest
        (4, 4, -9, 229376)
    """
    if isinstance(fmt, Integer | Fixed):
        return _fixed(fmt)
    if isinstance(fmt, Float):
        return _float(fmt)
    if isinstance(fmt, LNS) and fmt.gamma > 1:
        power = fmt.gamma & (fmt.gamma - 1) == 0
        return Factor(fmt, 0, unit=None, logarithm=fmt.bits - 1, fraction=fmt.gamma.bit_length() - 1 if power else None)
    if isinstance(fmt, Takum) and fmt.logarithmic:
        fraction = max(fmt.bits - 5, 0)  # nine bits of characteristic
        return Factor(fmt, 0, unit=None, logarithm=9 + fraction, fraction=fraction, natural=True)
    if isinstance(fmt, Codebook):
        return _listed(fmt)
    if isinstance(fmt, Posit | Takum | LNS):
        return _listed(fmt) if fmt.bits <= _LISTED_BITS else _tapered(fmt)
    raise FormatError(f"format={fmt!r} has no datapath: its family is not known here.")


def _fixed(fmt: Integer | Fixed) -> Factor:
    least = -(1 << (fmt.bits - 1)) if fmt.signed else 0  # of symmetric formats too: the code decodes
    return Factor(
        fmt,
        fmt.bits,
        unit=-fmt.fraction_bits,
        least=least,
        largest=fmt.max_integer,
        two_complement=fmt.signed,
    )


def _float(fmt: Float) -> Factor:
    largest, least, _, _ = fmt._limits  # noqa: SLF001 - the exact limits, which the public ones round
    significand, exponents, unit = fmt.mantissa_bits + 1, fmt.emax - fmt.emin + 1, fmt.emin - fmt.mantissa_bits
    if fmt.bits <= _TINY_BITS:
        unit = min(last_bit(abs(x)) for x in finite_values(fmt) if x and isinstance(x, Fraction))
    if exponents < 1:  # subnormals alone
        exponents, significand = 1, (largest / Fraction(2) ** unit).numerator.bit_length()
    return _on_grid(fmt, significand, exponents, unit, least, largest)


def _on_grid(
    fmt: ScalarFormat, significand: int, exponents: int, unit: int, least: Fraction, largest: Fraction
) -> Factor:
    step = Fraction(2) ** unit
    low, high = least / step, largest / step
    assert low.denominator == high.denominator == 1
    return Factor(fmt, significand, exponents, unit, int(low), int(high))


def _listed(fmt: ScalarFormat) -> Factor:
    numbers = [x for x in finite_values(fmt) if isinstance(x, Fraction)]
    magnitudes = [abs(x) for x in numbers if x]
    unit = min(last_bit(x) for x in magnitudes)
    first = [first_bit(x) for x in magnitudes]
    significand = max(f - last_bit(x) + 1 for f, x in zip(first, magnitudes, strict=True))
    exponents = max(first) - min(first) + 1
    whole = max(first) - unit + 1
    if isinstance(fmt, Codebook) and whole <= significand + _INTEGER_MARGIN:
        significand, exponents = whole, 1
    return _on_grid(fmt, significand, exponents, unit, numbers[0], numbers[-1])


def _tapered(fmt: Posit | Takum | LNS) -> Factor:
    largest, least, _, smallest = fmt._limits  # noqa: SLF001 - the exact limits, which the public ones round
    assert isinstance(largest, Fraction)
    assert isinstance(least, Fraction)
    assert isinstance(smallest, Fraction)
    if isinstance(fmt, Posit):
        fraction = max(fmt.bits - 3 - fmt.es, 0)
    else:
        fraction = fmt.bits - 5 if isinstance(fmt, Takum) else 0
    exponents = first_bit(largest) - first_bit(smallest) + 1
    return _on_grid(fmt, fraction + 1, exponents, last_bit(smallest), least, largest)


def first_bit(x: Fraction) -> int:
    """Return the exponent of the leading bit of a positive number.

    Example:
        >>> first_bit(Fraction(5, 4)), first_bit(Fraction(1, 3))
        (0, -2)
    """
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if x >= Fraction(2) ** exponent else exponent - 1


def last_bit(x: Fraction) -> int:
    """Return the exponent of the last bit of a positive number that is a multiple of a power of two.

    Example:
        >>> last_bit(Fraction(5, 4)), last_bit(Fraction(12))
        (-2, 2)
    """
    n = x.numerator
    return (n & -n).bit_length() - x.denominator.bit_length()


def two_complement_bits(least: int, largest: int) -> int:
    """Return the bits of the narrowest two's complement word that holds all integers between two.

    Example:
        >>> two_complement_bits(-128, 127), two_complement_bits(0, 128), two_complement_bits(0, 0)
        (8, 9, 1)
    """
    high = largest.bit_length() + 1 if largest > 0 else 1
    low = (-least - 1).bit_length() + 1 if least < 0 else 1
    return max(high, low)


def product_range(a: Factor, b: Factor) -> tuple[int, int]:
    """Return the least and the largest product of two sets of numbers, in the product of their units.

    Example:
        >>> from lowp.formats import parse
        >>> product_range(factor(parse("int4")), factor(parse("int4")))
        (-56, 64)
    """
    ends = [x * y for x in (a.least, a.largest) for y in (b.least, b.largest)]
    return min(ends), max(ends)


def product_bits(a: Factor, b: Factor) -> int:
    """Return the two's complement bits that hold every product of two sets of numbers on grids.

    Example:
        >>> from lowp.formats import parse
        >>> int8, e2m1 = factor(parse("int8")), factor(parse("fp4"))
        >>> product_bits(int8, int8), product_bits(e2m1, e2m1)
        (16, 9)
    """
    return sum_bits(a, b, 1)


def sum_bits(a: Factor, b: Factor, terms: int) -> int:
    """Return the two's complement bits that hold every sum of at most so many products.

    Example:
        >>> from lowp.formats import parse
        >>> int8 = factor(parse("int8"))
        >>> sum_bits(int8, int8, 32)
        21
    """
    least, largest = product_range(a, b)
    return two_complement_bits(min(least, 0) * terms, max(largest, 0) * terms)
