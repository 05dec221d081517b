"""Sums of emulated products of JAX arrays as a matrix unit, or a rounding after every addition, makes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax

from lowp._errors import ArgumentError
from lowp.emulation._jax_world import Key
from lowp.emulation._unit_product import Arrays, Given, Product, as_array_code, lacks
from lowp.emulation._unit_sums import Elements, UnitSum, rounded_additions, unit_of
from lowp.emulation.casts import Cast
from lowp.rounding._namespaces import JaxNamespace


def by_unit(
    cast: Cast, left: Elements, right: Elements, rounding: Callable[[Any, Any], Any], seed: Key | None = None
) -> Any:
    """Return `left @ right` in float32, of (..., m, k) and (..., k, n), as the unit of a cast sums it.

    `seed`: that of the random bits of an accumulator that has some.
    """
    return UnitSum(JaxNamespace(), partial(_multiply, keys=seed), cast, unit_of(cast), rounding).of(left, right)


def rounded(left: Any, right: Any, cast: Cast, seed: Key) -> Any:
    """Return `left @ right` rounded to a cast's format after every addition of an exact product."""
    kinds = [Given.of(x).kind(role, -1) for x, role in ((left, "a"), (right, "b"))]
    given = Product(rounded_additions(cast, 0), kinds[0], kinds[1])
    return _multiply(given, Arrays(left, right), seed if cast.stochastic else None).astype(left.dtype)


def _multiply(given: Product, arrays: Arrays, keys: Any = None) -> Any:
    missing = lacks(given)
    if missing is not None:
        raise ArgumentError(
            f"array code, which JAX's transformations take, does not have {missing}; JAX programs need another "
            "accumulator or unit."
        )
    return _compiled(given, bool(jax.config.jax_enable_x64))(arrays, keys)


@lru_cache(maxsize=256)
def _compiled(given: Product, x64: bool) -> Any:
    return jax.jit(lambda arrays, keys: as_array_code(JaxNamespace(), given, arrays, keys))
