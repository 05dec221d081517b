"""Block formats one block at a time, through the exact oracle; slow, and nothing of the fast paths."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from lowp.formats import Block
from lowp.rounding import exact
from lowp.rounding.exact_block import decode_block, encode_block


def blocks(shape: tuple[int, ...], fmt: Block, axis: Any) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield the place of every block among the scales, and its slices of the array."""
    if fmt.size == "tensor":
        axes, sizes = tuple(range(len(shape))), shape
    elif isinstance(fmt.size, tuple):
        axes, sizes = ((-2, -1) if axis == -1 else axis), fmt.size
    else:
        axes, sizes = (axis,), (shape[axis] if fmt.size == "row" else fmt.size,)  # type: ignore[assignment]
    size_of = {a % len(shape): max(int(s), 1) for a, s in zip(axes, sizes, strict=True)}
    counts = [-(-n // size_of.get(a, 1)) for a, n in enumerate(shape)]
    for place in itertools.product(*map(range, counts)):
        yield (
            place,
            tuple(
                slice(i * size_of.get(a, 1), min((i + 1) * size_of.get(a, 1), shape[a])) for a, i in enumerate(place)
            ),
        )


def encoded(x: np.ndarray, fmt: Block, axis: Any = -1) -> tuple[np.ndarray, dict[tuple[int, ...], tuple[int, Any]]]:
    """Return the codes, and for the place of each block its scale code and zero point."""
    codes, scales = np.zeros(x.shape, np.int64), {}
    for place, part in blocks(x.shape, fmt, axis):
        scale, block, zero = encode_block(
            x[part].ravel().tolist(), fmt.element, fmt.scale, fmt.recipe, zero_point=fmt.zero_point
        )
        codes[part] = np.array(block).reshape(x[part].shape)
        scales[place] = (scale, zero)
    return codes, scales


def quantized(x: np.ndarray, fmt: Block, axis: Any = -1) -> np.ndarray:
    """Return the values: exact products, rounded once to the dtype of `x`."""
    codes, scales = encoded(x, fmt, axis)
    result = np.zeros(x.shape)
    for place, part in blocks(x.shape, fmt, axis):
        values = decode_block(scales[place][0], codes[part].ravel().tolist(), scales[place][1], fmt.element, fmt.scale)
        once = [float(exact.quantize(v, x.dtype.name, overflow="infinity_or_nan")) for v in values]
        result[part] = np.array(once).reshape(x[part].shape)
    return result
