"""ggml's block types against ggml's own bytes and values."""

import zlib
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Packed, parse
from lowp.formats.families.ggml import ENTRIES
from lowp.rounding import Encoded, decode, encode, quantize

#: Bytes and values of a block: ggml's `type_size` and `blck_size`.
SIZES = {
    "q1_0": (18, 128), "q2_0": (18, 64), "q4_0": (18, 32), "q4_1": (20, 32), "q5_0": (22, 32), "q5_1": (24, 32),
    "q8_0": (34, 32), "q8_1": (36, 32), "mxfp4": (17, 32), "nvfp4": (36, 64), "q2_k": (84, 256), "q3_k": (110, 256),
    "q4_k": (144, 256), "q5_k": (176, 256), "q6_k": (210, 256), "q8_k": (292, 256), "iq4_nl": (18, 32),
    "iq4_xs": (136, 256), "tq1_0": (54, 256), "tq2_0": (66, 256),
}  # fmt: skip
SUPER = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_k", "iq4_nl", "iq4_xs", "tq1_0", "tq2_0")


def load(vectors: Any, kind: str) -> Any:
    return vectors(f"ggml/{kind.replace('_k', '_K')}")


#: CRC-32 of the bytes of `pinned_values`, from the encoders as they agreed with ggml's bytes in the tests below.
PINNED = {
    "q1_0": 0x15C8D9B0, "q2_0": 0x7353B4F2, "q4_0": 0x11C00D06, "q4_1": 0x3AE4FDD3, "q5_0": 0x768CDE5E,
    "q5_1": 0x3CF0FD17, "q8_0": 0x88BC2A6F, "q8_1": 0xB4C3086D, "mxfp4": 0x0D952A79, "nvfp4": 0xDD66BFA5,
    "q2_k": 0x8138C21F, "q3_k": 0x6942CE28, "q4_k": 0xE18F934E, "q5_k": 0xF1FA6CC9, "q6_k": 0x8AB7FE39,
    "q8_k": 0xFB02FB8C, "iq4_nl": 0xEBA3CB05, "iq4_xs": 0x406133DF, "tq1_0": 0xA07D7915, "tq2_0": 0x968B3610,
}  # fmt: skip
#: A group for which the last scale that Q4_K tries fits best.
LAST_TRY = [-2, -7, -2, -6, -7, 10, 0, 1, -1, 4, -10, -8, -1, 7, -6, 2,
            -2, -4, 7, 14, -9, -3, -9, -2, 1, 1, 7, -4, 0, -3, -1, -2]  # fmt: skip


def pinned_values() -> np.ndarray:
    """Return 1024 numbers: a lattice, the same group eight times, many magnitudes, and no negative ones."""
    x = ((np.arange(1024) * 7919) % 2003 - 1001).astype(np.float32) / 64
    x[256:512] = np.tile(LAST_TRY, 8)
    x[512:768] = np.ldexp(x[512:768], np.arange(256) % 13 - 6)
    x[768:] = np.abs(x[768:])
    return x


def same_bits(a: Any, b: Any) -> bool:
    """Whether two float32 arrays agree bit for bit, any NaN equal to any."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype == np.float32
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())


def test_every_type_is_here():
    assert {f"ggml_{kind}" for kind in SIZES} == set(ENTRIES)


@pytest.mark.parametrize("kind", SIZES)
def test_block_sizes_and_bits_per_value_are_those_of_ggml(kind):
    fmt, (size, values) = parse(f"ggml_{kind}"), SIZES[kind]
    assert isinstance(fmt, Packed)
    assert (fmt.block_bits, fmt.block_size) == (8 * size, values)
    assert fmt.bits_per_value == 8 * size / values
    assert encode(np.ones((3, 2 * values)), fmt).nbytes == 6 * size


@pytest.mark.parametrize("kind", [kind for kind in SIZES if kind != "iq4_nl"])
def test_bytes_are_those_of_ggml(vectors, kind):
    z = load(vectors, kind)
    got = encode(z["x"], f"ggml_{kind}").pack().reshape(z["blocks"].shape)
    np.testing.assert_array_equal(got, z["blocks"])
    if kind == "q8_1":  # ggml only ever multiplies by these blocks
        return
    assert same_bits(decode(encode(z["x"], f"ggml_{kind}")), z["dequant"])
    assert same_bits(quantize(z["x"], f"ggml_{kind}"), z["dequant"])


def test_iq4_nl_bytes_are_those_of_ggml_but_in_zero_blocks(vectors):
    """Where all is below 1e-15 ggml 0.21.0 stores codes that it never set; later versions store zeros, as here."""
    z = load(vectors, "iq4_nl")
    size, values = SIZES["iq4_nl"]
    want, x = z["blocks"].reshape(-1, size), z["x"].reshape(-1, values)
    got = encode(x, "ggml_iq4_nl").pack().reshape(-1, size)
    zero = np.abs(x).max(axis=1) < 1e-15
    assert 0 < zero.sum() < 40
    np.testing.assert_array_equal(got[~zero], want[~zero])
    assert not got[zero].any()
    assert not want[zero, :2].any()
    assert same_bits(quantize(x, "ggml_iq4_nl")[~zero], z["dequant"].reshape(-1, values)[~zero])


@pytest.mark.parametrize("kind", [kind for kind in SIZES if kind != "q8_1"])
@pytest.mark.parametrize("part", ["", "random_"])
def test_any_bytes_decode_as_in_ggml_and_pack_again(vectors, kind, part):
    z = load(vectors, kind)
    raw, want = z[f"{part}blocks"].reshape(-1), z[f"{part}dequant"]
    got = Encoded.unpack(raw, f"ggml_{kind}", want.shape, dtype=np.float32)
    assert same_bits(decode(got), want)
    np.testing.assert_array_equal(got.pack(), raw)


@pytest.mark.parametrize("kind", SIZES)
def test_bytes_stay_what_they_were_when_compared_with_ggml(kind):
    assert zlib.crc32(encode(pinned_values(), f"ggml_{kind}").pack().tobytes()) == PINNED[kind]


def hard_rows() -> np.ndarray:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((12, 512)) * np.exp2(rng.integers(-30, 10, (12, 1)))
    x[3, ::3], x[4], x[5], x[6, 40:300] = 0, np.abs(x[4]), -np.abs(x[5]), 0
    x[7, 100] = 1e5
    x[8] *= 1e-40
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", SIZES)
def test_bytes_lead_back_to_the_same_values(kind):
    x = hard_rows()
    got = encode(x, f"ggml_{kind}")
    again = Encoded.unpack(got.pack(), f"ggml_{kind}", x.shape, dtype=np.float32)
    assert same_bits(decode(again), decode(got))
    assert same_bits(quantize(x, f"ggml_{kind}"), decode(got))
    for name, part in (got.fields or {}).items():
        np.testing.assert_array_equal(again.fields[name], part)


@pytest.mark.parametrize("kind", SIZES)
def test_blocks_do_not_depend_on_their_neighbours(kind):
    size = SIZES[kind][0] * 512 // SIZES[kind][1]
    x = np.tile(hard_rows(), (26, 1))  # more super-blocks than are searched together
    whole = encode(x, f"ggml_{kind}").pack().reshape(-1, size)
    for row in (0, 5, 7, 200, 311):
        np.testing.assert_array_equal(whole[row], encode(x[row], f"ggml_{kind}").pack())


@pytest.mark.parametrize("kind", SIZES)
def test_a_short_last_block_is_filled_up_with_zeros(kind):
    x = hard_rows()[:2, :300]
    filled = np.pad(x, ((0, 0), (0, -300 % SIZES[kind][1])))
    got = encode(x, f"ggml_{kind}")
    np.testing.assert_array_equal(got.pack(), encode(filled, f"ggml_{kind}").pack())
    assert got.shape == decode(got).shape == x.shape
    assert same_bits(decode(got), quantize(filled, f"ggml_{kind}")[:, :300])


@pytest.mark.parametrize("kind", SIZES)
def test_blocks_run_along_the_axis(kind):
    x = hard_rows()
    got = encode(x.T, f"ggml_{kind}", axis=0)
    np.testing.assert_array_equal(got.pack(), encode(x, f"ggml_{kind}").pack())
    assert same_bits(decode(got).T, quantize(x, f"ggml_{kind}"))


@pytest.mark.parametrize("kind", SIZES)
def test_float64_input_is_rounded_to_float32_first(kind):
    x = hard_rows()[:3]
    wide = x.astype(np.float64) * (1 + 2.0**-40)
    got = encode(wide, f"ggml_{kind}")
    np.testing.assert_array_equal(got.pack(), encode(x, f"ggml_{kind}").pack())
    assert decode(got).dtype == np.float64
    np.testing.assert_array_equal(decode(got), quantize(x, f"ggml_{kind}"))


@pytest.mark.parametrize("kind", SUPER)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_or_infinity_spoils_its_super_block_alone(kind, value):
    x = hard_rows()[:2]
    want = quantize(x, f"ggml_{kind}")
    x[1, 259] = value
    got, block = quantize(x, f"ggml_{kind}"), slice(256, 256 + SIZES[kind][1])
    assert np.isnan(got[1, block]).all()
    want[1, block] = np.nan
    assert same_bits(got, want)


@pytest.mark.parametrize("kind", SIZES)
def test_empty_arrays_have_no_blocks(kind):
    got = encode(np.zeros((0, 256), np.float32), f"ggml_{kind}")
    assert got.nbytes == got.pack().size == 0
    assert decode(got).shape == (0, 256)


@pytest.mark.parametrize("kind", ["q4_0", "q4_k", "iq4_nl", "tq1_0"])
def test_other_roundings_than_ggmls_are_refused(kind):
    with pytest.raises(lowp.ArgumentError, match=f"rounding='toward_zero': 'ggml_{kind}' rounds as ggml does"):
        quantize(np.ones(32), f"ggml_{kind}", rounding="toward_zero")


@pytest.mark.parametrize(
    ("kind", "sigma", "error", "relative"),
    [
        ("q4_0", 1, 7.39e-3, 0.01), ("q4_1", 1, 6.11e-3, 0.01), ("q5_0", 1, 1.83e-3, 0.01), ("q5_1", 1, 1.43e-3, 0.01),
        ("q8_0", 1, 2.87e-5, 0.01), ("mxfp4", 1, 1.322e-2, 0.01), ("nvfp4", 1, 9.04e-3, 0.01),
        ("nvfp4", 0.02, 1.063e-2, 0.01), ("q1_0", 1, 0.3605, 0.01),
    ],
)  # fmt: skip
def test_errors_on_normal_numbers(kind, sigma, error, relative):
    """Squared error over variance, calculated independently from the rules of `ggml-quants.c`."""
    x = (np.random.default_rng(0).standard_normal((128, 4096)) * sigma).astype(np.float32)
    got = np.mean((quantize(x, f"ggml_{kind}").astype(np.float64) - x) ** 2) / sigma**2
    assert got == pytest.approx(error, rel=relative)


def test_more_bits_are_more_accurate():
    x = np.random.default_rng(1).standard_normal((16, 4096)).astype(np.float32)
    kinds = ("tq2_0", "q2_k", "q3_k", "q4_0", "iq4_nl", "iq4_xs", "q4_k", "q5_k", "q6_k", "q8_0")
    errors = [np.mean((quantize(x, f"ggml_{kind}") - x) ** 2) for kind in kinds]
    assert errors == sorted(errors, reverse=True)
