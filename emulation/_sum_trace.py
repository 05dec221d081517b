"""Sums of products one stored value at a time: what `_summation` computes, with every step told to a watcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._operands import coded, holds_exactly
from lowp.emulation._side import Side
from lowp.emulation._sum_terms import Sums, Terms
from lowp.emulation._summation import (
    chunks_of,
    has_partial_sums,
    partial_sums_adder,
    run,
    splits,
    term_order,
    without_partial_sums,
)
from lowp.emulation.accumulator import Accumulator
from lowp.formats.spec import ScalarFormat

#: A term's place among the terms of the product, or the name of a partial sum.
Label = int | str


class Step(NamedTuple):
    """One value that is stored for every output: `after = before + terms`, rounded."""

    kind: str  # "step", "product", "addition" or "correction"; of results "scaling" or "store"
    place: str  # which partial sum it belongs to
    labels: tuple[Label, ...]  # of what is added
    before: tuple[Sums, ...]  # numbers whose sum is the running sum: one, or with compensation two
    before_format: ScalarFormat
    terms: Terms | None
    after: tuple[Sums, ...]
    accumulator: Accumulator
    format: ScalarFormat  # of what is stored
    scale: float = 1.0  # by which this step multiplies, and all that was lost before with it


class _Stored(NamedTuple):
    """Numbers that were stored for every output, in the format in which they were."""

    label: Label
    values: Sums
    format: ScalarFormat


class Trace:
    """A sum that tells a watcher of every step.

    Args:
        watch: Is called with each step, in the order in which values are stored.
    """

    def __init__(self, watch: Callable[[Step], None]) -> None:
        self.watch, self.draws = watch, 0

    def summed(
        self, a: Side, b: Side, c: Sums, accumulator: Accumulator, c_format: ScalarFormat,
        labels: Sequence[Label], place: str = "",
    ) -> Sums:  # fmt: skip
        """Return `c + a @ b` up to the signs of zeros; sides have a scale for each element, if any."""
        terms = a.values.shape[2]
        if not terms:
            return c
        order = term_order(accumulator, terms)
        if order is not None:
            a, b, labels = taken(a, order, 2), taken(b, order, 1), [labels[i] for i in order]
        inner = without_partial_sums(accumulator)
        if not has_partial_sums(accumulator):
            return _Chain(self, inner, place).run(a, b, c, c_format, labels)
        outer = partial_sums_adder(accumulator)
        runs = splits(accumulator, terms)
        if len(runs) == 1:
            parts = self._chunks(a, b, runs[0], accumulator, labels, c, place)
            return self._joined(parts, c, c_format, inner.format, outer, place)
        whole, fmt = [], inner.format
        for i, split in enumerate(runs):
            where = _within(place, f"split {i}")
            parts = self._chunks(a, b, split, accumulator, labels, c, where)
            if accumulator.chunk is None:
                whole.append((where, parts[0][1]))
            else:
                fmt = outer.format
                whole.append((where, self._joined(parts, np.zeros_like(c), fmt, inner.format, outer, where)))
        return self._joined(whole, c, c_format, fmt, outer, place)

    def _chunks(
        self, a: Side, b: Side, split: range, accumulator: Accumulator, labels: Sequence[Label], like: Sums, place: str
    ) -> list[tuple[str, Sums]]:
        parts = []
        for i, chunk in enumerate(chunks_of(accumulator, split)):
            where = place if accumulator.chunk is None else _within(place, f"chunk {i}")
            parts.append(
                (where, self._lanes(a, b, np.arange(chunk.start, chunk.stop), accumulator, labels, like, where))
            )
        return parts

    def _lanes(
        self, a: Side, b: Side, terms: NDArray[np.intp], accumulator: Accumulator, labels: Sequence[Label], like: Sums,
        place: str,
    ) -> Sums:  # fmt: skip
        inner = without_partial_sums(accumulator)
        lane = np.arange(len(terms)) // accumulator.lane_width % accumulator.lanes
        sums: list[_Stored] = []
        for i in range(accumulator.lanes):
            where = place if accumulator.lanes == 1 else _within(place, f"lane {i}")
            mine = terms[lane == i]
            zeros = np.zeros_like(like)
            chain = _Chain(self, inner, where)
            sides = taken(a, mine, 2), taken(b, mine, 1)
            total = chain.run(*sides, zeros, chain.format, [labels[k] for k in mine])
            sums.append(_Stored(where, total, chain.format))
        join = _Chain(self, inner, place)
        return (join.tree(sums) if inner.order == "pairwise" else join.in_turn(sums)).values

    def _joined(
        self, parts: list[tuple[str, Sums]], c: Sums, c_format: Any, fmt: Any, outer: Accumulator, place: str
    ) -> Sums:
        terms = Terms.of_values([x for _, x in parts], fmt)
        names = [name or "the whole" for name, _ in parts]
        total = self.summed(terms.a, terms.b, c.reshape(1, 1, -1), outer, c_format, names, place)
        return total.reshape(c.shape)


class _Chain:
    """One partial sum, or the additions of some."""

    def __init__(self, trace: Trace, accumulator: Accumulator, place: str) -> None:
        self.trace, self.accumulator, self.place = trace, accumulator, place
        self.format: ScalarFormat = accumulator.format  # type: ignore[assignment]
        self.alone = accumulator.group_sum != "fused" or accumulator.table is not None
        self.step_of = replace(
            accumulator, product="exact", group_sum="fused", order="sequential", compensation=None, group=1
        )

    def run(self, a: Side, b: Side, c: Sums, c_format: ScalarFormat, labels: Sequence[Label]) -> Sums:
        """Return the running sums after all terms."""
        terms, size = a.values.shape[2], self.accumulator.group
        groups = [slice(k, min(k + size, terms)) for k in range(0, terms, min(size, max(terms, 1)))]
        pieces = [(taken(a, g, 2), taken(b, g, 1), labels[g]) for g in groups]
        if not pieces:
            return c
        if self.accumulator.compensation is not None:
            return self._compensated(pieces, c)
        if self.accumulator.order == "pairwise":
            leaves = [self._group(x, y, names, c) for x, y, names in pieces]
            return self._add((c, c_format), self.tree(leaves)._replace(label="the tree"))
        running, fmt = c, c_format
        for x, y, names in pieces:
            if self.alone:
                running = self._add((running, fmt), self._group(x, y, names, c))
            else:
                running = self._store("step", running, fmt, self._factors(Terms(x, y), names, c), names)
            fmt = self.format
        return running

    def in_turn(self, sums: Sequence[_Stored]) -> _Stored:
        """Return the sum of stored numbers, added one by one."""
        total = sums[0]
        for x in sums[1:]:
            total = self._sum(total, x)
        return total

    def tree(self, sums: Sequence[_Stored]) -> _Stored:
        """Return the sum of stored numbers, added in a tree of halves, the larger half first."""
        if len(sums) == 1:
            return sums[0]
        half = (len(sums) + 1) // 2
        left, right = self.tree(sums[:half]), self.tree(sums[half:])
        return self._sum(left, right._replace(label=_span([x.label for x in sums[half:]])))

    def _sum(self, x: _Stored, y: _Stored) -> _Stored:
        return _Stored(x.label, self._add((x.values, x.format), y), self.format)

    def _group(self, a: Side, b: Side, labels: Sequence[Label], like: Sums) -> _Stored:
        """Return the stored sum of one group; of a single product, that in its own format."""
        terms = Terms(a, b)
        if not self.alone:
            nothing = np.full_like(like, -0.0)
            total = self._store("step", nothing, self.format, self._factors(terms, labels, like), labels)
            return _Stored(_span(labels), total, self.format)
        products = self._products(terms, labels, like)
        joined = replace(self.accumulator, group_sum="fused", group=1)
        chain = _Chain(self.trace, joined, self.place)
        chain.format = self.format
        joined_sum = chain.tree(products) if self.accumulator.group_sum == "pairwise" else chain.in_turn(products)
        return joined_sum._replace(label=_span(labels))

    @property
    def _product_format(self) -> ScalarFormat:
        product: Any = self.accumulator.product
        return self.format if product == "exact" else product

    def _products(self, terms: Terms, labels: Sequence[Label], like: Sums) -> list[_Stored]:
        """Return the products, each rounded."""
        fmt = self._product_format
        overflow = self.accumulator.overflow
        if fmt != self.format and not _goes_with(overflow, fmt):
            overflow = "infinity_or_nan"
        how = replace(self.step_of, format=fmt, overflow=overflow, alignment=None, table=None, signed_zero=True)
        chain = _Chain(self.trace, how, self.place)
        result: list[_Stored] = []
        for k, label in enumerate(labels):
            one = Terms(taken(terms.a, slice(k, k + 1), 2), taken(terms.b, slice(k, k + 1), 1))
            product = _Stored(label, chain._store("product", np.full_like(like, -0.0), fmt, one, [label]), fmt)
            result.append(product if self.accumulator.table is None else self._for_table(product))
        return result

    def _for_table(self, product: _Stored) -> _Stored:
        """Return a rounded product as a table takes it: rounded to the format of its sums."""
        if product.format == self.format:
            return product
        chain = _Chain(self.trace, replace(self.step_of, table=None, signed_zero=True), self.place)
        return product._replace(
            values=chain._add((np.full_like(product.values, -0.0), self.format), product), format=self.format
        )

    def _factors(self, terms: Terms, labels: Sequence[Label], like: Sums) -> Terms:
        """Return products as a fused step takes them: exact, or rounded to a format of their own."""
        if self.accumulator.product == "exact":
            return terms
        products = self._products(terms, labels, like)
        return Terms.of_values([x.values for x in products], products[0].format)

    def _add(self, before: tuple[Sums, ScalarFormat], addend: _Stored) -> Sums:
        """Return the stored sum of two stored numbers."""
        return self._store("addition", *before, Terms.of_values([addend.values], addend.format), [addend.label])

    def _store(self, kind: str, before: Sums, fmt: ScalarFormat, terms: Terms, labels: Sequence[Label]) -> Sums:
        """Return `before` plus the terms, rounded, and tell of it."""
        after = self._stored(before, fmt, terms)
        states = (before.reshape(-1),), (after.reshape(-1),)
        self.trace.watch(
            Step(kind, self.place, tuple(labels), states[0], fmt, terms, states[1], self.accumulator, self.format)
        )
        return after

    def _stored(self, before: Sums, fmt: ScalarFormat, terms: Terms) -> Sums:
        shape = len(terms.a.values), terms.a.values.shape[1], terms.b.values.shape[2]
        start = np.ascontiguousarray(before.reshape(shape))
        how = replace(self.step_of, group=len(terms))
        exact = all(holds_exactly(x) for x in (fmt, terms.b.format, self.format))
        if terms.stored and len(terms) == 1 and not exact:
            return self._stored_codes(before, fmt, terms)
        if terms.stored:
            how = replace(how, alignment=None)
        after: Sums = run(terms.a, terms.b, start, how, fmt, self.trace.draws)
        self.trace.draws += 1
        return after.reshape(before.shape)

    def _stored_codes(self, before: Sums, fmt: ScalarFormat, terms: Terms) -> Sums:
        """Return the stored sum of two stored numbers by their codes, which float64 only comes close to."""
        from lowp.emulation._code_sums import Stored

        stored = Stored(self.accumulator, before.size, self.trace.draws)
        numbers = ((before, fmt), (terms.b.values, terms.b.format))
        x, y = (coded(stored.number(values.reshape(-1), own), own) for values, own in numbers)
        self.trace.draws += 1
        return stored.values(stored.add(x, y, subtract=bool(terms.a.values[0, 0, 0] < 0))).reshape(before.shape)

    # Sums with a second number for what rounding lost

    def _compensated(self, pieces: Sequence[tuple[Side, Side, Sequence[Label]]], c: Sums) -> Sums:
        name = self.accumulator.compensation
        correct = {"kahan": self._kahan, "neumaier": self._neumaier, "two_sum": self._two_sum}[str(name)]
        sign = -1.0 if name == "kahan" else 1.0
        s, e = c, np.zeros_like(c)
        for a, b, labels in pieces:
            terms = self._factors(Terms(a, b), labels, c)
            before = s, e
            s, e = correct(terms, s, e)
            self._tell("step", before, (s, e), sign, terms, labels)
        total = self._plus(s, e, sign)
        self._tell("correction", (s, e), (total,), sign, None, ("the correction",))
        return total

    def _tell(
        self, kind: str, before: tuple[Sums, ...], after: tuple[Sums, ...], sign: float, terms: Any, labels: Any
    ) -> None:
        first, last = (tuple(x.reshape(-1) * (sign if i else 1.0) for i, x in enumerate(p)) for p in (before, after))
        self.trace.watch(
            Step(kind, self.place, tuple(labels), first, self.format, terms, last, self.accumulator, self.format)
        )

    def _plus(self, x: Sums, y: Sums, sign: float = 1.0) -> Sums:
        return self._stored(x, self.format, Terms.of_values([y], self.format, sign))

    def _minus(self, x: Sums, y: Sums) -> Sums:
        return self._plus(x, y, -1.0)

    def _term_plus(self, terms: Terms, x: Sums) -> Sums:
        return self._stored(x, self.format, terms)

    def _kahan(self, p: Terms, s: Sums, e: Sums) -> tuple[Sums, Sums]:
        y = self._term_plus(p, -e)
        t = self._plus(s, y)
        return t, self._minus(self._minus(t, s), y)

    def _neumaier(self, p: Terms, s: Sums, e: Sums) -> tuple[Sums, Sums]:
        t = self._term_plus(p, s)
        larger = np.abs(s) >= np.abs(next(p.each())).reshape(s.shape)
        lost = np.where(larger, self._term_plus(p, self._minus(s, t)), self._plus(self._term_plus(p, -t), s))
        return t, self._plus(e, lost)

    def _two_sum(self, p: Terms, s: Sums, e: Sums) -> tuple[Sums, Sums]:
        t = self._term_plus(p, s)
        u = self._minus(t, s)
        v = self._plus(e, self._plus(self._minus(s, self._minus(t, u)), self._term_plus(p, -u)))
        h = self._plus(t, v)
        return h, self._minus(v, self._minus(h, t))


def taken(side: Side, places: NDArray[np.intp] | slice, axis: int) -> Side:
    """Return an operand with some of its terms; scales there are one for each element."""
    index = (slice(None),) * axis + (places,)
    scales = None if side.scales is None else np.ascontiguousarray(side.scales[index])
    return side._replace(values=np.ascontiguousarray(side.values[index]), scales=scales)


def with_scale_each(side: Side, axis: int) -> Side:
    """Return an operand with a scale for each of its elements."""
    return side if side.scales is None else side._replace(scales=side.spread_scales(axis), block=1)


def _goes_with(overflow: str, fmt: ScalarFormat) -> bool:
    try:
        Accumulator(format=fmt, overflow=overflow)
    except ValueError:
        return False
    return True


def _within(place: str, part: str) -> str:
    return f"{place}, {part}" if place else part


def _span(labels: Sequence[Label]) -> Label:
    """Return one name for several terms or partial sums."""
    if len(labels) == 1:
        return labels[0]
    return f"{labels[0]} .. {labels[-1]}"
