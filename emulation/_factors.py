"""Operands of a sum of products as integers times powers of two, as a matrix unit's front end sees them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.emulation._operands import precision
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat

#: The exponent of zero: sums with it stay far below any other.
ZERO_EXPONENT = -(1 << 20)
#: Significant bits of an operand whose products and sums 64-bit integers hold.
MOST_BITS = 31
_MANTISSA = 52


@dataclass(frozen=True)
class Factors:
    """`significand * 2^(exponent - fraction_bits)` for finite numbers; zero and what is not finite have significand 0.

    Attributes:
        values: The numbers.
        exponents: int32; of zero, and of what is not finite, `ZERO_EXPONENT`.
        fraction_bits: Significands are less than `2^(fraction_bits + 1)`.
        finite: Which numbers are finite; None: all are.
        furthest: The largest magnitude of an exponent other than `ZERO_EXPONENT`; 0 if there is none.
    """

    values: NDArray[np.float64]
    exponents: NDArray[np.int32]
    fraction_bits: int
    finite: NDArray[np.bool_] | None
    furthest: int

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The numbers, 0 for what is not finite."""
        return self.values if self.finite is None else np.where(self.finite, self.values, 0.0)

    @property
    def reach(self) -> int:
        """The largest magnitude of an exponent, last bits included."""
        return self.furthest + self.fraction_bits

    def tile(self, absent: int, numbers: NDArray[Any], exponents: NDArray[Any]) -> None:
        """Write the numbers and their exponents, those of zeros as `absent`, in tiles of columns.

        Arrays are (batch, tiles, rows, width); beyond the last column are zeros.
        """
        from lowp.emulation import _factors_kernels as kernels

        kernels.tiled(np.ascontiguousarray(self.numbers), self.exponents, absent, numbers, exponents)

    @cached_property
    def significands(self) -> NDArray[np.int64]:
        """The significands, as int64."""
        shift = np.where(self.exponents == ZERO_EXPONENT, 0, self.fraction_bits - self.exponents)
        return np.ldexp(self.numbers, shift).astype(np.int64)


def factors(values: NDArray[np.float64], fmt: ScalarFormat, room: NDArray[np.int32] | None = None) -> Factors:
    """Return numbers of a format as integers times powers of two; their exponents in `room`, if there is one.

    The exponent of a number is `floor(log2 |x|)`, but not less than that of the format's least normal number. Of
    formats with more than `MOST_BITS` significant bits the numbers themselves say how many there are.

    Raises:
        ArgumentError: Numbers have too many significant bits.
    """
    from lowp.emulation import _factors_kernels as kernels

    values = np.ascontiguousarray(values)
    exponents = np.empty(values.shape, np.int32) if room is None else room
    flat = values.reshape(-1).view(np.int64)
    all_finite, furthest = kernels.exponents(flat, least_exponent(fmt), ZERO_EXPONENT, exponents.reshape(-1))
    finite = None if all_finite else np.isfinite(values)
    bits = precision(fmt)
    if bits > MOST_BITS:
        bits = _most_bits(values if finite is None else values[finite])
    if bits > MOST_BITS:
        raise ArgumentError(
            f"operands in {fmt.name!r}, of {bits} significant bits, are too wide for aligned sums, which take "
            f"{MOST_BITS}; leave alignment out."
        )
    return Factors(values, exponents, bits - 1, finite, int(furthest))


def _most_bits(values: NDArray[np.float64]) -> int:
    """Return the most significant bits that a number uses."""
    whole = np.ldexp(np.frexp(values)[0], _MANTISSA + 1).astype(np.int64)
    lowest = (whole & -whole)[whole != 0].min(initial=1 << _MANTISSA)
    return _MANTISSA + 2 - int(lowest).bit_length()


def scaled(elements: Factors, scales: Factors) -> Factors:
    """Return numbers times their scales; significands and exponents combine without being renormalised."""
    from lowp.emulation import _factors_kernels as kernels

    bits = elements.fraction_bits + scales.fraction_bits
    if bits >= MOST_BITS:
        raise ArgumentError(f"elements times scales have {bits + 1} significant bits; aligned sums take {MOST_BITS}.")
    with np.errstate(invalid="ignore"):
        values = elements.values * scales.values
    finite = np.isfinite(values)
    exponents = np.where((values == 0) | ~finite, ZERO_EXPONENT, elements.exponents + scales.exponents).astype(np.int32)
    furthest = int(kernels.largest_magnitude(exponents.reshape(-1), ZERO_EXPONENT))
    return Factors(values, exponents, bits, None if finite.all() else finite, furthest)


def least_exponent(fmt: ScalarFormat) -> int:
    """Return the exponent of the least normal number; formats without subnormals have none."""
    return fmt.emin if isinstance(fmt, Float) else ZERO_EXPONENT
