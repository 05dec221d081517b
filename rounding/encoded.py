"""An encoded array: codes, scales and format, and its true storage size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.packing import pack, unpack
from lowp.formats.parse import parse
from lowp.formats.spec import Format
from lowp.rounding._layout import make_layout


@dataclass(frozen=True, eq=False)
class Encoded:
    """Codes of an array, with everything that decoding needs.

    Attributes:
        codes: One code per element, in the array's shape, smallest unsigned dtype. Where a torch tensor was
            encoded, this and the other arrays are tensors on its device.
        format: The format.
        scales: Codes of the block scales (block formats), one per block: the blocked axes count blocks.
        zero_points: Zero points in element units, shaped as `scales`, or None.
        tensor_scale: The scale of the whole tensor as a Python float, or None.
        axis: The axis, or pair of axes, that blocks run along.
        fields: Packed formats: the stored integers by field name, see `lowp.formats.Packed`; else None.
        array_shape: Packed formats: the shape of the array, which `codes` does not have.
        dtype: dtype that `decode` returns.
    """

    codes: Any
    format: Format
    scales: Any = None
    zero_points: Any = None
    tensor_scale: float | None = None
    axis: int | tuple[int, int] = -1
    fields: dict[str, Any] | None = None
    array_shape: tuple[int, ...] | None = None
    dtype: Any = field(default_factory=lambda: np.dtype(np.float64))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.codes.shape) if self.array_shape is None else self.array_shape

    @property
    def nbytes(self) -> int:
        """Bytes that the packed codes, scales, zero points and tensor scale take."""
        if isinstance(self.format, Packed):
            return sum(part.size for part in self.parts().values())
        sizes = _part_sizes(self.format, self.shape, self.axis)
        return sum(_whole_bytes(math.prod(part), bits) for part, bits in sizes.values())

    @property
    def bits_per_value(self) -> float:
        """Storage bits per element, everything counted; NaN for an empty array."""
        size = math.prod(self.shape)
        return 8 * self.nbytes / size if size else math.nan

    def pack(self) -> NDArray[np.uint8]:
        """Return `nbytes` bytes: the parts of `parts()` one after the other.

        Example:
            >>> from lowp.rounding import encode
            >>> encode([0.5, -1.0, 6.0], "float4_e2m1fn").pack().tolist()
            [161, 7]
        """
        parts = list(self.parts().values())
        return np.concatenate(parts) if len(parts) > 1 or isinstance(self.format, Packed) else parts[0]

    def parts(self) -> dict[str, NDArray[np.uint8]]:
        """Return the bytes of each part: "codes", and for block formats "scales", "zero_points", "tensor_scale".

        Codes lie back to back, least significant bit first: the first code is in the low bits of byte 0 (two 4-bit
        codes a byte, the first in the low nibble). The last byte of a part is filled up with zeros. The tensor scale is
        a little-endian float32. Always NumPy arrays.
        """
        fmt = self.format
        if isinstance(fmt, Packed):
            from lowp.rounding._packed import pack_fields

            return pack_fields(self)
        parts = {"codes": pack(as_numpy(self.codes), fmt.bits)}
        if isinstance(fmt, Block):
            parts["scales"] = pack(as_numpy(self.scales), fmt.scale.bits)
            if self.zero_points is not None:
                parts["zero_points"] = pack(as_numpy(self.zero_points), fmt.block_bits - fmt.scale.bits)
            if fmt.tensor_scale is not None:
                parts["tensor_scale"] = np.array([self.tensor_scale], "<f4").view(np.uint8)
        return parts

    @classmethod
    def unpack(
        cls, data: Any, fmt: str | Format, shape: tuple[int, ...], axis: int | tuple[int, int] = -1, dtype: Any = None
    ) -> Encoded:
        """Return the encoded array that packed to `data`.

        Args:
            data: The bytes, as `bytes` or a uint8 array.
            fmt: Its format or the name of it.
            shape: Shape of the array that was encoded.
            axis: Axis or axes that its blocks run along.
            dtype: NumPy dtype that `decode` returns; default float64.

        Raises:
            ArgumentError: The number of bytes is not the one that format and shape need.

        Example:
            >>> from lowp.rounding import decode
            >>> decode(Encoded.unpack(bytes([161, 7]), "float4_e2m1fn", (3,))).tolist()
            [0.5, -1.0, 6.0]
        """
        resolved = parse(fmt)
        given: Any = shape
        if not isinstance(given, tuple | list) or not all(isinstance(n, int) and n >= 0 for n in given):
            raise ArgumentError(f"shape={shape!r} must be a tuple of sizes.")
        if not isinstance(data, bytes | bytearray) and getattr(data, "dtype", None) != np.uint8:
            raise ArgumentError(f"data of type {type(data).__name__} must be bytes or a uint8 array.")
        raw = (
            np.frombuffer(data, np.uint8) if isinstance(data, bytes | bytearray) else np.asarray(data, np.uint8).ravel()
        )
        dtype = np.dtype(dtype or np.float64)
        if isinstance(resolved, Packed):
            from lowp.rounding._packed import unpack_fields

            fields = unpack_fields(raw, resolved, tuple(shape), axis)
            first = next(iter(fields.values()))
            return cls(first, resolved, axis=axis, fields=fields, array_shape=tuple(shape), dtype=dtype)
        sizes = _part_sizes(resolved, tuple(shape), axis)
        needed = sum(_whole_bytes(math.prod(part), bits) for part, bits in sizes.values())
        if raw.size != needed:
            raise ArgumentError(
                f"data has {raw.size} bytes; {resolved.name!r} of shape {tuple(shape)} packs to {needed}."
            )
        found: dict[str, Any] = {}
        start = 0
        for name, (part, bits) in sizes.items():
            count = math.prod(part)
            stop = start + _whole_bytes(count, bits)
            found[name] = unpack(raw[start:stop], bits, count).reshape(part)
            start = stop
        if "tensor_scale" in found:
            found["tensor_scale"] = float(found["tensor_scale"].view(np.float32)[0])
        return cls(format=resolved, axis=axis, dtype=dtype, **found)

    def __repr__(self) -> str:
        size = f"{self.nbytes} bytes, {self.bits_per_value:.4g} bits/value"
        return f"Encoded({self.format.name}, shape={self.shape}, {size})"


def _part_sizes(fmt: Format, shape: tuple[int, ...], axis: Any) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return the shape and the bits per code of each packed part."""
    sizes = {"codes": (shape, fmt.bits)}
    if isinstance(fmt, Block):
        blocks = make_layout(shape, fmt, axis).scale_shape
        sizes["scales"] = (blocks, fmt.scale.bits)
        if fmt.block_bits > fmt.scale.bits:
            sizes["zero_points"] = (blocks, fmt.block_bits - fmt.scale.bits)
        if fmt.tensor_scale is not None:
            sizes["tensor_scale"] = ((1,), 32)
    return sizes


def _whole_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def as_numpy(array: Any) -> NDArray[Any]:
    """Return an array or a torch tensor on any device as a NumPy array."""
    return np.asarray(array.cpu().numpy() if hasattr(array, "cpu") else array)
