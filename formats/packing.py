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
#: Words that are joined or split at a time: they stay in the second cache.
_PIECE = 1 << 16


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
    return _join(flat.astype(np.uint8, copy=False), bits) if bits in _PARTS else _pack_bits(flat, bits)


def _pack_bits(flat: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Pack codes of any width bit by bit."""
    shifts = np.arange(bits, dtype=np.uint64)
    stream = (flat.astype(np.uint64)[:, None] >> shifts & np.uint64(1)).astype(np.uint8)
    return np.packbits(stream.reshape(-1), bitorder="little")


def _join(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return bytes of 8, 4 or 2 codes each."""
    if bits == 1:
        return np.packbits(codes & 1, bitorder="little")
    whole = np.pad(codes, (0, -codes.size % (8 // bits))) if codes.size * bits % 8 else codes
    words = whole.view(
        f"<u{8 // bits}"
    )  # a code in each byte of a word: shifted sums of words, whose first byte counts
    joined = np.empty(words.size, np.uint8)
    for start in range(0, words.size, _PIECE):
        part = words[start : start + _PIECE]
        total = part.copy()
        for shift in _shifts(bits):
            total |= part >> shift
        joined[start : start + _PIECE] = total
    return joined


def _shifts(bits: int) -> list[Any]:
    """Return how far a word's second, third and so on byte lies from the place of its code in the first one."""
    word = np.dtype(f"<u{8 // bits}").type
    return [word(i * (8 - bits)) for i in range(1, 8 // bits)]


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
    used = data[: -(-count * bits // 8)]
    codes = np.empty(used.size * (8 // bits), np.uint8)
    words, mask = codes.view(f"<u{8 // bits}"), int.from_bytes(bytes([(1 << bits) - 1]) * (8 // bits), "little")
    for start in range(0, used.size, _PIECE):
        part = used[start : start + _PIECE].astype(words.dtype)
        total = part.copy()
        for shift in _shifts(bits):
            total |= part << shift
        words[start : start + _PIECE] = total & words.dtype.type(mask)
    return codes[:count]
