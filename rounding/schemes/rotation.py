"""The randomised Hadamard transform: random signs, then a Walsh-Hadamard matrix, scaled to be a rotation.

The transform runs in float64 by butterflies, so that its result is the same on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.rounding.random_bits import words

#: Positions of the random words that signs are drawn from, far from those of any array's elements.
_SIGN_POSITIONS = 1 << 63


def draw_signs(key: tuple[int, int], count: int) -> NDArray[np.uint8]:
    """Return `count` random bits, 1 for a minus sign; they depend on the seed's keys alone."""
    return np.asarray(words(key, _SIGN_POSITIONS, count) >> np.uint32(31)).astype(np.uint8)


def rotate(x: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Flip the signs that `negative` marks along the last axis, then transform it."""
    return _hadamard(np.where(negative, -x, x).astype(np.float64))


def rotate_back(x: NDArray[Any], negative: NDArray[Any]) -> NDArray[np.float64]:
    """Undo `rotate`."""
    transformed = _hadamard(x.astype(np.float64))
    return np.where(negative, -transformed, transformed)


def _hadamard(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply the last axis, whose length is a power of two, by the orthonormal Walsh-Hadamard matrix."""
    size = x.shape[-1]
    half = 1
    while half < size:
        pairs = x.reshape(*x.shape[:-1], size // (2 * half), 2, half)
        low, high = pairs[..., 0, :], pairs[..., 1, :]
        x = np.stack([low + high, low - high], axis=-2).reshape(x.shape)
        half *= 2
    return np.asarray(x / np.sqrt(size))
