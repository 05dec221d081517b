"""Random words by seed and position, as torch tensors; see `lowp.rounding.random_bits`."""

from __future__ import annotations

import math
from typing import Any

import torch

_MASK = 0xFFFFFFFF


def _times(h: torch.Tensor, factor: int) -> torch.Tensor:
    """Return the low 32 bits of a product, by halves: int64 has no room for the whole."""
    low, high = factor & 0xFFFF, factor >> 16
    return (h * low + ((h * high & 0xFFFF) << 16)) & _MASK


def _mixed(h: torch.Tensor) -> torch.Tensor:
    h = h ^ h >> 16
    h = _times(h, 0x7FEB352D)
    h = h ^ h >> 15
    h = _times(h, 0x846CA68B)
    return h ^ h >> 16


def words_of(x: torch.Tensor, key: tuple[int, int], shard: Any = None) -> torch.Tensor:
    """Return the random word of every element of `x`, as int64; positions follow the larger array of a shard.

    Example:
        >>> from lowp.rounding.random_bits import keys, word
        >>> int(words_of(torch.zeros(2, 3), keys(7))[1, 2]) == word(7, 5)
        True
    """
    whole = tuple(x.shape) if shard is None else tuple(shard.shape)
    offset = (0,) * x.ndim if shard is None else tuple(shard.offset)
    position = torch.zeros((), dtype=torch.int64, device=x.device)
    for dim, size in enumerate(x.shape):
        index = torch.arange(size, device=x.device) + int(offset[dim])
        stride = math.prod(whole[dim + 1 :])
        position = position + (index * stride).reshape([-1 if d == dim else 1 for d in range(x.ndim)])
    low, high = position & _MASK, position >> 32 & _MASK
    return _mixed(_mixed(low ^ key[0]) ^ (high + key[1] & _MASK))
