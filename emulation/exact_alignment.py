"""Steps whose terms are aligned and cut, for the oracle: `Alignment` of `lowp.emulation.accumulator`, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from lowp._errors import ArgumentError
from lowp.emulation.accumulator import Alignment
from lowp.emulation.exact_arithmetic import add, multiply
from lowp.emulation.exact_functions import is_zero, magnitude, negative_sign
from lowp.formats.exact_real import Real
from lowp.formats.float_format import Float
from lowp.formats.spec import Meaning, ScalarFormat
from lowp.rounding import exact_rules as rules


class Factor(NamedTuple):
    """An operand or a scale, and its format where that is known."""

    value: Meaning
    format: ScalarFormat | None = None


class Term(NamedTuple):
    """A product of two operands, and of their scales."""

    operands: tuple[Factor, Factor]
    scales: tuple[Factor, ...] = ()

    @property
    def value(self) -> Meaning:
        """The exact product."""
        return product([*self.operands, *self.scales])


class Part(NamedTuple):
    """A number that is aligned, by the exponent that counts for it; None where it counts for nothing."""

    value: Fraction
    exponent: int | None


def product(factors: Sequence[Factor]) -> Meaning:
    """Return the exact product of some numbers."""
    result: Meaning = Fraction(1)
    for factor in factors:
        result = multiply(result, factor.value)
    return result


def aligned_sum(running: Factor, terms: Sequence[Term], alignment: Alignment) -> Meaning:
    """Return the sum of a step before it is rounded.

    Args:
        running: The running sum.
        terms: The step's terms.
        alignment: How they are cut.

    Raises:
        ArgumentError: A number is irrational, or the scales within a scaled group differ.
    """
    values = [_limited(term.value, alignment.product_limit) for term in terms]
    special = [x for x in (running.value, *values) if x in ("inf", "-inf", "nan")]
    if special:
        return _ieee_sum(special)
    parts = _scaled_parts(terms, alignment.scaled_group) if alignment.scaled_group else [_part(t) for t in terms]
    stored = Part(Fraction(0), None) if is_zero(running.value) else Part(_rational(running.value), exponent(running))
    if alignment.running_sum == "term":
        total = _cut_sum([*parts, stored], alignment).value
    else:
        total = _with_running_sum(_sum_of_lanes(parts, alignment), stored, alignment, running.format)
    return _kept(total, alignment.result_fraction_bits, alignment.sum_cut, running.format)


def exponent(factor: Factor) -> int:
    """Return `floor(log2 |x|)`, but not less than that of the format's least normal number."""
    least = least_exponent(factor.format)
    found = rules.floor_log2(abs(_rational(factor.value)))
    return found if least is None else max(found, least)


def least_exponent(fmt: ScalarFormat | None) -> int | None:
    """Return the exponent of the least normal number; of the least positive one in families without subnormals."""
    if fmt is None:
        return None
    return fmt.emin if isinstance(fmt, Float) else rules.floor_log2(Fraction(fmt.smallest_subnormal))


def cut(x: Fraction, unit_exponent: int, mode: str) -> Fraction:
    """Return a number rounded to a multiple of a power of two."""
    unit = rules.power_of_two(unit_exponent)
    return rules.round_to_integer(x / unit, rules.Mode(mode)) * unit


def _limited(value: Meaning, limit: int | None) -> Meaning:
    if limit is None or isinstance(value, str) or magnitude(value) < rules.power_of_two(limit):
        return value
    return "-inf" if negative_sign(value) else "inf"


def _ieee_sum(values: Sequence[Meaning]) -> Meaning:
    total = values[0]
    for x in values[1:]:
        total = add(total, x)
    return total


def _part(term: Term) -> Part:
    if is_zero(term.value):
        return Part(Fraction(0), None)
    return Part(_rational(term.value), sum(exponent(factor) for factor in (*term.operands, *term.scales)))


def _scaled_parts(terms: Sequence[Term], size: int) -> list[Part]:
    """Return the exact sums of groups of products, each by the exponents of its scales."""
    parts = []
    for first in range(0, len(terms), size):
        group = terms[first : first + size]
        scales = group[0].scales
        if any(term.scales != scales for term in group):
            raise ArgumentError(f"scaled_group={size!r} needs one pair of scales for every {size} terms.")
        total = sum((_rational(term.value) for term in group), Fraction(0))
        counts = any(not is_zero(term.value) for term in group)
        parts.append(Part(total, sum(exponent(scale) for scale in scales) if counts else None))
    return parts


def _reference(parts: Sequence[Part], alignment: Alignment) -> int | None:
    exponents = [part.exponent for part in parts if part.exponent is not None]
    if alignment.zero_exponent is not None:
        exponents.append(alignment.zero_exponent)
    return max(exponents, default=None)


def _cut_sum(parts: Sequence[Part], alignment: Alignment) -> Part:
    """Return the sum of parts that are cut under their largest exponent, by that exponent."""
    reference = _reference(parts, alignment)
    if reference is None:
        return Part(Fraction(0), None)
    last = reference - alignment.fraction_bits
    return Part(sum((cut(part.value, last, alignment.cut) for part in parts), Fraction(0)), reference)


def _sum_of_lanes(parts: Sequence[Part], alignment: Alignment) -> Part:
    """Return the sum of the products alone, by its reference."""
    if alignment.lanes == 1:
        return _cut_sum(parts, alignment)
    sums = [_cut_sum(parts[lane :: alignment.lanes], alignment) for lane in range(alignment.lanes)]
    reference = _reference(sums, alignment)
    if reference is None:
        return Part(Fraction(0), None)
    last = reference - alignment.fraction_bits
    return Part(sum((cut(part.value, last, alignment.sum_cut) for part in sums), Fraction(0)), reference)


def _with_running_sum(total: Part, running: Part, alignment: Alignment, fmt: ScalarFormat | None) -> Fraction:
    """Return the sum of the products and the running sum, which comes after them."""
    stored = running.exponent if running.exponent is not None else least_exponent(fmt)
    assert stored is not None
    assert alignment.sum_fraction_bits is not None
    assert alignment.running_fraction_bits is not None
    reference = stored if total.exponent is None else max(stored, total.exponent)
    first = cut(total.value, reference - alignment.sum_fraction_bits, alignment.sum_cut)
    if alignment.running_reach is not None and stored < reference - alignment.running_reach:
        return first
    return first + cut(running.value, reference - alignment.running_fraction_bits, alignment.sum_cut)


def _kept(total: Fraction, bits: int | None, mode: str, fmt: ScalarFormat | None) -> Fraction:
    """Return the upper bits of a sum that is normalised first."""
    if bits is None or total == 0:
        return total
    return cut(total, exponent(Factor(total, fmt)) - bits, mode)


def _rational(x: Meaning) -> Fraction:
    if isinstance(x, Real):
        raise ArgumentError("alignment is for numbers that are multiples of powers of two, not for logarithmic ones.")
    return rules.finite_number(x)
