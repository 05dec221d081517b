"""bitsandbytes' blocks as array code, double quantization included: `schemes.bitsandbytes` step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lowp.formats.codebook import Codebook
from lowp.formats.packed import Packed
from lowp.formats.tables import value_table
from lowp.rounding import _portable_doubles as doubles
from lowp.rounding._portable_fp4_recipes import over, times
from lowp.rounding._portable_numbers import amax, codes_of, constant, float32, float_bits, of_float_bits
from lowp.rounding._portable_shapes import joined, padded, transposed
from lowp.rounding.recipes import scale_request
from lowp.rounding.request import Request
from lowp.rounding.schemes.bitsandbytes import _LANES, _LEVELS, _NESTED_BLOCKS, _VECTORS

Fields = dict[str, Any]
_NEAREST = scale_request("ties_to_even")
_NAN = 0x7FC00000


def _codes(xp: Any, x: Any, top: Any, codebook: Codebook, request: Request) -> Any:
    scaled = times(xp, x, over(xp, xp.full_like(top, 1.0), top))
    scaled = xp.where(doubles.is_nan(xp, scaled), 0.0, xp.minimum(xp.maximum(scaled, -1.0), 1.0))
    return codes_of(xp, scaled, codebook, request)


def _values(xp: Any, codes: Any, codebook: Codebook) -> Any:
    table = value_table(codebook)
    table = np.where(np.isnan(table), 0.0, table).astype(np.float32).astype(np.float64)
    return xp.take(xp.constant(table, codes), codes)


def _encoded(xp: Any, blocks: Any, fmt: Packed, request: Request) -> tuple[Any, Any]:
    """Return codes in their bytes and the largest magnitudes."""
    x = float32(xp, blocks)
    top = amax(xp, x)
    codebook: Codebook = fmt.option("codebook")
    codes = _codes(xp, x, top, codebook, request)
    second = fmt.option("code_above_zero")
    if second is not None:
        codes = xp.where((codes == 0) & (x > 0) & doubles.is_finite(xp, top), second, codes)
    if codebook.bits == 4:
        codes = codes[..., 0::2] << 4 | codes[..., 1::2]
    return codes, top


def _decoded(xp: Any, codes: Any, top: Any, fmt: Packed) -> Any:
    codebook: Codebook = fmt.option("codebook")
    if codebook.bits == 4:
        codes = joined(xp, [(codes >> 4)[..., None], (codes & 15)[..., None]], -1).reshape((*codes.shape[:-1], -1))
    return times(xp, _values(xp, codes, codebook), top)


def encode(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Codes and a float32 magnitude per block."""
    codes, top = _encoded(xp, blocks, fmt, request)
    return {"codes": codes, "absmax": float_bits(xp, top)}


def decode(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """The reverse of `encode`."""
    return _decoded(xp, fields["codes"], of_float_bits(xp, fields["absmax"]), fmt)


def encode_nested(xp: Any, blocks: Any, fmt: Packed, request: Request) -> Fields:
    """Codes, and the magnitudes less their mean as 8-bit codes."""
    codes, top = _encoded(xp, blocks, fmt, request)
    sizes = top[..., 0]
    offset = _mean(xp, sizes.reshape(-1))
    groups = _grouped(xp, _plus(xp, sizes, -offset))
    state = amax(xp, groups)
    stored = _codes(xp, groups, state, fmt.option("absmax_codebook"), _NEAREST)
    return {
        "codes": codes,
        "absmax_codes": stored.reshape((sizes.shape[0], -1))[:, : sizes.shape[1], None],
        "nested_absmax": _quiet_bits(xp, state),
        "offset": _quiet_bits(xp, offset),
    }


def decode_nested(xp: Any, fields: Fields, fmt: Packed) -> Any:
    """The reverse of `encode_nested`."""
    state, offset = (of_float_bits(xp, fields[name]) for name in ("nested_absmax", "offset"))
    codes = fields["absmax_codes"][..., 0]
    groups = times(xp, _values(xp, _grouped(xp, codes), fmt.option("absmax_codebook")), state)
    sizes = _plus(xp, groups.reshape((codes.shape[0], -1))[:, : codes.shape[1]], offset)
    return _decoded(xp, fields["codes"], sizes[..., None], fmt)


def _quiet_bits(xp: Any, x: Any) -> Any:
    """Return float32 bits, those of a NaN without sign or payload."""
    return xp.where(doubles.is_nan(xp, x), _NAN, float_bits(xp, x))


def _plus(xp: Any, a: Any, b: Any) -> Any:
    """Return the float32 sum."""
    return doubles.to_float32(xp, a + b)


def _grouped(xp: Any, per_block: Any) -> Any:
    rows, blocks = per_block.shape
    whole = padded(xp, per_block, (0, -blocks % _NESTED_BLOCKS))
    return whole.reshape((rows, whole.shape[1] // _NESTED_BLOCKS, _NESTED_BLOCKS))


def _mean(xp: Any, x: Any) -> Any:
    """Return the float32 mean of magnitudes, of shape (1,), added up in PyTorch's order."""
    size = x.shape[0]
    count = size // _LANES
    vectors = x[: count * _LANES].reshape((count, _LANES))
    whole = count // _VECTORS * _VECTORS
    lanes = x[:0]
    if count:
        sums = _cascade(xp, vectors[:whole].reshape((whole // _VECTORS, _VECTORS * _LANES)))
        sums = sums.reshape((_VECTORS, _LANES))
        lanes = _in_order(xp, joined(xp, [sums[:1], vectors[whole:], sums[1:]], 0))
    total = _in_order(xp, joined(xp, [x[count * _LANES :], lanes], 0)[:, None])
    return over(xp, total, constant(xp, float(np.float32(size)), total))


def _cascade(xp: Any, rows: Any) -> Any:
    """Add rows as `schemes.bitsandbytes._cascade`: runs of 2^p, the sums of those by runs of 2^p, and so on."""
    run = 1 << max(4, math.ceil(math.log2(max(rows.shape[0], 1)) / _LEVELS))
    total = xp.full_like(rows[:1].sum(0), 0.0)
    for level in range(_LEVELS):
        runs = rows.shape[0] // run if level < _LEVELS - 1 else 0
        if rows.shape[0] > runs * run:
            total = _plus(xp, total, _in_order(xp, rows[runs * run :]))
        if not runs:
            break
        rows = _in_order(xp, transposed(xp, rows[: runs * run].reshape((runs, run, -1)), (1, 0, 2)))
    return total


def _in_order(xp: Any, rows: Any) -> Any:
    """Return the sum over the first axis, term by term."""

    def step(state: tuple[Any, ...], part: tuple[Any, ...]) -> tuple[tuple[Any, ...], None]:
        return (_plus(xp, state[0], part[0]),), None

    (total,), _ = xp.scan(step, (rows[0],), (rows[1:],)) if rows.shape[0] > 1 else ((rows[0],), None)
    return total


CODERS = {"bitsandbytes.blockwise": (encode, decode), "bitsandbytes.nested": (encode_nested, decode_nested)}
