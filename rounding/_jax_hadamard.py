"""The Hadamard transform of JAX arrays, as array code."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from lowp._errors import ArgumentTypeError
from lowp.rounding._dispatch import is_jax
from lowp.rounding._namespaces import namespace_of
from lowp.rounding._portable_words import seed_keys, words
from lowp.rounding.hadamard import block_signs, checked_axis, checked_seed, rotate_portable


def hadamard_array(x: Any, block: int, axis: int, seed: Any, signs: str, inverse: bool) -> Any:
    """Transform a JAX array, or any array under a traced seed; see `lowp.rounding.hadamard.hadamard`."""
    x = jnp.asarray(x)
    if x.dtype == bool or jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ArgumentTypeError(f"x has dtype {x.dtype}; allowed: real numbers.")
    integer = not jnp.issubdtype(x.dtype, jnp.floating)
    dtype = jax.dtypes.canonicalize_dtype("float64") if integer else x.dtype
    wide = x.astype(dtype if dtype == jnp.float64 else "float32")
    place = checked_axis(x.shape, block, axis)
    own, factor = jnp.asarray(_signs(block, seed, signs), wide.dtype), wide.dtype.type(1 / math.sqrt(block))
    stack = jnp.stack
    result = rotate_portable(wide, own, place, bool(inverse), lambda parts, at: stack(parts, axis=at), factor)
    return result.astype(dtype)


def _signs(block: int, seed: Any, signs: str) -> Any:
    """Return +1 or -1 for each position in a block; the seed may be traced."""
    if signs == "none" or not is_jax(seed):
        return block_signs(block, 0 if is_jax(seed) else checked_seed(seed), signs)
    positions = jnp.arange(block, dtype=jnp.int32)
    return jnp.where(words(namespace_of(seed), seed_keys(seed), (positions, 0)) < 0, -1.0, 1.0)
