"""Products by table lookup, carried out bit for bit and counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.spec import Format
from lowp.hw_models.lut_counts import Layout, LutCounts, layout
from lowp.hw_models.lut_engine import LutEngine, lut_engine
from lowp.hw_models.lut_formats import Digits, Inputs, half_offset, resolved
from lowp.hw_models.lut_operands import Activations, Weights, activations_of, encoded, weights_of

#: Entries of tables that are held at a time; tokens are taken in turn.
_ENTRIES_AT_ONCE = 1 << 22
#: Significant bits and least exponent that tables are rounded to.
_ROUNDED = {"float16": (11, -14), "float32": (24, -126), "int8": (24, -126), "exact": (0, 0)}


@dataclass(frozen=True)
class LutRun:
    """A product that was looked up.

    Attributes:
        result: (tokens, outputs): int64 where weights and activations are integers without scales, float64 where they
            are other exact numbers without scales, else float32.
        counts: Operations, counted where they happened.
        engine: How it was looked up.
    """

    result: NDArray[Any]
    counts: LutCounts
    engine: LutEngine


def run_lut_gemm(
    weights: Any,
    activations: Any,
    engine: str | LutEngine = "t_mac",
    *,
    weight_format: str | Format | None = None,
    activation_format: str | Format | None = None,
) -> LutRun:
    """Return `activations @ weights.T` as a lookup-table engine computes it, with the operations it took.

    Engines with exact tables add integers; where there are scales, the integer of every block times the exact product
    of its scales is added to the result so far, rounded once to float32. That is `lowp.matmul` with
    `Accumulator(format="float32", group=block)`; without scales the result is exact. A scale of a row or tensor of
    activations, or a tensor scale, multiplies the results in the end, rounded to float32 once more.

    Engines with rounded tables add float32 numbers: entries are sums of activations times digits from first to last,
    every product and sum rounded to the table's format; what is looked up is added in order, as is what
    `Accumulator(format="float32", group=g, group_sum="sequential")` adds of one bit plane. Planes are then added from
    the lowest, and group scales and offsets come by fused multiply-adds. "int8" tables are float32 ones times the
    reciprocal of a scale, the largest magnitude of a block of tables divided by 127, rounded to nearest even; their
    sums are integers, and times that scale fused into a sum per group. `lut_engine(name, table="exact")` is the same
    engine without that error.

    Args:
        weights: (outputs, terms): `lowp.Encoded` codes with blocks along the last axis, or an array with its format.
        activations: (tokens, terms), alike.
        engine: A `LutEngine` or a name of `lut_engines()`.
        weight_format: Format that an array of weights is encoded in; default that of its dtype.
        activation_format: The same for activations.

    Raises:
        ArgumentError: Shapes that do not fit, numbers that are not finite, or blocks along another axis.
        ArgumentTypeError: An array whose dtype names no format.
        FormatError: The engine cannot multiply these formats.

    Example:
        >>> import numpy as np
        >>> w = np.array([[1, -1, 0, 1, 1], [0, 0, -1, 1, -1]])
        >>> a = np.array([[3, 1, 4, 1, 5]], np.int8)
        >>> run = run_lut_gemm(w, a, "tl2", weight_format="ternary")
        >>> run.result.tolist(), run.counts.lookups
        ([[8, -8]], 4)
    """
    how = lut_engine(engine)
    left, right = encoded(weights, weight_format, "weights"), encoded(activations, activation_format, "activations")
    if left.shape[1] != right.shape[1]:
        raise ArgumentError(f"weights of shape {left.shape} and activations of {right.shape} have different terms.")
    parts, read = resolved(left.format, right.format, how)
    w, a = weights_of(left, parts, how), activations_of(right, read, how)
    k = left.shape[1]
    cut = layout(k, how.group, parts.elements.group, read.group if read.scaled else 0, how.table_block)
    tally = _Tally()
    offline = _offline(w, a, parts, how, cut, tally)
    held = max(
        len(cut.table_start) * how.entries(parts.base, 1), w.ranks.shape[0] * len(cut.block_group) * parts.planes
    )
    pieces = [
        _product(w, _tokens(a, rows), offline, parts, read, how, cut, tally) for rows in _batches(right.shape[0], held)
    ]
    total = np.concatenate(pieces)
    return LutRun(_finished(total, w, a, parts, read, how, tally), tally.counts(), how)


class _Tally:
    """Counters that kernels add to."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, ...], NDArray[np.int64]] = {}

    def of(self, *names: str) -> NDArray[np.int64]:
        return self._arrays.setdefault(names, np.zeros(len(names), np.int64))

    def counts(self) -> LutCounts:
        found: dict[str, int] = {}
        for names, array in self._arrays.items():
            for name, value in zip(names, array, strict=True):
                found[name] = found.get(name, 0) + int(value)
        return LutCounts(**found)


def _batches(tokens: int, entries: int) -> list[slice]:
    step = max(1, _ENTRIES_AT_ONCE // max(1, entries))
    return [slice(at, min(at + step, tokens)) for at in range(0, tokens, step)]


def _tokens(a: Activations, rows: slice) -> Activations:
    ranks = None if a.ranks is None else a.ranks[rows]
    return Activations(a.values[rows], a.scales[rows], None, ranks)


def _offline(w: Weights, a: Activations, parts: Digits, engine: LutEngine, cut: Layout, tally: _Tally) -> NDArray[Any]:
    """Return what does not depend on the tokens: indices, the table of products, or unpacked weights."""
    from lowp.hw_models.lut_table_kernels import build_products, unpack

    values = np.array(parts.values)
    if engine.style == "dequantize":
        unpacked = np.empty(w.ranks.shape)
        unpack(values, w.ranks, unpacked, tally.of("unpacked"))
        return unpacked
    if engine.style == "product":
        assert a.numbers is not None
        products = np.empty((values.size, a.numbers.size))
        build_products(values, a.numbers, products, tally.of("tables", "build_products"))
        return products
    return indices(w.ranks, parts, cut, engine.group)


class Nodes(NamedTuple):
    """The sums that a table is built of: for each number of digits, what is added to which sum before."""

    parents: NDArray[np.int64]
    digits: NDArray[np.int64]
    levels: NDArray[np.int64]


@lru_cache(maxsize=64)
def nodes(base: int, group: int, mirror: bool) -> Nodes:
    """Return the nodes of a table; the first digit of a combination is its most significant."""
    parents, digits, levels = [], [], [0]
    for length in range(1, group + 1):
        first, before = (half_offset(base, n) if mirror and n else 0 for n in (length, length - 1))
        kept = range(first, base**length)
        start = levels[-2] if length > 1 else 0
        parents += [start + at // base - before if length > 1 else 0 for at in kept]
        digits += [at % base for at in kept]
        levels.append(len(parents))
    return Nodes(*(np.array(x, np.int64) for x in (parents, digits, levels)))


def indices(ranks: NDArray[np.int64], parts: Digits, cut: Layout, group: int) -> NDArray[np.int64]:
    """Return the index of every look-up, (outputs, planes, tables); missing digits of a short group are the middle."""
    starts, lengths = np.array(cut.table_start), np.array(cut.table_length)
    places = starts[:, None] + np.arange(group)
    missing = np.arange(group) >= lengths[:, None]
    taken = ranks[:, np.where(missing, 0, places)]
    found = np.zeros((ranks.shape[0], parts.planes, len(starts)), np.int64)
    weights = parts.base ** np.arange(group - 1, -1, -1, dtype=np.int64)
    for plane in range(parts.planes):
        digit = taken if parts.base == len(parts.elements.values) and parts.planes == 1 else taken >> plane & 1
        found[:, plane] = np.where(missing, parts.base // 2, digit) @ weights
    return found


def _product(
    w: Weights,
    a: Activations,
    offline: NDArray[Any],
    parts: Digits,
    read: Inputs,
    engine: LutEngine,
    cut: Layout,
    tally: _Tally,
) -> NDArray[np.float64]:
    """Return the results of some tokens before the scales of tokens and tensors."""
    blocks = np.array(cut.block_tables)
    ends = np.array([cut.table_start[at - 1] + cut.table_length[at - 1] for at in cut.block_tables[1:]])
    found = np.zeros((a.values.shape[0], w.ranks.shape[0], len(blocks) - 1, parts.planes))
    sums = np.zeros((a.values.shape[0], len(blocks) - 1))
    scales = None
    if engine.style in ("product", "dequantize"):
        _one_by_one(w, a, offline, engine, ends, found, tally)
    else:
        scales = _with_tables(a, offline, parts, engine, cut, blocks, found, sums, tally)
    if parts.shifted and engine.style != "bit_serial":
        from lowp.hw_models.lut_sum_kernels import sum_inputs

        sum_inputs(a.values, ends, sums, tally.of("sum_adds"))
    return _combined(found, sums, scales, w, a, parts, read, engine, cut, tally)


def _one_by_one(
    w: Weights,
    a: Activations,
    offline: NDArray[Any],
    engine: LutEngine,
    ends: NDArray[Any],
    found: NDArray[np.float64],
    tally: _Tally,
) -> None:
    from lowp.hw_models.lut_table_kernels import look_up_products, multiply_unpacked

    if engine.style == "dequantize":
        multiply_unpacked(offline, a.values, ends, found, tally.of("multiply_adds"))
    else:
        look_up_products(offline, w.ranks, a.ranks, ends, found, tally.of("lookups", "adds"))


def _with_tables(
    a: Activations,
    found_at: NDArray[Any],
    parts: Digits,
    engine: LutEngine,
    cut: Layout,
    blocks: NDArray[Any],
    found: NDArray[np.float64],
    sums: NDArray[np.float64],
    tally: _Tally,
) -> NDArray[np.float64] | None:
    """Build tables and look all weights up; return the scales of quantized tables."""
    from lowp.hw_models.lut_sum_kernels import sum_entries
    from lowp.hw_models.lut_table_kernels import build, look_up, look_up_rows, quantize_tables

    tree = nodes(parts.base, engine.group, engine.mirror)
    significant, least = _ROUNDED[engine.table]
    starts, lengths = np.array(cut.table_start), np.array(cut.table_length)
    tables = np.zeros((a.values.shape[0], len(starts), engine.entries(parts.base)))
    counts = tally.of("tables", "build_adds", "start_adds")
    build(a.values, starts, lengths, np.array(parts.values), *tree, significant, least, tables, counts)
    if parts.shifted and engine.style == "bit_serial":
        sum_entries(tables, blocks, tables.shape[2] - 1, significant, sums, tally.of("sum_adds"))
    scales = None
    if engine.table == "int8":
        scales = np.zeros((tables.shape[0], len(blocks) - 1))
        quantize_tables(tables, blocks, scales, tally.of("quantized_entries"))
    if engine.style == "vector":
        counts = tally.of("lookups", "adds")
        look_up_rows(np.ascontiguousarray(tables.transpose(1, 2, 0)), found_at, blocks, found, counts)
        return None
    rounded = 24 if engine.table.startswith("float") else 0
    size = parts.base**engine.group
    look_up(tables, found_at, blocks, size, engine.mirror, rounded, found, tally.of("lookups", "adds"))
    return scales


def _combined(
    found: NDArray[np.float64],
    sums: NDArray[np.float64],
    table_scales: NDArray[np.float64] | None,
    w: Weights,
    a: Activations,
    parts: Digits,
    read: Inputs,
    engine: LutEngine,
    cut: Layout,
    tally: _Tally,
) -> NDArray[np.float64]:
    from lowp.hw_models.lut_sum_kernels import combine_exact, combine_quantized, combine_rounded

    out = np.zeros(found.shape[:2])
    group, block = np.array(cut.block_group), np.array(cut.block_input)
    planes, scaled = engine.style == "bit_serial", parts.elements.scaled or read.scaled
    common = (w.offsets, parts.shifted, planes, scaled)
    if engine.table == "exact":
        counts = tally.of("plane_adds", "offset_products", "scale_products")
        combine_exact(found, sums, *common, w.scales, a.scales, group, block, out, counts)
    elif table_scales is not None:
        counts = tally.of("plane_adds", "offset_products", "table_scale_products", "scale_products")
        combine_quantized(found, table_scales, sums, *common, w.scales, group, parts.unit, out, counts)
    else:
        counts = tally.of("plane_adds", "offset_products", "scale_products")
        per_plane = w.scales if engine.plane_scales else w.scales[:, :, None]
        combine_rounded(found, sums, *common, np.ascontiguousarray(per_plane), engine.plane_scales, out, counts)
    return out


def _finished(
    total: NDArray[np.float64],
    w: Weights,
    a: Activations,
    parts: Digits,
    read: Inputs,
    engine: LutEngine,
    tally: _Tally,
) -> NDArray[Any]:
    """Apply the scales of tokens and tensors, and return the results in their dtype."""
    exact = engine.table == "exact" and not (parts.elements.scaled or read.scaled)
    if exact:
        total = total * (parts.unit * (read.unit or 1.0))
    factors = a.factors
    if w.tensor_scale is not None:
        alpha = np.float32(w.tensor_scale)
        ones = np.ones(total.shape[0]) if factors is None else factors
        factors = (ones.astype(np.float32) * alpha).astype(np.float64)
    if factors is not None:
        from lowp.hw_models.lut_sum_kernels import scale_outputs

        scale_outputs(total, factors, tally.of("output_products"))
        return total.astype(np.float32)
    if not exact:
        return total.astype(np.float32)
    step = parts.unit * (read.unit or 1.0) * (2 if engine.style == "bit_serial" else 1)
    return total.astype(np.int64) if step >= 1 else total  # a power of two times a small integer
