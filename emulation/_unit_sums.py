"""Sums of a product of a recipe as its accumulator's matrix unit makes them: elements first, scales after.

Scales are applied as hardware does it. A unit with block scales takes them; tensor scales multiply the whole sum by
their product, rounded to float32. Other units sum elements alone: scales that hold for a whole sum multiply it (an
epilogue), scales that change along it multiply each promoted partial sum as it is added, in one fused multiply-add of
float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from lowp._errors import ArgumentError
from lowp.emulation import _unit_rows
from lowp.emulation._portable_rounded import add_to_odd
from lowp.emulation._unit_product import Arrays, Kind, Product, float64
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.casts import Cast
from lowp.emulation.matmul import plain_format, result_dtype, result_format
from lowp.emulation.matrix_units import MatrixUnit, matrix_unit
from lowp.formats.block import Block
from lowp.formats.parse import parse
from lowp.formats.spec import ScalarFormat
from lowp.rounding._namespaces import Namespace
from lowp.rounding._portable_doubles import narrow
from lowp.rounding.modes import rounding

_FLOAT32 = "float32"
#: Multiplies arrays of matrices as a product says, to an array of its dtype.
Multiply = Callable[[Product, Arrays], Any]


@dataclass(frozen=True)
class Elements:
    """What a matrix unit reads of an operand: elements without their scales.

    Attributes:
        values: Elements, (..., rows, terms) or (..., terms, columns); any two last axes until they are turned.
        format: Their format, where the operand is rounded; None: numbers as they come.
        scales: One for each block, with as many axes as the values; None: there are none.
        sizes: Lengths of a block along the two last axes.
        scale_format: Format of the scales.
        tensor_scale: Scale of the whole tensor besides, or None.
        whole: Whether the scales are for rows or a tensor as a whole, rather than for blocks of a length.
    """

    values: Any
    format: ScalarFormat | None = None
    scales: Any = None
    sizes: tuple[int, int] = (1, 1)
    scale_format: ScalarFormat | None = None
    tensor_scale: Any = None
    whole: bool = False

    def turned(self, move: Callable[[Any], Any]) -> Elements:
        """Return the elements with their two last axes exchanged; `move` does so to an array."""
        scales = None if self.scales is None else move(self.scales)
        return replace(self, values=move(self.values), scales=scales, sizes=self.sizes[::-1])


def unit_of(cast: Cast, seed: int = 0) -> MatrixUnit | Accumulator:
    """Return what makes the sums of an accumulator's cast; `seed`: that of its random bits."""
    if isinstance(cast.unit, str):
        return matrix_unit(cast.unit)
    if not draws(cast):
        return cast.unit
    outer = None if cast.unit.outer is None else replace(cast.unit.outer, seed=seed)
    return replace(cast.unit, seed=seed, outer=outer)


def draws(cast: Cast) -> bool:
    """Whether the sums of an accumulator's cast are rounded at random."""
    if isinstance(cast.unit, str):
        return False
    return any(rounding(how.rounding).variant != 0 for how in (cast.unit, cast.unit.outer or cast.unit))


def check_unit(where: str, cast: Cast, casts: tuple[Cast, Cast]) -> None:
    """Raise ArgumentError if an accumulator's unit does not take the formats of the operands of a product."""
    if not isinstance(cast.unit, str):
        return
    unit = matrix_unit(cast.unit)
    wanted = [unit.formats["a"], unit.formats["b"]]
    given = [_element_of(c) for c in casts]
    if not any(all(g in (None, w) for g, w in zip(given, order, strict=True)) for order in (wanted, wanted[::-1])):
        names = [g.name if g is not None else "any" for g in given]
        raise ArgumentError(
            f"{where}: unit={cast.unit!r} multiplies {unit.a} by {unit.b}, but the operands are in {names[0]!r} and "
            f"{names[1]!r}.{_suggestion(cast.unit, given, casts)}"
        )
    if unit.block and cast.group % unit.block:
        raise ArgumentError(
            f"{where}: group={cast.group} must be a multiple of {unit.block}, the blocks of {cast.unit!r}."
        )


def _element_of(cast: Cast) -> ScalarFormat | None:
    fmt = parse(cast.format) if cast.format else None
    found = getattr(fmt, "element", fmt)
    return found if isinstance(found, ScalarFormat) else None


def _suggestion(name: str, given: list[ScalarFormat | None], casts: tuple[Cast, Cast]) -> str:
    """Return the name of the same instruction for other operands, in words, where there is one."""
    architecture, instruction, _, result = name.split("/")
    blocks = any(isinstance(parse(c.format), Block) for c in casts if c.format) and bool(matrix_unit(name).scale)
    for candidate in _unit_rows.names():
        parts = candidate.split("/")
        if parts[0] == architecture and parts[1].split("_")[0] == instruction.split("_")[0] and parts[3] == result:
            unit = matrix_unit(candidate)
            if bool(unit.scale) == blocks and given in (
                [unit.formats["a"], unit.formats["b"]],
                [unit.formats["b"], unit.formats["a"]],
            ):
                return f" Did you mean {candidate!r}?"
    return ""


class UnitSum(NamedTuple):
    """The sums of one product by an accumulator's cast."""

    xp: Namespace
    multiply: Multiply
    cast: Cast
    unit: MatrixUnit | Accumulator
    #: Rounds numbers of float64 to the cast's format; arguments are the numbers and how many partial sums came before.
    round: Callable[[Any, Any], Any]

    def of(self, left: Elements, right: Elements) -> Any:
        """Return `left @ right`, of (..., m, k) and (..., k, n), in float32.

        Raises:
            ArgumentError: Elements, or scales, that the unit does not take.
        """
        if isinstance(self.unit, Accumulator):
            return self._with_scales_inside(left, right)
        wanted = self.unit.formats["a"], self.unit.formats["b"]
        if not _fit((left, right), wanted):
            if not _fit((right, left), wanted):
                check_unit("operands", self.cast, (_as_cast(left), _as_cast(right)))
            turn = self._turn
            return turn(self.of(right.turned(turn), left.turned(turn)))
        if self.unit.scale:
            return self._with_block_scales(self.unit, left, right)
        return self._with_scales_after(left, right)

    def _turn(self, x: Any) -> Any:
        return self.xp.move(x, -1, -2)

    # An accumulator, which takes any scales

    def _with_scales_inside(self, left: Elements, right: Elements) -> Any:
        """Return sums of products of elements and scales; those of rows and tensors as a whole multiply the sum."""
        length, group = left.values.shape[-1], self.cast.group
        sides, factors = [left, right], list[Any]()
        for i, (x, axis) in enumerate(((left, -2), (right, -1))):
            if x.scales is None:
                factors.append(None)
                continue
            along, across = x.sizes[1 - i], x.sizes[i]
            scales = self._spread(x.scales, across, axis, x.values.shape[axis])
            inside = along < length or not x.whole
            if inside and group and group % along and along % group:
                raise ArgumentError(f"group={group} must divide, or be a multiple of, {along}, the blocks of scales.")
            sizes = (1, along) if i == 0 else (along, 1)
            sides[i] = replace(x, scales=scales if inside else None, sizes=sizes if inside else (1, 1))
            factors.append(None if inside else scales)
        total = self._promoted(sides[0], sides[1], None)
        for pair in (factors, [left.tensor_scale, right.tensor_scale]):
            if pair != [None, None]:
                with self.xp.wide():
                    known = [None if s is None else self._float32(float64(self.xp, s)) for s in pair]
                total = self._times(total, self._joint(*known))
        return total

    # A unit that takes block scales

    def _with_block_scales(self, unit: MatrixUnit, left: Elements, right: Elements) -> Any:
        for role, x, along in (("left", left, 1), ("right", right, 0)):
            if x.scales is None:
                continue
            block = (1, unit.block) if along else (unit.block, 1)
            if x.sizes != block or _grid(x.scale_format) != _grid(unit.formats["scale"]):
                assert x.scale_format is not None
                raise ArgumentError(
                    f"unit={self.cast.unit!r} takes scales of {unit.scale} for blocks of {unit.block} along "
                    f"the sum; those of the {role} operand are of {x.scale_format.name!r} for blocks of {x.sizes[0]} x "
                    f"{x.sizes[1]}."
                )
        total = self._promoted(left, right, None)
        with self.xp.wide():
            scales = [
                None if s is None else self._float32(float64(self.xp, s))
                for s in (left.tensor_scale, right.tensor_scale)
            ]
        return total if scales == [None, None] else self._times(total, self._joint(*scales))

    # A unit that does not

    def _with_scales_after(self, left: Elements, right: Elements) -> Any:
        for x in (left, right):
            if x.tensor_scale is not None:
                raise ArgumentError(
                    f"unit={self.cast.unit!r} has no block scales, so that numbers with two levels of them cannot be "
                    "multiplied by it; name a unit that has, such as one of 'mxf4nvf4'."
                )
        length = left.values.shape[-1]
        blocks = [size for x, size in ((left, left.sizes[1]), (right, right.sizes[0])) if x.scales is not None]
        changing = [size for size in blocks if size < length]
        group = self.cast.group
        if changing and (not group or any(size % group for size in changing)):
            raise ArgumentError(
                f"scales change every {min(changing)} products along the sum, where unit={self.cast.unit!r} has one "
                f"sum: give the accumulator group={math.gcd(*changing)}, after which each sum is scaled and promoted."
            )
        a = None if left.scales is None else self._spread(left.scales, left.sizes[0], -2, left.values.shape[-2])
        b = None if right.scales is None else self._spread(right.scales, right.sizes[1], -1, right.values.shape[-1])
        if changing:
            return self._promoted(left, right, (a, b))
        total = self._promoted(left, right, None)
        if a is None and b is None:
            return total
        return self._times(total, self._joint(a, b))

    def _spread(self, scales: Any, size: int, axis: int, length: int) -> Any:
        """Return scales, one for each row or column."""
        if size == 1:
            return scales
        places = np.arange(length) // size
        return scales[..., places, :] if axis == -2 else scales[..., places]

    def _joint(self, a: Any, b: Any) -> Any:
        """Return products of scales, rounded to float32."""
        if a is None or b is None:
            return b if a is None else a
        with self.xp.wide():
            return self._float32(float64(self.xp, a) * float64(self.xp, b))

    def _float32(self, x: Any) -> Any:
        with self.xp.wide():
            return narrow(self.xp, x, _FLOAT32)

    def _times(self, total: Any, alpha: Any) -> Any:
        with self.xp.wide():
            return self._float32(float64(self.xp, total) * float64(self.xp, alpha))

    # Partial sums

    def _product(self, left: Elements, right: Elements) -> Product:
        kinds = [self._kind(x, along) for x, along in ((left, 1), (right, 0))]
        plain = isinstance(self.unit, MatrixUnit) or result_dtype(result_format(self.unit)) == _FLOAT32
        return Product(self.unit, kinds[0], kinds[1], None if plain else plain_format(_FLOAT32))

    @property
    def _scales_inside(self) -> bool:
        """Whether block scales go into the sums."""
        return isinstance(self.unit, Accumulator) or bool(self.unit.scale)

    def _kind(self, x: Elements, along: int) -> Kind:
        fmt = x.format or plain_format(self.xp.dtype_name(x.values))
        if not self._scales_inside or x.scales is None:
            return Kind(fmt)
        return Kind(fmt, x.scale_format, x.sizes[along])

    def _promoted(self, left: Elements, right: Elements, scales: Any) -> Any:
        """Return the sum of all partial sums, each times its scales, which change with them."""
        given, group, length = self._product(left, right), self.cast.group, left.values.shape[-1]
        inside = [x.scales if self._scales_inside else None for x in (left, right)]
        if not group or group >= length:
            total = self.multiply(given, Arrays(left.values, right.values, None, *inside))
            factor = None if scales is None else self._joint(*scales)
            return self._stored(total if factor is None else self._times(total, factor), 0)
        sizes = left.sizes[1], right.sizes[0]
        rows = [left.values, right.values, *inside, *(scales or (None, None))]
        lengths = [1, 1, *sizes, *sizes]

        def parts_of(start: int, stop: int, count: int) -> list[Any]:
            """Return what so many groups of terms read, along a new first axis."""
            own = zip(rows, lengths, strict=True)
            return [_cut(self.xp, x, start, stop, size, i % 2, count) for i, (x, size) in enumerate(own)]

        def piece_of(parts: Any) -> tuple[Any, Any]:
            found = iter(parts)
            a, b, scale_a, scale_b, *factors = (next(found) if x is not None else None for x in rows)
            piece = self.multiply(given, Arrays(a, b, None, scale_a, scale_b))
            return piece, None if scales is None else self._joint(*factors)

        def step(state: Any, parts: Any) -> Any:
            total, number = state
            return (self._added(total, *piece_of(parts), number), number + 1), None

        whole = length // group
        stacked = [x for x in parts_of(0, whole * group, whole) if x is not None]
        total = self._added(None, *piece_of([x[0] for x in stacked]), 0)
        if whole > 1:
            first = self.first_number(total)
            (total, _), _ = self.xp.scan(step, (total, first), tuple(x[1:] for x in stacked))
        if whole * group < length:
            rest = [x[0] for x in parts_of(whole * group, length, 1) if x is not None]
            total = self._added(total, *piece_of(rest), whole)
        return total

    def first_number(self, like: Any) -> Any:
        """Return 1, as a running number that a compiler may trace."""
        return 1 if self.xp.name != "jax" else self.xp.iota((1,), 0, "int32", like)[0] + 1

    def _added(self, total: Any, piece: Any, factor: Any, number: Any) -> Any:
        """Return a running sum after one more partial sum, times its factor, rounded once."""
        xp = self.xp
        with xp.wide():
            exact = float64(xp, piece)
            exact = exact if factor is None else exact * float64(xp, factor)
            if total is not None:
                exact = add_to_odd(xp, float64(xp, total), exact)
            return self._stored(exact, number)

    def _stored(self, x: Any, number: Any) -> Any:
        """Return a sum as the accumulator's format has it, in float32."""
        if self.cast.format in ("", _FLOAT32):
            return self._float32(float64(self.xp, x)) if self.xp.dtype_name(x) != _FLOAT32 else x
        with self.xp.wide():
            return self._float32(self.round(float64(self.xp, x), number))


def _cut(xp: Namespace, x: Any, start: int, stop: int, size: int, side: int, count: int) -> Any:
    """Return what so many groups of terms read of an array with one entry for `size` terms, along a new first axis."""
    if x is None:
        return None
    axis = x.ndim - 1 if side == 0 else x.ndim - 2
    length = (stop - start) // count
    if size > length:  # one entry for each group
        places = (start + length * np.arange(count)) // size
        x = x[..., places] if side == 0 else x[..., places, :]
    else:
        span = slice(start // size, -(-stop // size))
        x = x[..., span] if side == 0 else x[..., span, :]
    shape = (*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :])
    return xp.move(x.reshape(shape), axis, 0)


def _grid(fmt: Any) -> tuple[Any, ...]:
    """Return what positive numbers of a float format depend on."""
    return tuple(getattr(fmt, name, None) for name in ("mantissa_bits", "emin", "emax"))


def _fit(sides: tuple[Elements, Elements], wanted: tuple[ScalarFormat, ScalarFormat]) -> bool:
    return all(x.format in (None, w) for x, w in zip(sides, wanted, strict=True))


def _as_cast(x: Elements) -> Cast:
    return Cast("" if x.format is None else x.format.name)


def separate(fmt: Any, cast: Cast) -> None:
    """Raise ArgumentError if a cast's elements and scales do not come apart."""
    fits = isinstance(fmt, Block) and not fmt.zero_point and isinstance(fmt.element, ScalarFormat)
    if not fits or cast.method != "round":
        made = f"method={cast.method!r}" if cast.method != "round" else f"format={cast.format!r}"
        raise ArgumentError(
            f"{made}: elements and scales of this operand do not come apart, so that no matrix unit can sum the "
            "elements; leave the accumulator's unit out, or choose a scalar format or blocks that are rounded."
        )


def rounded_additions(cast: Cast, seed: int) -> Accumulator:
    """Return the accumulator of a cast that rounds after every addition."""
    return Accumulator(format=cast.format, rounding=cast.rounding, overflow=cast.overflow, seed=seed)
