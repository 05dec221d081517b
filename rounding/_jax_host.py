"""Formats without array code on concrete JAX arrays: NumPy rounds them on the host, outside any trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lowp.formats.logarithms import is_logarithmic
from lowp.formats.packed import Packed
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding import verbs
from lowp.rounding.encoded import Encoded
from lowp.rounding.request import Request


def rounds_on_host(fmt: Format, request: Request | None, *arrays: Any) -> bool:
    """Whether a format has no array code (for that rounding), and all arrays are numbers that can be looked at."""
    from lowp.rounding._portable_schemes import SCHEMES

    if isinstance(fmt, Packed):
        lacking = fmt.scheme not in SCHEMES
    elif request is None:
        return False
    else:
        wide_or_random = isinstance(fmt, ScalarFormat) and (fmt.bits > 16 or request.mode.variant != 0)
        lacking = wide_or_random and is_logarithmic(fmt)
    return lacking and not any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves(arrays))


def quantize(x: Any, fmt: Format, **options: Any) -> Any:
    """Return `lowp.quantize` of the numbers of an array, in its dtype."""
    return jnp.asarray(verbs.quantize(np.asarray(x), fmt, **options)).astype(x.dtype)


def encode(x: Any, fmt: Format, **options: Any) -> Encoded:
    """Return `lowp.encode` of the numbers of an array, its parts as JAX arrays."""
    return _mapped(verbs.encode(np.asarray(x), fmt, **options), jnp.asarray)


def decode(encoded: Encoded, name: str) -> Any:
    """Return the values of an encoded array in a float dtype."""
    return jnp.asarray(verbs.decode(_mapped(encoded, np.asarray), dtype=jnp.dtype(name)))


def _mapped(encoded: Encoded, kind: Any) -> Encoded:
    def part(given: Any) -> Any:
        return None if given is None else kind(given)

    fields = encoded.fields and {name: part(given) for name, given in encoded.fields.items()}
    return replace(
        encoded,
        codes=part(encoded.codes),
        scales=part(encoded.scales),
        zero_points=part(encoded.zero_points),
        fields=fields,
    )
