"""A number with its interval, its unit, and where it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lowp._errors import ArgumentError, ArgumentTypeError

_PREFIXES = tuple((10.0**power, prefix) for power, prefix in zip(range(12, -18, -3), "TGMk munpf", strict=True))
#: Units whose prefixes are squared, and units that count things and take no prefix.
_SQUARES = ((1e-6, "m"), (1e-12, "u"), (1e-18, "n"))
_SI = ("s", "J", "W", "Hz", "B", "B/s", "op/s")


@dataclass(frozen=True)
class Estimate:
    """A predicted quantity in plain SI units.

    Estimates of one unit add, and scale by a positive number. Adding adds the interval ends, because the errors of
    one model on one machine go the same way: the sum's interval does not shrink with the number of terms.

    Attributes:
        value: The best guess, in `unit`.
        low: Lower end of the interval, at least 0 and at most `value`.
        high: Upper end, at least `value`.
        unit: SI unit without a prefix, such as "s", "J" or "m2"; or what is counted, such as "GE", "LUT" or "tokens/s".
        bound: What decides the value: "compute", "memory", "convert", "launch" or "static"; of a sum, that of its
            largest term added last.
        provenance: Which model and which sources; parts are separated by "; ".

    Raises:
        ArgumentError: The numbers are not finite, negative, or not in the order low <= value <= high.

    Example:
        >>> t = Estimate(2e-6, 1.5e-6, 4e-6, "s", "memory", "by hand")
        >>> print(t + 3 * t)
        8 us (6 to 16 us, memory)
    """

    value: float
    low: float
    high: float
    unit: str
    bound: str
    provenance: str

    def __post_init__(self) -> None:
        if not (0 <= self.low <= self.value <= self.high < math.inf):
            raise ArgumentError(
                f"low={self.low!r}, value={self.value!r}, high={self.high!r} must be finite, not negative, ascending."
            )

    def __add__(self, other: Estimate) -> Estimate:
        if not isinstance(other, Estimate):
            return NotImplemented
        if self.unit != other.unit:
            raise ArgumentError(f"unit={other.unit!r} cannot be added to {self.unit!r}; allowed: {self.unit!r}.")
        larger = self if self.value > other.value else other
        return Estimate(
            self.value + other.value,
            self.low + other.low,
            self.high + other.high,
            self.unit,
            larger.bound,
            _joined(self.provenance, other.provenance),
        )

    def __mul__(self, factor: float) -> Estimate:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            raise ArgumentTypeError(f"factor={factor!r} must be a number, not {type(factor).__name__}.")
        if not 0 < factor < math.inf:
            raise ArgumentError(f"factor={factor!r} must be positive and finite.")
        return replace(self, value=self.value * factor, low=self.low * factor, high=self.high * factor)

    __rmul__ = __mul__

    def __str__(self) -> str:
        scale, prefix = self._prefix()
        low, value, high = (f"{float(f'{x / scale:.3g}'):g}" for x in (self.low, self.value, self.high))
        unit = prefix.strip() + self.unit
        return f"{value} {unit} ({low} to {high} {unit}, {self.bound})"

    def _prefix(self) -> tuple[float, str]:
        if self.unit != "m2" and self.unit not in _SI:
            return 1.0, ""
        if self.value == 0:
            return 1e-12, "u" if self.unit == "m2" else "p"
        prefixes = _SQUARES if self.unit == "m2" else _PREFIXES
        return next((p for p in prefixes if self.value >= p[0]), prefixes[-1])


def _joined(first: str, second: str) -> str:
    """Join two provenances and keep each part once, in order."""
    if first == second:
        return first
    return "; ".join(dict.fromkeys([*first.split("; "), *second.split("; ")]))
