"""Fused groups of rounded products, and trees of fused groups: made of simpler sums of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._accumulator_checks import INFINITY
from lowp.emulation._operands import check_comes_back
from lowp.emulation._side import Side
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import ScalarFormat
from lowp.rounding.modes import INTEGER_ONLY, rounding

Sums = NDArray[np.float64]
Run = Callable[[Side, Side, Any, Accumulator, Any, int], Any]
_ONE = Float(2, 1, bias=1, specials="finite")


def of_rounded_products(a: Side, b: Side, c: Sums, accumulator: Accumulator, run: Run, first_step: int) -> Sums:
    """Return running sums of groups whose products are rounded to a format before they are summed exactly."""
    fmt = accumulator.product
    assert isinstance(fmt, ScalarFormat)
    check_comes_back(fmt, "rounded products", "product='exact'")
    overflow = accumulator.overflow
    if (overflow == INFINITY and not fmt.has_infinity) or (
        overflow in INTEGER_ONLY and not isinstance(fmt, Integer | Fixed)
    ):
        overflow = "infinity_or_nan"
    alone = replace(
        accumulator, format=fmt, overflow=overflow, product="exact", group=1, order="sequential", signed_zero=True
    )
    plain = replace(accumulator, product="exact")
    terms, group, nothing = a.values.shape[2], accumulator.group, _nothing(c, accumulator)
    products = [
        # a step's products are stored before its sum
        run(a.taken(slice(k, k + 1), 2), b.taken(slice(k, k + 1), 1), nothing, alone, fmt, first_step + k + k // group)
        for k in range(terms)
    ]
    left, ones = (
        Side(np.stack([x.reshape(-1) for x in products], axis=-1)[None], fmt),
        Side(np.ones((1, terms, 1)), _ONE),
    )
    sums = c.reshape(1, -1, 1)
    for part in _steps(accumulator, terms):
        stored = first_step + part.stop + part.start // group
        sums = run(left.taken(part, 2), ones.taken(part, 1), sums, plain, accumulator.format, stored)
    return np.asarray(sums).reshape(c.shape)


def in_a_tree(a: Side, b: Side, c: Sums, accumulator: Accumulator, run: Run, first_step: int) -> Sums:
    """Return the sum of `c` and a tree of the sums of fused groups."""
    check_comes_back(accumulator.format, "sums of groups", "group=1")  # type: ignore[arg-type]
    one_by_one = replace(accumulator, order="sequential")
    size, terms, nothing = accumulator.group, a.values.shape[2], _nothing(c, accumulator)
    sums, stored = [], first_step
    for first in range(0, terms, size):
        part = slice(first, min(first + size, terms))
        found = run(a.taken(part, 2), b.taken(part, 1), nothing, one_by_one, accumulator.format, stored)
        sums.append(found.reshape(-1))
        stored += 1 + (accumulator.product != "exact") * (part.stop - part.start)
    stacked = Side(np.stack(sums)[None], accumulator.format)  # type: ignore[arg-type]
    ones = Side(np.ones((1, 1, len(sums))), _ONE)
    tree = replace(accumulator, group=1, product="exact")
    # the tree stores its leaves once more, which changes none of them and counts for nothing
    found = run(ones, stacked, c.reshape(1, 1, -1), tree, accumulator.format, stored - len(sums))
    return np.asarray(found).reshape(c.shape)


def _steps(accumulator: Accumulator, terms: int) -> list[slice]:
    """Return the runs of terms that are summed at a time: all, or single steps where products are stored in between."""
    size = accumulator.group if rounding(accumulator.rounding).variant else terms
    return [slice(first, min(first + size, terms)) for first in range(0, terms, size)]


def _nothing(like: Sums, accumulator: Accumulator) -> Sums:
    """Return zeros that leave every number that they are added to as it is, zeros too."""
    return np.full(like.shape, 0.0 if accumulator.rounding == "toward_negative" else -0.0)
