"""Codes to values: exact tables for formats of at most 16 bits, bit operations for wider ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentTypeError, FormatError, RangeError
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat, to_float


def code_dtype(bits: int) -> np.dtype[Any]:
    """Return the smallest unsigned dtype that holds a code of `bits` bits."""
    return np.dtype(f"uint{max(8, 1 << (bits - 1).bit_length())}")


def scalar_format(fmt: str | Format, purpose: str) -> ScalarFormat:
    """Return `fmt` as a scalar format.

    Raises:
        FormatError: It is a block format; `purpose` says for what a scalar format is needed.
    """
    resolved = parse(fmt)
    if not isinstance(resolved, ScalarFormat):
        raise FormatError(
            f"{purpose} needs a scalar format; {resolved.name!r} is a block format, its codes need scales."
        )
    return resolved


def values(fmt: str | Format) -> NDArray[np.float64]:
    """Return the value of every code of a format of at most 16 bits, by code.

    NaN and infinities appear as such; -0 where the format has it. Unused codes of a codebook are NaN.

    Args:
        fmt: A scalar format or its name.

    Returns:
        float64 array of `2^bits` values, exact; a fresh copy.

    Raises:
        FormatError: More than 16 bits, or a block format.

    Example:
        >>> values("float4_e2m1fn")[:8].tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """
    scalar = scalar_format(fmt, "values")
    if scalar.bits > 16:
        raise FormatError(f"format={scalar.name!r} has 2^{scalar.bits} codes; values lists formats of at most 16 bits.")
    return value_table(scalar).copy()


@lru_cache(maxsize=128)
def value_table(fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return the cached, read-only table behind `values`."""
    table = decode_bits(np.arange(1 << fmt.bits, dtype=code_dtype(fmt.bits)), fmt)
    table.flags.writeable = False
    return table


def decode_codes(codes: Any, fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return the values of an array of codes as float64, exact.

    Raises:
        ArgumentTypeError: The codes are not integers.
        RangeError: A code is negative or has more than `fmt.bits` bits.
    """
    array = np.asarray(codes)
    if array.dtype.kind not in "iu" and array.size:
        raise ArgumentTypeError(f"codes have dtype {array.dtype}; allowed: integers.")
    if array.size and (int(array.max()) >> fmt.bits or int(array.min()) < 0):
        raise RangeError(
            f"codes range from {array.min()} to {array.max()}; {fmt.name!r} has codes 0 to {(1 << fmt.bits) - 1}."
        )
    if fmt.bits <= 16:
        return np.asarray(value_table(fmt)[array.astype(np.intp)])
    return decode_bits(array.astype(code_dtype(fmt.bits)), fmt)


def decode_bits(codes: NDArray[Any], fmt: ScalarFormat) -> NDArray[np.float64]:
    """Decode by bit operations (codebooks: by lookup)."""
    if isinstance(fmt, Float):
        return _decode_float(codes.astype(np.uint64), fmt)
    if isinstance(fmt, Integer | Fixed):
        n = codes.astype(np.int64)
        n -= (n >> (fmt.bits - 1) << fmt.bits) if fmt.signed else 0
        return np.ldexp(n.astype(np.float64), -fmt.fraction_bits)
    assert isinstance(fmt, Codebook)
    table = np.array([to_float(fmt.meaning(code)) for code in range(1 << fmt.bits)])
    return np.asarray(table[codes.astype(np.intp)])


def _decode_float(codes: NDArray[np.uint64], fmt: Float) -> NDArray[np.float64]:
    assert fmt.bias is not None
    magnitude = (codes & np.uint64((1 << (fmt.bits - fmt.signed)) - 1)).astype(np.int64)
    negative = codes >> np.uint64(fmt.bits - 1) != 0 if fmt.signed else np.zeros(codes.shape, bool)
    field, mantissa = magnitude >> fmt.mantissa_bits, magnitude & ((1 << fmt.mantissa_bits) - 1)
    normal = field > 0 if fmt.zero else np.ones(codes.shape, bool)
    significand = mantissa + (normal.astype(np.int64) << fmt.mantissa_bits)
    if not fmt.subnormals:
        significand[~normal] = 0
    exponent = np.maximum(field, int(fmt.zero)) - fmt.bias - fmt.mantissa_bits
    with np.errstate(over="ignore"):  # codes past the largest value, replaced below
        result = np.ldexp(significand.astype(np.float64), exponent)
    result[magnitude > fmt.max_code] = np.nan
    if fmt.infinity_code is not None:
        result[magnitude == fmt.infinity_code] = np.inf
    result = np.where(negative, -result, result)
    if fmt.signed and not fmt.has_negative_zero:
        result += 0.0  # codes that flush to zero
        result[negative & (magnitude == 0)] = np.nan
    return np.asarray(result)
