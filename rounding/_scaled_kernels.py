"""Blocks of float32 that lie one after the other: their extremes, and their elements divided, rounded, multiplied back.

A float32 divided by a scale of at most 24 bits either equals a number of at most 24 bits or misses it by more than
2^-50 of its size, so rounding the float64 quotient is rounding the exact one (`serves` checks the widths).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding._thresholds import codebook_table
from lowp.rounding.modes import Rounding

_compile = njit(nogil=True, cache=True, error_model="numpy")


def significant_bits(fmt: ScalarFormat) -> int:
    """Return how many significant bits the values of an arithmetic format have at most."""
    if isinstance(fmt, Float):
        return fmt.mantissa_bits + 1
    assert isinstance(fmt, Integer | Fixed)
    return fmt.bits


def serves(fmt: Block, mode: Rounding, overflow: str) -> bool:
    """Whether the kernels here round the elements of `fmt` exactly, for float32 inputs."""
    if mode.name != "ties_to_even" or overflow != "saturate":
        return False
    element = fmt.element
    if isinstance(element, Codebook):
        return len(element.values) <= 16 and not fmt.zero_point
    if not isinstance(element, Float | Integer | Fixed) or not isinstance(fmt.scale, Float):
        return False
    if isinstance(element, Float) and not (
        element.subnormals and element.mantissa_bits >= 1 and abs(element.emin) < 200
    ):
        return False
    tensor = significant_bits(fmt.tensor_scale) if fmt.tensor_scale else 0
    bits = significant_bits(element)
    return bits <= 16 and significant_bits(fmt.scale) <= 24 and bits + 1 + significant_bits(fmt.scale) + tensor <= 53


def has_exact_products(fmt: Block) -> bool:
    """Whether float64 holds the product of an element, its scale and the tensor's, and is far from its ends."""
    factors = [fmt.element, fmt.scale, *([fmt.tensor_scale] if fmt.tensor_scale else [])]
    if not all(isinstance(factor, Float | Integer | Fixed) for factor in factors):
        return False
    bits = sum(significant_bits(factor) for factor in factors) + bool(fmt.zero_point)
    least = sum(factor.emin - factor.mantissa_bits if isinstance(factor, Float) else -200 for factor in factors)
    most = sum(factor.emax if isinstance(factor, Float) else 200 for factor in factors)
    return bits <= 53 and least > -1000 and most < 1000


def element_plan(fmt: Block) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the integers and the floats of the addition trick in float64 for the elements of `fmt`."""
    return addition_plan(fmt.element, fmt.zero_point)


def addition_plan(element: ScalarFormat, offset: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the same for a format; `offset`: a zero point is added before numbers are clamped."""
    if isinstance(element, Float):
        least, mantissa, signed_zero = element.emin + 1023, element.mantissa_bits, element.has_negative_zero
    else:
        assert isinstance(element, Integer | Fixed)
        least, mantissa, signed_zero = 52 - element.fraction_bits + 1023, 52, False
    clip = 2.0**40 if offset else 2 * max(element.max, -element.min)
    integers = np.array([least << 52, (52 - mantissa) << 52, int(signed_zero), int(offset)], np.int64)
    return integers, np.array([element.max, element.min, clip])


@_compile
def block_extremes(x: Any, size: Any, low: Any, high: Any) -> None:
    """Write the least and the greatest value of each block of `size`; NaN if it holds a NaN."""
    for b in range(low.size):
        block = x[b * size : (b + 1) * size]
        least, greatest, broken = block[0], block[0], False
        for j in range(block.size):
            v = block[j]
            least = min(least, v)
            greatest = max(greatest, v)
            broken |= v != v
        low[b] = np.nan if broken else least
        high[b] = np.nan if broken else greatest


@_compile
def quantize_divided(
    x: Any, out: Any, scales: Any, units: Any, zeros: Any, size: Any, integers: Any, floats: Any, multiplies: Any
) -> None:
    """Round `x / scale` to nearest even, clamp, and multiply by `unit`; with zero points, offset before the clamp.

    With `multiplies` the number to round is the float32 product of `x` and the scale instead.
    """
    least, raise_by, signed_zero, offset = integers[0], integers[1], integers[2] == 1, integers[3] == 1
    top, bottom, clip = floats[0], floats[1], floats[2]
    for b in range(scales.size):
        block, target = x[b * size : (b + 1) * size], out[b * size : (b + 1) * size]
        s, unit = scales[b], units[b]
        zero = zeros[b] if offset else 0.0
        factor = np.float32(s)
        if (s == 0) & (not multiplies):
            for j in range(block.size):
                target[j] = np.nan if block[j] != block[j] else 0.0
            continue
        for j in range(block.size):
            v = np.float64(np.float32(block[j] * factor)) if multiplies else np.float64(block[j]) / s
            a = min(abs(v), clip)
            e = max(np.float64(a).view(np.int64) & np.int64(0x7FF0000000000000), least)
            magic = np.int64(e + raise_by).view(np.float64)
            r = (a + magic) - magic
            signed = -r if (np.float64(v).view(np.int64) < 0) & ((r != 0) | signed_zero) else r
            value = (
                (min(max(signed + zero, bottom), top) - zero) * unit if offset else min(max(signed, bottom), top) * unit
            )
            target[j] = np.nan if v != v else value  # rounded to the dtype of `out`


@_compile
def quantize_by_cuts(x: Any, out: Any, scales: Any, units: Any, size: Any, cuts: Any, values: Any) -> None:
    """Replace `x / scale` by the codebook value whose index is the number of cuts at or below it, times `unit`."""
    for b in range(scales.size):
        block, target = x[b * size : (b + 1) * size], out[b * size : (b + 1) * size]
        s, unit = scales[b], units[b]
        for j in range(block.size):
            v = np.float64(block[j]) / s if s != 0 else 0.0
            index = np.int64(0)
            for k in range(cuts.size):
                index += np.int64(cuts[k] <= v)
            bad = (v != v) | (block[j] != block[j])
            target[j] = np.nan if bad else values[index] * unit  # rounded to the dtype of `out`


def run(
    x: NDArray[Any], out: NDArray[Any], fmt: Block, mode: Rounding, scales: NDArray[Any], units: NDArray[Any],
    zeros: NDArray[Any], size: int, multiplies: bool,
) -> None:  # fmt: skip
    """Quantize consecutive blocks with the kernel of the element's kind; all arrays flat and contiguous."""
    if isinstance(fmt.element, Codebook):
        table = codebook_table(fmt.element, mode)
        quantize_by_cuts(x, out, scales, units, size, table.cuts, table.values)
    else:
        integers, floats = element_plan(fmt)
        quantize_divided(x, out, scales, units, zeros, size, integers, floats, multiplies)


@_compile
def decode_scaled(codes: Any, table: Any, units: Any, zeros: Any, size: Any, out: Any) -> None:
    """Write `(table[code] - zero) * unit` of consecutive blocks, rounded to the dtype of `out`; products are exact.

    `zeros`: one number for each block, or none at all.
    """
    for b in range(units.size):
        block, target = codes[b * size : (b + 1) * size], out[b * size : (b + 1) * size]
        unit, zero = units[b], zeros[b] if zeros.size else 0.0
        for j in range(block.size):
            target[j] = (table[block[j]] - zero) * unit if zeros.size else table[block[j]] * unit
