"""How wide an accumulator must be: bounds from weights, exact widths, and proofs that nothing can overflow."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError, unknown_name
from lowp.emulation._exact_widths import (
    Grid,
    Products,
    Width,
    counts_in_ones,
    grid_or_numbers,
    of_formats,
    positive,
    width_of,
)
from lowp.emulation._overflow_proofs import CounterExample, Proof, Undecided, prove_no_overflow

__all__ = [
    "CounterExample",
    "Proof",
    "Undecided",
    "Width",
    "a2q_bound",
    "a2q_plus_bound",
    "a2q_plus_width",
    "a2q_width",
    "data_type_width",
    "prove_no_overflow",
    "safe_width",
]

ORDERS = {
    "any": "every partial sum in every order: for accumulators that saturate, or must never overflow",
    "given": "the partial sums from the first term to the last",
    "final": "the sum alone: for accumulators that wrap around",
}


def a2q_bound(accumulator_bits: int, input_bits: int, *, signed: bool = False) -> Fraction:
    """Return the largest L1 norm of integer weights whose products with any inputs fit an accumulator.

    `(2^(P - 1) - 1) * 2^(s - N)`, s = 1 for signed inputs. It holds for every partial sum in every order.

    Args:
        accumulator_bits: P, bits of a two's complement accumulator.
        input_bits: N, bits of the inputs.
        signed: Whether the inputs are signed.

    Source:
        I. Colbert, A. Pappalardo, J. Petri-Koenig, "A2Q: Accumulator-Aware Quantization with Guaranteed Overflow
        Avoidance", ICCV 2023.

    Example:
        >>> float(a2q_bound(16, 8)), float(a2q_bound(16, 8, signed=True))
        (127.99609375, 255.9921875)
    """
    bits, inputs = positive("accumulator_bits", accumulator_bits), positive("input_bits", input_bits)
    return Fraction((1 << (bits - 1)) - 1, 1 << (inputs - bool(signed)))


def a2q_plus_bound(accumulator_bits: int, input_bits: int) -> Fraction:
    """Return the largest L1 norm of integer weights that sum to zero, whatever the inputs are: `(2^P - 2) / (2^N - 1)`.

    Source:
        I. Colbert et al., "A2Q+: Improving Accumulator-Aware Weight Quantization", ICML 2024.

    Example:
        >>> float(a2q_plus_bound(16, 8))
        256.99607843137255
    """
    bits, inputs = positive("accumulator_bits", accumulator_bits), positive("input_bits", input_bits)
    return Fraction((1 << bits) - 2, (1 << inputs) - 1)


def data_type_width(terms: int, input_bits: int, weight_bits: int, *, signed: bool = False) -> int:
    """Return the bits of an accumulator that any weights and inputs of these widths are safe in.

    The least P with `2^(P - 1) - 1 >= terms * 2^(input_bits + weight_bits - 1 - signed)`, which is A2Q's
    `P >= alpha + log2(1 + 2^-alpha) + 1`, found with integers. Weights are signed.

    Example:
        >>> data_type_width(1024, 8, 8), data_type_width(1024, 8, 8, signed=True)
        (27, 26)
    """
    count, n, m = positive("terms", terms), positive("input_bits", input_bits), positive("weight_bits", weight_bits)
    return _signed_bits(count << (n + m - 1 - bool(signed)))


def a2q_width(weights: ArrayLike, input_bits: int, *, signed: bool = False) -> int:
    """Return the least bits for which weights, (terms,) or (terms, outputs), keep `a2q_bound`.

    Raises:
        ArgumentError: Weights that are no integers.

    Example:
        >>> a2q_width([100, -27], 8), a2q_width([100, -28], 8)
        (16, 17)
    """
    most = max(_norms(weights), default=0)
    return _signed_bits(most << (positive("input_bits", input_bits) - bool(signed)))


def a2q_plus_width(weights: ArrayLike, input_bits: int) -> int:
    """Return the least bits for which weights that sum to zero, (terms,) or (terms, outputs), keep `a2q_plus_bound`.

    Raises:
        ArgumentError: Weights that are no integers, or do not sum to zero.

    Example:
        >>> a2q_plus_width([128, -128], 8), a2q_plus_width([129, -129], 8)
        (16, 17)
    """
    integers = _integers(weights)
    if integers.size and np.any(integers.sum(axis=0)):
        raise ArgumentError("weights must sum to zero for every output: A2Q+ is for weights centred on zero.")
    most = max(_norms(weights), default=0)
    # ||q|| (2^N - 1) <= 2^P - 2
    return max((most * ((1 << positive("input_bits", input_bits)) - 1) + 1).bit_length(), 1)


def safe_width(a: Any, b: Any, *, terms: int | None = None, order: str = "any") -> Width:
    """Return the narrowest two's complement accumulator, integer or fixed-point, that holds sums of products exactly.

    Each operand is a tensor, or a format that stands for all tensors of its finite numbers. With both tensors the width
    is that of these numbers; with one, such as weights, that of the worst numbers of the other's format; with two
    formats that of a Kulisch accumulator for so many `terms`. Numbers of block formats count with their scales. The
    last bit is that of the least product, but of integers (in dtype or format) the ones.

    Args:
        a: Left operand: (m, k) or (k,), real numbers, a `lowp.array`, or `lowp.Encoded` with blocks along its last
            axis; or a format or its name.
        b: Right operand: (k, n) or (k,), likewise, blocks along k; or a format or its name.
        terms: Terms of a sum, needed with two formats.
        order: Which sums must fit, one of `ORDERS`: "any", "given" or "final".

    Raises:
        ArgumentError: Shapes that do not fit, numbers that are not finite, or formats whose numbers are not multiples
            of powers of two.

    Source:
        U. Kulisch, Computer Arithmetic and Validity, 2013, chapter 8.

    Example:
        >>> safe_width("int8", "int8", terms=512).bits, safe_width([[3, -4]], [[5], [6]], order="final").bits
        (25, 5)
        >>> print(safe_width("float8_e4m3fn", "float8_e4m3fn", terms=32))
        42 bits, the last of weight 2^-18: sums from -6.42253e+06 to 6.42253e+06
        >>> safe_width("posit16_es2", "posit16_es2", terms=2**31 - 1).bits  # the quire of the posit standard
        256
    """
    if order not in ORDERS:
        raise ArgumentError(unknown_name("order", order, ORDERS))
    left, right = grid_or_numbers(a, "a", -1), grid_or_numbers(b, "b", -2)
    if isinstance(left, Grid) and isinstance(right, Grid):
        return of_formats(left, right, terms)
    if terms is not None:
        raise ArgumentError(f"terms={terms!r} is for two formats; a tensor has its own.")
    products = Products(left, right)
    least, largest = products.range_of_sums(order)
    whole = counts_in_ones(a) and counts_in_ones(b)
    return width_of(min(products.unit, 0) if whole else products.unit, least, largest)


def _signed_bits(magnitude: int) -> int:
    """Return the bits of a two's complement that holds a magnitude of both signs."""
    return magnitude.bit_length() + 1


def _integers(weights: ArrayLike) -> NDArray[Any]:
    given = np.asarray(weights)
    if given.dtype.kind not in "iuf" or (given.dtype.kind == "f" and not (given == np.rint(given)).all()):
        raise ArgumentError(f"weights must be integers, not of {given.dtype} such as {given.ravel()[:1].tolist()}.")
    if given.ndim not in (1, 2):
        raise ArgumentError(f"weights must have shape (terms,) or (terms, outputs), not {given.shape}.")
    return np.array([int(x) for x in given.ravel()], dtype=object).reshape(given.shape)


def _norms(weights: ArrayLike) -> list[int]:
    integers = _integers(weights)
    return [int(x) for x in np.atleast_1d(np.abs(integers).sum(axis=0))] if integers.size else []
