"""The exact oracle for accumulators: one dot product in plain integers and Fractions; slow, and meant to be read.

Fast sums are checked against `dot` bit for bit. It follows `Accumulator` and `Alignment` of
`lowp.emulation.accumulator` word for word and shares no code with the kernels.

    >>> from lowp.emulation.accumulator import Accumulator
    >>> dot(Accumulator(format="float16"), [2048, 1, 1], [1, 1, 1]), dot(Accumulator(format="int8"), [100, 100], [1, 1])
    (Fraction(2048, 1), Fraction(127, 1))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from lowp._errors import ArgumentError
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.exact_alignment import Factor, Term, aligned_sum
from lowp.emulation.exact_functions import magnitude, number
from lowp.emulation.exact_stored import Draws, Store
from lowp.formats.spec import Format, Meaning
from lowp.rounding.exact import exact_value
from lowp.rounding.exact_rules import scalar_format

__all__ = ["dot"]

ZERO: Meaning = Fraction(0)
ONE, FROM_ZERO = Factor(Fraction(1)), Factor(ZERO)


def dot(
    accumulator: Accumulator,
    a: Sequence[Any],
    b: Sequence[Any],
    c: Any = None,
    *,
    a_format: Format | str | None = None,
    b_format: Format | str | None = None,
    c_format: Format | str | None = None,
    scales_a: Sequence[Any] | None = None,
    scales_b: Sequence[Any] | None = None,
    scale_format: Format | str | None = None,
    position: int = 0,
    count: int = 1,
) -> Meaning:
    """Return `c + a[0] * b[0] + a[1] * b[1] + ...` as an accumulator sums it.

    Args:
        accumulator: The description.
        a: Numbers at their exact values, see `lowp.rounding.exact.exact_value`.
        b: As many numbers.
        c: The addend, taken as it is, not rounded first; None: +0.
        a_format: Format of `a`: where its numbers are subnormal. None: nowhere.
        b_format: Format of `b`.
        c_format: Format of `c`, whose exponents count for it; None: that of the sum it is added to.
        scales_a: Scales of `a`, each for as many terms as the others; None: no scales.
        scales_b: Scales of `b`.
        scale_format: Format of the scales.
        position: Which output this is, for stochastic rounding.
        count: Of how many outputs.

    Returns:
        The value that is stored in the end: a Fraction, one of "nan", "inf", "-inf", "-0", or an irrational `Real`.

    Raises:
        ArgumentError: Operands of different lengths, or scales that do not divide them.

    Example:
        >>> from lowp.emulation.accumulator import Accumulator, Alignment
        >>> volta = Accumulator(format="float32", rounding="toward_zero", overflow="infinity", group=4,
        ...                     alignment=Alignment(fraction_bits=23, zero_exponent=-131), signed_zero=False)
        >>> dot(volta, [2**-12] * 4, [2**-12] * 4, 1), dot(volta, [1024, 1024], [1024, -1024], 2**-5)
        (Fraction(1, 1), Fraction(0, 1))
    """
    if len(a) != len(b):
        raise ArgumentError(f"a has {len(a)} numbers, b {len(b)}; a dot product needs as many of each.")
    store = Store(accumulator, Draws(position, count))
    columns = [_factors(x, fmt, store) for x, fmt in ((a, a_format), (b, b_format))]
    scales = [_spread(s, len(a), scale_format) for s in (scales_a, scales_b) if s is not None]
    terms = [Term((x, y), tuple(s[i] for s in scales)) for i, (x, y) in enumerate(zip(*columns, strict=True))]
    start = Factor(ZERO if c is None else exact_value(c), None if c_format is None else scalar_format(c_format))
    return _Summation(accumulator, store).total(terms, start)


def _factors(numbers: Sequence[Any], fmt: Format | str | None, store: Store) -> list[Factor]:
    form = None if fmt is None else scalar_format(fmt)
    return [Factor(store.read(exact_value(x), form), form) for x in numbers]


def _spread(scales: Sequence[Any], terms: int, fmt: Format | str | None) -> list[Factor]:
    """Return the scale of every term."""
    form = None if fmt is None else scalar_format(fmt)
    if not len(scales) or terms % len(scales):
        raise ArgumentError(f"{len(scales)} scales do not divide {terms} terms.")
    return [Factor(exact_value(x), form) for x in scales for _ in range(terms // len(scales))]


class _Summation:
    """A sum of terms in the structure that an accumulator gives it."""

    def __init__(self, accumulator: Accumulator, store: Store) -> None:
        self.accumulator, self.store = accumulator, store

    def total(self, terms: Sequence[Term], start: Factor) -> Meaning:
        """Return the sum of all terms, and of the number that it starts from."""
        mine = self.accumulator
        if not terms:
            return start.value
        taken = [terms[i] for i in permutation(mine, len(terms))]
        if mine.chunk is None and mine.lanes == 1 and mine.splits == 1:
            return self._steps(taken, start)
        outer = self._outer()
        splits = [taken[run] for run in _splits(len(terms), mine.splits, mine.split_tile)]
        if len(splits) == 1:
            return self._joined(outer, self._chunks(taken), start)
        return self._joined(outer, [self._split(outer, run) for run in splits], start)

    def _split(self, outer: _Summation, terms: Sequence[Term]) -> Factor:
        """Return the sum of one of several runs."""
        if self.accumulator.chunk is None:
            return self._lanes(terms)
        return Factor(self._joined(outer, self._chunks(terms), FROM_ZERO), outer.store.format)

    def _chunks(self, terms: Sequence[Term]) -> list[Factor]:
        size = self.accumulator.chunk or len(terms)
        return [self._lanes(terms[i : i + size]) for i in range(0, len(terms), size)]

    def _lanes(self, terms: Sequence[Term]) -> Factor:
        """Return the sum of a chunk: that of its lanes, whose additions are stored as theirs are."""
        lanes, width = self.accumulator.lanes, self.accumulator.lane_width
        dealt: list[list[Term]] = [[] for _ in range(lanes)]
        for i, term in enumerate(terms):
            dealt[i // width % lanes].append(term)
        sums = [self._steps(lane, FROM_ZERO) for lane in dealt]
        join = tree if self.accumulator.order == "pairwise" else chain
        return Factor(join(sums, self.store.add), self.store.format)

    def _outer(self) -> _Summation:
        """Return how partial sums are added."""
        given = self.accumulator.outer
        if given is None:
            given = dataclasses.replace(
                self.accumulator, order="sequential", chunk=None, lanes=1, splits=1, outer=None, compensation=None
            )
        plain = dataclasses.replace(
            given, product="exact", group=1, group_sum="fused", alignment=None, lanes=1, splits=1, outer=None
        )
        return _Summation(plain, Store(plain, self.store.draws))

    @staticmethod
    def _joined(outer: _Summation, sums: Sequence[Factor], start: Factor) -> Meaning:
        """Return the sum of partial sums."""
        return outer.total([Term((Factor(outer.store.read(*x)), ONE)) for x in sums], start)

    # One partial sum

    def _steps(self, terms: Sequence[Term], start: Factor) -> Meaning:
        if self.accumulator.compensation is not None and terms:
            products = [self._factor(term) for term in terms]
            return COMPENSATED[self.accumulator.compensation](self.store, products, start.value)
        size = self.accumulator.group
        groups = [terms[i : i + size] for i in range(0, len(terms), size)]
        if self.accumulator.order == "pairwise":
            sums = [self._group_sum(group) for group in groups]
            return self.store.add(start.value, tree(sums, self.store.add)) if sums else start.value
        running = start._replace(format=start.format or self.store.format)
        for group in groups:
            running = Factor(self._step(running, group), self.store.format)
        return running.value

    def _step(self, running: Factor, group: Sequence[Term]) -> Meaning:
        """Return the running sum after one step."""
        if self.accumulator.group_sum != "fused" or self.accumulator.table is not None:
            return self.store.add(running.value, self._group_sum(group))
        start = self.store.read(running.value, running.format)
        if self.accumulator.alignment is not None:
            return self.store.sum(aligned_sum(Factor(start, running.format), group, self.accumulator.alignment))
        return self.store.sum(self.store.exact_sum(start, *(self._factor(term) for term in group)))

    def _group_sum(self, group: Sequence[Term]) -> Meaning:
        """Return the stored sum of one group, without the running sum."""
        if self.accumulator.group_sum == "fused" and self.accumulator.table is None:
            return self.store.sum(self.store.exact_sum(*(self._factor(term) for term in group)))
        products = [self._product(term) for term in group]
        if self.accumulator.group_sum == "pairwise":
            return tree(products, self.store.add)
        return chain(products, self.store.add)

    def _factor(self, term: Term) -> Meaning:
        """Return a product as a fused step takes it: exact, or rounded to its own format; a table takes its own."""
        if self.accumulator.product == "exact" and self.accumulator.table is None:
            return term.value
        return self._product(term)

    def _product(self, term: Term) -> Meaning:
        """Return a product that is rounded to its own format, and for a table to that of its sums."""
        fmt = self.store.format if self.accumulator.product == "exact" else scalar_format(self.accumulator.product)
        product = self.store.read(self.store.number(term.value, fmt), fmt)
        if self.accumulator.table is None or fmt == self.store.format:
            return product
        return self.store.number(product, self.store.format)


def permutation(accumulator: Accumulator, terms: int) -> list[int]:
    """Return which term comes first, second, ..."""
    order = accumulator.order
    if order == "random":
        import numpy as np

        return [int(i) for i in np.random.Generator(np.random.PCG64(accumulator.seed)).permutation(terms)]
    if isinstance(order, str):
        return list(range(terms))
    return [first + i for first in range(0, terms, len(order)) for i in order if first + i < terms]


def tree(numbers: Sequence[Meaning], add: Callable[[Meaning, Meaning], Meaning]) -> Meaning:
    """Return the sum of a tree of halves, the larger half first."""
    if len(numbers) == 1:
        return numbers[0]
    half = (len(numbers) + 1) // 2
    return add(tree(numbers[:half], add), tree(numbers[half:], add))


def chain(numbers: Sequence[Meaning], add: Callable[[Meaning, Meaning], Meaning]) -> Meaning:
    """Return the sum of numbers one by one, from the first."""
    total = numbers[0]
    for x in numbers[1:]:
        total = add(total, x)
    return total


def _splits(terms: int, splits: int, tile: int) -> list[slice]:
    """Return contiguous runs of equal numbers of tiles; the last runs may be shorter, and are left out if empty."""
    tiles = -(-terms // tile)
    length = -(-tiles // splits) * tile
    return [slice(first, min(first + length, terms)) for first in range(0, terms, length)]


# Sums with a second number for what rounding lost


def kahan(store: Store, products: Sequence[Meaning], start: Meaning) -> Meaning:
    """Return Kahan's sum: `y = p - e; t = s + y; e = (t - s) - y; s = t`, every result stored; `s - e` in the end."""
    s, e = start, ZERO
    for p in products:
        y = store.subtract(p, e)
        t = store.add(s, y)
        s, e = t, store.subtract(store.subtract(t, s), y)
    return store.subtract(s, e)


def neumaier(store: Store, products: Sequence[Meaning], start: Meaning) -> Meaning:
    """Return Neumaier's sum: `t = s + p; e = e + ((x - t) + y); s = t`, x the larger of s and p; `s + e` in the end."""
    s, e = start, ZERO
    for p in products:
        t = store.add(s, p)
        x, y = (s, p) if _size(s) >= _size(p) else (p, s)
        s, e = t, store.add(e, store.add(store.subtract(x, t), y))
    return store.add(s, e)


def two_sum(store: Store, products: Sequence[Meaning], start: Meaning) -> Meaning:
    """Return the sum as an expansion `h + l`, which each product grows; `h + l` in the end.

    TwoSum: `t = h + p; q = t - h; e = (h - (t - q)) + (p - q)`. Then `v = l + e`, and Fast2Sum: `h = t + v;
    l = v - (h - t)`.
    """
    h, low = start, ZERO
    for p in products:
        t = store.add(h, p)
        q = store.subtract(t, h)
        e = store.add(store.subtract(h, store.subtract(t, q)), store.subtract(p, q))
        v = store.add(low, e)
        h = store.add(t, v)
        low = store.subtract(v, store.subtract(h, t))
    return store.add(h, low)


COMPENSATED: dict[str, Callable[[Store, Sequence[Meaning], Meaning], Meaning]] = {
    "kahan": kahan,
    "neumaier": neumaier,
    "two_sum": two_sum,
}


def _size(x: Meaning) -> Any:
    """Return a magnitude to compare; of NaN any, for the result is NaN."""
    return float("inf") if x in ("inf", "-inf", "nan") else magnitude(number(x))
