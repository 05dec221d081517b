"""The array operations of casting, on JAX arrays and tracers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lowp._errors import ArgumentError
from lowp.formats import Block, Format, Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable import c_positions, decode_values, namespace_of, quantize_values, seed_keys, words
from lowp.rounding.hadamard import rotate_portable
from lowp.rounding.modes import rounding as rounding_mode
from lowp.rounding.request import Request, check_format


class Key(NamedTuple):
    """The two keys of a seed, as 32-bit integers that may be traced; stands where casting takes a seed."""

    key0: Any
    key1: Any


def keys_of(seed: Any) -> tuple[Any, Any]:
    """Return the two keys of a seed: a Python integer, a traced one or a `Key`."""
    return tuple(seed) if isinstance(seed, Key) else seed_keys(seed)


class JaxWorld:
    """JAX: everything stays in the program, no callbacks."""

    def widen(self, x: Any) -> Any:
        """Widen by the bits: XLA may drop a conversion to a narrow type and back."""
        if x.dtype == jnp.bfloat16:
            bits = lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32) << 16
            return lax.bitcast_convert_type(bits, jnp.float32)
        return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)

    def quantize(
        self,
        x: Any,
        fmt: Format,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: Any = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> Any:
        key0, key1 = keys_of(seed)
        request = Request(rounding_mode(rounding, random_bits), overflow, key0, key1, 0, "keep")
        check_format(fmt, request)
        xp = namespace_of(x)
        positions = None if shard is None or not request.mode.variant else c_positions(xp, x, shard)
        if isinstance(fmt, Block):
            from lowp.rounding._portable_blocks import quantize_blocks

            return quantize_blocks(xp, x, fmt, request, axis, positions, amax)
        if isinstance(fmt, Packed):
            from lowp.rounding._portable_packed import quantize_packed

            return quantize_packed(xp, x, fmt, request, axis, positions, amax)
        return quantize_values(xp, x, fmt, request, positions)  # type: ignore[arg-type]

    def encode(
        self,
        x: Any,
        fmt: Block,
        *,
        rounding: str = "ties_to_even",
        overflow: str = "saturate",
        random_bits: int | None = None,
        seed: Any = 0,
        axis: Any = -1,
        shard: Any = None,
        amax: Any = None,
    ) -> tuple[Any, Any, Any]:
        from lowp.rounding._portable_blocks import encode_blocks

        key0, key1 = keys_of(seed)
        request = Request(rounding_mode(rounding, random_bits), overflow, key0, key1, 0, "keep")
        check_format(fmt, request)
        xp = namespace_of(x)
        positions = None if shard is None or not request.mode.variant else c_positions(xp, x, shard)
        parts = encode_blocks(xp, x, fmt, request, axis, positions, amax)
        values, scales = (
            decode_values(xp, codes, form, "float32")
            for codes, form in ((parts.codes, fmt.element), (parts.scales, fmt.scale))
        )
        return values, scales, parts.tensor_scale

    def hadamard(self, x: Any, block: int, axis: int, sign_seed: Any = None, inverse: bool = False) -> Any:
        return self.fence(rotation(x, block, axis, sign_seed, inverse))

    def limits(self, x: Any, fmt: Format, axis: Any) -> tuple[Any, Any]:
        if isinstance(fmt, Packed):
            raise ArgumentError(f"{fmt.name!r} has no range of its own; gradient='clipped' is not defined for it.")
        if isinstance(fmt, Block):
            from lowp.rounding._portable_blocks import representable_range

            low, high = representable_range(namespace_of(x), x, fmt, axis)
            return _Limit(low), _Limit(high)
        return self.scalar(fmt.min, x), self.scalar(fmt.max, x)  # type: ignore[attr-defined]

    def uniform(self, x: Any, seed: Any, shard: Any = None) -> Any:
        xp = namespace_of(x)
        drawn = words(xp, keys_of(seed), c_positions(xp, x, shard))
        return lax.shift_right_logical(drawn, np.int32(8)).astype(jnp.float32) * np.float32(2**-24)

    def scalar(self, value: float, x: Any) -> Any:
        return jnp.asarray(value, dtype=x.dtype)

    def largest(self, x: Any, axis: int | None = None) -> Any:
        if x.size == 0:
            return jnp.zeros((), x.dtype)
        # XLA takes subnormal numbers for 0; the bits of positive numbers order them, and those of a NaN come last
        bits = lax.bitcast_convert_type(jnp.where(jnp.isnan(x), jnp.full_like(x, jnp.nan), x), _integer(x))
        top = jnp.maximum(jnp.max(bits, axis=axis, keepdims=axis is not None), 0)
        return lax.bitcast_convert_type(top, x.dtype)

    def abs(self, x: Any) -> Any:
        return jnp.abs(x)

    def sqrt(self, x: Any) -> Any:
        return jnp.sqrt(x)

    def round(self, x: Any) -> Any:
        return jnp.round(x)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return jnp.where(condition, a, b)

    def isfinite(self, x: Any) -> Any:
        return jnp.isfinite(x)

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        return jnp.reshape(x, shape)

    def moveaxis(self, x: Any, source: int, destination: int) -> Any:
        return jnp.moveaxis(x, source, destination)

    def concatenate(self, parts: list[Any]) -> Any:
        return jnp.concatenate(parts, axis=-1)

    def is_positive(self, x: Any) -> Any:
        bits = lax.bitcast_convert_type(x, _integer(x))
        return (bits > 0) & ~jnp.isnan(x)

    def product(self, x: Any, factor: Any) -> Any:
        """Multiply, and again on integers where XLA may have taken a subnormal operand or result for 0."""
        xp, bits = namespace_of(x), np.finfo(x.dtype).nmant
        usual = self.fence(x * factor)

        def exact(x: Any, factor: Any) -> Any:
            a, b = doubles.widen(xp, x), doubles.widen(xp, factor)
            if x.dtype != jnp.float64:  # float64 holds products of two float32
                return doubles.narrow(xp, a * b, "float32")
            return doubles.product(xp, *jnp.broadcast_arrays(a, b))

        # no comparison of bits with 0: LLVM makes one of floats of it, for which subnormal numbers are 0
        least = 1 << bits
        sizes = [doubles.size_of(xp, y) for y in (x, factor, usual)]
        tiny = (sizes[0] < least) & (sizes[0] - 1 >= 0)
        lost = tiny | ((sizes[0] >= least) & (sizes[2] < least))
        with xp.wide():
            return lax.cond(lost.any() | (sizes[1] < least), exact, lambda *_: usual, x, factor)

    def quotient(self, a: Any, b: Any) -> Any:
        xp, wide = namespace_of(a), a.dtype == jnp.float64
        with xp.wide():
            found = doubles.quotient(xp, doubles.widen(xp, a), doubles.widen(xp, b), odd=not wide)
            return doubles.narrow(xp, found, str(a.dtype))

    def fence(self, x: Any) -> Any:
        """Pass a barrier, which stops XLA, and an integer minimum that changes no number, which stops LLVM."""
        kind = _integer(x)
        bits = lax.bitcast_convert_type(x, kind)
        low = lax.min(bits, np.array(np.iinfo(kind).max - 1, kind))
        return lax.optimization_barrier(lax.bitcast_convert_type(low, x.dtype))


def _integer(x: Any) -> np.dtype[Any]:
    return np.dtype(f"int{8 * x.dtype.itemsize}")


def rotation(x: Any, block: int, axis: int, sign_seed: Any = None, inverse: bool = False) -> Any:
    """Return the Hadamard transform of an array; differentiable, for no barrier is in it."""
    signs: Any = jnp.ones(block, x.dtype)
    if sign_seed is not None:
        drawn = words(namespace_of(x), keys_of(sign_seed), (lax.iota(np.int32, block), 0))
        signs = jnp.where(drawn < 0, -signs, signs)  # the top bit
    factor = x.dtype.type(1 / math.sqrt(block))

    def stack(parts: list[Any], at: int) -> Any:
        return jnp.stack(parts, axis=at)

    return rotate_portable(x, signs, axis, inverse, stack, factor)


class _Limit:
    """A float64 array, compared exactly with arrays of any dtype, also where JAX makes no such arrays otherwise."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def _compare(self, compare: Callable[[Any, Any], Any], x: Any) -> Any:
        with namespace_of(x).wide():
            return compare(self._values, x.astype(jnp.float64))

    def __lt__(self, x: Any) -> Any:
        return self._compare(operator.lt, x)

    def __le__(self, x: Any) -> Any:
        return self._compare(operator.le, x)

    def __gt__(self, x: Any) -> Any:
        return self._compare(operator.gt, x)

    def __ge__(self, x: Any) -> Any:
        return self._compare(operator.ge, x)


WORLD = JaxWorld()


def largest_over(axes: tuple[str, ...]) -> Any:
    """Return the function that makes the largest magnitude over all devices of a split tensor from that of a piece."""
    return (lambda amax: jax.lax.pmax(amax, axes)) if axes else None
