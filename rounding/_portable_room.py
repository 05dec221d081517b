"""Results that the dtype of the input cannot hold: an error, or NaN while a compiler traces and none can be raised."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from lowp._errors import ArgumentError
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat
from lowp.rounding._arrays import no_room
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_bits import FLOAT_TYPES, INFINITE, MASK, SIGN, order_keys, widen, width_of
from lowp.rounding._portable_round import encode_bits, plan_of
from lowp.rounding.lowering import Plan
from lowp.rounding.modes import rounding
from lowp.rounding.request import Request

_NEAREST = rounding("ties_to_even")


def may_be_rounded(fmt: ScalarFormat) -> bool:
    """Whether values of a format are rounded to the dtype: those of codebooks and logarithms."""
    return isinstance(fmt, Codebook) or is_logarithmic(fmt)


def holds_all(fmt: ScalarFormat, name: str) -> bool:
    """Whether a float dtype holds every value of an arithmetic format."""
    kind = FLOAT_TYPES[name]
    if isinstance(fmt, Float):
        least = fmt.emin - fmt.mantissa_bits
        return fmt.mantissa_bits <= kind.mantissa_bits and least >= _least(name) and fmt.emax <= kind.emax
    if not isinstance(fmt, Integer | Fixed):
        return False
    top = fmt.bits - 1 - fmt.fraction_bits
    narrow = fmt.bits - fmt.signed <= kind.mantissa_bits + 1
    return narrow and -fmt.fraction_bits >= _least(name) and top <= kind.emax


def _least(name: str) -> int:
    return FLOAT_TYPES[name].emin - FLOAT_TYPES[name].mantissa_bits


@lru_cache(maxsize=8)
def _dtype_plan(name: str, width: int) -> Plan:
    kind = FLOAT_TYPES[name]
    fmt = Float(kind.width - 1 - kind.mantissa_bits, kind.mantissa_bits)
    return plan_of(fmt, _NEAREST, "infinity_or_nan", width)


def narrow(xp: Namespace, bits: Any, name: str) -> Any:
    """Return float32 or float64 bits as the nearest floats of a dtype; NaN keeps what there is room for."""
    kind, width = FLOAT_TYPES[name], width_of(xp, bits)
    if kind.width == width:
        return bits
    code = encode_bits(xp, bits, _dtype_plan(name, width), None)
    drop = (52 if width == 64 else 23) - kind.mantissa_bits
    top = ((1 << (kind.width - 1)) - 1) ^ ((1 << kind.mantissa_bits) - 1)
    mag = bits & MASK[width]
    payload = (mag & (INFINITE[width] ^ MASK[width])) >> drop
    nan = payload | top
    nan = xp.where(payload == 0, nan | 1 << (kind.mantissa_bits - 1), nan)
    nan = xp.where(bits < 0, nan | 1 << (kind.width - 1), nan)
    return xp.cast(xp.where(mag > INFINITE[width], nan, code), f"int{kind.width}")


def into_dtype(xp: Namespace, bits: Any, name: str, fmt: ScalarFormat, exact: bool = False) -> Any:
    """Return rounded float32 or float64 bits as bits of the caller's dtype, which must hold the values.

    Args:
        xp: Namespace.
        bits: The rounded numbers.
        name: The caller's dtype.
        fmt: Their format.
        exact: Whether the dtype is known to hold them all.

    Raises:
        RangeError: It does not hold one of them, and the numbers can be looked at; else that one becomes NaN.
    """
    width = width_of(xp, bits)
    if FLOAT_TYPES[name].width == width:
        return bits
    if exact or holds_all(fmt, name):
        return narrow(xp, bits, name)
    bits = xp.computed_once(bits)
    narrowed = xp.computed_once(narrow(xp, bits, name))
    back = widen(xp, narrowed, name, width)
    if may_be_rounded(fmt):
        held = ((back & MASK[width]) < INFINITE[width]) == ((bits & MASK[width]) < INFINITE[width])
    else:
        held = back == bits
    held = held | ((bits & MASK[width]) > INFINITE[width])
    if xp.require(held, bits, lambda: no_room(fmt.name, name)):
        return narrowed
    return xp.where(held, narrowed, nan_bits(name))


def nan_bits(name: str) -> int:
    """Return the bits of the NaN that stands for a number without room."""
    kind = FLOAT_TYPES[name]
    return ((1 << (kind.width - 1)) - 1) ^ ((1 << (kind.mantissa_bits - 1)) - 1)


def check_saturation(fmt: ScalarFormat, request: Request, name: str) -> None:
    """Raise ArgumentError if large numbers become one that the dtype cannot hold, since a compiler would hide it."""
    if not isinstance(fmt, Float | Integer | Fixed) or holds_all(fmt, name) or fmt.bits > 64:
        return
    if request.overflow in ("wrap", "wrap_sign_magnitude", "saturate_symmetric"):
        return
    plan = plan_of(fmt, request.mode, request.overflow, 64)
    ends = (plan.overflow_bits, plan.overflow_bits_negative, plan.infinity_bits, plan.infinity_bits_negative)
    for value in np.array([*ends, plan.zero_bits, plan.tiny_bits], np.int64).view(np.float64).tolist():
        if np.isfinite(value) and not _held(value, name):
            raise ArgumentError(
                f"fmt={fmt.name!r} with overflow={request.overflow!r} can give {value!r}, which dtype {name} cannot "
                "hold, and while a compiler traces no number can be looked at. Pass a wider dtype (JAX makes float64 "
                "with jax_enable_x64), another overflow mode, or encode instead."
            )


def _held(value: float, name: str) -> bool:
    from lowp.rounding._namespaces import namespace_of

    bits = np.array([value]).view(np.int64)
    xp = namespace_of(bits)
    return bool((widen(xp, narrow(xp, bits, name), name, 64) & MASK[64] | (bits & SIGN[64]) == bits).all())


def inside_range(xp: Namespace, x: Any, fmt: ScalarFormat) -> Any:
    """Return where floats lie between the ends of a format: where "clipped" gradients pass."""
    name = xp.dtype_name(x)
    with xp.wide():
        keys = order_keys(xp, widen(xp, xp.bits(x), name, 64))
        bits = np.array([fmt.min, fmt.max]).view(np.int64)
        low, high = (int(n) for n in np.where(bits < 0, -(bits & MASK[64]), bits))
        return (keys >= low) & (keys <= high)
