"""QRazor and SQ-format as array code: `lowp.rounding.schemes.razor` and `sq` step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lowp._errors import RangeError
from lowp.formats.block import FLOAT32
from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_numbers import (
    amax,
    from_sign_magnitude,
    power_of_two,
    rounded_magnitude,
    sign_magnitude,
)
from lowp.rounding._portable_scales import exponents_of, scale_values, stored_scales
from lowp.rounding._portable_shapes import joined
from lowp.rounding.request import Request
from lowp.rounding.schemes.scaled_integers import only_nearest

Fields = dict[str, Any]
_FLOAT16 = Float(5, 10)


def _over_top(xp: Any, size: Any, top: int) -> Any:
    return doubles.quotient(xp, size, xp.full_like(size, top), odd=True)


def encode_razored(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Round a row to integers, and keep those bits of each group that follow its leading one."""
    only_nearest(request, fmt)
    top = (1 << (fmt.option("base_bits") - 1)) - 1
    kept: int = fmt.option("magnitude_bits")
    x = doubles.widen(xp, blocks)
    scales, unit = stored_scales(xp, _over_top(xp, amax(xp, x, (1, 2)), top), FLOAT32)
    x = xp.where(doubles.is_nan(xp, unit), 0.0, x)
    some = unit > 0
    n = rounded_magnitude(xp, xp.where(some, x, 0.0), xp.where(some, unit, 1.0), top, request)
    leading = exponents_of(xp, amax(xp, xp.cast(n, "float64")))
    shifts = xp.maximum(leading - kept, 0)
    rounded = (n + ((xp.full_like(shifts, 1) << shifts) >> 1)) >> shifts
    magnitude = xp.where(rounded >> kept != 0, n >> shifts, rounded)
    return {"codes": sign_magnitude(xp, x, magnitude, kept), "shifts": shifts, "scales": scales[:, 0]}


def decode_razored(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Return integers shifted back times the scale of the row."""
    integers = from_sign_magnitude(xp, fields["codes"], fmt.option("magnitude_bits"))
    return integers * power_of_two(xp, fields["shifts"]) * scale_values(xp, fields["scales"], FLOAT32)[:, :, None]


def _ranks(xp: Any, keys: Any) -> Any:
    """Return the place of each key in ascending order along the last axis, equal ones in the order they have."""
    return _order(xp, _order(xp, keys))


def _order(xp: Any, keys: Any) -> Any:
    if xp.name == "torch":
        return keys.argsort(dim=-1, stable=True)
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.argsort(keys, axis=-1, stable=True)
    return keys.argsort(axis=-1, kind="stable")


def _picked(xp: Any, x: Any, places: Any) -> Any:
    """Return the elements of the last axis at places that lie in it."""
    if xp.name == "torch":
        return x.gather(-1, places)
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.take_along_axis(x, places, axis=-1, mode="promise_in_bounds")
    import numpy as np

    return np.take_along_axis(x, places, axis=-1)


def _widths(fmt: Packed) -> dict[str, int]:
    return {field.name: field.bits for field in fmt.fields}


def _part(xp: Any, x: Any, mask: Any, bits: int, request: Request) -> tuple[Any, Any]:
    """Return the codes that all values would have in one part, and the code of its scale."""
    top = (1 << (bits - 1)) - 1
    size = amax(xp, xp.where(mask, x, 0.0))
    scales, values = stored_scales(xp, _over_top(xp, size, top), _FLOAT16)
    some = values > 0
    chosen = xp.where(mask & some, x, 0.0)
    n = rounded_magnitude(xp, chosen, xp.where(some, values, 1.0), top, request)
    return xp.where(doubles.bits_of(xp, chosen) < 0, -n, n) & ((1 << bits) - 1), scales


def encode_sparse(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Split each bank into its largest values and the others, and round both parts to integers."""
    widths, count = _widths(fmt), fmt.fields[0].count
    x = doubles.widen(xp, blocks)
    x = xp.where(doubles.is_finite(xp, amax(xp, x)), x, math.nan)
    ranks = _ranks(xp, -doubles.size_of(xp, x))
    mask = ranks < count
    first = _order(xp, xp.cast(~mask, "int64"))  # places of the high values, then of the others
    high, scales = _part(xp, x, mask, widths["high"], request)
    fields: Fields = {"high": _picked(xp, high, first[..., :count])}
    if "low" in widths:
        low, low_scales = _part(xp, x, ~mask, widths["low"], request)
        with_mask = "mask" in widths
        low = _picked(xp, low, first[..., count:]) if with_mask else xp.where(mask, 1 << (widths["low"] - 1), low)
        fields["low"], scales = low, joined(xp, [scales, low_scales], -1)
    if "mask" in widths:
        fields["mask"] = xp.cast(mask, "int64")
    return fields | {"scales": scales}


def _signed(xp: Any, codes: Any, bits: int) -> Any:
    return xp.cast(codes - ((codes >> (bits - 1)) << bits), "float64")


def decode_sparse(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Put the high values between the low ones; NaN, where a compiler traces, in banks that mark another number."""
    widths, count = _widths(fmt), fmt.fields[0].count
    scales = scale_values(xp, fields["scales"], _FLOAT16)
    mask = fields["mask"] != 0 if "mask" in widths else fields["low"] == 1 << (widths["low"] - 1)
    marked = xp.cast(mask, "int64")
    total = marked.sum(-1)[..., None]
    right = total == count
    known = xp.require(right, fields["high"], lambda: _wrong_count(fmt, count))
    place = marked.cumsum(-1)
    high = _picked(xp, fields["high"], xp.minimum(xp.maximum(place - 1, 0), count - 1))
    values = _signed(xp, high, widths["high"]) * scales[..., :1]
    others = xp.full_like(values, 0.0)
    if "low" in widths:
        low = fields["low"]
        if "mask" in widths:
            past = (1 - marked).cumsum(-1) - 1
            low = _picked(xp, low, xp.minimum(xp.maximum(past, 0), low.shape[-1] - 1))
        others = _signed(xp, low, widths["low"]) * scales[..., 1:]
    values = xp.where(mask, values, others)
    return values if known else xp.where(right, values, math.nan)


def _wrong_count(fmt: Packed, count: int) -> RangeError:
    return RangeError(f"a bank of {fmt.name!r} must mark {count} high values; these bytes mark another number.")


Coders = tuple[Callable[[Any, Any, Packed, Request], Fields], Callable[[Any, Fields, Packed], Any]]
CODERS: dict[str, Coders] = {
    "razor.razored": (encode_razored, decode_razored),
    "sq.sparse_quantized": (encode_sparse, decode_sparse),
}
