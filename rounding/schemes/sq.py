"""SQ-format: the largest values of each bank in a high precision, the others in a low one.

A bank holds a fixed number of high-precision values: those of largest magnitude, of equal ones the first (the paper's
rule for dynamic activations; its importance of weights needs calibration data). Both parts are symmetric integers in
two's complement with a float16 scale of their own, `amax / (2^(bits - 1) - 1)` to nearest even (that width is
assumed); values are the exact quotients, rounded by the caller's mode, saturating.
"high" holds the high codes in order. "low" holds a code for every value of the bank, where the code that symmetric
integers leave out, `2^(bits - 1)`, says that the value is the next of the high ones. Formats with a mask store one bit
per value instead, 1 for high, and low codes for the others only. Scales: high, then low. Low precision of 0 bits is
zero. A bank with NaN or infinity is all NaN, but for low precision of 0 bits.
Stored bits that mark another number of high values than the bank has raise RangeError when they are decoded.
Source: SQ-format, arXiv:2512.05409, algorithms 1 and 2 as others describe them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import RangeError
from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding import _exact_steps
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import (
    from_twos_complement,
    rounded_integers,
    stored_scales,
    twos_complement,
)

_FLOAT16 = Float(5, 10)


def _widths(fmt: Packed) -> dict[str, int]:
    return {field.name: field.bits for field in fmt.fields}


def high_mask(x: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Return which `count` values of each bank have the largest magnitudes, NaN first; of equal ones the first.

    Example:
        >>> high_mask(np.array([[1.0, -3.0, 3.0, 0.5]]), 2).tolist()
        [[False, True, True, False]]
    """
    magnitude = np.where(np.isnan(x), np.inf, np.abs(x))
    order = np.argsort(-magnitude, axis=-1, kind="stable")
    mask = np.zeros(x.shape, np.bool_)
    np.put_along_axis(mask, order[..., :count], True, axis=-1)
    return mask


def _part(x: NDArray[Any], mask: NDArray[np.bool_], bits: int, request: Request) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the codes that all values would have in one part, and the code of its scale."""
    top = (1 << (bits - 1)) - 1
    amax = np.where(mask, np.abs(x), 0).max(axis=-1, keepdims=True).astype(np.float64)
    scales, values = stored_scales(_exact_steps.divide(amax, np.full_like(amax, top)), _FLOAT16)
    usable = mask & (values > 0)
    n = rounded_integers(np.where(usable, x, 0), np.where(values > 0, values, 1.0), top, request)
    return twos_complement(n, bits), scales


def _encode(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    widths = _widths(fmt)
    count = fmt.fields[0].count
    x = np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, np.nan)
    mask = high_mask(x, count)
    high, high_scale = _part(x, mask, widths["high"], request)
    fields: Fields = {"high": _chosen(high, mask, count)}
    scales = [high_scale]
    if "low" in widths:
        low, low_scale = _part(x, ~mask, widths["low"], request)
        sentinel = low.dtype.type(1 << (widths["low"] - 1))
        with_mask = "mask" in widths
        fields["low"] = _chosen(low, ~mask, fmt.block_elements - count) if with_mask else np.where(mask, sentinel, low)
        scales.append(low_scale)
    if "mask" in widths:
        fields["mask"] = mask
    return fields | {"scales": np.concatenate(scales, axis=-1)}


def _chosen(codes: NDArray[Any], mask: NDArray[np.bool_], count: int) -> NDArray[Any]:
    return codes[mask].reshape(*codes.shape[:-1], count)


def _decode(fields: Fields, fmt: Packed) -> NDArray[Any]:
    widths = _widths(fmt)
    scales = decode_codes(fields["scales"], _FLOAT16)
    mask = fields["mask"].astype(np.bool_) if "mask" in widths else fields["low"] == 1 << (widths["low"] - 1)
    count = fmt.fields[0].count
    if (mask.sum(axis=-1) != count).any():
        raise RangeError(f"a bank of {fmt.name!r} must mark {count} high values; these bytes mark another number.")
    values = np.zeros(mask.shape)
    if "low" in widths:
        low = from_twos_complement(fields["low"], widths["low"]) * scales[..., 1:]
        values[~mask] = low.reshape(-1) if "mask" in widths else low[~mask]
    values[mask] = (from_twos_complement(fields["high"], widths["high"]) * scales[..., :1]).reshape(-1)
    return values


SCHEMES: dict[str, Scheme] = {"sparse_quantized": Scheme(_encode, _decode)}
