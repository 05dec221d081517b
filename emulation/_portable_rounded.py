"""Sums of products whose every addition is rounded, as array code: what `_rounded_kernels` computes, for compilers."""

from __future__ import annotations

from typing import Any

import numpy as np

from lowp.emulation._portable_aligned import dot, stored
from lowp.emulation._side import Side
from lowp.emulation._stored_plan import is_storable, stored_plan
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding._portable import quantize_values
from lowp.rounding._portable_shapes import joined
from lowp.rounding.lowering import check_overflow
from lowp.rounding.request import QUANTIZE_NAN, Request, make_request

_INFINITY = float("inf")
#: Sums below so many units have room for fractions of a unit in float64.
_WHOLE = 2.0**51
#: Significant bits of a float format to which float64 sums rounded to odd are rounded once more without harm.
_MOST_PRECISION = 51


def is_plain(fmt: Any, accumulator: Accumulator) -> bool:
    """Whether a format is a float whose rounding takes a few float64 operations."""
    plain = isinstance(fmt, Float) and 0 < fmt.mantissa_bits < _MOST_PRECISION
    return plain and is_storable(fmt, accumulator.rounding, _overflow(fmt, accumulator)) and fmt.emin > -900


def takes_turns(accumulator: Accumulator) -> bool:
    """Whether sums that differ by 2^bits units are stored as the same number."""
    return accumulator.overflow == "wrap" and not getattr(accumulator.format, "symmetric", False)


def run(xp: Any, a: Side, b: Side, c: Any, accumulator: Accumulator, first_step: int, keys: Any = None) -> Any:
    """Return the running sums after all terms of a contiguous run, of which there are some."""
    sums = _Sums(xp, accumulator, c, first_step, keys)
    left, right = (x._replace(values=sums.read(x.values, x.format)).scaled_values(i) for x, i in ((a, 2), (b, 1)))
    if accumulator.compensation is not None:
        return _corrected(xp, sums, left, right, c, accumulator.compensation)
    if accumulator.order == "pairwise":
        return sums.add(sums.of(c), _tree(xp, sums, sums.leaves(left, right)), 0)
    return sums.chain(left, right, c)


class _Sums:
    """How products are made, added and stored; the s-th number that is stored has the random bits of s."""

    def __init__(self, xp: Any, accumulator: Accumulator, c: Any, first: int, keys: Any) -> None:
        self.xp, self.accumulator, self.first, self.shape = xp, accumulator, first, c.shape
        self.format: ScalarFormat = accumulator.format  # type: ignore[assignment]
        self.own = accumulator.product if accumulator.product != "exact" else self.format
        self.fused = accumulator.group_sum == "fused"
        self.rounds = accumulator.product != "exact" or (not self.fused and accumulator.compensation is None)
        self.group, self.keys = accumulator.group, keys
        self.outputs = _positions(xp, c)
        self.count = c.shape[0] * c.shape[1] * c.shape[2]

    # Numbers

    def read(self, x: Any, fmt: Any) -> Any:
        """Return what numbers of a format are read as."""
        how = self.accumulator.subnormal_inputs
        if how == "keep" or not isinstance(fmt, Float) or not fmt.subnormals:
            return x
        zero = 0.0 if how == "positive_zero" else x * 0.0
        return self.xp.where((abs(x) < fmt.smallest_normal) & (x != 0), zero, x)

    def of(self, x: Any) -> Any:
        """Return stored sums as an addition reads them."""
        return self.read(x, self.format)

    def store(self, total: Any, fmt: Any, draw: Any, product: bool = False) -> Any:
        """Return numbers, rounded to odd in float64, as a format stores them."""
        xp, how = self.xp, self.accumulator
        if is_plain(fmt, how):
            signed = True if product else bool(how.signed_zero)
            plan = stored_plan(fmt, how.rounding, _overflow(fmt, how), how.subnormal_results == "zero", signed)
            finite = abs(total) < _INFINITY
            value = stored(xp, xp.where(finite, total, 0.0), how.rounding, plan)
            special = xp.where(total > 0, plan.infinite, xp.where(total < 0, plan.infinite_negative, total))
            return xp.where(finite, value, special)
        request = _request(how, _overflow(fmt, how))
        if self.keys is not None:
            request = request._replace(key0=self.keys[0], key1=self.keys[1])
        positions = self.outputs + (draw + self.first) * self.count if request.mode.variant else None
        value = quantize_values(xp, total, fmt, request, positions)
        return value if product or how.signed_zero else xp.where(value == 0, 0.0, value)

    def exact(self, x: Any, y: Any) -> Any:
        """Return the sum of two numbers rounded to odd, an exact zero signed as the accumulator has it."""
        xp, total = self.xp, add_to_odd(self.xp, x, y)
        if self.accumulator.signed_zero == "underflow":
            return xp.where(total == 0, 0.0, total)
        first, second = xp.bits(x), xp.bits(y)  # compilers take x + 0 for x, which is not so for -0
        if self.accumulator.rounding == "toward_negative":
            negative = (first != 0) | (second != 0)
        else:
            negative = (first < 0) & (second < 0)
        return xp.where(total == 0, xp.where(negative, -0.0, abs(total)), total)

    def wrapped(self, x: Any) -> Any:
        """Return products as a sum that wraps takes them: large ones, which are whole units, less whole turns."""
        fmt, xp = self.format, self.xp
        if not takes_turns(self.accumulator) or not isinstance(fmt, Integer | Fixed):
            return x
        unit = 2.0 ** -(fmt.fraction_bits if isinstance(fmt, Fixed) else 0)
        turn = unit * 2.0**fmt.bits
        turns = xp.where(abs(x) < _INFINITY, x / turn, 0.0)
        some = abs(turns) < _WHOLE  # beyond there are only whole turns
        whole = xp.where(some, xp.cast(xp.cast(xp.where(some, turns, 0.0), "int64"), "float64"), turns)
        return xp.where((abs(x) >= unit * _WHOLE) & (abs(x) < _INFINITY), x - whole * turn, x)

    def add(self, x: Any, y: Any, draw: Any) -> Any:
        """Return the stored sum of two stored numbers."""
        return self.store(self.exact(self.of(x), self.of(y)), self.format, draw)

    def product(self, x: Any, y: Any, draw: Any) -> Any:
        """Return a product as it is added: exact, or stored."""
        exact = x * y
        if not self.rounds:
            return exact
        return self.read(self.store(exact, self.own, draw, product=True), self.own)

    # Steps

    @property
    def draws(self) -> int:
        """Numbers that a full step stores."""
        return self._draws(self.group)

    def _draws(self, terms: int) -> int:
        return terms * self.rounds + (1 if self.fused else terms)

    def group_sum(self, left: Any, right: Any, draw: Any) -> tuple[Any, int]:
        """Return the sum of a group's products, of (batch, rows, group), and how many numbers were stored."""
        terms = left.shape[2]
        if self.fused and terms > 1 and not self.rounds:
            return self.exact_sum(left, right), 0
        products = [
            self.product(left[:, :, k : k + 1], right[:, k : k + 1, :], draw + k if self.rounds else 0)
            for k in range(terms)
        ]
        used = terms * self.rounds
        if self.fused:
            total = products[0]
            for p in products[1:]:  # exact in float64
                total = self.exact(total, p)
            return total, used
        order = _halves if self.accumulator.group_sum == "pairwise" else _one_by_one
        total, added = order(products, self.add, draw, used)
        return total, added

    def exact_sum(self, left: Any, right: Any) -> Any:
        """Return the sum of a group's products, exact in float64 in any order; zero is signed as one by one."""
        xp, total = self.xp, dot(self.xp, left, right)
        signs = [xp.where(xp.bits(x) < 0, -1.0, xp.full_like(x, 1)) for x in (left, right)]
        alike = dot(xp, signs[0], signs[1])
        if self.accumulator.rounding == "toward_negative":
            return xp.where((total == 0) & (alike < left.shape[2]), -0.0, total)
        return xp.where((total == 0) & (alike == -left.shape[2]), -0.0, total)

    def step(self, running: Any, left: Any, right: Any, draw: Any) -> Any:
        """Return the running sum after one step."""
        total, used = self.group_sum(left, right, draw)
        if self.fused:
            total = self.wrapped(total)
            return self.store(self.exact(self.of(running), total), self.format, draw + used)
        return self.add(running, total, draw + used)

    def chain(self, left: Any, right: Any, c: Any) -> Any:
        """Return the running sums: full steps, which a compiler sees once, then a shorter one."""
        state, draw, tail = c, self.xp.full_like(self.outputs[:1, :1, :1], 0), None
        whole, tail = _full_steps(self.xp, left, right, self.group)
        if whole is not None:

            def step(state: Any, part: Any) -> Any:
                running, draw = state
                return (self.step(running, part[0], part[1], draw), draw + self.draws), None

            (state, draw), _ = self.xp.scan(step, (state, draw), whole)
        return state if tail is None else self.step(state, tail[0], tail[1], draw)

    def leaves(self, left: Any, right: Any) -> Any:
        """Return the steps' own sums, (steps, batch, rows, columns); rounding does not draw."""
        whole, tail = _full_steps(self.xp, left, right, self.group)
        found = []
        if whole is not None:

            def step(state: Any, part: Any) -> Any:
                return state, self.own_sum(*part)

            found.append(self.xp.scan(step, (self.outputs[:1, :1, :1],), whole)[1])
        if tail is not None:
            found.append(self.own_sum(*tail)[None])
        return joined(self.xp, found, 0)

    def own_sum(self, left: Any, right: Any) -> Any:
        """Return the stored sum of one group."""
        total, _ = self.group_sum(left, right, 0)
        return self.store(total, self.format, 0) if self.fused else total


def _positions(xp: Any, c: Any) -> Any:
    """Return each output's position."""
    found = xp.iota(c.shape, 0, "int64", c) * (c.shape[1] * c.shape[2])
    return found + xp.iota(c.shape, 1, "int64", c) * c.shape[2] + xp.iota(c.shape, 2, "int64", c)


def _full_steps(xp: Any, left: Any, right: Any, group: int) -> tuple[Any, Any]:
    """Return the operands of full steps, cut, and of the last one if it is shorter."""
    terms = left.shape[2]
    steps, length = terms // group, terms // group * group
    tail = None if length == terms else (left[:, :, length:], right[:, length:, :])
    if not steps:
        return None, tail
    a = left[:, :, :length].reshape((*left.shape[:2], steps, group))
    b = right[:, :length].reshape((right.shape[0], steps, group, right.shape[2]))
    return (xp.move(a, 2, 0), xp.move(b, 1, 0)), tail


def _one_by_one(numbers: list[Any], add: Any, draw: Any, used: int) -> tuple[Any, int]:
    total = numbers[0]
    for x in numbers[1:]:
        total, used = add(total, x, draw + used), used + 1
    return total, used


def _halves(numbers: list[Any], add: Any, draw: Any, used: int) -> tuple[Any, int]:
    """Return the sum of a tree of halves, the larger half first."""
    if len(numbers) == 1:
        return numbers[0], used
    half = (len(numbers) + 1) // 2
    left, used = _halves(numbers[:half], add, draw, used)
    right, used = _halves(numbers[half:], add, draw, used)
    return add(left, right, draw + used), used + 1


def _tree(xp: Any, sums: _Sums, leaves: Any) -> Any:
    """Return the sum of a tree of halves, the larger half first, level by level from the leaves."""
    count = leaves.shape[0]
    depth = (count - 1).bit_length()
    places = np.array(_slots(0, count, depth), np.int64)
    if (places != np.arange(places.size)).any():
        leaves = leaves[np.maximum(places, 0)]
    there = places >= 0
    while places.size > 1:
        left, right, pair = leaves[0::2], leaves[1::2], there[1::2]
        added = sums.add(left, right, 0)
        if not pair.all():
            added = xp.where(xp.constant(pair.reshape(-1, 1, 1, 1), leaves), added, left)
        leaves, there, places = added, there[0::2], places[0::2]
    return leaves[0]


def _slots(first: int, count: int, depth: int) -> list[int]:
    """Return which leaf is at each of 2^depth places; -1: none."""
    if depth == 0 or count == 1:
        return [first] + [-1] * ((1 << depth) - 1)
    half = (count + 1) // 2
    return _slots(first, half, depth - 1) + _slots(first + half, count - half, depth - 1)


def _corrected(xp: Any, sums: _Sums, left: Any, right: Any, c: Any, kind: str) -> Any:
    """Return a sum whose second number holds what rounding lost."""

    def step(state: Any, part: Any) -> Any:
        s, e = state
        product = sums.product(part[0][:, :, None], part[1][:, None, :], 0)
        return _CORRECTIONS[kind](xp, sums, s, e, product), None

    parts = xp.move(left, 2, 0), xp.move(right, 1, 0)
    (s, e), _ = xp.scan(step, (c, xp.full_like(c, 0)), parts)
    return sums.add(s, -e if kind == "kahan" else e, 0)


def _kahan(xp: Any, sums: _Sums, s: Any, e: Any, p: Any) -> Any:
    y = sums.add(p, -e, 0)
    t = sums.add(s, y, 0)
    return t, sums.add(sums.add(t, -s, 0), -y, 0)


def _neumaier(xp: Any, sums: _Sums, s: Any, e: Any, p: Any) -> Any:
    t = sums.add(s, p, 0)
    larger = abs(s) >= abs(p)
    x, y = xp.where(larger, s, p), xp.where(larger, p, s)
    return t, sums.add(e, sums.add(sums.add(x, -t, 0), y, 0), 0)


def _two_sum(xp: Any, sums: _Sums, s: Any, e: Any, p: Any) -> Any:
    t = sums.add(s, p, 0)
    u = sums.add(t, -s, 0)
    lost = sums.add(sums.add(s, -sums.add(t, -u, 0), 0), sums.add(p, -u, 0), 0)
    v = sums.add(e, lost, 0)
    total = sums.add(t, v, 0)
    return total, sums.add(v, -sums.add(total, -t, 0), 0)


_CORRECTIONS = {"kahan": _kahan, "neumaier": _neumaier, "two_sum": _two_sum}


def _overflow(fmt: Any, accumulator: Accumulator) -> str:
    """Return the overflow mode that holds for a format: the accumulator's where it can."""
    if accumulator.overflow == "infinity":
        return "infinity" if getattr(fmt, "has_infinity", False) else "infinity_or_nan"
    try:
        check_overflow(fmt, accumulator.overflow)
    except ValueError:
        return "infinity_or_nan"
    return accumulator.overflow


def _request(accumulator: Accumulator, overflow: str) -> Request:
    return make_request(accumulator.rounding, overflow, accumulator.seed, None, 0, "keep", QUANTIZE_NAN)


def add_to_odd(xp: Any, a: Any, b: Any) -> Any:
    """Return a sum of float64 numbers rounded to odd; Knuth's two-sum tells what is lost. NaN, infinity as IEEE 754."""
    total = a + b
    shadow = xp.computed_once(total - a)
    error = (a - xp.computed_once(total - shadow)) + (b - shadow)
    bits = xp.bits(total)
    outward = (error > 0) == (bits >= 0)
    odd = bits + xp.where(outward, 1, -1)
    moved = (error != 0) & (bits & 1 == 0) & (abs(total) < _INFINITY)
    return xp.floats(xp.where(moved, odd, bits), "float64")
