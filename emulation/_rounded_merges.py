"""Orders of additions on a stack of numbers: how many add its two uppermost numbers after each that comes."""

from __future__ import annotations


def chain_merges(count: int) -> list[int]:
    """Return the additions after each number of a chain.

    Example:
        >>> chain_merges(3)
        [0, 1, 1]
    """
    return [int(i > 0) for i in range(count)]


def tree_merges(count: int) -> list[int]:
    """Return the additions after each leaf of a tree of halves, the larger half first.

    Example:
        >>> tree_merges(3), tree_merges(5)
        ([0, 1, 1], [0, 1, 1, 0, 2])
    """
    if count <= 1:
        return [0] * count
    half = (count + 1) // 2
    left, right = tree_merges(half), tree_merges(count - half)
    right[-1] += 1
    return left + right
