"""Seeds of one site in one call of a JAX program: the site's own, changed by a traced word where there is one.

The word stands for the `seed` of the call and for the rounds of the loops around the site.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from lowp.emulation._jax_sites import Site
from lowp.emulation._jax_world import Key
from lowp.emulation.seeds import sign_seed, site_seed
from lowp.rounding._portable import seed_keys
from lowp.rounding._portable_words import mix, signed
from lowp.rounding.random_bits import keys


def word_of(seed: Any) -> Any:
    """Return the word of a call's seed, a Python integer or a traced one; None for None.

    Raises:
        ArgumentError, ArgumentTypeError: It is no integer from 0 to 2^64 - 1.
    """
    if seed is None:
        return None
    key0, key1 = seed_keys(seed)
    return _int32(key0) ^ mix(_int32(key1))


def fold(word: Any, number: Any) -> Any:
    """Return the word of round `number` of a loop in a call with this word."""
    hashed = mix(_int32(number) ^ signed(0x2C1B3C6D))
    return mix(hashed + (0 if word is None else word))


def seed_at(site: Site, product: str, role: str, word: Any) -> Key:
    """Return the seed of one rounding."""
    return _with(site_seed(site.recipe.seed, site.layer, site.operation, site.call, product, role), word)


def signs_at(site: Site, product: str, signs: str, word: Any) -> Key | None:
    """Return the seed of a rotation's signs, None for none."""
    seed = sign_seed(site.recipe.seed, site.layer, site.operation, site.call, product, signs)
    return None if seed is None else _with(seed, None if signs == "fixed" else word)


def _with(seed: int, word: Any) -> Key:
    key0, key1 = (np.int32(signed(key)) for key in keys(seed))
    return Key(key0, key1) if word is None else Key(mix(word ^ key0), mix(word + key1))


def _int32(n: Any) -> Any:
    if isinstance(n, int):
        return jnp.int32(signed(n))
    return lax.bitcast_convert_type(n, jnp.int32) if n.dtype == jnp.uint32 else n.astype(jnp.int32)
