"""IF4, IF6 and IF3 as array code: `lowp.rounding.schemes.fouroversix` step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lowp.formats.block import Block
from lowp.formats.packed import Packed
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._fouroversix_recipes import Span, other_draws, warn_if_biased
from lowp.rounding._layout import make_layout
from lowp.rounding._portable import decode_values, encode_values
from lowp.rounding._portable_fouroversix import errors, rounded_elements, scale_blocks, storable
from lowp.rounding._portable_fp4_recipes import FLOAT32_MAX, over, times
from lowp.rounding._portable_recipes import Work
from lowp.rounding._portable_shapes import Cut
from lowp.rounding.modes import rounding
from lowp.rounding.request import Request
from lowp.rounding.schemes.fouroversix import _E4M3FN, _FLAG, _SCALE_MAX, GRIDS, Grids

Fields = dict[str, Any]


def encode(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Round each block to both grids, keep the one of less error (a tie: the float grid) and flag integers."""
    warn_if_biased(request, fmt.name)
    grids = GRIDS[fmt.option("grids")]
    x = doubles.to_float32(xp, blocks) if xp.dtype_name(blocks) == "float64" else doubles.widen(xp, blocks)
    block = Block(grids.floats, x.shape[-1], _E4M3FN, "float32", recipe="fouroversix_6")  # type: ignore[arg-type]
    cut = Cut(make_layout(tuple(x.shape), block, -1))
    work = Work(xp, cut, block, request, None, None, math.inf)
    x = cut.split(xp, x)
    block_amax = work.block_amax(x)
    tensor_amax = work.tensor_amax(block_amax)
    scales = scale_blocks(block_amax, tensor_amax, Span(grids.floats.max, _SCALE_MAX), work)
    scaled = scales.scaled(x, work)
    scaled = xp.where(doubles.is_nan(xp, scaled), 0.0, xp.minimum(xp.maximum(scaled, -FLOAT32_MAX), FLOAT32_MAX))
    expanded = times(xp, scaled, float(np.float32(grids.expand)))

    floats_request = request._replace(mode=rounding(grids.ties)) if request.mode.name == "ties_to_even" else request
    floats = rounded_elements(scaled, grids.floats, floats_request, work)
    integers = work.rounded(expanded, grids.integers, other_draws(request))

    def error_of(elements: Any, shrink: float) -> Any:
        values = _values(elements, scales.values, tensor_amax, shrink, grids, work)
        return errors(doubles.to_float32(xp, values - x), fmt.option("rule"), work)

    flag = error_of(integers, float(np.float32(grids.shrink))) < error_of(floats, 1.0)
    numbers = cut.join(storable(scaled, grids.floats, floats_request, work))
    float_codes = xp.cast(encode_values(xp, numbers, grids.floats, floats_request), "int64")
    integer_codes = _integer_codes(xp, cut.join(integers), grids)
    flags = cut.as_scales(xp.cast(flag, "int64"))
    return {
        "codes": xp.where(flags == 1, integer_codes, float_codes),
        "scales": cut.as_scales(scales.codes) | flags * _FLAG,
        "amax": (xp.cast(xp.bits(doubles.narrow(xp, tensor_amax, "float32")), "int64") & 0xFFFFFFFF).reshape(1),
    }


def decode(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """Return `element * scale * amax / (largest element * 448)`, integers times their shrinking factor, in float32."""
    grids, codes = GRIDS[fmt.option("grids")], fields["codes"]
    flag = fields["scales"] >= _FLAG
    scales = decode_values(xp, fields["scales"] & (_FLAG - 1), _E4M3FN, "float64")
    elements = xp.where(flag, _integers(xp, codes, grids), decode_values(xp, codes, grids.floats, "float64"))
    amax = doubles.widen(xp, xp.floats(xp.cast(fields["amax"], "int32"), "float32"))
    shrink = xp.where(flag, float(np.float32(grids.shrink)), xp.full_like(scales, 1.0))
    block = Block(grids.floats, 16, _E4M3FN, "float32", recipe="fouroversix_6")  # type: ignore[arg-type]
    request = Request(rounding("ties_to_even"), "saturate", 0, 0, 0, "keep")
    cut = Cut(make_layout(tuple(codes.shape), block, -1))
    return _values(elements, scales, amax, shrink, grids, Work(xp, cut, block, request, None, None, math.inf))


def _values(elements: Any, scales: Any, amax: Any, shrink: Any, grids: Grids, work: Work) -> Any:
    xp = work.xp
    whole = float(Span(grids.floats.max, _SCALE_MAX).whole)
    product = times(xp, times(xp, times(xp, elements, scales), amax), shrink)
    return over(xp, product, work.divisor(whole, product))


def _integer_codes(xp: Any, values: Any, grids: Grids) -> Any:
    n, bits = xp.cast(values, "int64"), grids.integers.bits
    if not grids.sign_magnitude:
        return n & ((1 << bits) - 1)
    return xp.where(n < 0, -n | 1 << (bits - 1), n)


def _integers(xp: Any, codes: Any, grids: Grids) -> Any:
    if not grids.sign_magnitude:
        return decode_values(xp, codes, grids.integers, "float64")
    sign_bit = 1 << (grids.integers.bits - 1)
    size = xp.cast(codes & (sign_bit - 1), "float64")
    return xp.where(codes & sign_bit != 0, -size, size)
