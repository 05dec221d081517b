"""The same conjugate gradients as plain JAX: a scan that nothing in it knows of number formats."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lowp.jax as lj


def conjugate_gradients(a: jax.Array, b: jax.Array, steps: int) -> jax.Array:
    """Return the iterates as rows, the start at zero included."""

    def step(state: Any, _: Any) -> Any:
        x, r, p, rho = state
        q = a @ p
        alpha = rho / (p @ q)
        x = x + alpha * p
        r = r - alpha * q
        new = r @ r
        p = r + (new / rho) * p
        return (x, r, p, new), x

    start = (jnp.zeros_like(b), b, b, b @ b)
    _, iterates = jax.lax.scan(step, start, None, length=steps)
    return jnp.concatenate([jnp.zeros_like(b)[None], iterates])


def in_format(a: np.ndarray, b: np.ndarray, steps: int, fmt: str) -> np.ndarray:
    """Run it in a format, compiled: the result of every primitive is rounded, that of a matrix product once."""
    solve = lj.every_operation(lambda a, b: conjugate_gradients(a, b, steps), fmt)
    low_a, low_b = (lj.quantize(jnp.asarray(v, jnp.float32), fmt) for v in (a, b))
    return np.asarray(jax.jit(solve)(low_a, low_b), np.float64)
