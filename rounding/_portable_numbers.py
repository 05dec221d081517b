"""Numbers of packed schemes as array code: float32 and float64 values as float64, codes as int64."""

from __future__ import annotations

from typing import Any

from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable import encode_values
from lowp.rounding._portable_shapes import largest, spread
from lowp.rounding.request import Request


def float32(xp: Any, x: Any) -> Any:
    """Return numbers as float64 that float32 holds."""
    return doubles.widen(xp, x) if xp.dtype_name(x) == "float32" else doubles.to_float32(xp, x)


def codes_of(xp: Any, x: Any, fmt: Any, request: Request) -> Any:
    """Return codes as int64."""
    return xp.cast(encode_values(xp, x, fmt, request), "int64")


def amax(xp: Any, x: Any, axes: tuple[int, ...] = (-1,)) -> Any:
    """Return the largest magnitude along axes, which are kept; NaN where there is one."""
    places = tuple(a % x.ndim for a in axes)
    return doubles.from_bits(xp, largest(xp, doubles.size_of(xp, x), places))


def constant(xp: Any, value: float, like: Any) -> Any:
    """Return a number in the shape of `like` that no compiler takes for a constant (see `Work.divisor`)."""
    return xp.where(doubles.bits_of(xp, like) == -1, 1.0, xp.full_like(like, value))


def float_bits(xp: Any, x: Any) -> Any:
    """Return the float32 bits of numbers as unsigned integers in int64."""
    return xp.cast(xp.bits(doubles.narrow(xp, x, "float32")), "int64") & 0xFFFFFFFF


def of_float_bits(xp: Any, bits: Any) -> Any:
    """Return the float32 numbers of such integers as float64."""
    return doubles.widen(xp, xp.floats(xp.cast(bits, "int32"), "float32"))


def repeated(xp: Any, x: Any, count: int) -> Any:
    """Return each element of the last axis `count` times."""
    return spread(xp, x[..., None], (*x.shape, count)).reshape((*x.shape[:-1], x.shape[-1] * count))


def block_exponents(xp: Any, size: Any) -> Any:
    """Return `floor(log2 amax)` from -127 to 127."""
    parts = doubles.parts_of(xp, size)
    exponents = xp.minimum(xp.maximum(parts.exponent + 52, -127), 127)
    return xp.where(parts.significand == 0, -127, exponents)


def power_of_two(xp: Any, exponent: Any) -> Any:
    return doubles.from_bits(xp, (exponent + 1023) << 52)


def sign_magnitude(xp: Any, x: Any, magnitude: Any, bits: int) -> Any:
    """Return codes of `bits` magnitude bits below the sign of `x`."""
    return magnitude | xp.cast(doubles.bits_of(xp, x) < 0, "int64") << bits


def from_sign_magnitude(xp: Any, codes: Any, bits: int) -> Any:
    """Return the numbers that such codes stand for, -0 among them."""
    size = xp.cast(codes & ((1 << bits) - 1), "float64")
    return xp.where(codes >> bits != 0, -size, size)


def rounded_magnitude(xp: Any, x: Any, unit: Any, top: int, request: Request) -> Any:
    """Return `|x / unit|` rounded once by the request's mode, at most `top`, as int64; 0 for NaN."""
    from lowp.formats.integer import Integer
    from lowp.rounding._portable import quantize_values

    exact = doubles.quotient(xp, x, unit, odd=True)
    exact = xp.where(doubles.is_nan(xp, exact), 0.0, exact)
    plain = request._replace(overflow="saturate", nan="keep")
    n = quantize_values(xp, exact, Integer(32), plain)
    return xp.cast(xp.minimum(doubles.magnitude(xp, n), float(top)), "int64")
