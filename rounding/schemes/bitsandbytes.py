"""bitsandbytes: a codebook times the largest magnitude of each block, in the float32 steps of that library.

A value is multiplied by the rounded reciprocal of the block's largest magnitude and compared with the rounded midpoints
of the codebook. A block of zeros, or with a NaN or an infinity in it, has no such product: all its codes are that of 0,
and a stored magnitude that is not finite makes it NaN when decoded.
Source: bitsandbytes 0.50, backends/default/ops.py (quantize_4bit, quantize_blockwise) and functional.py (quantize_4bit
with compress_statistics).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.codebook import Codebook
from lowp.formats.packed import Packed
from lowp.formats.tables import value_table
from lowp.rounding._scalar import encode_values
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme

#: Blocks whose magnitudes are quantized together under double quantization.
_NESTED_BLOCKS = 256
#: How PyTorch sums float32 on a CPU: lanes of a vector, vectors at a time, levels of partial sums (SumKernel.cpp).
_LANES, _VECTORS, _LEVELS = 8, 4, 4
_NEAREST = scale_request("ties_to_even")


def _encode(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    x = blocks.astype(np.float32)
    absmax = np.abs(x).max(axis=-1, keepdims=True, initial=0)
    codes = _codes(x, absmax, fmt.option("codebook"), request)
    second = fmt.option("code_above_zero")
    if second is not None:
        codes[(codes == 0) & (x > 0) & np.isfinite(absmax)] = second
    return {"codes": _bytes(codes, fmt), "absmax": absmax.view(np.uint32)}


def _decode(fields: Fields, fmt: Packed) -> NDArray[np.float32]:
    absmax = fields["absmax"].astype(np.uint32).view(np.float32)
    return _values(_from_bytes(fields["codes"], fmt), fmt.option("codebook")) * absmax


def _encode_nested(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """Store the magnitudes less their mean as 8-bit codes."""
    plain = _encode(blocks, fmt, request)
    absmax = plain["absmax"].view(np.float32)[..., 0]
    offset = _mean(absmax.reshape(-1))
    groups = _grouped(absmax - offset)
    state = np.abs(groups).max(axis=-1, keepdims=True, initial=0)
    codes = _codes(groups, state, fmt.option("absmax_codebook"), _NEAREST)
    return {
        "codes": plain["codes"],
        "absmax_codes": codes.reshape(len(absmax), -1)[:, : absmax.shape[1], None],
        "nested_absmax": state.view(np.uint32),
        "offset": np.array([offset]).view(np.uint32),
    }


def _decode_nested(fields: Fields, fmt: Packed) -> NDArray[np.float32]:
    state, offset = (fields[name].astype(np.uint32).view(np.float32) for name in ("nested_absmax", "offset"))
    codes = fields["absmax_codes"][..., 0]
    groups = _values(_grouped(codes), fmt.option("absmax_codebook")) * state
    absmax = groups.reshape(len(codes), -1)[:, : codes.shape[1]] + offset
    return _values(_from_bytes(fields["codes"], fmt), fmt.option("codebook")) * absmax[..., None]


def _mean(x: NDArray[np.float32]) -> np.float32:
    """Return the mean as PyTorch computes it in float32 on one thread; its order of additions shows in the last bit."""
    if not x.size:
        return np.float32(0)
    vectors = x[: x.size // _LANES * _LANES].reshape(-1, _LANES)
    whole = len(vectors) // _VECTORS * _VECTORS
    sums = _cascade(vectors[:whole].reshape(-1, _VECTORS, _LANES))
    lanes = sums[0]
    for vector in (*vectors[whole:], *sums[1:]):
        lanes = lanes + vector
    total = np.float32(0)
    for number in (*x[vectors.size :], *lanes):
        total += number
    return np.float32(total / np.float32(x.size))


def _cascade(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add rows in order; every 2^p additions the sum moves a level up, so that few numbers are added to large sums."""
    power = max(4, math.ceil(math.log2(max(len(rows), 1)) / _LEVELS))
    levels = np.zeros((_LEVELS, *rows.shape[1:]), np.float32)
    for i, row in enumerate(rows, 1):
        levels[0] += row
        for level in range(1, _LEVELS):
            if i % (1 << (power * level)):
                break
            levels[level] += levels[level - 1]
            levels[level - 1] = 0
    total: NDArray[np.float32] = levels[0]
    for higher in levels[1:]:
        total = total + higher
    return total


def _grouped(per_block: NDArray[Any]) -> NDArray[Any]:
    """Return (rows, groups, blocks in a group), the last group filled up with zeros."""
    rows, blocks = per_block.shape
    groups = -(-blocks // _NESTED_BLOCKS)
    return np.pad(per_block, ((0, 0), (0, groups * _NESTED_BLOCKS - blocks))).reshape(rows, groups, _NESTED_BLOCKS)


def _codes(x: NDArray[np.float32], absmax: NDArray[np.float32], codebook: Codebook, request: Request) -> NDArray[Any]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = np.clip(x * (np.float32(1) / absmax), -1, 1)
    return encode_values(np.where(np.isnan(scaled), np.float32(0), scaled), codebook, request)


def _values(codes: NDArray[Any], codebook: Codebook) -> NDArray[np.float32]:
    """Look codes up; those that the codebook leaves out (FP4's -0) are zero."""
    table = value_table(codebook)
    values: NDArray[np.float32] = np.where(np.isnan(table), 0.0, table).astype(np.float32)[codes]
    return values


def _bytes(codes: NDArray[Any], fmt: Packed) -> NDArray[np.uint8]:
    """Two 4-bit codes a byte, the first in the high half; wider codes as they are."""
    return codes[..., 0::2] << np.uint8(4) | codes[..., 1::2] if _halves(fmt) else codes


def _from_bytes(stored: NDArray[np.uint8], fmt: Packed) -> NDArray[np.uint8]:
    return np.stack([stored >> 4, stored & 15], -1).reshape(*stored.shape[:-1], -1) if _halves(fmt) else stored


def _halves(fmt: Packed) -> bool:
    codebook: Codebook = fmt.option("codebook")
    return codebook.bits == 4


SCHEMES = {"blockwise": Scheme(_encode, _decode), "nested": Scheme(_encode_nested, _decode_nested)}
