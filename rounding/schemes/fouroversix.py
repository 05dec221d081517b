"""IF4, IF6 and IF3: each block chooses between a float grid and an integer grid; the scale's sign bit says which.

Both grids share one scale, `amax of block / largest float element`; the integers are shrunk so that their largest is
the largest float. Steps are fouroversix's, in float32 and in its order, with its decimal constants; only the sums of
errors run in float64. NaN and infinity reach the tensor's scale, so that every value becomes NaN.

Sources: arXiv:2603.28765; mit-han-lab/fouroversix, `quantize/pytorch/reference.py`, `kernels/constants.py`, and for IF3
`quantize/triton/kernels/fp3.py`, `int3.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp.formats.float_format import Float
from lowp.formats.integer import Integer
from lowp.formats.packed import Packed
from lowp.formats.tables import decode_codes
from lowp.rounding._fouroversix_recipes import (
    Span,
    errors,
    other_draws,
    rounded_elements,
    scale_blocks,
    storable,
    warn_if_biased,
)
from lowp.rounding._fp4_recipes import Float32, float32
from lowp.rounding._scalar import encode_values, quantize_values
from lowp.rounding.modes import rounding
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme

_E4M3FN = Float(4, 3, specials="fn")
_SCALE_MAX = 448.0
_FLAG = 0x80


class Grids(NamedTuple):
    """A float grid and an integer grid of as many bits.

    Attributes:
        floats: Format of the float elements.
        integers: Format of the integer elements.
        sign_magnitude: Whether integers are stored as sign and magnitude, else in two's complement.
        expand: What takes a number in units of the float grid to units of the integer grid, as fouroversix writes it.
        shrink: The reverse.
        ties: How fouroversix rounds halfway cases of the float grid.
    """

    floats: Float
    integers: Integer
    sign_magnitude: bool
    expand: float
    shrink: float
    ties: str = "ties_to_even"


def _floats(exponent_bits: int, mantissa_bits: int, bias: int) -> Float:
    return Float(exponent_bits, mantissa_bits, bias=bias, specials="finite")


GRIDS = {
    "if3": Grids(_floats(2, 0, 1), Integer(3, symmetric=True), True, 0.75, 1.3333333333, "ties_to_zero"),
    "if4": Grids(_floats(2, 1, 1), Integer(4, symmetric=True), False, 1.16666666, 0.8571428571),
    "if6_e2m3": Grids(_floats(2, 3, 1), Integer(6, symmetric=True), True, 4.1333333333, 0.2419355),
    "if6_e3m2": Grids(_floats(3, 2, 3), Integer(6, symmetric=True), True, 1.1071428571, 0.9032258065),
}


def encode(blocks: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    """Round each block to both grids, keep the one of less error (a tie: the float grid) and flag integers."""
    warn_if_biased(request, fmt.name)
    grids, x = GRIDS[fmt.option("grids")], float32(blocks)
    block_amax = np.max(np.abs(x), axis=-1)
    amax = np.float32(np.max(block_amax, initial=np.float32(0)))
    span = Span(grids.floats.max, _SCALE_MAX)
    scales = scale_blocks(block_amax, amax, span, _E4M3FN)
    scaled = np.ascontiguousarray(np.nan_to_num(scales.scaled(x, _spread)))
    expanded = scaled * np.float32(grids.expand)

    floats_request = request._replace(mode=rounding(grids.ties)) if request.mode.name == "ties_to_even" else request
    floats = rounded_elements(scaled, grids.floats, floats_request)
    integers = quantize_values(expanded, grids.integers, other_draws(request))

    def error_of(elements: Float32, is_integer: bool) -> NDArray[Any]:
        values = _values(elements, scales.values, amax, np.full(elements.shape[:2], is_integer), grids)
        return errors(values - x, fmt.option("rule"), lambda v, how: np.asarray(how(v, axis=-1)))

    flag = error_of(integers, True) < error_of(floats, False)
    float_codes = encode_values(storable(scaled, grids.floats, floats_request), grids.floats, floats_request)
    codes = np.where(_spread(flag), _integer_codes(integers, grids), float_codes)
    return {
        "codes": codes,
        "scales": (scales.codes | np.where(flag, _FLAG, 0).astype(np.uint8))[..., np.newaxis],
        "amax": np.array([amax]).view(np.uint32),
    }


def decode(fields: Fields, fmt: Packed) -> Float32:
    """Return `element * scale * amax / (largest element * 448)`, integers times their shrinking factor, in float32."""
    grids, codes = GRIDS[fmt.option("grids")], fields["codes"]
    scale_codes = fields["scales"][..., 0]
    flag = scale_codes >= _FLAG
    scales = decode_codes(scale_codes & (_FLAG - 1), _E4M3FN).astype(np.float32)
    elements = np.where(_spread(flag), _integers(codes, grids), decode_codes(codes, grids.floats)).astype(np.float32)
    amax = np.float32(fields["amax"].astype(np.uint32).view(np.float32)[0])
    return _values(elements, scales, amax, flag, grids)


def _spread(per_block: NDArray[Any]) -> NDArray[Any]:
    return per_block[..., np.newaxis]


def _values(elements: Float32, scales: Float32, amax: np.float32, flag: NDArray[Any], grids: Grids) -> Float32:
    shrink = np.where(flag, np.float32(grids.shrink), np.float32(1))
    whole = Span(grids.floats.max, _SCALE_MAX).whole
    return np.asarray(elements * _spread(scales) * amax * _spread(shrink) / whole)


def _integer_codes(values: Float32, grids: Grids) -> NDArray[Any]:
    n, bits = values.astype(np.int64), grids.integers.bits
    codes = np.abs(n) | ((n < 0) << (bits - 1)) if grids.sign_magnitude else n & ((1 << bits) - 1)
    return codes.astype(np.uint8)


def _integers(codes: NDArray[Any], grids: Grids) -> NDArray[np.float64]:
    if not grids.sign_magnitude:
        return decode_codes(codes, grids.integers)
    sign_bit = 1 << (grids.integers.bits - 1)
    magnitude = (codes & (sign_bit - 1)).astype(np.float64)
    return np.where(codes & sign_bit, -magnitude, magnitude)


SCHEMES = {"integer_or_float": Scheme(encode, decode)}
