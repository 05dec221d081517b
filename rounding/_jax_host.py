"""Packed formats on JAX arrays in the host's memory: outside a trace NumPy rounds them, to the same bits.

Their array code takes seconds to compile for every shape, and its searches run up to a hundred times longer on a CPU
than NumPy's kernels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lowp.formats.packed import Packed
from lowp.formats.spec import Format
from lowp.rounding import verbs
from lowp.rounding._jax_arrays import result_name
from lowp.rounding.encoded import Encoded


def numpy_is_quicker(fmt: Format, *inputs: Any) -> bool:
    """Whether a format is packed, and all inputs are numbers that lie where JAX puts new arrays, on a CPU."""
    if not isinstance(fmt, Packed):
        return False
    arrays = jax.tree.leaves(inputs)
    if any(isinstance(a, jax.core.Tracer) for a in arrays):
        return False
    here = jnp.zeros(()).devices()
    placed = all(a.devices() == here for a in arrays if isinstance(a, jax.Array))
    return placed and all(device.platform == "cpu" for device in here)


def quantize(x: Any, fmt: Format, **options: Any) -> Any:
    """Return `lowp.quantize` of the numbers of an array, in its dtype."""
    return jnp.asarray(verbs.quantize(np.asarray(x), fmt, **options)).astype(result_name(x))


def encode(x: Any, fmt: Format, **options: Any) -> Encoded:
    """Return `lowp.encode` of the numbers of an array, its parts as JAX arrays."""
    encoded = _mapped(verbs.encode(np.asarray(x), fmt, **options), jnp.asarray)
    return replace(encoded, dtype=jnp.dtype(result_name(x)))


def decode(encoded: Encoded, name: str) -> Any:
    """Return the values of an encoded array in a float dtype."""
    return jnp.asarray(verbs.decode(_mapped(encoded, np.asarray), dtype=jnp.dtype(name)))


def _mapped(encoded: Encoded, kind: Any) -> Encoded:
    fields = encoded.fields and {name: kind(part) for name, part in encoded.fields.items()}
    return replace(encoded, codes=kind(encoded.codes), fields=fields)
