"""Plain NumPy solvers: nothing in them knows of number formats; the arrays they are given decide."""

from typing import Any

import numpy as np


def conjugate_gradients(a: Any, b: Any, steps: int) -> list[Any]:
    """Return the iterates of the method of Hestenes and Stiefel (1952), the start at zero included."""
    x = b * 0
    r = b - a @ x
    p = r
    rho = r @ r
    iterates = [x]
    for _ in range(steps):
        q = a @ p
        alpha = rho / (p @ q)
        x = x + alpha * p
        r = r - alpha * q
        new = r @ r
        p = r + (new / rho) * p
        rho = new
        iterates.append(x)
    return iterates


def cholesky(a: Any) -> list[Any]:
    """Return the columns of the lower factor, by the outer-product form: n steps of scaled rank-one updates."""
    columns = []
    rest = a
    for k in range(a.shape[0]):
        column = rest[:, k] / np.sqrt(rest[k, k])
        columns.append(np.where(np.arange(a.shape[0]) >= k, column, 0 * column))
        rest = rest - np.outer(columns[k], columns[k])
    return columns


def solve_with(columns: list[Any], b: Any) -> Any:
    """Return the solution of `L L^T x = b` by two triangular solves, column by column."""
    n = len(columns)
    y = []
    for k in range(n):
        y.append(b[k] / columns[k][k])
        b = b - y[k] * columns[k]
    x: list[Any] = [None] * n
    for k in reversed(range(n)):
        total = y[k]
        for i in range(k + 1, n):
            total = total - columns[k][i] * x[i]
        x[k] = total / columns[k][k]
    return np.array([np.asarray(v).item() for v in x])


def refine(a: np.ndarray, b: np.ndarray, low: Any, steps: int) -> list[np.ndarray]:
    """Return the iterates of mixed-precision iterative refinement: factors in low precision, residuals in float64.

    The matrix is scaled to a unit diagonal and the residual to a largest magnitude of 1, so that neither leaves the
    range of a narrow format (Higham, Pranesh and Zounon, SIAM J. Sci. Comput. 41(4), 2019). `low` turns a float64 array
    into one that computes in the low precision.
    """
    d = 1 / np.sqrt(np.diag(a))
    columns = cholesky(low(a * np.outer(d, d)))
    x = np.zeros_like(b)
    iterates = [x]
    for _ in range(steps):
        r = (b - a @ x) * d
        size = np.max(np.abs(r))
        if not np.isfinite(size) or size == 0:
            break
        x = x + solve_with(columns, low(r / size)) * size * d
        iterates.append(x)
    return iterates
