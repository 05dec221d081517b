"""Sums of products in steps of so many terms: each step exact, with the running sum, and rounded once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._exact_bins import mark_specials, sign_zeros, sums
from lowp.emulation._exact_panels import Floats, Product, share, surveyed
from lowp.emulation._stored_plan import StoredPlan, lane_plan

#: Terms of a step from which matrix products do better than going output by output.
_LONG = 64
#: Bits of significands whose products a kernel adds as they are, and of the pieces that wider ones are cut into.
_MOST_WIDTH, _PIECE = 60, 27
#: Elements of a panel of the operands.
_PANEL = 1 << 20
EXACT = 0
#: Bits that a rounding may look at in a number rounded to odd.
_ODD_BITS = 49
#: Ways of `store_columns`.
_WAYS = {"toward_zero": 0, "ties_to_even": 1, "toward_negative": 2, "toward_positive": 3}
_FLUSHES = {"keep": 0, "zero": 1, "positive_zero": 2}

Entries = tuple[NDArray[np.int64], NDArray[np.int64]]


class Running(NamedTuple):
    """How running sums are stored and read."""

    plan: StoredPlan
    flush: str  # what a subnormal one is read as: "keep", "zero" or "positive_zero"
    smallest_normal: float
    minus_zero: bool  # whether a sum of exactly zero may be -0
    rounding: str

    @property
    def down(self) -> bool:
        """Whether a sum that cancels is -0."""
        return self.rounding == "toward_negative"


class Steps(NamedTuple):
    """How a kernel goes through the terms."""

    group: int
    entries: int  # in which a product's bits are spread
    width: int  # bits of an entry
    running_width: int  # significant bits of a running sum
    carries: int  # bits that summing adds
    flush: int  # 1: a subnormal running sum is read as zero; 2: as +0
    smallest_normal: float
    minus_zero: bool
    down: bool


def run_steps(product: Product, group: int, running: Running) -> Floats:
    """Return the running sums, which start from `product.c`, after all steps of `group` terms."""
    if _never_rounds(product, running):
        group = max(product.a.shape[1], _LONG)
    return (_by_products if group >= _LONG else _one_by_one)(product, group, running)


def _never_rounds(product: Product, running: Running) -> bool:
    """Whether every sum of some of the terms is a number of the format, or of one that wraps once it has wrapped."""
    left, right, start, plan = product.left, product.right, product.start, running.plan
    flushes = running.flush != "keep" or plan.smallest_normal > 0.0
    if flushes or not (left.finite and right.finite and start.finite):
        return False
    low, high = product.bounds
    if low < plan.least_bit or high - low > plan.precision:
        return plan.wrap_bits > 0 and low >= plan.least_bit
    return plan.wrap_bits > 0 or (high < 1000 and 2.0**high <= min(plan.largest, -plan.least))


def read(numbers: Floats, flush: str, smallest_normal: float) -> Floats:
    """Return numbers, zeros in place of subnormal ones unless those are to be kept."""
    if flush == "keep":
        return numbers
    zeros = np.copysign(0.0, numbers) if flush == "zero" else np.zeros(())
    return np.where((np.abs(numbers) < smallest_normal) & (numbers != 0.0), zeros, numbers)


def _by_products(product: Product, group: int, running: Running) -> Floats:
    values, plan = product.c.copy(), running.plan
    for first in range(0, product.a.shape[1], group):
        start = read(values, running.flush, running.smallest_normal)
        step = surveyed(product.a[:, first : first + group], product.b[first : first + group], start)
        values, state = sums(step, plan=plan)
        if running.minus_zero:
            sign_zeros(step, running.down, values, state)
        else:
            values[state == EXACT] = 0.0
        totals = np.zeros(values.shape)
        mark_specials(step, totals, state)
        values[np.isnan(totals)] = np.nan
        values[totals == np.inf], values[totals == -np.inf] = plan.infinite, plan.infinite_negative
    return values


def _one_by_one(product: Product, group: int, running: Running) -> Floats:
    from lowp.emulation._exact_groups_kernels import steps, steps_in_floats

    values, plan = product.c.copy(), running.plan
    a, b = product.a, np.ascontiguousarray(product.b.T)
    left, right, start = product.left.span, product.right.span, product.start.span
    wide = left.width + right.width > _MOST_WIDTH
    entries, width = (4, 2 * _PIECE) if wide else (1, left.width + right.width)
    running_width = min(max(start.width, plan.precision), 53)
    carries = (entries * min(group, max(a.shape[1], 1))).bit_length() + 1
    flush = _FLUSHES[running.flush], running.smallest_normal
    how = Steps(group, entries, width, running_width, carries, *flush, running.minus_zero, running.down)
    bins, way = _bins(product, plan, how), _float_way(product, running)
    terms = max(_PANEL // max(len(a), len(b), 1) // group, 1) * group
    for first in range(0, a.shape[1], terms):
        part, other = (np.ascontiguousarray(z[:, first : first + terms]) for z in (a, b))
        x = _entries(part, left.width, wide, (True, True, False, False))
        y = _entries(other, right.width, wide, (True, False, True, False))
        specials = tuple(~np.isfinite(z).all(axis=1) for z in (part, other))
        floats = product.b[first : first + terms], way, lane_plan(plan, np.float64)

        def work(
            i: int, j: int, given: Any = (part, other, x, y), specials: Any = specials, floats: Any = floats
        ) -> None:
            if way < 0:
                steps(*given, specials, how, plan, bins, values, i, j)
            else:
                steps_in_floats(*given, floats, how, plan, bins, values, i, j)

        share(len(a), len(b) * part.shape[1] * 4, work)
    return values


def _float_way(product: Product, running: Running) -> int:
    """Return the way in which `store_columns` rounds, if float64 holds all products and their sums; else -1."""
    left, right, plan = product.left.span, product.right.span, running.plan
    held = left.width + right.width <= 53 and left.floor + right.floor > -1000 and left.high + right.high < 1000
    few = plan.precision <= _ODD_BITS and plan.parity_of_exponent == 0 and plan.least_bit > -900
    if not (few and (held or not left.bits or not right.bits)) or max(plan.largest, -plan.least) > 2.0**900:
        return -1
    return _WAYS.get(running.rounding, -1)


def _bins(product: Product, plan: StoredPlan, how: Steps) -> int:
    """Return how many bins hold all bits of any step."""
    left, right, start = product.left.span, product.right.span, product.start.span
    largest = max(abs(plan.largest), abs(plan.least))
    low, high = min(plan.least_bit, 0), max(int(np.frexp(largest)[1]), 0)
    if left.bits and right.bits:
        low, high = min(low, left.floor + right.floor), max(high, left.high + right.high)
    if start.bits:
        low, high = min(low, start.low), max(high, start.high)
    # The lowest bit counts from a significand's last one, which may lie 53 below its lowest bit that is set.
    return (high - low + how.width + how.carries + 53) // 32 + 4


def _entries(x: Floats, width: int, wide: bool, high: tuple[bool, ...]) -> Entries:
    """Return significands of `width` bits and exponents; where `wide`, four of each: the high piece or the low one."""
    finite = np.where(np.isfinite(x), x, 0.0)
    fraction, exponent = np.frexp(finite)
    n = np.ldexp(fraction, width).astype(np.int64)
    e = np.where(n == 0, 0, exponent.astype(np.int64) - width)
    if not wide:
        return n, e
    sign, magnitude = np.sign(n), np.abs(n)
    top, rest = sign * (magnitude >> _PIECE), sign * (magnitude & ((1 << _PIECE) - 1))
    shape = len(x), 4 * x.shape[1]
    numbers = np.stack([top if h else rest for h in high], axis=-1).reshape(shape)
    return numbers, np.stack([e + _PIECE if h else e for h in high], axis=-1).reshape(shape)
