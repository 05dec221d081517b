"""What the schemes of structured formats share: which values are real and fill up, means, and how scales are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding.request import Request
from lowp.rounding.schemes.scaled_integers import stored_scales

#: Formats of scales by their width.
SCALE_FORMATS = {16: Float(5, 10), 32: Float(8, 23)}
#: Axes of (rows, blocks, values) that share one scale.
SHARED_AXES: dict[str, tuple[int, ...]] = {"block": (2,), "row": (1, 2), "tensor": (0, 1, 2)}


def present(x: NDArray[Any], request: Request) -> NDArray[np.bool_]:
    """Return which values of blocks shaped as `x` belong to the array, and are not zeros that fill up a last block."""
    mask = np.ones(x.shape, np.bool_)
    if mask.size and request.padding[-1]:
        mask[:, -1, x.shape[-1] - request.padding[-1] :] = False
    return mask


def check_whole(request: Request, fmt: Packed) -> None:
    """Raise ArgumentError if the last block of a row, or a tile, is not full."""
    if any(request.padding):
        raise ArgumentError(f"x does not fill whole blocks of {fmt.block_size}, which {fmt.name!r} needs.")


def shared_mean(x: NDArray[Any], chosen: NDArray[np.bool_], per: str) -> NDArray[np.float64]:
    """Return the mean of the chosen values for each block, row or tensor, 0 where none is chosen; axes are kept."""
    axes = SHARED_AXES[per]
    normal, exponents = normalised(np.where(chosen, x, 0.0), axes)
    mean = normal.sum(axis=axes, keepdims=True) / np.maximum(chosen.sum(axis=axes, keepdims=True), 1)
    return np.asarray(np.ldexp(mean, exponents))


def normalised(x: NDArray[Any], axes: int | tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return `x` over the power of two above its largest magnitude along `axes`, and the exponent: no sum overflows.

    Example:
        >>> normal, exponents = normalised(np.array([[3e200, -1e200]]), -1)
        >>> np.ldexp(normal, exponents).tolist()
        [[3e+200, -1e+200]]
    """
    largest = np.abs(x).max(axis=axes, keepdims=True, initial=0)
    exponents = np.frexp(np.where(np.isfinite(largest), largest, 0))[1]
    return np.ldexp(x.astype(np.float64), -exponents), exponents


def restored(x: NDArray[np.float64], exponents: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return `x` times powers of two; what overflows is the largest finite number, so that scales saturate."""
    largest = np.finfo(np.float64).max
    return np.asarray(np.where(np.isfinite(x), np.clip(np.ldexp(x, exponents), -largest, largest), x))


def scale_field(wanted: NDArray[np.float64], fmt: Packed, name: str = "scale") -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the codes of scales, shaped as the field, and their values; scales have the axes (rows, blocks, count)."""
    field = next(f for f in fmt.fields if f.name == name)
    codes, values = stored_scales(wanted, SCALE_FORMATS[field.bits])
    shapes = {"block": codes.shape, "row": (codes.shape[0], field.count), "tensor": (field.count,)}
    return codes.reshape(shapes[field.per]), values


def scale_values(codes: NDArray[Any], fmt: Packed, name: str = "scale") -> NDArray[np.float64]:
    """Return the values of a field of scales with the axes (rows, blocks, count)."""
    field = next(f for f in fmt.fields if f.name == name)
    values = decode_codes(codes, SCALE_FORMATS[field.bits])
    shapes = {"block": values.shape, "row": (len(values), 1, field.count), "tensor": (1, 1, field.count)}
    return values.reshape(shapes[field.per])
