"""Sums in any format, step by step through the format's own arithmetic on codes; slow, for what no kernel serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.emulation import _exact_bins
from lowp.emulation._evaluate import compute
from lowp.emulation._operands import Operand, Settings, check_comes_back, coded, holds_exactly
from lowp.emulation._side import Side
from lowp.emulation._target import Target
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.gauss import add_by_table
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype
from lowp.rounding import verbs
from lowp.rounding.modes import INTEGER_ONLY

Codes = NDArray[Any]
Sums = NDArray[np.float64]
#: Codes of the accumulator's format, or an operand in another one.
Number = Codes | Operand


def sums(a: Side, b: Side, c: Sums, accumulator: Accumulator, first: int = 0) -> Sums:
    """Return the running sums after a run of terms.

    Args:
        a: Operand of (batch, rows, terms).
        b: Operand of (batch, terms, columns).
        c: What is added.
        accumulator: Without alignment and partial sums.
        first: How many numbers were stored for each output before, for stochastic rounding.
    """
    _check(accumulator)
    if not a.values.shape[2]:
        return c.copy()
    if accumulator.compensation is not None:
        check_comes_back(accumulator.format, "compensated sums", "compensation=None")  # type: ignore[arg-type]
    stored = Stored(accumulator, c.size, first)
    start = c.reshape(-1)
    if accumulator.group_sum == "fused" and accumulator.group > 1 and accumulator.table is None:
        codes = _exact_steps(a, b, start, accumulator, stored)
    else:
        codes = _Steps(a, b, stored).run(_start(start, stored))
    return stored.values(codes).reshape(c.shape)


def _start(c: Sums, stored: Stored) -> Number:
    """Return what the running sum starts from: as it is, for it may be a number of another format, or its code."""
    if holds_exactly(stored.format) and stored.accumulator.table is None and stored.accumulator.compensation is None:
        return Operand(True, plain=c)
    return stored.number(c, stored.format)


def _check(accumulator: Accumulator) -> None:
    """Raise ArgumentError for what only kernels do; operands were read before."""
    refused: dict[str, tuple[str, ...]] = {"overflow": ("infinity",)}
    rounded = accumulator.format, accumulator.product
    if any(isinstance(fmt, Float) and fmt.subnormals for fmt in rounded):
        refused |= {"subnormal_inputs": ("zero", "positive_zero"), "subnormal_results": ("zero",)}
    for name, values in refused.items():
        if getattr(accumulator, name) in values:
            raise ArgumentError(
                f"{name}={getattr(accumulator, name)!r} does not go together with the rest of {accumulator!r}: such "
                "sums are made by the format's own arithmetic, which does not have it."
            )


class Stored:
    """Codes of numbers that are stored one after the other."""

    def __init__(self, accumulator: Accumulator, count: int, first: int) -> None:
        self.accumulator, self.count, self.draws = accumulator, count, first
        self.format: ScalarFormat = accumulator.format  # type: ignore[assignment]
        self.settings = Settings(accumulator.rounding, accumulator.overflow, accumulator.seed, nan="error")

    def target(self, fmt: ScalarFormat) -> Target:
        """Return how the next number is rounded."""
        settings = self.settings
        if settings.overflow in INTEGER_ONLY and not isinstance(fmt, Integer | Fixed):
            settings = settings._replace(overflow="infinity_or_nan")  # of products in a float format
        found = Target(fmt, settings.request(fmt), self.draws * self.count)
        self.draws += 1
        return found

    def number(self, values: Sums, fmt: ScalarFormat) -> Codes:
        """Return the codes of numbers that a format has, without drawing random bits."""
        return compute("convert", [Operand(True, plain=values)], Target(fmt, Settings(nan="error").request(fmt)))

    def values(self, codes: Codes) -> Sums:
        """Return the values of running sums."""
        dtype = code_dtype(self.format.bits)
        return np.asarray(verbs.decode(codes.astype(dtype), self.format, dtype="float64"))

    def operand(self, x: Number) -> Operand:
        """Return a number as an operand."""
        return x if isinstance(x, Operand) else coded(x, self.format)

    def add(self, x: Number, y: Number, subtract: bool = False) -> Codes:
        """Return the stored sum, or difference, of two numbers."""
        operands, target = [self.operand(x), self.operand(y)], self.target(self.format)
        if self.accumulator.table is not None:
            return add_by_table(operands, self.accumulator.table, subtract, target)
        codes = compute("subtract" if subtract else "add", operands, target)
        return self.with_sign_of_zero(codes, lambda at: self._are_opposite(operands, at, subtract))

    def with_sign_of_zero(self, codes: Codes, is_exact: Callable[[NDArray[np.intp]], NDArray[np.bool_]]) -> Codes:
        """Return the codes of sums with the zeros that the accumulator stores; `is_exact`: where sums at places are."""
        how = self.accumulator.signed_zero
        if how is True or not self.format.has_negative_zero:
            return codes
        places = np.flatnonzero(self.values(codes) == 0)
        codes = codes.copy()
        codes[places[is_exact(places)] if how == "underflow" else places] = self.number(np.zeros(1), self.format)
        return codes

    def _are_opposite(self, operands: list[Operand], places: NDArray[np.intp], subtract: bool) -> NDArray[np.bool_]:
        x, y = (np.broadcast_to(each.values, self.count)[places] for each in operands)
        return np.asarray(x == (y if subtract else -y))

    def subtract(self, x: Codes, y: Codes) -> Codes:
        """Return the stored difference of two stored numbers."""
        return self.add(x, y, subtract=True)


class _Steps:
    """Steps of rounded additions."""

    def __init__(self, a: Side, b: Side, stored: Stored) -> None:
        self.a, self.b, self.stored, self.accumulator = a, b, stored, stored.accumulator

    def run(self, start: Number) -> Codes:
        terms, accumulator = self.a.values.shape[2], self.accumulator
        if accumulator.compensation is not None:
            return _COMPENSATED[accumulator.compensation](self, terms, start)  # type: ignore[arg-type] # codes then
        alone = accumulator.group_sum != "fused" or accumulator.table is not None
        if accumulator.order == "pairwise":
            groups = [range(k, min(k + accumulator.group, terms)) for k in range(0, terms, accumulator.group)]
            return self.stored.add(start, _tree([self._group(g) for g in groups], self.stored.add))
        running = start
        for k in range(0, terms, accumulator.group if alone else 1):
            if alone:
                running = self.stored.add(running, self._group(range(k, min(k + accumulator.group, terms))))
            else:
                running = self.multiply_add(running, k)
        return running  # type: ignore[return-value] # there are terms: codes

    def _factors(self, k: int) -> list[Operand]:
        a, b = self.a.values[:, :, k : k + 1], self.b.values[:, k : k + 1, :]
        shape = np.broadcast_shapes(a.shape, b.shape)
        each = ((np.ascontiguousarray(np.broadcast_to(x, shape)).reshape(-1), side.format)
                for x, side in ((a, self.a), (b, self.b)))  # fmt: skip
        # float64 comes so close to logarithmic numbers that their codes can be found again
        return [
            Operand(True, plain=x) if holds_exactly(fmt) else coded(self.stored.number(x, fmt), fmt) for x, fmt in each
        ]

    def multiply_add(self, running: Number, k: int) -> Codes:
        """Return the stored sum of a number and a product, which is exact or rounded to its own format."""
        if self.accumulator.table is not None:
            return self.stored.add(running, self._product(k))
        factors = self._factors(k)
        if self.accumulator.product != "exact":
            fmt: ScalarFormat = self.accumulator.product  # type: ignore[assignment]
            return self.stored.add(running, coded(compute("multiply", factors, self.stored.target(fmt)), fmt))
        operands = [*factors, self.stored.operand(running)]
        codes = compute("fma", operands, self.stored.target(self.stored.format))
        return self.stored.with_sign_of_zero(codes, lambda at: _cancels(*(x.values[at] for x in operands)))

    def product_less(self, k: int, subtrahend: Codes) -> Codes:
        """Return the stored difference of a product and a number."""
        if self.accumulator.table is not None:
            return self.stored.add(self._product(k), subtrahend, subtract=True)
        minus = -self.stored.values(subtrahend)
        # a format may lack the negative of a number that it has
        exact = holds_exactly(self.stored.format)
        return self.multiply_add(
            Operand(True, plain=minus) if exact else self.stored.number(minus, self.stored.format), k
        )

    def size(self, k: int) -> Sums:
        """Return the magnitudes of products, as close as float64 comes."""
        if self.accumulator.table is not None:
            return np.asarray(np.abs(self.stored.operand(self._product(k)).values))
        a, b = (x.values for x in self._factors(k))
        return np.asarray(np.abs(a * b))

    def _product(self, k: int) -> Number:
        """Return a product rounded to its own format, and to the accumulator's if it is a sum of its own."""
        if self.accumulator.product == "exact":
            return compute("multiply", self._factors(k), self.stored.target(self.stored.format))
        fmt: ScalarFormat = self.accumulator.product  # type: ignore[assignment]
        product = compute("multiply", self._factors(k), self.stored.target(fmt))
        alone = self.accumulator.group_sum == "fused" and self.accumulator.table is None
        if fmt == self.stored.format and not alone:
            return product
        if not alone and self.accumulator.table is None:
            return coded(product, fmt)
        return compute("convert", [coded(product, fmt)], self.stored.target(self.stored.format))

    def _group(self, terms: range) -> Number:
        products = [self._product(k) for k in terms]
        if self.accumulator.group_sum == "pairwise":
            return _tree(products, self.stored.add)
        total = products[0]
        for product in products[1:]:
            total = self.stored.add(total, product)
        return total


def _cancels(x: Sums, y: Sums, z: Sums) -> NDArray[np.bool_]:
    """Return where `x * y + z` is zero, exactly."""
    exact = (
        Fraction(a) * Fraction(b) == -Fraction(c) for a, b, c in zip(*(v.tolist() for v in (x, y, z)), strict=True)
    )
    return np.fromiter(exact, np.bool_, len(x))


def _exact_steps(a: Side, b: Side, start: Sums, accumulator: Accumulator, stored: Stored) -> Codes:
    """Return the running sums of steps whose terms are summed exactly with them and rounded once."""
    for x in (a, b):
        if not holds_exactly(x.format):
            raise ArgumentError(
                f"terms in {x.format.name!r}, which float64 does not hold, have no exact sum in fused groups; take "
                "group=1 or a group_sum of single additions."
            )
    running = np.zeros(0, np.uint8)
    batch, rows, terms = a.values.shape
    group = min(accumulator.group, max(terms, 1))
    if terms > group:
        check_comes_back(stored.format, "running sums", f"group=1, or one group of all {terms} terms")
    columns = b.values.shape[2]
    for first in range(0, terms, group):
        target = stored.target(stored.format)
        values = (stored.values(running) if first else start).reshape(batch, rows, columns)
        parts = []
        for item in range(batch):
            left, right = a.values[item, :, first : first + group], b.values[item, first : first + group]
            down = target.request.mode.name == "toward_negative"
            found, state, exactly = _exact_bins.whole(
                left, right, values[item], a.format, b.format, toward_negative=down
            )
            where = target._replace(start=target.start + item * rows * columns)
            found = found if stored.format.has_negative_zero and accumulator.signed_zero is True else found + 0.0
            codes = where.encode_odd(found.reshape(-1), state.reshape(-1), exactly)
            parts.append(stored.with_sign_of_zero(codes, lambda at, found=found: found.reshape(-1)[at] == 0))  # type: ignore[misc]
        running = np.concatenate(parts) if parts else running
    return running


def _tree(numbers: Sequence[Number], add: Callable[[Number, Number], Codes]) -> Number:
    """Return the sum of a tree of halves, the larger half first."""
    if len(numbers) == 1:
        return numbers[0]
    half = (len(numbers) + 1) // 2
    return add(_tree(numbers[:half], add), _tree(numbers[half:], add))


def _kahan(steps: _Steps, terms: int, start: Codes) -> Codes:
    stored, s = steps.stored, start
    e = stored.number(np.zeros(start.size), stored.format)
    for k in range(terms):
        y = steps.product_less(k, e)
        t = stored.add(s, y)
        s, e = t, stored.subtract(stored.subtract(t, s), y)
    return stored.subtract(s, e)


def _neumaier(steps: _Steps, terms: int, start: Codes) -> Codes:
    stored, s = steps.stored, start
    e = stored.number(np.zeros(start.size), stored.format)
    for k in range(terms):
        t = steps.multiply_add(s, k)
        larger = np.abs(stored.values(s)) >= steps.size(k)
        draws = stored.draws
        small_product = steps.multiply_add(stored.subtract(s, t), k)
        after = stored.draws
        stored.draws = draws
        small_sum = stored.add(steps.product_less(k, t), s)
        stored.draws = after
        s, e = t, stored.add(e, np.where(larger, small_product, small_sum))
    return stored.add(s, e)


def _two_sum(steps: _Steps, terms: int, start: Codes) -> Codes:
    stored, h = steps.stored, start
    low = stored.number(np.zeros(start.size), stored.format)
    for k in range(terms):
        t = steps.multiply_add(h, k)
        q = stored.subtract(t, h)
        e = stored.add(stored.subtract(h, stored.subtract(t, q)), steps.product_less(k, q))
        v = stored.add(low, e)
        h = stored.add(t, v)
        low = stored.subtract(v, stored.subtract(h, t))
    return stored.add(h, low)


_COMPENSATED = {"kahan": _kahan, "neumaier": _neumaier, "two_sum": _two_sum}
