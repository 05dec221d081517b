"""The ternary packings of bitnet.cpp: I2_S, TL1 and TL2, over the weight quantizer of BitNet b1.58.

There is one scale per tensor, in float32; float64 input is rounded to float32 first. Weights that are ternary already,
all nonzero magnitudes being equal, keep their values: that magnitude is the scale, as in `quantize_i2_s`, which takes
such weights and stores `max|w|`; so a second pass changes nothing. Others: `s = 1 / max(mean|w|, 1e-5)`, trits are
`w * s` rounded to nearest even and clamped to -1 .. 1, the scale is `1 / s`, or 0 where every trit is 0. The mean is
summed in float64 and rounded once (torch does not say how it sums). NaN or infinity anywhere make the scale NaN.

As in the source: I2_S stores `trit + 1` in two bits; a byte holds four values that lie 32 apart in blocks of 128 (x86
with ACT_PARALLEL), 16 apart in blocks of 64 (ARM), or in four rows below each other (x86 without), the first in the top
bits; after the bytes comes the scale in 32 bytes. TL1 makes `3a + b + 4` of a pair, TL2 `|9a + 3b + c|` of three and a
bit for a negative sum; two such numbers make a byte, the first on top, and 16 sign bits a 16-bit word, the first on
top. Tiled formats order these as the converter does for its tile sizes BM, BK, bm, rows below rows of tiles.
Assumed: formats without a tile keep the order of the weights; I2_S fills up each row's last block with zeros, where the
source lets blocks run over the ends of rows; the rest of the 32 bytes is zero; the scale of TL1 and TL2, a tensor of
its own in the file, follows their bytes; a TL2 tensor has whole tiles (the converter codes a rest of columns in pairs,
and appends zeros).
Source: microsoft/BitNet, `src/ggml-bitnet-mad.cpp`, `quantize_i2_s`; `utils/convert-hf-to-gguf-bitnet.py`,
`weight_quant` and `preprocess_weights_tl1`, `_tl2`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.formats.packed import Packed
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme
from lowp.rounding.schemes.scaled_integers import only_nearest
from lowp.rounding.schemes.structured import check_whole, present, scale_field, scale_values, shared_mean

#: Least mean magnitude.
_FLOOR = np.float32(1e-5)
#: Rows of the inner tiles of TL2; its row groups of eight are stored in this order.
_TL2_ROWS, _TL2_GROUPS = 32, [0, 2, 1, 3]
#: Sign bits in a word, and the weights of a word's bits.
_WORD = 16
_WORD_BITS = 1 << np.arange(_WORD)[::-1]

Trits = NDArray[np.int8]


def quantize_weights(x: NDArray[Any], real: NDArray[np.bool_]) -> tuple[Trits, NDArray[np.float64]]:
    """Return trits and their scale: the magnitude of ternary weights, else b1.58's mean of those that `real` marks.

    Example:
        >>> trits, scale = quantize_weights(np.array([[[2.0, -1.0, 0.25, 0.75]]]), np.ones((1, 1, 4), np.bool_))
        >>> trits.tolist(), scale.tolist()
        ([[[1, -1, 0, 1]]], [[[1.0]]])
        >>> quantize_weights(np.array([[[3.0, -3.0, 0.0, 0.0]]]), np.ones((1, 1, 4), np.bool_))[1].tolist()
        [[[3.0]]]
    """
    w = x.astype(np.float32)
    magnitude = np.abs(w)
    if not np.isfinite(w).all():
        return np.zeros(w.shape, np.int8), np.full((1, 1, 1), np.nan)
    largest = magnitude.max(keepdims=True, initial=0)
    if ((magnitude == 0) | (magnitude == largest)).all():
        return np.sign(w).astype(np.int8), largest.astype(np.float64)
    mean = shared_mean(magnitude, real, "tensor").astype(np.float32)
    s = np.float32(1) / np.maximum(mean, _FLOOR)
    trits = np.clip(np.rint(w * s), -1, 1).astype(np.int8)
    return trits, (np.float32(1) / s * np.float32(trits.any())).astype(np.float64)


def _trits_and_scale(x: NDArray[Any], fmt: Packed, request: Request) -> tuple[Trits, NDArray[Any]]:
    only_nearest(request, fmt)
    if isinstance(fmt.block_size, tuple):
        check_whole(request, fmt)
    trits, scale = quantize_weights(x, present(x, request))
    return trits, scale_field(scale, fmt)[0]


def _encode_i2(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    trits, scale = _trits_and_scale(x, fmt, request)
    four = (trits + 1).astype(np.uint8).reshape(*x.shape[:-1], 4, -1)
    qs = four[..., 0, :] << 6 | four[..., 1, :] << 4 | four[..., 2, :] << 2 | four[..., 3, :]
    return {"qs": qs, "scale": scale, "alignment": np.zeros(7, np.uint32)}


def _decode_i2(fields: Fields, fmt: Packed) -> NDArray[Any]:
    qs = fields["qs"].astype(np.uint8)[..., None, :]
    codes = qs >> np.array([6, 4, 2, 0], np.uint8)[:, None] & np.uint8(3)
    return (codes.reshape(*qs.shape[:-2], -1) - 1.0) * scale_values(fields["scale"], fmt)


@lru_cache(maxsize=16)
def tl1_order(fmt: Packed) -> NDArray[np.int64]:
    """Return which pair of a block each stored index is of."""
    places = np.arange(fmt.block_elements // 2)
    if not isinstance(fmt.block_size, tuple):
        return places
    (rows, columns), inner = fmt.block_size, fmt.option("inner_rows")
    width = 256 // inner
    tiles = places.reshape(rows // inner, inner // 16, 16, columns // width, width // 4, 2)
    return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(-1)


@lru_cache(maxsize=16)
def tl2_orders(fmt: Packed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which triple of a block each stored index, and each sign bit, is of."""
    places = np.arange(fmt.block_elements // 3)
    if not isinstance(fmt.block_size, tuple):
        return places, places
    rows, columns = fmt.block_size[0] // _TL2_ROWS, fmt.block_size[1]
    tiles = places.reshape(rows, 4, 8, columns // 6, 2)[:, _TL2_GROUPS].transpose(0, 3, 1, 2, 4)
    words = places.reshape(rows, 2, 16, columns // 24, 8).transpose(0, 3, 2, 4, 1)
    return tiles.reshape(-1), words.reshape(-1)


def _nibbles(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Return bytes of two numbers each, the first on top."""
    return np.asarray(numbers[..., 0::2] << 4 | numbers[..., 1::2], np.uint8)


def _from_nibbles(packed: NDArray[Any]) -> NDArray[np.int64]:
    both = np.stack([packed >> 4, packed & 15], axis=-1).astype(np.int64)
    return both.reshape(*packed.shape[:-1], -1)


def _restored(stored: NDArray[Any], order: NDArray[np.int64]) -> NDArray[Any]:
    """Undo `numbers[..., order]`."""
    numbers = np.empty_like(stored)
    numbers[..., order] = stored
    return numbers


def _digits(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` trits of each number, the first with the highest power of three."""
    trits = numbers[..., None] // 3 ** np.arange(count)[::-1] % 3 - 1
    return trits.reshape(*numbers.shape[:-1], -1)


def _encode_tl1(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    trits, scale = _trits_and_scale(x, fmt, request)
    pairs = 3 * trits[..., 0::2] + trits[..., 1::2] + 4
    return {"indices": _nibbles(pairs[..., tl1_order(fmt)]), "scale": scale}


def _decode_tl1(fields: Fields, fmt: Packed) -> NDArray[Any]:
    pairs = _restored(_from_nibbles(fields["indices"]), tl1_order(fmt))
    return _digits(pairs, 2) * scale_values(fields["scale"], fmt)


def _encode_tl2(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    trits, scale = _trits_and_scale(x, fmt, request)
    triples = 9 * trits[..., 0::3] + 3 * trits[..., 1::3] + trits[..., 2::3]
    order, sign_order = tl2_orders(fmt)
    negative = (triples < 0)[..., sign_order].reshape(*x.shape[:-1], -1, _WORD)
    return {"indices": _nibbles(np.abs(triples)[..., order]), "signs": negative @ _WORD_BITS, "scale": scale}


def _decode_tl2(fields: Fields, fmt: Packed) -> NDArray[Any]:
    order, sign_order = tl2_orders(fmt)
    size = _restored(_from_nibbles(fields["indices"]), order)
    bits = (fields["signs"][..., None].astype(np.int64) & _WORD_BITS) != 0
    negative = _restored(bits.reshape(size.shape), sign_order)
    return _digits(np.where(negative, -size, size) + 13, 3) * scale_values(fields["scale"], fmt)


SCHEMES: dict[str, Scheme] = {
    "i2_s": Scheme(_encode_i2, _decode_i2),
    "tl1": Scheme(_encode_tl1, _decode_tl1),
    "tl2": Scheme(_encode_tl2, _decode_tl2),
}
