"""What one step of a sum adds: products of operands, or numbers that were stored before; and exact sums of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lowp.emulation import _exact_bins
from lowp.emulation._operands import precision
from lowp.emulation._side import Side
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat

Sums = NDArray[np.float64]

_ONE = Float(2, 1, bias=1, specials="finite")
_FLOAT64 = Float(11, 52)
_FLOAT64_BITS = 53


@dataclass(frozen=True, eq=False)
class Terms:
    """What one step adds, for every output: products of (batch, rows, terms) and (batch, terms, columns).

    Args:
        a: Left operands.
        b: Right operands.
        stored: Whether they are numbers that have been stored before, and stand as they are: times one, or minus one.
    """

    a: Side
    b: Side
    stored: bool = False

    @classmethod
    def of_values(cls, values: Sequence[Sums], fmt: ScalarFormat, sign: float = 1.0) -> Terms:
        """Return addends that are numbers of a format, one for each output."""
        stacked = np.stack([x.reshape(-1) for x in values])[None]
        return cls(Side(np.full((1, 1, len(values)), sign), _ONE), Side(stacked, fmt), stored=True)

    def __len__(self) -> int:
        return int(self.a.values.shape[2])

    def each(self) -> Iterator[Sums]:
        """Return the addends one by one, rounded to float64 where that does not hold a product."""
        left, right = self.a.scaled_values(-1), self.b.scaled_values(-2)
        for k in range(len(self)):
            with np.errstate(invalid="ignore", over="ignore"):
                yield (left[:, :, k, None] * right[:, k, None, :]).reshape(-1)

    def total(self) -> tuple[Sums, Sums]:
        """Return the exact sum of the addends as two numbers: rounded to float64, and what that left over."""
        bits = sum(64 if x.scales is not None else precision(x.format) for x in (self.a, self.b))
        if len(self) == 1 and (bits <= _FLOAT64_BITS or self.stored):
            only = next(self.each())
            return only, np.zeros_like(only)
        left, right = self.a.scaled_values(-1), self.b.scaled_values(-2)
        high = exact_sums(left, right, None)
        low = exact_sums(left, right, -high)
        low[~np.isfinite(high)] = 0.0
        return high.reshape(-1), low.reshape(-1)

    def exactly(self, output: int) -> list[Fraction | None]:
        """Return the addends of one output; None for what is not finite."""
        columns = self.b.values.shape[2]
        row, column = divmod(output, columns)
        batch, row = divmod(row, self.a.values.shape[1])
        factors = [self.a.values[batch, row], self.b.values[batch, :, column]]
        if self.a.scales is not None:
            factors.append(self.a.spread_scales(-1)[batch, row])
        if self.b.scales is not None:
            factors.append(self.b.spread_scales(-2)[batch, :, column])
        return [_product(numbers) for numbers in zip(*(x.tolist() for x in factors), strict=True)]


def _product(numbers: Sequence[float]) -> Fraction | None:
    if not np.isfinite(numbers).all():
        return None
    result = Fraction(1)
    for x in numbers:
        result *= Fraction(x)
    return result


def exact_sums(a: Sums, b: Sums, c: Sums | None) -> Sums:
    """Return `c + a @ b`, summed exactly and rounded once to float64; arrays have a batch axis."""
    how = Accumulator(format=_FLOAT64, group=max(a.shape[2], 1))
    starts = np.zeros((len(a), a.shape[1], b.shape[2])) if c is None else c
    return np.stack(
        [_exact_bins.run(x, y, z, how, _FLOAT64, _FLOAT64) for x, y, z in zip(a, b, starts, strict=True)]
        or [np.zeros((a.shape[1], b.shape[2]))]
    )[: len(a)]
