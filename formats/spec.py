"""What every number format answers: its codes, its limits, and how one code is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from lowp._errors import ArgumentError, FormatError
from lowp.formats.exact_real import Real, to_float64

#: What one code stands for: an exact number, or one of the strings "nan", "inf", "-inf", "-0".
Meaning = Fraction | Real | str

#: Names that win over generated ones; filled by `lowp.formats.registry`.
REGISTERED_NAMES: dict[Any, str] = {}


class Format(ABC):
    """A finite set of numbers and the codes that store them.

    Formats are frozen and hashable; two formats with equal parameters are equal whatever they were called.
    Codes are unsigned integers of `bits` bits.
    """

    #: "arithmetic" formats round by integer operations on the bits of the input, "table" formats by thresholds,
    #: "block" formats share a scale among elements.
    kind: ClassVar[str]

    if TYPE_CHECKING:  # a field in some families, a property in others; an abstract one would become a field's default

        @property
        def bits(self) -> int:
            """Storage bits of one code."""

    @abstractmethod
    def generated_name(self) -> str:
        """The name made from the parameters alone; `parse` reads it back (not a codebook's label)."""

    def meaning(self, code: int) -> Meaning:
        """Return what `code` stands for, exactly; a FormatError where that depends on its block."""
        raise FormatError(
            f"{self.name!r} is a block format: what code={code!r} stands for depends on its block; "
            "lowp.encode makes whole blocks, lowp.decode reads them."
        )

    @property
    def name(self) -> str:
        """The registered name if there is one, else the generated one."""
        return REGISTERED_NAMES.get(self) or self.generated_name()

    def __str__(self) -> str:
        return self.name


class ScalarFormat(Format):
    """A format whose every code stands for one number by itself."""

    @property
    def bits_per_value(self) -> float:
        """Storage bits per value; for a scalar format simply `bits`."""
        return float(self.bits)

    @abstractmethod
    def meaning(self, code: int) -> Meaning:
        """Return what `code` stands for, exactly.

        This is the definition of the format in plain integers; tables, kernels and cards are checked against it.
        """

    @cached_property
    @abstractmethod
    def _limits(self) -> tuple[Fraction | Real, Fraction | Real, Fraction | Real, Fraction | Real]:
        """Largest, smallest (most negative), smallest positive normal, smallest positive."""

    @property
    @abstractmethod
    def signed(self) -> bool:
        """Whether any value is negative."""

    @property
    def has_nan(self) -> bool:
        """Whether some code is NaN."""
        return False

    @property
    def has_infinity(self) -> bool:
        """Whether some code is an infinity."""
        return False

    @property
    def has_negative_zero(self) -> bool:
        """Whether -0 has a code of its own."""
        return False

    @property
    def has_zero(self) -> bool:
        """Whether zero is a value."""
        return True

    @property
    def max(self) -> float:
        """Largest finite value; exact, or the nearest float where no float is (logarithms, very wide ranges)."""
        return to_float(self._limits[0])

    @property
    def scale_target(self) -> float:
        """The value that a block's largest magnitude is scaled to: `max`, or where tapered formats lose precision."""
        return self.max

    @property
    def min(self) -> float:
        """Most negative finite value, exact; the smallest positive one where the format has no zero."""
        return to_float(self._limits[1])

    @property
    def smallest_normal(self) -> float:
        """Smallest positive value of full precision, exact."""
        return to_float(self._limits[2])

    @property
    def smallest_subnormal(self) -> float:
        """Smallest positive value, exact; equal to `smallest_normal` where there are no subnormals."""
        return to_float(self._limits[3])

    @cached_property
    @abstractmethod
    def eps(self) -> float:
        """Distance from 1.0 to the next larger value, exact; NaN where 1.0 or a larger value does not exist."""

    def check_code(self, code: int) -> None:
        """Raise ArgumentError unless `code` is one of the format's codes."""
        if not 0 <= code < 1 << self.bits:
            raise ArgumentError(f"code={code!r} is not a code of {self.name}; allowed: 0 to {(1 << self.bits) - 1}.")


def check_flag(name: str, value: object) -> None:
    """Raise FormatError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise FormatError(f"{name}={value!r} must be True or False.")


@lru_cache(maxsize=256)
def finite_values(fmt: ScalarFormat) -> tuple[Fraction | Real, ...]:
    """Return the distinct finite values of a format of at most 16 bits, ascending, exact."""
    meanings = (fmt.meaning(code) for code in range(1 << fmt.bits))
    return tuple(sorted({m for m in meanings if isinstance(m, Fraction | Real)}))


def to_float(meaning: Meaning) -> float:
    """Return a meaning as the nearest Python float; exact unless the format is wider than float64 or logarithmic."""
    return to_float64(meaning) if isinstance(meaning, Fraction) else float(meaning)
