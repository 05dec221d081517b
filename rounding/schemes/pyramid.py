"""Pyramid vector quantization: `n` values are a gain times an integer vector of `K` pulses, scaled to length one.

The shape `y` has `|y_1| + ... + |y_n| = K`. Its index counts such vectors in the order in which the first place holds
0, 1, -1, 2, -2, ..., then the second, and so on. The search starts from `floor(K |x_i| / sum|x|)` and puts each pulse
that is left where `(x . y)^2 / |y|^2` becomes largest, of equal places the first; this is greedy, not always the best
vector. The gain is `x . y / |y|`, which makes the squared error least (the paper quantizes the norm instead, by a
quantizer of its own), rounded to nearest even in the format of the gain; a block of zeros has gain 0. A block with NaN
or infinity is NaN. Arithmetic is float64.
Source: Fischer, "A pyramid vector quantizer", IEEE Trans. Information Theory 32(4), 1986; for language models
arXiv:2410.16926.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import RangeError
from lowp.formats.families.structured import pyramid_count
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import only_nearest, stored_scales

Float64 = NDArray[np.float64]
_LAST = (1 << 64) - 1


@lru_cache(maxsize=16)
def _starts(n: int, pulses: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return counts `N(m, k)`, and the first index of vectors whose first place holds magnitude `j`: [m, k, j]."""
    counts = [[pyramid_count(m, k) for k in range(pulses + 1)] for m in range(n + 1)]
    starts = np.full((n + 1, pulses + 1, pulses + 1), _LAST, np.uint64)
    for m in range(1, n + 1):
        for k in range(pulses + 1):
            total = 0
            for j in range(k + 1):
                starts[m, k, j] = total
                total += counts[m - 1][k - j] * (2 if j else 1)
    return np.array(counts, np.uint64), starts


def find_pulses(x: Float64, pulses: int) -> NDArray[np.int64]:
    """Return the integer vectors that the search finds for the rows of `x`, finite; a row of zeros gets all in front.

    Example:
        >>> find_pulses(np.array([[3.0, -1.0, 0.2, 0.0]]), 4).tolist()
        [[3, -1, 0, 0]]
    """
    size = np.abs(x)
    largest = size.max(axis=-1, keepdims=True)
    size = size / np.where(largest > 0, largest, 1.0)
    total = size.sum(axis=-1, keepdims=True)
    y = np.floor(pulses * (size / np.where(total > 0, total, 1.0)))
    left = pulses - y.sum(axis=-1)
    while (active := np.flatnonzero(left > 0)).size:
        part, chosen = size[active], y[active]
        product = (part * chosen).sum(axis=-1, keepdims=True) + part
        norm = (chosen * chosen).sum(axis=-1, keepdims=True) + 2 * chosen + 1
        place = (product * product / norm).argmax(axis=-1)
        y[active, place] += 1
        left[active] -= 1
    return np.where(x < 0, -y, y).astype(np.int64)


def vector_index(y: NDArray[np.int64], pulses: int) -> NDArray[np.uint64]:
    """Return the index of each row.

    Example:
        >>> vector_index(np.array([[0, 2], [1, 1], [1, -1], [2, 0], [-2, 0]]), 2).tolist()
        [0, 2, 3, 6, 7]
    """
    n = y.shape[-1]
    counts, starts = _starts(n, pulses)
    index = np.zeros(len(y), np.uint64)
    left = np.full(len(y), pulses)
    for place in range(n):
        m, j = n - place, np.abs(y[:, place])
        index += starts[m, left, j] + np.where(y[:, place] < 0, counts[m - 1, left - j], np.uint64(0))
        left -= j
    return index


def vector_of_index(index: NDArray[Any], n: int, pulses: int) -> NDArray[np.int64]:
    """Return the rows that have these indices.

    Raises:
        RangeError: An index that no vector has.

    Example:
        >>> vector_of_index(np.arange(8), 2, 2).tolist()
        [[0, 2], [0, -2], [1, 1], [1, -1], [-1, 1], [-1, -1], [2, 0], [-2, 0]]
    """
    counts, starts = _starts(n, pulses)
    rest = index.astype(np.uint64)
    if rest.size and int(rest.max()) >= int(counts[n, pulses]):
        raise RangeError(
            f"index {rest.max()} is beyond the {counts[n, pulses]} vectors of {n} values and {pulses} pulses."
        )
    y = np.zeros((len(rest), n), np.int64)
    left = np.full(len(rest), pulses)
    for place in range(n):
        m = n - place
        reached = (starts[m, left, 1:] <= rest[:, None]) & (np.arange(1, pulses + 1) <= left[:, None])
        j = reached.sum(axis=-1)
        rest = rest - starts[m, left, j]
        half = counts[m - 1, left - j]
        negative = (j > 0) & (rest >= half)
        rest = np.where(negative, rest - half, rest)
        y[:, place] = np.where(negative, -j, j)
        left -= j
    return y


def _unit(y: NDArray[np.int64]) -> Float64:
    return np.asarray(y / np.sqrt((y * y).sum(axis=-1, keepdims=True)))


def _encode(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    only_nearest(request, fmt)
    pulses = fmt.option("pulses")
    w = x.reshape(-1, x.shape[-1]).astype(np.float64)
    bad = ~np.isfinite(w).all(axis=-1, keepdims=True)
    w = np.where(bad, 0.0, w)
    y = find_pulses(w, pulses)
    gain = (w * _unit(y)).sum(axis=-1, keepdims=True)
    codes, _ = stored_scales(np.where(bad, np.nan, gain), fmt.option("gain"))
    lead = (*x.shape[:-1], 1)
    return {"index": vector_index(y, pulses).reshape(lead), "gain": codes.reshape(lead)}


def _decode(fields: Fields, fmt: Packed) -> Float64:
    index = fields["index"]
    y = vector_of_index(index.reshape(-1), fmt.block_elements, fmt.option("pulses"))
    return _unit(y).reshape(*index.shape[:-1], -1) * decode_codes(fields["gain"], fmt.option("gain"))


SCHEMES: dict[str, Scheme] = {"shape_gain": Scheme(_encode, _decode)}
