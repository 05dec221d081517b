"""What JAX callers pass, made ready: nothing that JAX would silently narrow gets through."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError, RangeError
from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding._namespaces import JaxNamespace
from lowp.rounding._portable_bits import float_bits, scaled, with_sign
from lowp.rounding._scalar import check_sticky
from lowp.rounding.request import Request

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def as_jax(x: Any, what: str = "x") -> Any:
    """Return a JAX array of the numbers of `x`, every bit of them.

    Raises:
        ArgumentError: float64 or 64-bit integers that JAX cannot hold without `jax_enable_x64`.
        ArgumentTypeError: Not floats of at most 64 bits or integers.
    """
    array = x if isinstance(x, jax.Array) else _from_numpy(x, what)
    name = array.dtype.name
    if name not in _FLOATS and not (
        jnp.issubdtype(array.dtype, jnp.integer) and not name.startswith(("int2", "int4", "uint2", "uint4"))
    ):
        raise ArgumentTypeError(
            f"{what} has dtype {name}; allowed: float16, bfloat16, float32, float64 and integers. Smaller floats "
            "convert exactly with .astype(jax.numpy.float32)."
        )
    return array


def _from_numpy(x: Any, what: str) -> Any:
    try:
        array = np.asarray(x)
    except (ValueError, TypeError, OverflowError) as error:
        raise ArgumentTypeError(f"{what} of type {type(x).__name__} is not an array of numbers: {error}.") from error
    if array.dtype == bool or array.dtype.kind not in "fiuV":
        raise ArgumentTypeError(f"{what} has dtype {array.dtype}; allowed: floats and integers.")
    if array.dtype.kind in "iu" and not jax.config.jax_enable_x64 and array.dtype.itemsize == 8:
        narrow = array.astype(np.int32)
        if not np.array_equal(narrow, array):
            raise ArgumentError(
                f"{what} holds 64-bit integers, which JAX would cut to 32 bits; set jax_enable_x64, or use NumPy."
            )
        array = narrow
    if array.dtype == np.float64 and not jax.config.jax_enable_x64:
        raise ArgumentError(
            f"{what} holds float64 numbers (as Python's are), which JAX would round to float32; set jax_enable_x64, "
            "convert them to float32 yourself, or use lowp.quantize."
        )
    return jnp.asarray(array)


def result_name(x: Any) -> str:
    """Return the float dtype of results: that of `x`; for integers float64, or float32 without `jax_enable_x64`."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return str(x.dtype.name)
    return "float64" if jax.config.jax_enable_x64 else "float32"


def float_of(x: Any) -> Any:
    """Return integers as float64, beyond 2^53 rounded to odd; floats as they are."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    xp = JaxNamespace()
    with xp.wide():
        return xp.floats(_odd_bits(xp, x), "float64")


def _odd_bits(xp: JaxNamespace, x: Any) -> Any:
    n = xp.cast(x, "int64")
    unsigned = jnp.issubdtype(x.dtype, jnp.unsignedinteger)
    negative = xp.full_like(n, 0) != 0 if unsigned else n < 0
    mag = xp.where(negative, -n, n)
    huge = mag < 0  # 2^63 and more
    mag = xp.where(huge, ((mag >> 1) & ((1 << 63) - 1)) | (mag & 1), mag)
    length = (float_bits(xp, mag >> 11, 64) >> 52) - 1023
    drop = xp.maximum(length - 41, 0)
    odd = (mag >> drop) | xp.cast((mag & ((1 << drop) - 1)) != 0, "int64")
    return with_sign(xp, scaled(xp, float_bits(xp, odd, 64), drop + xp.cast(huge, "int64")), negative)


def whole_numbers(x: Any, fmt: Format, request: Request) -> None:
    """Raise RangeError where 64-bit integers would be rounded twice; traced ones count as if they were beyond 2^53."""
    if jnp.issubdtype(x.dtype, jnp.floating) or x.dtype.itemsize < 8 or isinstance(fmt, Packed):
        return
    if not isinstance(x, jax.core.Tracer) and not bool((jnp.abs(x.astype(jnp.float64)) > 2.0**53).any()):
        return
    element = fmt.element if isinstance(fmt, Block) else fmt
    assert isinstance(element, ScalarFormat)
    check_sticky(element, request)


def without_nans(x: Any, fmt: Format, nan: str | None) -> Any:
    """Apply a NaN policy that the caller asked for to the input of a block format; without one the format's rules."""
    if nan in (None, "keep"):
        return x
    if nan == "zero":
        return jnp.where(jnp.isnan(x), jnp.zeros_like(x), x)
    if nan == "error":
        if not isinstance(x, jax.core.Tracer) and bool(jnp.isnan(x).any()):
            raise RangeError(f"x holds NaN, which nan='error' refuses; {fmt.name!r} has a rule of its own otherwise.")
        return x
    if isinstance(fmt, Packed) or (isinstance(fmt, Block) and fmt.nonfinite != "element"):
        raise ArgumentError(f"nan={nan!r} needs a format with nonfinite='element', which {fmt.name!r} is not.")
    return x
