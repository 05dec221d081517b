"""The one rounding of arithmetic formats as array code: `_kernels` on int32 (float32 numbers) or int64 arrays.

Both widths give the bits that the compiled kernels give. For float32 numbers 32 bits suffice: significands have 24,
and the random words are compared as unsigned numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_bits import INFINITE, MANTISSA, MASK, SIGN, width_of
from lowp.rounding._portable_words import shift_right, signed
from lowp.rounding.lowering import Plan, lower
from lowp.rounding.modes import ABOVE_HALF, BELOW_HALF, HALF, Rounding

#: Largest shift of an integer; all significands are shorter.
_FAR = {32: 30, 64: 62}
#: Most that a whole number is shifted left; larger ones are past every range.
_LEFT = {32: 7, 64: 11}


@lru_cache(maxsize=512)
def plan_of(fmt: Float | Integer | Fixed, mode: Rounding, overflow: str, width: int) -> Plan:
    """Return the plan with its integers as signed ones of `width` bits."""
    plan = lower(fmt, mode, overflow, width)
    plan = plan._replace(normal_bits=min(plan.normal_bits, MASK[width]))
    return Plan(*(signed(n, width) for n in plan))


def steps_away(xp: Namespace, rest: Any, half: Any, negative: Any, odd: Any, table: int) -> Any:
    """Return where a deterministic mode's truth table rounds away from zero, given the dropped part and its half."""
    cases: dict[int, Callable[[], Any]] = {
        BELOW_HALF: lambda: (rest < half) & (rest != 0),
        HALF: lambda: (rest == half) & (rest != 0),
        ABOVE_HALF: lambda: rest > half,
    }
    away = None
    for position, holds in cases.items():
        entries = table >> (4 * position) & 15
        if entries:
            case = holds() if entries == 15 else holds() & _entry(entries, negative, odd)
            away = case if away is None else away | case
    return rest < 0 if away is None else away


def _entry(entries: int, negative: Any, odd: Any) -> Any:
    """Look up four truth values by (negative, odd), of which not all are the same."""
    if entries & 3 == entries >> 2:
        return odd if entries & 3 == 2 else ~odd
    if entries in (0b0011, 0b1100):
        return negative if entries == 0b1100 else ~negative
    positive_part, negative_part = _pair(entries & 3, odd), _pair(entries >> 2, odd)
    return (negative & negative_part) | (~negative & positive_part)


def _pair(entries: int, odd: Any) -> Any:
    return {0: odd & ~odd, 1: ~odd, 2: odd, 3: odd | ~odd}[entries]


def stochastic_away(xp: Namespace, rest: Any, shift: Any, mode: Rounding, word: Any) -> Any:
    """Return where a stochastic mode rounds away from zero; `rest / 2^shift` is the dropped fraction.

    With q = 2^N - 1 - R, mode A asks floor(nu 2^N) > q; the others let the next bits decide where the two are equal.
    """
    if mode.variant == 4:
        return (rest != 0) & (word < 0)
    width, n = width_of(xp, rest), mode.random_bits
    far = _FAR[width]
    k = xp.minimum(shift - n, far)
    down, up = xp.maximum(k, 0), xp.minimum(xp.maximum(-k, 0), far + 1)
    whole = xp.where(k >= 0, rest >> down, rest << up)
    q = shift_right(~word, 32 - n)
    if width == 64:
        q = xp.cast(q, "int64") & 0xFFFFFFFF
        more = whole > q
    else:
        more = (whole ^ SIGN[32]) > (q ^ SIGN[32])
    if mode.variant == 1:
        return more
    if mode.variant == 2:
        return more | ((whole == q) & (k > 0) & (rest >> xp.maximum(k - 1, 0) & 1 == 1))
    dropped, half = rest & ((1 << down) - 1), (1 << down) >> 1
    nearer = (dropped > half) | ((dropped == half) & (whole & 1 == 1))
    return more | ((whole == q) & (k > 0) & nearer)


def round_magnitude(xp: Namespace, mag: Any, negative: Any, word: Any, p: Plan) -> tuple[Any, Any]:
    """Return the bits of rounded magnitudes, and below the normal range their multiples of the quantum."""
    kind, width, m = xp.dtype_name(mag), width_of(xp, mag), p.input_mantissa
    field = mag >> m
    e = xp.maximum(field, 1)
    significand = xp.where(field > 0, 1 << m, mag & 0) | (mag & ((1 << m) - 1))
    normal = field >= p.normal_exponent
    shift = xp.where(normal, p.normal_shift, p.subnormal_shift - e)
    s = xp.minimum(xp.maximum(shift, 0), _FAR[width])
    kept, rest = significand >> s, significand & ((1 << s) - 1)
    if p.variant == 0:
        odd = kept & 1 == 1
        if p.exponent_parity == 1:
            odd = normal & ((e - p.code_base) & 1 == 1)
        away = steps_away(xp, rest, (1 << s) >> 1, negative, odd, p.rounding_table)
    else:
        mode = Rounding("", 0, p.variant, p.random_bits)
        away = stochastic_away(xp, rest, xp.maximum(shift, 0), mode, word)
    up = xp.cast(away, kind)
    inside = s <= m
    left = xp.minimum(xp.maximum(-shift, 0), _LEFT[width])
    rounded = xp.where(inside, ((mag >> s) + up) << s, xp.where(away, p.quantum_bits, mag & 0))
    multiple = xp.where(inside, xp.where(shift >= 0, kept + up, significand << left), up)
    return rounded, multiple


def _by_sign(xp: Namespace, negative: Any, positive_value: int, negative_value: int, like: Any) -> Any:
    if positive_value == negative_value:
        return positive_value
    return xp.where(negative, negative_value, xp.full_like(like, positive_value))


def _finish(
    xp: Namespace, b: Any, r: Any, value: Any, p: Plan, results: tuple[tuple[int, int], tuple[int, int], Any]
) -> Any:
    """Replace what lies past the largest value, infinities and NaN."""
    width = width_of(xp, b)
    mag, negative = b & MASK[width], b < 0
    over = r > _by_sign(xp, negative, p.max_bits, p.max_bits_negative, b)
    if min(p.max_bits, p.max_bits_negative) < 0:
        over = over & (mag != 0)
    overflow, infinity, nan = results
    value = xp.where(over, _by_sign(xp, negative, *overflow, b), value)
    if infinity != overflow or min(p.max_bits, p.max_bits_negative) >= INFINITE[width]:
        value = xp.where(mag == INFINITE[width], _by_sign(xp, negative, *infinity, b), value)
    return xp.where(mag > INFINITE[width], nan, value)


def quantize_bits(xp: Namespace, b: Any, p: Plan, word: Any) -> Any:
    """Round float bits; NaN passes through."""
    width = width_of(xp, b)
    mag, negative = b & MASK[width], b < 0
    r, _ = round_magnitude(xp, mag, negative, word, p)
    signed_too = negative if p.negative_zero == 1 else negative & (r != 0)
    value = xp.where(r == 0, p.tiny_bits, r) if p.tiny_bits else r
    if p.tiny_bits or p.zero_bits:
        value = xp.where(mag == 0, p.zero_bits, value)
    value = xp.where(signed_too, value | SIGN[width], value)
    overflow = p.overflow_bits, p.overflow_bits_negative
    return _finish(xp, b, r, value, p, (overflow, (p.infinity_bits, p.infinity_bits_negative), b))


def encode_bits(xp: Namespace, b: Any, p: Plan, word: Any) -> Any:
    """Round float bits to codes, as signed integers of the same width; NaN becomes the format's NaN code."""
    mag, negative = b & MASK[width_of(xp, b)], b < 0
    r, n = round_magnitude(xp, mag, negative, word, p)
    code = xp.where(r >= p.normal_bits, (r >> p.normal_shift) - p.code_base, n)
    signed_too = negative if p.negative_zero == 1 else negative & (r != 0)
    code = xp.where(r == 0, p.tiny_code, code)
    code = xp.where(mag == 0, p.zero_code, code)
    minus = -code & p.code_mask if p.twos_complement == 1 else code | p.sign_code
    code = xp.where(signed_too, minus, code)
    overflow = p.overflow_code, p.overflow_code_negative
    return _finish(xp, b, r, code, p, (overflow, (p.infinity_code, p.infinity_code_negative), p.nan_code))


def integers(xp: Namespace, b: Any, p: Plan, word: Any) -> Any:
    """Round float64 bits to signed multiples of the quantum, before any overflow rule; see `_kernels.integers`."""
    mag, negative, m = b & MASK[64], b < 0, MANTISSA[64]
    _, n = round_magnitude(xp, mag, negative, word, p)
    left = xp.maximum(mag >> m, 1) - p.subnormal_shift
    low = ((mag & ((1 << m) - 1)) | (1 << m)) << xp.minimum(xp.maximum(left, 0), 62)
    low = xp.where(left < 62, low, 0) & ((1 << 61) - 1)
    n = xp.where(left > 8, low | (1 << 62), n)
    n = xp.where(mag == INFINITE[64], 1 << 62, n)
    return xp.where(negative, -n, n)
