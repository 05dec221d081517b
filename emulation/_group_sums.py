"""Fused groups of rounded products, and trees of fused groups: made of simpler sums of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.emulation._accumulator_checks import INFINITY
from lowp.emulation._operands import check_comes_back
from lowp.emulation._side import Side
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.rounding.modes import INTEGER_ONLY, rounding

Sums = NDArray[np.float64]
Run = Callable[[Side, Side, Any, Accumulator, Any, int], Any]
_ONE = Float(2, 1, bias=1, specials="finite")


def of_rounded_products(a: Side, b: Side, c: Sums, accumulator: Accumulator, run: Run) -> Sums:
    """Return running sums of groups whose products are rounded to a format before they are summed exactly."""
    fmt = accumulator.product
    assert isinstance(fmt, ScalarFormat)
    _check_rounding(accumulator, "product='exact'")
    check_comes_back(fmt, "rounded products", "product='exact'")
    overflow = accumulator.overflow
    if (overflow == INFINITY and not fmt.has_infinity) or (overflow in INTEGER_ONLY and isinstance(fmt, Float)):
        overflow = "infinity_or_nan"
    alone = Accumulator(
        format=fmt, rounding=accumulator.rounding, overflow=overflow, subnormal_inputs=accumulator.subnormal_inputs,
        subnormal_results=accumulator.subnormal_results,
    )  # fmt: skip
    terms, nothing = a.values.shape[2], _nothing(c, accumulator)
    products = [
        run(a.taken(slice(k, k + 1), 2), b.taken(slice(k, k + 1), 1), nothing, alone, fmt, 0).reshape(-1)
        for k in range(terms)
    ]
    left = Side(np.stack(products, axis=-1)[None], fmt)
    ones = Side(np.ones((1, terms, 1)), _ONE)
    plain = replace(accumulator, product="exact")
    return np.asarray(run(left, ones, c.reshape(1, -1, 1), plain, accumulator.format, 0)).reshape(c.shape)


def in_a_tree(a: Side, b: Side, c: Sums, accumulator: Accumulator, run: Run) -> Sums:
    """Return the sum of `c` and a tree of the sums of fused groups."""
    _check_rounding(accumulator, "order='sequential'")
    check_comes_back(accumulator.format, "sums of groups", "group=1")  # type: ignore[arg-type]
    one_by_one = replace(accumulator, order="sequential")
    size, terms, nothing = accumulator.group, a.values.shape[2], _nothing(c, accumulator)
    groups = [slice(k, min(k + size, terms)) for k in range(0, terms, size)]
    sums = [run(a.taken(g, 2), b.taken(g, 1), nothing, one_by_one, accumulator.format, 0).reshape(-1) for g in groups]
    stacked = Side(np.stack(sums)[None], accumulator.format)  # type: ignore[arg-type]
    ones = Side(np.ones((1, 1, len(sums))), _ONE)
    tree = replace(accumulator, group=1, product="exact")
    return np.asarray(run(ones, stacked, c.reshape(1, 1, -1), tree, accumulator.format, 0)).reshape(c.shape)


def _nothing(like: Sums, accumulator: Accumulator) -> Sums:
    """Return zeros that leave every number that they are added to as it is, zeros too."""
    return np.full(like.shape, 0.0 if accumulator.rounding == "toward_negative" else -0.0)


def _check_rounding(accumulator: Accumulator, instead: str) -> None:
    """Raise ArgumentError for random bits, whose places these sums do not count."""
    if rounding(accumulator.rounding).variant:
        raise ArgumentError(
            f"rounding={accumulator.rounding!r} does not go together with fused groups of {accumulator.group} in "
            f"{accumulator!r}; take group_sum='sequential' or {instead}."
        )
