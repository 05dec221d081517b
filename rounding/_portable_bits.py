"""Floats as integers: widening, scaling by powers of two and ordering, without float arithmetic on the numbers.

XLA and GPUs may flush subnormals and fuse operations; integers have neither. `width` is 32 or 64: int32 arrays with the
bits of float32 numbers, int64 arrays with those of float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lowp.rounding._namespaces import Namespace

MANTISSA = {32: 23, 64: 52}
INFINITE = {32: 0x7F800000, 64: 0x7FF0000000000000}
MASK = {32: 0x7FFFFFFF, 64: 0x7FFFFFFFFFFFFFFF}
SIGN = {32: -0x80000000, 64: -0x8000000000000000}


class FloatType(NamedTuple):
    """A float dtype of arrays."""

    width: int
    mantissa_bits: int
    emin: int
    emax: int


FLOAT_TYPES = {
    "float16": FloatType(16, 10, -14, 15),
    "bfloat16": FloatType(16, 7, -126, 127),
    "float32": FloatType(32, 23, -126, 127),
    "float64": FloatType(64, 52, -1022, 1023),
}


def width_of(xp: Namespace, bits: Any) -> int:
    """Return 32 or 64."""
    return 64 if xp.dtype_name(bits) == "int64" else 32


def widen(xp: Namespace, bits: Any, name: str, width: int) -> Any:
    """Return the bits of floats of a dtype as those of float32 or float64 with the same values and NaN payloads."""
    if FLOAT_TYPES[name].width == 16:
        bits, name = _from_16(xp, bits, name), "float32"
    return _from_32(xp, bits) if width == 64 and name == "float32" else bits


def _from_16(xp: Namespace, bits: Any, name: str) -> Any:
    b = xp.cast(bits, "int32")
    if name == "bfloat16":
        return b << 16
    mag = b & 0x7FFF
    usual = (mag << 13) + xp.where(mag >= 0x7C00, (255 - 31) << 23, xp.full_like(mag, (127 - 15) << 23))
    small = scaled(xp, float_bits(xp, mag, 32), -24)
    return with_sign(xp, xp.where(mag < 0x400, small, usual), b < 0)


def _from_32(xp: Namespace, bits: Any) -> Any:
    mag = bits & MASK[32]
    small = mag < 1 << 23
    normal = xp.cast(xp.where(small, float_bits(xp, mag & ((1 << 23) - 1), 32), mag), "int64")
    offset = xp.where(small, (1023 - 127 - 149) << 52, xp.full_like(normal, (1023 - 127) << 52))
    offset = xp.where(mag >= INFINITE[32], (2047 - 255) << 52, offset)
    wide = xp.where(mag == 0, 0, (normal << 29) + offset)
    return with_sign(xp, wide, bits < 0)


def with_sign(xp: Namespace, mag: Any, negative: Any) -> Any:
    """Return magnitudes with the sign bit set where `negative`."""
    return xp.where(negative, mag | SIGN[width_of(xp, mag)], mag)


def float_bits(xp: Namespace, n: Any, width: int) -> Any:
    """Return the float bits of non-negative integers: exact up to 2^24 or 2^53, else the nearest."""
    return xp.bits(xp.cast(n, f"float{width}"))


def scaled(xp: Namespace, bits: Any, power: Any) -> Any:
    """Return the bits of `x * 2^power` for x zero or positive normal; subnormal results are rounded, ties to even."""
    width = width_of(xp, bits)
    m, infinite = MANTISSA[width], INFINITE[width]
    exponent = (bits >> m) + power
    shift = xp.minimum(xp.maximum(1 - exponent, 0), m + 2)
    significand = (bits & ((1 << m) - 1)) | (1 << m)
    kept, rest = significand >> shift, significand & ((1 << shift) - 1)
    half = (1 << shift) >> 1
    up = (rest > half) | ((rest == half) & (rest != 0) & (kept & 1 == 1))
    kind = xp.dtype_name(bits)
    low = kept + xp.cast(up, kind)
    usual = xp.where(
        exponent > infinite >> m,
        infinite,
        xp.minimum(bits + (xp.cast(exponent, kind) << m) - ((bits >> m) << m), infinite),
    )
    return xp.where(bits == 0, 0, xp.where(exponent < 1, low, usual))


def order_keys(xp: Namespace, bits: Any) -> Any:
    """Return integers in the order of the floats; both zeros give 0."""
    mask = MASK[width_of(xp, bits)]
    mag = bits & mask
    return xp.where(bits < 0, -mag, mag)
