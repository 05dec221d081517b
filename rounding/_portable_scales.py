"""Scales of packed formats as array code, what fills up last blocks, and repeated steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import warn_caller
from lowp.formats.float_format import Float
from lowp.formats.tables import code_dtype
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable import decode_values
from lowp.rounding._portable_numbers import codes_of
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request


def stored_scales(xp: Any, wanted: Any, scale: Float) -> tuple[Any, Any]:
    """Return codes and values as `schemes.scaled_integers.stored_scales`: saturating, NaN where not finite."""
    bad = ~doubles.is_finite(xp, wanted)
    clean = xp.where(bad, 0.0, wanted)
    if xp.is_concrete(wanted) and xp.any(doubles.magnitude(xp, clean) > scale.max):
        warn_caller(
            f"a block needs a scale beyond {scale.name!r}, which ends at {scale.max}; its values clip. Divide x first."
        )
    codes = codes_of(xp, clean, scale, scale_request("ties_to_even"))
    assert scale.nan_code is not None
    codes = xp.where(bad, scale.nan_code, codes)
    return codes, scale_values(xp, codes, scale)


def scale_values(xp: Any, codes: Any, scale: Float) -> Any:
    """Return the float64 values of stored scales."""
    return decode_values(xp, xp.cast(codes, code_dtype(scale.bits).name), scale, "float64")


def times_power(xp: Any, x: Any, exponent: Any) -> Any:
    """Return `x * 2^exponent` of finite numbers, rounded once where it is subnormal; beyond float64 infinity."""
    parts = doubles.parts_of(xp, x)
    return doubles.from_parts(xp, doubles.Parts(parts.significand, parts.exponent + exponent), doubles.sign_of(xp, x))


def exponents_of(xp: Any, x: Any) -> Any:
    """Return e of `x = m * 2^e` with m from 1/2 to below 1, and 0 for zero."""
    parts = doubles.parts_of(xp, x)
    return xp.where(parts.significand == 0, 0, parts.exponent + 53)


def present(shape: tuple[int, ...], request: Request) -> NDArray[np.bool_]:
    """Return which values of blocks belong to the array, and do not fill up a last block: (1, blocks, values)."""
    mask = np.ones((1, *shape[1:]), np.bool_)
    if mask.size and request.padding[-1]:
        mask[:, -1, shape[-1] - request.padding[-1] :] = False
    return mask


def iterated(xp: Any, step: Callable[[tuple[Any, ...]], tuple[Any, ...]], state: tuple[Any, ...], count: int) -> Any:
    """Return a tuple of arrays after a step that keeps their shapes, taken `count` times."""
    if not count:
        return state
    turns = xp.constant(np.arange(count), state[0])
    return xp.scan(lambda state, _: (step(state), None), state, (turns,))[0]
