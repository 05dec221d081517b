"""Arrays kept as codes inside JAX programs: what an optimizer's state takes between two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lowp._errors import ArgumentError
from lowp.emulation.optimizer_states import StateCast, site_seed
from lowp.formats import Block, Packed
from lowp.formats.spec import ScalarFormat
from lowp.rounding import Encoded
from lowp.rounding._jax import decode_array, encode_array, quantize_array
from lowp.rounding._namespaces import JaxNamespace

XP = JaxNamespace()
#: Widths of codes that are packed, several a byte.
_PACKED_WIDTHS = (1, 2, 4)
_MASK = 0xFFFFFFFF


class _Layout(NamedTuple):
    """What of a stored array is known before it runs."""

    cast: StateCast
    shape: tuple[int, ...]
    dtype: str
    part_shapes: tuple[tuple[str, tuple[int, ...]], ...]


@jax.tree_util.register_pytree_node_class
class StoredArray:
    """An array as codes and scales, a pytree; codes of 1, 2 and 4 bits lie packed, the first in the low bits of a byte.

    Attributes:
        parts: The stored arrays by name: "codes", "scales", and so on, and "norm" where it was normalized.
        layout: Format, shape and dtype.
    """

    def __init__(self, parts: dict[str, Any], layout: _Layout) -> None:
        self.parts, self.layout = parts, layout
        register_with_flax()

    @classmethod
    def of(cls, x: Any, cast: StateCast, seed: Any) -> StoredArray:
        """Encode an array; a seed may be traced."""
        norm = _norm(x) if cast.normalize == "frobenius" else None
        encoded = encode_array(x if norm is None else x / norm, cast.format, **cast.options(seed))
        if isinstance(cast.format, Packed):
            parts = dict(encoded.fields or {})
        else:
            parts = {name: getattr(encoded, name) for name in ("codes", "scales", "zero_points", "tensor_scale")}
        parts = {name: jnp.asarray(part) for name, part in parts.items() if part is not None}
        shapes = tuple((name, tuple(part.shape)) for name, part in sorted(parts.items()))
        widths = _widths(cast)
        parts = {name: _pack(_kept(part, name, cast, x.size), widths.get(name, 0)) for name, part in parts.items()}
        if norm is not None:
            parts["norm"] = norm
        return cls(parts, _Layout(cast, tuple(x.shape), str(x.dtype), shapes))

    def decode(self) -> Any:
        """Return the array that the codes stand for."""
        cast, shape, dtype, shapes = self.layout
        widths = _widths(cast)
        parts = {name: _unpack(self.parts[name], widths.get(name, 0), s) for name, s in shapes}
        if isinstance(cast.format, Packed):
            first = parts[cast.format.fields[0].name]
            encoded = Encoded(first, cast.format, fields=parts, array_shape=shape, dtype=jnp.dtype(dtype))
        else:
            encoded = Encoded(format=cast.format, dtype=jnp.dtype(dtype), **parts)
        x = decode_array(encoded)
        return x * self.parts["norm"] if "norm" in self.parts else x

    @property
    def nbytes(self) -> int:
        """Bytes that the stored arrays take."""
        return sum(part.size * part.dtype.itemsize for part in self.parts.values())

    def tree_flatten(self) -> tuple[Any, Any]:
        """Return parts and layout, as JAX asks for them."""
        names = tuple(sorted(self.parts))
        return tuple(self.parts[name] for name in names), (names, self.layout)

    @classmethod
    def tree_unflatten(cls, rest: Any, parts: Sequence[Any]) -> StoredArray:
        """Return the array that `tree_flatten` took apart."""
        names, layout = rest
        return cls(dict(zip(names, parts, strict=True)), layout)

    def __repr__(self) -> str:
        return f"StoredArray({self.layout.cast.format.name}, shape={self.layout.shape})"


@lru_cache(maxsize=1)
def register_with_flax() -> None:
    """Have `flax.serialization` save and restore arrays in codes, if Flax is installed: it takes no pytree as such."""
    if find_spec("flax") is not None:
        import_module("flax.serialization").register_serialization_state(StoredArray, _saved, _restored)


def _saved(stored: StoredArray) -> dict[str, Any]:
    return {"format": stored.layout.cast.format.name, "shape": list(stored.layout.shape), "parts": dict(stored.parts)}


def _restored(target: StoredArray, state: Any) -> StoredArray:
    """Return the array that `_saved` took apart, kept as `target` is.

    Raises:
        ArgumentError: The state is none, or was kept in another format or shape.
    """
    wanted = _saved(target)
    if not isinstance(state, Mapping) or set(state) != set(wanted):
        raise ArgumentError(
            f"state={state!r:.80} holds no array in {wanted['format']!r}; it is that of another optimizer."
        )
    for name in ("format", "shape"):
        found = state[name] if name == "format" else _listed(state[name])
        if found != wanted[name]:
            raise ArgumentError(f"state holds an array with {name}={found!r}; this optimizer keeps {wanted[name]!r}.")
    shapes = [{n: tuple(part.shape) for n, part in parts.items()} for parts in (state["parts"], wanted["parts"])]
    if shapes[0] != shapes[1]:
        raise ArgumentError(f"state holds parts of shapes {shapes[0]!r}; this optimizer keeps {shapes[1]!r}.")
    return StoredArray(dict(state["parts"]), target.layout)


def _listed(value: Any) -> list[int]:
    """Return a list, which some files hold as a table of numbered entries."""
    entries = [value[key] for key in sorted(value, key=int)] if isinstance(value, Mapping) else value
    return [int(n) for n in entries]


def is_stored(value: Any) -> bool:
    """Whether a node of a pytree is an array in codes."""
    return isinstance(value, StoredArray)


def rounded(x: Any, cast: StateCast, seed: Any) -> Any:
    """Return the values that `StoredArray.of` keeps, as an array of the dtype of `x`; NaN stays NaN."""
    norm = _norm(x) if cast.normalize == "frobenius" else None
    y = quantize_array(x if norm is None else x / norm, cast.format, **cast.options(seed))
    return y if norm is None else y * norm


def lost_nans(x: Any, cast: StateCast) -> Any:
    """Return how many NaNs of `x` have no code in a format, as int32."""
    lacks = isinstance(cast.format, ScalarFormat) and not cast.format.has_nan
    return jnp.isnan(x).sum(dtype=jnp.int32) if lacks else jnp.int32(0)


def traced_seed(seed: int, parameter: str, state: str, step: Any) -> Any:
    """Return `step_seed` of a site for a step that may be traced, as an unsigned 64-bit scalar."""
    site = site_seed(seed, parameter, state)
    with XP.wide():
        low = (jnp.asarray(site & _MASK, jnp.uint64) + jnp.asarray(step).astype(jnp.uint64)) & _MASK
        return low | jnp.asarray(site & ~_MASK, jnp.uint64)


def seed_for(cast: StateCast, seed: int, parameter: str, state: str, step: Any) -> Any:
    """Return the seed of a rounding; 0 where none is needed."""
    return traced_seed(seed, parameter, state, step) if cast.stochastic else 0


def optax() -> Any:
    """Return the module optax.

    Raises:
        ArgumentError: It is not installed.
    """
    try:
        return import_module("optax")
    except ImportError as error:
        raise ArgumentError("optimizers for JAX need optax: pip install optax.") from error


@lru_cache(maxsize=1)
def _transformation_class() -> Any:
    class Transformation(optax().GradientTransformationExtraArgs):  # type: ignore[misc]
        """An optax transformation with `step`, which returns new parameters, exactly, instead of updates."""

        step: Callable[..., Any]
        start: Callable[..., Any]

    return Transformation


def transformation(init: Any, update: Any, step: Any, start: Any = None) -> Any:
    """Return an optax transformation; `step(gradients, state, params)` gives parameters and state."""
    made = _transformation_class()(init, update)
    made.step, made.start = step, start if start is not None else (lambda params: params)
    return made


def difference(new: Any, old: Any) -> Any:
    """Return updates that lead from old parameters to new ones, in float32 where those have 16 bits."""
    return jax.tree.map(lambda n, o: _wide(n) - _wide(o), new, old)


def _wide(x: Any) -> Any:
    return XP.floats(XP.cast(XP.bits(x), "int32") << 16, "float32") if x.dtype == jnp.bfloat16 else _float(x)


def _float(x: Any) -> Any:
    return x.astype(jnp.float32) if x.dtype == jnp.float16 else x


def _norm(x: Any) -> Any:
    norm = jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32))))
    return jnp.where(norm > 0, norm, 1.0)


def _widths(cast: StateCast) -> dict[str, int]:
    fmt = cast.format
    if isinstance(fmt, Packed):
        return {f.name: f.bits for f in fmt.fields}
    return {"codes": fmt.element.bits if isinstance(fmt, Block) else fmt.bits}


def _kept(part: Any, name: str, cast: StateCast, size: int) -> Any:
    """Return a field of a flat format without the zeros that stand for the padding of its last block."""
    fmt = cast.format
    field = next((f for f in fmt.fields if f.name == name), None) if isinstance(fmt, Packed) and fmt.flat else None
    if field is None or not field.blocks:
        return part
    assert isinstance(fmt, Packed)
    return part.reshape(-1)[: -(-size * field.count // (fmt.block_elements * field.blocks))]


def _pack(codes: Any, bits: int) -> Any:
    """Return codes of 1, 2 or 4 bits packed into bytes along one axis, others as they are."""
    if bits not in _PACKED_WIDTHS or codes.dtype != jnp.uint8:
        return codes
    per = 8 // bits
    flat = codes.reshape(-1)
    flat = jnp.pad(flat, (0, -flat.size % per)).reshape(-1, per)
    packed = flat[:, 0]
    for i in range(1, per):
        packed = packed | (flat[:, i] << (bits * i))
    return packed


def _unpack(packed: Any, bits: int, shape: tuple[int, ...]) -> Any:
    """Return codes in their shape, what was not kept as zeros."""
    flat = packed.reshape(-1)
    if bits in _PACKED_WIDTHS and packed.dtype == jnp.uint8:
        steps = [(flat >> (bits * i)) & ((1 << bits) - 1) for i in range(8 // bits)]
        flat = jnp.stack(steps, axis=1).reshape(-1)
    size = math.prod(shape)
    flat = jnp.pad(flat, (0, size - flat.size)) if flat.size < size else flat[:size]
    return flat.reshape(shape)
