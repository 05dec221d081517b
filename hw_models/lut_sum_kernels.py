"""What becomes of looked-up sums: bit planes added, offsets subtracted, scales applied; compiled and counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

_F = TypeVar("_F", bound=Callable[..., Any])
_SPLIT = float(2**27 + 1)


def _compile(function: _F) -> _F:
    compiled: _F = njit(nogil=True, cache=True, error_model="numpy")(function)
    return compiled


@_compile
def two_sum(a: float, b: float) -> tuple[float, float]:
    """Return the sum and what rounding lost of it (Knuth 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@_compile
def product_error(a: float, b: float, product: float) -> float:
    """Return what rounding lost of a product (Dekker 1971)."""
    a_scaled, b_scaled = _SPLIT * a, _SPLIT * b
    a_high, b_high = a_scaled - (a_scaled - a), b_scaled - (b_scaled - b)
    a_low, b_low = a - a_high, b - b_high
    return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


@_compile
def fused(total: float, a: float, b: float) -> float:
    """Return `total + a * b` rounded once to float32, exact before: a sum rounded to odd decides every tie."""
    high = a * b
    if not abs(high) + abs(total) < 1e300 or high == 0:
        return float(np.float32(total + high))
    low = product_error(a, b, high)
    value, lost = two_sum(total, high)
    rest, least = two_sum(lost, low)
    value, rest = two_sum(value, rest)
    left = rest if rest != 0 else least
    if left != 0:
        bits = np.float64(value).view(np.int64)
        if bits & 1 == 0:
            bits += np.int64(1) if (left > 0) == (value > 0) else np.int64(-1)
            value = float(np.int64(bits).view(np.float64))
    return float(np.float32(value))


@_compile
def sum_entries(tables: Any, blocks: Any, last: int, significant: int, out: Any, counts: Any) -> None:
    """Write the sum of each block's activations: the entries of all plus signs, one per table."""
    for token in range(tables.shape[0]):
        for block in range(blocks.size - 1):
            total = 0.0
            for table in range(blocks[block], blocks[block + 1]):
                total = total + tables[token, table, last]
                if significant:
                    total = float(np.float32(total))
                counts[0] += 1
            out[token, block] = total


@_compile
def sum_inputs(inputs: Any, ends: Any, out: Any, counts: Any) -> None:
    """Write the exact sum of each block's activations."""
    for token in range(inputs.shape[0]):
        start = 0
        for block in range(ends.size):
            total = 0.0
            for at in range(start, ends[block]):
                total += inputs[token, at]
                counts[0] += 1
            out[token, block] = total
            start = ends[block]


@_compile
def combine_exact(
    found: Any,
    sums: Any,
    offsets: Any,
    shifted: bool,
    planes: bool,
    scaled: bool,
    weight_scales: Any,
    input_scales: Any,
    block_group: Any,
    block_input: Any,
    out: Any,
    counts: Any,
) -> None:
    """Add the planes of each block, subtract the offset's share, and add the integers times their scales.

    `out` is float32 after every addition where there are scales, else exact. `counts` are additions of planes,
    offset products, and scale products.
    """
    for token in range(found.shape[0]):
        for output in range(found.shape[1]):
            total = 0.0
            for block in range(found.shape[2]):
                whole, weight = 0.0, 1.0
                for plane in range(found.shape[3]):
                    whole += weight * found[token, output, block, plane]
                    weight *= 2.0
                    if planes:
                        counts[0] += 1
                group = block_group[block]
                if shifted:
                    whole -= offsets[output, group] * sums[token, block]
                    counts[1] += 1
                if scaled:
                    scale = weight_scales[output, group] * input_scales[token, block_input[block]]
                    total = fused(total, whole, scale)
                    counts[2] += 1
                else:
                    total += whole
            out[token, output] = total


@_compile
def combine_quantized(
    found: Any,
    table_scales: Any,
    sums: Any,
    offsets: Any,
    shifted: bool,
    planes: bool,
    scaled: bool,
    weight_scales: Any,
    block_group: Any,
    unit: float,
    out: Any,
    counts: Any,
) -> None:
    """Add the integers of each block times its tables' scale, less the offset's share, times the group's scale.

    Every addition is a fused multiply-add in float32. `counts` are additions of planes, offset products, products with
    table scales, and with group scales.
    """
    blocks = found.shape[2]
    for token in range(found.shape[0]):
        for output in range(found.shape[1]):
            total, part, activations = 0.0, 0.0, 0.0
            for block in range(blocks):
                whole, weight = 0.0, 1.0
                for plane in range(found.shape[3]):
                    whole += weight * found[token, output, block, plane]
                    weight *= 2.0
                    if planes:
                        counts[0] += 1
                part = fused(part, whole, table_scales[token, block])
                counts[2] += 1
                activations = float(np.float32(activations + sums[token, block]))
                group = block_group[block]
                if block + 1 < blocks and block_group[block + 1] == group:
                    continue
                if shifted:
                    part = fused(part, -offsets[output, group], activations)
                    counts[1] += 1
                if scaled:
                    total = fused(total, part, weight_scales[output, group])
                    counts[3] += 1
                else:
                    total = fused(total, part, unit)
                part, activations = 0.0, 0.0
            out[token, output] = total


@_compile
def combine_rounded(
    found: Any,
    sums: Any,
    offsets: Any,
    shifted: bool,
    planes: bool,
    scaled: bool,
    plane_scales: Any,
    own_scales: bool,
    out: Any,
    counts: Any,
) -> None:
    """Add float32 sums of planes: each times its own scale, or shifted, less the offset's share, times the group's.

    `plane_scales` is (outputs, groups, planes): of engines that shift, that of plane 0 is the group's. Offsets are
    factors of the activations' sums: with plane scales, scaled already. `counts` as of `combine_exact`.
    """
    for token in range(found.shape[0]):
        for output in range(found.shape[1]):
            total = 0.0
            for group in range(found.shape[2]):
                if own_scales:
                    for plane in range(found.shape[3]):
                        total = fused(total, found[token, output, group, plane], plane_scales[output, group, plane])
                        counts[2] += 1
                    if shifted:
                        total = fused(total, -offsets[output, group], sums[token, group])
                        counts[1] += 1
                    continue
                part, weight = 0.0, 1.0
                for plane in range(found.shape[3]):
                    part = float(np.float32(part + weight * found[token, output, group, plane]))
                    weight *= 2.0
                    if planes:
                        counts[0] += 1
                if shifted:
                    part = fused(part, -offsets[output, group], sums[token, group])
                    counts[1] += 1
                total = fused(total, part, plane_scales[output, group, 0])
                if scaled:
                    counts[2] += 1
            out[token, output] = total


@_compile
def scale_outputs(out: Any, factors: Any, counts: Any) -> None:
    """Multiply each token's results by its scale, rounded to float32."""
    for token in range(out.shape[0]):
        for output in range(out.shape[1]):
            out[token, output] = fused(0.0, out[token, output], factors[token])
            counts[0] += 1
