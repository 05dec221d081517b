"""Operations of a product by table lookup: what they are, and how many the model predicts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from lowp.hw_models.lut_engine import LutEngine
from lowp.hw_models.lut_formats import Digits, Inputs


@dataclass(frozen=True)
class LutCounts:
    """Operations of one product.

    Attributes:
        tables: Tables built: one per token and group of weights; of "vector" engines rows count per token too; of
            "product" engines one in all.
        build_adds: Additions that make an entry: one per entry.
        start_adds: Additions of the partial sums that entries start from.
        build_products: Entries of a table of products.
        quantized_entries: Entries rounded to int8.
        lookups: Look-ups.
        adds: Additions of what was looked up.
        plane_adds: Additions of shifted bit planes.
        sum_adds: Additions of activation sums, which offsets and zero points are multiplied with.
        offset_products: Multiplications of these sums.
        table_scale_products: Multiplications by the scales of quantized tables.
        scale_products: Multiplications by group scales.
        output_products: Multiplications of results by the scales of tokens and tensors.
        unpacked: Weight codes that are unpacked to be multiplied.
        multiply_adds: Multiplications of unpacked codes, each with its addition.
    """

    tables: int = 0
    build_adds: int = 0
    start_adds: int = 0
    build_products: int = 0
    quantized_entries: int = 0
    lookups: int = 0
    adds: int = 0
    plane_adds: int = 0
    sum_adds: int = 0
    offset_products: int = 0
    table_scale_products: int = 0
    scale_products: int = 0
    output_products: int = 0
    unpacked: int = 0
    multiply_adds: int = 0

    @property
    def build(self) -> int:
        """All additions that building takes."""
        return self.build_adds + self.start_adds

    def __add__(self, other: LutCounts) -> LutCounts:
        return LutCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __str__(self) -> str:
        return ", ".join(f"{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name))


class Layout(NamedTuple):
    """How the terms of a sum are cut: tables never cross the end of a block, nor blocks that of a group.

    A group's weights share a scale; a block's activations, or its tables, do too.
    """

    table_start: tuple[int, ...]
    table_length: tuple[int, ...]
    block_tables: tuple[int, ...]
    block_group: tuple[int, ...]
    block_input: tuple[int, ...]
    groups: int


@lru_cache(maxsize=1024)
def layout(k: int, group: int, weight_group: int, input_group: int, table_block: int) -> Layout:
    """Return the tables and blocks of `k` terms; group sizes of 0 stand for all terms.

    `block_tables` has the first table of each block, and their number at its end.
    """
    weights, activations = weight_group or k, input_group or k
    cuts = {*range(0, k, weights), *range(0, k, activations), k}
    if table_block:
        cuts |= {at for start in range(0, k, weights) for at in range(start, min(start + weights, k), table_block)}
    ends = sorted(cuts)
    starts: list[int] = []
    lengths: list[int] = []
    first = [0]
    for start, end in pairwise(ends):
        for at in range(start, end, group):
            starts.append(at)
            lengths.append(min(group, end - at))
        first.append(len(starts))
    blocks = ends[:-1]
    return Layout(
        tuple(starts),
        tuple(lengths),
        tuple(first),
        tuple(at // weights for at in blocks),
        tuple(at // activations for at in blocks),
        -(-k // weights),
    )


@lru_cache(maxsize=4096)
def predicted(m: int, n: int, k: int, parts: Digits, read: Inputs, engine: LutEngine) -> LutCounts:
    """Return the operations of `m` tokens times `n` outputs of `k` terms each."""
    found = parts.elements
    tables, blocks, groups = _pieces(k, found.group, read.group if read.scaled else 0, engine)
    if engine.style == "dequantize":
        work = LutCounts(unpacked=n * k, multiply_adds=m * n * k)
    elif engine.style == "product":
        work = LutCounts(tables=1, build_products=parts.base * read.values, lookups=m * n * k, adds=m * n * k)
    else:
        work = _looked_up(m, n, tables, parts, engine)
    pieces = blocks if engine.table == "exact" else groups
    scaled = found.scaled or read.scaled or engine.plane_scales
    return work + LutCounts(
        plane_adds=0 if engine.plane_scales or engine.style != "bit_serial" else m * n * blocks * parts.planes,
        sum_adds=m * _sum_terms(k, tables, engine) if parts.shifted else 0,
        offset_products=m * n * pieces if parts.shifted else 0,
        table_scale_products=m * n * blocks if engine.table == "int8" else 0,
        scale_products=m * n * pieces * (parts.planes if engine.plane_scales else 1) if scaled else 0,
        output_products=m * n if read.token_scaled or found.tensor_scale else 0,
    )


def _looked_up(m: int, n: int, tables: int, parts: Digits, engine: LutEngine) -> LutCounts:
    entries = engine.entries(parts.base)
    looked = n * tables * parts.planes
    return LutCounts(
        tables=m * tables,
        build_adds=m * tables * entries,
        start_adds=m * tables * start_sums(parts.base, engine.group, engine.mirror),
        quantized_entries=m * tables * entries if engine.table == "int8" else 0,
        lookups=looked if engine.style == "vector" else m * looked,
        adds=m * looked,
    )


def start_sums(base: int, group: int, mirror: bool) -> int:
    """Return the additions of sums of 2 to `group - 1` terms that the entries of one table start from.

    Example:
        >>> start_sums(2, 4, True), start_sums(3, 3, True)
        (6, 5)
    """
    return sum((base**terms + 1) // 2 if mirror else base**terms for terms in range(2, group))


def _sum_terms(k: int, tables: int, engine: LutEngine) -> int:
    """Sums of activations are those of entries where tables are of plus and minus; else of the activations."""
    return tables if engine.style == "bit_serial" else k


def _pieces(k: int, weight_group: int, input_group: int, engine: LutEngine) -> tuple[int, int, int]:
    """Return the tables, blocks and groups of one sum of `k` terms.

    Closed form where sizes nest, as they mostly do; else by the layout.
    """
    sizes = sorted({size for size in (weight_group, input_group, engine.table_block) if size and size < k})
    nested = all(b % a == 0 for a, b in pairwise(sizes))
    groups = -(-k // weight_group) if weight_group else 1
    if not nested:
        cut = layout(k, engine.group, weight_group, input_group, engine.table_block)
        return len(cut.table_start), len(cut.block_group), groups
    size = sizes[0] if sizes else k
    whole, rest = divmod(k, size)
    return whole * -(-size // engine.group) + -(-rest // engine.group), -(-k // size), groups
