"""Codes of any width, packed by words and bit by bit."""

import numpy as np
import pytest

from lowp.formats.packing import _PIECE, _pack_bits, _unpack_bits, pack, unpack

COUNTS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 101]


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 7, 8, 12, 16])
def test_words_hold_what_single_bits_do(bits: int) -> None:
    rng = np.random.default_rng(bits)
    edges = [n + d for n in (_PIECE, 2 * _PIECE, 4 * _PIECE) for d in (-1, 0, 1, 3)] if bits in (2, 4) else []
    for count in (*COUNTS, *edges):
        whole = rng.integers(0, 1 << bits, count + 1).astype(np.uint8 if bits <= 8 else np.uint16)
        for codes in (whole[:count], whole[1:]):  # words may lie anywhere
            packed = pack(codes, bits)
            assert np.array_equal(packed, _pack_bits(codes, bits)), count
            assert not np.shares_memory(packed, codes)
            longer = np.concatenate([packed, np.full(3, 0xA5, np.uint8)])
            for data in (packed, longer, longer[:]):
                found = unpack(data, bits, count)
                assert np.array_equal(found, codes)
                assert np.array_equal(found, _unpack_bits(data, bits, count))
                assert not np.shares_memory(found, data)


def test_the_first_code_is_in_the_lowest_bits() -> None:
    assert pack(np.array([1, 2, 3], np.uint8), 2).tolist() == [0b111001]
    assert pack(np.array([1, 2, 3, 0, 2], np.uint8), 2).tolist() == [0b00111001, 0b10]
    assert pack(np.array([0xA, 0x5, 0xF], np.uint8), 4).tolist() == [0x5A, 0x0F]
    assert unpack(np.array([0x5A, 0x0F], np.uint8), 4, 3).tolist() == [0xA, 0x5, 0xF]
