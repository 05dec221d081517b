"""Which arithmetic rounds a sum exactly: decided once from the bits that its terms can have.

A sum of a term (up to `P` significant bits) and a stored number (up to `p`), both float64, may be rounded by float64
before it is rounded to the format's `p` bits, to nearest, if float64's 53 bits hold it, or else if the first rounding
never makes a tie: a sum wider than 53 bits that float64 rounds to a tie of the format has one addend that reaches below
the other's last bits by a clear margin (`_MARGIN`), unless the larger addend is itself that tie, which a stored number
never is. Otherwise the sum is rounded to odd, or its error is kept.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._accumulator_checks import INFINITY
from lowp.emulation._rounded_passes_kernels import CLAMP, CORRECTED, NATIVE, NEAREST_EVEN, NEIGHBOUR, STOCHASTIC, WIDE
from lowp.emulation._stored_plan import is_storable
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding._corrections import corrections
from lowp.rounding.lowering import lower
from lowp.rounding.modes import ABOVE_HALF, BELOW_HALF, HALF, INTEGER_ONLY, Rounding, rounding

FLOAT64_BITS = 53
#: Powers of two that numbers, their products and errors stay between, so that float64's range plays no part.
_LEAST, _MOST = -900, 900
#: Significant bits of a format below which a number rounded to odd tells all.
_MOST_PRECISION = 50
_MARGIN = 3
#: Formats of more bits may hold numbers that have far fewer: these are worth a look.
_FEW = 23
_SIGN = -(1 << 63)
_EXPONENT = 0x7FF << 52
_UNLIMITED = 1 << 20


class Extent(NamedTuple):
    """Bits that the numbers of a set can have: how many, and the weights (powers of two) of the least and the most."""

    bits: int
    least: int
    most: int

    def times(self, other: Extent) -> Extent:
        """Return the extent of products."""
        return Extent(self.bits + other.bits, self.least + other.least, self.most + other.most + 1)

    def summed(self, start: Extent, terms: int, stored: Extent) -> Extent:
        """Return the extent of sums of terms that are stored, each rounded, from a start.

        They are multiples of what terms and start are multiples of. Rounding lets them grow by a factor of
        `(1 + 2^(1 - bits))^terms`, less than 4 if terms are few; else they reach as far as stored numbers do.
        """
        least = max(min(self.least, start.least), min(stored.least, start.least))
        most = max(self.most, start.most) + (terms + 1).bit_length() + 2
        few = terms <= 1 << (stored.bits - 1)
        return Extent(stored.bits, least, min(most, stored.most) if few else stored.most)

    def joined(self, other: Extent) -> Extent:
        """Return the extent of the numbers of either set."""
        return Extent(*map(max, zip(self, other, strict=True)))._replace(least=min(self.least, other.least))

    @property
    def moderate(self) -> bool:
        """Whether sums and their errors stay well within float64's range."""
        return self.bits <= FLOAT64_BITS and self.least >= _LEAST and self.most <= _MOST


_BINARY64 = Extent(53, -1074, 1023)


class SumPlan(NamedTuple):
    """What the passes need to know. Fields of exponents are those of float64, in place; masks are the sign bit or 0."""

    kind: int
    lossy: int  # whether float64 sums have to be told apart from exact ones
    mirror: int  # sums that cancel are -0
    plus_zero: int  # a sum of zero that is not rounded is +0
    exponent_mask: int
    least_field: int  # exponent field of the least normal number
    raise_by: int  # from a number's field to the bits of what rounds it
    to_quantum: int  # from a number's field to that of the weight of its last bit
    zero_sign: int  # whether -0 exists
    table: int
    variant: int
    random_bits: int
    precision: int
    least_bit: int
    wrap_bits: int
    wrap_signed: int
    odd_mask: int  # 1: only even numbers are corrected
    off: float  # quanta that a nearest number may be off before it is corrected
    up: float  # quanta by which it grows then, 0 or 1, and by which it shrinks; for either sign
    up_negative: float
    down: float
    down_negative: float
    top: float  # from here on `above`, if to nearest
    bottom: float
    largest: float
    smallest: float  # the most negative number
    above: float
    below: float
    infinite_above: float
    infinite_below: float
    smallest_normal: float  # 0 where subnormal results are kept


class Target(NamedTuple):
    """A format and how numbers are stored in it."""

    fmt: ScalarFormat
    rounding: str
    overflow: str
    flush: bool = False
    signed_zero: bool | str = True

    @property
    def mode(self) -> Rounding:
        """The rounding mode."""
        return rounding(self.rounding)

    @property
    def extent(self) -> Extent:
        """The bits of its numbers."""
        found = format_extent(self.fmt)
        assert found is not None
        return found


def is_served(target: Target) -> bool:
    """Whether the kernels can round to a format this way."""
    return is_storable(target.fmt, "ties_to_even", _resolved(target).overflow)


def _resolved(target: Target) -> Target:
    """Return the target with an overflow mode that its format has."""
    integer = isinstance(target.fmt, Integer | Fixed)
    if integer and target.overflow == "infinity_or_nan":
        return target._replace(overflow="saturate")
    if target.overflow == INFINITY and not getattr(target.fmt, "has_infinity", False):
        return target._replace(overflow="infinity_or_nan")
    if not integer and target.overflow in INTEGER_ONLY:
        return target._replace(overflow="infinity_or_nan")
    return target


def format_extent(fmt: ScalarFormat | None) -> Extent | None:
    """Return the bits of a format's numbers; None where they are not known from its description."""
    if isinstance(fmt, Float):
        return Extent(fmt.mantissa_bits + 1, fmt.emin - fmt.mantissa_bits, fmt.emax)
    if isinstance(fmt, Integer | Fixed):
        size = fmt.bits - fmt.signed
        return Extent(max(size, 1), -fmt.fraction_bits, size - fmt.fraction_bits)  # the least number is a power of two
    return None


def extent_of(numbers: NDArray[np.float64], fmt: ScalarFormat | None) -> Extent:
    """Return the bits of some numbers: all that their format has, or, where it has many or is not known, their own."""
    found = format_extent(fmt)
    if found is not None and found.bits <= _FEW:
        return found
    from lowp.emulation import _rounded_kernels as kernels

    bits, least, most = kernels.extent(np.ascontiguousarray(numbers).reshape(-1))
    return Extent(int(bits), int(least), int(most))


@lru_cache(maxsize=512)
def sum_plan(target: Target, term: Extent, running: Extent | None, terms: int = 1) -> SumPlan:
    """Return the plan for sums of `terms` terms and a running sum; None: for terms alone, which are only rounded."""
    target = _resolved(target)
    grid = _grid(target)
    kind, lossy = _way(target, term, running, terms)
    underflow = target.signed_zero == "underflow"
    mirror = target.mode.name == "toward_negative" and running is not None and not underflow
    return SumPlan(
        kind=kind,
        lossy=int(lossy),
        mirror=_SIGN if mirror else 0,
        plus_zero=int(underflow),
        **grid,
        table=target.mode.table,
        variant=target.mode.variant,
        random_bits=target.mode.random_bits,
        **corrections(target.mode)._asdict(),
        **_ends(target),
    )


def _grid(target: Target) -> dict[str, int]:
    """Return where the last bits of rounded numbers are."""
    fmt = target.fmt
    if isinstance(fmt, Float):
        mantissa = fmt.mantissa_bits
        emin = fmt.emin - target.flush  # results are tiny, and flushed, by what they would be without a least exponent
        return {
            "exponent_mask": _EXPONENT,
            "least_field": (emin + 1023) << 52,
            "raise_by": ((52 - mantissa) << 52) + (1 << 51),
            "to_quantum": -(mantissa << 52),
            "zero_sign": _SIGN if fmt.has_negative_zero and target.signed_zero else 0,
            "precision": mantissa + 1,
            "least_bit": emin - mantissa,
            "wrap_bits": 0,
            "wrap_signed": 0,
        }
    assert isinstance(fmt, Integer | Fixed)
    return {
        "exponent_mask": 0,
        "least_field": 0,
        "raise_by": ((52 - fmt.fraction_bits + 1023) << 52) + (1 << 51),
        "to_quantum": (1023 - fmt.fraction_bits) << 52,
        "zero_sign": 0,
        "precision": _UNLIMITED,
        "least_bit": -fmt.fraction_bits,
        "wrap_bits": fmt.bits if target.overflow == "wrap" else 0,
        "wrap_signed": int(fmt.signed),
    }


def _ends(target: Target) -> dict[str, Any]:
    """Return the ends of the range and what lies beyond."""
    fmt, mode = target.fmt, target.mode
    assert isinstance(fmt, Float | Integer | Fixed)
    above, below, infinite_above, infinite_below = _beyond(target)
    largest, smallest = fmt.max, fmt.min
    if target.overflow == "saturate_symmetric" and fmt.signed:
        smallest = below = infinite_below = -fmt.max
    return {
        "top": _first_beyond(target, largest, False),
        "bottom": -_first_beyond(target, -smallest, True),
        "largest": largest,
        "smallest": smallest,
        "above": above,
        "below": below,
        "infinite_above": infinite_above,
        "infinite_below": infinite_below,
        "smallest_normal": fmt.smallest_normal if target.flush and isinstance(fmt, Float) and mode else 0.0,
    }


def _beyond(target: Target) -> tuple[float, float, float, float]:
    """Return what is stored for numbers beyond the range, and for infinities."""
    fmt = target.fmt
    assert isinstance(fmt, Float | Integer | Fixed)
    if target.overflow == INFINITY:
        return math.inf, -math.inf, math.inf, -math.inf
    if target.overflow == "wrap":
        return fmt.max, fmt.min, 0.0, 0.0
    plan = lower(fmt, target.mode, target.overflow, 64)
    bits = [plan.overflow_bits, plan.overflow_bits_negative, plan.infinity_bits, plan.infinity_bits_negative]
    return tuple(np.array(bits, np.int64).view(np.float64).tolist())


def _first_beyond(target: Target, end: float, negative: bool) -> float:
    """Return the first magnitude, of those that float64 tells apart, that is rounded beyond the last number."""
    fmt = target.fmt
    exponent = math.frexp(end)[1]
    if end <= 0.0 or target.mode.variant:
        return math.nextafter(max(end, 0.0), math.inf)
    extent = target.extent
    weight = exponent - extent.bits if isinstance(fmt, Float) else extent.least
    odd = bool(int(math.ldexp(end, -weight)) & 1)
    half, whole = math.ldexp(1.0, weight - 1), math.ldexp(1.0, weight)
    away = target.mode.away
    if away(BELOW_HALF, negative, odd):
        return math.nextafter(end, math.inf)
    if away(HALF, negative, odd):
        return end + half
    return math.nextafter(end + half, math.inf) if away(ABOVE_HALF, negative, odd) else end + whole


def _way(target: Target, term: Extent, running: Extent | None, terms: int) -> tuple[int, bool]:
    """Return the kind of plan, and whether float64 sums have to be told apart from exact ones."""
    if _is_native(target):
        return NATIVE, False
    if target.extent == _BINARY64 and not target.mode.variant:
        return NEIGHBOUR, False
    if target.overflow == "wrap" or not term.moderate:
        return WIDE, False
    mode, stored = target.mode, target.extent
    stored = stored if running is None else stored.joined(running)
    integer = isinstance(target.fmt, Integer | Fixed)
    exact = running is None or sum_bits(term, stored, terms) <= FLOAT64_BITS
    if integer and exact and min(term.least, stored.least) >= target.extent.least:
        return CLAMP, False
    if not stored.moderate or _precision(target) > _MOST_PRECISION - integer:
        return WIDE, False
    if mode.variant:
        return STOCHASTIC, not exact
    lossy = not exact and not (corrections(mode).off and not integer and _is_innocuous(target, term, stored))
    above, below, infinite_above, infinite_below = _beyond(target)
    same = str((above, below)) == str((infinite_above, infinite_below))
    return (NEAREST_EVEN if mode.name == "ties_to_even" and same else CORRECTED), lossy


def sum_bits(term: Extent, running: Extent, terms: int) -> int:
    """Return the bits of a sum of so many terms and a running sum."""
    return max(term.most, running.most) + terms.bit_length() + 1 - min(term.least, running.least)


def _precision(target: Target) -> int:
    return target.fmt.bits if isinstance(target.fmt, Integer | Fixed) else target.extent.bits


def _is_native(target: Target) -> bool:
    """Whether sums are stored as float64 in its default rounding."""
    fmt = target.fmt
    return (
        target.extent == _BINARY64
        and getattr(fmt, "specials", "") == "ieee"
        and target.mode.name == "ties_to_even"
        and target.overflow in ("infinity_or_nan", INFINITY)
        and target.signed_zero is True
        and not target.flush
    )


def _is_innocuous(target: Target, term: Extent, running: Extent) -> bool:
    """Whether rounding to float64 first does not change what is rounded to nearest then."""
    own = target.extent
    if running.bits > own.bits or running.least < own.least:
        return False  # a running sum that the format does not hold may be a tie
    if own.bits + max(own.bits, term.bits) + _MARGIN > FLOAT64_BITS:
        return False
    return term.bits <= own.bits or own.most + 2 - own.least <= FLOAT64_BITS
