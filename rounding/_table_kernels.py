"""Kernels of table formats: count the decision points that are not above a number.

`results` holds what each count stands for, and at its end what NaN becomes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from lowp.rounding import _start_kernels  # noqa: F401 - before the first kernel is made

#: Numbers that are counted together, so that each decision point is compared with a vector of them.
_CHUNK = 512


@njit(cache=True, nogil=True)
def count(x: Any, out: Any, results: Any, cuts: Any) -> None:
    """Write the result of each number by comparing it with every cut: the quickest way for few cuts."""
    buffer, nan = np.empty(_CHUNK, np.int32), results.size - 1
    for start in range(0, x.size, _CHUNK):
        part, sink = x[start : start + _CHUNK], out[start : start + _CHUNK]
        counts = buffer[: part.size]
        counts[:] = 0
        for k in range(cuts.size):
            cut = cuts[k]
            for i in range(part.size):
                counts[i] += 1 if part[i] >= cut else 0
        for i in range(part.size):
            sink[i] = results[counts[i] if part[i] == part[i] else nan]


@njit(cache=True, nogil=True)
def find(bits: Any, out: Any, results: Any, starts: Any, cuts: Any, shift: int, infinite: int, mask: int) -> None:
    """Write the result of each float by bisection among the cuts that share its leading bits.

    Floats and cuts are compared as integers in the order of the numbers; -0 counts as +0.
    """
    center, nan = starts.size >> 1, results.size - 1
    for i in range(bits.size):
        b = np.int64(bits[i])
        mag = b & mask
        if mag > infinite:
            out[i] = results[nan]
            continue
        key = (b ^ ((b >> 63) & mask)) + (mag == 0 and b < 0)
        bucket = (key >> shift) + center
        low, size = starts[bucket], starts[bucket + 1] - starts[bucket]
        while size > 0:
            half = (size + 1) >> 1
            low += half if cuts[low + half - 1] <= key else 0
            size -= half
        out[i] = results[low]
