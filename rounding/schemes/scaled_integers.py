"""What packed formats of scaled integers are made of: integers by any rounding mode, sign and magnitude, scales."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, PrecisionWarning
from lowp.formats.float_format import Float
from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.formats.tables import code_dtype, decode_codes
from lowp.rounding import _exact_steps
from lowp.rounding._scalar import encode_values, integer_values
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request

#: Beyond it every quotient saturates, and still below the range of 64-bit integers.
_FAR = 2.0**40


def rounded_integers(x: NDArray[Any], unit: NDArray[Any], top: int, request: Request) -> NDArray[np.int64]:
    """Return `x / unit` rounded once by the request's mode and clamped to -top .. top; 0 where it is NaN.

    Random bits count positions in the padded blocks.
    """
    quotient = _exact_steps.divide(x, np.broadcast_to(unit, x.shape))
    clipped = np.clip(np.nan_to_num(quotient, nan=0.0), -_FAR, _FAR)
    return np.clip(integer_values(clipped, Integer(32), request), -top, top)


def sign_magnitude(x: NDArray[Any], magnitude: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return codes of `bits` magnitude bits below the sign of `x`; a negative number that rounds to zero is -0."""
    codes = np.abs(magnitude).astype(np.int64) | np.signbit(x).astype(np.int64) << bits
    return np.asarray(codes.astype(code_dtype(bits + 1)))


def from_sign_magnitude(codes: NDArray[Any], bits: int) -> NDArray[np.float64]:
    """Return the numbers that such codes stand for, -0 among them."""
    magnitude = (codes & codes.dtype.type((1 << bits) - 1)).astype(np.float64)
    return np.asarray(np.where(codes >> bits, -magnitude, magnitude))


def twos_complement(n: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return the two's-complement codes of integers."""
    return np.asarray((n & ((1 << bits) - 1)).astype(code_dtype(bits)))


def from_twos_complement(codes: NDArray[Any], bits: int) -> NDArray[np.float64]:
    """Return the integers that two's-complement codes stand for."""
    return decode_codes(codes, Integer(bits))


def stored_scales(wanted: NDArray[np.float64], scale: Float) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return codes and values of numbers rounded to nearest even in `scale`: saturating, NaN where not finite."""
    bad = ~np.isfinite(wanted)
    clean = np.where(bad, 0.0, wanted)
    if (np.abs(clean) > scale.max).any():
        warnings.warn(
            f"a block needs a scale beyond {scale.name!r}, which ends at {scale.max}; its values clip. Divide x first.",
            PrecisionWarning,
            stacklevel=2,
        )
    codes = encode_values(np.ascontiguousarray(clean), scale, scale_request("ties_to_even"))
    assert scale.nan_code is not None
    codes = np.where(bad, codes.dtype.type(scale.nan_code), codes)
    return codes, decode_codes(codes, scale)


def only_nearest(request: Request, fmt: Packed) -> None:
    """Raise ArgumentError for a rounding mode that a scheme with a rounding of its own cannot follow."""
    if request.mode.name != "ties_to_even":
        raise ArgumentError(f"rounding={request.mode.name!r}: {fmt.name!r} has a rounding of its own; leave it out.")
