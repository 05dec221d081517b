"""Building tables of sums and looking them up, compiled; every operation is counted where it happens.

Numbers are float64 throughout: integers are exact in it, and so are the narrower floats that sums are rounded to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])


def _compile(function: _F) -> _F:
    compiled: _F = njit(nogil=True, cache=True, error_model="numpy")(function)
    return compiled


@_compile
def rounded(x: float, significant: int, least: int) -> float:
    """Round to nearest, ties to even, a float of so many significant bits and least exponent; 0 bits: exact."""
    if significant == 0 or x == 0 or not abs(x) < np.inf:
        return x
    if significant == 24:
        return float(np.float32(x))
    exponent = math.frexp(x)[1] - 1
    step = max(exponent, least) - significant + 1
    value = math.ldexp(float(np.rint(math.ldexp(x, -step))), step)
    largest = math.ldexp(2.0 - math.ldexp(1.0, 1 - significant), 1 - least)
    return value if abs(value) <= largest else math.copysign(np.inf, value)


@_compile
def build(
    inputs: Any,
    starts: Any,
    lengths: Any,
    values: Any,
    parents: Any,
    digits: Any,
    levels: Any,
    significant: int,
    least: int,
    tables: Any,
    counts: Any,
) -> None:
    """Write the table of every token and group: each entry is that of one digit fewer plus one more product.

    `levels` has the first node of each number of digits, `parents` and `digits` say what each node adds to which node
    of the level before. `counts` are tables, additions of whole entries, and of partial sums of two digits and more.
    """
    group = levels.size - 1
    nodes = np.zeros(levels[group])
    for token in range(inputs.shape[0]):
        for table in range(starts.size):
            counts[0] += 1
            for level in range(group):
                x = inputs[token, starts[table] + level] if level < lengths[table] else 0.0
                for node in range(levels[level], levels[level + 1]):
                    term = rounded(values[digits[node]] * x, significant, least)
                    before = nodes[parents[node]] if level else 0.0
                    nodes[node] = rounded(before + term, significant, least)
                    if level == group - 1:
                        counts[1] += 1
                    elif level:
                        counts[2] += 1
            for entry in range(levels[group] - levels[group - 1]):
                tables[token, table, entry] = nodes[levels[group - 1] + entry]


@_compile
def quantize_tables(tables: Any, blocks: Any, scales: Any, counts: Any) -> None:
    """Round the entries of each block of tables to int8, in float32 steps: the largest magnitude becomes 127."""
    for token in range(tables.shape[0]):
        for block in range(blocks.size - 1):
            largest = np.float32(0)
            for table in range(blocks[block], blocks[block + 1]):
                for entry in range(tables.shape[2]):
                    largest = max(largest, np.float32(abs(tables[token, table, entry])))
            scale = np.float32(largest / np.float32(127))
            reciprocal = np.float32(np.float32(1) / scale) if scale > 0 else np.float32(0)
            if not reciprocal < np.inf:  # magnitudes too small for a scale
                scale = reciprocal = np.float32(0)
            scales[token, block] = scale
            for table in range(blocks[block], blocks[block + 1]):
                for entry in range(tables.shape[2]):
                    product = np.float32(np.float32(tables[token, table, entry]) * reciprocal)
                    tables[token, table, entry] = min(127.0, max(-128.0, np.rint(np.float64(product))))
                    counts[0] += 1


@_compile
def look_up(
    tables: Any, indices: Any, blocks: Any, size: int, mirror: bool, significant: int, out: Any, counts: Any
) -> None:
    """Add what the indices of each output and plane find, block by block; sums are rounded to so many bits.

    A mirrored table keeps the combinations from `size // 2`; those below are the negatives of `size - 1` less theirs.
    """
    half = size // 2
    for token in range(tables.shape[0]):
        for output in range(indices.shape[0]):
            for plane in range(indices.shape[1]):
                for block in range(blocks.size - 1):
                    total = 0.0
                    for table in range(blocks[block], blocks[block + 1]):
                        index = indices[output, plane, table]
                        counts[0] += 1
                        if not mirror:
                            found = tables[token, table, index]
                        elif index >= half:
                            found = tables[token, table, index - half]
                        else:
                            found = -tables[token, table, size - 1 - index - half]
                        total = rounded(total + found, significant, 0)
                        counts[1] += 1
                    out[token, output, block, plane] = total


@_compile
def look_up_rows(tables: Any, indices: Any, blocks: Any, out: Any, counts: Any) -> None:
    """Look each index up once and add the row over all tokens that it finds; `tables` is (tables, entries, tokens)."""
    for output in range(indices.shape[0]):
        for block in range(blocks.size - 1):
            for table in range(blocks[block], blocks[block + 1]):
                row = tables[table, indices[output, 0, table]]
                counts[0] += 1
                for token in range(row.size):
                    out[token, output, block, 0] += row[token]
                    counts[1] += 1


@_compile
def build_products(values: Any, inputs: Any, products: Any, counts: Any) -> None:
    """Write the table of all products of a weight's value and an activation's."""
    counts[0] += 1
    for value in range(values.size):
        for number in range(inputs.size):
            products[value, number] = values[value] * inputs[number]
            counts[1] += 1


@_compile
def look_up_products(products: Any, weights: Any, inputs: Any, ends: Any, out: Any, counts: Any) -> None:
    """Look the product of each weight code and activation code up; `ends` are those of the blocks."""
    for token in range(inputs.shape[0]):
        for output in range(weights.shape[0]):
            start = 0
            for block in range(ends.size):
                total = 0.0
                for at in range(start, ends[block]):
                    total += products[weights[output, at], inputs[token, at]]
                    counts[0] += 1
                    counts[1] += 1
                out[token, output, block, 0] = total
                start = ends[block]


@_compile
def unpack(values: Any, codes: Any, out: Any, counts: Any) -> None:
    """Write the values of codes."""
    for output in range(codes.shape[0]):
        for at in range(codes.shape[1]):
            out[output, at] = values[codes[output, at]]
            counts[0] += 1


@_compile
def multiply_unpacked(weights: Any, inputs: Any, ends: Any, out: Any, counts: Any) -> None:
    """Multiply unpacked weights with the activations of every token, and add."""
    for token in range(inputs.shape[0]):
        for output in range(weights.shape[0]):
            start = 0
            for block in range(ends.size):
                total = 0.0
                for at in range(start, ends[block]):
                    total += weights[output, at] * inputs[token, at]
                    counts[0] += 1
                out[token, output, block, 0] = total
                start = ends[block]
