"""The few array operations that the portable code needs, in one small class per array library.

Everything else is written with operators, which NumPy, torch and JAX share. Integers are int32 and int64 alone: torch
has no arithmetic on unsigned ones. Python integers mixed with arrays must fit the array's dtype as signed numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

from lowp.rounding._dispatch import is_jax, is_torch

Arrays = tuple[Any, ...]


class Namespace:
    """What a world of arrays offers. Dtypes are named by strings such as "int32"."""

    name: str
    #: Whether int64 and float64 arrays exist outside `wide`.
    has_64_bits = True

    def dtype_name(self, x: Any) -> str:
        """Name of the dtype of `x`."""
        return str(x.dtype).removeprefix("torch.")

    def is_concrete(self, x: Any) -> bool:
        """Whether the numbers of `x` can be looked at now; not while a compiler traces."""
        return True

    def any(self, condition: Any) -> bool:
        """Whether any element of a concrete condition holds."""
        return bool(condition.any())

    def require(self, holds: Any, like: Any, error: Callable[[], Exception]) -> bool:
        """Raise an error unless a condition on `like` holds everywhere; False where that cannot be looked at."""
        if not self.is_concrete(like):
            return False
        if self.any(~holds):
            raise error()
        return True

    def bits(self, x: Any) -> Any:
        """Return the bits of floats as signed integers of the same width."""
        raise NotImplementedError

    def floats(self, bits: Any, name: str) -> Any:
        """Return integers read as the bits of floats of the same width."""
        raise NotImplementedError

    def cast(self, x: Any, name: str) -> Any:
        """Convert by value; integers that do not fit keep their low bits."""
        raise NotImplementedError

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Choose element by element; at least one of `a` and `b` is an array."""
        raise NotImplementedError

    def full_like(self, x: Any, value: int, name: str | None = None) -> Any:
        """Return an array of the shape of `x` and of its dtype or another one, filled with a number."""
        raise NotImplementedError

    def constant(self, values: Any, like: Any) -> Any:
        """Return a NumPy array as an array on the device of `like`."""
        raise NotImplementedError

    def take(self, table: Any, index: Any) -> Any:
        """Return the entries of a one-dimensional table at indices that all lie inside."""
        raise NotImplementedError

    def iota(self, shape: Sequence[int], axis: int, name: str, like: Any) -> Any:
        """Return each element's index along an axis."""
        raise NotImplementedError

    def wide(self) -> AbstractContextManager[Any]:
        """A context inside which int64 and float64 arrays can be made."""
        return nullcontext()

    def computed_once(self, x: Any) -> Any:
        """Return `x`, which XLA then does not compute anew for each reader; LLVM may still join a product and a sum."""
        return x

    def stack(self, arrays: list[Any]) -> Any:
        """Return arrays of one shape along a new first axis."""
        raise NotImplementedError

    def scan(
        self, step: Callable[[Arrays, Arrays], tuple[Arrays, Any]], state: Arrays, parts: Arrays
    ) -> tuple[Arrays, Any]:
        """Return the last state of `state, out = step(state, part)` over the first axis of `parts`, and all `out`.

        Parts are a tuple of arrays, and so is the state, whose dtypes and shapes stay; `out` is an array or None. A
        compiler sees one step.
        """
        outs = []
        for i in range(parts[0].shape[0]):
            state, out = step(state, tuple(part[i] for part in parts))
            outs.append(out)
        return state, None if outs[0] is None else self.stack(outs)

    def to_integer(self, x: Any, way: str) -> Any:
        """Return floats rounded to whole numbers, one of "trunc", "floor", "ceil" and "rint" (ties to even)."""
        raise NotImplementedError

    def move(self, x: Any, source: int, destination: int) -> Any:
        """Return an array with one axis at another place."""
        raise NotImplementedError

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of an array and an array or number."""
        return self.where(a < b, a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of an array and an array or number."""
        return self.where(a > b, a, b)


class NumpyNamespace(Namespace):
    """NumPy arrays."""

    name = "numpy"

    def bits(self, x: Any) -> Any:
        array = np.ascontiguousarray(x).reshape(np.shape(x))
        return array.view(f"int{8 * array.dtype.itemsize}")

    def floats(self, bits: Any, name: str) -> Any:
        return np.ascontiguousarray(bits).reshape(np.shape(bits)).view(_numpy_dtype(name))

    def cast(self, x: Any, name: str) -> Any:
        return np.asarray(x).astype(_numpy_dtype(name), copy=False)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, a, b)

    def full_like(self, x: Any, value: int, name: str | None = None) -> Any:
        return np.full_like(x, value, dtype=_numpy_dtype(name) if name else None)

    def constant(self, values: Any, like: Any) -> Any:
        return np.asarray(values)

    def to_integer(self, x: Any, way: str) -> Any:
        return getattr(np, way)(x)

    def move(self, x: Any, source: int, destination: int) -> Any:
        return np.moveaxis(x, source, destination)

    def stack(self, arrays: list[Any]) -> Any:
        return np.stack(arrays)

    def take(self, table: Any, index: Any) -> Any:
        return np.take(table, index)

    def iota(self, shape: Sequence[int], axis: int, name: str, like: Any) -> Any:
        along = np.arange(shape[axis], dtype=name)
        return np.broadcast_to(along.reshape([-1 if i == axis else 1 for i in range(len(shape))]), tuple(shape))

    @contextmanager
    def wide(self) -> Iterator[None]:
        with np.errstate(all="ignore"):  # scalars warn where arrays wrap around
            yield


class TorchNamespace(Namespace):
    """Torch tensors."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def is_concrete(self, x: Any) -> bool:
        from torch._subclasses.fake_tensor import FakeTensor

        if x.is_meta or isinstance(x, FakeTensor) or self._torch.compiler.is_compiling():
            return False
        wrapped = self._torch._C._functorch.is_functorch_wrapped_tensor(x)  # noqa: SLF001 (there is no public question)
        return not wrapped

    def bits(self, x: Any) -> Any:
        return x.view(getattr(self._torch, f"int{8 * x.element_size()}"))

    def floats(self, bits: Any, name: str) -> Any:
        return bits.view(getattr(self._torch, name))

    def cast(self, x: Any, name: str) -> Any:
        return x.to(getattr(self._torch, name))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self._torch.where(condition, a, b)

    def full_like(self, x: Any, value: int, name: str | None = None) -> Any:
        return self._torch.full_like(x, value, dtype=getattr(self._torch, name) if name else None)

    def constant(self, values: Any, like: Any) -> Any:
        whole = np.ascontiguousarray(values).reshape(np.shape(values))  # a number stays one: NumPy makes it a row
        return self._torch.tensor(whole, device=like.device)

    def to_integer(self, x: Any, way: str) -> Any:
        return getattr(self._torch, "round" if way == "rint" else way)(x)

    def move(self, x: Any, source: int, destination: int) -> Any:
        return self._torch.movedim(x, source, destination)

    def stack(self, arrays: list[Any]) -> Any:
        return self._torch.stack(arrays)

    def take(self, table: Any, index: Any) -> Any:
        return table[index.to(self._torch.int64)]

    def iota(self, shape: Sequence[int], axis: int, name: str, like: Any) -> Any:
        along = self._torch.arange(shape[axis], dtype=getattr(self._torch, name), device=like.device)
        return along.reshape([-1 if i == axis else 1 for i in range(len(shape))]).expand(tuple(shape))


class JaxNamespace(Namespace):
    """JAX arrays and tracers.

    `collected`, if a list, gets what tracers are required to fulfil: whether they do, and the error if not.
    """

    name = "jax"

    def __init__(self, collected: list[tuple[Any, Exception]] | None = None) -> None:
        import jax
        import jax.numpy as jnp

        self._jax, self._jnp = jax, jnp
        self._collected = collected

    @property
    def has_64_bits(self) -> bool:  # type: ignore[override]
        return bool(self._jax.config.jax_enable_x64)

    def is_concrete(self, x: Any) -> bool:
        return not isinstance(x, self._jax.core.Tracer)

    def require(self, holds: Any, like: Any, error: Callable[[], Exception]) -> bool:
        if self._collected is not None and not self.is_concrete(like):
            self._collected.append((holds.all(), error()))
        return super().require(holds, like, error)

    def bits(self, x: Any) -> Any:
        return self._jax.lax.bitcast_convert_type(x, f"int{8 * x.dtype.itemsize}")

    def floats(self, bits: Any, name: str) -> Any:
        return self._jax.lax.bitcast_convert_type(bits, _numpy_dtype(name))

    def cast(self, x: Any, name: str) -> Any:
        return self._jnp.asarray(x).astype(name)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self._jnp.where(condition, a, b)

    def full_like(self, x: Any, value: int, name: str | None = None) -> Any:
        return self._jnp.full_like(x, value, dtype=name)

    def constant(self, values: Any, like: Any) -> Any:
        return self._jnp.asarray(values)

    def to_integer(self, x: Any, way: str) -> Any:
        return getattr(self._jnp, way)(x)

    def move(self, x: Any, source: int, destination: int) -> Any:
        return self._jnp.moveaxis(x, source, destination)

    def stack(self, arrays: list[Any]) -> Any:
        return self._jnp.stack(arrays)

    def scan(
        self, step: Callable[[Arrays, Arrays], tuple[Arrays, Any]], state: Arrays, parts: Arrays
    ) -> tuple[Arrays, Any]:
        found: tuple[Arrays, Any] = self._jax.lax.scan(step, state, parts)
        return found

    def take(self, table: Any, index: Any) -> Any:
        place = getattr(getattr(index, "aval", None), "sharding", None)
        explicit = getattr(getattr(place, "mesh", None), "explicit_axes", ())
        how = {"out_sharding": place} if explicit else {}  # such arrays say where a lookup's result lies
        return table.at[index].get(mode="promise_in_bounds", **how)

    def iota(self, shape: Sequence[int], axis: int, name: str, like: Any) -> Any:
        return self._jax.lax.broadcasted_iota(name, tuple(shape), axis)

    def wide(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.has_64_bits else _enable_x64()

    def computed_once(self, x: Any) -> Any:
        return self._jax.lax.optimization_barrier(x)


def _enable_x64() -> AbstractContextManager[Any]:
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)  # type: ignore[no-any-return]
    from jax.experimental import enable_x64  # before jax 0.8

    return enable_x64(True)  # type: ignore[no-any-return]


def _numpy_dtype(name: str) -> Any:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


@lru_cache(maxsize=3)
def _namespace(name: str) -> Namespace:
    if name == "jax":
        return JaxNamespace()
    return TorchNamespace() if name == "torch" else NumpyNamespace()


def namespace_of(x: Any) -> Namespace:
    """Return the namespace of an array: torch's for tensors, JAX's for its arrays and tracers, else NumPy's."""
    return _namespace("torch" if is_torch(x) else "jax" if is_jax(x) else "numpy")
