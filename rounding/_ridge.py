"""Systems of a few linear equations, solved for many right sides at once in one order of float64 steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def solved(
    matrix: list[list[Any]],
    right: list[Any],
    multiply: Callable[[Any, Any], Any],
    divide: Callable[[Any, Any], Any],
) -> list[Any]:
    """Return the solution by elimination without pivoting, for a positive definite matrix.

    Args:
        matrix: Its entries, row by row, each an array over all systems.
        right: The right sides.
        multiply: The product, rounded once.
        divide: The quotient, rounded once.

    Example:
        >>> from operator import mul, truediv
        >>> solved([[4.0, 2.0], [2.0, 3.0]], [8.0, 8.0], mul, truediv)
        [1.0, 2.0]
    """
    size = len(right)
    rows, rest = [list(row) for row in matrix], list(right)
    for k in range(size):
        for i in range(k + 1, size):
            factor = divide(rows[i][k], rows[k][k])
            for j in range(k + 1, size):
                rows[i][j] = rows[i][j] - multiply(factor, rows[k][j])
            rest[i] = rest[i] - multiply(factor, rest[k])
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            rest[k] = rest[k] - multiply(rows[k][j], rest[j])
        rest[k] = divide(rest[k], rows[k][k])
    return rest
