"""SQ-format: banks of values in two precisions."""

from fractions import Fraction

import numpy as np
import pytest

from lowp import FormatError, RangeError
from lowp.formats import Packed, parse
from lowp.rounding import Encoded, decode, encode, quantize
from tests.rounding.schemes.scaled import (
    ROUND,
    blocks_of,
    check_round_trip,
    clamped,
    gauss,
    joined,
    relative_error,
    stored_bits,
)

#: Name: bank, values in high precision, bits of high and low.
NAMES = {
    "sq_b64_s75_h8_l4": (64, 16, 8, 4),
    "sq_b64_s75_h8_l4_mask": (64, 16, 8, 4),
    "sq_b8_s5_h6_l2": (8, 4, 6, 2),
    "sq_b4_s50_h8_l0": (4, 2, 8, 0),
}


def bank(block: list[Fraction], count: int, high: int, low: int, mode: str) -> list[Fraction]:
    order = sorted(range(len(block)), key=lambda i: -abs(block[i]))  # a stable sort: of equal ones the first
    values = [Fraction(0)] * len(block)
    for part, bits in ((order[:count], high), (order[count:], low)):
        top = 2 ** (bits - 1) - 1 if bits else 0
        amax = max(abs(block[i]) for i in part)
        scale = Fraction(float(np.float16(float(amax / top)))) if top else Fraction(0)
        for i in part:
            values[i] = clamped(ROUND[mode](block[i] / scale), top) * scale if scale else Fraction(0)
    return values


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ROUND)
def test_against_exact_rationals(name: str, mode: str) -> None:
    size, count, high, low = NAMES[name]
    x = np.random.default_rng(size).standard_normal((4, 100)).astype(np.float32)
    x[1:3] = np.rint(4 * x[1:3]) / 4
    expected = [bank(block, count, high, low, mode) for block in blocks_of(x, size)]
    assert np.array_equal(quantize(x, name, mode), joined(expected, x.shape, x.dtype))


def test_a_worked_bank() -> None:
    """The two largest are int4 with scale 1; the others int2 with scale 2; code 2 of int2 points to the high ones."""
    x = np.array([7.0, -2.0, 0.9, -3.4])
    encoded = encode(x, "sq_b4_s5_h4_l2")
    assert encoded.fields is not None
    assert encoded.fields["high"].ravel().tolist() == [7, 16 - 3]
    assert encoded.fields["low"].ravel().tolist() == [2, 3, 0, 2]
    assert encoded.fields["scales"].view(np.float16).ravel().tolist() == [1.0, 2.0]
    assert decode(encoded).tolist() == [7.0, -2.0, 0.0, -3.0]


def test_the_mask_says_what_the_sentinel_says() -> None:
    x = gauss(256, 4)
    sentinel, mask = (encode(x, name) for name in ("sq_b64_s75_h8_l4", "sq_b64_s75_h8_l4_mask"))
    assert np.array_equal(decode(sentinel), decode(mask))
    assert sentinel.fields is not None
    assert mask.fields is not None
    assert np.array_equal(sentinel.fields["low"] == 8, mask.fields["mask"] == 1)
    assert (mask.fields["mask"].sum(axis=-1) == 16).all()


@pytest.mark.parametrize(("share", "bits"), [("5", 6.0), ("75", 5.0), ("875", 4.5)])
def test_equivalent_bits(share: str, bits: float) -> None:
    """SQ-format, arXiv:2512.05409: (1 - s) h + s l of B-(8/4), scales and mask not counted."""
    fmt = parse(f"sq_b64_s{share}_h8_l4_mask")
    assert isinstance(fmt, Packed)
    values = {field.name: field.count * field.bits for field in fmt.fields}
    assert (values["high"] + values["low"]) / 64 == bits


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("sq_b64_s75_h8_l4", 4 + 8 / 4 + 32 / 64),
        ("sq_b64_s75_h8_l4_mask", 5 + 1 + 32 / 64),
        ("sq_b64_s5_h8_l2", 2 + 4 + 32 / 64),
        ("sq_b4_s50_h8_l0", 4 + 1 + 16 / 4),
    ],
)
def test_stored_bits(name: str, bits: float) -> None:
    fmt = parse(name)
    assert isinstance(fmt, Packed)
    assert fmt.bits_per_value == bits
    assert stored_bits(name, 4) == 4 * fmt.block_elements * bits


@pytest.mark.parametrize(
    ("name", "error"),
    [("sq_b32_s5_h8_l4", 3.72e-4), ("sq_b64_s75_h8_l4", 1.63e-3), ("sq_b64_s875_h8_l4", 3.33e-3)],
)
def test_errors_of_normal_numbers(name: str, error: float) -> None:
    """Computed from SQ-format's definition (arXiv:2512.05409) with a mask by magnitude."""
    assert relative_error(gauss(), name) == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_fields_and_bytes_agree(name: str, dtype: str) -> None:
    x = np.random.default_rng(1).standard_normal((3, 70)).astype(dtype)
    check_round_trip(x, name)
    check_round_trip(x, name, axis=0)
    check_round_trip(x, name, rounding="stochastic")


@pytest.mark.parametrize("name", NAMES)
def test_zeros_and_nan(name: str) -> None:
    size = NAMES[name][0]
    assert not quantize(np.zeros(2 * size), name).any()
    assert quantize(np.zeros((0, size)), name).shape == (0, size)
    x = np.ones(3 * size, np.float32)
    x[size + 1] = np.inf
    result = np.isnan(quantize(x, name)).reshape(3, size)
    assert not result[[0, 2]].any()
    assert result[1].sum() == (size if NAMES[name][3] else 2)


def test_float64_and_float32_of_the_same_numbers_agree() -> None:
    x = gauss(128, 3).astype(np.float32)
    for name in NAMES:
        assert np.array_equal(encode(x, name).pack(), encode(x.astype(np.float64), name).pack())


def test_names() -> None:
    assert all(parse(parse(name).name) == parse(name) for name in NAMES)
    for name in ("sq_b10_s75_h8_l4", "sq_b4_s0_h8_l4", "sq_b4_s5_h4_l4", "sq_b4_s5_h17_l4", "sq_b4_s5_h8_l1"):
        with pytest.raises(FormatError):
            parse(name)


@pytest.mark.parametrize("name", ["sq_b64_s75_h8_l4", "sq_b64_s75_h8_l4_mask"])
def test_bytes_that_mark_another_number_of_high_values_are_refused(name: str) -> None:
    size = encode(np.ones(128), name).nbytes
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    with pytest.raises(RangeError, match=f"{name}.*must mark 16 high values"):
        decode(Encoded.unpack(data, name, (128,)))
