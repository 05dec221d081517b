"""Products and norms of NumPy arrays as chains of rounded operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lowp._errors import ArgumentError


def _matmul(mode: Any, a: Any, b: Any, **options: Any) -> Any:
    """Return `a @ b`; with sums="each" every product and every partial sum is rounded."""
    if options:
        raise ArgumentError(f"numpy.matmul with {', '.join(options)}= is not emulated.")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if mode.sums == "final" or 0 in (a.ndim, b.ndim):
        return mode.round("matmul", np.matmul(a, b))
    left, right = a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None]
    if left.shape[-1] != right.shape[-2]:
        np.matmul(a, b)  # raises what NumPy says of shapes that do not fit
    total: Any = None
    for k in range(left.shape[-1]):
        product = mode.round("multiply", left[..., :, k, None] * right[..., None, k, :])
        total = product if total is None else mode.round("add", total + product)
    if total is None:
        return np.matmul(a, b)
    total = total if b.ndim > 1 else total[..., 0]
    return total if a.ndim > 1 else (total[..., 0, :] if b.ndim > 1 else total[..., 0])


def _dot(mode: Any, a: Any, b: Any, **options: Any) -> Any:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if 0 in (a.ndim, b.ndim):
        return mode.round("multiply", a * b)
    if b.ndim <= 2 and a.ndim <= 2:
        return _matmul(mode, a, b, **options)
    rest = np.moveaxis(b, -2, 0)  # numpy.dot pairs every row of a with every column of b
    product = _matmul(mode, a.reshape(-1, a.shape[-1]), rest.reshape(rest.shape[0], -1))
    return product.reshape(*a.shape[:-1], *rest.shape[1:])


def _inner(mode: Any, a: Any, b: Any) -> Any:
    b = np.asarray(b, np.float64)
    return _dot(mode, a, np.moveaxis(b, -1, -2) if b.ndim > 1 else b)


def _vdot(mode: Any, a: Any, b: Any) -> Any:
    return _dot(mode, np.ravel(a), np.ravel(b))


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    """Return a norm as NumPy defines it, of operations on the array; None for those that need singular values."""
    axes = tuple(range(x.ndim)) if axis is None else tuple(int(a) for a in np.atleast_1d(axis))
    if (ord is None and axis is None) or (len(axes) == 2 and ord in (None, "fro")):
        return np.sqrt(np.sum(x * x, axis=axes, keepdims=keepdims))
    if len(axes) == 1 and (ord is None or isinstance(ord, int | float)):
        return _norm_of_vectors(x, 2 if ord is None else ord, axes[0], keepdims)
    if len(axes) == 2 and ord in (1, -1, np.inf, -np.inf):
        rows, columns = axes if abs(ord) == 1 else axes[::-1]
        sums = np.sum(np.abs(x), axis=rows, keepdims=True)
        end = (np.max if ord > 0 else np.min)(sums, axis=columns, keepdims=True)
        return end if keepdims else np.squeeze(end, axis=axes)
    return None


def _norm_of_vectors(x: Any, p: float, axis: int, keepdims: bool) -> Any:
    if abs(p) == np.inf:
        return (np.max if p > 0 else np.min)(np.abs(x), axis=axis, keepdims=keepdims)
    if p == 0:
        return None
    if p == 1:
        return np.sum(np.abs(x), axis=axis, keepdims=keepdims)
    if p == 2:
        return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))
    return np.sum(np.abs(x) ** p, axis=axis, keepdims=keepdims) ** (1 / p)


def _outer(mode: Any, a: Any, b: Any) -> Any:
    return mode.round("multiply", np.multiply.outer(np.ravel(a), np.ravel(b)))


def _vecdot(mode: Any, a: Any, b: Any, **options: Any) -> Any:
    product = _matmul(mode, np.asarray(a)[..., None, :], np.asarray(b)[..., :, None], **options)
    return product[..., 0, 0]


PRODUCTS: dict[Any, Callable[..., Any]] = {np.dot: _dot, np.inner: _inner, np.vdot: _vdot, np.outer: _outer}
PRODUCTS_OF_ARRAYS = {"matmul": _matmul, "vecdot": _vecdot}
