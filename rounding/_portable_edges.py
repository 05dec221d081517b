"""What `_edges` and `_wrap` do, on 64-bit integers: DLFloat's gap above zero, and overflow that wraps around."""

from __future__ import annotations

from typing import Any

from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_bits import MASK, with_sign
from lowp.rounding._portable_round import integers, plan_of
from lowp.rounding.modes import rounding
from lowp.rounding.request import Request

_FLOOR = rounding("toward_negative")


def below_gap(xp: Namespace, bits: Any, fmt: ScalarFormat) -> Any:
    """Return float64 bits with the numbers below a DLFloat's smallest value scaled to lie below 2^emin.

    The quotient by `1 + 2^-m` is rounded to odd by long division.
    """
    if not isinstance(fmt, Float) or fmt.specials != "dlfloat":
        return bits
    m, mag = fmt.mantissa_bits, bits & MASK[64]
    least = ((fmt.emin + 1023) << 52) | (1 << (52 - m))
    field = mag >> 52
    significand = xp.where(field > 0, (1 << 52) | mag & ((1 << 52) - 1), mag)
    divisor = (1 << m) + 1  # x / (1 + 2^-m) = x * 2^m / divisor
    quotient, rest = significand // divisor, significand % divisor
    more = rest << (m + 2)
    scaled_up = (quotient << (m + 2)) + more // divisor  # 4 times the quotient's last place
    sticky = more % divisor != 0
    below = scaled_up < 1 << 54  # one binade down
    drop = xp.where(below & (field > 1), 1, xp.full_like(mag, 2))
    kept = scaled_up >> drop
    sticky = sticky | (kept << drop != scaled_up)
    kept = kept | xp.cast(sticky, "int64")
    base = xp.where(field > 1, field - xp.cast(below, "int64") - 1, 0) << 52
    inside = (mag < least) & (mag != 0)
    return xp.where(inside, with_sign(xp, kept + base, bits < 0), bits)


def wrapped(xp: Namespace, bits: Any, fmt: Integer | Fixed, request: Request, word: Any) -> Any:
    """Return float64 bits as integers inside the range of a format, by its wrapping overflow modes; NaN as 0."""
    bits = xp.where((bits & MASK[64]) > 0x7FF0000000000000, 0, bits)
    n = integers(xp, bits, plan_of(fmt, request.mode, request.overflow, 64), word)
    if request.overflow == "saturate_symmetric":
        return xp.minimum(xp.maximum(n, -fmt.max_integer if fmt.signed else 0), fmt.max_integer)
    code = n & ((1 << fmt.bits) - 1)
    over = (n > fmt.max_integer) | (n < (-(1 << (fmt.bits - 1)) if fmt.signed else 0))
    if request.overflow == "wrap":
        turned = _wrap(xp, n, code, fmt, request.saturation_bits)
    else:
        floor = integers(xp, bits, plan_of(fmt, _FLOOR, request.overflow, 64), None)
        turned = _wrap_sign_magnitude(xp, n, floor, code, fmt, request.saturation_bits)
    code = xp.where(over, turned, code)
    result = code - (code >> (fmt.bits - 1) << fmt.bits) if fmt.signed else code
    return xp.maximum(result, fmt.min_integer)


def _ones(count: int, above: int) -> int:
    return ((1 << max(count, 0)) - 1) << above


def _wrap(xp: Namespace, n: Any, code: Any, fmt: Integer | Fixed, bits: int) -> Any:
    if bits == 0:
        return code
    w = fmt.bits
    if not fmt.signed:
        return code | _ones(bits, w - bits)
    kept = code & _ones(w - bits, 0)
    return xp.where(n < 0, kept | 1 << (w - 1), kept | _ones(bits - 1, w - bits))


def _wrap_sign_magnitude(xp: Namespace, n: Any, floor: Any, code: Any, fmt: Integer | Fixed, bits: int) -> Any:
    w = fmt.bits
    everything, top = _ones(w, 0), w - 1
    sign = xp.cast(n < 0, "int64")
    if bits > 1:
        inverted = xp.where((code >> (w - bits)) & 1 == sign, code ^ everything, code)
        middle = _ones(bits - 1, w - bits)
        body = xp.where(sign == 1, inverted & ~middle, inverted | middle)
        return (body & ~(1 << top)) | sign << top
    wanted = sign if bits == 1 else (floor >> w) & 1  # the lowest bit that is dropped
    inverted = xp.where((code >> top) != wanted, code ^ everything, code)
    return (inverted & ~(1 << top)) | wanted << top
