"""Exact real numbers beyond the rationals: sums of rational multiples of 2^q and e^p with rational q and p.

Values of logarithmic formats are irrational. These sums are closed under addition and multiplication, and two of them
are equal only if their normal forms are (2^q, 0 <= q < 1, are linearly independent over the rationals; powers of e
over the algebraic numbers, by Lindemann and Weierstrass). So a comparison may refine an enclosure until it decides.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache, total_ordering
from threading import Lock
from typing import Any

#: (exponent of e, exponent of 2) -> coefficient.
_Terms = dict[tuple[Fraction, Fraction], Fraction]
#: Exponents of 2 beyond which a power is not written out as an integer.
_LARGEST_POWER = 1 << 20
#: Held while the precision of the mpmath context is changed.
_LOCK = Lock()


@total_ordering
class Real:
    """A sum of terms `c * e^p * 2^q`, compared and converted exactly.

    Example:
        >>> root = Real.power_of_two(Fraction(1, 2))
        >>> root * root == 2, root < Fraction(99, 70), float(root)
        (True, True, 1.4142135623730951)
    """

    __slots__ = ("_terms",)

    def __init__(self, terms: _Terms) -> None:
        self._terms = {key: c for key, c in terms.items() if c}

    @staticmethod
    def power_of_two(exponent: Fraction) -> Real:
        """Return `2^exponent`."""
        return Real({(Fraction(0), Fraction(exponent)): Fraction(1)})

    @staticmethod
    def power_of_e(exponent: Fraction) -> Real:
        """Return `e^exponent`."""
        return Real({(Fraction(exponent), Fraction(0)): Fraction(1)})

    @staticmethod
    def of(x: Real | Fraction | int) -> Real:
        """Return a number as a Real."""
        return x if isinstance(x, Real) else Real({(Fraction(0), Fraction(0)): Fraction(x)})

    def __add__(self, other: Real | Fraction | int) -> Real:
        terms = dict(self._terms)
        for key, c in Real.of(other)._terms.items():
            terms[key] = terms.get(key, Fraction(0)) + c
        return Real(terms)

    def __mul__(self, other: Real | Fraction | int) -> Real:
        terms: _Terms = {}
        for (p, q), c in self._terms.items():
            for (r, s), d in Real.of(other)._terms.items():
                key = (p + r, q + s)
                terms[key] = terms.get(key, Fraction(0)) + c * d
        return Real(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Real:
        return self * -1

    def __sub__(self, other: Real | Fraction | int) -> Real:
        return self + Real.of(other) * -1

    def __rsub__(self, other: Real | Fraction | int) -> Real:
        return -self + other

    def __truediv__(self, other: Real | Fraction | int) -> Real:
        """Divide by a single term."""
        ((p, q), c), *more = Real.of(other)._terms.items()
        if more:
            raise ArithmeticError("a sum of several powers has no inverse of this kind")
        return self * Real({(-p, -q): 1 / c})

    def to_power(self, exponent: Fraction) -> Real:
        """Return a single power of 2 or e, raised to a rational exponent."""
        (((p, q), c),) = self._terms.items()
        q += c.numerator.bit_length() - c.denominator.bit_length()
        if Fraction(2) ** (c.numerator.bit_length() - c.denominator.bit_length()) != c:
            raise ArithmeticError("only powers of 2 and e have rational powers of this kind")
        return Real({(p * exponent, q * exponent): Fraction(1)})

    def exponents(self) -> tuple[Fraction, Fraction] | None:
        """Return p and q where the number is `e^p * 2^q`, else None."""
        if len(self._terms) == 1:
            (((p, q), c),) = self._terms.items()
            shift = c.numerator.bit_length() - c.denominator.bit_length()
            if Fraction(2) ** shift == c:
                return p, q + shift
        return None

    def __rtruediv__(self, other: Fraction | int) -> Real:
        return Real.of(other) / self

    def __abs__(self) -> Real:
        return -self if self.sign() < 0 else self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Real | Fraction | int) and (self - other).sign() == 0

    def __lt__(self, other: Real | Fraction | int) -> bool:
        return (self - other).sign() < 0

    def __hash__(self) -> int:
        return hash(float(self))

    def __repr__(self) -> str:
        def term(p: Fraction, q: Fraction, c: Fraction) -> str:
            return f"{c}" + (f"*2^({q})" if q else "") + (f"*e^({p})" if p else "")

        return "Real(" + (" + ".join(term(p, q, c) for (p, q), c in self._terms.items()) or "0") + ")"

    def __str__(self) -> str:
        def factors(p: Fraction, q: Fraction, c: Fraction) -> str:
            powers = [f"2^({q})"] * bool(q) + [f"e^({p})"] * bool(p)
            return "*".join([str(c)] * (c != 1 or not powers) + powers)

        return " + ".join(factors(p, q, c) for (p, q), c in self._terms.items()) or "0"

    def rational(self) -> Fraction | None:
        """Return the number as a Fraction if it is rational, and not too large to write down."""
        groups = self._grouped()
        if any(p or q.denominator != 1 or abs(q) > _LARGEST_POWER for p, q in groups):
            return None
        return sum((c * Fraction(2) ** int(q) for (_, q), c in groups.items()), Fraction(0))

    def sign(self) -> int:
        """Return -1, 0 or 1."""
        exponents = [q for _, q in self._terms]
        if exponents and max(exponents) - min(exponents) > _LARGEST_POWER:  # joining terms would write the power out
            low, high = _enclose(self._terms, 80)
            if low > 0 or high < 0:
                return 1 if low > 0 else -1
        groups = self._grouped()
        if len(groups) <= 1:
            c = next(iter(groups.values()), Fraction(0))
            return (c > 0) - (c < 0)
        precision = 80
        while True:
            low, high = _enclose(groups, precision)
            if low > 0 or high < 0:
                return 1 if low > 0 else -1
            precision *= 2

    def __float__(self) -> float:
        """Return the nearest float64, ties to even; infinity past the largest, zero below half the smallest."""
        exact = self.rational()
        if exact is not None:
            return to_float64(exact)
        precision = 80
        while True:
            low, high = (_to_float(end) for end in _enclose(self._grouped(), precision))
            if low == high:
                return low
            precision *= 2

    def enclosure(self, precision: int) -> tuple[Fraction, Fraction]:
        """Return rationals below and above the number, about `precision` bits apart."""
        low, high = _enclose(self._grouped(), precision)
        return _fraction(low), _fraction(high)

    def _grouped(self) -> _Terms:
        """Join terms whose exponents of two differ by integers; what is left is linearly independent."""
        least: dict[tuple[Fraction, Fraction], Fraction] = {}
        for p, q in self._terms:
            key = (p, q % 1)
            least[key] = min(q, least.get(key, q))
        sums: _Terms = {}
        for (p, q), c in self._terms.items():
            base = least[p, q % 1]
            sums[p, base] = sums.get((p, base), Fraction(0)) + c * (1 << int(q - base))
        return {key: c for key, c in sums.items() if c}


def to_float64(x: Fraction) -> float:
    """Return the nearest float64, ties to even, infinity past the largest."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


@lru_cache(maxsize=1)
def _arithmetic() -> Any:
    """An mpmath context of our own: setting its precision changes nothing for other users of mpmath."""
    from mpmath.ctx_mp import MPContext

    return MPContext()


def _enclose(terms: _Terms, precision: int) -> tuple[Any, Any]:
    """Return mpmath numbers below and above the sum; every step is right to an ulp, the bound allows eight."""
    mp = _arithmetic()
    with _LOCK, mp.workprec(precision + 8):
        total, bound = mp.mpf(0), mp.mpf(0)
        for (p, q), c in terms.items():
            term = mp.mpf(c.numerator) / c.denominator
            if q:
                whole = q.numerator // q.denominator
                rest = q - whole
                term = mp.ldexp(term * mp.power(2, mp.mpf(rest.numerator) / rest.denominator), whole)
            if p:
                term *= mp.exp(mp.mpf(p.numerator) / p.denominator)
            total += term
            bound += abs(term)
        slack = mp.ldexp(bound * (1 + _size(terms)), 3 - precision - 8)
        return total - slack, total + slack


def _size(terms: _Terms) -> int:
    """How much an ulp of an exponent of e can change a term, in ulps."""
    return max((int(abs(p)) + 1 for p, _ in terms), default=1)


def _to_float(x: Any) -> float:
    """Return the float64 nearest to an mpmath number, which may be far beyond its range."""
    _, mantissa, exponent, bits = x._mpf_
    if mantissa and exponent + bits > 1100:
        return math.copysign(math.inf, x)
    return 0.0 if exponent + bits < -1200 else to_float64(_fraction(x))


def _fraction(x: Any) -> Fraction:
    sign, mantissa, exponent, _ = x._mpf_
    value = Fraction(int(mantissa)) * Fraction(2) ** int(exponent)
    return -value if sign else value
