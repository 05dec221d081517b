"""Products of JAX arrays as a matrix unit computes them.

Arrays on the CPU whose numbers can be looked at go through the NumPy engines; everything else is array code, the same
under `jit`, `vmap`, `grad` and `shard_map`. The gradient is that of the plain product.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lowp._errors import ArgumentError
from lowp.emulation._unit_product import Arrays, Given, Product, as_array_code, described, lacks, with_numpy
from lowp.emulation._unit_run import lead_shape
from lowp.formats.block import Block
from lowp.rounding._jax_arrays import as_jax
from lowp.rounding._jax_decode import decode_array
from lowp.rounding._namespaces import JaxNamespace
from lowp.rounding.encoded import Encoded


def matmul(
    a: Any, b: Any, c: Any = None, *, unit: Any = None, accumulator: Any = None, fmt: Any = None, trace: bool = False,
    callback: bool = False,
) -> Any:  # fmt: skip
    """Return the product of JAX arrays; see `lowp.jax.matmul`."""
    a, b = _array(a, "a"), _array(b, "b")
    given = described(unit, accumulator, Given.of(a), Given.of(b), fmt)
    x, scale_x, y, scale_y = *_operand(a), *_operand(b)
    if x.ndim == 0 or y.ndim == 0:
        raise ArgumentError("a product needs vectors or matrices, not single numbers.")
    vectors = x.ndim == 1, y.ndim == 1
    x, y = x[None] if vectors[0] else x, y[..., None] if vectors[1] else y
    scale_x = scale_x[None] if vectors[0] and scale_x is not None else scale_x
    scale_y = scale_y[..., None] if vectors[1] and scale_y is not None else scale_y
    if c is not None:
        c = _array(c, "c")
        c = c[..., None] if vectors[1] else c
        c = c[..., None, :] if vectors[0] else c
    lead_shape(x.shape, y.shape, None if c is None else c.shape)
    if given.dtype == "float64" and not jax.config.jax_enable_x64:
        raise ArgumentError(
            f"results in {(given.fmt or given.own).name!r} need float64, which JAX has with jax_enable_x64 only; set "
            "it, or fmt='float32'."
        )
    arrays = Arrays(x, y, c, scale_x, scale_y, _alpha(a, b))
    if trace:
        return _traced(given, arrays, vectors, (a, b))
    return _without_axes(_multiplied(given, bool(callback), arrays), vectors)


def _array(x: Any, role: str) -> Any:
    """Return an array, 8-bit floats too."""
    small = isinstance(x, jax.Array) and x.dtype.name.startswith("float8")
    return x if small or isinstance(x, Encoded) else as_jax(x, role)


def _without_axes(result: Any, vectors: tuple[bool, bool]) -> Any:
    """Return a product without the axes of vectors."""
    if vectors[1]:
        result = result[..., 0]
    if vectors[0]:
        result = result[..., 0] if vectors[1] else result[..., 0, :]
    return result


def _operand(x: Any) -> tuple[Any, Any]:
    """Return an operand's values and scales."""
    if not isinstance(x, Encoded):
        return x, None
    if not isinstance(x.format, Block):
        return decode_array(x.codes, x.format), None
    return decode_array(x.codes, x.format.element), decode_array(x.scales, x.format.scale)


def _alpha(a: Any, b: Any) -> Any:
    """Return the product of tensor scales rounded to float32."""
    scales = [x.tensor_scale if isinstance(x, Encoded) else None for x in (a, b)]
    if scales == [None, None]:
        return None
    first, second = (jnp.asarray(1.0 if s is None else s).astype(jnp.float32) for s in scales)
    return first * second


def _is_traced(arrays: Arrays) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in arrays)


def _on_cpu(arrays: Arrays) -> Arrays:
    return Arrays(*(None if x is None else np.asarray(x) for x in arrays))


def _traced(given: Product, arrays: Arrays, vectors: tuple[bool, bool], operands: tuple[Any, Any]) -> Any:
    """Return the product of numbers on the CPU, and the report about its sums."""
    from lowp.emulation.sum_report import traced

    if _is_traced(arrays):
        raise ArgumentError("trace=True looks at numbers, which are hidden while JAX traces.")
    scales = [None if (s := getattr(x, "tensor_scale", None)) is None else float(s) for x in operands]
    report: list[Any] = []

    def watched(how: Any, a: Any, b: Any, c: Any) -> Any:
        a.tensor_scale, b.tensor_scale = scales
        result, found = traced(how, a, b, c, given.fmt)
        report.append(found)
        return result

    return _without_axes(jnp.asarray(with_numpy(given, _on_cpu(arrays), watched)), vectors), report[0]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _multiplied(given: Product, callback: bool, arrays: Arrays) -> Any:
    missing = lacks(given)
    if not _is_traced(arrays) and (missing is not None or _is_on_cpu(arrays)):
        return jnp.asarray(with_numpy(given, _on_cpu(arrays)))
    if missing is None:
        return _compiled(given, bool(jax.config.jax_enable_x64))(arrays)
    if not callback:
        raise ArgumentError(
            f"array code, which JAX's transformations take, does not have {missing}; call lowp.jax.matmul with "
            "callback=True, which asks the host, or outside of jit."
        )
    shape = (*lead_shape(arrays.a.shape, arrays.b.shape, None), arrays.a.shape[-2], arrays.b.shape[-1])
    result = jax.ShapeDtypeStruct(shape, given.dtype)
    return jax.pure_callback(lambda x: with_numpy(given, _on_cpu(Arrays(*x))), result, arrays, vmap_method="sequential")


def _is_on_cpu(arrays: Arrays) -> bool:
    return all(d.platform == "cpu" for x in arrays if x is not None for d in x.devices())


@lru_cache(maxsize=256)
def _compiled(given: Product, x64: bool) -> Any:
    return jax.jit(lambda arrays: as_array_code(JaxNamespace(), given, arrays))


@_multiplied.defjvp
def _tangent(given: Product, callback: bool, primals: tuple[Arrays], tangents: tuple[Arrays]) -> tuple[Any, Any]:
    (arrays,), (moves,) = primals, tangents
    y = _multiplied(given, callback, arrays)
    left = _scaled(arrays.a.astype(y.dtype), arrays.scale_a, given.a.block, -1)
    right = _scaled(arrays.b.astype(y.dtype), arrays.scale_b, given.b.block, -2)
    dy = jnp.zeros_like(y)
    if _moves(moves.a):
        dy = dy + _plain(_scaled(moves.a.astype(y.dtype), arrays.scale_a, given.a.block, -1), right)
    if _moves(moves.b):
        dy = dy + _plain(left, _scaled(moves.b.astype(y.dtype), arrays.scale_b, given.b.block, -2))
    if _moves(moves.c):
        dy = dy + moves.c.astype(y.dtype)
    return y, dy if arrays.alpha is None else dy * arrays.alpha.astype(y.dtype)


def _moves(x: Any) -> bool:
    return x is not None and x.dtype != jax.dtypes.float0


def _plain(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _scaled(x: Any, scales: Any, block: int, axis: int) -> Any:
    if scales is None:
        return x
    each = jnp.repeat(scales, block, axis)
    each = jax.lax.slice_in_dim(each, 0, x.shape[axis], axis=axis % x.ndim)
    return x * each.astype(x.dtype)
