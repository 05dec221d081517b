"""What ggml's block types are made of: steps of float32 arithmetic as its C code takes them, and the order of codes.

Numbers follow a build without fused multiply-add: every operation is rounded to float32, sums run from the first
element to the last. Conversions that C leaves undefined are those of x86-64.
Source: ggml-org/ggml, `src/ggml-quants.c` and `src/ggml-impl.h`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.packed import Packed
from lowp.rounding._fp4_recipes import Float32, float32
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields

#: Adding it leaves a float32 number of magnitude below 2^22 rounded to an integer in the low bits of the sum.
_MAGIC = np.float32(1.5 * 2**23)
_INT32_RANGE = np.float32(2**31)
_NAN_HALF = np.uint16(0x7E00)
#: Values that are searched together: their arrays fit in the caches.
_CHUNK = 1 << 16
#: Groups whose values all lie below it count as zero.
TINY = np.float32(1e-15)


def source(blocks: NDArray[Any], fmt: Packed, request: Request) -> Float32:
    """Return the float32 numbers that ggml would get; another rounding than ggml's own is refused."""
    if request.mode.name != "ties_to_even":
        raise ArgumentError(f"rounding={request.mode.name!r}: {fmt.name!r} rounds as ggml does; leave it out.")
    return float32(blocks)


def half_codes(d: Float32) -> NDArray[np.uint16]:
    """Return float16 codes; beyond 65504 infinity, NaN with its sign and the quiet bit alone."""
    codes = d.astype(np.float16).view(np.uint16)
    return np.where(np.isnan(d), (codes & np.uint16(0x8000)) | _NAN_HALF, codes).astype(np.uint16)


def half_values(codes: NDArray[Any]) -> Float32:
    """Return the float32 values of float16 codes."""
    return codes.astype(np.uint16).view(np.float16).astype(np.float32)


def inverse(d: Float32) -> Float32:
    """Return 1 / d, and 0 where d is 0."""
    return np.where(d == 0, np.float32(0), np.float32(1) / d)


def nearest(x: Float32) -> Float32:
    """Round to an integer, ties to even, as ggml reads it from the bits of a sum; beyond 2^22 what those bits hold."""
    return ((((x + _MAGIC).view(np.int32)) & 0x7FFFFF) - 0x400000).astype(np.float32)


def half_away(x: Float32) -> Float32:
    """Round to an integer, ties away from zero, as `roundf`."""
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(np.float32(1), x), whole)


def c_integer(x: Float32) -> NDArray[np.int32]:
    """Truncate to int32; 0 in the low bits, as on x86-64, if it does not fit or is NaN."""
    return np.where(np.abs(x) < _INT32_RANGE, np.trunc(x), 0).astype(np.int32)


def ordered_sum(terms: Float32) -> Float32:
    """Return the float32 sum over the first axis, one term after the other."""
    total: Float32 = np.zeros_like(terms[0])
    for term in terms:
        total += term
    return total


def extreme(x: Float32) -> Float32:
    """Return the first element of largest magnitude along the last axis, NaN passed over; 0 if all are NaN."""
    magnitude = np.where(np.isnan(x), np.float32(0), np.abs(x))
    first = np.take_along_axis(x, np.argmax(magnitude, axis=-1)[..., None], axis=-1)[..., 0]
    return np.where(magnitude.max(axis=-1) > 0, first, np.float32(0))


def largest_magnitude(x: Float32) -> Float32:
    """Return the largest magnitude along the last axis as ggml's MAX macro finds it: a NaN restarts the search."""
    magnitude = np.abs(x)
    nan = np.isnan(magnitude)
    restarted = np.logical_or.accumulate(nan[..., ::-1], axis=-1)[..., ::-1]
    largest = np.where(restarted, np.float32(0), magnitude).max(axis=-1)
    return np.where(nan[..., -1], np.float32(np.nan), largest)


def grouped(x: NDArray[Any], *sizes: int) -> NDArray[Any]:
    """Return `x` with its last axis split into groups of those sizes."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // math.prod(sizes), *sizes)


def interleave(codes: NDArray[Any], per: int, run: int) -> NDArray[Any]:
    """Put codes in memory order: byte k of a run of `run` bytes holds those of elements k, k + run, k + 2 run, ..."""
    return np.ascontiguousarray(grouped(codes, per, run).swapaxes(-1, -2)).reshape(codes.shape)


def deinterleave(codes: NDArray[Any], per: int, run: int) -> NDArray[Any]:
    """Return codes in the order of elements, the reverse of `interleave`."""
    return interleave(codes, run, per)


def signed(codes: NDArray[Any]) -> Float32:
    """Return bytes read as int8."""
    return codes.astype(np.uint8).view(np.int8).astype(np.float32)


def super_blocks(
    encode: Callable[[Float32], Fields], scale: str = "d", nan_code: int = int(_NAN_HALF)
) -> Callable[[NDArray[Any], Packed, Request], Fields]:
    """Return the `encode` of a scheme made from that of (blocks, values) finite numbers.

    A block that holds NaN or infinity, of which ggml makes nothing defined, is encoded as zeros with the scale NaN.
    """

    def encode_all(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
        x = source(blocks, fmt, request)
        rows, count, size = x.shape
        spoiled = np.asarray(~np.isfinite(x).all(axis=-1))
        flat = np.where(spoiled[..., None], np.float32(0), x).reshape(-1, size)
        step = _CHUNK // size
        chunks = [encode(flat[i : i + step]) for i in range(0, max(1, len(flat)), step)]
        joined = {name: np.concatenate([part[name] for part in chunks]) for name in chunks[0]}
        fields = {name: part.reshape(rows, count, part.shape[-1]) for name, part in joined.items()}
        fields[scale][spoiled] = nan_code
        return fields

    return encode_all
