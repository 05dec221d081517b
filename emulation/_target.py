"""From results in float64, or exact ones, to the codes of a format: every result is rounded once.

Three ways, each used only where it cannot be told from rounding the exact result:
- A float64 number rounded to odd keeps in its last bit whether anything was lost. Rounding it again is innocuous where
  the format (and the random bits of a stochastic mode) keep at most 49 bits, and its steps are powers of two apart.
- A bracket: for given random bits every rounding is monotone, so if both ends of an interval that holds the exact
  result give one code, that is the code.
- The exact result as Fraction or `Real`, or as enclosures that shrink until both ends give one code (Ziv 1991).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._operands import precision
from lowp.formats.codebook import Codebook
from lowp.formats.exact_real import Real
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import Meaning, ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding import _wrap, exact
from lowp.rounding._scalar import encode_values
from lowp.rounding.random_bits import words
from lowp.rounding.request import Request

#: Bounds below and above a number, the closer the larger the precision asked for, in bits.
Enclosure = Callable[[int], tuple[Fraction, Fraction]]
#: An exact result.
Result = Meaning | Enclosure
#: States of a float64 result: it is the exact result; it was rounded to odd; it is a placeholder.
EXACT, ODD, OPEN = range(3)
#: Bits that a rounding may look at in a number rounded to odd.
_ODD_BITS = 49
_MOST_PRECISION = 1 << 15


class Target(NamedTuple):
    """A format, how to round into it, and the position that the random bits of the first result belong to."""

    fmt: ScalarFormat
    request: Request
    start: int = 0

    @property
    def wraps(self) -> bool:
        """Whether a large result keeps its low bits."""
        return self.request.overflow in _wrap.WRAPPING

    @property
    def takes_odd(self) -> bool:
        """Whether a number rounded to odd is as good as the exact one."""
        if isinstance(self.fmt, Codebook) or self.wraps or (isinstance(self.fmt, RankedFormat) and self._random):
            return False
        return precision(self.fmt) - 1 + self._random <= _ODD_BITS

    @property
    def _random(self) -> int:
        return self.request.mode.random_bits

    def encode(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """Round numbers that are the exact results."""
        return encode_values(values, self.fmt, self.request, self.start)

    def encode_odd(
        self, values: NDArray[np.float64], state: NDArray[Any], exactly: Callable[[int], Result]
    ) -> NDArray[Any]:
        """Round float64 results of the given states; `exactly(i)` tells result `i` where they do not suffice."""
        is_open, inexact = state == OPEN, state == ODD
        some_open = bool(is_open.any())
        values = np.where(is_open, 0.0, values) if some_open else values
        if self.takes_odd or not inexact.any():
            codes = self.encode(values)
            return self._open(codes, is_open, exactly) if some_open else codes
        below = np.where(inexact, np.nextafter(values, -np.inf), values)
        above = np.where(inexact, np.nextafter(values, np.inf), values)
        return self.encode_between(below, above, exactly, is_open | (inexact & self.wraps))

    def encode_between(
        self,
        below: NDArray[np.float64],
        above: NDArray[np.float64],
        exactly: Callable[[int], Result],
        undecided: NDArray[np.bool_],
    ) -> NDArray[Any]:
        """Round results known to lie between bounds, those `undecided`, without bounds, from their exact values."""
        codes = self.encode(np.where(undecided, 0.0, below))
        differ = codes != self.encode(np.where(undecided, 0.0, above))
        return self._open(codes, undecided | differ, exactly)

    def _open(self, codes: NDArray[Any], which: NDArray[np.bool_], exactly: Callable[[int], Result]) -> NDArray[Any]:
        for i in np.flatnonzero(which):
            codes[i] = self.encode_exact(exactly(int(i)), int(i))
        return codes

    def encode_where(self, which: NDArray[np.bool_], exactly: Callable[[int], Result]) -> NDArray[Any]:
        """Round exact results one by one; the other codes are 0."""
        return self._open(np.zeros(which.shape, code_dtype(self.fmt.bits)), which, exactly)

    def encode_exact(self, result: Result, position: int) -> int:
        """Return the code of an exact result."""
        if isinstance(result, Real) and not is_logarithmic(self.fmt):
            result = result.enclosure  # decided at rational numbers, of which this is none
        if not callable(result):
            return self._code(result, position)
        bits = 96
        while bits <= _MOST_PRECISION:
            low, high = (self._code(end, position) for end in result(bits))
            if low == high:
                return low
            bits *= 2
        raise ArithmeticError(f"a result lies within 2^-{bits} of a number at which {self.fmt.name!r} changes over.")

    def _code(self, number: Meaning, position: int) -> int:
        mode, random = self.request.mode, None
        if mode.variant:
            random = int(words((self.request.key0, self.request.key1), self.start + position, 1)[0])
        return exact.encode(
            number,
            self.fmt,
            mode.name,
            self.request.overflow,
            random=random,
            random_bits=mode.random_bits or None,
            saturation_bits=self.request.saturation_bits,
            nan=self.request.nan,
        )
