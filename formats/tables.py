"""Codes to values: exact tables for formats of at most 16 bits, bit operations for wider ones."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentTypeError, FormatError, RangeError, warn_caller
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithmic import LNS
from lowp.formats.logarithms import is_logarithmic, nearest_floats
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.spec import Format, ScalarFormat, to_float

#: Bits of integers that float64 holds exactly.
FLOAT64_BITS = 53


def code_dtype(bits: int) -> np.dtype[Any]:
    """Return the smallest unsigned dtype that holds a code of `bits` bits; FormatError beyond 64."""
    if bits > 64:
        raise FormatError(f"codes of {bits} bits have no array dtype, which end at 64 bits; use lowp.exact.")
    return np.dtype(f"uint{max(8, 1 << (bits - 1).bit_length())}")


def scalar_format(fmt: str | Format, purpose: str) -> ScalarFormat:
    """Return `fmt` as a scalar format.

    Raises:
        FormatError: It is a block format; `purpose` says for what a scalar format is needed.
    """
    resolved = parse(fmt)
    if not isinstance(resolved, ScalarFormat):
        elements = resolved.option("codebook") if isinstance(resolved, Packed) else getattr(resolved, "element", None)
        hint = f" Its elements alone are {elements.name!r}." if elements else ""
        raise FormatError(
            f"{purpose} needs a scalar format; {resolved.name!r} is a block format, its codes need scales.{hint}"
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
    return decode_bits(np.atleast_1d(array).astype(code_dtype(fmt.bits)), fmt).reshape(array.shape)


def decode_bits(codes: NDArray[Any], fmt: ScalarFormat) -> NDArray[np.float64]:
    """Decode by bit operations (codebooks: by lookup)."""
    if isinstance(fmt, Float):
        return _decode_float(codes.astype(np.uint64), fmt)
    if isinstance(fmt, Integer | Fixed):
        return _decode_integer(codes.astype(np.uint64), fmt)
    if isinstance(fmt, TaperedFormat) and not is_logarithmic(fmt):
        return _decode_tapered(codes.astype(np.uint64), fmt)
    if isinstance(fmt, RankedFormat):
        return _decode_logarithmic(codes, fmt)
    assert isinstance(fmt, Codebook)
    table = np.array([to_float(fmt.meaning(code)) for code in range(1 << fmt.bits)])
    return np.asarray(table[codes.astype(np.intp)])


def _decode_tapered(codes: NDArray[np.uint64], fmt: TaperedFormat) -> NDArray[np.float64]:
    """Decode by the binade that a code starts in; more than 53 significant bits are rounded, ties to even."""
    starts, units, powers = binade_table(fmt)
    negative = codes >> np.uint64(fmt.bits - 1) != 0
    magnitude = np.where(negative, ~codes + np.uint64(1), codes) & np.uint64((1 << fmt.bits) - 1)
    index = np.searchsorted(starts, magnitude, side="right") - 1
    significand = (magnitude - starts[index]) + (1 / units[index]).astype(np.uint64)
    with np.errstate(invalid="ignore"):  # past infinity, replaced below
        value = significand.astype(np.float64) * units[index] * powers[index]
    value = np.where(negative, -value, value)
    value[magnitude == 0] = 0.0
    value[magnitude > fmt.ranks] = np.nan
    return np.asarray(value)


@lru_cache(maxsize=64)
def binade_table(fmt: TaperedFormat) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each binade that has codes, the first code, the step of its fraction, and its power of two.

    Binades below float64 are one of value 0, those above it one of value infinity.
    """
    found = [b for b in fmt.binades(-1074, 1023) if not b.cut and b.start <= fmt.ranks]
    rows = {b.start: (2.0**-b.fraction_bits, 2.0**b.exponent) for b in found if b.start or b.fraction_bits}
    rows.setdefault(0, (1.0, 0.0))
    for above in fmt.binades(1024, 1024):
        rows.setdefault(above.start + (above.cut > 0), (1.0, math.inf))
    starts = sorted(rows)
    units, powers = zip(*(rows[start] for start in starts), strict=True)
    return np.array(starts, np.uint64), np.array(units), np.array(powers)


def _decode_logarithmic(codes: NDArray[Any], fmt: RankedFormat) -> NDArray[np.float64]:
    """Decode to the nearest float64."""
    plain = codes.astype(np.uint64)
    negative = plain >> np.uint64(fmt.bits - 1) != 0
    if isinstance(fmt, LNS):
        k = (plain & np.uint64((1 << (fmt.bits - 1)) - 1)).astype(np.int64)
        k -= (k >> (fmt.bits - 2) << (fmt.bits - 1)) if fmt.signed_exponent else 0
        rank = k - fmt.least_exponent
    else:
        magnitude = np.where(negative, ~plain + np.uint64(1), plain) & np.uint64((1 << fmt.bits) - 1)
        rank = (magnitude - np.uint64(1)).astype(np.int64)
    special = [code for code in (fmt.zero_code, fmt.nan_code) if code is not None]
    is_special = np.isin(plain, np.array(special, np.uint64))
    values = nearest_floats(fmt, np.where(is_special, 0, rank))
    values = np.where(negative, -values, values)
    values[is_special] = 0.0
    if fmt.nan_code is not None:
        values[plain == np.uint64(fmt.nan_code)] = np.nan
    return np.asarray(values)


def _decode_integer(codes: NDArray[np.uint64], fmt: Integer | Fixed) -> NDArray[np.float64]:
    n: NDArray[Any] = codes
    if fmt.signed:
        unused = 64 - fmt.bits
        n = (codes << np.uint64(unused)).view(np.int64) >> unused
    result = n.astype(np.float64)
    if fmt.bits > FLOAT64_BITS and _lost_bits(result, n):
        warn_caller(
            f"a value of {fmt.name!r} needs more than the {FLOAT64_BITS} bits of float64 and was rounded to nearest; "
            "codes and lowp.exact hold it exactly."
        )
    return np.ldexp(result, -fmt.fraction_bits)


def _lost_bits(values: NDArray[np.float64], n: NDArray[Any]) -> bool:
    """Whether some integer has bits below the last one of its float64."""
    magnitude = np.where(n < 0, np.negative(n.view(np.uint64)), n.view(np.uint64))
    below = np.maximum(np.frexp(values)[1] - FLOAT64_BITS, 0).astype(np.uint64)
    return bool((magnitude >> below << below != magnitude).any())


def _decode_float(codes: NDArray[np.uint64], fmt: Float) -> NDArray[np.float64]:
    assert fmt.bias is not None
    magnitude = (codes & np.uint64((1 << (fmt.bits - fmt.signed)) - 1)).astype(np.int64)
    negative = codes >> np.uint64(fmt.bits - 1) != 0 if fmt.signed else np.zeros(codes.shape, bool)
    field, mantissa = magnitude >> fmt.mantissa_bits, magnitude & ((1 << fmt.mantissa_bits) - 1)
    normal = field >= fmt.normal_field
    significand = mantissa + (normal.astype(np.int64) << fmt.mantissa_bits)
    if not fmt.subnormals:
        significand[~normal] = 0
    if fmt.zero:
        significand[magnitude == 0] = 0
    exponent = np.maximum(field, fmt.normal_field) - fmt.bias - fmt.mantissa_bits
    with np.errstate(
        over="ignore", under="ignore"
    ):  # codes past the largest value, replaced below; P3109's wide ranges
        result = np.ldexp(significand.astype(np.float64), exponent)
    result[magnitude > fmt.max_code] = np.nan
    if fmt.infinity_code is not None:
        result[magnitude == fmt.infinity_code] = np.inf
    result = np.where(negative, -result, result)
    if fmt.signed and not fmt.has_negative_zero:
        result += 0.0  # codes that flush to zero
        result[negative & (magnitude == 0)] = np.nan
    return np.asarray(result)
