"""Rules of ggml's block types by hand: scales, ties, zeros, NaN and infinity."""

import numpy as np
import pytest

from lowp.rounding import Encoded, decode, encode

NAN, INF = float("nan"), float("inf")


def codes(kind: str, encoded: Encoded) -> list[int]:
    """Return the element codes from the bytes of one block of 32."""
    block = encoded.pack()
    if kind == "q8_0":
        return block[2:].tolist()
    low = np.concatenate([block[-16:] & 15, block[-16:] >> 4])
    if kind.startswith("q5"):
        low |= np.unpackbits(block[-20:-16], bitorder="little") << 4
    return low.tolist()


def scale(encoded: Encoded) -> int:
    """Return the code of the scale of one block."""
    return int(next(iter(encoded.fields.values())).reshape(-1)[0])


def test_q4_0_extreme_is_minus_eight_and_ties_go_up():
    x = np.zeros(32, np.float32)
    x[:4] = 8, 0.5, -0.5, -8
    got = encode(x, "ggml_q4_0")
    assert scale(got) == 0xBC00
    assert codes("q4_0", got)[:5] == [0, 8, 9, 15, 8]
    assert decode(got)[:5].tolist() == [8.0, 0.0, -1.0, -7.0, 0.0]


def test_q4_1_counts_from_the_minimum():
    x = np.linspace(1, 4, 32).astype(np.float32)
    got = encode(x, "ggml_q4_1")
    assert scale(got) == np.float16(0.2).view(np.uint16)
    assert got.fields["m"].tolist() == [[[0x3C00]]]
    assert [codes("q4_1", got)[i] for i in (0, 31)] == [0, 15]
    assert decode(got)[0] == 1.0
    assert got.nbytes == 2 + 2 + 16


def test_zero_blocks():
    zeros = np.zeros(32, np.float32)
    assert scale(encode(zeros, "ggml_q4_0")) == 0x8000
    assert codes("q5_0", encode(zeros, "ggml_q5_0")) == [16] * 32
    assert encode(zeros, "ggml_q5_1").fields["m"].item() == 0
    assert encode(-zeros, "ggml_q5_1").fields["m"].item() == 0x8000
    assert codes("q8_0", encode(zeros, "ggml_q8_0")) == [0] * 32
    assert scale(encode(zeros, "ggml_mxfp4")) == 0


@pytest.mark.parametrize("kind", ["q2_k", "q3_k", "q6_k", "q8_k", "tq1_0"])
def test_zero_super_blocks_decode_to_zero(kind):
    assert not decode(encode(np.zeros(256, np.float32), f"ggml_{kind}")).any()


def test_scales_past_float16_are_infinite_while_codes_are_not():
    got = encode(np.full(32, 1e6, np.float32), "ggml_q4_0")
    assert scale(got) == 0xFC00
    assert codes("q4_0", got) == [0] * 32
    assert decode(got).tolist() == [INF] * 32


def test_nan_is_passed_over():
    x = np.ones(32, np.float32)
    x[0] = NAN
    assert codes("q4_0", encode(x, "ggml_q4_0")) == [0] + [0] * 31
    assert encode(x, "ggml_q4_1").fields["m"].item() == 0x3C00
    assert codes("mxfp4", encode(x, "ggml_mxfp4")) == [0] + [6] * 31
    assert codes("q8_0", encode(x, "ggml_q8_0")) == [0] + [127] * 31


def test_infinity_is_the_largest_number():
    x = np.ones(64, np.float32)
    x[1] = -INF
    assert scale(encode(x[:32], "ggml_q4_0")) == 0x7C00
    assert codes("q4_0", encode(x[:32], "ggml_q4_0")) == [8, 0] + [8] * 30
    got = encode(x, "ggml_nvfp4")
    assert got.fields["d"].tolist() == [[[0x7E, 0x23, 0x23, 0x23]]]
    assert decode(got)[:2].tolist() == [0, 0]


def test_q8_0_forgets_the_largest_magnitude_before_a_nan():
    x = np.ones(32, np.float32)
    x[0], x[1] = 4, NAN
    got = encode(x, "ggml_q8_0")
    assert scale(got) == np.float16(1 / 127).view(np.uint16)
    assert codes("q8_0", got)[:3] == [508 % 256, 0, 127]
    x[31] = NAN
    assert scale(encode(x, "ggml_q8_0")) == 0x7E00


def test_q8_1_stores_the_sum_of_what_the_codes_stand_for():
    x = np.linspace(-1, 3, 32).astype(np.float32)
    got = encode(x, "ggml_q8_1")
    total = got.fields["qs"].view(np.int8).sum(dtype=int) * (3 / 127)
    assert got.fields["s"].view(np.float16).item() == pytest.approx(total, rel=1e-3)


def test_mxfp4_ties_go_to_the_lower_magnitude_and_zero_has_no_sign():
    x = np.zeros(32, np.float32)
    x[:9] = 6, 5, 3.5, 2.5, 1.75, 1.25, 0.75, 0.25, -0.25
    got = encode(x, "ggml_mxfp4")
    assert scale(got) == 127
    assert codes("mxfp4", got) == [7, 6, 5, 4, 3, 2, 1] + [0] * 25


def test_mxfp4_exponents_below_zero_wrap_and_flush_the_block():
    got = encode(np.full(32, 2.0**-126, np.float32), "ggml_mxfp4")
    assert scale(got) == 255
    assert codes("mxfp4", got) == [0] * 32
    assert decode(got).tolist() == [0.0] * 32
    assert scale(encode(np.full(32, INF, np.float32), "ggml_mxfp4")) == 0


@pytest.mark.parametrize(
    ("amax", "code"),
    [
        (6 * 1.0, 0x38), (6 * 1.0625, 0x39), (6 * 1.0624, 0x38), (6 * 1.9375, 0x40), (6 * 240.0, 0x77),
        (6 * 247.9, 0x77), (6 * 248.0, 0x7E), (6 * 256.0, 0x7E), (1e9, 0x7E), (6 * 7.9 / 512, 7), (6 * 8.0 / 512, 8),
        (6 * 0.5 / 512, 1), (6 * 0.49 / 512, 0), (0.0, 0),
    ],
)  # fmt: skip
def test_nvfp4_scales_round_half_up_and_stick_at_both_ends(amax, code):
    """From 248 up to 256 rounding leaves the last binade but one, and everything there is stored as 448."""
    x = np.zeros(64, np.float32)
    x[0] = amax
    assert encode(x, "ggml_nvfp4").fields["d"][0, 0, 0] == code


def test_q3_k_splits_scales_and_codes_into_low_and_high_bits():
    x = np.zeros(256, np.float32)
    x[:16] = np.arange(16) - 8
    fields = encode(x, "ggml_q3_k").fields
    got = {name: part.reshape(-1) for name, part in fields.items()}
    assert (got["scales_l"][0], got["scales_h"][0]) == (0, 0)  # -32 + 32, the extreme
    assert (got["scales_l"][1], got["scales_h"][1]) == (0, 2)  # 0 + 32: group 8, whose scale is 0


def test_tq1_0_bytes_are_fractions_of_243():
    x = np.zeros(256, np.float32)
    x[[0, 32, 64, 96, 128]] = 2, -2, 0.9, 1.0, -0.5
    got = encode(x, "ggml_tq1_0")
    digits = [2, 0, 1, 2, 1]  # 0.45 and -0.25 are nearer to 0, 0.5 goes away from it
    number = sum(d * 3 ** (4 - i) for i, d in enumerate(digits))
    assert got.pack()[0] == -(-number * 256 // 243)
    assert decode(got)[[0, 32, 64, 96, 128]].tolist() == [2, -2, 0, 2, 0]
    assert got.pack()[-2:].view(np.float16) == 2
