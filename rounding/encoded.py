"""An encoded array: codes, scales and format, and its true storage size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.block import Block
from lowp.formats.packing import pack
from lowp.formats.spec import Format


@dataclass(frozen=True, eq=False)
class Encoded:
    """Codes of an array, with everything that decoding needs.

    Attributes:
        codes: One code per element, in the array's shape, smallest unsigned dtype. Where a torch tensor was
            encoded, this and the other arrays are tensors on its device.
        format: The format.
        scales: Codes of the block scales (block formats), one per block: the blocked axes count blocks.
        zero_points: Zero points in element units, shaped as `scales`, or None. For ggml's Q4_1 and Q5_1 the codes
            of the block minima.
        tensor_scale: The scale of the whole tensor as a Python float, or None.
        axis: The axis, or pair of axes, that blocks run along.
        dtype: dtype that `decode` returns.
    """

    codes: Any
    format: Format
    scales: Any = None
    zero_points: Any = None
    tensor_scale: float | None = None
    axis: int | tuple[int, int] = -1
    dtype: Any = field(default_factory=lambda: np.dtype(np.float64))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.codes.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the packed codes, scales, zero points and tensor scale take."""
        fmt = self.format
        total = _whole_bytes(math.prod(self.shape), fmt.bits)
        if isinstance(fmt, Block):
            blocks = math.prod(self.scales.shape)
            total += _whole_bytes(blocks, fmt.scale.bits) + (4 if fmt.tensor_scale is not None else 0)
            if self.zero_points is not None:
                total += _whole_bytes(blocks, fmt.block_bits - fmt.scale.bits)
        return total

    @property
    def bits_per_value(self) -> float:
        """Storage bits per element, everything counted; NaN for an empty array."""
        size = math.prod(self.shape)
        return 8 * self.nbytes / size if size else math.nan

    def pack(self) -> dict[str, NDArray[np.uint8]]:
        """Return the bytes of each part: "codes", and for block formats "scales", "zero_points", "tensor_scale".

        Codes lie back to back, least significant bit first: the first code is in the low bits of byte 0 (two 4-bit
        codes a byte, the first in the low nibble). The last byte is filled up with zeros. Always NumPy arrays.
        """
        fmt = self.format
        parts = {"codes": pack(as_numpy(self.codes), fmt.bits)}
        if isinstance(fmt, Block):
            parts["scales"] = pack(as_numpy(self.scales), fmt.scale.bits)
            if self.zero_points is not None:
                parts["zero_points"] = pack(as_numpy(self.zero_points), fmt.block_bits - fmt.scale.bits)
            if fmt.tensor_scale is not None:
                parts["tensor_scale"] = np.array([self.tensor_scale], np.float32).view(np.uint8)
        return parts

    def __repr__(self) -> str:
        size = f"{self.nbytes} bytes, {self.bits_per_value:.4g} bits/value"
        return f"Encoded({self.format.name}, shape={self.shape}, {size})"


def _whole_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def as_numpy(array: Any) -> NDArray[Any]:
    """Return an array or a torch tensor on any device as a NumPy array."""
    return np.asarray(array.cpu().numpy() if hasattr(array, "cpu") else array)
