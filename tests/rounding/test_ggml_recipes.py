"""ggml's block types: codes, scales, minima and decoded values as ggml's C code computes them."""

from typing import Any

import numpy as np
import pytest

from lowp.formats import parse
from lowp.rounding import Encoded, decode, encode, quantize

NAN, INF = float("nan"), float("inf")
KINDS = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mxfp4")


def same_bits(a: Any, b: Any) -> bool:
    """Whether two float arrays agree bit for bit, any NaN equal to any."""
    a, b = np.asarray(a), np.asarray(b)
    unsigned = f"u{a.itemsize}"
    return a.dtype == b.dtype and bool(((a.view(unsigned) == b.view(unsigned)) | (np.isnan(a) & np.isnan(b))).all())


def ggml_parts(kind: str, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return scale codes, element codes and codes of the minima from the bytes of rows of blocks."""
    size = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "mxfp4": 17}[kind]
    blocks = raw.reshape(len(raw), -1, size)
    head = 1 if kind == "mxfp4" else 4 if kind.endswith("1") else 2
    scales = blocks[..., 0] if kind == "mxfp4" else blocks[..., :2].copy().view("<u2")[..., 0]
    minima = blocks[..., 2:4].copy().view("<u2")[..., 0] if head == 4 else None
    if kind == "q8_0":
        return scales, blocks[..., 2:].reshape(len(raw), -1), None
    high = np.uint8(0)
    if kind.startswith("q5"):
        bits = blocks[..., head : head + 4].copy().view("<u4")
        high = (bits >> np.arange(32, dtype=np.uint32) & 1).astype(np.uint8) << 4
        head += 4
    low = np.concatenate([blocks[..., head:] & 15, blocks[..., head:] >> 4], axis=-1)
    return scales, (low | high).reshape(len(raw), -1), minima


@pytest.mark.parametrize("kind", KINDS)
def test_ggml_vectors_equal(vectors, kind):
    z = vectors(f"ggml/{kind}")
    scales, codes, minima = ggml_parts(kind, z["blocks"])
    got = encode(z["x"], f"ggml_{kind}")
    np.testing.assert_array_equal(got.scales, scales)
    np.testing.assert_array_equal(got.codes, codes)
    assert (got.zero_points is None) == (minima is None)
    if minima is not None:
        np.testing.assert_array_equal(got.zero_points, minima)
    assert same_bits(decode(got), z["dequant"])
    assert same_bits(quantize(z["x"], f"ggml_{kind}"), z["dequant"])


@pytest.mark.parametrize("kind", KINDS)
def test_ggml_decodes_random_bytes_as_the_original(vectors, kind):
    z = vectors(f"ggml/{kind}")
    scales, codes, minima = ggml_parts(kind, z["random_blocks"])
    encoded = Encoded(codes, parse(f"ggml_{kind}"), scales, minima, dtype=np.dtype(np.float32))
    assert same_bits(decode(encoded), z["random_dequant"])


def test_q4_0_extreme_is_minus_eight_and_ties_go_up():
    x = np.zeros(32, np.float32)
    x[:4] = 8, 0.5, -0.5, -8
    got = encode(x, "ggml_q4_0")
    assert got.scales.tolist() == [0xBC00]
    assert got.codes[:5].tolist() == [0, 8, 9, 15, 8]
    assert decode(got)[:5].tolist() == [8.0, 0.0, -1.0, -7.0, 0.0]


def test_q4_1_counts_from_the_minimum():
    x = np.linspace(1, 4, 32).astype(np.float32)
    got = encode(x, "ggml_q4_1")
    assert got.scales.tolist() == [np.float16(0.2).view(np.uint16)]
    assert got.zero_points.tolist() == [0x3C00]
    assert got.codes[[0, 31]].tolist() == [0, 15]
    assert decode(got)[0] == 1.0
    assert got.nbytes == 16 + 2 + 2


def test_zero_blocks():
    zeros = np.zeros(32, np.float32)
    assert encode(zeros, "ggml_q4_0").scales.tolist() == [0x8000]
    assert encode(zeros, "ggml_q5_0").codes.tolist() == [16] * 32
    assert encode(zeros, "ggml_q5_1").zero_points.tolist() == [0]
    assert encode(-zeros, "ggml_q5_1").zero_points.tolist() == [0x8000]
    assert encode(zeros, "ggml_q8_0").codes.tolist() == [0] * 32
    assert encode(zeros, "ggml_mxfp4").scales.tolist() == [0]


def test_scales_past_float16_are_infinite_while_codes_are_not():
    got = encode(np.full(32, 1e6, np.float32), "ggml_q4_0")
    assert got.scales.tolist() == [0xFC00]
    assert got.codes.tolist() == [0] * 32
    assert decode(got).tolist() == [INF] * 32


def test_nan_is_passed_over():
    x = np.ones(32, np.float32)
    x[0] = NAN
    assert encode(x, "ggml_q4_0").codes.tolist() == [0] + [0] * 31
    assert encode(x, "ggml_q4_1").zero_points.tolist() == [0x3C00]
    assert encode(x, "ggml_mxfp4").codes.tolist() == [0] + [6] * 31
    assert encode(x, "ggml_q8_0").codes.tolist() == [0] + [127] * 31


def test_q8_0_forgets_the_largest_magnitude_before_a_nan():
    x = np.ones(32, np.float32)
    x[0], x[1] = 4, NAN
    got = encode(x, "ggml_q8_0")
    assert got.scales.tolist() == [np.float16(1 / 127).view(np.uint16)]
    assert got.codes[:3].tolist() == [508 % 256, 0, 127]
    x[31] = NAN
    assert encode(x, "ggml_q8_0").scales.tolist() == [0x7E00]


def test_mxfp4_ties_go_to_the_lower_magnitude_and_zero_has_no_sign():
    x = np.zeros(32, np.float32)
    x[:9] = 6, 5, 3.5, 2.5, 1.75, 1.25, 0.75, 0.25, -0.25
    got = encode(x, "ggml_mxfp4")
    assert got.scales.tolist() == [127]
    assert got.codes.tolist() == [7, 6, 5, 4, 3, 2, 1] + [0] * 25


def test_mxfp4_exponents_below_zero_wrap_and_flush_the_block():
    got = encode(np.full(32, 2.0**-126, np.float32), "ggml_mxfp4")
    assert got.scales.tolist() == [255]
    assert got.codes.tolist() == [0] * 32
    assert decode(got).tolist() == [0.0] * 32
    assert encode(np.full(32, INF, np.float32), "ggml_mxfp4").scales.tolist() == [0]
