"""What the steps of sums did to them, counted for every output as the steps go by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._factors import ZERO_EXPONENT, Factors, factors, least_exponent, scaled
from lowp.emulation._operands import precision
from lowp.emulation._side import Side
from lowp.emulation._sum_terms import Sums, Terms
from lowp.emulation._sum_trace import Step
from lowp.emulation.accumulator import Alignment
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding import verbs
from lowp.rounding.modes import rounding

NEVER = -1
_FAR = 1000
_MOST_FIXED_BITS = 51
_TINY = Integer(4)


class Statistics:
    """Counts for `size` outputs; `watch` is told of every step."""

    def __init__(self, size: int) -> None:
        self.steps = 0
        self.swamped = np.zeros(size, np.int64)
        self.cancelled_bits = np.zeros(size, np.int64)
        self.overflows = np.zeros(size, np.int64)
        self.overflow_step = np.full(size, NEVER, np.int64)
        self.nan_step = np.full(size, NEVER, np.int64)
        self.lost = np.zeros(size)
        self.worst_loss = np.zeros(size)
        self.worst_step = np.full(size, NEVER, np.int64)

    def watch(self, step: Step) -> None:
        """Count one step."""
        size = len(self.swamped)
        high, low = (np.zeros(size), np.zeros(size)) if step.terms is None else step.terms.total()
        with np.errstate(invalid="ignore", over="ignore"):
            self._count_terms(step, high, low)
            self._count_specials(step, high, low)
            self._add_losses(step, high, low)
        self.steps += 1

    def _count_terms(self, step: Step, high: Sums, low: Sums) -> None:
        largest, nonzero = sum(np.abs(x) for x in step.before), np.zeros(len(self.swamped), np.int64)
        if step.terms is not None:
            for term in step.terms.each():
                largest = np.maximum(largest, np.abs(term))
                nonzero += term != 0
        after = sum(step.after)
        total = sum(step.before) + high
        if step.kind not in ("correction", "scaling", "store"):
            unchanged = np.all([x == y for x, y in zip(step.before, step.after, strict=True)], axis=0)
            unchanged &= ((high != 0) | (low != 0)) & np.isfinite(step.before[0])
            self.swamped += np.where(unchanged, nonzero, _cut_away(step))
        finite = np.isfinite(largest) & np.isfinite(after) & (largest > 0)
        drop = np.frexp(np.where(finite, largest, 1.0))[1] - np.frexp(np.where(finite & (after != 0), after, 1.0))[1]
        drop = np.where(after != 0, drop, np.where((total == 0) & (low == 0), precision(step.format), 0))
        self.cancelled_bits = np.maximum(self.cancelled_bits, np.where(finite, drop, 0))

    def _count_specials(self, step: Step, high: Sums, low: Sums) -> None:
        before, after = step.before[0], step.after[0]
        finite = np.isfinite(before) & np.isfinite(high)
        over = finite & (~np.isfinite(after) | _beyond(step, *_exactly(step, high, low)))
        self.overflows += over
        for first, now in ((self.overflow_step, over), (self.nan_step, np.isnan(after))):
            first[(first == NEVER) & now] = self.steps

    def _add_losses(self, step: Step, high: Sums, low: Sums) -> None:
        loss = losses(step, high, low)
        if step.scale != 1:
            self.lost, self.worst_loss = self.lost * abs(step.scale), self.worst_loss * step.scale
        finite = np.isfinite(loss)
        self.lost += np.where(finite, np.abs(loss), 0.0)
        worse = finite & (np.abs(loss) > np.abs(self.worst_loss))
        self.worst_loss[worse], self.worst_step[worse] = loss[worse], self.steps


def losses(step: Step, high: Sums, low: Sums) -> Sums:
    """Return what a step lost: the exact sum less what was stored."""
    total, rest = np.zeros_like(high), low.copy()
    for x in (*step.before, *(-y for y in step.after), high):
        total, error = _two_sum(total, x)
        rest = rest + error
    return np.asarray(total + rest)


def _two_sum(x: Sums, y: Sums) -> tuple[Sums, Sums]:
    s = x + y
    z = s - x
    return s, (x - (s - z)) + (y - z)


def _exactly(step: Step, high: Sums, low: Sums) -> tuple[Sums, Sums]:
    total, rest = step.before[0], low.copy()
    for x in (*step.before[1:], high):
        total, error = _two_sum(total, x)
        rest = rest + error
    return _two_sum(total, rest)


def _beyond(step: Step, total: Sums, rest: Sums) -> NDArray[np.bool_]:
    """Whether an exact sum, rounded as if the format had no end, is beyond its largest or least number."""
    fmt = step.format
    least, largest = fmt.min, fmt.max
    outside = (total > largest) | (total < least) | ((total == largest) & (rest > 0)) | ((total == least) & (rest < 0))
    outside &= np.isfinite(total)
    result = np.zeros(total.shape, np.bool_)
    if not outside.any():
        return result
    mode = step.accumulator.rounding if rounding(step.accumulator.rounding).variant == 0 else "toward_zero"
    odd = _odd(total[outside], rest[outside])
    wide = _wider(fmt)
    if isinstance(wide, Fixed):
        unit = 2.0**-wide.fraction_bits
        odd = np.clip(odd, least - 2 * unit, largest + 2 * unit)
    if wide is not None:
        odd = np.asarray(verbs.quantize(odd, wide, mode, overflow="saturate"))
    result[outside] = (odd > largest) | (odd < least)
    return result


def _odd(total: Sums, rest: Sums) -> Sums:
    """Return sums of two numbers rounded to odd, which no rounding to fewer bits takes for a tie."""
    below = np.where(rest < 0, np.nextafter(total, -np.inf), total)
    above = np.nextafter(below, np.inf)
    return np.where(rest == 0, total, np.where(np.ascontiguousarray(below).view(np.int64) & 1, below, above))


def _wider(fmt: ScalarFormat) -> ScalarFormat | None:
    """Return a format with the same last bits and room above; None: the sum itself is compared."""
    if isinstance(fmt, Float) and fmt.exponent_bits < 11 and fmt.emin + (1 << (fmt.exponent_bits + 1)) < 1023:
        bias = 1 - fmt.emin
        return Float(fmt.exponent_bits + 1, fmt.mantissa_bits, bias=bias, specials="finite")
    if isinstance(fmt, Integer | Fixed) and fmt.bits <= _MOST_FIXED_BITS:
        return Fixed(fmt.bits + 2, getattr(fmt, "fraction_bits", 0))
    return None


# Terms that alignment cuts to nothing


def _cut_away(step: Step) -> NDArray[np.int64]:
    """Return how many terms that are not zero are cut to zero."""
    alignment, terms = step.accumulator.alignment, step.terms
    count = np.zeros(len(step.after[0]), np.int64)
    if alignment is None or terms is None or step.kind != "step":
        return count
    parts = _scaled_parts(terms, alignment) if alignment.scaled_group else _parts(terms)
    running = _running_exponent(step, alignment)
    for lane in range(alignment.lanes):
        mine = parts[lane :: alignment.lanes]
        reference = np.max([running, *(exponent for _, exponent, _ in mine)], axis=0)
        unit = np.clip(reference - alignment.fraction_bits, -_FAR, _FAR)
        for value, _, terms_of_it in mine:
            in_units = np.clip(np.ldexp(value, -unit), -2.0, 2.0)
            gone = np.asarray(verbs.quantize(in_units, _TINY, alignment.cut)) == 0
            count += np.where(gone & (value != 0), terms_of_it, 0)
    return count


_Part = tuple[Sums, NDArray[np.int64], NDArray[np.int64]]


def _parts(terms: Terms) -> list[_Part]:
    """Return values, the exponents by which they are aligned, and 1."""
    left, right = _exponents(terms.a, -1), _exponents(terms.b, -2)
    ones = np.ones(1, np.int64)
    exponents = [(left[:, :, k, None] + right[:, k, None, :]).reshape(-1) for k in range(len(terms))]
    return [(np.where(np.isfinite(x), x, 0.0), e, ones) for x, e in zip(terms.each(), exponents, strict=True)]


def _scaled_parts(terms: Terms, alignment: Alignment) -> list[_Part]:
    """Return the sums of scaled groups, the exponents of their scales, and how many terms are not zero."""
    size = alignment.scaled_group or 1
    each = list(terms.each())
    scales = [_scale_exponents(terms.a), _scale_exponents(terms.b)]
    parts: list[_Part] = []
    for first in range(0, len(each), size):
        group = each[first : first + size]
        nonzero = np.asarray(np.sum([x != 0 for x in group], axis=0, dtype=np.int64))
        exponent = (scales[0][:, :, first, None] + scales[1][:, first, None, :]).reshape(-1)
        total = sum(np.where(np.isfinite(x), x, 0.0) for x in group)
        parts.append((np.asarray(total), np.where(nonzero > 0, exponent, ZERO_EXPONENT), nonzero))
    return parts


def _scale_exponents(side: Side) -> NDArray[np.int64]:
    assert side.scales is not None
    assert side.scale_format is not None
    return factors(side.scales, side.scale_format).exponents.astype(np.int64)


def _exponents(side: Side, axis: int) -> NDArray[np.int64]:
    found: Factors = factors(side.values, side.format)
    if side.scales is not None and side.scale_format is not None:
        found = scaled(found, factors(side.spread_scales(axis), side.scale_format))
    return found.exponents.astype(np.int64)


def _running_exponent(step: Step, alignment: Alignment) -> NDArray[np.int64]:
    """Return the least reference: the running sum's exponent where it is a term, and the zero exponent."""
    running = np.where(np.isfinite(step.before[0]), step.before[0], 0.0)
    exponent = np.maximum(np.frexp(running)[1].astype(np.int64) - 1, least_exponent(step.before_format))
    counts = (running != 0) & (alignment.running_sum == "term")
    zero = ZERO_EXPONENT if alignment.zero_exponent is None else alignment.zero_exponent
    return np.maximum(np.where(counts, exponent, ZERO_EXPONENT), zero)
