"""ggml's simple block types, as `quantize_row_*_ref` computes them in C: float32, then a conversion to an integer.

Under nonfinite="nan_block" NaN and infinity get the codes that ggml gives them, including conversions that C leaves
undefined: there the codes are those of x86-64, where they yield 0. Source: ggml-org/ggml, `src/ggml-quants.c`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.tables import decode_codes
from lowp.rounding._fp4_recipes import Float32, float32, settled
from lowp.rounding._layout import Layout
from lowp.rounding.recipes import Scales, scale_values

_FLOAT32_MAX = np.float32(np.finfo(np.float32).max)
_INT32_RANGE = np.float32(2**31)
#: Twice the E2M1 values, in the order of their codes, which is the order of ggml's search.
_E2M1_DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def _half_codes(d: Float32) -> NDArray[np.uint16]:
    """Return float16 codes; beyond 65504 infinity, NaN with its sign and the quiet bit alone."""
    codes = d.astype(np.float16).view(np.uint16)
    return np.where(np.isnan(d), (codes & np.uint16(0x8000)) | np.uint16(0x7E00), codes).astype(np.uint16)


def _inverse(d: Float32) -> Float32:
    return np.where(d == 0, np.float32(0), np.float32(1) / d)


def _first_largest(blocks: Float32, by: Float32 | None = None) -> Float32:
    """Return each block's first largest element (by another array), which decides between +0 and -0 as a loop in C."""
    index = np.argmax(blocks if by is None else by, axis=-1)[..., None]
    return np.take_along_axis(blocks, index, axis=-1)[..., 0]


def _c_integer(t: Float32, v: NDArray[Any], fmt: Block) -> NDArray[Any]:
    """Convert to an integer as C on x86-64 does: truncate to int32 (0 if it does not fit, or is NaN), keep 8 bits."""
    integer = np.trunc(t)
    if fmt.nonfinite == "element":
        return settled(integer, v, 0, fmt)
    low = np.where(np.abs(t) < _INT32_RANGE, integer, 0).astype(np.int32).astype(np.int8)
    return low.astype(np.float32)


def _signed_extreme(x: NDArray[Any], layout: Layout, fmt: Block, center: int) -> Scales:
    """Q4_0 and Q5_0: the first element of largest magnitude becomes `-center`; NaN is passed over."""
    blocks = layout.blocks(float32(x))
    magnitude = np.where(np.isnan(blocks), np.float32(0), np.abs(blocks))
    extreme = _first_largest(blocks, magnitude)
    extreme = np.where(magnitude.max(axis=-1) > 0, extreme, np.float32(0))
    d = extreme / np.float32(-center)
    codes, inverse = _half_codes(d), _inverse(d)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return settled(float32(v) * layout.spread(inverse) + np.float32(center), v, 0, fmt)

    def rounded(v: NDArray[Any]) -> NDArray[Any]:
        return _c_integer(float32(v) * layout.spread(inverse) + np.float32(center + 0.5), v, fmt)

    return Scales(codes, decode_codes(codes, fmt.scale), scaled, rounded=rounded, own_nan_codes=True)


def q4_0(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """Q4_0: codes 0 to 15 stand for -8 to 7."""
    return _signed_extreme(x, layout, fmt, 8)


def q5_0(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """Q5_0: codes 0 to 31 stand for -16 to 15."""
    return _signed_extreme(x, layout, fmt, 16)


def with_minimum(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """Q4_1 and Q5_1: steps of (max - min) / (2^bits - 1) up from the minimum; NaN is passed over."""
    x = float32(x)
    blocks, present = layout.blocks(x), layout.blocks(np.ones(x.shape, bool))
    present &= ~np.isnan(blocks)
    low = np.minimum(-_first_largest(np.where(present, -blocks, -np.float32(np.inf))), _FLOAT32_MAX)
    high = np.maximum(_first_largest(np.where(present, blocks, -np.float32(np.inf))), -_FLOAT32_MAX)
    d = float32((high - low) / np.float32(fmt.element.max))
    codes, inverse, minima = _half_codes(d), _inverse(d), _half_codes(low)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return settled((float32(v) - layout.spread(low)) * layout.spread(inverse), v, 0, fmt)

    def rounded(v: NDArray[Any]) -> NDArray[Any]:
        steps = (float32(v) - layout.spread(low)) * layout.spread(inverse)
        return _c_integer(steps + np.float32(0.5), v, fmt)

    values = decode_codes(codes, fmt.scale)
    offsets = decode_codes(minima, fmt.scale)
    return Scales(codes, values, scaled, zero_point_codes=minima, offsets=offsets, rounded=rounded, own_nan_codes=True)


def q8_0(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """Q8_0: amax / 127, elements rounded half away. A NaN restarts the search for the largest magnitude after it."""
    magnitude = np.abs(layout.blocks(float32(x)))
    nan = np.isnan(magnitude)
    nan_from_here = np.logical_or.accumulate(nan[..., ::-1], axis=-1)[..., ::-1]
    amax = np.where(nan_from_here, np.float32(0), magnitude).max(axis=-1, initial=np.float32(0))
    if nan.size:
        amax = np.where(nan[..., -1], np.float32(np.nan), amax)
    d = amax / np.float32(127)
    codes, inverse = _half_codes(d), _inverse(d)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return settled(float32(v) * layout.spread(inverse), v, 0, fmt)

    def rounded(v: NDArray[Any]) -> NDArray[Any]:
        quotient = float32(v) * layout.spread(inverse)
        whole = np.trunc(quotient)
        away = np.where(np.abs(quotient - whole) >= 0.5, whole + np.copysign(np.float32(1), quotient), whole)
        return _c_integer(away, v, fmt)

    return Scales(codes, decode_codes(codes, fmt.scale), scaled, rounded=rounded, own_nan_codes=True)


def mxfp4(x: NDArray[Any], layout: Layout, fmt: Block) -> Scales:
    """MXFP4: the floor of a float32 logarithm; the nearest element by float32 differences, ties to the lower magnitude.

    NaN is passed over in the scale and gets code 0; negative elements that round to zero get code 0 as well. A block
    below 2^-125 gets the low 8 bits of its negative exponent code and codes 0; one with infinity scale code 0.
    """
    x = float32(x)
    magnitude = np.where(np.isnan(x), np.float32(0), np.abs(x))
    amax = layout.reduce(magnitude, np.max).astype(np.float64)
    exponent = np.floor(np.log2(amax).astype(np.float32)) - 2 + 127
    codes = np.where(np.isfinite(exponent), exponent, 0).astype(np.int64).astype(np.uint8)
    values = scale_values(codes, fmt)

    def scaled(v: NDArray[Any]) -> NDArray[Any]:
        return settled(float32(v) / layout.spread(values), v, 0, fmt)  # exact in float64

    def rounded(v: NDArray[Any]) -> NDArray[Any]:
        return _nearest(float32(v), layout.spread(values / 2).astype(np.float32))

    keep = fmt.nonfinite == "element"
    return Scales(codes, values, scaled, rounded=None if keep else rounded, own_nan_codes=True)


def _nearest(x: Float32, half_scale: Float32) -> Float32:
    """Return the E2M1 value that ggml's search finds: the first in code order whose float32 error is smallest."""
    smallest, best = np.abs(x), np.zeros_like(x)
    for doubled in _E2M1_DOUBLED:
        error = np.abs(np.float32(doubled) * half_scale - x)
        closer = error < smallest
        smallest = np.where(closer, error, smallest)
        best = np.where(closer, np.float32(doubled / 2), best)
    return best
