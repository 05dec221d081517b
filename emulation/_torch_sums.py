"""Sums of emulated products of tensors as a matrix unit, or a rounding after every addition, makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lowp.emulation import _torch_unit as _  # noqa: F401 (registers the operator)
from lowp.emulation._unit_product import Arrays, Given, Product, text_of
from lowp.emulation._unit_sums import Elements, UnitSum, rounded_additions, unit_of
from lowp.emulation.casts import Cast
from lowp.rounding._namespaces import namespace_of

Tensor = torch.Tensor


def by_unit(
    cast: Cast, left: Elements, right: Elements, rounding: Callable[[Tensor, Any], Tensor], seed: int = 0
) -> Tensor:
    """Return `left @ right` in float32, of (..., m, k) and (..., k, n), as the unit of a cast sums it.

    `seed`: that of the random bits of an accumulator that has some.
    """
    if left.values.is_meta or right.values.is_meta:
        return torch.matmul(left.values, right.values)
    left, right = (replace(x, values=x.values.detach()) for x in (left, right))
    sums = UnitSum(namespace_of(left.values), _multiply, cast, unit_of(cast, seed), rounding)
    found: Tensor = sums.of(left, right)
    return found


def rounded(left: Tensor, right: Tensor, cast: Cast, seed: int) -> Tensor:
    """Return `left @ right` rounded to a cast's format after every addition of an exact product."""
    if left.is_meta or right.is_meta:
        return torch.matmul(left, right)
    kinds = [Given.of(x).kind(role, -1) for x, role in ((left, "a"), (right, "b"))]
    given = Product(rounded_additions(cast, seed), kinds[0], kinds[1])
    return _multiply(given, Arrays(left.detach(), right.detach())).to(left.dtype)


def _multiply(given: Product, arrays: Arrays) -> Tensor:
    found: Tensor = torch.ops.lowp.matmul(*arrays, text_of(given))
    return found
