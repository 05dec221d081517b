"""The random word of a position, compiled; see `random_bits`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding import _start_kernels  # noqa: F401 - before the first kernel is made

_inline = njit(nogil=True, cache=True, inline="always")


@_inline
def _mix(h: Any) -> Any:
    h = np.uint32(h ^ np.uint32(h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x7FEB352D))
    h = np.uint32(h ^ np.uint32(h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x846CA68B))
    return np.uint32(h ^ np.uint32(h >> np.uint32(16)))


@_inline
def _word(position: int, key0: int, key1: int) -> Any:
    low = np.uint32(position & 0xFFFFFFFF)
    high = np.uint32((position >> 32) + key1)
    return np.int64(_mix(np.uint32(_mix(np.uint32(low ^ np.uint32(key0))) ^ high)))
