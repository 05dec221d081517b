"""The random Hadamard transform: it spreads outliers over a block before rounding, and is undone exactly in reals.

One order of float operations defines the result on every backend: sign flips; the butterflies that make `u + v` and
`u - v` of elements that are h = 1, 2, 4, ... apart, each sum rounded in the dtype; one multiplication by
`1 / sqrt(block)` rounded to the dtype. The inverse flips signs last.

Sources: Ashkboos et al., "QuaRot", arXiv:2404.00456; Tseng, Yu, Park, "Training LLMs with MXFP4", arXiv:2502.20586.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.rounding._arrays import as_source
from lowp.rounding._dispatch import is_jax, is_torch
from lowp.rounding._threads import split
from lowp.rounding.random_bits import keys, words

#: Where the signs of a transform come from.
SIGNS = {"random": "the top random bit of the block position under the seed", "none": "all positive"}


def hadamard(x: Any, block: int, axis: int = -1, seed: Any = None, signs: str = "random", inverse: bool = False) -> Any:
    """Multiply each block along an axis by random signs and by the orthonormal Walsh-Hadamard matrix.

    NaN and infinities spread over their block as float arithmetic has it. float16 and bfloat16 are transformed in
    float32 and rounded once. NumPy, torch and JAX give the same bits (XLA on CPUs may flush numbers below 2^-126 to
    zero).

    Args:
        x: NumPy array, list, torch tensor or JAX array of real numbers; integers give float64 (JAX: its widest float).
        block: Elements of a block, a power of two that divides the length of the axis.
        axis: Axis that blocks run along.
        seed: Seed of the signs, 0 to 2^64 - 1, default 0: element i of every block is negated where the top bit of
            `random_bits.word(seed, i)` is set. Not used with signs="none". JAX: it may be a traced integer.
        signs: "random" or "none".
        inverse: Whether to undo the transform: the matrix first, then the signs.

    Returns:
        An array of the type, shape and dtype of `x`. Gradients of torch and JAX are those of the linear map.

    Raises:
        ArgumentError: A block that is no power of two or does not divide the axis; an axis, name or seed that is not
            allowed.
        ArgumentTypeError: `x` is not an array of real numbers, or `block` or `axis` no integer.

    Example:
        >>> hadamard([1.0, 0.0, 0.0, 0.0], 4, signs="none").tolist()
        [0.5, 0.5, 0.5, 0.5]
        >>> hadamard(hadamard([1.0, 2.0, 3.0, 4.0], 4, seed=7), 4, seed=7, inverse=True).tolist()
        [1.0, 2.0, 3.0, 4.0]
    """
    if signs not in SIGNS:
        raise ArgumentError(unknown_name("signs", signs, SIGNS))
    if is_jax(x) or is_jax(seed):
        from lowp.rounding._jax_hadamard import hadamard_array

        return hadamard_array(x, block, axis, seed, signs, inverse)
    seed = checked_seed(seed)
    if is_torch(x):
        from lowp.rounding._torch_hadamard import hadamard_tensor

        return hadamard_tensor(x, int(block), checked_axis(x.shape, block, axis), seed, signs, bool(inverse))
    source = as_source(x)
    place = checked_axis(source.values.shape, block, axis)
    values = np.ascontiguousarray(source.values)
    result = rotate(values, block_signs(block, seed, signs), place, inverse)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return result if source.dtype is None else result.astype(source.dtype, copy=False)


def checked_axis(shape: Any, block: Any, axis: Any) -> int:
    """Return the axis counted from the front; raises as `hadamard`."""
    if isinstance(block, bool) or not hasattr(block, "__index__"):
        raise ArgumentTypeError(f"block={block!r} must be an integer, a power of two.")
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise ArgumentTypeError(f"axis={axis!r} must be an integer.")
    ndim = len(shape)
    if not -ndim <= axis < ndim:
        raise ArgumentError(f"axis={axis!r} does not exist in an array of {ndim} dimensions.")
    length = shape[axis]
    if block < 1 or block & (block - 1) or length % block:
        raise ArgumentError(f"block={block!r} must be a power of two that divides the axis, whose length is {length}.")
    return int(axis) % ndim


def checked_seed(seed: Any) -> int:
    """Return a seed as an integer, 0 for None; raises as `hadamard`."""
    number = 0 if seed is None else seed
    keys(number)
    return int(number)


def block_signs(block: int, seed: int, signs: str) -> NDArray[np.float64]:
    """Return +1 or -1 for each position in a block."""
    return _signs(int(block), keys(seed) if signs == "random" else None)


@lru_cache(maxsize=256)
def _signs(block: int, key: tuple[int, int] | None) -> NDArray[np.float64]:
    result = np.ones(block) if key is None else np.where(words(key, 0, block) >> np.uint32(31), -1.0, 1.0)
    result.flags.writeable = False
    return result


def rotate(
    x: NDArray[Any], signs: NDArray[np.float64], axis: int, inverse: bool, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Transform a contiguous float32 or float64 array with the compiled kernels, into `out` (which may be `x`)."""
    from lowp.rounding._grids import Grid
    from lowp.rounding._hadamard_kernels import CHUNK, rotate_columns, rotate_runs

    result = np.empty_like(x) if out is None else out
    if not x.size:
        return result
    factor, own = x.dtype.type(1 / math.sqrt(signs.size)), signs.astype(x.dtype)
    inner = math.prod(x.shape[axis + 1 :])
    if inner == 1:
        source, sink = x.reshape(-1), result.reshape(-1)
        unit = max(signs.size, CHUNK)
        split(x.size, lambda a, b: rotate_runs(source[a:b], sink[a:b], own, factor, inverse), unit=unit)
        return result
    grid = Grid(x.size // (x.shape[axis] * inner), x.shape[axis], inner, signs.size, 1)
    seen, written = grid.seen(x), grid.seen(result)
    grid.split(lambda *bounds: rotate_columns(seen, written, own, factor, inverse, *bounds))
    return result


def rotate_portable(
    x: Any, signs: Any, axis: int, inverse: bool, stack: Callable[[list[Any], int], Any], factor: Any
) -> Any:
    """Transform with the operators of an array library; `signs` and `factor` are of the dtype of `x`."""
    block, shape = signs.shape[0], tuple(x.shape)
    inner = math.prod(shape[axis + 1 :])
    spread = signs.reshape(block, 1)
    y = x.reshape(-1, block, inner)
    y = y if inverse else y * spread
    h = 1
    while h < block:
        pairs = y.reshape(-1, 2, h, inner)
        u, v = pairs[:, 0], pairs[:, 1]
        y = stack([u + v, u - v], 1)
        h *= 2
    y = y.reshape(-1, block, inner) * factor
    return (y * spread if inverse else y).reshape(shape)
