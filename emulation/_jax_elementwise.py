"""Rounding the results of single operations of a JAX program; derivatives pass straight through."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from lowp.emulation._jax_seeds import fold, seed_at
from lowp.emulation._jax_sites import Site
from lowp.emulation._jax_world import WORLD
from lowp.emulation.casting import round_operand
from lowp.emulation.casts import Cast


def round_result(site: Site, y: Any, word: Any, number: int = 0) -> Any:
    """Return a floating result in the format of "elementwise", complex ones by their parts; others as they are.

    Args:
        site: Where; gives the cast.
        y: The result.
        word: Word of the call.
        number: Which of the operation's results this is.
    """
    if jnp.issubdtype(y.dtype, jnp.complexfloating):
        real, imaginary = (round_result(site, part, word, 2 * number + i) for i, part in enumerate((y.real, y.imag)))
        return lax.complex(real, imaginary)
    if y.dtype not in (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64):
        return y
    seed = seed_at(site, "", "elementwise", fold(word, number) if number else word)
    return _straight_through(y, seed, site.cast("elementwise"))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _straight_through(x: Any, seed: Any, cast: Cast) -> Any:
    return _rounded(x, seed, cast)[0]


@_straight_through.defjvp
def _derivative(cast: Cast, primals: Any, tangents: Any) -> Any:
    values, mask = _rounded(*primals, cast)
    return values, tangents[0] if mask is None else jnp.where(mask, tangents[0], 0)


@partial(jax.jit, static_argnums=2)
def _rounded(x: Any, seed: Any, cast: Cast) -> tuple[Any, Any]:
    result = round_operand(WORLD, x.reshape(1) if x.ndim == 0 else x, cast, axis=-1, seed=seed)
    mask = None if result.mask is None else result.mask.reshape(x.shape)
    return result.values.astype(x.dtype).reshape(x.shape), mask
