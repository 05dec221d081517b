"""Sums of products as an accumulator describes them: order, partial sums, and the engine for each contiguous run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._operands import check_comes_back
from lowp.emulation._side import Side, read_as
from lowp.emulation._stored_plan import is_storable
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.rounding._namespaces import Namespace, namespace_of
from lowp.rounding.modes import rounding

Sums = NDArray[np.float64]
#: What sums a contiguous run of terms: arguments and result are those of `run`.
Engine = Callable[[Side, Side, Any, Accumulator, Any, int], Any]
_ONE = Float(2, 1, bias=1, specials="finite")


def summed(
    a: Side, b: Side, c: Sums, accumulator: Accumulator, c_format: ScalarFormat, engine: Engine | None = None
) -> Sums:
    """Return `c + a @ b`, summed as the accumulator says.

    Args:
        a: Operand of (batch, rows, terms).
        b: Operand of (batch, terms, columns).
        c: What is added, (batch, rows, columns), exact in `c_format`.
        accumulator: The description.
        c_format: Format of `c`.
        engine: What sums contiguous runs, as `run`, of the arrays' own kind.

    Returns:
        Numbers of the accumulator's format (of `outer`'s, where there are partial sums) as float64.
    """
    both = (accumulator, accumulator.outer or accumulator)
    draws = any(rounding(how.rounding).variant != 0 for how in both)
    return _Summation(engine or run, namespace_of(c), draws).total(a, b, c, accumulator, c_format)


class _Summation:
    """One sum, and how many numbers were stored for each output before, for stochastic rounding."""

    def __init__(self, engine: Engine, xp: Namespace, draws: bool) -> None:
        self.engine, self.xp, self.draws, self.stored = engine, xp, draws, 0

    def total(self, a: Side, b: Side, c: Sums, accumulator: Accumulator, c_format: ScalarFormat) -> Sums:
        """Return the whole sum."""
        terms = a.values.shape[2]
        order = term_order(accumulator, terms)
        if order is not None:
            a, b = a.taken(order, 2), b.taken(order, 1)
        inner = without_partial_sums(accumulator)
        if not has_partial_sums(accumulator) or terms == 0:
            return self.run(a, b, c, inner, c_format)
        outer = partial_sums_adder(accumulator)
        check_partial_sums(accumulator, outer)
        zeros, parts = self.xp.full_like(c, 0), []
        runs = splits(accumulator, terms)
        for split in runs:
            chunks = [self.lanes(a, b, chunk, accumulator, inner, zeros) for chunk in chunks_of(accumulator, split)]
            if len(runs) == 1:
                return self.added(chunks, c, c_format, inner, outer)
            whole = accumulator.chunk is None
            parts.append(chunks[0] if whole else self.added(chunks, zeros, outer.format, inner, outer))
        return self.added(parts, c, c_format, inner if accumulator.chunk is None else outer, outer)

    def lanes(self, a: Side, b: Side, chunk: range, accumulator: Accumulator, inner: Accumulator, zeros: Sums) -> Sums:
        """Return the sum of a chunk: that of its lanes, from the first to the last or in a tree."""
        if accumulator.lanes == 1:
            places = slice(chunk.start, chunk.stop)
            return self.run(a.taken(places, 2), b.taken(places, 1), zeros, inner, inner.format)
        terms = np.arange(chunk.start, chunk.stop)
        lane = (terms - chunk.start) // accumulator.lane_width % accumulator.lanes
        own = [terms[lane == i] for i in range(accumulator.lanes)]
        sums = [self.run(a.taken(mine, 2), b.taken(mine, 1), zeros, inner, inner.format) for mine in own]
        add = _adding(accumulator)
        if accumulator.order == "pairwise":
            return self.tree(sums, add)
        return self.joined(sums[0], sums[1:], add)

    def tree(self, sums: list[Sums], add: Accumulator) -> Sums:
        """Return the sum of a tree of halves, the larger half first."""
        if len(sums) == 1:
            return sums[0]
        half = (len(sums) + 1) // 2
        left = self.tree(sums[:half], add)
        return self.joined(left, [self.tree(sums[half:], add)], add)

    def joined(self, first: Sums, rest: list[Sums], add: Accumulator) -> Sums:
        """Return the sum of lanes' sums one by one: numbers of the format, of which each addition stores one."""
        stored = self.stored
        found = self.added(rest, first, add.format, add, add)
        self.stored = stored + len(rest)
        return found

    def added(self, parts: list[Sums], c: Sums, c_format: Any, inner: Accumulator, outer: Accumulator) -> Sums:
        """Return `c` plus numbers of `inner`'s format, added as `outer` says."""
        if not parts:
            return c
        xp = self.xp
        stacked = xp.stack([part.reshape(-1) for part in parts])[None]
        ones = Side(xp.full_like(stacked[:, :1, :1], 1) + xp.full_like(stacked[:, :, :1].reshape(1, 1, -1), 0), _ONE)
        total = self.total(ones, Side(stacked, inner.format), c.reshape(1, 1, -1), outer, c_format)  # type: ignore[arg-type]
        return total.reshape(c.shape)

    def run(self, a: Side, b: Side, c: Sums, accumulator: Accumulator, c_format: Any) -> Sums:
        """Return the running sums after a contiguous run of terms."""
        found = self.engine(a, b, c, accumulator, c_format, self.stored)
        if self.draws:
            from lowp.emulation._rounded_sums import stored_count

            self.stored += stored_count(accumulator, a.values.shape[2])
        return found  # type: ignore[no-any-return]


def _adding(accumulator: Accumulator) -> Accumulator:
    """Return how numbers that an accumulator stored are added one by one."""
    return replace(
        accumulator, order="sequential", chunk=None, lanes=1, lane_width=1, splits=1, split_tile=1, outer=None,
        compensation=None, product="exact", group=1, group_sum="fused", alignment=None,
    )  # fmt: skip


def partial_sums_adder(accumulator: Accumulator) -> Accumulator:
    """Return how partial sums are added: by those fields of `outer` alone that say how stored numbers are."""
    given = accumulator.outer
    if given is None:
        return _adding(accumulator)
    return replace(_adding(given), order=given.order, chunk=given.chunk, compensation=given.compensation)


def term_order(accumulator: Accumulator, terms: int) -> NDArray[np.intp] | None:
    """Return the places of the terms in the order in which they are summed; None: as they are."""
    order = accumulator.order
    if order == "random":
        return np.random.Generator(np.random.PCG64(accumulator.seed)).permutation(terms)
    if isinstance(order, str):
        return None
    runs = [start + np.array(order) for start in range(0, terms, len(order))]
    places = np.concatenate(runs) if runs else np.zeros(0, np.intp)
    return places[places < terms]


def check_partial_sums(accumulator: Accumulator, outer: Accumulator) -> None:
    """Raise ArgumentError if partial sums are numbers that float64, as which they are passed on, does not have."""
    inside = accumulator.chunk is not None and accumulator.splits > 1
    for how in (accumulator, outer) if inside else (accumulator,):
        check_comes_back(how.format, "partial sums", "one chain without chunk, lanes and splits")  # type: ignore[arg-type]


def has_partial_sums(accumulator: Accumulator) -> bool:
    """Whether there are partial sums."""
    return accumulator.chunk is not None or accumulator.lanes > 1 or accumulator.splits > 1


def without_partial_sums(accumulator: Accumulator) -> Accumulator:
    """Return how one partial sum of terms already in order is made."""
    order = "pairwise" if accumulator.order == "pairwise" else "sequential"
    return replace(
        accumulator, order=order, chunk=None, lanes=1, lane_width=1, splits=1, split_tile=1, outer=None
    )  # fmt: skip


def splits(accumulator: Accumulator, terms: int) -> list[range]:
    """Return the contiguous runs of a split product."""
    tiles = -(-terms // accumulator.split_tile)
    length = max(-(-tiles // accumulator.splits) * accumulator.split_tile, 1)
    return [range(start, min(start + length, terms)) for start in range(0, terms, length)] or [range(0)]


def chunks_of(accumulator: Accumulator, run_of_terms: range) -> Iterator[range]:
    """Return the chunks of a run of terms."""
    length = accumulator.chunk or max(len(run_of_terms), 1)
    for start in range(run_of_terms.start, max(run_of_terms.stop, run_of_terms.start + 1), length):
        yield range(start, min(start + length, run_of_terms.stop))


def run(a: Side, b: Side, c: Sums, accumulator: Accumulator, c_format: ScalarFormat, first_step: int = 0) -> Sums:
    """Return the running sums after a contiguous run of terms of NumPy arrays.

    `first_step`: how many numbers were stored for each output before, for stochastic rounding.
    """
    from lowp.emulation import _code_sums, _exact_bins, _rounded_sums

    if accumulator.alignment is not None:
        from lowp.emulation import _aligned_sums

        return _aligned_sums.run(a, b, c, accumulator, c_format, first_step)
    a, b = (_read(x, axis, accumulator.subnormal_inputs) for x, axis in ((a, -1), (b, -2)))
    fused_groups = accumulator.group_sum == "fused" and accumulator.group > 1 and accumulator.table is None
    if fused_groups and a.values.shape[2] and (accumulator.product != "exact" or accumulator.order == "pairwise"):
        from lowp.emulation import _group_sums

        make = _group_sums.in_a_tree if accumulator.order == "pairwise" else _group_sums.of_rounded_products
        return make(a, b, c, accumulator, run, first_step)
    if _rounded_sums.serves(accumulator, a.values, b.values, c, a.format, b.format):
        return _rounded_sums.sums(a, b, c, accumulator, first_step)
    if fused_groups and _rounds_in_floats(accumulator):
        plus = accumulator.signed_zero == "underflow"
        sums = [
            _exact_bins.run(*parts, accumulator, a.format, b.format, positive_zero=plus)
            for parts in zip(a.values, b.values, c, strict=True)
        ]
        return np.stack(sums) if sums else c.copy()
    return _code_sums.sums(a, b, c, accumulator, first_step)


def _rounds_in_floats(accumulator: Accumulator) -> bool:
    return is_storable(accumulator.format, accumulator.rounding, accumulator.overflow)  # type: ignore[arg-type]


def _read(side: Side, axis: int, subnormal: str) -> Side:
    """Return elements, as an addition reads them, times scales as elements of a format that has them all."""
    side = side._replace(values=read_as(side.values, side.format, subnormal))
    return side if side.scales is None else Side(side.scaled_values(axis), Float(11, 52))
