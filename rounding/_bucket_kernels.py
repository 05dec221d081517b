"""Numbers looked up by their leading bits, with one comparison for the rest; compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding import _start_kernels  # noqa: F401 - before the first kernel is made


@njit(cache=True, nogil=True, error_model="numpy")
def look_up_buckets(bits: Any, out: Any, cuts: Any, below: Any, above: Any, shift: int) -> None:
    """Write what stands for float32 numbers, given as their bits (int32).

    Keys are integers in the order of the numbers. Those with the same leading bits are a bucket: keys less than its cut
    become `below`, the others `above`.
    """
    drop = np.uint32(shift)
    for i in range(bits.size):
        b = bits[i]
        key = np.int32(b ^ np.int32(np.int32(b >> 31) & np.int32(0x7FFFFFFF)))
        bucket = np.uint64(np.uint32(np.uint32(key) ^ np.uint32(0x80000000)) >> drop)
        out[i] = above[bucket] if cuts[bucket] <= key else below[bucket]
