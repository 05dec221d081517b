"""Exact widths of sums of products: the grid of a format's numbers, and the sums that tensors can have."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._operands import holds_exactly
from lowp.emulation._side import Side
from lowp.emulation._sum_terms import exact_sums
from lowp.formats.block import Block
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat, finite_values

_MOST_LISTED_BITS = 16
_FLOAT64_BITS = 53

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Width:
    """A two's complement accumulator in which sums are exact.

    Args:
        bits: Its bits, at least 1.
        fraction_bits: Bits right of the binary point: the weight of the last is `2^-fraction_bits`.
        least: The least sum that there may be.
        largest: The largest.
    """

    bits: int
    fraction_bits: int
    least: Fraction
    largest: Fraction

    @property
    def format(self) -> Integer | Fixed:
        """The accumulator's format.

        Raises:
            FormatError: It is wider than formats go.
        """
        return Integer(self.bits) if self.fraction_bits == 0 else Fixed(self.bits, self.fraction_bits)

    def __str__(self) -> str:
        return (
            f"{self.bits} bits, the last of weight 2^{-self.fraction_bits}: sums from {_shown(self.least)} to "
            f"{_shown(self.largest)}"
        )


def _shown(x: Fraction) -> str:
    """Return a number as text; beyond float64 the power of two below it."""
    try:
        return f"{float(x):.6g}"
    except OverflowError:
        return f"{'-' * (x < 0)}2^{int(abs(x)).bit_length() - 1} and more"


@dataclass(frozen=True)
class Grid:
    """The finite numbers of a format: multiples of a power of two between two numbers."""

    unit: int  # exponent
    least: Fraction
    largest: Fraction


def grid_of(fmt: Format, role: str = "format") -> Grid:
    """Return the grid of a format's finite numbers.

    Raises:
        ArgumentError: They are not multiples of a power of two.
    """
    if isinstance(fmt, Block):
        element, scale = fmt.element, fmt.scale
        if fmt.tensor_scale is not None:
            raise ArgumentError(f"{role}={fmt.name!r} has no grid of its own: give its element format, or a tensor.")
        x, s = grid_of(element, role), grid_of(scale, role)
        ends = [x.least * s.largest, x.largest * s.largest, x.least * s.least, x.largest * s.least]
        return Grid(x.unit + s.unit, min(ends), max(ends))
    if not isinstance(fmt, ScalarFormat):
        raise ArgumentError(f"{role}={fmt.name!r} must be a scalar format or a block format.")
    largest, least, _, smallest = fmt._limits  # noqa: SLF001 - the exact limits, which the public ones round
    if isinstance(largest, Real) or isinstance(least, Real) or isinstance(smallest, Real):
        raise ArgumentError(f"{role}={fmt.name!r} has irrational numbers, which no fixed point holds.")
    if fmt.bits <= _MOST_LISTED_BITS:
        listed = [x for x in finite_values(fmt) if not isinstance(x, Real)]
        return Grid(min((_last_bit(x) for x in listed if x), default=0), min(listed), max(listed))
    if isinstance(fmt, Integer | Fixed):
        if fmt.signed:  # of symmetric formats too: the code below the least number decodes
            least = -(Fraction(2) ** (fmt.bits - 1 - fmt.fraction_bits))
        return Grid(-fmt.fraction_bits, least, largest)
    if isinstance(fmt, Float):
        return Grid(fmt.emin - fmt.mantissa_bits, least, largest)
    # tapered formats: the least number has the last bit
    return Grid(_last_bit(smallest), least, largest)


def of_formats(left: Grid, right: Grid, terms: int | None) -> Width:
    if terms is None:
        raise ArgumentError("terms must be given for two formats: how many products a sum has.")
    count = positive("terms", terms)
    ends = [x * y for x in (left.least, left.largest) for y in (right.least, right.largest)]
    return width_of(left.unit + right.unit, count * min(Fraction(0), *ends), count * max(Fraction(0), *ends))


class Products:
    """Exact products of two tensors, or of one and the ends of a format."""

    def __init__(self, left: Grid | Numbers, right: Grid | Numbers) -> None:
        self.left, self.right = left, right
        if not isinstance(left, Grid) and not isinstance(right, Grid) and left.shape[1] != right.shape[0]:
            raise ArgumentError(f"a of shape {left.shape} and b of shape {right.shape} do not fit.")
        units = _units(left, 0), _units(right, 1)
        sums = [x + y for x, y in zip(*_broadcast(*units), strict=True) if x is not None and y is not None]
        self.unit = min(sums, default=0)

    def range_of_sums(self, order: str) -> tuple[Fraction, Fraction]:
        """Return the least and the largest sum of all outputs."""
        if isinstance(self.left, Grid) or isinstance(self.right, Grid):
            return self._range(self._of_weights(), order)
        if order == "given":
            return self._range_of_partial_sums(self.left, self.right)
        low = high = self.left, self.right
        if order == "any":
            low, high = (_signed_parts(self.left, self.right, sign) for sign in (-1, 1))
        return min(_least(*low), Fraction(0)), max(_largest(*high), Fraction(0))

    def _range_of_partial_sums(self, left: Numbers, right: Numbers) -> tuple[Fraction, Fraction]:
        least, largest = self.range_of_sums("any")
        if width_of(self.unit, least, largest).bits > _FLOAT64_BITS:
            return self._range(self._of_tensors(left, right), "given")
        running = np.zeros((len(left), right.shape[1]))
        low, high = 0.0, 0.0
        for k in range(left.shape[1]):
            running += left[:, k, None] * right[k]  # exact: all sums fit
            low, high = min(low, float(running.min(initial=0))), max(high, float(running.max(initial=0)))
        return Fraction(low), Fraction(high)

    @staticmethod
    def _range(outputs: Any, order: str) -> tuple[Fraction, Fraction]:
        least, largest = Fraction(0), Fraction(0)
        for low, high in outputs:
            one_sign = order == "any"
            lower, upper = ([pick(x, 0) if one_sign else x for x in xs] for pick, xs in ((min, low), (max, high)))
            ends = _sums(lower, order), _sums(upper, order)
            least, largest = min(least, *ends[0]), max(largest, *ends[1])
        return least, largest

    def _of_weights(self) -> Any:
        """Yield the least and the largest products of each output of one tensor and a format."""
        grid, weights = (self.left, self.right) if isinstance(self.left, Grid) else (self.right, self.left)
        for column in weights.T if grid is self.left else weights:  # type: ignore[union-attr]
            ends = [sorted((grid.least * Fraction(w), grid.largest * Fraction(w))) for w in column.tolist()]  # type: ignore[union-attr]
            yield [e[0] for e in ends], [e[1] for e in ends]

    @staticmethod
    def _of_tensors(left: Numbers, right: Numbers) -> Any:
        for row in left.tolist():
            for column in right.T.tolist():
                products = [Fraction(x) * Fraction(y) for x, y in zip(row, column, strict=True)]
                yield products, products


def _sums(products: list[Fraction], order: str) -> list[Fraction]:
    """Return the partial sums, or the sum alone."""
    if order == "given":
        running, result = Fraction(0), [Fraction(0)]
        for x in products:
            running += x
            result.append(running)
        return result
    return [sum(products, Fraction(0))]


def _signed_parts(x: Numbers, y: Numbers, sign: int) -> tuple[Numbers, Numbers]:
    """Return operands whose products are those of one sign, the others left out."""
    up, down = np.maximum(x, 0), np.minimum(x, 0)
    first, second = np.maximum(y, 0), np.minimum(y, 0)
    rows = (first, second) if sign > 0 else (second, first)
    return np.concatenate([up, down], axis=1), np.concatenate(rows, axis=0)


def _least(x: Numbers, y: Numbers) -> Fraction:
    return -_largest(-x, y)


def _largest(x: Numbers, y: Numbers) -> Fraction:
    """Return the largest of the exact sums `x @ y`: one of those whose sum rounded to float64 is the largest."""
    rounded = exact_sums(x[None], y[None], None)[0]
    if not rounded.size:
        return Fraction(0)
    best = np.argwhere(rounded == rounded.max())
    return max(_exact_sum(x[i], y[:, j]) for i, j in best[: 1 if _few_bits(x, y) else None])


def _few_bits(x: Numbers, y: Numbers) -> bool:
    """Whether every sum of products is a number of float64."""
    ends = [[_last_bit(Fraction(v)) for v in z.ravel().tolist() if v] for z in (x, y)]
    if not all(ends):
        return True
    most = exact_sums(np.abs(x)[None], np.abs(y)[None], None).max()
    return bool(np.isfinite(most) and np.frexp(most)[1] - sum(min(e) for e in ends) <= _FLOAT64_BITS)


def _exact_sum(x: Numbers, y: Numbers) -> Fraction:
    return sum((Fraction(p) * Fraction(q) for p, q in zip(x.tolist(), y.tolist(), strict=True)), Fraction(0))


def _units(x: Grid | Numbers, axis: int) -> list[int | None]:
    """Return the exponent of the last bit that the numbers of each term have; None: all are zero."""
    if isinstance(x, Grid):
        return [x.unit]
    along = x if axis else x.T
    return [min((_last_bit(Fraction(v)) for v in term.tolist() if v), default=None) for term in along]


def _broadcast(x: list[int | None], y: list[int | None]) -> tuple[list[int | None], list[int | None]]:
    count = max(len(x), len(y)) if x and y else 0
    return (x * count if len(x) == 1 else x)[:count], (y * count if len(y) == 1 else y)[:count]


def grid_or_numbers(x: Any, role: str, axis: int) -> Grid | Numbers:
    if isinstance(x, str | Format):
        return grid_of(parse(x), role)
    return numbers(x, role, axis)


def counts_in_ones(x: Any) -> bool:
    """Whether an operand is made of integers: by its format, or its dtype."""
    fmt = parse(x) if isinstance(x, str | Format) else getattr(x, "format", None)
    if fmt is not None:
        return isinstance(fmt, Integer)
    return "int" in str(x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype)  # NumPy's, torch's or JAX's


def numbers(x: Any, role: str, axis: int) -> Numbers:
    """Return a tensor as a matrix of exact float64 numbers, scales included.

    Raises:
        ArgumentError: It has numbers that are not finite, or that float64 does not hold, or is no vector or matrix.
    """
    from lowp.emulation.matmul import operand  # which needs modules that come after this one

    found = operand(x, role, axis)
    if not holds_exactly(found.format):
        raise ArgumentError(f"{role} is in {found.format.name!r}, whose numbers float64 does not hold.")
    values, scales = found.values, found.scales
    if values.ndim == 1:
        place = 0 if axis == -1 else 1
        values, scales = np.expand_dims(values, place), None if scales is None else np.expand_dims(scales, place)
    if values.ndim != 2:
        raise ArgumentError(f"{role} must be a vector or a matrix, not of shape {values.shape}.")
    if scales is not None:
        values = Side(values[None], found.format, scales[None], found.scale_format, found.block).scaled_values(axis)[0]
    if found.tensor_scale is not None:
        raise ArgumentError(f"{role} has a tensor scale, which multiplies sums, not terms; leave it out.")
    if not np.isfinite(values).all():
        raise ArgumentError(f"{role} holds numbers that are not finite.")
    return values


def width_of(unit: int, least: Fraction, largest: Fraction) -> Width:
    scale = Fraction(2) ** unit
    low, high = int(least / scale), int(largest / scale)
    bits = max(high.bit_length() + 1 if high > 0 else 1, (-low - 1).bit_length() + 1 if low < 0 else 1)
    return Width(bits=bits, fraction_bits=-unit, least=least, largest=largest)


def _last_bit(x: Fraction) -> int:
    """Return the exponent of the last bit of a number that is a multiple of a power of two."""
    n, d = x.numerator, x.denominator
    if d & (d - 1):
        raise ArgumentError(f"{float(x)!r} is not a multiple of a power of two.")
    return (n & -n).bit_length() - d.bit_length()


def positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentTypeError(f"{name}={value!r} must be an integer.")
    if not value >= 1:
        raise ArgumentError(f"{name}={value!r} must be at least 1.")
    return int(value)
