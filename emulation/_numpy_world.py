"""The array operations of casting, on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.formats import Block, Format, Packed, ScalarFormat
from lowp.rounding import decode, encode, quantize
from lowp.rounding._blocks import representable_range
from lowp.rounding.random_bits import keys, words


class NumpyWorld:
    """NumPy: one process, so `shard` and `amax` are refused."""

    def widen(self, x: Any) -> NDArray[Any]:
        given: NDArray[Any] = np.asarray(x)
        return given if given.dtype in (np.float32, np.float64) else given.astype(np.float32)

    def quantize(
        self,
        x: NDArray[Any],
        fmt: Format,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: int = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> NDArray[Any]:
        _whole(shard, amax)
        axis = axis if isinstance(fmt, Block | Packed) else -1
        result = quantize(x, fmt, rounding, overflow, seed, axis, random_bits=random_bits)
        return np.asarray(result)

    def encode(
        self,
        x: NDArray[Any],
        fmt: Block,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: int = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> tuple[NDArray[Any], NDArray[Any], Any]:
        _whole(shard, amax)
        found = encode(x, fmt, rounding, overflow, seed=seed, axis=axis, random_bits=random_bits)
        values, scales = (decode(c, f) for c, f in ((found.codes, fmt.element), (found.scales, fmt.scale)))
        return np.asarray(values), np.asarray(scales), found.tensor_scale

    def hadamard(
        self, x: NDArray[Any], block: int, axis: int, sign_seed: int | None = None, inverse: bool = False
    ) -> NDArray[Any]:
        from lowp.rounding.hadamard import hadamard

        signs = "none" if sign_seed is None else "random"
        return np.asarray(hadamard(x, block, axis=axis, seed=sign_seed, signs=signs, inverse=inverse))

    def limits(self, x: NDArray[Any], fmt: Format, axis: Any) -> tuple[Any, Any]:
        if isinstance(fmt, Block):
            return representable_range(x, fmt, axis)
        if isinstance(fmt, Packed):
            raise ArgumentError(f"{fmt.name!r} has no range of its own; gradient='clipped' is not defined for it.")
        assert isinstance(fmt, ScalarFormat)
        return np.asarray(fmt.min), np.asarray(fmt.max)

    def uniform(self, x: NDArray[Any], seed: int, shard: Any = None) -> NDArray[Any]:
        _whole(shard, None)
        drawn = words(keys(seed), 0, x.size).reshape(x.shape) >> np.uint32(8)
        return np.asarray(drawn.astype(np.float32) * np.float32(2**-24))

    def scalar(self, value: float, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(value, dtype=x.dtype)

    def largest(self, x: NDArray[Any], axis: int | None = None) -> NDArray[Any]:
        return np.asarray(np.max(x, axis=axis, keepdims=axis is not None, initial=0.0))

    def abs(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.abs(x))

    def sqrt(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.sqrt(x))

    def round(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(np.rint(x))

    def where(self, condition: Any, a: Any, b: Any) -> NDArray[Any]:
        return np.asarray(np.where(condition, a, b))

    def isfinite(self, x: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(x))

    def reshape(self, x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        return x.reshape(shape)

    def moveaxis(self, x: NDArray[Any], source: int, destination: int) -> NDArray[Any]:
        return np.moveaxis(x, source, destination)

    def concatenate(self, parts: list[Any]) -> NDArray[Any]:
        return np.concatenate(parts, axis=-1)

    def is_positive(self, x: Any) -> Any:
        return x > 0

    def product(self, x: Any, factor: Any) -> Any:
        with np.errstate(all="ignore"):
            return x * factor

    def quotient(self, a: Any, b: Any) -> Any:
        with np.errstate(all="ignore"):
            return a / b

    def fence(self, x: Any) -> Any:
        return x


def _whole(shard: Any, amax: Any) -> None:
    if shard is not None or amax is not None:
        raise ArgumentError("NumPy arrays are whole: shard and amax belong to frameworks that split tensors.")


NUMPY = NumpyWorld()
