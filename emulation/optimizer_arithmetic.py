"""Float32 and bfloat16 arithmetic of optimizers on arrays of any framework, the same bits in each.

On the CPU, XLA joins a product and a sum into one operation and replaces a quotient by a root; `nearest` and `separate`
stand between them, where that would change a bit. XLA also takes numbers below 2^-126 for zero there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lowp.rounding._namespaces import Namespace

_INFINITY = 0x7F800000
_MAGNITUDE = 0x7FFFFFFF


def nearest(xp: Namespace, x: Any, dropped: int = 16) -> Any:
    """Return float32 numbers rounded to nearest even without their last mantissa bits; 16: to bfloat16.

    It works on bits: compilers drop casts to bfloat16 and back. Eager torch does not.
    """
    if xp.name == "torch" and dropped == 16 and xp.is_concrete(x):
        return xp.cast(xp.cast(x, "bfloat16"), "float32")
    bits = xp.bits(x)
    rounded = (bits + ((1 << (dropped - 1)) - 1) + ((bits >> dropped) & 1)) & -(1 << dropped)
    return xp.floats(xp.where((bits & _MAGNITUDE) > _INFINITY, bits, rounded), "float32")


def load(xp: Namespace, x: Any) -> Any:
    """Return bfloat16 or float32 numbers as float32."""
    if xp.dtype_name(x) == "float32":
        return x
    return xp.floats(xp.cast(xp.bits(x), "int32") << 16, "float32")


def store(xp: Namespace, x: Any, name: str) -> Any:
    """Return float32 numbers that are bfloat16 values as bfloat16, or as they are for the name "float32"."""
    return x if name == "float32" else xp.floats(xp.cast(xp.bits(x) >> 16, "int16"), name)


def separate(xp: Namespace, x: Any, step: Any) -> Any:
    """Return `x`, behind an operation that no compiler can remove; `step` is a positive int32 number or array."""
    return x if xp.name != "jax" else xp.floats(xp.bits(x) ^ (step >> 31), "float32")


def square_root(xp: Namespace, x: Any) -> Any:
    """Return the correctly rounded square root of float32 numbers, which torch's on the CPU is not (MKL's)."""
    if xp.name == "torch":
        return xp.cast(xp.cast(x, "float64").sqrt(), "float32") if x.is_cpu else x.sqrt()
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.sqrt(x)
    return np.sqrt(x)


def root_mean_square(xp: Namespace, x: Any) -> Any:
    """Return the root mean square of float32 numbers, a scalar, summed in one order everywhere.

    Squares keep 17 bits; halves of the array are added until one sum is left.
    """
    flat = x.reshape(-1)
    count = flat.shape[0]
    sums, rest = nearest(xp, flat * flat, 7), None
    while sums.shape[0] > 1:
        half = sums.shape[0] // 2
        if sums.shape[0] % 2:
            last = sums[2 * half :]
            rest = last if rest is None else rest + last
        sums = sums[:half] + sums[half : 2 * half]
    total = sums if rest is None else sums + rest
    mean = total / xp.constant(np.float32(max(count, 1)), total)
    return square_root(xp, mean).reshape(()) if count else mean.sum()
