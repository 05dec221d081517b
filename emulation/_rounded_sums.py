"""Sums of products of whole arrays whose every addition is rounded: plans and tiles for the kernels, on all cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._rounded_merges import chain_merges, tree_merges
from lowp.emulation._rounded_plan import FLOAT64_BITS, Extent, SumPlan, Target, extent_of, is_served, sum_bits, sum_plan
from lowp.emulation._rounded_wraps import keeps_last_bits, wrapped_sums, wraps_exactly
from lowp.emulation._side import Side, read_as
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.rounding import random_bits
from lowp.rounding._threads import split

if TYPE_CHECKING:
    from lowp.emulation.accumulator import Accumulator

Array = NDArray[np.float64]
#: Columns that are summed together: a row of sums and its buffers stay in the first cache.
_WIDTH = 256
#: Fewer columns than this are rows instead, if there are more of those.
_NARROW = 16
#: The bits of no number.
_NOTHING = Extent(1, 1 << 20, -(1 << 20))
_CORRECTIONS = {None: 0, "kahan": 1, "neumaier": 2, "two_sum": 3}
#: Numbers that a corrected sum stores for each term; the last addition is one more.
_CORRECTED = {"kahan": 4, "neumaier": 4, "two_sum": 10}
#: Rows of scratch: for a correction, and below a stack.
_ROWS = 6


class Program(NamedTuple):
    """The order of the steps, as the kernels take it."""

    rows: int  # of each item of the batch
    group: int
    combine: int  # 0: products are added exactly to the running sum; 1: in a tree of rounded additions, to each other
    rounds_products: int
    pairwise: int
    compensation: int
    draws: int  # numbers that all steps store
    depth: int
    positive: int  # subnormal numbers are read as +0
    flushes_sums: int
    flushes_products: int
    smallest_normal: float
    smallest_normal_product: float


class Plans(NamedTuple):
    """How terms are added to sums, rounded alone, rounded to the format of products, and sums added to each other."""

    term: SumPlan
    alone: SumPlan
    product: SumPlan
    both: SumPlan


class Operands(NamedTuple):
    """Arrays (batch, rows, terms), (batch, terms, columns) and (batch, rows, columns), and what is known of them."""

    a: Array
    b: Array
    c: Array
    a_format: ScalarFormat | None
    b_format: ScalarFormat | None


def run(
    a: Array,
    b: Array,
    c: Array,
    accumulator: Accumulator,
    a_format: ScalarFormat | None = None,
    b_format: ScalarFormat | None = None,
    first_step: int = 0,
    *,
    position: int = 0,
    count: int | None = None,
) -> Array:
    """Return the running sums after all terms; those of `c` come first.

    Args:
        a: (rows, terms), or (batch, rows, terms).
        b: (terms, columns), or (batch, terms, columns).
        c: (rows, columns), or (batch, rows, columns).
        accumulator: For which `serves` holds; its partial sums, lanes and permutations are the caller's.
        a_format: Format whose numbers `a` holds; None: not known, they are looked through.
        b_format: The same of `b`.
        first_step: How many numbers were stored for each output before, for stochastic rounding.
        position: Position of the first output among all, likewise.
        count: How many outputs there are in all; None: these.
    """
    if c.size == 0 or a.shape[-1] == 0:
        return c.copy()
    given = _operands(a, b, c, accumulator, a_format, b_format)
    if (wrapped := wrapped_sums(given, accumulator)) is not None:
        return wrapped.reshape(c.shape)
    plans = _plans(given, accumulator)
    assert plans is not None, "the accumulator is not served"
    outputs = count or given.c.size
    across, along = 1, given.c.shape[2]  # what a column, a row moves a position by
    turned = along < _NARROW and given.c.shape[1] > along
    if turned:
        given, across, along = _transposed(given), along, across
    moves = position + first_step * outputs, outputs, along, across, given.c[:1].size
    where = np.array([*moves, *random_bits.keys(accumulator.seed)], np.int64)
    program = _program(given, accumulator)
    found = _quick_sums(given, program, accumulator)
    if found is None:
        found = _sums(given, program, plans, where, _merges(program, accumulator, given.a.shape[2]))
    return np.ascontiguousarray(found.transpose(0, 2, 1) if turned else found).reshape(c.shape)


def sums(a: Side, b: Side, c: Array, accumulator: Accumulator, first_step: int = 0) -> Array:
    """Return the running sums after all terms of two operands without scales; see `run`."""
    return run(a.values, b.values, c, accumulator, a.format, b.format, first_step)


def stored_count(accumulator: Accumulator, terms: int) -> int:
    """Return how many numbers a run of so many terms stores for each output: what `first_step` grows by for the next.

    Example:
        >>> from lowp.emulation.accumulator import Accumulator
        >>> stored_count(Accumulator(format="float16"), 8), stored_count(Accumulator(group=4, group_sum="pairwise"), 8)
        (8, 16)
    """
    own, steps = _draws(accumulator, terms)
    rounded = int(accumulator.product != "exact")
    if accumulator.table is not None:  # its additions take products of its format
        rounded = 1 + int(accumulator.product not in ("exact", accumulator.format))
    if accumulator.compensation is not None:
        return terms * (rounded + _CORRECTED[accumulator.compensation]) + int(terms > 0)
    if accumulator.table is not None:
        return terms * (rounded + 1)
    if accumulator.group_sum == "fused" and accumulator.order != "pairwise":
        return own
    return own + steps


def serves(
    accumulator: Accumulator,
    a: Array,
    b: Array,
    c: Array,
    a_format: ScalarFormat | None = None,
    b_format: ScalarFormat | None = None,
) -> bool:
    """Whether `run` can sum these numbers this way."""
    if accumulator.alignment is not None or accumulator.table is not None:
        return False
    if accumulator.compensation is not None and accumulator.subnormal_inputs != "keep":
        return False
    targets = [_target(accumulator), *([_product_target(accumulator)] if _rounds_products(accumulator) else [])]
    if not all(is_served(target) for target in targets):
        return False
    given = _operands(a, b, c, accumulator, a_format, b_format)
    if wraps_exactly(given, accumulator):
        return True
    product = _product_target(accumulator).extent if _rounds_products(accumulator) else None
    return _plans(given, accumulator) is not None and keeps_last_bits(given, accumulator, product)


def _operands(a: Array, b: Array, c: Array, accumulator: Accumulator, a_format: Any, b_format: Any) -> Operands:
    a, b, c = (x if x.ndim == 3 else x[None] for x in (a, b, c))
    how = accumulator.subnormal_inputs
    if how != "keep":
        a, b = read_as(a, a_format, how), read_as(b, b_format, how)
        if accumulator.compensation is None and a.shape[2] > 0:
            c = read_as(c, accumulator.format, how)  # type: ignore[arg-type]
    return Operands(a, b, c, a_format, b_format)


def _target(accumulator: Accumulator) -> Target:
    return Target(
        accumulator.format,  # type: ignore[arg-type]
        accumulator.rounding,
        accumulator.overflow,
        accumulator.subnormal_results == "zero",
        accumulator.signed_zero,
    )


def _product_target(accumulator: Accumulator) -> Target:
    fmt = accumulator.format if accumulator.product == "exact" else accumulator.product
    return _target(accumulator)._replace(fmt=fmt, signed_zero=True)  # type: ignore[arg-type]


def _rounds_products(accumulator: Accumulator) -> bool:
    """Whether products are rounded before they are added; a corrected sum takes them as they are."""
    return accumulator.product != "exact" or (accumulator.group_sum != "fused" and accumulator.compensation is None)


def _plans(given: Operands, accumulator: Accumulator) -> Plans | None:
    """Return the plans; None where a step adds several terms that float64 cannot add exactly."""
    target, product = _target(accumulator), _product_target(accumulator)
    term = extent_of(given.a, given.a_format).times(extent_of(given.b, given.b_format))
    fused = accumulator.group_sum == "fused"
    terms = min(accumulator.group, max(given.a.shape[2], 1)) if fused else 1
    rounded = _rounds_products(accumulator)
    either = target.extent.joined(product.extent if rounded else target.extent)
    added = product.extent if rounded else term
    running = _running_extent(given, accumulator, target, added)
    start = running.joined(either)
    exact = added.moderate and running.moderate and sum_bits(added, running, terms) <= FLOAT64_BITS
    if terms > 1 and not exact:
        return None
    return Plans(
        term=sum_plan(target, term, running, terms),
        alone=sum_plan(target, term, None),
        product=sum_plan(product, term, None) if rounded else sum_plan(target, term, None),
        both=sum_plan(target, either, start, terms),
    )


def _running_extent(given: Operands, accumulator: Accumulator, target: Target, added: Extent) -> Extent:
    """Return the bits of running sums: what the format has, as far as the terms and what the sums start from reach."""
    start = extent_of(given.c, None) if given.c.any() else _NOTHING
    if accumulator.compensation is not None:
        return target.extent.joined(start)
    return added.summed(start, given.a.shape[2], target.extent).joined(start)


def _program(given: Operands, accumulator: Accumulator) -> Program:
    terms = given.a.shape[2]
    group = min(accumulator.group, max(terms, 1))
    combine = int(accumulator.group_sum != "fused")
    pairwise = accumulator.order == "pairwise"
    rounds = _rounds_products(accumulator)
    draws, steps = _draws(accumulator, terms)
    product = _product_target(accumulator)
    keeps = accumulator.subnormal_results == "keep"
    reads = accumulator.subnormal_inputs != "keep"
    differs = bool(combine) and product.fmt != accumulator.format
    return Program(
        rows=given.a.shape[1],
        group=group,
        combine=combine,
        rounds_products=int(rounds),
        pairwise=int(pairwise),
        compensation=_CORRECTIONS[accumulator.compensation],
        draws=draws,
        depth=_ROWS + group.bit_length() + 1 + steps.bit_length() + 1,
        positive=int(accumulator.subnormal_inputs == "positive_zero"),
        flushes_sums=int(reads and (keeps or differs)),
        flushes_products=int(reads and keeps),
        smallest_normal=_smallest_normal(accumulator.format),  # type: ignore[arg-type]
        smallest_normal_product=_smallest_normal(product.fmt),
    )


def _draws(accumulator: Accumulator, terms: int) -> tuple[int, int]:
    """Return how many numbers are stored for the steps' own sums, and how many steps there are."""
    steps = -(-terms // accumulator.group)
    sums = steps if accumulator.group_sum == "fused" else terms - steps
    return terms * _rounds_products(accumulator) + sums, steps


def _smallest_normal(fmt: ScalarFormat) -> float:
    return fmt.smallest_normal if isinstance(fmt, Float) and fmt.subnormals else 0.0


def _merges(program: Program, accumulator: Accumulator, terms: int) -> tuple[NDArray[np.int64], ...]:
    """Return how many additions follow each number that comes to the stack, the last two numbers' each.

    First within a full step, then within the last; last among the steps' sums; third is where those begin on the stack.
    """
    tail = terms % program.group or program.group
    inside = tree_merges if accumulator.group_sum == "pairwise" else chain_merges
    steps = tree_merges(-(-terms // program.group)) if program.pairwise else []
    base = [_ROWS + program.group.bit_length() + 1]
    return tuple(np.array(x, np.int64) for x in (inside(program.group), inside(tail), base, steps))


def _transposed(given: Operands) -> Operands:
    """Return the operands of the transposed product."""
    a, b, c = (x.transpose(0, 2, 1) for x in (given.b, given.a, given.c))
    return Operands(a, b, c, given.b_format, given.a_format)


def _sums(given: Operands, program: Program, plans: Plans, where: NDArray[np.int64], merges: Any) -> Array:
    """Return the sums (batch, rows, columns) that the kernels find in tiles of columns."""
    from lowp.emulation import _rounded_kernels as kernels

    batch, rows, columns = given.c.shape
    width = _width(columns)
    tiles = max(-(-columns // width), 1)
    b, state = _tiled(given.b, width), _tiled(given.c, width).transpose(0, 2, 1, 3)
    state = np.array(state, order="C").reshape(batch * rows, -1, width)
    a = np.ascontiguousarray(given.a).reshape(batch * rows, -1)
    unit = max(a.shape[1] * width, 1)  # `split` counts multiply-adds

    kernel = kernels.sum_pairwise if program.pairwise else kernels.sum_in_order
    kernel = kernels.sum_corrected if program.compensation else kernel

    def work(start: int, stop: int) -> None:
        kernel((start // unit, stop // unit), a, b, state, merges, where, program, plans)

    split(batch * rows * tiles * unit, work, unit)
    return state.reshape(batch, rows, tiles * width)[:, :, :columns]


def _quick_sums(given: Operands, program: Program, accumulator: Accumulator) -> Array | None:
    """Return the sums (batch, rows, columns) of products added one by one, where a quick kernel finds them."""
    if (
        program.pairwise
        or program.compensation
        or program.flushes_sums
        or program.flushes_products
        or program.group > 1
    ):
        return None
    from lowp.emulation import _rounded_quick_kernels as kernels
    from lowp.emulation._rounded_quick import Sums, arrays, changes_nothing, quick

    target, product = _target(accumulator), _product_target(accumulator)
    term = extent_of(given.a, given.a_format).times(extent_of(given.b, given.b_format))
    rounds = program.rounds_products and not changes_nothing(product, term)
    running = _running_extent(given, accumulator, target, product.extent if rounds else term)
    found = quick(Sums(target, product if rounds else None, term, running))
    if found is None:
        return None
    batch, rows, columns = given.c.shape
    a, b, state = arrays(found, given.a.reshape(batch * rows, -1), *(_tiled(x, _width(columns)) for x in given[1:3]))
    tiles, width = state.shape[1], state.shape[3]
    state = np.ascontiguousarray(state.transpose(0, 2, 1, 3)).reshape(batch * rows, tiles, width)
    unit = max(a.shape[1] * width, 1)

    def work(start: int, stop: int) -> None:
        kernels.sum_quickly(
            (start // unit, stop // unit), a, b, state, program.rows, found.way, found.product, found.sum
        )

    split(batch * rows * tiles * unit, work, unit)
    return state.reshape(batch, rows, tiles * width)[:, :, :columns].astype(np.float64)


def _width(columns: int) -> int:
    """Return how many columns a tile has."""
    tiles = max(-(-columns // _WIDTH), 1)
    return max(-(-columns // tiles), 1)


def _tiled(x: Array, width: int) -> Array:
    """Return (batch, rows, columns) as (batch, tiles, rows, width), filled up with zeros."""
    batch, rows, columns = x.shape
    tiles = max(-(-columns // width), 1)
    padded = np.zeros((batch, rows, tiles * width))
    padded[:, :, :columns] = x
    return np.ascontiguousarray(padded.reshape(batch, rows, tiles, width).transpose(0, 2, 1, 3))
