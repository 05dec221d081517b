"""Posits, takums and logarithmic numbers on arrays: which of three ways serves a format and a mode.

Linear takums and posits round by integer operations on the input's bits. Logarithmic formats of at most 16 bits are
sorted tables of decision points. Wider ones, and stochastic modes, estimate in float64 and decide exactly where the
estimate is too close to call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.logarithms import is_logarithmic
from lowp.formats.ranked import RankedFormat, TaperedFormat
from lowp.formats.tables import decode_codes
from lowp.rounding import _estimates, _search, _tapered
from lowp.rounding._arrays import widen
from lowp.rounding.request import Request


def encode_ranked(x: NDArray[Any], fmt: RankedFormat, request: Request, start: int) -> NDArray[Any]:
    """Return the codes of contiguous floats; NaN only where the format has NaN."""
    if request.mode.variant == 0 and has_exponent_rows(fmt):
        assert isinstance(fmt, TaperedFormat)
        return _tapered.encode(x, fmt, request.mode)
    if request.mode.variant == 0 and fmt.bits <= 16:
        return _search.encode(x, fmt, request.mode, request.overflow)
    return _estimates.encode(widen(x), fmt, request, start)


def quantize_ranked(
    x: NDArray[Any], fmt: RankedFormat, request: Request, out: NDArray[Any] | None, start: int
) -> NDArray[Any]:
    """Return the values that contiguous floats round to; float64 where float32 does not hold all values."""
    nan = np.isnan(x) if not fmt.has_nan else None
    if request.mode.variant == 0 and fmt.bits <= 16 and has_exponent_rows(fmt):
        assert isinstance(fmt, TaperedFormat)
        return _tapered.quantize(x, fmt, request.mode, out)
    if request.mode.variant == 0 and fmt.bits <= 16:
        return _search.quantize(x, fmt, request.mode, request.overflow)
    clean = x if nan is None else np.where(nan, x.dtype.type(1), x)
    codes = encode_ranked(clean, fmt, request, start)
    if has_exponent_rows(fmt):
        assert isinstance(fmt, TaperedFormat)
        return _tapered.decode(codes, fmt)
    values = decode_codes(codes, fmt)
    if nan is not None:
        values[nan] = np.nan
    return values


def has_exponent_rows(fmt: RankedFormat) -> bool:
    """Whether every binade of the format is cut into equal steps of the value."""
    return isinstance(fmt, TaperedFormat) and not is_logarithmic(fmt)
