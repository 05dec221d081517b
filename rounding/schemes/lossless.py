"""DFloat11: bfloat16 without loss, its exponents in a Huffman code.

Values must be bfloat16 numbers: any bit pattern, NaN with its payload too, in float32 or float64; others raise
RangeError, since rounding them would not be lossless. Fields keep the exponent byte, and sign and mantissa as another.
Packing writes, as the paper's container does in its own files: the number of exponents that occur minus 1, these
exponents, the lengths of their codes, a byte each; then sign and mantissa of all values; then the codes, most
significant bit first, filled up with zeros to a byte. Codes are canonical, by length and then exponent, at most 32 bits
long: where they would be longer, the frequencies of the 1, 2, ... rarest exponents are set to 1 until they fit. A lone
exponent has a code of one bit. Not counted is what the GPU decoder adds: 5 bits for each 8 bytes of codes and an
output position of 4 bytes for each 4096.
Source: DFloat11, arXiv:2504.11651; LeanModels/DFloat11, `dfloat11_utils.py` and `decode.cu`.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError
from lowp.formats.packed import Packed
from lowp.rounding.request import Request
from lowp.rounding.schemes import Fields, Scheme

_LONGEST = 32


def bfloat16_bits(x: NDArray[Any]) -> NDArray[np.uint16]:
    """Return the bfloat16 codes of float32 or float64 numbers that are bfloat16 numbers.

    Raises:
        RangeError: A number that bfloat16 does not hold.

    Example:
        >>> hex(bfloat16_bits(np.array([1.0]))[0])
        '0x3f80'
    """
    narrow = x.astype(np.float32)
    bits = np.ascontiguousarray(narrow).view(np.uint32)
    same = narrow.astype(x.dtype).view(f"u{x.dtype.itemsize}") == np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}")
    exact = same & (bits & 0xFFFF == 0)
    if not exact.all():
        raise RangeError(f"x holds {float(x[~exact][0])!r}, which is no bfloat16 number; round x to bfloat16 first.")
    return (bits >> 16).astype(np.uint16)


def code_lengths(frequencies: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the length of the Huffman code of each symbol, 0 where the frequency is 0.

    Example:
        >>> code_lengths(np.array([5, 1, 0, 1, 1])).tolist()
        [1, 3, 0, 3, 2]
    """
    counts = {int(s): int(frequencies[s]) for s in np.flatnonzero(frequencies)}
    lengths = _huffman(counts)
    rarest = sorted(counts, key=lambda s: (counts[s], s))
    for symbol in rarest:
        if max(lengths.values()) <= _LONGEST:
            break
        counts[symbol] = 1
        lengths = _huffman(counts)
    result = np.zeros(len(frequencies), np.uint8)
    result[list(lengths)] = list(lengths.values())
    return result


def _huffman(counts: dict[int, int]) -> dict[int, int]:
    lengths = dict.fromkeys(counts, 0 if len(counts) > 1 else 1)
    heap = [(count, symbol, [symbol]) for symbol, count in counts.items()]
    heapq.heapify(heap)
    while len(heap) > 1:
        (low, tie, some), (high, _, others) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in some + others:
            lengths[symbol] += 1
        heapq.heappush(heap, (low + high, tie, some + others))
    return lengths


def _canonical(lengths: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Return the lowest code and the number of codes of each length, and the symbols by length."""
    counts = np.bincount(lengths, minlength=_LONGEST + 1)
    counts[0] = 0
    first = np.zeros(_LONGEST + 1, np.int64)
    for length in range(1, _LONGEST + 1):
        first[length] = first[length - 1] + counts[length - 1] << 1
    order = np.argsort(lengths, kind="stable")
    return first, counts, order[lengths[order] > 0].astype(np.uint8)


def _codes(lengths: NDArray[np.uint8]) -> NDArray[np.int64]:
    first, counts, ordered = _canonical(lengths)
    before = np.cumsum(counts) - counts
    codes = np.zeros(len(lengths), np.int64)
    used = lengths[ordered]
    codes[ordered] = first[used] + np.arange(len(ordered)) - before[used]
    return codes


def _encode(x: NDArray[Any], fmt: Packed, request: Request) -> Fields:
    bits = bfloat16_bits(x)
    return {"exponent": bits >> 7 & 0xFF, "sign_mantissa": bits >> 8 & 0x80 | bits & 0x7F}


def _decode(fields: Fields, fmt: Packed) -> NDArray[Any]:
    rest = fields["sign_mantissa"].astype(np.uint32)
    bits = (rest & 0x80) << 8 | fields["exponent"].astype(np.uint32) << 7 | rest & 0x7F
    return (bits << 16).view(np.float32)


def _pack(fields: Fields, fmt: Packed) -> NDArray[np.uint8]:
    from lowp.rounding.schemes.lossless_kernels import write_codes

    exponents = fields["exponent"].reshape(-1).astype(np.uint8)
    if not exponents.size:
        return exponents
    frequencies = np.bincount(exponents, minlength=256)
    lengths = code_lengths(frequencies)
    used = np.flatnonzero(frequencies).astype(np.uint8)
    stream = np.zeros(-(-int(frequencies @ lengths.astype(np.int64)) // 8), np.uint8)
    write_codes(exponents, _codes(lengths), lengths, stream)
    rest = fields["sign_mantissa"].reshape(-1).astype(np.uint8)
    return np.concatenate([np.array([used.size - 1], np.uint8), used, lengths[used], rest, stream])


def _unpack(raw: NDArray[np.uint8], fmt: Packed, shape: tuple[int, int]) -> Fields:
    from lowp.rounding.schemes.lossless_kernels import read_codes

    count = shape[0] * shape[1]
    used = int(raw[0]) + 1 if raw.size and count else 0
    start = 1 + 2 * used + count if count else 0
    exponents = np.zeros(count, np.uint8)
    read = 0
    if count and raw.size >= start:
        lengths = np.zeros(256, np.uint8)
        lengths[raw[1 : 1 + used]] = np.minimum(raw[1 + used : 1 + 2 * used], _LONGEST)
        read = read_codes(raw[start:], *_canonical(lengths), exponents)
    if read < 0 or raw.size != start + -(-read // 8):
        raise ArgumentError(f"data has {raw.size} bytes that are no {fmt.name!r} array of {count} values.")
    rest = raw[start - count : start]
    return {"exponent": exponents.reshape(*shape, 1), "sign_mantissa": rest.reshape(*shape, 1)}


SCHEMES: dict[str, Scheme] = {"dfloat11": Scheme(_encode, _decode, _pack, _unpack)}
