"""One of several codebooks, companded integers, a table per row, as array code: `schemes.codebooks` step by step.

What no field can store, NaN and infinity, is an error; where a compiler traces, what shares its scale becomes NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lowp._errors import RangeError
from lowp.formats.codebook import Codebook
from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable import decode_values, quantize_values
from lowp.rounding._portable_bits import order_keys
from lowp.rounding._portable_companding import compressed, expanded
from lowp.rounding._portable_fp4_recipes import over, times
from lowp.rounding._portable_numbers import amax, codes_of, constant, power_of_two
from lowp.rounding._portable_scales import exponents_of, iterated, scale_values
from lowp.rounding._portable_shapes import joined, largest, numpy_sum, spread, transposed
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request
from lowp.rounding.schemes.codebooks import (
    _LEAST_EXPONENT,
    _LEAST_MULAW_SCALE,
    _ROUNDS,
    FLOAT16,
    _grid_table,
    _per,
)
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import SHARED_AXES

Fields = dict[str, Any]
_NEAREST = scale_request("ties_to_even")
_VALUES = 16
#: Bits of a grid's value whose products with float32 scales float64 holds.
_SHORT_BITS = 29
#: What no squared error reaches.
_FAR = 1e300


def _finite(xp: Any, blocks: Any, fmt: Packed, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Return float64 numbers, and where one that is no number, or too large, spoils what shares a scale with it.

    Those that share it are returned as zeros then.
    """
    x = doubles.widen(xp, blocks)
    bad = ~doubles.is_finite(xp, amax(xp, x, axes))

    def error() -> RangeError:
        return RangeError(
            f"x holds NaN or an infinity, and {fmt.name!r} cannot store it; remove it or pass nan='zero'."
        )

    xp.require(~bad, x, error)
    return xp.where(bad, 0.0, x), bad


def _spread(stored: Any, per: str) -> Any:
    """Return the integers of a field of count 1 in a shape that broadcasts to (rows, blocks, values)."""
    return stored if per == "block" else stored[:, None, :] if per == "row" else stored[None, None, :]


def _stored(x: Any, per: str) -> Any:
    """Return one integer per block, row or tensor in the shape of the field."""
    return x.reshape({"block": tuple(x.shape), "row": (x.shape[0], 1), "tensor": (1,)}[per])


def _quotient(xp: Any, a: Any, b: Any) -> Any:
    """Return the float64 quotient; XLA's own may be a product with a reciprocal, and zero for a subnormal number."""
    return doubles.quotient(xp, a, b) if xp.name == "jax" else a / b


def _product(xp: Any, a: Any, b: Any) -> Any:
    """Return the float64 product, which no compiler joins with a sum."""
    return a * b if xp.name == "numpy" else doubles.product(xp, a, b)


def _over(xp: Any, x: Any, scales: Any) -> Any:
    """Return `x / scales`, zero where the scale is."""
    some = scales > 0
    return xp.where(some, _quotient(xp, x, xp.where(some, scales, 1.0)), 0.0)


# Choice by squared error


def encode_choice(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Try every codebook with every clip ratio."""
    per = _per(fmt, "scale")
    axes = SHARED_AXES[per]
    x, bad = _finite(xp, blocks, fmt, axes)
    plain = request._replace(nan="keep")
    top = amax(xp, x, axes)
    exponents = xp.maximum(exponents_of(xp, top), _LEAST_EXPONENT)
    grids: tuple[Codebook, ...] = fmt.option("grids")

    scale_format = fmt.option("scale")
    clips = xp.constant(np.array(fmt.option("clips"), np.float64).reshape((-1, 1, 1, 1)), x)

    def total_error(grid: Codebook, scales: Any) -> Any:
        rounded = quantize_values(xp, _over(xp, x, scales), grid, plain)
        error = _scaled(xp, rounded, scales, _is_short(grid)) - x
        return _shared_sum(xp, _squared(xp, _times_power(xp, error, -exponents)), axes)

    zero = xp.full_like(top, 0, "int64")
    state = (xp.full_like(top, math.inf), zero, zero)
    for index, grid in enumerate(grids):

        def step(state: Any, part: Any, index: int = index, grid: Codebook = grid) -> Any:
            (least, selector, scale), (codes, scales) = state, part
            total = total_error(grid, scales)
            better = total < least
            chosen = xp.where(better, total, least), xp.where(better, index, selector), xp.where(better, codes, scale)
            return chosen, None

        codes = _scale_codes(xp, _wanted(xp, top[None], clips, grid), fmt)
        state, _ = xp.scan(step, state, (codes, scale_values(xp, codes, scale_format)))
    _, selector, scale = state
    ratio = _over(xp, x, scale_values(xp, scale, scale_format))
    codes = xp.full_like(x, 0, "int64")
    for index, grid in enumerate(grids):
        codes = xp.where(selector == index, codes_of(xp, ratio, grid, plain._replace(nan="zero")), codes)
    scale = xp.where(bad, scale_format.nan_code, scale)
    return {"codes": codes, "selector": _stored(selector, per), "scale": _stored(scale, per)}


def _wanted(xp: Any, top: Any, clips: Any, grid: Codebook) -> Any:
    end = max(grid.max, -grid.min)
    if xp.name != "jax":
        return top * clips / end
    return doubles.quotient(xp, doubles.product(xp, top, clips), constant(xp, end, top))


def _scale_codes(xp: Any, wanted: Any, fmt: Packed) -> Any:
    bounds = fmt.option("bounds")
    clipped = xp.minimum(xp.maximum(wanted, bounds[0]), bounds[1]) if bounds else wanted
    return codes_of(xp, clipped, fmt.option("scale"), _NEAREST)


def _is_short(grid: Codebook) -> bool:
    return all(math.frexp(value)[0] * 2.0**_SHORT_BITS % 1 == 0 for value in grid.values)


def _scaled(xp: Any, values: Any, scales: Any, short: bool) -> Any:
    """Return products of grid values and scales, which are exact if the values are short."""
    return values * scales if short else _product(xp, values, scales)


def _times_power(xp: Any, x: Any, exponent: Any) -> Any:
    half = exponent >> 1
    return x * power_of_two(xp, half) * power_of_two(xp, exponent - half)


def _squared(xp: Any, x: Any) -> Any:
    """Return squares; what lies between them and their sum keeps XLA from joining both."""
    return xp.minimum(x * x, _FAR) if xp.name == "jax" else x * x


def _shared_sum(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """Return the sum for each block, row or tensor, axes kept, in NumPy's order."""
    kept = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    flat = x.reshape((*(n for a, n in enumerate(x.shape) if a not in axes), -1))
    return (flat.sum(-1) if xp.name == "numpy" else numpy_sum(xp, flat)).reshape(kept)


def decode_choice(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """The reverse of `encode_choice`."""
    per = _per(fmt, "scale")
    grids: tuple[Codebook, ...] = fmt.option("grids")
    tables = np.stack([_grid_table(grid) for grid in grids])
    selector = xp.minimum(_spread(fields["selector"], per), len(grids) - 1)
    values = xp.take(xp.constant(tables.reshape(-1), selector), selector * tables.shape[1] + fields["codes"])
    scales = scale_values(xp, _spread(fields["scale"], per), fmt.option("scale"))
    return _scaled(xp, values, scales, all(_is_short(grid) for grid in grids))


# mu-law


def encode_mulaw(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Compand, and round over a float32 scale that is stored as float16."""
    per, bits = _per(fmt, "scale"), fmt.fields[0].bits
    axes = SHARED_AXES[per]
    x, bad = _finite(xp, blocks, fmt, axes)
    companded = compressed(xp, xp.minimum(xp.maximum(x, -1.0), 1.0))
    top = amax(xp, companded, axes)
    scale = over(xp, top, constant(xp, float((1 << (bits - 1)) - 1), top))
    scale = xp.maximum(scale, float(np.float32(_LEAST_MULAW_SCALE)))
    codes = codes_of(xp, _over32(xp, companded, scale), Integer(bits), request._replace(nan="zero"))
    stored = xp.cast(xp.bits(doubles.narrow(xp, scale, "float16")), "int64") & 0xFFFF
    stored = xp.where(bad, FLOAT16.nan_code, stored)
    return {"codes": codes if bits == 8 else codes ^ (1 << (bits - 1)), "scale": _stored(stored, per)}


def _over32(xp: Any, x: Any, scale: Any) -> Any:
    """Return float32 quotients by scales that many numbers share."""
    if xp.name == "jax":
        scale = xp.where(doubles.bits_of(xp, x) == -1, 1.0, scale)
    return over(xp, x, scale)


def decode_mulaw(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """The reverse of `encode_mulaw`."""
    bits = fmt.fields[0].bits
    codes = fields["codes"] if bits == 8 else fields["codes"] ^ (1 << (bits - 1))
    scale = scale_values(xp, _spread(fields["scale"], _per(fmt, "scale")), FLOAT16)
    return expanded(xp, times(xp, decode_values(xp, codes, Integer(bits), "float64"), scale))


# A table per row


def encode_any4(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Map groups to 0..15, fit 16 values to each row, round to the nearest."""
    only_nearest(request, fmt)
    x, bad = _finite(xp, blocks, fmt, (2,))
    low, high = _ends(xp, x, request.padding[-1])
    minimum = codes_of(xp, low, FLOAT16, _NEAREST)
    scale = codes_of(xp, _quotient(xp, high - low, constant(xp, 15.0, low)), FLOAT16, _NEAREST)
    start = scale_values(xp, minimum, FLOAT16)
    mapped = _over(xp, xp.where(doubles.is_zero(xp, start), x, x - start), scale_values(xp, scale, FLOAT16))
    flat = mapped.reshape((x.shape[0], -1))
    centres = _fitted_values(xp, flat[:, : flat.shape[1] - request.padding[-1]])
    values = codes_of(xp, centres, FLOAT16, _NEAREST)
    table = scale_values(xp, values, FLOAT16)
    cuts = order_keys(xp, doubles.bits_of(xp, (table[:, 1:] + table[:, :-1]) / 2))
    keys = order_keys(xp, doubles.bits_of(xp, mapped))
    codes = xp.full_like(x, 0, "int64")
    for i in range(_VALUES - 1):
        codes = codes + xp.cast(keys > cuts[:, i, None, None], "int64")
    return {"codes": codes, "scale": xp.where(bad, FLOAT16.nan_code, scale), "minimum": minimum, "values": values}


def decode_any4(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """The reverse of `encode_any4`."""
    table = scale_values(xp, fields["values"], FLOAT16)
    codes = fields["codes"]
    row = xp.iota(tuple(codes.shape), 0, "int64", codes)
    scale, minimum = (scale_values(xp, fields[name], FLOAT16) for name in ("scale", "minimum"))
    return xp.take(table.reshape(-1), row * _VALUES + codes) * scale + minimum


def _ends(xp: Any, x: Any, padding: int) -> tuple[Any, Any]:
    """Return the least and the largest number of each block, of those that are no padding; a zero is +0."""
    keys = order_keys(xp, doubles.bits_of(xp, x))
    real = xp.iota((1, *x.shape[1:]), 1, "int64", x) * x.shape[2] + xp.iota((1, *x.shape[1:]), 2, "int64", x)
    real = real < x.shape[1] * x.shape[2] - padding
    high = largest(xp, xp.where(real, keys, -doubles.INFINITE), (2,))
    low = -largest(xp, xp.where(real, -keys, -doubles.INFINITE), (2,))
    return _of_keys(xp, low), _of_keys(xp, high)


def _of_keys(xp: Any, keys: Any) -> Any:
    """Return the float64 numbers of ordered integers; a zero is +0."""
    size = doubles.from_bits(xp, xp.where(keys < 0, -keys, keys))
    return xp.where(keys < 0, -size, size)


def _fitted_values(xp: Any, x: Any) -> Any:
    """Return 16 values for each row, ascending, as `schemes.codebooks._fitted_values`."""
    rows, size = x.shape
    keys = _sorted(xp, order_keys(xp, doubles.bits_of(xp, x)))
    ordered = _of_keys(xp, keys)
    sums = joined(xp, [xp.full_like(ordered[:, :1], 0.0), _running_sums(xp, ordered)], 1).reshape(-1)
    row = xp.iota((rows, _VALUES), 0, "int64", x)
    none, all_ = xp.full_like(row[:, :1], 0), xp.full_like(row[:, :1], size)
    flat = keys.reshape(-1)

    def moved(centres: Any) -> Any:
        middles = order_keys(xp, doubles.bits_of(xp, (centres[:, 1:] + centres[:, :-1]) / 2))
        bounds = joined(xp, [none, _count_up_to(xp, flat, row[:, 1:] * size, middles, size), all_], 1)
        counts = bounds[:, 1:] - bounds[:, :-1]
        first, last = (xp.take(sums, row * (size + 1) + b) for b in (bounds[:, :-1], bounds[:, 1:]))
        means = (last - first) / xp.cast(xp.maximum(counts, 1), "float64")
        return xp.where(counts > 0, means, centres)

    starts = (2 * np.arange(_VALUES) + 1) * size // (2 * _VALUES)
    places = row * size + spread(xp, xp.constant(starts, x)[None, :], (rows, _VALUES))
    return iterated(xp, moved, xp.take(ordered.reshape(-1), places), _ROUNDS)


def _count_up_to(xp: Any, flat: Any, start: Any, keys: Any, size: int) -> Any:
    """Return how many of the `size` sorted integers from `start` on are not above each key, by bisection."""
    count = xp.full_like(start, 0)
    for step in (1 << i for i in reversed(range(size.bit_length()))):
        ahead = count + step
        below = xp.take(flat, start + xp.minimum(ahead, size) - 1) <= keys
        count = xp.where((ahead <= size) & below, ahead, count)
    return count


def _sorted(xp: Any, keys: Any) -> Any:
    if xp.name == "torch":
        return keys.sort(-1).values
    if xp.name == "jax":
        import jax.numpy as jnp

        return jnp.sort(keys, -1)
    return np.sort(keys, -1)


def _running_sums(xp: Any, x: Any) -> Any:
    """Return the sums of the first numbers of each row, added up from the left."""
    if xp.name == "numpy":
        return np.cumsum(x, -1)
    if xp.name == "torch" and x.device.type == "cpu":
        return x.cumsum(-1)

    def step(state: Any, part: Any) -> Any:
        total = state[0] + part[0]
        return (total,), total

    columns = transposed(xp, x, (1, 0))
    return transposed(xp, xp.scan(step, (xp.full_like(columns[0], 0.0),), (columns,))[1], (1, 0))


CODERS = {
    "codebooks.choice": (encode_choice, decode_choice),
    "codebooks.mulaw": (encode_mulaw, decode_mulaw),
    "codebooks.any4": (encode_any4, decode_any4),
}
