"""The verbs on JAX arrays: compiled bit operations, the same under `jit`, `vmap`, `grad`, `scan` and `shard_map`.

Eager calls run one compiled function per format, modes, shape and dtype; seeds and offsets are its arguments. What an
array's numbers can make wrong is checked after an eager call; while JAX traces nothing can be looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding import _jax_host
from lowp.rounding._jax_arrays import as_jax, float_of, result_name, whole_numbers, without_nans
from lowp.rounding._jax_compiled import run
from lowp.rounding._jax_decode import decode_array
from lowp.rounding._namespaces import JaxNamespace
from lowp.rounding._portable_doubles import narrow
from lowp.rounding._portable_room import check_saturation, inside_range, into_dtype
from lowp.rounding._portable_scalar import encode_values, quantize_values
from lowp.rounding._portable_words import c_positions, seed_keys
from lowp.rounding.encoded import Encoded
from lowp.rounding.gradients import gradient_rule
from lowp.rounding.request import ENCODE_NAN, QUANTIZE_NAN, Request, check_format, make_request
from lowp.rounding.shard import Shard
from lowp.rounding.verbs import check_axis

__all__ = ["decode_array", "encode_array", "quantize_array"]

_WORDS: Any = np.uint32


class Call(NamedTuple):
    """What a compiled rounding is specialized on; hashable."""

    fmt: Format
    request: Request  # with keys 0: the real ones are arguments
    axis: Any
    nan: str | None
    whole: tuple[int, ...] | None  # shape of the array of which the input is a shard
    x64: bool


class Inputs(NamedTuple):
    """What a compiled rounding takes besides the array."""

    keys: tuple[Any, Any]
    offset: tuple[Any, ...]
    amax: Any


def prepare(
    x: Any,
    fmt: str | Format,
    rounding: str,
    overflow: str,
    seed: Any,
    axis: Any,
    random_bits: int | None,
    saturation_bits: int,
    nan: str | None,
    shard: Shard | None,
    axis_name: Any,
    policies: tuple[str, ...],
) -> tuple[Any, Call, Inputs]:
    """Check every argument; return the array, and what the rounding is compiled for and called with."""
    resolved = parse(fmt)
    request = make_request(rounding, overflow, 0, random_bits, saturation_bits, nan or policies[0], policies)
    request = request._replace(key0=0, key1=0)
    check_format(resolved, request)
    array = as_jax(x)
    traced = isinstance(array, jax.core.Tracer)
    if traced and nan == "error":
        raise ArgumentError("nan='error' cannot be while JAX traces, which hides the numbers; choose another policy.")
    whole_numbers(array, resolved, request)
    if isinstance(resolved, ScalarFormat):
        check_axis(axis, array.ndim, resolved)
    if isinstance(shard, Shard):
        shard.check(tuple(array.shape))
    elif shard is not None:
        raise ArgumentTypeError(f"shard={shard!r} must be a lowp.jax.Shard.")
    keys = seed_keys(seed)
    keys = tuple(_WORDS(k) if isinstance(k, int) else k for k in keys)
    offset = () if shard is None else tuple(_two_words(n) for n in shard.offset)
    amax = None if axis_name is None else _shared_amax(array, resolved, axis, axis_name)
    call = Call(
        resolved,
        request,
        tuple(axis) if isinstance(axis, list) else axis,
        nan,
        None if shard is None else shard.shape,
        bool(jax.config.jax_enable_x64),
    )
    return array, call, Inputs((keys[0], keys[1]), offset, amax)


def _shared_amax(x: Any, fmt: Format, axis: Any, axis_name: Any) -> Any:
    """Return what the scale of a whole tensor follows, over the shards along mesh axes; None if no scale does."""
    if not isinstance(fmt, Block):
        return None
    from lowp.rounding._portable_blocks import tensor_amax

    part = tensor_amax(JaxNamespace(), float_of(x), fmt, axis)
    if part is None:
        return None
    with JaxNamespace().wide():
        return jax.lax.pmax(part, axis_name)


def _positions(xp: JaxNamespace, x: Any, call: Call, inputs: Inputs) -> Any:
    """Return the positions of a shard's elements; None for the usual ones."""
    if call.whole is None or not call.request.mode.variant:
        return None
    with xp.wide():
        offset = tuple((xp.cast(high, "int64") << 32) | xp.cast(low, "int64") for low, high in inputs.offset)
        return c_positions(xp, x, Shard(offset, call.whole))


def _two_words(n: Any) -> tuple[Any, Any]:
    """Return an integer as its low and high 32 bits; a traced one is not negative."""
    if isinstance(n, int):
        return _WORDS(n & 0xFFFFFFFF), _WORDS(n >> 32)
    xp = JaxNamespace()
    with xp.wide():
        wide = xp.cast(n, "int64")
        return xp.cast(wide, "uint32"), xp.cast(wide >> 32, "uint32")


def _keyed(call: Call, inputs: Inputs) -> Request:
    return call.request._replace(key0=inputs.keys[0], key1=inputs.keys[1])


def _round(xp: JaxNamespace, x: Any, call: Call, inputs: Inputs) -> Any:
    request, fmt, name = _keyed(call, inputs), call.fmt, result_name(x)
    positions = _positions(xp, x, call, inputs)
    if isinstance(fmt, ScalarFormat):
        if not jnp.issubdtype(x.dtype, jnp.integer):
            return quantize_values(xp, x, fmt, request, positions)
        with xp.wide():
            wide = xp.bits(quantize_values(xp, float_of(x), fmt, request, positions))
            return xp.floats(into_dtype(xp, wide, name, fmt), name)
    floats = without_nans(float_of(x), fmt, call.nan)
    if isinstance(fmt, Block):
        from lowp.rounding._portable_blocks import quantize_blocks

        result = quantize_blocks(xp, floats, fmt, request, call.axis, positions, inputs.amax)
    else:
        from lowp.rounding._portable_packed import quantize_packed

        assert isinstance(fmt, Packed)
        result = quantize_packed(xp, floats, fmt, request, call.axis, positions, inputs.amax)
    with xp.wide():
        return narrow(xp, result, name) if result.dtype != name else result  # integers without float64


def _with_gradient(x: Any, call: Call, inputs: Inputs, gradient: str) -> Any:
    rule = gradient_rule(gradient).rule
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return run(_round, x, call, inputs, x.dtype)
    if rule is None:
        return _built_in(call, gradient, x, inputs)
    return _by_rule(call, rule, x, inputs)


def _built_in_rounding(call: Call, gradient: str, x: Any, inputs: Inputs) -> Any:
    return run(_round, x, call, inputs, x.dtype)


def _built_in_tangent(call: Call, gradient: str, primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> Any:
    (x, inputs), (tangent, _) = primals, tangents
    y = _built_in(call, gradient, x, inputs)
    if gradient == "none":
        return y, jnp.zeros_like(y)
    if gradient == "straight_through":
        return y, tangent
    return y, jnp.where(_inside(x, call, inputs), tangent, jnp.zeros_like(tangent))


_built_in = jax.custom_jvp(_built_in_rounding, nondiff_argnums=(0, 1))
_built_in.defjvp(_built_in_tangent)


def _inside(x: Any, call: Call, inputs: Inputs) -> Any:
    xp = JaxNamespace()
    if isinstance(call.fmt, ScalarFormat):
        return inside_range(xp, x, call.fmt)
    if isinstance(call.fmt, Packed):
        raise ArgumentError(f"gradient='clipped' is not defined for {call.fmt.name!r}: its blocks have no fixed range.")
    from lowp.rounding import _portable_blocks

    assert isinstance(call.fmt, Block)
    return _portable_blocks.inside_range(xp, x, call.fmt, call.axis, inputs.amax)


def _ruled_rounding(call: Call, rule: Any, x: Any, inputs: Inputs) -> Any:
    return run(_round, x, call, inputs, x.dtype)


def _ruled_forward(call: Call, rule: Any, x: Any, inputs: Inputs) -> Any:
    y = run(_round, x, call, inputs, x.dtype)
    return y, (x, y)


def _ruled_backward(call: Call, rule: Any, kept: Any, g: Any) -> Any:
    x, y = kept
    result = jnp.asarray(rule(x, y, g))
    if result.shape != x.shape:
        raise ArgumentError(f"the gradient rule gives shape {result.shape} for an input of shape {x.shape}.")
    return result.astype(x.dtype), None


_by_rule = jax.custom_vjp(_ruled_rounding, nondiff_argnums=(0, 1))
_by_rule.defvjp(_ruled_forward, _ruled_backward)


def quantize_array(
    x: Any,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: Any = 0,
    axis: Any = -1,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
    gradient: str = "straight_through",
    shard: Shard | None = None,
    axis_name: Any = None,
) -> Any:
    """Round a JAX array; see `lowp.jax.quantize`."""
    gradient_rule(gradient)
    array, call, inputs = prepare(
        x, fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, nan, shard, axis_name, QUANTIZE_NAN
    )
    if gradient in ("clipped", "learned_scale") and isinstance(call.fmt, Packed):
        _inside(array, call, inputs)
    if shard is None and _jax_host.numpy_is_quicker(call.fmt, array, seed):
        options = {"overflow": overflow, "seed": int(seed), "axis": axis, "random_bits": random_bits, "nan": nan}
        return _jax_host.quantize(array, call.fmt, rounding=rounding, **options)
    if isinstance(array, jax.core.Tracer) and isinstance(call.fmt, ScalarFormat):
        check_saturation(call.fmt, call.request, result_name(array))
    _check_blocks(array, call)
    return _with_gradient(array, call, inputs, gradient)


def _check_blocks(array: Any, call: Call) -> None:
    """Raise for numbers that a block format refuses, where they can be looked at."""
    if isinstance(call.fmt, Block) and not isinstance(array, jax.core.Tracer):
        refused = call.fmt.nonfinite == "error" or not call.fmt.scale.has_nan
        if refused and call.fmt.nonfinite != "element" and not bool(jnp.isfinite(float_of(array)).all()):
            from lowp.rounding._portable_blocks import _nonfinite

            raise _nonfinite(call.fmt)


def encode_array(
    x: Any,
    fmt: str | Format,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
    seed: Any = 0,
    axis: Any = -1,
    random_bits: int | None = None,
    saturation_bits: int = 0,
    nan: str | None = None,
    shard: Shard | None = None,
    axis_name: Any = None,
) -> Encoded:
    """Encode a JAX array; see `lowp.jax.encode`."""
    array, call, inputs = prepare(
        x, fmt, rounding, overflow, seed, axis, random_bits, saturation_bits, nan, shard, axis_name, ENCODE_NAN
    )
    if isinstance(call.fmt, ScalarFormat) and call.fmt.bits > 32 and not call.x64:
        raise ArgumentError(
            f"fmt={call.fmt.name!r} has codes of {call.fmt.bits} bits, which JAX holds with jax_enable_x64 only; set "
            "it, or use lowp.encode with NumPy."
        )
    if shard is None and _jax_host.numpy_is_quicker(call.fmt, array, seed):
        options = {"overflow": overflow, "seed": int(seed), "axis": axis, "random_bits": random_bits, "nan": nan}
        return _jax_host.encode(array, call.fmt, rounding=rounding, **options)
    _check_blocks(array, call)
    parts = run(_encode_parts, array, call, inputs, array.dtype)
    shape = tuple(array.shape) if isinstance(call.fmt, Packed) else None
    return Encoded(**parts, array_shape=shape, format=call.fmt, axis=call.axis, dtype=jnp.dtype(result_name(array)))


def _encode_parts(xp: JaxNamespace, x: Any, call: Call, inputs: Inputs) -> dict[str, Any]:
    request, fmt = _keyed(call, inputs) if x.size else call.request, call.fmt  # NumPy encodes nothing: no traced keys
    positions = _positions(xp, x, call, inputs)
    if isinstance(fmt, ScalarFormat):
        with xp.wide():
            floats = float_of(x) if jnp.issubdtype(x.dtype, jnp.integer) else x
            return {"codes": encode_values(xp, floats, fmt, request, positions)}
    floats = without_nans(float_of(x), fmt, call.nan)
    if isinstance(fmt, Block):
        from lowp.rounding._portable_blocks import encode_blocks

        parts = encode_blocks(xp, floats, fmt, request, call.axis, positions, inputs.amax)
        return dict(parts._asdict())
    from lowp.rounding._portable_packed import encode_packed

    assert isinstance(fmt, Packed)
    packed = encode_packed(xp, floats, fmt, request, call.axis, positions, inputs.amax)
    return dict(packed)


def _flatten(encoded: Encoded) -> tuple[Any, Any]:
    parts = (encoded.codes, encoded.scales, encoded.zero_points, encoded.tensor_scale, encoded.fields)
    return parts, (encoded.format, encoded.axis, encoded.array_shape, encoded.dtype)


def _unflatten(rest: Any, parts: Any) -> Encoded:
    codes, scales, zero_points, tensor_scale, fields = parts
    fmt, axis, array_shape, dtype = rest
    return Encoded(codes, fmt, scales, zero_points, tensor_scale, axis, fields, array_shape, dtype)


jax.tree_util.register_pytree_node(Encoded, _flatten, _unflatten)
