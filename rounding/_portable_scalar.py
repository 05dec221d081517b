"""Scalar formats as array code: the same bits from NumPy arrays, torch tensors and JAX arrays, compiled or not.

Numbers are integers throughout. float32 numbers are rounded with 32-bit integers where float32 holds the format, all
others with 64-bit ones, which JAX has inside `wide` whatever its setting. Tables serve the formats that are no grid.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from lowp._errors import ArgumentError, RangeError
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import LIFT, Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import FLOAT64_BITS, code_dtype, value_table
from lowp.rounding import _edges, _wrap
from lowp.rounding._arrays import no_room
from lowp.rounding._namespaces import Namespace, namespace_of
from lowp.rounding._portable_bits import (
    FLOAT_TYPES,
    INFINITE,
    MASK,
    float_bits,
    scaled,
    widen,
    with_sign,
)
from lowp.rounding._portable_edges import below_gap, wrapped
from lowp.rounding._portable_room import into_dtype, may_be_rounded, nan_bits, narrow
from lowp.rounding._portable_round import encode_bits, plan_of, quantize_bits
from lowp.rounding._portable_words import c_positions, split_positions, words
from lowp.rounding.lowering import fits_float32
from lowp.rounding.request import Request, no_nan

__all__ = ["decode_values", "encode_values", "namespace_of", "quantize_values"]


def quantize_values(xp: Namespace, x: Any, fmt: ScalarFormat, request: Request, positions: Any = None) -> Any:
    """Round floats of any of the four dtypes to the values of a scalar format, in their own dtype.

    Args:
        xp: Namespace of `x`.
        x: Array of float16, bfloat16, float32 or float64.
        fmt: Scalar format.
        request: Modes, keys (integers or array scalars) and NaN policy.
        positions: What the random bits depend on: integers, or a pair of their low and high 32-bit words; default the
            C-order index of each element.

    Raises:
        RangeError: A value that the dtype of `x` cannot hold, or a NaN under nan="error". Where a compiler traces, such
            a value becomes NaN, and a NaN stays.
    """
    name = xp.dtype_name(x)
    with xp.wide():
        bits = xp.bits(x)
        result = _rounded(xp, bits, name, fmt, request, _word_maker(xp, bits, request, positions))
        return xp.floats(_with_nan_policy(xp, result, name, fmt, request), name)


def encode_values(xp: Namespace, x: Any, fmt: ScalarFormat, request: Request, positions: Any = None) -> Any:
    """Round floats of any of the four dtypes to the codes of a scalar format, of the smallest unsigned dtype.

    Arguments as `quantize_values`.

    Raises:
        RangeError: A NaN that has no code under nan="error"; where a compiler traces it gets the code of zero.
    """
    name = xp.dtype_name(x)
    with xp.wide():
        bits = xp.bits(x)
        word = _word_maker(xp, bits, request, positions)
        codes = _codes_with_nan(xp, bits, name, fmt, request, word)
        return xp.cast(codes, code_dtype(fmt.bits).name)


def _word_maker(xp: Namespace, bits: Any, request: Request, positions: Any) -> Callable[[], Any]:
    def word() -> Any:
        where = c_positions(xp, bits) if positions is None else split_positions(xp, positions)
        return words(xp, (request.key0, request.key1), where)

    return word if request.mode.variant else lambda: None


def _with_nan_policy(xp: Namespace, bits: Any, name: str, fmt: ScalarFormat, request: Request) -> Any:
    if request.nan == "keep" or fmt.has_nan:
        return bits
    kind = FLOAT_TYPES[name]
    infinite = ((1 << (kind.width - 1)) - 1) ^ ((1 << kind.mantissa_bits) - 1)
    nan = (bits & ((1 << (kind.width - 1)) - 1)) > infinite
    if request.nan == "error":
        xp.require(~nan, bits, lambda: no_nan(fmt))
        return bits
    return xp.where(nan, 0 if request.nan == "zero" else _constant_bits(fmt.max, name, fmt), bits)


def _constant_bits(value: float, name: str, fmt: ScalarFormat) -> int:
    bits = np.array([value]).view(np.int64)
    return int(into_dtype(namespace_of(bits), bits, name, fmt)[0])


def _is_table(fmt: ScalarFormat) -> bool:
    return isinstance(fmt, Codebook | RankedFormat)


def _width(name: str, fmt: ScalarFormat, request: Request) -> int:
    """Return how wide the integers must be that round numbers of a dtype."""
    narrow_input = FLOAT_TYPES[name].width <= 32 and request.overflow not in _wrap.WRAPPING
    dlfloat = isinstance(fmt, Float) and fmt.specials == "dlfloat"
    return 32 if narrow_input and not dlfloat and fits_float32(fmt) else 64


def _check_width(fmt: ScalarFormat) -> None:
    if isinstance(fmt, Fixed) and fmt.bits > FLOAT64_BITS:
        raise ArgumentError(
            f"fmt={fmt.name!r} has more than {FLOAT64_BITS} bits, which only NumPy arrays are rounded to; use "
            "lowp.quantize or lowp.encode with NumPy."
        )


def _rounded(xp: Namespace, raw: Any, name: str, fmt: ScalarFormat, request: Request, word: Callable[[], Any]) -> Any:
    """Return bits of the dtype `name`."""
    if _is_table(fmt):
        from lowp.rounding import _portable_tables

        return _portable_tables.rounded(xp, raw, name, fmt, request, word)
    _check_width(fmt)
    assert isinstance(fmt, Float | Integer | Fixed)
    width = _width(name, fmt, request)
    bits = widen(xp, raw, name, width)
    if request.overflow in _wrap.WRAPPING:
        assert isinstance(fmt, Integer | Fixed)
        n = wrapped(xp, bits, fmt, request, word())
        value = with_sign(xp, scaled(xp, float_bits(xp, xp.where(n < 0, -n, n), 64), -fmt.fraction_bits), n < 0)
        nan = (bits & MASK[64]) > INFINITE[64]
        return into_dtype(xp, xp.where(nan, nan_bits("float64"), value), name, fmt)
    chosen = word()
    result = quantize_bits(xp, below_gap(xp, bits, fmt), plan_of(fmt, request.mode, request.overflow, width), chosen)
    if _needs_lift(fmt, width):
        low, raised = _lift(xp, bits)
        lifted = plan_of(_edges.lifted(fmt), request.mode, request.overflow, width)
        found = quantize_bits(xp, raised, lifted, chosen)
        mag = found & MASK[64]
        lowered = xp.where(mag >= INFINITE[64], mag, scaled(xp, mag, -LIFT))
        result = xp.where(low, with_sign(xp, lowered, found < 0), result)
    return into_dtype(xp, result, name, fmt)


def _needs_lift(fmt: ScalarFormat, width: int) -> bool:
    return width == 64 and isinstance(fmt, Float) and fmt.emin < -1022


def _lift(xp: Namespace, bits: Any) -> tuple[Any, Any]:
    """Return where float64 numbers are subnormal, and those times 2^LIFT."""
    mag = bits & MASK[64]
    low = (mag < 1 << 52) & (mag != 0)
    raised = scaled(xp, float_bits(xp, xp.where(low, mag, 1), 64), LIFT - 1074)
    return low, with_sign(xp, raised, bits < 0)


def _codes_with_nan(
    xp: Namespace, raw: Any, name: str, fmt: ScalarFormat, request: Request, word: Callable[[], Any]
) -> Any:
    if fmt.has_nan:
        return _codes(xp, raw, name, fmt, request, word)
    kind = FLOAT_TYPES[name]
    infinite = ((1 << (kind.width - 1)) - 1) ^ ((1 << kind.mantissa_bits) - 1)
    nan = (raw & ((1 << (kind.width - 1)) - 1)) > infinite
    if request.nan == "error" and xp.require(~nan, raw, lambda: no_nan(fmt)):
        return _codes(xp, raw, name, fmt, request, word)
    clean = xp.where(nan, infinite if request.nan == "max" else 0, raw)
    codes = _codes(xp, clean, name, fmt, request, word)
    if request.nan == "max" and request.overflow != "saturate":
        saturated = _codes(xp, clean, name, fmt, request._replace(overflow="saturate"), word)
        codes = xp.where(nan, xp.cast(saturated, xp.dtype_name(codes)), codes)
    return codes


def _codes(xp: Namespace, raw: Any, name: str, fmt: ScalarFormat, request: Request, word: Callable[[], Any]) -> Any:
    """Return codes as signed integers; NaN, where there is one, has a code."""
    if _is_table(fmt):
        from lowp.rounding import _portable_tables

        return _portable_tables.codes(xp, raw, name, fmt, request, word)
    _check_width(fmt)
    assert isinstance(fmt, Float | Integer | Fixed)
    width = _width(name, fmt, request)
    bits = widen(xp, raw, name, width)
    if request.overflow in _wrap.WRAPPING:
        assert isinstance(fmt, Integer | Fixed)
        return wrapped(xp, bits, fmt, request, word()) & ((1 << fmt.bits) - 1)
    chosen = word()
    result = encode_bits(xp, below_gap(xp, bits, fmt), plan_of(fmt, request.mode, request.overflow, width), chosen)
    if _needs_lift(fmt, width):
        low, raised = _lift(xp, bits)
        lifted = plan_of(_edges.lifted(fmt), request.mode, request.overflow, width)
        result = xp.where(low, encode_bits(xp, raised, lifted, chosen), result)
    return result


def decode_values(xp: Namespace, codes: Any, fmt: ScalarFormat, dtype: str) -> Any:
    """Return the values of codes in a float dtype.

    Args:
        xp: Namespace of `codes`.
        codes: Integers of any width.
        fmt: Scalar format.
        dtype: "float16", "bfloat16", "float32" or "float64".

    Raises:
        RangeError: A number that is not a code, or a value that the dtype cannot hold; NaN where a compiler traces.
    """
    with xp.wide():
        numbers = xp.cast(codes, "int64" if fmt.bits > 16 else "int32")
        outside = (numbers < 0) if fmt.bits >= 64 else (numbers >> fmt.bits != 0)
        if fmt.bits >= 64:
            outside = outside & (xp.dtype_name(codes) != "uint64")
        known = xp.require(~outside, codes, lambda: _no_code(fmt))
        if fmt.bits <= 16:
            bits = look_up(xp, xp.where(outside, 0, numbers), fmt, dtype)
        else:
            bits = into_dtype(xp, _wide_values(xp, numbers, fmt), dtype, fmt)
        if not known:
            bits = xp.where(outside, nan_bits(dtype), bits)
        return xp.floats(bits, dtype)


def _no_code(fmt: ScalarFormat) -> RangeError:
    return RangeError(f"codes hold numbers that are no codes; {fmt.name!r} has codes 0 to {(1 << fmt.bits) - 1}.")


def look_up(xp: Namespace, codes: Any, fmt: ScalarFormat, dtype: str) -> Any:
    """Return bits of the values of codes of at most 16 bits."""
    return entries(xp, values_in(fmt, dtype), codes, fmt, dtype)


def entries(xp: Namespace, table: tuple[Any, Any], index: Any, fmt: ScalarFormat, dtype: str) -> Any:
    """Return entries of a table of bits, some of which the dtype may not hold, see `held_bits`."""
    bits, held = table
    if not held.all():
        xp.require(xp.take(xp.constant(held, index), index), index, lambda: no_room(fmt.name, dtype))
        bits = np.where(held, bits, np.array(nan_bits(dtype), bits.dtype))
    return xp.take(xp.constant(bits, index), index)


@lru_cache(maxsize=128)
def values_in(fmt: ScalarFormat, dtype: str) -> tuple[Any, Any]:
    """Return the bits of all values by code in a float dtype, and which of them the dtype holds."""
    return held_bits(value_table(fmt), fmt, dtype)


def held_bits(values: Any, fmt: ScalarFormat, dtype: str) -> tuple[Any, Any]:
    """Return the bits of float64 numbers in a float dtype, and which it holds (or may round, where the format says)."""
    wide = values.view(np.int64)
    xp = namespace_of(wide)
    narrowed = narrow(xp, wide, dtype)
    back = widen(xp, narrowed, dtype, 64)
    finite = [(b & MASK[64]) < INFINITE[64] for b in (back, wide)]
    held = finite[0] == finite[1] if may_be_rounded(fmt) else back == wide
    return narrowed, held | np.isnan(values)


def _wide_values(xp: Namespace, codes: Any, fmt: ScalarFormat) -> Any:
    """Return float64 bits of codes of more than 16 bits."""
    if isinstance(fmt, Float):
        return _float_values(xp, codes, fmt)
    if isinstance(fmt, Integer | Fixed):
        _check_width(fmt)
        n = codes - ((codes >> (fmt.bits - 1)) << fmt.bits) if fmt.signed else codes
        return with_sign(xp, scaled(xp, float_bits(xp, xp.where(n < 0, -n, n), 64), -fmt.fraction_bits), n < 0)
    from lowp.rounding import _portable_tables

    return _portable_tables.wide_values(xp, codes, fmt)


def _float_values(xp: Namespace, codes: Any, fmt: Float) -> Any:
    m, sign_bit = fmt.mantissa_bits, fmt.bits - 1
    assert fmt.bias is not None
    magnitude = codes & ((1 << (fmt.bits - fmt.signed)) - 1)
    negative = (codes >> sign_bit & 1 == 1) if fmt.signed else codes != codes
    field, mantissa = magnitude >> m, magnitude & ((1 << m) - 1)
    normal = field >= fmt.normal_field
    significand = xp.where(normal, mantissa | 1 << m, mantissa if fmt.subnormals else 0 * mantissa)
    if fmt.zero:
        significand = xp.where(magnitude == 0, 0, significand)
    power = xp.maximum(field, fmt.normal_field) - (fmt.bias + m)
    bits = scaled(xp, float_bits(xp, significand, 64), power)
    if fmt.signed and not fmt.has_negative_zero:
        negative = negative & (bits != 0)
    bits = with_sign(xp, bits, negative)
    special = magnitude > fmt.max_code
    if fmt.infinity_code is not None:
        infinity = with_sign(xp, xp.full_like(bits, INFINITE[64]), negative)
        bits = xp.where(magnitude == fmt.infinity_code, infinity, bits)
        special = special & (magnitude != fmt.infinity_code)
    if fmt.signed and not fmt.has_negative_zero:
        special = special | ((codes >> sign_bit & 1 == 1) & (magnitude == 0))
    return xp.where(special, nan_bits("float64"), bits)
