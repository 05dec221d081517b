"""Compiled loops that write and read a stream of prefix codes, most significant bit first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[misc, unused-ignore]
def write_codes(symbols: NDArray[Any], codes: NDArray[Any], lengths: NDArray[Any], stream: NDArray[Any]) -> None:
    """Write the code of each symbol into zeroed bytes."""
    position = 0
    for symbol in symbols:
        code = np.int64(codes[symbol])
        for place in range(lengths[symbol] - 1, -1, -1):
            if code >> place & 1:
                stream[position >> 3] |= np.uint8(128 >> (position & 7))
            position += 1


@njit(cache=True, nogil=True)  # type: ignore[misc, unused-ignore]
def read_codes(
    stream: NDArray[Any], first: NDArray[Any], counts: NDArray[Any], ordered: NDArray[Any], symbols: NDArray[Any]
) -> int:
    """Read a symbol into each place of `symbols`; return the bits read, or -1 for a stream that is no such code.

    `first` and `counts`: the lowest code of each length and how many there are; `ordered`: symbols by length and code.
    """
    position, end = 0, 8 * stream.size
    for i in range(symbols.size):
        code, skipped, length = 0, 0, 0
        while True:
            length += 1
            if position == end or length == counts.size:
                return -1
            code = code << 1 | (stream[position >> 3] >> (7 - (position & 7)) & 1)
            position += 1
            if 0 <= code - first[length] < counts[length]:
                symbols[i] = ordered[skipped + code - first[length]]
                break
            skipped += counts[length]
    return position
