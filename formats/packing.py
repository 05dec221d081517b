"""Codes of any width packed back to back, least significant bit first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.tables import code_dtype

#: Widths of whole integers, and how they lie in memory.
_WHOLE = {8: "<u1", 16: "<u2", 32: "<u4", 64: "<u8"}
#: Widths of which several codes fill a byte.
_PARTS = (1, 2, 4)


def pack(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Pack codes in C order into bytes.

    Code `i` takes bits `i*bits .. (i+1)*bits - 1` of the stream; bit `j` of the stream is bit `j % 8` of byte `j // 8`.

    Args:
        codes: Unsigned codes below `2^bits`, any shape.
        bits: Width of a code.

    Returns:
        `ceil(size * bits / 8)` bytes; unused bits of the last one are zero.

    Example:
        >>> pack(np.array([1, 2, 3], np.uint8), 4).tolist()
        [33, 3]
    """
    flat = np.ascontiguousarray(codes).reshape(-1)
    if bits in _WHOLE:
        return flat.astype(_WHOLE[bits]).view(np.uint8)
    return _join(flat.astype(np.uint8), bits) if bits in _PARTS else _pack_bits(flat, bits)


def _pack_bits(flat: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Pack codes of any width bit by bit."""
    shifts = np.arange(bits, dtype=np.uint64)
    stream = (flat.astype(np.uint64)[:, None] >> shifts & np.uint64(1)).astype(np.uint8)
    return np.packbits(stream.reshape(-1), bitorder="little")


def _join(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return bytes of 8, 4 or 2 codes each."""
    if bits == 1:
        return np.packbits(codes & 1, bitorder="little")
    per_byte = 8 // bits
    whole = np.pad(codes, (0, -codes.size % per_byte)) if codes.size % per_byte else codes
    joined = whole[0::per_byte].copy()
    for i in range(1, per_byte):
        joined |= whole[i::per_byte] << np.uint8(i * bits)
    return joined


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[Any]:
    """Return the first `count` codes of `bits` bits from packed bytes; the inverse of `pack`.

    Raises:
        ArgumentError: Too few bytes.

    Example:
        >>> unpack(pack(np.arange(5, dtype=np.uint8), 3), 3, 5).tolist()
        [0, 1, 2, 3, 4]
    """
    data = np.ascontiguousarray(packed, dtype=np.uint8).reshape(-1)
    if data.size * 8 < count * bits:
        raise ArgumentError(f"packed has {data.size} bytes; {count} codes of {bits} bits need {-(-count * bits // 8)}.")
    if bits in _WHOLE:
        return data[: count * bits // 8].view(_WHOLE[bits]).astype(code_dtype(bits))
    if bits in _PARTS:
        return _split(data, bits, count)
    return _unpack_bits(data, bits, count)


def _unpack_bits(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[Any]:
    """Unpack codes of any width bit by bit."""
    stream = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    weights = np.uint64(1) << np.arange(bits, dtype=np.uint64)
    return (stream.astype(np.uint64) @ weights if count else np.zeros(0, np.uint64)).astype(code_dtype(bits))


def _split(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Return `count` codes of bytes that hold 8, 4 or 2 each."""
    if bits == 1:
        return np.unpackbits(data, count=count, bitorder="little")
    per_byte, mask = 8 // bits, np.uint8((1 << bits) - 1)
    used = data[: -(-count // per_byte)]
    codes = np.empty((used.size, per_byte), np.uint8)
    for i in range(per_byte):
        codes[:, i] = used >> np.uint8(i * bits) & mask
    return codes.reshape(-1)[:count]
