"""On-chip memories of FPGAs: how many block RAMs, UltraRAMs or LUTs a memory or a FIFO takes."""

from __future__ import annotations

import math

from lowp._errors import ArgumentError, unknown_name
from lowp.hw_models.arguments import sizes

#: (Widest word, words) of a RAMB18 in simple dual-port mode, AMD UG573 table 1-10.
_BRAM18_MODES = ((1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024), (36, 512))
_URAM_WIDTH, _URAM_WORDS = 72, 4096
_LUTRAM_WORDS = 64
_SRL_WORDS, _SRL_BITS = 32, 2
MEMORY_STYLES = ("block", "ultra", "distributed")


def bram18(width: int, words: int) -> int:
    """Return the 18 Kb block RAMs of a memory, each in the one shape that FINN picks.

    Shapes are picked by width; words of more than 18 bits use the 36-bit shape only up to 512 words deep.

    Args:
        width: Bits of a word.
        words: Words.

    Raises:
        ArgumentError: A size is not positive.

    Example:
        >>> bram18(1024, 256), bram18(8, 4096)
        (29, 2)
    """
    width, words = sizes(width=width, words=words)
    for widest, deep in _BRAM18_MODES[:4]:
        if width <= widest:
            return math.ceil(words / deep) * math.ceil(width / widest)
    if width <= 18 or words > 512:
        return math.ceil(words / 1024) * math.ceil(width / 18)
    return math.ceil(words / 512) * math.ceil(width / 36)


def fewest_bram18(width: int, words: int) -> int:
    """Return the fewest 18 Kb block RAMs of a memory, all in one shape.

    Example:
        >>> fewest_bram18(36, 600), bram18(36, 600)
        (2, 2)
        >>> fewest_bram18(8, 16384) <= bram18(8, 16384)
        True
    """
    width, words = sizes(width=width, words=words)
    return min(math.ceil(words / deep) * math.ceil(width / wide) for wide, deep in _BRAM18_MODES)


def uram(width: int, words: int) -> int:
    """Return the UltraRAMs of a memory: 4096 words of 72 bits each.

    Example:
        >>> uram(1024, 256), uram(72, 4097)
        (15, 2)
    """
    width, words = sizes(width=width, words=words)
    return math.ceil(width / _URAM_WIDTH) * math.ceil(words / _URAM_WORDS)


def lutram(width: int, words: int) -> int:
    """Return the LUTs of a memory in distributed RAM: 64 words of one bit each.

    Example:
        >>> lutram(8, 65)
        16
    """
    width, words = sizes(width=width, words=words)
    return width * math.ceil(words / _LUTRAM_WORDS)


def fifo(width: int, depth: int, style: str = "distributed") -> dict[str, int]:
    """Return the LUTs, block RAMs and UltraRAMs of a FIFO, as FINN estimates them.

    Args:
        width: Bits of a word.
        depth: Words.
        style: "distributed" (shift registers in LUTs), "block" or "ultra".

    Raises:
        ArgumentError: A size is not positive, or the style is unknown.

    Example:
        >>> fifo(32, 64)
        {'lut': 44, 'bram18': 0, 'uram': 0}
        >>> fifo(32, 1024, "block")["bram18"]
        2
    """
    width, depth = sizes(width=width, depth=depth)
    if style not in MEMORY_STYLES:
        raise ArgumentError(unknown_name("style", style, MEMORY_STYLES))
    address = 2 * (depth - 1).bit_length()
    shift = math.ceil(depth / _SRL_WORDS) * math.ceil(width / _SRL_BITS) if style == "distributed" else 0
    return {
        "lut": address + shift,
        "bram18": bram18(width, depth) if style == "block" else 0,
        "uram": uram(width, depth) if style == "ultra" else 0,
    }
