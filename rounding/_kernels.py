"""Element-wise rounding, compiled. Bits in, bits or codes out; the parameters `p` are a `lowering.Plan`.

The body works on magnitudes as 64-bit integers for both float32 and float64 inputs: drop `shift` low bits of the
significand, decide from the dropped part whether to step away from zero, compare with the largest value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding._random_kernels import _word
from lowp.rounding._stochastic_kernels import chunk_plan, quantize_chunks

_compile = njit(nogil=True, cache=True)
_inline = njit(nogil=True, cache=True, inline="always")


@_inline
def _stochastic_away(rest: int, shift: int, variant: int, n: int, word: int) -> Any:
    """Whether stochastic rounding steps away from zero; `rest / 2^shift` is the dropped fraction, rest < 2^53."""
    if variant == 4:
        return np.int64((rest != 0) & (word >> 31 != 0))
    r = word >> (32 - n)
    if variant == 2:  # half a random bit is added: compare with one more bit
        k = shift - n - 1
        f = rest >> min(k, 62) if k >= 0 else rest << -k
        return np.int64(f + 2 * r + 1 >= np.int64(1) << (n + 1))
    k = min(shift - n, 62)
    f = rest >> k if k >= 0 else rest << -k
    if variant == 3 and k > 0:
        rest2 = rest & ((np.int64(1) << k) - 1)
        half = np.int64(1) << (k - 1)
        up = np.int64((rest2 > half) | ((rest2 == half) & (f & 1 == 1)))
        return np.int64(f + up + r >= np.int64(1) << n)
    return np.int64(f + r >= np.int64(1) << n)


@_inline
def _round(mag: int, negative: int, word: int, p: Any) -> Any:
    """Return the bits of the rounded magnitude and its integer multiple of the quantum (below the normal range)."""
    mantissa = p.input_mantissa
    field = mag >> mantissa
    e = max(field, 1)
    significand = (mag & ((np.int64(1) << mantissa) - 1)) | (np.int64(field > 0) << mantissa)
    normal = field >= p.normal_exponent  # not the exponent: a subnormal input shares that with the least normal one
    shift = p.normal_shift if normal else p.subnormal_shift - e
    s = min(max(shift, 0), 62)
    kept = significand >> s
    rest = significand & ((np.int64(1) << s) - 1)
    if p.variant == 0:
        half = (np.int64(1) << s) >> 1
        odd = kept & 1
        if p.exponent_parity == 1:
            odd = (e - p.code_base) & np.int64(normal)
        position = np.int64(rest > 0) + np.int64(rest >= half) * np.int64(rest > 0) + np.int64(rest > half)
        away = (p.rounding_table >> (position * 4 + negative * 2 + odd)) & 1
    else:
        away = _stochastic_away(rest, max(shift, 0), p.variant, p.random_bits, word)
    if s <= mantissa:
        return ((mag >> s) + away) << s, (kept + away if shift >= 0 else significand << min(-shift, 11))
    return (p.quantum_bits if away else np.int64(0)), away


def quantize_bits(x: Any, out: Any, p: Any, infinite: int, mask: int, start: int, key0: int, key1: int) -> None:
    """Round the float bits `x` (int32 or int64 view) into `out`; NaN passes through."""
    plain = chunk_plan(p)
    if plain is None:
        quantize_any_bits(x, out, p, infinite, mask, start, key0, key1)
        return
    floats = np.float32 if x.dtype == np.int32 else np.float64
    quantize_chunks(x.view(floats), out.view(floats), *plain, start, key0, key1)


@_compile
def quantize_any_bits(x: Any, out: Any, p: Any, infinite: int, mask: int, start: int, key0: int, key1: int) -> None:
    """As `quantize_bits`, for every plan: the algorithm that the quick kernels agree with."""
    random = p.variant != 0
    for i in range(x.size):
        b = np.int64(x[i])
        negative = np.int64(b < 0)
        mag = b & mask
        word = _word(start + i, key0, key1) if random else np.int64(0)
        r, _ = _round(mag, negative, word, p)
        limit = p.max_bits_negative if negative else p.max_bits
        sign = ~mask if negative & np.int64((r != 0) | (p.negative_zero == 1)) else np.int64(0)
        value = (p.tiny_bits if r == 0 else r) | sign
        if mag == 0:
            value = p.zero_bits | sign
        if (r > limit) & (mag != 0):
            value = p.overflow_bits_negative if negative else p.overflow_bits
        if mag == infinite:
            value = p.infinity_bits_negative if negative else p.infinity_bits
        if mag > infinite:
            value = b
        out[i] = value


@_compile
def encode_bits(x: Any, out: Any, p: Any, infinite: int, mask: int, start: int, key0: int, key1: int) -> None:
    """Round the float bits `x` to codes; a NaN becomes `nan_code`, which the caller has made sure exists."""
    random = p.variant != 0
    for i in range(x.size):
        b = np.int64(x[i])
        negative = np.int64(b < 0)
        mag = b & mask
        word = _word(start + i, key0, key1) if random else np.int64(0)
        r, n = _round(mag, negative, word, p)
        limit = p.max_bits_negative if negative else p.max_bits
        c = (r >> p.normal_shift) - p.code_base if r >= p.normal_bits else n
        keep = negative & np.int64((r != 0) | (p.negative_zero == 1))
        c = p.tiny_code if r == 0 else c
        c = p.zero_code if mag == 0 else c
        code = ((c ^ -keep) + keep) & p.code_mask if p.twos_complement == 1 else c | keep * p.sign_code
        if (r > limit) & (mag != 0):
            code = p.overflow_code_negative if negative else p.overflow_code
        if mag == infinite:
            code = p.infinity_code_negative if negative else p.infinity_code
        if mag > infinite:
            code = p.nan_code
        out[i] = code


@_compile
def look_up(codes: Any, table: Any, out: Any) -> None:
    """Write the table's entry of each code; every code is inside the table."""
    for i in range(codes.size):
        out[i] = table[codes[i]]


@_compile
def integers(x: Any, out: Any, p: Any, infinite: int, mask: int, start: int, key0: int, key1: int) -> None:
    """Round to the signed multiple of the quantum, before any overflow rule.

    Multiples of 2^61 and more keep their low 61 bits and get bit 62, so that they are out of every range and still
    wrap correctly; infinities are such a multiple with zero low bits.
    """
    random = p.variant != 0
    for i in range(x.size):
        b = np.int64(x[i])
        negative = np.int64(b < 0)
        mag = b & mask
        word = _word(start + i, key0, key1) if random else np.int64(0)
        _, n = _round(mag, negative, word, p)
        e = max(mag >> p.input_mantissa, 1)
        left = e - p.subnormal_shift
        if left > 8:
            low = ((mag & ((np.int64(1) << p.input_mantissa) - 1)) | (np.int64(1) << p.input_mantissa)) << min(left, 62)
            n = ((low if left < 62 else np.int64(0)) & ((np.int64(1) << 61) - 1)) | (np.int64(1) << 62)
        if mag == infinite:
            n = np.int64(1) << 62
        out[i] = -n if negative else n
