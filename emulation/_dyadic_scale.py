"""Dyadic numbers b / 2^c in place of real scales, and the requantisation by them, in integers and in float64."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, RangeError, unknown_name
from lowp.emulation import _integer_arithmetic as integers
from lowp.formats.integer import Integer
from lowp.formats.parse import parse
from lowp.rounding import verbs
from lowp.rounding.modes import rounding as rounding_mode

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DyadicScale:
    """Numbers `multiplier / 2^shift` that stand for real scales, so that scaling needs a multiplication and a shift.

    Args:
        multiplier: b, int64, `0 < b < 2^bits`.
        shift: c, int64; negative: to the left. Both of one shape: that of a scale, or one for each channel.
        bits: Bits of b, 1 to 31.

    Raises:
        ArgumentError: A multiplier out of range, or arrays that do not match.

    Source:
        Z. Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021, arXiv 2011.10680, section 3.1.
    """

    multiplier: NDArray[np.int64]
    shift: NDArray[np.int64]
    bits: int = 31

    def __post_init__(self) -> None:
        check_width("bits", self.bits, 1, 31)
        b, c = np.asarray(self.multiplier), np.asarray(self.shift)
        if b.dtype.kind != "i" or c.dtype.kind != "i" or b.shape != c.shape or b.ndim > 1:
            raise ArgumentError("multiplier and shift must be signed integers, one of each or one for each channel.")
        if (b <= 0).any() or (b >> self.bits != 0).any():
            raise ArgumentError(f"multiplier={self.multiplier!r} must be positive and have at most {self.bits} bits.")
        object.__setattr__(self, "multiplier", b.astype(np.int64))
        object.__setattr__(self, "shift", c.astype(np.int64))

    @classmethod
    def of(cls, real: float | Fraction | ArrayLike, bits: int = 31) -> DyadicScale:
        """Return the dyadic numbers next to real ones, as `batch_frexp` of HAWQ-V3's code finds them.

        `real = m * 2^e`, `1/2 <= m < 1`; b is `m * 2^bits` rounded to nearest, ties away from zero, and `c = bits - e`.
        A b that rounds up to `2^bits` is halved, with c, so that it keeps its bits; its value is HAWQ's.

        Args:
            real: Positive finite numbers, taken exactly.
            bits: Bits of b, 1 to 31.

        Raises:
            ArgumentError: Other numbers.

        Example:
            >>> scale = DyadicScale.of(0.3, bits=8)
            >>> int(scale.multiplier), int(scale.shift), scale.exact()
            (154, 9, Fraction(77, 256))
        """
        check_width("bits", bits, 1, 31)
        given = np.asarray(real, object) if isinstance(real, Fraction) else np.asarray(real)
        pairs = [_dyadic(x, bits) for x in given.ravel().tolist()]
        b, c = np.array(pairs, np.int64).reshape(-1, 2).T
        return cls(b.reshape(given.shape), c.reshape(given.shape), bits)

    def exact(self) -> Any:
        """Return the value as a Fraction; a list of those of channels."""
        pairs = zip(self.multiplier.ravel().tolist(), self.shift.ravel().tolist(), strict=True)
        values = [Fraction(b) / Fraction(2) ** c for b, c in pairs]
        return values[0] if self.multiplier.ndim == 0 else values

    def apply(self, z: ArrayLike, fmt: str | Integer = "int8", *, rounding: str = "ties_to_even") -> NDArray[Any]:
        """Return integers times the scale, rounded and saturated to a format, computed with integers alone.

        `z * b` is exact in 63 bits; then comes a shift right by c that rounds once. "ties_to_even" is what HAWQ-V3's
        code does (`torch.round`), "ties_to_positive" what adding `2^(c - 1)` before a plain shift does (TVM), and
        "toward_negative" the plain shift.

        Args:
            z: Integers of at most 32 bits, signed; scales of channels belong to axis 1.
            fmt: An integer format.
            rounding: A deterministic rounding mode.

        Returns:
            Integers, of the narrowest dtype that holds the format.

        Raises:
            ArgumentTypeError: `z` is not of an integer dtype.
            RangeError: `z` holds a number of more than 32 bits.

        Example:
            >>> DyadicScale.of(0.5).apply([-3, -1, 1, 3, 500]), DyadicScale.of(0.5).apply([-3, -1, 1], rounding="floor")
            (array([ -2,   0,   0,   2, 127], dtype=int8), array([-2, -1,  0], dtype=int8))
        """
        codes = np.asanyarray(z)
        if codes.dtype.kind not in "iu":
            raise ArgumentTypeError(f"z must be integers, not of dtype {codes.dtype}.")
        if codes.dtype.itemsize > 4 or codes.dtype == np.uint32:
            _check_range(codes)
        target = integer_format(fmt, "fmt")
        b, c = (along_channels(x, codes.ndim) for x in (self.multiplier, self.shift))
        return integers.requantized(
            codes.astype(np.int64), b, c, int(target.min), int(target.max), storage(target), integer_rounding(rounding)
        )

    def emulate(self, z: ArrayLike, fmt: str | Integer = "int8", *, rounding: str = "ties_to_even") -> Floats:
        """Return what `apply` returns, computed in float64: exactly, though `z * b` has up to 63 bits.

        The product is rounded to odd to 53 bits, which keeps what rounds to a format of at most 32 bits. (HAWQ's code
        rounds it to nearest there, and then once more: it may differ from integers at what is almost a tie.)

        Example:
            >>> DyadicScale.of(0.5).emulate([-3.0, -1.0, 1.0, 3.0, 500.0])
            array([ -2.,   0.,   0.,   2., 127.])
        """
        values = np.asarray(z, np.float64)
        b, c = (along_channels(x, values.ndim) for x in (self.multiplier, self.shift))
        scaled = np.ldexp(_product_to_odd(values, b.astype(np.float64)), np.clip(-c, -64, 64).astype(np.int32))
        target, mode = integer_format(fmt, "fmt"), integer_rounding(rounding)
        return np.asarray(verbs.quantize(scaled, target, rounding=mode, overflow="saturate"), np.float64)


def check_width(name: str, value: Any, least: int, most: int) -> int:
    """Return a number of bits.

    Raises:
        ArgumentError: It is none, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ArgumentError(f"{name}={value!r} must be an integer from {least} to {most}.")
    return value


def _dyadic(real: object, bits: int) -> tuple[int, int]:
    if isinstance(real, bool) or not isinstance(real, int | float | Fraction) or not 0 < real < float("inf"):
        raise ArgumentError(f"real holds {real!r}; scales are positive finite numbers.")
    exact = Fraction(real)
    e = exact.numerator.bit_length() - exact.denominator.bit_length()
    e += exact >= Fraction(2) ** e  # now 2^(e - 1) <= real < 2^e
    b = int(exact * Fraction(2) ** (bits - e) + Fraction(1, 2))
    return (b, bits - e) if b < 1 << bits else (b // 2, bits - e - 1)


def _check_range(codes: NDArray[Any]) -> None:
    if codes.size and (codes.min() < -(1 << 31) or codes.max() >= 1 << 31):
        raise RangeError("z holds integers of more than 32 bits; accumulators have at most 32.")


def _product_to_odd(z: Floats, b: Floats) -> Floats:
    """Return products of integers of up to 32 bits in float64, rounded to odd."""
    high = np.floor(b / 65536.0)
    first, second = z * (high * 65536.0), z * (b - high * 65536.0)  # both exact: 47 and 48 bits
    total = first + second
    back = total - first
    error = (first - (total - back)) + (second - back)  # exact: Knuth's two-sum
    even = (total.view(np.int64) & 1) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & even, np.nextafter(total, towards), total)


def along_channels(x: NDArray[Any], ndim: int) -> NDArray[Any]:
    """Return numbers of channels in the shape that meets axis 1 of an array."""
    return x if x.ndim == 0 else x.reshape(-1, *[1] * (ndim - 2))


def integer_format(fmt: Any, name: str) -> Integer:
    """Return an integer format.

    Raises:
        ArgumentError: It is another one.
    """
    found = parse(fmt)
    if not isinstance(found, Integer):
        raise ArgumentError(f"{name}={fmt!r} must be an integer format such as 'int8' or 'uint4'.")
    return found


def integer_rounding(name: str) -> str:
    """Return the name of a deterministic rounding mode.

    Raises:
        ArgumentError: It is none.
    """
    found = rounding_mode(name).name
    if found not in integers.MODES:
        raise ArgumentError(unknown_name("rounding", name, integers.MODES))
    return found


def storage(fmt: Integer) -> Any:
    """Return the narrowest NumPy dtype that holds a format's integers."""
    width = next(w for w in (8, 16, 32) if fmt.bits <= w)
    return np.dtype(f"{'int' if fmt.signed else 'uint'}{width}").type
