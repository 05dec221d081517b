"""Rounding with a learned scale on JAX arrays: LSQ, Esser et al., arXiv:1902.08153."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.spec import Format
from lowp.formats.tables import scalar_format
from lowp.rounding._jax import quantize_array
from lowp.rounding._jax_arrays import as_jax


def lsq_quantize_array(x: Any, scale: Any, fmt: str | Format, rounding: str = "ties_to_even", **options: Any) -> Any:
    """Round in units of a scale; see `lowp.jax.lsq_quantize`."""
    scalar = scalar_format(fmt, "lsq_quantize")
    array = as_jax(x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ArgumentTypeError(f"x has dtype {array.dtype}; allowed: floats.")
    unknown = set(options) - {"overflow", "seed", "random_bits", "shard"}
    if unknown:
        raise ArgumentTypeError(f"lsq_quantize takes no {', '.join(sorted(unknown))}.")
    step = jnp.asarray(scale, array.dtype)
    ends = zip(reversed(step.shape), reversed(array.shape), strict=False)
    if step.ndim > array.ndim or not all(n in (1, whole) for n, whole in ends):
        raise ArgumentError(f"scale has shape {step.shape}, which does not broadcast to that of x, {array.shape}.")
    if not isinstance(step, jax.core.Tracer) and not bool((step > 0).all()):
        raise ArgumentError(f"scale={scale!r} must be positive.")
    shared = array.size // max(step.size, 1)
    weight = 1 / math.sqrt(max(shared, 1) * scalar.max)

    @jax.custom_jvp
    def rounded(x: Any, step: Any) -> Any:
        return quantize_array(x / step, scalar, rounding, **options) * step

    @rounded.defjvp
    def tangent(primals: Any, tangents: Any) -> Any:
        (x, step), (dx, dstep) = primals, tangents
        v = x / step
        q = quantize_array(v, scalar, rounding, **options)
        low, high = (jnp.asarray(end, v.dtype) for end in (scalar.min, scalar.max))
        inside = (v > low) & (v < high)
        slope = jnp.where(inside, q - v, jnp.where(v <= low, low, high)) * jnp.asarray(weight, v.dtype)
        return q * step, jnp.where(inside, dx, jnp.zeros_like(dx)) + slope * dstep

    return rounded(array, step)
