"""Codes to values on JAX arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.tables import scalar_format
from lowp.rounding import _jax_host
from lowp.rounding._jax_arrays import as_jax
from lowp.rounding._jax_compiled import run
from lowp.rounding._namespaces import JaxNamespace
from lowp.rounding._portable_scalar import decode_values
from lowp.rounding.encoded import Encoded


class Decoding(NamedTuple):
    """What a compiled decoding is specialized on."""

    fmt: Format
    dtype: str
    axis: Any
    array_shape: tuple[int, ...] | None
    x64: bool


def decode_array(codes: Any, fmt: str | Format | None = None, dtype: Any = None) -> Any:
    """Decode JAX codes, or an `Encoded` of JAX arrays; see `lowp.jax.decode`."""
    x64 = bool(jax.config.jax_enable_x64)
    if isinstance(codes, Encoded):
        if fmt is not None and parse(fmt) != codes.format:
            raise ArgumentError(f"fmt={fmt!r} differs from the format of the encoded array, {codes.format.name!r}.")
        name = _float_name(codes.dtype if dtype is None else dtype)
        if _jax_host.numpy_is_quicker(codes.format, codes.codes, codes.fields):
            return _jax_host.decode(codes, name)
        parts = {
            "codes": codes.codes,
            "scales": codes.scales,
            "zero_points": codes.zero_points,
            "tensor_scale": codes.tensor_scale,
            "fields": codes.fields,
        }
        how = Decoding(codes.format, name, codes.axis, codes.array_shape, x64)
        return run(_decode_parts, parts, how, (), str(jax.tree.map(lambda a: getattr(a, "dtype", None), parts)))
    if fmt is None:
        raise ArgumentError("fmt is missing: plain codes need the format that they are codes of.")
    scalar = scalar_format(fmt, "decode")
    array = as_jax(codes, what="codes")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ArgumentTypeError(f"codes have dtype {array.dtype}; allowed: integers.")
    name = _float_name(("float64" if x64 else "float32") if dtype is None else dtype)
    return run(_decode_parts, {"codes": array}, Decoding(scalar, name, -1, None, x64), (), array.dtype)


def _decode_parts(xp: JaxNamespace, parts: dict[str, Any], how: Decoding, _: Any) -> Any:
    if isinstance(how.fmt, ScalarFormat):
        return decode_values(xp, parts["codes"], how.fmt, how.dtype)
    if isinstance(how.fmt, Block):
        from lowp.rounding._portable_blocks import BlockParts, decode_blocks

        block = BlockParts(parts["codes"], parts["scales"], parts["zero_points"], parts["tensor_scale"])
        return decode_blocks(xp, block, how.fmt, how.axis, how.dtype)
    from lowp.rounding._portable_packed import decode_packed

    assert isinstance(how.fmt, Packed)
    assert how.array_shape is not None
    return decode_packed(xp, parts["codes"], parts["fields"], how.fmt, how.axis, how.array_shape, how.dtype)


def _float_name(dtype: Any) -> str:
    try:
        name = str(jnp.dtype(dtype).name)
    except TypeError:
        name = ""
    if name not in ("float16", "bfloat16", "float32", "float64"):
        raise ArgumentTypeError(f"dtype={dtype!r} is not allowed: float16, bfloat16, float32 or float64.")
    if name == "float64" and not jax.config.jax_enable_x64:
        raise ArgumentError("dtype float64: JAX makes such arrays with jax_enable_x64 only; set it, or pass float32.")
    return name
