"""Panels of exact matrix products: the bits that their operands use, slices and pieces of these, bins of the sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.rounding._threads import split

#: Rows and columns of a panel at most, its sums, its terms, and the most terms where there are few sums.
_ROWS, _COLUMNS, _SUMS, _TERMS, _MOST_TERMS = 256, 1 << 12, 1 << 16, 512, 1 << 14
#: Elements of an operand in a panel; a quarter of them where there are more terms than usual.
_ELEMENTS = 1 << 20
#: Products of slices that cost as much as adding every product to its bins.
_MOST_SLICES = 25
#: Significant bits of two factors whose product fits one bin wherever it begins; bits of a factor taken at a time else.
_NARROW, _PIECE = 24, 24
#: Farther from zero than any exponent.
FAR = 1 << 20

Floats = NDArray[np.float64]


class Span(NamedTuple):
    """Bits that numbers use: exponents of the lowest, above the highest, and of the smallest number's highest."""

    low: int
    high: int
    least: int
    width: int  # significant bits that a number has at most

    @property
    def bits(self) -> int:
        """How many bits there are; 0 where all numbers are zero."""
        return max(self.high - self.low, 0)

    @property
    def floor(self) -> int:
        """The lowest exponent of the last bit of a number of `width` bits."""
        return self.least - self.width + 1


class Survey(NamedTuple):
    """The bits that a matrix uses, block by block and altogether, and whether all its numbers are finite."""

    blocks: NDArray[np.int64]
    span: Span
    finite: bool

    def block(self, i: int, j: int) -> Span:
        """Return the bits that one block uses."""
        return Span(*self.blocks[i, j, :4].tolist())


class Product(NamedTuple):
    """One matrix product to sum exactly, from `c` (of no size: none), as kernels read it."""

    a: Floats
    b: Floats
    c: Floats
    left: Survey
    right: Survey
    start: Survey
    panel: tuple[int, int, int]  # rows, terms, columns
    base: int  # exponent of the weight of the lowest bin's last bit
    bins: int

    @property
    def bounds(self) -> tuple[int, int]:
        """Exponents of the lowest bit of any sum of some of the terms, and of one above the highest."""
        left, right, start = self.left.span, self.right.span, self.start.span
        low, high = FAR, -FAR
        if left.bits and right.bits:
            low, high = left.low + right.low, left.high + right.high + (self.a.shape[1] - 1).bit_length()
        if start.bits:
            low, high = min(low, start.low), max(high, start.high) + 1
        return low, high


def surveyed(a: Floats, b: Floats, c: Floats | None) -> Product:
    """Return the product with what its data need."""
    a, b = np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64)
    start = np.zeros((0, 0)) if c is None else np.ascontiguousarray(c, np.float64)
    rows = min(max(len(a), 1), _ROWS)
    columns = min(max(b.shape[1], 1), _SUMS // rows, _COLUMNS)
    side = max(rows, columns)
    most = max(min(_TERMS, _ELEMENTS // side), min(_MOST_TERMS, _ELEMENTS // 4 // side))
    terms = min(max(a.shape[1], 1), most)
    left, right = _survey(a, rows, terms), _survey(b, terms, columns)
    first = _survey(start, rows, columns)
    base, high = _bounds(left.span, right.span, first.span, a.shape[1])
    return Product(a, b, start, left, right, first, (rows, terms, columns), base, max(high - base, 0) // 32 + 3)


def _bounds(left: Span, right: Span, start: Span, terms: int) -> tuple[int, int]:
    """Return the exponents of a bit below all bits of all terms, and of one above their sums."""
    low, high = FAR, -FAR
    if left.bits and right.bits:
        low, high = left.floor + right.floor, left.high + right.high + terms.bit_length()
    if start.bits:
        low, high = min(low, start.low), max(high, start.high)
    return (low, high + 1) if low < high else (0, 1)


def _survey(x: Floats, rows: int, columns: int) -> Survey:
    from lowp.emulation._exact_bins_kernels import survey

    blocks = np.empty((-(-len(x) // rows), -(-x.shape[1] // columns), 5), np.int64)
    per_row = rows * x.shape[1]
    share(len(blocks), per_row, lambda i, j: survey(bits_of(x), rows, columns, blocks, i, j))
    if not blocks.size:
        return Survey(blocks, Span(FAR, -FAR, FAR, 0), True)
    low, high, least, width, special = (blocks[..., k] for k in range(5))
    span = Span(int(low.min()), int(high.max()), int(least.min()), int(width.max()))
    return Survey(blocks, span, not special.any())


def panels(product: Product) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield first row, first column and bins of panels of sums; the bins are used again for the next."""
    rows, terms, columns = product.panel
    a, b = product.a, product.b
    for row in range(0, len(a), rows):
        for column in range(0, b.shape[1], columns):
            shape = min(rows, len(a) - row), product.bins, min(columns, b.shape[1] - column)
            bins = np.empty(shape, np.int64)
            fresh = True
            for term in range(0, a.shape[1], terms):
                left = product.left.block(row // rows, term // terms)
                right = product.right.block(term // terms, column // columns)
                if left.bits and right.bits:
                    _add_panel(product, (row, term, column), left, right, bins, fresh)
                    fresh = False
            if fresh:
                bins[:] = 0
            yield row, column, bins


def _add_panel(
    product: Product, at: tuple[int, int, int], left: Span, right: Span, bins: NDArray[np.int64], fresh: bool
) -> None:
    """Add the products of one panel to the bins of its sums."""
    terms = min(product.panel[1], product.a.shape[1] - at[1])
    widths = _slices(left.bits, right.bits, terms)
    if widths is None:
        _add_pieces(product, at, terms, bins, fresh)
    else:
        _add_slices(product, at, terms, (left, right), widths, bins, fresh)


@lru_cache(maxsize=1024)
def _slices(a_bits: int, b_bits: int, terms: int) -> tuple[int, int] | None:
    """Return the bits of slices that make the fewest exact products, None if they are too many."""
    together = 53 - (terms - 1).bit_length()
    best, found = _MOST_SLICES + 1, None
    for count in range(1, min(a_bits, _MOST_SLICES) + 1):
        a_width = -(-a_bits // count)
        if a_width >= together:
            continue
        others = -(-b_bits // (together - a_width))
        if count * others < best:
            best, found = count * others, (a_width, -(-b_bits // others))
    return found


def _add_slices(
    product: Product,
    at: tuple[int, int, int],
    terms: int,
    spans: tuple[Span, Span],
    widths: tuple[int, int],
    bins: NDArray[np.int64],
    fresh: bool,
) -> None:
    from lowp.emulation import _exact_bins_kernels as kernels

    row, term, column = at
    (rows, _, columns), (left, right) = bins.shape, spans
    x = np.empty((rows, -(-left.bits // widths[0]), terms))
    y = np.empty((terms, -(-right.bits // widths[1]), columns))
    a, b = bits_of(product.a), bits_of(product.b)
    share(rows, x[0].size, lambda i, j: kernels.cut(a, row, term, left.low, widths[0], x, i, j))
    share(terms, y[0].size, lambda i, j: kernels.cut(b, term, column, right.low, widths[1], y, i, j))
    exact = (x.reshape(-1, terms) @ y.reshape(terms, -1)).reshape(rows, x.shape[1], y.shape[1], columns)
    lowest = left.low + right.low - product.base
    share(rows, exact[0].size, lambda i, j: kernels.add_slices(exact, *widths, lowest, bins, fresh, i, j))


def _add_pieces(product: Product, at: tuple[int, int, int], terms: int, bins: NDArray[np.int64], fresh: bool) -> None:
    """Add products one by one; significands of many bits are taken in pieces."""
    from lowp.emulation import _exact_bins_kernels as kernels

    row, term, column = at
    rows, _, columns = bins.shape
    left, right = product.left.span, product.right.span
    narrow = left.width + right.width <= _NARROW
    every = 1 << (62 - 31 - _NARROW) if narrow else 1 << 13
    a_low = left.floor - (left.floor + right.floor - product.base)  # the rest of the base
    for drop in range(0, left.width, _PIECE):
        x = _piece(product.a, row, term, left.width, drop, a_low, (rows, terms))
        for other in range(0, right.width, _PIECE):
            y = _piece(product.b, term, column, right.width, other, right.floor, (terms, columns))
            first = fresh and drop == other == 0

            def add(i: int, j: int, x: Any = x, y: Any = y, first: bool = first) -> None:
                kernels.add_each(*x, *y, narrow, every, bins, first, i, j)

            share(rows, terms * columns, add)


def _piece(
    matrix: Floats, row: int, column: int, width: int, drop: int, low: int, shape: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    from lowp.emulation import _exact_bins_kernels as kernels

    numbers, exponents = np.empty(shape, np.int32), np.empty(shape, np.int32)
    bits = bits_of(matrix)
    share(
        shape[0],
        shape[1],
        lambda i, j: kernels.pieces(bits, row, column, width, drop, _PIECE, low, numbers, exponents, i, j),
    )
    return numbers, exponents


def bits_of(x: Floats) -> NDArray[np.int64]:
    """Return the bits of float64 numbers."""
    return x.view(np.int64)


def share(count: int, cost: int, work: Callable[[int, int], None]) -> None:
    """Call `work` on parts of so many rows, on all cores where their cost, in elements, is worth it."""
    cost = max(cost, 1)
    split(count * cost, lambda start, stop: work(start // cost, stop // cost), cost)
