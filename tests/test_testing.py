"""`assert_bits_equal` sees every difference of bits, and says where it is."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from lowp._errors import ArgumentTypeError
from lowp.testing import assert_bits_equal

#: Stands in for a format with four exponent bits, three mantissa bits and two NaN codes.
TINY = SimpleNamespace(
    bits=8,
    exponent_bits=4,
    mantissa_bits=3,
    has_nan=True,
    meaning=lambda code: "nan" if code & 0x7F == 0x7F else Fraction(code),
)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int16, np.uint32, np.bool_])
def test_equal_arrays_pass(dtype: type) -> None:
    x = np.arange(12).reshape(3, 4).astype(dtype)
    assert_bits_equal(x, x.copy())
    assert_bits_equal(x[:, ::2], np.ascontiguousarray(x[:, ::2]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_flipped_bit_fails_in_every_position(dtype: type) -> None:
    x = np.ones(1, dtype)
    unsigned = np.dtype(f"u{x.itemsize}")
    for bit in range(8 * x.itemsize):
        y = (x.view(unsigned) ^ unsigned.type(1 << bit)).view(dtype)
        with pytest.raises(AssertionError, match="1 of 1 elements differ"):
            assert_bits_equal(y, x)


def test_zeros_of_different_sign_differ() -> None:
    with pytest.raises(AssertionError, match=r"1\|00000000\|0{23} = -0\.0"):
        assert_bits_equal(np.float32([-0.0]), np.float32([0.0]))


def test_nans_are_equal_unless_their_payload_counts() -> None:
    quiet, other = np.uint32([0x7FC00000, 0xFFC00001]).view(np.float32).reshape(2, 1)
    assert_bits_equal(quiet, other)
    with pytest.raises(AssertionError, match="0xffc00001"):
        assert_bits_equal(quiet, other, nan_payload=True)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_bits_equal(quiet, np.float32([np.inf]))


def test_nan_codes_come_from_the_format() -> None:
    codes, others = np.uint8([0x7F, 1]), np.uint8([0xFF, 1])
    assert_bits_equal(codes, others, TINY)
    for options in ({"fmt": None}, {"fmt": TINY, "nan_payload": True}):
        with pytest.raises(AssertionError, match="1 of 2"):
            assert_bits_equal(codes, others, **options)
    with pytest.raises(AssertionError, match=r"\[0\] actual 0x7f 0\|1111\|111\n +expected 0x7e 0\|1111\|110$"):
        assert_bits_equal(codes, np.uint8([0x7E, 1]), TINY)


def test_a_name_stands_for_its_format() -> None:
    assert_bits_equal(np.uint8([0x7F]), np.uint8([0xFF]), "float8_e4m3fn")
    with pytest.raises(AssertionError, match=r"0\|1111\|110"):
        assert_bits_equal(np.uint8([0x7F]), np.uint8([0x7E]), "float8_e4m3fn")


def test_codes_are_cut_where_the_fields_of_their_format_end() -> None:
    with pytest.raises(AssertionError, match=r"\[0\] actual 0x74 0\|1110\|10\|0\n +expected 0x0f 0\|0001\|11\|1$"):
        assert_bits_equal(np.uint8([0x74]), np.uint8([0x0F]), "posit8_es2")


def test_message_counts_places_and_stops_early() -> None:
    x = np.zeros((4, 5), np.uint16)
    y = x.copy()
    y[1:, :] = 3
    with pytest.raises(AssertionError) as caught:
        assert_bits_equal(x, y, err_context="row sums")
    lines = str(caught.value).splitlines()
    assert lines[0] == "row sums: 15 of 20 elements differ, dtype uint16"
    assert lines[1:3] == ["  [1, 0] actual 0x0000", "       expected 0x0003"]
    assert lines[-1] == "  and 7 more"


def test_scalars_and_lists_take_the_dtype_of_actual() -> None:
    assert_bits_equal(np.float32(0.1), 0.1)
    assert_bits_equal(np.uint8([1, 2]), [1, 2])
    with pytest.raises(AssertionError, match=r"\[0\] actual 0x3f80"):
        assert_bits_equal(np.float32(1), 2.0)


def test_shapes_and_dtypes_must_match() -> None:
    with pytest.raises(AssertionError, match=r"shape \(2,\), expected \(3,\)"):
        assert_bits_equal(np.zeros(2), np.zeros(3))
    with pytest.raises(AssertionError, match="dtype float32, expected float64"):
        assert_bits_equal(np.zeros(2, np.float32), np.zeros(2))
    assert_bits_equal(np.zeros((0, 3)), np.zeros((0, 3)))


@pytest.mark.parametrize("bad", [np.array(["a"]), np.zeros(1, complex), np.array([Fraction(1, 3)])])
def test_arrays_without_a_bit_pattern_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ArgumentTypeError, match="actual has dtype"):
        assert_bits_equal(bad, bad)


def test_dtypes_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.array([1.0, float("nan"), -0.0], ml_dtypes.bfloat16)
    assert_bits_equal(x, x.copy())
    with pytest.raises(AssertionError, match="0x8000 = "):
        assert_bits_equal(x, np.array([1.0, float("nan"), 0.0], ml_dtypes.bfloat16))


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert_bits_equal(x, np.float32([1.0, 2.0]))
    half = torch.tensor([1.0], dtype=torch.bfloat16)
    assert_bits_equal(half, half)
    assert_bits_equal(half, np.uint16([0x3F80]))
