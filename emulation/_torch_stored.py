"""Tensors kept as codes: what an optimizer's state takes between two steps."""

from __future__ import annotations

import math
from typing import Any

import torch

from lowp._errors import ArgumentError, Error
from lowp.emulation.optimizer_states import StateCast
from lowp.formats import Block, Packed
from lowp.rounding import Encoded, decode, encode, quantize

#: Widths of codes that are packed, several a byte.
_PACKED_WIDTHS = (1, 2, 4)


class StoredTensor:
    """A tensor as codes and scales; codes of 1, 2 and 4 bits lie packed, the first in the low bits of a byte.

    Attributes:
        parts: The stored tensors by name: "codes", "scales", and so on, and "norm" where it was normalized.
        cast: How it was rounded.
        shape: Shape of the tensor.
        dtype: dtype that it is decoded to.
        tensor_scale: The scale of the whole tensor, or None.
    """

    def __init__(
        self,
        parts: dict[str, torch.Tensor],
        cast: StateCast,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        tensor_scale: float | None,
        part_shapes: dict[str, tuple[int, ...]],
    ) -> None:
        self.parts, self.cast, self.shape, self.dtype = parts, cast, shape, dtype
        self.tensor_scale, self.part_shapes = tensor_scale, part_shapes

    @classmethod
    def of(cls, x: torch.Tensor, cast: StateCast, seed: int) -> StoredTensor:
        """Encode a tensor."""
        norm = None
        if cast.normalize == "frobenius":
            norm = _norm(x)
            x = x / norm
        encoded = encode(x, cast.format, **cast.options(seed))
        if isinstance(cast.format, Packed):
            parts = dict(encoded.fields or {})
        else:
            found = {"codes": encoded.codes, "scales": encoded.scales, "zero_points": encoded.zero_points}
            parts = {name: part for name, part in found.items() if part is not None}
        shapes = {name: tuple(part.shape) for name, part in parts.items()}
        widths, size = _widths(cast), x.numel()
        parts = {name: _pack(_kept(part, name, cast, size), widths.get(name, 0)) for name, part in parts.items()}
        if norm is not None:
            parts["norm"] = norm
        return cls(parts, cast, tuple(x.shape), x.dtype, encoded.tensor_scale, shapes)

    def decode(self) -> torch.Tensor:
        """Return the tensor that the codes stand for."""
        fmt, widths = self.cast.format, _widths(self.cast)
        parts: dict[str, Any] = {
            name: _unpack(self.parts[name], widths.get(name, 0), shape) for name, shape in self.part_shapes.items()
        }
        if isinstance(fmt, Packed):
            first = next(iter(parts.values()))
            encoded = Encoded(first, fmt, fields=parts, array_shape=self.shape, dtype=self.dtype)
        else:
            encoded = Encoded(format=fmt, tensor_scale=self.tensor_scale, dtype=self.dtype, **parts)
        x: torch.Tensor = decode(encoded)
        return x * self.parts["norm"] if "norm" in self.parts else x

    @property
    def nbytes(self) -> int:
        """Bytes that the stored tensors take."""
        return sum(part.nbytes for part in self.parts.values()) + (4 if self.tensor_scale is not None else 0)

    def to_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, as a state_dict holds them."""
        return {
            "lowp_format": self.cast.format.name,
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
            "tensor_scale": self.tensor_scale,
            "parts": dict(self.parts),
            "part_shapes": {name: list(shape) for name, shape in self.part_shapes.items()},
        }

    @classmethod
    def from_dict(cls, given: dict[str, Any], cast: StateCast | None, where: str, device: torch.device) -> StoredTensor:
        """Return what `to_dict` gave.

        Raises:
            ArgumentError: It was stored in another format than `cast` asks for.
        """
        if cast is None or cast.format.name != given["lowp_format"]:
            wanted = "its own dtype" if cast is None else repr(cast.format.name)
            raise ArgumentError(f"state_dict holds {where} in {given['lowp_format']!r}; this optimizer keeps {wanted}.")
        parts = {name: part.detach().clone().to(device) for name, part in given["parts"].items()}
        shapes = {name: tuple(shape) for name, shape in given["part_shapes"].items()}
        dtype = getattr(torch, given["dtype"])
        return cls(parts, cast, tuple(given["shape"]), dtype, given["tensor_scale"], shapes)

    def __repr__(self) -> str:
        return f"StoredTensor({self.cast.format.name}, shape={self.shape}, {self.nbytes} bytes)"


def is_stored(value: Any) -> bool:
    """Whether a value of a state_dict is a tensor in codes."""
    return isinstance(value, dict) and "lowp_format" in value


def rounded(x: torch.Tensor, cast: StateCast, seed: int) -> torch.Tensor:
    """Return the values that `StoredTensor.of` keeps, as a tensor of the dtype of `x`."""
    norm = _norm(x) if cast.normalize == "frobenius" else None
    values = x if norm is None else x / norm
    y: torch.Tensor = quantize(values, cast.format, nan=cast.nan_policy(), **cast.options(seed))
    return y if norm is None else y * norm


def at(where: str, error: Error) -> Error:
    """Return the error with the tensor that it concerns in front."""
    return type(error)(f"{where}: {error}")


def keep_dtypes(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Put the tensors of a state_dict in place of those that the base class has cast to the parameters' dtypes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, state in state_dict["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                optimizer.state[parameters[index]][name] = value.detach().clone().to(parameters[index].device)


def _norm(x: torch.Tensor) -> torch.Tensor:
    norm = torch.linalg.vector_norm(x.to(torch.float32))
    return torch.where(norm > 0, norm, torch.ones_like(norm))


def _widths(cast: StateCast) -> dict[str, int]:
    fmt = cast.format
    if isinstance(fmt, Packed):
        return {f.name: f.bits for f in fmt.fields}
    return {"codes": fmt.element.bits if isinstance(fmt, Block) else fmt.bits}


def _kept(part: torch.Tensor, name: str, cast: StateCast, size: int) -> torch.Tensor:
    """Return a field of a flat format without the zeros that stand for the padding of its last block."""
    fmt = cast.format
    field = next((f for f in fmt.fields if f.name == name), None) if isinstance(fmt, Packed) and fmt.flat else None
    if field is None or not field.blocks:
        return part
    assert isinstance(fmt, Packed)
    return part.reshape(-1)[: -(-size * field.count // (fmt.block_elements * field.blocks))].clone()


def _pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Return codes of 1, 2 or 4 bits packed into bytes along one axis, others as they are."""
    if bits not in _PACKED_WIDTHS or codes.dtype != torch.uint8:
        return codes
    per = 8 // bits
    flat = codes.reshape(-1)
    flat = torch.nn.functional.pad(flat, (0, -flat.numel() % per)).reshape(-1, per)
    packed = flat[:, 0].clone()
    for i in range(1, per):
        packed |= flat[:, i] << (bits * i)
    return packed


def _unpack(packed: torch.Tensor, bits: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return codes in their shape, what was not kept as zeros."""
    flat = packed.reshape(-1)
    if bits in _PACKED_WIDTHS and packed.dtype == torch.uint8:
        steps = [(packed >> (bits * i)) & ((1 << bits) - 1) for i in range(8 // bits)]
        flat = torch.stack(steps, dim=1).reshape(-1)
    size = math.prod(shape)
    if flat.numel() < size:
        whole = torch.zeros(size, dtype=flat.dtype, device=flat.device)
        whole[: flat.numel()] = flat
        flat = whole
    return flat[:size].reshape(shape)
