"""Codes of any width packed back to back, least significant bit first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.tables import code_dtype


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
    if bits in (8, 16, 32, 64) and flat.dtype.itemsize * 8 == bits:
        return flat.astype(flat.dtype.newbyteorder("<")).view(np.uint8)
    if bits == 4:
        even = np.append(flat, 0).astype(np.uint8) if flat.size % 2 else flat.astype(np.uint8)
        return even[0::2] | even[1::2] << np.uint8(4)
    shifts = np.arange(bits, dtype=np.uint64)
    stream = (flat.astype(np.uint64)[:, None] >> shifts & np.uint64(1)).astype(np.uint8)
    return np.packbits(stream.reshape(-1), bitorder="little")


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
    stream = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    weights = np.uint64(1) << np.arange(bits, dtype=np.uint64)
    return (stream.astype(np.uint64) @ weights if count else np.zeros(0, np.uint64)).astype(code_dtype(bits))
