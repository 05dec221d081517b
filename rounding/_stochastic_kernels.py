"""Rounding in float64 by additions: any mode, at the speed of a few vector operations a number.

Adding and subtracting `2^(exponent + 52 - mantissa_bits)` rounds a float64 to a multiple of the quantum; from there the
neighbour nearer zero and the dropped fraction are exact. A fraction `w` in units of `2^-N` goes up if `w` plus the
random integer reaches `2^N`, which is a comparison of `w` with `2^N - random`. Every number must have at least two bits
more than the format's precision and the random bits take, or be exact.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lowp.rounding._random_kernels import _word
from lowp.rounding.lowering import NEVER, Plan
from lowp.rounding.modes import rounding

_compile = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")

#: Numbers handled together: the buffers stay in the first cache.
CHUNK = 1024
#: The `kind` of a mode: how `round_chunk` decides.
NEAREST_EVEN, STOCHASTIC_A, STOCHASTIC_B, STOCHASTIC_C, STOCHASTIC_EQUAL, TABLE = range(6)
_NEAREST_EVEN_TABLE = rounding("ties_to_even").table
_EXPONENT = 0x7FF0000000000000


@_compile
def fill_words(words: Any, position: Any, key0: Any, key1: Any) -> None:
    """Write the random words of consecutive positions, as `random_bits.words`."""
    for j in range(words.size):
        words[j] = np.uint32(_word(position + j, key0, key1))


@_inline
def _bits(value: Any) -> Any:
    return np.float64(value).view(np.int64)


@_inline
def _limited(v: Any, r: Any, signed_zero: Any, bottom: Any, top: Any) -> Any:
    """Return the magnitude `r` with the sign of `v`, clamped; NaN where `v` is."""
    signed = -r if (_bits(v) < 0) & ((r != 0) | signed_zero) else r
    value = min(max(signed, bottom), top)
    return v if v != v else value


@_compile
def round_chunk(v: Any, words: Any, integers: Any, floats: Any, kind: Any, bits: Any, table: Any) -> None:
    """Round the numbers `v` in place and clamp them; NaN stays.

    `integers`: exponent field of the smallest normal value, what to add to a field for the addition, whether -0 exists;
    `floats`: the largest and the least value, and a magnitude past which numbers need not be told apart.
    """
    least, raise_by, signed_zero = integers[0], integers[1], integers[2] == 1
    top, bottom, clip = floats[0], floats[1], floats[2]
    if kind == 0:
        for j in range(v.size):
            x = v[j]
            a = min(abs(x), clip)
            magic = np.int64(max(_bits(a) & np.int64(_EXPONENT), least) + raise_by).view(np.float64)
            v[j] = _limited(x, (a + magic) - magic, signed_zero, bottom, top)
        return
    to_quantum = raise_by - (np.int64(52) << 52)
    if kind == 5:
        one = np.int64(2046) << 52
        for j in range(v.size):
            x = v[j]
            a = min(abs(x), clip)
            e = max(_bits(a) & np.int64(_EXPONENT), least)
            magic, quantum = np.int64(e + raise_by).view(np.float64), np.int64(e + to_quantum)
            q, inverse = quantum.view(np.float64), np.int64(one - quantum).view(np.float64)
            near = (a + magic) - magic
            low = near - q if near > a else near
            rest = a - low  # may be too small to divide
            nu = rest * inverse
            odd = np.int64(low * inverse) & 1
            position = np.int64(rest > 0) + np.int64(nu >= 0.5) + np.int64(nu > 0.5)
            away = (table >> (position * 4 + np.int64(_bits(x) < 0) * 2 + odd)) & 1
            v[j] = _limited(x, low + q if away != 0 else low, signed_zero, bottom, top)
        return
    one, whole = (np.int64(2046) + bits) << 52, np.float64(np.int64(1) << bits)
    shift = np.uint32(32 - bits)
    half = 0.0 if kind == 1 else 0.5
    for j in range(v.size):
        x = v[j]
        a = min(abs(x), clip)
        e = max(_bits(a) & np.int64(_EXPONENT), least)
        magic, quantum = np.int64(e + raise_by).view(np.float64), np.int64(e + to_quantum)
        q, inverse = quantum.view(np.float64), np.int64(one - quantum).view(np.float64)
        near = (a + magic) - magic
        low = near - q if near > a else near
        rest = a - low
        w = rest * inverse
        random = np.uint32(words[j] >> shift)
        limit = whole - np.float64(random) - half
        tie_goes = (kind != 3) | (random & np.uint32(1) == 0)
        away = (w > limit) | ((w == limit) & tie_goes)
        if kind == 4:
            away = (rest > 0) & (random != 0)
        v[j] = _limited(x, low + q if away else low, signed_zero, bottom, top)


@_compile
def quantize_chunks(
    x: Any, out: Any, integers: Any, floats: Any, ends: Any, mode: Any, start: Any, key0: Any, key1: Any
) -> None:
    """Round floats `x` into `out` of their type; `ends` are what overflow and infinities become, by sign, of that type.

    `mode`: kind, random bits, truth table; the other arguments as for `round_chunk`. NaN passes through.
    """
    v, words = np.empty(CHUNK, np.float64), np.empty(CHUNK, np.uint32)
    kind, bits, table = mode[0], mode[1], mode[2]
    top, bottom = floats[0], floats[1]
    free = np.array([np.inf, -np.inf, floats[2]])
    over, over_negative, inf, inf_negative = ends[0], ends[1], ends[2], ends[3]
    for i in range(0, x.size, CHUNK):
        source, sink = x[i : i + CHUNK], out[i : i + CHUNK]
        n = source.size
        for j in range(n):
            v[j] = source[j]
        if (kind != 0) & (kind != 5):
            fill_words(words[:n], start + i, key0, key1)
        round_chunk(v[:n], words[:n], integers, free, kind, bits, table)
        for j in range(n):
            y, r = source[j], v[j]
            value = x.dtype.type(r)
            value = over if r > top else value
            value = over_negative if r < bottom else value
            value = (inf if y > 0 else inf_negative) if np.abs(y) == np.inf else value
            sink[j] = y if y != y else value


class ChunkPlan(NamedTuple):
    """A `lowering.Plan` as `quantize_chunks` takes it."""

    integers: NDArray[np.int64]
    floats: NDArray[np.float64]
    ends: NDArray[Any]
    mode: NDArray[np.int64]


@lru_cache(maxsize=256)
def chunk_plan(p: Plan) -> ChunkPlan | None:
    """Return the numbers for a plan, or None if the format is not a plain one: with zero, subnormals, mantissa bits."""
    single = p.input_mantissa == 23
    integer = p.normal_exponent == NEVER
    mantissa, bias = p.input_mantissa - p.normal_shift, 127 if single else 1023
    if p.zero_bits or p.tiny_bits or p.max_bits_negative < 0 or p.exponent_parity:
        return None
    kinds: tuple[Any, Any] = (np.int32, np.float32) if single else (np.int64, np.float64)
    bits = [p.max_bits, p.max_bits_negative, p.overflow_bits, p.overflow_bits_negative]
    bits += [p.infinity_bits, p.infinity_bits_negative, p.quantum_bits]
    top, bottom, *ends, quantum = np.array(bits, np.int64).astype(kinds[0]).view(kinds[1])
    largest = 2.0 * max(float(top), float(bottom))
    if not 2.0**-400 < float(quantum) < largest < 2.0**400:
        return None
    if integer:
        if largest / float(quantum) > 2.0**48:
            return None
        integers = [(int(np.frexp(float(quantum))[1]) - 1 + 52 + 1023) << 52, 0]
    else:
        if p.subnormal_shift != p.normal_exponent + p.normal_shift or not 1 <= mantissa <= 48:
            return None
        integers = [(p.normal_exponent - bias + 1023) << 52, (52 - mantissa) << 52]
    kind = TABLE if p.rounding_table != _NEAREST_EVEN_TABLE else NEAREST_EVEN
    mode = [p.variant, 1 if p.variant == 4 else p.random_bits, 0] if p.variant else [kind, 0, p.rounding_table]
    return ChunkPlan(
        np.array([*integers, p.negative_zero]),
        np.array([float(top), -float(bottom), largest]),
        np.array(ends, kinds[1]),
        np.array(mode),
    )
