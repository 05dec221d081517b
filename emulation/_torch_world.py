"""The array operations of casting, on torch tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from lowp._errors import ArgumentError
from lowp.formats import Block, Format, Packed, ScalarFormat
from lowp.rounding._torch import quantize_plain
from lowp.rounding._torch_codes import decode_parts, encode_parts
from lowp.rounding._torch_plain import numbers
from lowp.rounding.random_bits import keys
from lowp.rounding.request import QUANTIZE_NAN, Request, check_format, make_request


@lru_cache(maxsize=1024)
def checked_request(fmt: Format, rounding: str, overflow: str, random_bits: int | None) -> Request:
    """Return how to round, checked against the format; its keys are those of seed 0."""
    request = make_request(rounding, overflow, 0, random_bits, 0, "keep", QUANTIZE_NAN)
    check_format(fmt, request)
    return request


def _dtype(fmt: ScalarFormat) -> torch.dtype:
    from lowp.emulation.matmul import result_dtype

    found: torch.dtype = getattr(torch, result_dtype(fmt))
    return found


def refuse_tracing() -> None:
    """Raise ArgumentError where what is computed would be recorded as a constant."""
    if torch.compiler.is_exporting() or torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None:
        raise ArgumentError(
            "emulated operations cannot be traced by torch.export or make_fx, which would record their results as "
            "constants; trace the program as it is, or one that calls lowp.torch.quantize."
        )


class TorchWorld:
    """Tensors of any device; never records a gradient."""

    def widen(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float32) if x.dtype in (torch.bfloat16, torch.float16) else x

    def quantize(
        self,
        x: torch.Tensor,
        fmt: Format,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: int = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> torch.Tensor:
        if x.is_meta or not x.numel():
            return torch.empty_like(x)
        refuse_tracing()
        request = checked_request(fmt, rounding, overflow, random_bits)
        if request.mode.variant:
            key0, key1 = keys(seed)
            request = request._replace(key0=key0, key1=key1)
        else:
            shard = None  # positions matter to random bits alone
        axis = axis if isinstance(fmt, Block | Packed) else -1
        return quantize_plain(x, fmt, request, axis, shard=shard, amax=amax)

    def encode(
        self,
        x: torch.Tensor,
        fmt: Block,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: int = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        request = checked_request(fmt, rounding, overflow, random_bits)
        if shard is not None and (request.mode.variant or fmt.tensor_scale is not None):
            raise ArgumentError(
                f"{fmt.name!r}: random bits, and scales of whole tensors, of pieces are not there for matrix units; "
                "give each process the whole batch, or leave the accumulator's unit out."
            )
        key0, key1 = keys(seed)
        parts = encode_parts(x, fmt, request._replace(key0=key0, key1=key1), axis, None)
        assert isinstance(fmt.element, ScalarFormat)
        values = decode_parts(parts[:1], fmt.element, -1, tuple(x.shape), _dtype(fmt.element))
        scales = decode_parts(parts[1:2], fmt.scale, -1, tuple(parts[1].shape), _dtype(fmt.scale))
        return values, scales, None if fmt.tensor_scale is None else parts[-1]

    def hadamard(
        self, x: torch.Tensor, block: int, axis: int, sign_seed: int | None = None, inverse: bool = False
    ) -> torch.Tensor:
        from lowp.rounding.hadamard import hadamard

        if x.is_meta or not x.numel():
            return torch.empty_like(x)
        signs = "none" if sign_seed is None else "random"
        result: torch.Tensor = hadamard(x, block, axis=axis, seed=sign_seed, signs=signs, inverse=inverse)
        return result

    def limits(self, x: torch.Tensor, fmt: Format, axis: Any) -> tuple[Any, Any]:
        if isinstance(fmt, Packed):
            raise ArgumentError(f"{fmt.name!r} has no range of its own; gradient='clipped' is not defined for it.")
        if isinstance(fmt, Block):
            from lowp.rounding._blocks import representable_range

            if x.is_meta:
                return torch.empty_like(x), torch.empty_like(x)
            low, high = representable_range(numbers(x), fmt, axis)
            return tuple(torch.as_tensor(bound).to(x.device) for bound in (low, high))  # type: ignore[return-value]
        return self.scalar(fmt.min, x), self.scalar(fmt.max, x)  # type: ignore[attr-defined]

    def uniform(self, x: torch.Tensor, seed: int, shard: Any = None) -> torch.Tensor:
        from lowp.emulation._torch_words import words_of

        return (words_of(x, keys(seed), shard) >> 8).to(torch.float32) * 2.0**-24

    def scalar(self, value: float, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor(value, dtype=x.dtype, device=x.device)

    def largest(self, x: torch.Tensor, axis: int | None = None) -> torch.Tensor:
        if not x.numel():
            shape = () if axis is None else (*x.shape[:axis], 1, *x.shape[axis + 1 :])
            return x.new_zeros(shape)
        return x.amax() if axis is None else x.amax(axis, keepdim=True)

    def abs(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()

    def sqrt(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cpu:  # torch's own on the CPU is not correctly rounded
            return torch.from_numpy(np.asarray(np.sqrt(x.contiguous().numpy())))
        return x.sqrt()

    def round(self, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    def where(self, condition: Any, a: Any, b: Any) -> torch.Tensor:
        return torch.where(condition, a, b)

    def isfinite(self, x: torch.Tensor) -> torch.Tensor:
        return x.isfinite()

    def reshape(self, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return x.reshape(shape)

    def moveaxis(self, x: torch.Tensor, source: int, destination: int) -> torch.Tensor:
        return x.movedim(source, destination)

    def concatenate(self, parts: list[Any]) -> torch.Tensor:
        return torch.cat(parts, -1)

    def is_positive(self, x: torch.Tensor) -> torch.Tensor:
        return x > 0

    def product(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        return x * factor

    def quotient(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a / b

    def fence(self, x: Any) -> Any:
        return x  # eager torch computes one operation at a time


TORCH = TorchWorld()
