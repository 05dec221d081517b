"""Products by table lookup from their definition, without tables: fractions, or floats step by step."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np

F32 = np.float32


def to_float32(x: Fraction) -> Fraction:
    """Round once to float32, ties to even."""
    if x == 0:
        return x
    exponent = 0
    magnitude = abs(x)
    while magnitude >= 2:
        magnitude, exponent = magnitude / 2, exponent + 1
    while magnitude < 1:
        magnitude, exponent = magnitude * 2, exponent - 1
    step = Fraction(2) ** (max(exponent, -126) - 23)
    return round(x / step) * step  # Python rounds fractions to even


def exact_blocks(
    weights: Any, weight_scales: Any, weight_block: int, inputs: Any, input_scales: Any, input_block: int
) -> np.ndarray[Any, Any]:
    """Sum the integers of each block, times both scales, into float32, one block after the other."""
    outputs, k = weights.shape
    result = np.zeros((inputs.shape[0], outputs))
    cuts = sorted({*range(0, k, weight_block), *range(0, k, input_block), k})
    for token in range(inputs.shape[0]):
        for output in range(outputs):
            total = Fraction(0)
            for start, end in pairwise(cuts):
                whole = sum(Fraction(weights[output, j]) * Fraction(inputs[token, j]) for j in range(start, end))
                scale = Fraction(weight_scales[output, start // weight_block])
                total = to_float32(total + whole * scale * Fraction(input_scales[token, start // input_block]))
            result[token, output] = float(total)
    return result


def _entry(x: Any, digits: Any, dtype: Any) -> Any:
    """Add digits times activations from first to last, every product and sum rounded."""
    total = dtype(0)
    for value, digit in zip(x, digits, strict=True):
        total = dtype(total + dtype(dtype(digit) * dtype(value)))
    return total


def fused(total: Any, a: Any, b: Any) -> Any:
    """`total + a * b` rounded once."""
    return F32(float(to_float32(Fraction(float(total)) + Fraction(float(a)) * Fraction(float(b)))))


def rounded_planes(
    planes: Any, scales: Any, offsets: Any, inputs: Any, group: int, weight_block: int, dtype: Any, per_plane: bool
) -> np.ndarray[Any, Any]:
    """Rounded tables: `planes` are digits (outputs, planes, terms); scales (outputs, groups[, planes])."""
    outputs, count, k = planes.shape
    result = np.zeros((inputs.shape[0], outputs), F32)
    for token in range(inputs.shape[0]):
        for output in range(outputs):
            total = F32(0)
            for at, start in enumerate(range(0, k, weight_block)):
                end = min(start + weight_block, k)
                spans = [slice(i, min(i + group, end)) for i in range(start, end, group)]
                sums = [F32(0)] * count
                activations = F32(0)
                for span in spans:
                    x = inputs[token, span]
                    for plane in range(count):
                        sums[plane] = F32(sums[plane] + F32(_entry(x, planes[output, plane, span], dtype)))
                    activations = F32(activations + F32(_entry(x, np.ones(len(x)), dtype)))
                if per_plane:
                    for plane in range(count):
                        total = fused(total, sums[plane], scales[output, at, plane])
                    total = fused(total, activations, -offsets[output, at])
                    continue
                part = F32(0)
                for plane in range(count):
                    part = F32(part + F32(2.0**plane) * sums[plane])
                part = fused(part, activations, -offsets[output, at])
                total = fused(total, part, scales[output, at])
            result[token, output] = total
    return result


def quantized_planes(
    planes: Any, scales: Any, offsets: Any, inputs: Any, group: int, weight_block: int, table_block: int
) -> np.ndarray[Any, Any]:
    """int8 tables of bit planes: a scale for the tables of each `table_block` within a group of weights."""
    outputs, _, k = planes.shape
    result = np.zeros((inputs.shape[0], outputs), F32)
    for token in range(inputs.shape[0]):
        for output in range(outputs):
            total = F32(0)
            for at, first in enumerate(range(0, k, weight_block)):
                last = min(first + weight_block, k)
                part, activations = F32(0), F32(0)
                for start in range(first, last, table_block):
                    whole, scale, added = _quantized_block(
                        planes[output], inputs[token], group, start, min(start + table_block, last)
                    )
                    part = fused(part, whole, scale)
                    activations = F32(activations + added)
                part = fused(part, activations, -offsets[output, at])
                total = fused(total, part, scales[output, at])
            result[token, output] = total
    return result


def _quantized_block(planes: Any, x: Any, group: int, start: int, end: int) -> tuple[int, Any, Any]:
    spans = [slice(i, min(i + group, end)) for i in range(start, end, group)]
    largest = max(abs(_entry(x[span], signs, F32)) for span in spans for signs in product((-1, 1), repeat=len(x[span])))
    scale = F32(largest / F32(127))
    with np.errstate(over="ignore"):
        reciprocal = F32(F32(1) / scale) if scale > 0 else F32(0)
    if not np.isfinite(reciprocal):
        scale = reciprocal = F32(0)
    whole, added = 0, F32(0)
    for span in spans:
        for plane in range(planes.shape[0]):
            entry = F32(_entry(x[span], planes[plane, span], F32) * reciprocal)
            whole += int(np.clip(np.rint(entry), -128, 127)) << plane
        added = F32(added + _entry(x[span], np.ones(len(x[span])), F32))
    return whole, scale, added
