"""OliVe as array code: `lowp.rounding.schemes.outliers` step by step."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.formats.tables import value_table
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_numbers import amax
from lowp.rounding._portable_scales import exponents_of, present, scale_values, stored_scales, times_power
from lowp.rounding._portable_shapes import joined, largest, numpy_sum, square_root
from lowp.rounding.request import Request
from lowp.rounding.schemes.outliers import (
    _FRACTIONS,
    _IDENTIFIER,
    _NORMAL_STEP,
    _NORMAL_TOP,
    _OUTLIER_FROM,
    OUTLIERS,
    _nearest,
    _pair_codes,
)
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import SCALE_FORMATS

Fields = dict[str, Any]
#: Squares of numbers below 2^_USUAL are lifted by 2^_LIFT, so that none is subnormal, which XLA would take for zero.
_LIFT, _USUAL = 500, 200


class Grid(NamedTuple):
    """Both lists of numbers, ascending, the least number that each but the first begins with, and their codes."""

    values: NDArray[np.float64]
    cuts: NDArray[np.float64]
    codes: NDArray[np.int64]


@lru_cache(maxsize=1)
def _grid() -> Grid:
    normal = np.arange(-_NORMAL_TOP, _NORMAL_TOP + 1, _NORMAL_STEP)
    outliers = OUTLIERS[np.abs(OUTLIERS) > _OUTLIER_FROM]
    values = np.sort(np.concatenate([normal, outliers]))
    cuts = (values[1:] + values[:-1]) / 2
    cuts = np.where(_nearest(cuts) == values[1:], cuts, np.nextafter(cuts, np.inf))
    codes = _pair_codes(np.stack([values, np.zeros_like(values)], axis=-1))[:, 0]
    return Grid(values, cuts, codes.astype(np.int64))


def _round_pairs(xp: Any, q: Any) -> tuple[Any, Any]:
    """Return the place in the grid of the number nearest to each, and which numbers are victims; the last axis is 2."""
    grid = _grid()
    place = xp.full_like(q, 0, "int64")
    for cut in grid.cuts.tolist():
        place = place + xp.cast(q >= cut, "int64")
    far = (place < int((grid.values < -_NORMAL_TOP).sum())) | (place > int((grid.values <= _NORMAL_TOP).sum()) - 1)
    first, second = far[..., :1], far[..., 1:]
    return place, joined(xp, [second & ~first, first], -1)


def _sum(xp: Any, x: Any) -> Any:
    """Return the sum of each group, the last axis, which is kept."""
    return numpy_sum(xp, x)[..., None]


def _lifted_square(xp: Any, x: Any, lift: Any) -> Any:
    return times_power(xp, doubles.product(xp, x, x), lift)


def _unfused(xp: Any, x: Any) -> Any:
    """Return a product so that no compiler fuses it into a sum."""
    return xp.where(doubles.bits_of(xp, x) == -1, 1.0, x)


def _reach(xp: Any, x: Any, real: Any, count: int, lift: Any) -> Any:
    """Return the larger magnitude of the mean plus and minus three standard deviations."""
    exponents = exponents_of(xp, amax(xp, x))
    total = _sum(xp, times_power(xp, x, -exponents))
    mean = times_power(xp, doubles.quotient(xp, total, xp.full_like(total, max(count, 1))), exponents)
    squares = xp.where(real, _lifted_square(xp, x - mean, lift), 0.0)
    spread = times_power(xp, _sum(xp, squares), -lift)
    variance = doubles.quotient(xp, spread, xp.full_like(spread, max(count - 1, 1)))
    tiny = xp.where(variance < 2.0**-500, 300, 0 * lift)
    deviation = times_power(xp, square_root(xp, times_power(xp, variance, 2 * tiny)), -tiny)
    size = doubles.magnitude(xp, mean)
    reach = size + doubles.product(xp, xp.full_like(deviation, 3.0), deviation)
    return xp.where(doubles.is_zero(xp, deviation), size, reach)


def _best_reach(xp: Any, x: Any, reach: Any, lift: Any, precise: bool) -> Any:
    """Return the fraction of the reach whose scale has the least squared error; the whole of it if none has one."""
    fractions = xp.constant(_FRACTIONS[:, None, None], x)
    candidates = doubles.product(xp, reach, fractions)
    units = doubles.quotient(xp, candidates, xp.full_like(candidates, _NORMAL_TOP))
    exponents = exponents_of(xp, reach)
    near, near_units = times_power(xp, x, -exponents), times_power(xp, units, -exponents)
    values = xp.constant(_grid().values, x)

    def error(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        unit, near_unit = part
        some = xp.where(unit > 0, near_unit, 1.0)
        q = xp.where(unit > 0, near / xp.where(doubles.bits_of(xp, near) == -1, 1.0, some), 0.0)
        place, victim = _round_pairs(xp, q.reshape((q.shape[0], q.shape[1] // 2, 2)))
        rounded = xp.where(victim, 0.0, xp.take(values, place)).reshape(x.shape)
        missed = _unfused(xp, rounded * unit) - x
        square = _lifted_square(xp, missed, lift) if precise else _unfused(xp, missed * missed)
        return state, _sum(xp, square)

    _, errors = xp.scan(error, (), (units, near_units))
    size = xp.where(doubles.is_nan(xp, errors), doubles.INFINITE, doubles.size_of(xp, errors))
    least = -largest(xp, -size, (0,))
    index = xp.iota(tuple(size.shape), 0, "int64", x)
    first = -largest(xp, xp.where(size == least, -index, -len(_FRACTIONS)), (0,))
    bits = largest(xp, xp.where(index == first, doubles.bits_of(xp, candidates), 0), (0,))
    return xp.where(least[0] == doubles.INFINITE, reach, doubles.from_bits(xp, bits)[0])


def _groups(x: Any, per: str) -> Any:
    """Return (groups with a scale, values)."""
    rows, blocks, size = x.shape
    return x.reshape({"block": (rows * blocks, size), "row": (rows, blocks * size), "tensor": (1, -1)}[per])


def encode(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Search the scale, then round pairs."""
    only_nearest(request, fmt)
    field = fmt.fields[-1]
    mask = present(tuple(blocks.shape), request)
    whole = doubles.widen(xp, blocks)
    real = _groups(xp.where(xp.constant(mask, whole), xp.full_like(whole, 1, "int64"), 0), field.per) == 1
    x = _groups(whole, field.per)
    top = amax(xp, x)
    bad = ~doubles.is_finite(xp, top)
    x, top = xp.where(bad, 0.0, x), xp.where(bad, 0.0, top)
    count = int(mask.sum()) * (blocks.shape[0] if field.per == "tensor" else 1)
    lift = xp.where(top < 2.0**_USUAL, _LIFT, xp.full_like(top, 0, "int64"))
    precise = xp.dtype_name(blocks) == "float64"
    reach = _best_reach(xp, x, _reach(xp, x, real, count, lift), lift, precise)
    wanted = doubles.quotient(xp, reach, xp.full_like(reach, _NORMAL_TOP))
    codes, unit = stored_scales(xp, wanted, SCALE_FORMATS[field.bits])
    some = unit > 0
    q = xp.where(some, doubles.quotient(xp, x, xp.where(some, unit, 1.0)), 0.0)
    place, victim = _round_pairs(xp, q.reshape(blocks.shape))
    found = xp.where(victim, _IDENTIFIER, xp.take(xp.constant(_grid().codes, place), place))
    nan_code = SCALE_FORMATS[field.bits].nan_code
    return {"codes": found, "scale": xp.where(bad, nan_code, codes).reshape(_field_shape(codes, field.per))}


def _field_shape(codes: Any, per: str) -> tuple[int, ...]:
    return (1,) if per == "tensor" else tuple(codes.shape)


def decode(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Return normal values and outliers times the scale, victims as zero."""
    codes, field = fields["codes"], fmt.fields[-1]
    victim = xp.cast(codes == _IDENTIFIER, "int64")
    partner = joined(xp, [victim[..., 1:], victim[..., :1]], -1)
    normal = xp.take(xp.constant(value_table(Integer(4)) * _NORMAL_STEP, codes), codes)
    values = xp.where(partner == 1, xp.take(xp.constant(OUTLIERS, codes), codes), normal)
    scales = scale_values(xp, fields["scale"], SCALE_FORMATS[field.bits])
    shape = {"block": (*codes.shape[:2], 1), "row": (codes.shape[0], 1, 1), "tensor": (1, 1, 1)}[field.per]
    return xp.where(victim == 1, 0.0, values) * scales.reshape(shape)


Coders = tuple[Callable[[Any, Any, Packed, Request], Fields], Callable[[Any, Fields, Packed], Any]]
CODERS: dict[str, Coders] = {"outliers.victim_pairs": (encode, decode)}
