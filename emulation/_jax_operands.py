"""Rounding the operands and the sums of one product of a JAX program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lowp._errors import ArgumentError
from lowp.emulation._jax_memory import current, key_of
from lowp.emulation._jax_seeds import fold, seed_at, signs_at
from lowp.emulation._jax_sites import Site
from lowp.emulation._jax_world import WORLD, largest_over
from lowp.emulation._unit_sums import Elements, draws
from lowp.emulation.casting import Rounded, round_operand
from lowp.emulation.casts import Cast
from lowp.formats import Block, ScalarFormat, parse
from lowp.rounding.shard import Shard

jax.tree_util.register_dataclass(
    Elements,
    data_fields=["values", "scales", "tensor_scale"],
    meta_fields=["format", "sizes", "scale_format", "whole"],
)


class Axes(NamedTuple):
    """Axes of one operand of a product: those it shares with the result, sums over, and has alone."""

    batch: tuple[int, ...]
    contract: tuple[int, ...]
    outer: tuple[int, ...]


class Reading(NamedTuple):
    """How one operand, `number` of the forward product, is read by one product of a site."""

    site: Site
    product: str
    role: str
    word: Any
    number: int = 0

    @property
    def name(self) -> str:
        """Name in seeds and histories."""
        return self.site.drawn_as(self.product, self.role, self.number)

    @property
    def cast(self) -> Cast:
        return self.site.read_cast(self.role, self.product)


def round_axes(x: Any, reading: Reading, axes: Axes, tokens: str, forward: Any = None) -> Rounded:
    """Round one operand, seen as a matrix (or several, if it has batch axes), and return it in its own layout.

    Args:
        x: The operand.
        reading: Gives cast, seeds and the mesh axes over which tensors are split.
        axes: The operand's axes.
        tokens: Which of "batch", "contract", "outer" is split over devices; "" for none.
        forward: The forward pass's rounded operand, for casts that reuse it.
    """
    cast, apart = reading.cast, bool(reading.site.cast("accumulator", reading.product).unit)
    if not cast and not apart:
        return Rounded(WORLD.widen(x))
    order, axis, outer = matrix_order(axes)
    shape = tuple(x.shape[i] for i in order)
    groups = (axes.batch, *((axes.contract, axes.outer) if axis < outer else (axes.outer, axes.contract)))
    folded = tuple(math.prod(x.shape[i] for i in group) for group in groups)[0 if axes.batch else 1 :]

    def fold(array: Any) -> Any:
        return jnp.transpose(array, order).reshape(folded)

    def unfold(array: Any) -> Any:
        return None if array is None else jnp.transpose(array.reshape(shape), tuple(np.argsort(order)))

    place = {"batch": 0, "contract": axis, "outer": outer}.get(tokens)
    result = _round(fold(x), reading, axis, outer, place, None if forward is None else fold(forward), apart=apart)
    parts = result.parts
    if parts is not None and axis < outer:  # for a matrix unit the summed axis comes last
        parts = parts.turned(lambda t: jnp.swapaxes(t, -1, -2))
    return Rounded(unfold(result.values), unfold(result.mask), result.amax, parts)


def round_cached(x: Any, reading: Reading, name: str, groups: Sequence[tuple[int, ...]]) -> Any:
    """Round keys or values along the head; the axes are grouped as batch, tokens and head.

    Positions of random bits are those in an array with the axes in this order. `name`: stands for the role in the seed.
    """
    order = tuple(i for group in groups for i in group)
    shape = tuple(x.shape[i] for i in order)
    folded = tuple(math.prod(x.shape[i] for i in group) for group in groups)[0 if groups[0] else 1 :]
    y = jnp.transpose(x, order).reshape(folded)
    values = _round(y, reading, y.ndim - 1, y.ndim - 2, 0, drawn_as=name).values
    return jnp.transpose(values.reshape(shape), tuple(np.argsort(order)))


def _round(
    x: Any, reading: Reading, axis: int, outer: int, place: int | None, forward: Any = None, drawn_as: str = "",
    apart: bool = False,
) -> Rounded:  # fmt: skip
    cast, site = reading.cast, reading.site
    kept = None if not apart or forward is None or cast.requantize else _kept_format(reading)
    seed = seed_at(site, reading.product, drawn_as or reading.name, reading.word)
    signs = signs_at(site, reading.product, cast.signs, reading.word)
    split = site.split if place is not None else ()
    memory, key, scale = current(), key_of(site, reading.product, reading.name), None
    if cast.scaling == "delayed" and memory is not None:
        scale = memory.scale(key, cast)
    try:
        result = _compiled(
            x, seed, signs, forward, scale, cast=cast, axis=axis, outer=outer, place=place, split=split, apart=apart,
            kept=kept,
        )  # fmt: skip
    except ArgumentError as error:
        raise ArgumentError(f"{_where(reading)}: {error}") from error
    if scale is not None and memory is not None:
        memory.push(key, scale, result.amax)
    return result  # type: ignore[no-any-return]


@partial(jax.jit, static_argnames=("cast", "axis", "outer", "place", "split", "apart", "kept"))
def _compiled(
    x: Any,
    seed: Any,
    signs: Any,
    forward: Any,
    scale: Any,
    *,
    cast: Cast,
    axis: int,
    outer: int,
    place: int | None,
    split: Any,
    apart: bool = False,
    kept: str | None = None,
) -> Rounded:
    """Round one operand. Compiled by itself, so that operands alike are traced once, and eager calls are fast."""
    if not cast:
        x = WORLD.widen(x)
    again = None if forward is None else Rounded(forward)
    if again is not None and kept is not None:
        again = again._replace(parts=Elements(forward, parse(kept) if kept else None))  # type: ignore[arg-type]
    return round_operand(
        WORLD,
        x,
        cast,
        axis=axis,
        outer=outer,
        seed=seed,
        sign_seed=signs,
        scale=scale,
        shard=_shard(x, cast, split, place, axis) if split else None,
        amax=largest_over(split),
        forward=again,
        apart=apart,
    )


def _kept_format(reading: Reading) -> str:
    """Return the format of an operand that is taken as the forward pass rounded it, for a matrix unit."""
    cast = reading.site.cast(reading.role, "forward")
    if cast.scaling != "none" or (cast.format and not isinstance(parse(cast.format), ScalarFormat)):
        raise ArgumentError(
            f"{_where(reading)}: reuse=True hands on elements and scales together, which a matrix unit needs apart; "
            "add requantize=True, or leave the accumulator's unit out."
        )
    return cast.format


def _where(reading: Reading) -> str:
    return f"{reading.site.layer or 'outside any layer'}, {reading.product}, {reading.role}"


def matrix_order(axes: Axes) -> tuple[tuple[int, ...], int, int]:
    """Return the order of axes that makes matrices, and which of their axes is summed over and which is not.

    The order of the operand in memory is kept where it allows.
    """
    first = 1 if axes.batch else 0
    swapped = (*axes.batch, *axes.contract, *axes.outer)
    if swapped == tuple(range(len(swapped))) and axes.outer:
        return swapped, first, first + 1
    return (*axes.batch, *axes.outer, *axes.contract), first + 1, first


def _shard(x: Any, cast: Cast, split: tuple[str, ...], place: int | None, axis: int) -> Shard:
    pieces = math.prod(lax.axis_size(name) for name in split)
    fmt = parse(cast.format) if cast.format else None
    size = fmt.size if isinstance(fmt, Block) else 1
    if place == axis and pieces > 1 and isinstance(size, int) and x.shape[axis] % size:
        raise ArgumentError(
            f"{cast.format!r} has blocks of {size} along an axis of length {x.shape[axis]} that is split over the mesh "
            f"axes {', '.join(split)}: blocks would end at the borders of devices; use a multiple of {size} on each."
        )
    offset = [0 if i != place else lax.axis_index(split) * x.shape[i] for i in range(x.ndim)]
    return Shard(tuple(offset), tuple(n * pieces if i == place else n for i, n in enumerate(x.shape)))


def round_axis(x: Any, reading: Reading, axis: int, outer: int, place: int | None, forward: Any = None) -> Rounded:
    """Round one operand of a convolution along one of its axes; `place` is the axis that devices share."""
    if not reading.cast:
        return Rounded(WORLD.widen(x))
    return _round(x, reading, axis, outer, place, forward)


def finish(y: Any, site: Site, product: str, word: Any, dtype: Any) -> Any:
    """Round the result of a product as the recipe says for "output", and return it in the program's dtype."""
    reading = Reading(site, product, "output", word)
    if reading.cast:
        y = _round(y, reading, y.ndim - 1, max(y.ndim - 2, 0), None).values if y.ndim else _scalar(y, reading)
    return y.astype(dtype)


def _scalar(y: Any, reading: Reading) -> Any:
    return _round(y.reshape(1), reading, 0, 0, None).values.reshape(())


def contracted(first: Rounded, second: Rounded, axes_a: Axes, axes_b: Axes, reading: Reading) -> Any:
    """Return the product of two operands in at least float32, with the sums that the recipe's accumulator makes.

    Axes of the result: batch, outer ones of the first, outer ones of the second.
    """
    cast, a, b = reading.cast, first.values, second.values
    if cast.unit or (cast.format and cast.group == 1):
        return _by_engine(first, second, axes_a, axes_b, reading)
    dimensions = ((axes_a.contract, axes_b.contract), (axes_a.batch, axes_b.batch))
    dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    a, b = a.astype(dtype), b.astype(dtype)
    length = math.prod(a.shape[i] for i in axes_a.contract)
    if not cast.format or not cast.group or cast.group >= length:
        y = lax.dot_general(a, b, dimensions, precision=lax.Precision.HIGHEST, preferred_element_type=dtype)
        return round_sum(y, reading, reading.word) if cast.format else y
    parts = -(-length // cast.group)

    def grouped(x: Any, axes: Axes) -> Any:
        moved = jnp.transpose(x, (*axes.contract, *axes.batch, *axes.outer))
        kept = moved.shape[len(axes.contract) :]
        padded = jnp.pad(moved.reshape(length, *kept), [(0, parts * cast.group - length)] + [(0, 0)] * len(kept))
        return padded.reshape(parts, cast.group, *kept)

    batch = tuple(range(1, len(axes_a.batch) + 1))

    def product_of_group(one: Any, other: Any) -> Any:
        numbers = (((0,), (0,)), (batch, batch))
        return lax.dot_general(one, other, numbers, precision=lax.Precision.HIGHEST, preferred_element_type=dtype)

    def add(carry: Any, terms: Any) -> Any:
        number, total = carry
        return (number + 1, round_sum(total + product_of_group(*terms), reading, fold(reading.word, number))), None

    left, right = grouped(a, axes_a), grouped(b, axes_b)
    start = round_sum(product_of_group(left[0], right[0]), reading, fold(reading.word, 0))
    (_, total), _ = lax.scan(add, (jnp.int32(1), start), (left[1:], right[1:]))
    return total


def _by_engine(first: Rounded, second: Rounded, axes_a: Axes, axes_b: Axes, reading: Reading) -> Any:
    """Return a product whose sums are those of a matrix unit, or rounded after every addition."""
    from lowp.emulation import _jax_sums

    a, b = first.values, second.values
    shape = (
        *(a.shape[i] for i in axes_a.batch),
        *(a.shape[i] for i in axes_a.outer),
        *(b.shape[i] for i in axes_b.outer),
    )
    cast = reading.cast
    try:
        if cast.unit:
            y = _jax_sums.by_unit(
                cast,
                first.parts,
                second.parts.turned(lambda t: jnp.swapaxes(t, -1, -2)),
                lambda x, number: round_sum(x, reading, fold(reading.word, number)),
                seed_at(reading.site, reading.product, "accumulator", reading.word) if draws(cast) else None,
            )
        else:
            seed = seed_at(reading.site, reading.product, "accumulator", reading.word)
            y = _jax_sums.rounded(_matrix(a, axes_a), jnp.swapaxes(_matrix(b, axes_b), -1, -2), cast, seed)
    except ArgumentError as error:
        raise ArgumentError(f"{_where(reading)}: {error}") from error
    return y.reshape(shape)


def _matrix(x: Any, axes: Axes) -> Any:
    """Return an operand as matrices whose last axis is summed over."""
    order = (*axes.batch, *axes.outer, *axes.contract)
    lengths = [math.prod(x.shape[i] for i in group) for group in (axes.batch, axes.outer, axes.contract)]
    return jnp.transpose(x, order).reshape(lengths if axes.batch else lengths[1:])


def round_sum(y: Any, reading: Reading, word: Any) -> Any:
    """Return sums in the format of the accumulator."""
    cast = reading.cast
    seed = seed_at(reading.site, reading.product, "accumulator", word)
    return WORLD.quantize(
        y,
        parse(cast.format),
        rounding=cast.rounding,
        overflow=cast.overflow,
        random_bits=cast.random_bits,
        seed=seed,
    )


def same_basis(first: Reading, second: Reading) -> None:
    """Raise ArgumentError if the rotations of the two operands of a product do not cancel."""
    if first.cast.rotation != second.cast.rotation:
        raise ArgumentError(
            f"{first.site.layer or 'outside any layer'}, {first.product}: {first.role} is rotated by "
            f"hadamard={first.cast.rotation[0]} and {second.role} by hadamard={second.cast.rotation[0]}; give both "
            "the same."
        )
