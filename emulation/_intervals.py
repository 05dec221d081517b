"""Enclosures by interval arithmetic, and stand-ins for results that no format tells from their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from lowp.emulation._target import Enclosure
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.logarithmic import LNS
from lowp.formats.posit import Posit
from lowp.formats.ranked import TaperedFormat
from lowp.formats.spec import ScalarFormat

#: Formats of at most 64 bits do not resolve relative differences as small as this.
_UNSEEN = Fraction(1, 1 << 256)
#: Below this, `sin x = x` but for unseen differences, and `cos x` and `e^x` lie just beside 1.
TINY = Fraction(1, 1 << 260)
#: Enough for random bits and for steps below the smallest value.
_SPARE = 128
_LONGEST_WRAP = 1 << 13


class Functions:
    """mpmath's functions of intervals, made a little wider.

    Its results are right to an ulp, but where the digits that it computes end in zeros both bounds may be one number.
    """

    def __init__(self, iv: Any) -> None:
        self._iv = iv
        slack = iv.mpf(2) ** (8 - iv.prec)
        self._around_one = iv.mpf([(1 - slack).a, (1 + slack).b])

    def exp(self, x: Any) -> Any:
        """Return `e^x`."""
        return self._iv.exp(x) * self._around_one

    def log(self, x: Any) -> Any:
        """Return the natural logarithm."""
        return self._iv.log(x) * self._around_one

    def sin(self, x: Any) -> Any:
        """Return the sine."""
        return self._iv.sin(x) * self._around_one

    def cos(self, x: Any) -> Any:
        """Return the cosine."""
        return self._iv.cos(x) * self._around_one


def enclosure(function: Callable[..., Any], *numbers: Fraction | Real) -> Enclosure:
    """Return bounds on `function(functions, *numbers)`, computed with intervals by `Functions`."""

    def bounds(bits: int) -> tuple[Fraction, Fraction]:
        from mpmath import iv

        before = iv.prec
        try:
            iv.prec = bits + 32
            low, high = function(Functions(iv), *(_interval(iv, x, bits + 32) for x in numbers))._mpi_
        finally:
            iv.prec = before
        return _fraction(low), _fraction(high)

    return bounds


def _interval(iv: Any, x: Fraction | Real, bits: int) -> Any:
    ends = (x, x) if isinstance(x, Fraction) else x.enclosure(bits)
    low, high = (iv.mpf(end.numerator) / end.denominator for end in ends)
    return iv.mpf([low.a, high.b])


def _fraction(raw: tuple[int, int, int, int]) -> Fraction:
    """Return one of mpmath's numbers (sign, significand, exponent, size)."""
    sign, significand, exponent, _ = raw
    value = Fraction(int(significand)) * Fraction(2) ** int(exponent)
    return -value if sign else value


def just_beside_one(above: bool) -> Fraction:
    """Return a number that every format rounds like any other that close to 1 on its side."""
    return 1 + (_UNSEEN if above else -_UNSEEN)


def just_below(x: Fraction | Real) -> Fraction | Real:
    """Return a number that every format rounds like any other that close to `x` and nearer to zero."""
    return x * (1 - _UNSEEN)


def clamped(reach: int, large: bool) -> Fraction:
    """Return a number beyond everything that a format tells apart."""
    return Fraction(1 << (reach + 1)) if large else Fraction(1, 1 << (reach + 1))


def reach(fmt: ScalarFormat, wraps: bool) -> int:
    """Return an exponent beyond which powers of two are all the same to a format, above and (negated) below."""
    if wraps:
        return _LONGEST_WRAP
    if isinstance(fmt, LNS):
        return max(abs(fmt.least_exponent), fmt.largest_exponent) // fmt.gamma + _SPARE
    if isinstance(fmt, Posit):
        return ((fmt.bits - 2) << fmt.es) + _SPARE
    if isinstance(fmt, Float):
        return max(fmt.emax, fmt.mantissa_bits - fmt.emin) + _SPARE
    return (300 if isinstance(fmt, TaperedFormat) else 1100) + _SPARE
