"""Steps whose terms are aligned and cut, as array code: what `_aligned_kernels` computes, for compilers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lowp.emulation._factors import ZERO_EXPONENT, least_exponent
from lowp.emulation._side import Side
from lowp.emulation._stored_plan import StoredPlan, stored_plan
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.formats.spec import ScalarFormat
from lowp.rounding._portable_shapes import padded

_BIAS, _FIELD = 1023, 0x7FF
_LEAST_REFERENCE = -900
_INFINITY = float("inf")
#: Terms of a step that XLA sees one by one: faster than a sum over an axis, but slower to compile.
_MOST_UNROLLED = 64
#: Rounding modes that array libraries have; the others go by their truth table.
_WAYS = {"toward_zero": "trunc", "ties_to_even": "rint", "toward_negative": "floor", "toward_positive": "ceil"}


class Parts(NamedTuple):
    """One operand, cut into steps: (steps, batch, rows, group) or (steps, batch, group, columns)."""

    values: Any  # elements times scales, elements alone in scaled groups; 0 where they are not finite
    exponents: Any  # in scaled groups those of the scales
    signs: Any = None  # what is not finite, and signs of the rest; None: all numbers of the formats are finite
    scales: Any = None  # of scaled groups


def run(xp: Any, a: Side, b: Side, c: Any, accumulator: Accumulator, c_format: ScalarFormat) -> Any:
    """Return the running sums after all terms of a contiguous run, of which there are some."""
    alignment = accumulator.alignment
    assert alignment is not None
    group = min(
        accumulator.group, -(-a.values.shape[2] // (alignment.scaled_group or 1)) * (alignment.scaled_group or 1)
    )
    specials = any(f is not None and (f.has_nan or f.has_infinity) for x in (a, b) for f in (x.format, x.scale_format))
    left, right = (_parts(xp, x, axis, group, alignment, specials) for x, axis in ((a, 2), (b, 1)))
    plan = stored_plan(
        accumulator.format, accumulator.rounding, accumulator.overflow, accumulator.subnormal_results == "zero",
        bool(accumulator.signed_zero),
    )  # fmt: skip
    given = [x for x in (*left, *right) if x is not None]
    layout = [x is not None for x in (*left, *right)]

    def step_from(least: int) -> Any:
        def step(state: Any, part: Any) -> Any:
            found = iter(part)
            both = [next(found) if there else None for there in layout]
            sides = Parts(*both[:4]), Parts(*both[4:])
            return (_step(xp, *sides, state[0], accumulator, least, plan),), None

        return step

    first = tuple(x[0] for x in given)
    (state,), _ = step_from(least_exponent(c_format))((c,), first)
    if given[0].shape[0] > 1:
        own = least_exponent(accumulator.format)  # type: ignore[arg-type]
        scan = getattr(xp, "scan_compiled", xp.scan)
        (state,), _ = scan(step_from(own), (state,), tuple(x[1:] for x in given))
    return state


def _parts(xp: Any, side: Side, axis: int, group: int, alignment: Alignment, specials: bool) -> Parts:
    raw = side.scaled_values(axis)
    signs = None
    if specials:
        infinite = abs(raw) < _INFINITY
        one = xp.where(raw > 0, 1.0, xp.where(raw < 0, -1.0, raw))
        signs = _steps(xp, xp.where(infinite, one, raw), axis, group)
    size = alignment.scaled_group
    if size:
        index = (*[slice(None)] * axis, np.arange(0, side.values.shape[axis], size))
        scales = _steps(xp, _finite(xp, side.spread_scales(axis)[index]), axis, group // size)
        values = _steps(xp, _finite(xp, side.values), axis, group)
        return Parts(values, _exponents(xp, scales, least_exponent(side.scale_format)), signs, scales)  # type: ignore[arg-type]
    elements = _steps(xp, _finite(xp, side.values), axis, group)
    exponents = _exponents(xp, elements, least_exponent(side.format))
    if side.scales is None:
        return Parts(elements, exponents, signs)
    scales = _steps(xp, _finite(xp, side.spread_scales(axis)), axis, group)
    least = least_exponent(side.scale_format)  # type: ignore[arg-type]
    return Parts(elements * scales, exponents + _exponents(xp, scales, least), signs)


def _finite(xp: Any, x: Any) -> Any:
    return xp.where(abs(x) < _INFINITY, x, 0.0)


def _steps(xp: Any, x: Any, axis: int, group: int) -> Any:
    """Return an operand cut into steps, the last one filled up with zeros."""
    more = -x.shape[axis] % group
    if more:
        x = padded(xp, x, tuple(more if i == axis else 0 for i in range(3)))
    steps = x.shape[axis] // group
    if axis == 2:
        return xp.move(x.reshape((x.shape[0], x.shape[1], steps, group)), 2, 0)
    return xp.move(x.reshape((x.shape[0], steps, group, x.shape[2])), 1, 0)


def _exponents(xp: Any, x: Any, least: int) -> Any:
    """Return floor(log2 |x|), at least `least`; that of zero far below."""
    field = (xp.bits(x) >> 52) & _FIELD
    own = xp.maximum(field - _BIAS, least)
    return xp.where(field == 0, ZERO_EXPONENT, own)


def power_of_two(xp: Any, exponent: Any) -> Any:
    """Return 2 to an exponent, as close as float64's normal numbers come."""
    return xp.floats((xp.minimum(xp.maximum(exponent, -_BIAS + 1), _BIAS) + _BIAS) << 52, "float64")


def _step(xp: Any, a: Parts, b: Parts, running: Any, accumulator: Accumulator, least: int, plan: StoredPlan) -> Any:
    how = accumulator.alignment
    assert how is not None
    way = _WAYS[how.cut]
    zero = _LEAST_REFERENCE if how.zero_exponent is None else how.zero_exponent
    finite = _finite(xp, running)
    top = xp.maximum(_exponents(xp, finite, least), zero)
    if how.scaled_group:
        terms = [_scaled_term(xp, a, b, place, how.scaled_group) for place in range(a.exponents.shape[2])]
        for _, exponent in terms:
            top = xp.maximum(top, exponent)
        power = power_of_two(xp, how.fraction_bits - top)
        total = xp.to_integer(finite * power, way)
        for value, _ in terms:
            total = total + xp.to_integer(value * power, way)
    else:
        top = _highest(xp, top, a.exponents, b.exponents)
        power = power_of_two(xp, how.fraction_bits - top)
        total = xp.to_integer(finite * power, way)
        total = _sum_of_terms(xp, total, a.values, b.values, power, way)
    total = xp.where(total == 0, 0.0, total)  # +0, whatever the signs of what was cut
    result = stored(xp, total * power_of_two(xp, top - how.fraction_bits), accumulator.rounding, plan)
    special = running - finite  # NaN and infinities; 0 elsewhere
    if a.signs is not None:
        product = dot(xp, a.signs, b.signs)
        special = special + xp.where(abs(product) < _INFINITY, 0.0, product)
    return _with_specials(xp, result, special, plan)


def _highest(xp: Any, top: Any, a: Any, b: Any) -> Any:
    """Return the largest sums of exponents of both operands' terms, at least `top`."""
    if xp.name == "jax" and a.shape[2] > _MOST_UNROLLED:
        return xp.maximum(top, (a[:, :, :, None] + b[:, None, :, :]).max(2))
    for k in range(a.shape[2]):
        top = xp.maximum(top, a[:, :, k : k + 1] + b[:, k : k + 1, :])
    return top


def _sum_of_terms(xp: Any, total: Any, a: Any, b: Any, power: Any, way: str) -> Any:
    """Return a total and the products in units of the last bit kept, each cut to such units."""
    if xp.name == "jax" and a.shape[2] > _MOST_UNROLLED:
        return total + xp.to_integer(a[:, :, :, None] * b[:, None, :, :] * power[:, :, None, :], way).sum(2)
    for k in range(a.shape[2]):
        total = total + xp.to_integer(a[:, :, k : k + 1] * b[:, k : k + 1, :] * power, way)
    return total


def dot(xp: Any, a: Any, b: Any) -> Any:
    """Return products of matrices of float64 numbers, exact in any order.

    Where `vmap` batches what was traced, JAX's own products of matrices lose float64 without `jax_enable_x64`.
    """
    return (a[:, :, :, None] * b[:, None, :, :]).sum(2) if xp.name == "jax" else a @ b


def _scaled_term(xp: Any, a: Parts, b: Parts, place: int, size: int) -> tuple[Any, Any]:
    """Return the value of one scaled group and its exponent: that of the scales, of zero where nothing is there."""
    mine = slice(place * size, (place + 1) * size)
    left, right = a.values[:, :, mine], b.values[:, mine, :]
    factor = a.scales[:, :, place : place + 1] * b.scales[:, place : place + 1, :]
    some = dot(xp, xp.cast(left != 0, "float64"), xp.cast(right != 0, "float64")) > 0
    exponent = a.exponents[:, :, place : place + 1] + b.exponents[:, place : place + 1, :]
    return dot(xp, left, right) * factor, xp.where(some, exponent, 2 * ZERO_EXPONENT)


def _with_specials(xp: Any, result: Any, special: Any, plan: StoredPlan) -> Any:
    """Return results, where a sum is not finite its place in the format."""
    result = xp.where(special > 0, plan.infinite, xp.where(special < 0, plan.infinite_negative, result))
    return xp.where(special != special, special, result)


def stored(xp: Any, total: Any, mode: str, plan: StoredPlan) -> Any:
    """Return finite sums, exact in float64 or rounded to odd, rounded to a float format."""
    exponent = ((xp.bits(total) >> 52) & _FIELD) - _BIAS
    free = exponent - plan.precision + 1
    last = xp.maximum(free, plan.least_bit)
    value = _whole(xp, total * power_of_two(xp, -last), mode, plan) * power_of_two(xp, last)
    if plan.smallest_normal:
        unbounded = _whole(xp, total * power_of_two(xp, -free), mode, plan) * power_of_two(xp, free)
        value = xp.where(abs(unbounded) < plan.smallest_normal, value * 0.0, value)
    value = xp.where(value > plan.largest, plan.above, value)
    value = xp.where(value < plan.least, plan.below, value)
    return value if plan.signed_zero else xp.where(value == 0, 0.0, value)


def _whole(xp: Any, x: Any, mode: str, plan: StoredPlan) -> Any:
    """Return numbers rounded to whole ones by a deterministic mode."""
    if mode in _WAYS:
        return xp.to_integer(x, _WAYS[mode])
    kept = xp.to_integer(x, "trunc")
    rest = abs(x - kept)
    odd = abs(kept - 2.0 * xp.to_integer(kept * 0.5, "trunc")) == 1
    place = xp.where(rest > 0.5, 12, xp.where(rest == 0.5, 8, xp.where(rest > 0, 4, 0)))
    place = place + xp.where(x < 0, 2, 0) + xp.where(odd, 1, 0)
    away = (xp.full_like(place, plan.rounding_table) >> place) & 1
    return xp.where(away == 1, kept + xp.where(x < 0, -1.0, 1.0), kept)


__all__ = ["dot", "power_of_two", "run", "stored"]
