"""One of several codebooks per block, row or tensor; companded integers; a table of values per row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import RangeError
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import Float
from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes, value_table
from lowp.rounding._namespaces import namespace_of
from lowp.rounding._portable_companding import compressed, expanded
from lowp.rounding._scalar import encode_values, quantize_values
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import SHARED_AXES, present

FLOAT16 = Float(5, 10)
_NEAREST = scale_request("ties_to_even")
#: The least scale that MuonQ divides by (quantize.py, quantize_sym).
_LEAST_MULAW_SCALE = 1e-8
_ROUNDS = 50
#: Squared errors are of values over a power of two, or they overflow; a lower one would make a least scale overflow.
_LEAST_EXPONENT = -256


def _finite(blocks: NDArray[Any], fmt: Packed) -> NDArray[np.float64]:
    """Return the values as float64; no field of these formats can say that a block is NaN."""
    if not np.isfinite(blocks).all():
        raise RangeError(f"x holds NaN or an infinity, and {fmt.name!r} cannot store it; remove it or pass nan='zero'.")
    return blocks.astype(np.float64)


def _per(fmt: Packed, field: str) -> str:
    return next(f.per for f in fmt.fields if f.name == field)


def _spread(stored: NDArray[Any], per: str) -> NDArray[Any]:
    """Return the integers of a field of count 1 in a shape that broadcasts to (rows, blocks, values)."""
    return stored if per == "block" else stored[:, None, :] if per == "row" else stored[None, None, :]


# Choice by squared error


def _encode_choice(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    x = _finite(blocks, fmt)
    axes = SHARED_AXES[_per(fmt, "scale")]
    amax = np.abs(x).max(axis=axes, keepdims=True, initial=0)
    exponents = np.maximum(np.frexp(amax)[1], _LEAST_EXPONENT)
    grids: tuple[Codebook, ...] = fmt.option("grids")
    least = np.full(amax.shape, np.inf)
    selector, scale = np.zeros(amax.shape, np.uint8), np.zeros(amax.shape, np.uint32)
    for index, grid in enumerate(grids):
        for clip in fmt.option("clips"):
            scale_codes = _scale_codes(amax * clip / max(grid.max, -grid.min), fmt)
            scales = _scales(scale_codes, fmt)
            error = np.ldexp(quantize_values(_over(x, scales), grid, request) * scales - x, -exponents)
            better = (total := (error**2).sum(axis=axes, keepdims=True)) < least
            least = np.where(better, total, least)
            selector, scale = np.where(better, np.uint8(index), selector), np.where(better, scale_codes, scale)
    ratio = _over(x, _scales(scale, fmt))
    codes = np.select([selector == i for i in range(len(grids))], [encode_values(ratio, g, request) for g in grids])
    shape = {1: amax.shape, 2: (len(x), 1), 3: (1,)}[len(axes)]
    return {"codes": codes, "selector": selector.reshape(shape), "scale": scale.reshape(shape)}


def _scale_codes(wanted: NDArray[np.float64], fmt: Packed) -> NDArray[Any]:
    bounds = fmt.option("bounds")
    return encode_values(np.clip(wanted, *bounds) if bounds else wanted, fmt.option("scale"), _NEAREST)


def _over(x: NDArray[np.float64], scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `x / scales`, zero where the scale is."""
    return np.divide(x, scales, out=np.zeros_like(x), where=scales > 0)


def _decode_choice(fields: Fields, fmt: Packed) -> NDArray[np.float64]:
    per = _per(fmt, "scale")
    grids: tuple[Codebook, ...] = fmt.option("grids")
    tables = np.stack([_grid_table(grid) for grid in grids])
    selector = np.minimum(_spread(fields["selector"], per), len(grids) - 1)
    values: NDArray[np.float64] = tables[selector, fields["codes"]] * _scales(_spread(fields["scale"], per), fmt)
    return values


def _scales(codes: NDArray[Any], fmt: Packed) -> NDArray[np.float64]:
    scale: Float = fmt.option("scale")
    return decode_codes(codes, scale)


def _grid_table(grid: Codebook) -> NDArray[np.float64]:
    table = value_table(grid)
    return np.where(np.isnan(table), 0.0, table)  # the code of -0


# mu-law


def _encode_mulaw(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """Compand numbers, which clip at +-1, and round them over a float32 scale that is stored as float16."""
    x = np.clip(_finite(blocks, fmt), -1, 1)
    bits = fmt.fields[0].bits
    companded = compressed(namespace_of(x), x).astype(np.float32)
    amax = np.abs(companded).max(axis=SHARED_AXES[_per(fmt, "scale")], keepdims=True, initial=0)
    scale = np.maximum(amax / np.float32((1 << (bits - 1)) - 1), np.float32(_LEAST_MULAW_SCALE))
    integers = encode_values(companded / scale, Integer(bits), request)
    codes = integers if bits == 8 else integers ^ np.uint8(1 << (bits - 1))  # the narrow ones are stored with an offset
    stored = scale.astype(np.float16).view(np.uint16)
    return {
        "codes": codes,
        "scale": stored.reshape(-1) if _per(fmt, "scale") == "tensor" else stored.reshape(len(x), 1),
    }


def _decode_mulaw(fields: Fields, fmt: Packed) -> NDArray[np.float32]:
    bits = fmt.fields[0].bits
    codes = fields["codes"] if bits == 8 else fields["codes"] ^ np.uint8(1 << (bits - 1))
    scale = _spread(fields["scale"].astype(np.uint16).view(np.float16), _per(fmt, "scale")).astype(np.float32)
    companded = (decode_codes(codes, Integer(bits)).astype(np.float32) * scale).astype(np.float64)
    values: NDArray[np.float32] = expanded(namespace_of(companded), companded).astype(np.float32)
    return values


# A table per row


def _encode_any4(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """Map groups to 0..15, fit 16 values to a row of them, round to the nearest; zeros that fill up do not count."""
    only_nearest(request, fmt)
    x = _finite(blocks, fmt)
    real = present(x, request)
    low = x.min(axis=-1, keepdims=True, where=real, initial=np.inf)
    high = x.max(axis=-1, keepdims=True, where=real, initial=-np.inf)
    minimum = encode_values(low + 0.0, FLOAT16, _NEAREST)  # of zeros of both signs either may come first
    scale = encode_values((high - low) / 15, FLOAT16, _NEAREST)
    scales = decode_codes(scale, FLOAT16)
    mapped = _over(x - decode_codes(minimum, FLOAT16), scales) + 0.0
    codes = np.zeros(x.shape, np.uint8)
    values = np.zeros((len(x), 16), np.uint16)
    for row, numbers in enumerate(mapped):
        values[row] = encode_values(_fitted_values(numbers[real[row]]), FLOAT16, _NEAREST)
        codes[row] = _nearest(numbers, decode_codes(values[row], FLOAT16))
    return {"codes": codes, "scale": scale, "minimum": minimum, "values": values}


def _decode_any4(fields: Fields, fmt: Packed) -> NDArray[np.float64]:
    table = decode_codes(fields["values"], FLOAT16)
    rows = np.arange(len(table))[:, None, None]
    scale, minimum = (decode_codes(fields[name], FLOAT16) for name in ("scale", "minimum"))
    return table[rows, fields["codes"]] * scale + minimum


def _fitted_values(x: NDArray[np.float64], count: int = 16) -> NDArray[np.float64]:
    """Lloyd's algorithm on the line, from equally spaced quantiles until nothing moves; ascending."""
    ordered = np.sort(x)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = ordered[(2 * np.arange(count) + 1) * ordered.size // (2 * count)]
    for _ in range(_ROUNDS):
        edges = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2, side="right")
        bounds = np.concatenate([[0], edges, [ordered.size]])
        sizes = np.diff(bounds)
        means = np.divide(sums[bounds[1:]] - sums[bounds[:-1]], sizes, out=centres.copy(), where=sizes > 0)
        if np.array_equal(means, centres):
            break
        centres = means
    return centres


def _nearest(x: NDArray[np.float64], ascending: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.searchsorted((ascending[1:] + ascending[:-1]) / 2, x, side="left")


SCHEMES = {
    "choice": Scheme(_encode_choice, _decode_choice),
    "mulaw": Scheme(_encode_mulaw, _decode_mulaw),
    "any4": Scheme(_encode_any4, _decode_any4),
}
