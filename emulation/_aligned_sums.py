"""Aligned sums of products of whole arrays: plans and tiles for the kernels, on all cores."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError
from lowp.emulation import _aligned_columns_kernels as columns_kernels
from lowp.emulation import _aligned_kernels as kernels
from lowp.emulation._aligned_tiles import lane_operands, tile_width, tiles
from lowp.emulation._factors import ZERO_EXPONENT, Factors, factors, least_exponent, scaled
from lowp.emulation._operands import check_comes_back
from lowp.emulation._scratch import new_room, room
from lowp.emulation._side import Side
from lowp.emulation._stored_plan import StoredPlan, is_storable, lane_plan, stored_plan
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.rounding._threads import split
from lowp.rounding.modes import rounding

if TYPE_CHECKING:
    from lowp.emulation.accumulator import Accumulator

_FLOAT64, _ONE = Float(11, 52), Float(2, 1, bias=1, specials="finite")
#: Bits above the largest exponent that a step's terms have without their number, and those of groups with scales more.
_CARRIES, _SCALED = 3, 12
_NEVER = 1 << 24
#: No reference exponent is below this, far below any product's; powers of two beside it stay in float64's range.
_LEAST_REFERENCE = -900
_LEAST_BIT = -960
_WAYS = {
    "toward_zero": columns_kernels.TRUNCATED,
    "ties_to_even": columns_kernels.NEAREST,
    "toward_negative": columns_kernels.DOWN,
    "toward_positive": columns_kernels.UP,
}


class AlignedPlan(NamedTuple):
    """What the kernels need to know of an accumulator and its operands, as integers."""

    rows: int  # rows of each item of the batch
    group: int
    fraction_bits: int
    floor: int
    cut: int  # the cut's truth table
    sum_cut: int
    zero_exponent: int
    first_least_exponent: int  # of the addend's format, then of the running sum's
    least_exponent: int
    right: int  # a product is cut so many bits more than its exponent is below the reference
    product_bits: int
    lanes: int
    after: int
    sum_bits: int
    running_bits: int
    result_bits: int  # -1: all
    running_reach: int  # -1: any
    product_limit: int
    scaled_group: int  # 0: none
    element_exponent: int
    special: int
    way: int
    absent_exponent: int = 0  # of zeros, where exponents have few bits
    least_product_exponent: int = 0


def run(
    a: Side, b: Side, c: NDArray[np.float64], accumulator: Accumulator, c_format: ScalarFormat, first_step: int = 0
) -> NDArray[Any]:
    """Return the running sums after all terms; arrays are (batch, rows, terms), (batch, terms, columns).

    `first_step`: how many numbers were stored for each output before, for stochastic rounding.
    """
    alignment = accumulator.alignment
    assert alignment is not None
    if not a.values.shape[2] or not c.size:
        return c.copy()
    check_comes_back(accumulator.format, "aligned sums", "a format of up to 53 bits")  # type: ignore[arg-type]
    if not is_storable(accumulator.format, accumulator.rounding, accumulator.overflow):  # type: ignore[arg-type]
        return _stored_apart(a, b, c, accumulator, c_format, first_step)
    return _all_steps(a, b, c, accumulator, c_format)


def _all_steps(
    a: Side, b: Side, c: NDArray[np.float64], accumulator: Accumulator, c_format: ScalarFormat, kept_as: Any = None
) -> NDArray[Any]:
    """Return the running sums; `kept_as`: the format below whose exponents results are not cut, if another."""
    alignment = accumulator.alignment
    assert alignment is not None
    if accumulator.subnormal_inputs != "keep":
        return _flushed(a, b, c, accumulator, c_format, kept_as)
    left, right = (
        factors(x.values, x.format, room(f"exponents of {side}", x.values.shape, np.int32))
        for x, side in ((a, "left"), (b, "right"))
    )
    scales = None
    if alignment.scaled_group:
        scales = _scales_of_groups(a, b, alignment.scaled_group)
    else:
        left, right = _times_scales(left, a, -1), _times_scales(right, b, -2)
    stored = stored_plan(
        accumulator.format, accumulator.rounding, accumulator.overflow, accumulator.subnormal_results == "zero",
        accumulator.signed_zero,
    )  # fmt: skip
    plan = _plan(accumulator, (a, b), (left, right), scales, c_format)
    if kept_as is not None:
        plan = plan._replace(least_exponent=_least_running_exponent(kept_as))
    dtype = _dtype(plan, left, right, stored, c) if scales is None else None
    return _Sums(plan, stored, left, right, scales, (a, b), dtype).run(c)


def _flushed(
    a: Side, b: Side, c: NDArray[np.float64], accumulator: Accumulator, c_format: ScalarFormat, kept_as: Any
) -> NDArray[Any]:
    """Return the running sums where subnormal operands and running sums are read as zero: step by step."""
    plain = replace(accumulator, subnormal_inputs="keep")
    a, b = (x._replace(values=without_subnormals(x.values, x.format)) for x in (a, b))
    fmt = c_format
    for first in range(0, a.values.shape[2], accumulator.group):
        part = slice(first, first + accumulator.group)
        c = _all_steps(a.taken(part, 2), b.taken(part, 1), without_subnormals(c, fmt), plain, fmt, kept_as)
        fmt = accumulator.format  # type: ignore[assignment]
    return c


def _stored_apart(
    a: Side, b: Side, c: NDArray[np.float64], accumulator: Accumulator, c_format: ScalarFormat, first_step: int
) -> NDArray[Any]:
    """Return the running sums where these kernels do not store them: each step's sum in float64, then stored."""
    from lowp.emulation._summation import run as stored

    alignment = accumulator.alignment
    assert alignment is not None
    kept = max(alignment.fraction_bits, alignment.sum_fraction_bits or 0, alignment.running_fraction_bits or 0)
    group = min(accumulator.group, a.values.shape[2])
    if kept + _CARRIES + group.bit_length() + (_SCALED if alignment.scaled_group else 0) > _FLOAT64.mantissa_bits + 1:
        raise ArgumentError(
            f"rounding={accumulator.rounding!r}, overflow={accumulator.overflow!r} and {accumulator.format.name!r} do "  # type: ignore[union-attr]
            f"not go together with aligned sums of {group} terms of {kept} fraction bits, which float64 does not hold; "
            "take fewer bits or a smaller group."
        )
    plain = {"rounding": "ties_to_even", "overflow": "infinity", "subnormal_results": "keep"}
    exact = replace(accumulator, format=_FLOAT64, **plain)  # type: ignore[arg-type]
    each = replace(accumulator, alignment=None, group=1, subnormal_inputs="keep")
    zero = 0.0 if accumulator.rounding == "toward_negative" else -0.0  # leaves every number as it is
    one, nothing, fmt = Side(np.ones((1, 1, 1)), _ONE), np.full((1, c.size, 1), zero), c_format
    for step, first in enumerate(range(0, a.values.shape[2], accumulator.group)):
        part = slice(first, first + accumulator.group)
        total = _all_steps(a.taken(part, 2), b.taken(part, 1), c, exact, fmt, accumulator.format)
        c = stored(Side(total.reshape(1, -1, 1), _FLOAT64), one, nothing, each, each.format, first_step + step).reshape(  # type: ignore[arg-type]
            c.shape
        )
        fmt = accumulator.format  # type: ignore[assignment]
    return c


def without_subnormals(x: NDArray[np.float64], fmt: ScalarFormat) -> NDArray[np.float64]:
    """Return numbers of a format with its subnormal ones zero; in aligned sums zeros have no sign."""
    if not isinstance(fmt, Float) or not fmt.subnormals:
        return x
    return np.where(np.abs(x) < fmt.smallest_normal, 0.0, x)


def _times_scales(numbers: Factors, side: Side, axis: int) -> Factors:
    """Return an operand's elements times its scales, if it has some."""
    if side.scales is None:
        return numbers
    return scaled(numbers, factors(side.spread_scales(axis), _format_of_scales(side)))


def _scales_of_groups(a: Side, b: Side, group: int) -> tuple[Factors, Factors]:
    """Return one scale for each scaled group of both operands; ones where one of them has none."""
    if a.scales is None and b.scales is None:
        raise ArgumentError(f"an alignment with scaled_group={group} is for operands with block scales.")
    first, second = (
        x._replace(scales=np.ones_like(x.values), scale_format=y.scale_format, block=1) if x.scales is None else x
        for x, y in ((a, b), (b, a))
    )
    return _grouped_scales(first, -1, group), _grouped_scales(second, -2, group)


def _grouped_scales(side: Side, axis: int, group: int) -> Factors:
    """Return one scale for each scaled group."""
    places = np.arange(0, side.values.shape[axis], group) // side.block
    assert side.scales is not None
    return factors(np.ascontiguousarray(side.scales.take(places, axis)), _format_of_scales(side))


def _format_of_scales(side: Side) -> ScalarFormat:
    assert side.scale_format is not None
    return side.scale_format


def _plan(
    accumulator: Accumulator, sides: tuple[Side, Side], numbers: tuple[Factors, Factors], scales: Any, c_format: Any
) -> AlignedPlan:
    alignment = accumulator.alignment
    assert alignment is not None
    product_bits = numbers[0].fraction_bits + numbers[1].fraction_bits
    element_exponent = 0
    if scales is not None:
        product_bits += scales[0].fraction_bits + scales[1].fraction_bits
        element_exponent = sum(least_exponent(s.format) for s in sides)
    zero = alignment.zero_exponent
    return AlignedPlan(
        rows=sides[0].values.shape[1],
        group=accumulator.group,
        fraction_bits=alignment.fraction_bits,
        floor=int(alignment.cut == "toward_negative"),
        cut=rounding(alignment.cut).table,
        sum_cut=rounding(alignment.sum_cut).table,
        zero_exponent=_LEAST_REFERENCE if zero is None else zero,
        first_least_exponent=_least_running_exponent(c_format),
        least_exponent=_least_running_exponent(accumulator.format),  # type: ignore[arg-type]
        right=product_bits - element_exponent - alignment.fraction_bits,
        product_bits=product_bits,
        lanes=alignment.lanes,
        after=int(alignment.running_sum == "after"),
        sum_bits=alignment.sum_fraction_bits or 0,
        running_bits=alignment.running_fraction_bits or 0,
        result_bits=-1 if alignment.result_fraction_bits is None else alignment.result_fraction_bits,
        running_reach=-1 if alignment.running_reach is None else alignment.running_reach,
        product_limit=_NEVER if alignment.product_limit is None else alignment.product_limit,
        scaled_group=alignment.scaled_group or 0,
        element_exponent=element_exponent,
        special=int(any(n.finite is not None for n in (*numbers, *(scales or ())))),
        way=_WAYS.get(accumulator.rounding, -1),
    )


def _least_running_exponent(fmt: ScalarFormat) -> int:
    """Return the least exponent that a running sum of a format may have, which is zero's too."""
    return least_exponent(fmt) if isinstance(fmt, Float) else math.frexp(fmt.smallest_subnormal)[1] - 1


def _dtype(
    plan: AlignedPlan, left: Factors, right: Factors, stored: StoredPlan, c: NDArray[np.float64]
) -> type[np.floating[Any]] | None:
    """Return the floating-point type in which `aligned_columns` is exact; None: none is.

    Of float32, sums of products of these exponents with such addends have last bits of no less than 2^-102.
    """
    plain = plan.lanes == 1 and not plan.after and plan.result_bits < 0 and plan.product_limit == _NEVER
    toward = plan.cut in (rounding("toward_zero").table, rounding("toward_negative").table)
    if not (plain and toward and plan.way >= 0 and not stored.parity_of_exponent and not stored.wrap_bits):
        return None
    if stored.least_bit < _LEAST_BIT or stored.smallest_normal > 0 or stored.precision > 53:
        return None
    bits = plan.fraction_bits + 3 + (plan.group - 1).bit_length()
    spread = max(left.reach, right.reach)
    product = left.fraction_bits + right.fraction_bits + 2
    if max(bits, product, stored.precision) <= 24 and spread <= 40 and _usual(c):
        return np.float32
    return np.float64 if max(bits, product) <= 53 and spread <= 400 else None


def _usual(c: NDArray[np.float64]) -> bool:
    """Whether numbers are 0 or within 2^-60 to 2^60."""
    size = np.abs(c[tuple(slice(None if stride else 1) for stride in c.strides)])  # broadcast axes repeat
    return bool(((size == 0) | ((size >= 2.0**-60) & (size <= 2.0**60))).all())


class _Sums:
    """Operands in the kernels' shapes."""

    def __init__(self, plan: AlignedPlan, stored: StoredPlan, left: Factors, right: Factors, scales: Any,
                 sides: tuple[Side, Side], dtype: type[np.floating[Any]] | None) -> None:  # fmt: skip
        self.plan, self.stored, self.dtype = plan, stored, dtype
        self.left, self.right, self.scales, self.sides = left, right, scales, sides
        self.width = tile_width(sides[1].values.shape[2], dtype)

    def run(self, c: NDArray[np.float64]) -> NDArray[Any]:
        batch, rows, columns = c.shape
        count = -(-columns // self.width)
        whole = room("sums", (batch * rows, count * self.width), self.dtype or np.float64)
        whole[:, :columns], whole[:, columns:] = c.reshape(batch * rows, columns), 0
        state = whole.reshape(batch * rows, count, self.width)
        specials = self._specials()
        plan = self.plan
        a: tuple[NDArray[Any], ...]
        b: tuple[NDArray[Any], ...]
        if self.dtype is not None:
            a, b, plan = lane_operands(self.left, self.right, plan, self.width, self.dtype)
        else:
            a, b = self._general(self.left, self._flat, 0), self._general(self.right, self._tiles, 1)

        def work(start: int, stop: int) -> None:
            span = (start // unit, stop // unit)
            if self.dtype is None:
                kernels.aligned_general(span, a, b, specials, plan, self.stored, state)
                return
            step = *(new_room("", (self.width,), self.dtype) for _ in range(3)), new_room("", (self.width,), b[1].dtype)
            p = lane_plan(self.stored, self.dtype)
            columns_kernels.aligned_columns(span, a, b, specials, plan, self.stored, p, step, state)

        unit = max(self.sides[0].values.shape[2] * columns, 1)  # `split` counts multiply-adds
        split(batch * rows * unit, work, unit)
        return np.array(whole[:, :columns], np.float64, order="C").reshape(batch, rows, columns)

    def _flat(self, x: NDArray[Any], dtype: Any, _fill: Any = 0) -> NDArray[Any]:
        return np.ascontiguousarray(x.reshape(-1, x.shape[2]), dtype)

    def _tiles(self, x: NDArray[Any], dtype: Any, fill: Any = 0) -> NDArray[Any]:
        return tiles(x, self.width, fill, dtype)

    def _general(self, x: Factors, shape: Any, side: int) -> tuple[NDArray[Any], ...]:
        parts = shape(x.significands, np.int64), shape(x.exponents, np.int32, ZERO_EXPONENT)
        if self.scales is None:
            empty = np.zeros((1,) * parts[0].ndim, np.int64)
            return (*parts, empty, empty.astype(np.int32))
        scales: Factors = self.scales[side]
        return (*parts, shape(scales.significands, np.int64), shape(scales.exponents, np.int32, ZERO_EXPONENT))

    def _specials(self) -> tuple[NDArray[Any], ...]:
        """Return values with NaN and infinities, and which steps have some."""
        if not self.plan.special:
            flat, tile = np.zeros((1, 1)), np.zeros((1, 1, 1, 1))
            return flat, tile, flat.astype(np.bool_), tile.astype(np.bool_)
        a, b = self.sides[0].scaled_values(-1), self.sides[1].scaled_values(-2)
        left, right = a.reshape(-1, a.shape[2]), tiles(b, self.width)
        starts = np.arange(0, max(a.shape[2], 1), self.plan.group)
        bad_left = np.logical_or.reduceat(~np.isfinite(left), starts, axis=1)
        bad_right = np.logical_or.reduceat(~np.isfinite(right), starts, axis=2)
        return np.ascontiguousarray(left), right, bad_left, bad_right
