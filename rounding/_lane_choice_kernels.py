"""What float32 lanes do with a piece of a row, chosen when a kernel is compiled: by the types of its arguments.

So that a call compiles no more than its own dtype, scales and rounding mode need: all of them take half a minute.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from lowp.rounding._fast_directed_kernels import rounded_and_corrected
from lowp.rounding._fast_stochastic_kernels import _round_randomly
from lowp.rounding._lane_kernels import (
    _TINY,
    STRANGE,
    given_factors,
    largest_of_tiles,
    multiply,
    multiply_to_odd,
    narrow,
    nearest_powers,
    nearest_products,
    nearest_quotients,
    power_factors,
    prepare_products,
    prepare_quotients,
    widen,
)
from lowp.rounding._lane_random_kernels import quotients_by_carries, rounded_by_carries, truncated_quotients
from lowp.rounding._stochastic_kernels import fill_words
from lowp.rounding._tile_kernels import float32_scales, nvfp4_scales, power_of_two_scales, rounded_scales


class Power(NamedTuple):
    """Elements are multiplied by powers of two. `kind`: as `given_factors`."""

    kind: int = 0


class Product(NamedTuple):
    """Elements are float32 products."""

    kind: int = 1


class Quotient(NamedTuple):
    """Elements are quotients."""

    kind: int = 2


class Nearest(NamedTuple):
    """Elements are rounded to nearest even, by a `FastPlan`."""

    integers: Any
    floats: Any


class Corrected(NamedTuple):
    """Elements are rounded by another deterministic mode, `how` as `_fast_directed_kernels.correcting`."""

    integers: Any
    floats: Any
    how: Any


class Random(NamedTuple):
    """Elements are rounded by a stochastic mode."""

    integers: Any
    floats: Any
    variant: int
    bits: int


class Given(NamedTuple):
    """Scales are given."""

    ruled: bool = False


class Powers(NamedTuple):
    """Scales are those of `_tile_kernels.power_of_two_scales`."""

    ruled: bool
    emax: int
    round_up_from: int
    carry_bits: int


class Nvfp4(NamedTuple):
    """Scales are those of `_tile_kernels.nvfp4_scales`."""

    ruled: bool
    span: float
    element_max: float
    integers: Any
    floats: Any


class Float32Scales(NamedTuple):
    """Scales are those of `_tile_kernels.float32_scales`."""

    ruled: bool
    span: float


class Rounded(NamedTuple):
    """Scales are those of `_tile_kernels.rounded_scales`."""

    ruled: bool
    span: float
    integers: Any
    floats: Any


class Lanes(NamedTuple):
    """How elements are scaled and rounded, and where scales come from."""

    scaling: Any
    rounding: Any
    rule: Any


_NEAREST = {"Power": nearest_powers, "Product": nearest_products, "Quotient": nearest_quotients}


def _name(it: Any, field: str) -> str:
    """Return the name of the class that a field of a Numba type of `Lanes` has."""
    return str(it.types[it.fields.index(field)].instance_class.__name__)


@njit(nogil=True, cache=True, error_model="numpy", no_cpython_wrapper=True)
def _prepare_powers(row: Any, v: Any, f: Any, c: Any, clip: Any) -> None:
    prepare_products(row, v, f, c, _TINY)


@njit(nogil=True, cache=True, error_model="numpy", no_cpython_wrapper=True)
def _prepare_products(row: Any, v: Any, f: Any, c: Any, clip: Any) -> None:
    prepare_products(row, v, f, c, np.float32(0))


_PREPARE = {"Power": _prepare_powers, "Product": _prepare_products, "Quotient": prepare_quotients}


def round_elements(
    row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
) -> None:
    """Write rounded elements; `f`, `c`: as for `nearest_powers`; `b`: buffers; `place`: of the first random word."""


@overload(round_elements, inline="always")
def _round_elements(
    row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
) -> Any:
    scaling, way = _name(it, "scaling"), _name(it, "rounding")
    if way == "Nearest":
        nearest = _NEAREST[scaling]

        def to_nearest(
            row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
        ) -> None:
            nearest(row, sink, f, c, np.int64(5), it.rounding.integers, it.rounding.floats)

        return to_nearest
    prepare = _PREPARE[scaling]
    if way == "Corrected":

        def corrected(
            row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
        ) -> None:
            v, how = b[0, : row.size], it.rounding
            prepare(row, v, f, c, how.floats[2])
            rounded_and_corrected(v, sink, how.integers, how.floats, how.how)

        return corrected
    if scaling == "Quotient":

        def quotients(
            row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
        ) -> None:
            v, rests, how = b[0, : row.size], b[4, : row.size], it.rounding
            fill_words(words[: row.size], place, key0, key1)
            truncated_quotients(row, v, rests, f, c, how.floats[2])
            quotients_by_carries(v, rests, sink, words[: row.size], how.integers, how.floats, how.bits)

        return quotients

    def randomly(
        row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
    ) -> None:
        v, random, how = b[0, : row.size], words[: row.size], it.rounding
        fill_words(random, place, key0, key1)
        prepare(row, v, f, c, how.floats[2])
        if how.variant == 1:
            rounded_by_carries(v, sink, random, how.integers, how.floats, how.bits)
        else:
            _round_randomly(v, sink, random, how.integers, how.floats, how.variant, how.bits)

    return randomly


def round_row(
    row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
) -> None:
    """Write rounded elements times units, to float32; arguments as for `round_elements`."""


@overload(round_row, inline="always")
def _round_row(
    row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
) -> Any:
    if row.dtype != types.float32:  # never called: 16-bit numbers are widened first

        def nothing(
            row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
        ) -> None:
            pass

        return nothing
    if _name(it, "rounding") == "Nearest":
        nearest = _NEAREST[_name(it, "scaling")]

        def to_nearest(
            row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
        ) -> None:
            nearest(row, sink, f, c, np.int64(2), it.rounding.integers, it.rounding.floats)

        return to_nearest

    def multiplied(
        row: Any, sink: Any, f: Any, c: Any, b: Any, words: Any, it: Any, place: Any, key0: Any, key1: Any
    ) -> None:
        elements = b[1, : row.size]
        round_elements(row, elements, f, c, b, words, it, place, key0, key1)
        multiply(elements, sink, f, c)

    return multiplied


def scale_tiles(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
    """Write the factors of a piece's tiles; return `STRANGE` where `steps` and `units` are to be used.

    These are given, or written by the rule where it is not that of powers of two or where lanes cannot use them.
    """


@overload(scale_tiles, inline="always")
def _scale_tiles(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
    rule = _name(it, "rule")
    if rule == "Powers":

        def powers(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
            rule = it.rule
            emax, up, carry = rule.emax, rule.round_up_from, rule.carry_bits
            state = power_factors(tiles[:count], per_tile[0], per_tile[2], emax, up, carry)
            if state == STRANGE:
                power_of_two_scales(tiles[:count], steps, units, emax, up, carry, (1.0, 1.0))
            return state

        return powers
    if rule == "Nvfp4":

        def nvfp4(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
            rule = it.rule
            nvfp4_scales(tiles[:count], steps, units, most, rule.span, rule.element_max, rule.integers, rule.floats)
            return given_factors(steps[:count], units[:count], it.scaling.kind, per_tile)

        return nvfp4
    if rule == "Float32Scales":

        def divided(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
            float32_scales(tiles[:count], steps, units, it.rule.span)
            return given_factors(steps[:count], units[:count], it.scaling.kind, per_tile)

        return divided
    if rule == "Rounded":

        def rounded(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
            rounded_scales(tiles[:count], steps, units, it.rule.span, it.rule.integers, it.rule.floats)
            return given_factors(steps[:count], units[:count], it.scaling.kind, per_tile)

        return rounded

    def given(count: Any, it: Any, most: Any, tiles: Any, per_tile: Any, steps: Any, units: Any) -> Any:
        return given_factors(steps[:count], units[:count], it.scaling.kind, per_tile)

    return given


def read_row(row: Any, buffer: Any, dtype: Any) -> None:
    """Write numbers as float32; `dtype`: `FLOAT16` or `BFLOAT16` where they are bits of it."""


@overload(read_row, inline="always")
def _read_row(row: Any, buffer: Any, dtype: Any) -> Any:
    if row.dtype == types.float32:

        def copied(row: Any, buffer: Any, dtype: Any) -> None:
            for k in range(row.size):
                buffer[k] = row[k]

        return copied

    def widened(row: Any, buffer: Any, dtype: Any) -> None:
        widen(row, buffer, dtype)

    return widened


def write_row(buffer: Any, row: Any, dtype: Any) -> None:
    """Write float32 numbers to where others were read from."""


@overload(write_row, inline="always")
def _write_row(buffer: Any, row: Any, dtype: Any) -> Any:
    if row.dtype == types.float32:

        def copied(buffer: Any, row: Any, dtype: Any) -> None:
            for k in range(row.size):
                row[k] = buffer[k]

        return copied

    def narrowed(buffer: Any, row: Any, dtype: Any) -> None:
        narrow(buffer, row, dtype)

    return narrowed


def largest_of_row(row: Any, tiles: Any, buffer: Any, c: Any, dtype: Any) -> None:
    """Write the bits of the largest magnitudes of a row's tiles; `buffer` may be overwritten."""


@overload(largest_of_row, inline="always")
def _largest_of_row(row: Any, tiles: Any, buffer: Any, c: Any, dtype: Any) -> Any:
    if row.dtype == types.float32:

        def straight(row: Any, tiles: Any, buffer: Any, c: Any, dtype: Any) -> None:
            largest_of_tiles(row, tiles, c)

        return straight

    def widened(row: Any, tiles: Any, buffer: Any, c: Any, dtype: Any) -> None:
        widen(row, buffer, dtype)
        largest_of_tiles(buffer, tiles, c)

    return widened


def multiply_for(elements: Any, sink: Any, out: Any, f: Any, c: Any, it: Any) -> None:
    """Write elements times units as they go into `out`: rounded to odd where that is narrower and they are rounded."""


@overload(multiply_for, inline="always")
def _multiply_for(elements: Any, sink: Any, out: Any, f: Any, c: Any, it: Any) -> Any:
    exact = _name(it, "scaling") == "Power"  # few bits times a power of two, far from float32's ends
    product = multiply if exact or out.dtype == types.float32 else multiply_to_odd

    def multiplied(elements: Any, sink: Any, out: Any, f: Any, c: Any, it: Any) -> None:
        product(elements, sink, f, c)

    return multiplied
