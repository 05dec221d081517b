"""Codebooks: a format that is a list of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from zlib import crc32

from lowp._errors import FormatError
from lowp.formats.spec import Meaning, ScalarFormat


@dataclass(frozen=True, init=False)
class Codebook(ScalarFormat):
    """A format given by its values; code `i` stands for `values[i]` unless `codes` says otherwise.

    Rounding to nearest finds the nearest value. A tie goes to the neighbour with the even code; if both or neither
    are even, to the one of smaller magnitude, then to the upper one. With `thresholds` the format brings its own
    decision points: a number above `thresholds[i]` rounds to the upper neighbour, one equal to it to the lower.
    There is no NaN, no infinity and no -0.

    Args:
        values: Distinct finite numbers, in any order; at least two, at most 65536.
        codes: The code of each value; default the position.
        bits: Width of a code; default the fewest that hold the codes.
        thresholds: Decision points, ascending, one fewer than values, each at least the lower neighbour and less than
            the upper one; default the midpoints.
        label: A name for cards and tables.

    Raises:
        FormatError: Too few values, a value twice, a value not finite, codes or thresholds that do not fit.

    Example:
        >>> Codebook([0.0, 1.0, 4.0]).bits
        2
    """

    values: tuple[float, ...]
    codes: tuple[int, ...]
    bits: int
    thresholds: tuple[float, ...] | None
    label: str

    kind = "table"

    def __init__(
        self,
        values: Sequence[float],
        codes: Sequence[int] | None = None,
        bits: int | None = None,
        thresholds: Sequence[float] | None = None,
        label: str = "",
    ) -> None:
        numbers = _checked_values(values)
        order = sorted(range(len(numbers)), key=numbers.__getitem__)
        positions = list(range(len(numbers))) if codes is None else _integers("codes", codes)
        width = max(1, max(positions, default=0).bit_length()) if bits is None else _integers("bits", [bits])[0]
        if len(positions) != len(numbers) or len(set(positions)) != len(numbers) or not 1 <= width <= 16:
            raise FormatError(
                f"codes={codes!r} must be distinct, one for each of the {len(numbers)} values, below 65536."
            )
        if min(positions) < 0 or max(positions) >= 1 << width:
            raise FormatError(f"bits={width!r} cannot hold the codes {min(positions)} to {max(positions)}.")
        object.__setattr__(self, "values", tuple(numbers[i] for i in order))
        object.__setattr__(self, "codes", tuple(positions[i] for i in order))
        object.__setattr__(self, "bits", width)
        object.__setattr__(self, "thresholds", self._checked_thresholds(thresholds))
        object.__setattr__(self, "label", label)

    def _checked_thresholds(self, thresholds: Sequence[float] | None) -> tuple[float, ...] | None:
        if thresholds is None:
            return None
        cuts = tuple(_numbers("thresholds", thresholds))
        gaps = list(zip(self.values, self.values[1:], strict=False))
        if len(cuts) != len(gaps) or not all(a <= t < b for t, (a, b) in zip(cuts, gaps, strict=True)):
            raise FormatError(
                f"thresholds={thresholds!r} must lie one between each pair of the {len(self.values)} values, ascending."
            )
        return cuts

    def __hash__(self) -> int:
        return hash((self.values, self.codes, self.bits, self.thresholds))

    def __eq__(self, other: object) -> bool:
        mine = (self.values, self.codes, self.bits, self.thresholds)
        return isinstance(other, Codebook) and mine == (other.values, other.codes, other.bits, other.thresholds)

    @property
    def signed(self) -> bool:
        return self.values[0] < 0

    @property
    def has_zero(self) -> bool:
        return 0.0 in self.values

    def meaning(self, code: int) -> Meaning:
        """Return the value of `code`; codes that the list does not use are NaN."""
        self.check_code(code)
        return Fraction(self._value_of[code]) if code in self._value_of else "nan"

    @cached_property
    def _value_of(self) -> dict[int, float]:
        return dict(zip(self.codes, self.values, strict=True))

    @cached_property
    def _limits(self) -> tuple[Fraction, Fraction, Fraction, Fraction]:
        smallest = Fraction(min((v for v in self.values if v > 0), default=0.0))
        return Fraction(self.values[-1]), Fraction(self.values[0]), smallest, smallest

    @cached_property
    def eps(self) -> float:
        above = [v for v in self.values if v > 1]
        return min(above) - 1 if above and 1.0 in self.values else math.nan

    def generated_name(self) -> str:
        parameters = repr((self.values, self.codes, self.bits, self.thresholds))
        return self.label or f"codebook{len(self.values)}_{crc32(parameters.encode()):08x}"


def _numbers(field: str, values: Sequence[float]) -> list[float]:
    try:
        return [float(v) for v in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{field}={values!r} must be a sequence of numbers.") from error


def _integers(field: str, values: Sequence[int]) -> list[int]:
    try:
        return [v.__index__() for v in values]
    except (TypeError, AttributeError) as error:
        raise FormatError(f"{field}={values!r} must be integers.") from error


def _checked_values(values: Sequence[float]) -> list[float]:
    numbers = [v + 0.0 for v in _numbers("values", values)]  # -0 becomes +0
    if not 2 <= len(numbers) <= 65536:
        raise FormatError(f"values has {len(numbers)} entries; a codebook needs 2 to 65536.")
    bad = next((v for v in numbers if not math.isfinite(v)), None)
    if bad is not None:
        raise FormatError(f"values holds {bad!r}; every value of a codebook must be finite.")
    if len(set(numbers)) != len(numbers):
        raise FormatError("values holds a number twice; every value of a codebook must be distinct.")
    return numbers
