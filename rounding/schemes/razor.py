"""QRazor: significant data razoring of integers, group by group.

A row becomes integers of `base_bits` with one float32 scale, `amax / (2^(base_bits - 1) - 1)` to nearest; integers are
the exact quotients rounded to nearest even. The leading one of the magnitudes' OR is the group's razoring point:
`magnitude_bits` bits from there on are kept, rounded half up at the last kept bit, or cut where rounding would need one
more bit. Since that decides the result, other rounding modes are refused. The group stores by how many bits its
integers were shifted; codes are the sign above the kept magnitude.
A row with NaN or infinity is all NaN, since its scale is. QRazor has scales per channel of weights and per tensor or
token of activations; here they are per row along the blocked axis.
Source: QRazor, arXiv:2501.13331. Read from its abstract and a review: group sizes, the width of the stored shift
(enough for `base_bits`) and that the sign is one of the four kept bits are assumed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import FLOAT32
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding import _exact_steps
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import (
    from_sign_magnitude,
    only_nearest,
    rounded_integers,
    sign_magnitude,
    stored_scales,
)


def razor(integers: NDArray[np.int64], kept: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return magnitudes of at most `kept` bits and the shift of each group, the last axis.

    Example:
        >>> magnitudes, shifts = razor(np.array([[93, -11, 7]]), 3)
        >>> magnitudes.tolist(), shifts.tolist()
        ([[6, 1, 0]], [[4]])
    """
    magnitude = np.abs(integers)
    leading = np.frexp(np.bitwise_or.reduce(magnitude, axis=-1, keepdims=True).astype(np.float64))[1]
    shifts = np.maximum(leading.astype(np.int64) - kept, 0)
    half = np.int64(1) << shifts >> 1
    rounded = (magnitude + half) >> shifts
    return np.where(rounded >> kept, magnitude >> shifts, rounded), shifts


def _encode(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    top = (1 << (fmt.option("base_bits") - 1)) - 1
    kept: int = fmt.option("magnitude_bits")
    amax = np.abs(x).max(axis=(1, 2), initial=0.0).astype(np.float64)[:, None]
    wanted = _exact_steps.divide(amax, np.full_like(amax, top))
    scales, values = stored_scales(wanted, FLOAT32)
    unit = values[:, :, None]
    x = np.where(np.isnan(unit), x.dtype.type(0), x)
    integers = rounded_integers(np.where(unit > 0, x, 0), np.where(unit > 0, unit, 1.0), top, request)
    magnitudes, shifts = razor(integers, kept)
    return {"codes": sign_magnitude(x, magnitudes, kept), "shifts": shifts, "scales": scales}


def _decode(fields: Fields, fmt: Packed) -> NDArray[Any]:
    integers = np.ldexp(
        from_sign_magnitude(fields["codes"], fmt.option("magnitude_bits")), fields["shifts"].astype(np.int64)
    )
    return integers * decode_codes(fields["scales"], FLOAT32)[:, :, None]


SCHEMES: dict[str, Scheme] = {"razored": Scheme(_encode, _decode)}
