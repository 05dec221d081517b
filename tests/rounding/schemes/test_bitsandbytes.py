"""bitsandbytes: bytes of bitsandbytes 0.50.2 itself, double quantization included."""

import re

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp._errors import ArgumentError, FormatError
from lowp.formats import parse
from lowp.rounding.schemes.bitsandbytes import _mean
from tests.conftest import Vectors

DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
NORMAL = np.random.default_rng(0).standard_normal((128, 1024))
LAPLACE = np.random.default_rng(0).laplace(size=(128, 1024))


def cases(z: dict[str, np.ndarray]) -> list[tuple[str, list[str]]]:
    """Names of the cases in a file, whole and in parts."""
    names = sorted({key.split("/")[0] for key in z})
    return [(name, name.split("_")) for name in names]


def test_four_bit_bytes_and_values(vectors: Vectors) -> None:
    z = dict(vectors("bitsandbytes/blockwise4"))
    assert len(cases(z)) == 16
    for case, (kind, size, _, dtype) in cases(z):
        encoded = lowp.encode(z[f"{case}/x"], f"bnb_{kind}_b{size[2:]}")
        assert encoded.fields is not None
        expected = np.concatenate([z[f"{case}/codes"].ravel(), z[f"{case}/absmax"].view(np.uint8)])
        assert np.array_equal(encoded.pack(), expected), case
        decoded = lowp.decode(encoded, dtype=DTYPES[dtype]).astype(np.float32)
        assert np.array_equal(decoded, z[f"{case}/dequant_default"]), case
        assert np.array_equal(decoded, z[f"{case}/dequant_cpu_native"]), case


def test_eight_bit_codes_are_the_portable_definition(vectors: Vectors) -> None:
    """`codes_default`, not the compiled path, whose lookup table is not nearest."""
    z = dict(vectors("bitsandbytes/blockwise8"))
    assert len(cases(z)) == 24
    for case, (kind, size, _, _) in cases(z):
        packed = lowp.encode(z[f"{case}/x"], f"bnb_dynamic8_{kind}_b{size[2:]}").pack()
        expected = np.concatenate([z[f"{case}/codes_default"].ravel(), z[f"{case}/absmax"].view(np.uint8)])
        assert np.array_equal(packed, expected), case


def test_double_quantization(vectors: Vectors) -> None:
    z = dict(vectors("bitsandbytes/blockwise4"))
    compared = 0
    for case, (kind, size, _, dtype) in cases(z):
        encoded = lowp.encode(z[f"{case}/x"], f"bnb_{kind}_dq_b{size[2:]}")
        fields = encoded.fields
        assert fields is not None
        assert np.array_equal(fields["offset"].view(np.float32), z[f"{case}/dq_offset"].reshape(1)), case
        assert np.array_equal(fields["nested_absmax"].view(np.float32).ravel(), z[f"{case}/dq_state2_absmax"]), case
        assert np.array_equal(fields["absmax_codes"].ravel(), z[f"{case}/dq_absmax_codes_default"]), case
        # The compiled path has values of its own only where it took the same codes of the magnitudes.
        if np.array_equal(z[f"{case}/dq_absmax_codes"], z[f"{case}/dq_absmax_codes_default"]) and dtype == "f32":
            assert np.array_equal(lowp.decode(encoded), z[f"{case}/dq_dequant_cpu_native"]), case
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize("count", [0, 1, 9, 100, 513, 5000, 40000])
def test_the_mean_adds_in_the_order_of_pytorch(count: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.abs(np.random.default_rng(count).standard_normal(count)).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = torch.from_numpy(x).mean().item() if count else 0.0
    torch.set_num_threads(threads)
    assert float(_mean(x)) == expected


@pytest.mark.parametrize(
    "name", ["bnb_nf4", "bnb_fp4", "bnb_nf4_dq", "bnb_dynamic8_signed", "bnb_dynamic6_unsigned_b32"]
)
@pytest.mark.parametrize("shape", [(3, 50), (7,), (2, 3, 130), (300, 64), (0, 4)])
def test_blocks_run_across_rows_and_bytes_end_with_the_array(name: str, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    fmt = parse(name)
    encoded = lowp.encode(x, fmt)
    flat = lowp.encode(x.ravel(), fmt)
    assert np.array_equal(encoded.pack(), flat.pack())
    blocks = -(-x.size // fmt.block_elements)  # type: ignore[attr-defined]
    bits = fmt.fields[0].bits * fmt.fields[0].count // fmt.block_elements  # type: ignore[attr-defined]
    scales = blocks + 4 * -(-blocks // 256) + 4 if "dq" in name else 4 * blocks
    assert encoded.nbytes == -(-x.size * bits // 8) + scales == encoded.pack().size
    again = lowp.Encoded.unpack(encoded.pack(), fmt, shape, dtype=np.float32)
    assert np.array_equal(lowp.decode(again), lowp.decode(encoded))
    assert np.array_equal(lowp.quantize(x, fmt), lowp.decode(encoded))


def test_an_odd_array_ends_in_the_code_of_zero() -> None:
    """Padding of bitsandbytes: it fills up with 0, whose NF4 code is 7."""
    assert lowp.encode(np.array([1.0, -1.0, 1.0], np.float32), "bnb_nf4").pack()[:2].tolist() == [0xF0, 0xF7]


def test_fp4_has_two_codes_of_zero_and_uses_the_second_above_it() -> None:
    x = np.array([1.0, 1e-3, -1e-3, 0.0, -0.0, -1.0], np.float32)
    assert lowp.encode(x, "bnb_fp4").pack()[:3].tolist() == [0x38, 0x00, 0x0B]
    assert lowp.quantize(x, "bnb_fp4").tolist() == [1, 0, 0, 0, 0, -1]


def test_what_is_not_finite_makes_its_block_nan_and_no_other() -> None:
    x = np.ones(192, np.float32)
    x[[3, 70]] = np.nan, np.inf
    assert np.isnan(lowp.quantize(x, "bnb_nf4")).tolist() == [True] * 128 + [False] * 64
    assert lowp.quantize(x, "bnb_nf4", nan="zero")[:4].tolist() == [1, 1, 1, 0]
    assert lowp.quantize(np.zeros(9), "bnb_dynamic8_signed").tolist() == [0] * 9


def test_other_rounding_modes_work_and_axes_do_not() -> None:
    x = NORMAL[:1].astype(np.float32)
    down, up = (lowp.quantize(x, "bnb_nf4", mode) for mode in ("toward_negative", "toward_positive"))
    assert (down <= x).mean() > 0.999  # the product with the rounded reciprocal may end a hair inside
    assert (up >= x).mean() > 0.999
    random = lowp.quantize(np.repeat(x, 64, axis=0), "bnb_nf4", "stochastic", seed=1)
    assert abs((random - x).mean() / x.std()) < 1e-3
    with pytest.raises(ArgumentError, match="flattened array; leave axis out"):
        lowp.encode(x, "bnb_nf4", axis=0)


@pytest.mark.parametrize(
    "name", ["bnb_nf4_b63", "bnb_nf4_b0", "bnb_dynamic8_signed_e8", "bnb_dynamic4_signed_e4", "bnb_nf5"]
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(FormatError, match=re.escape(name)):
        parse(name)


def test_a_block_format_says_where_its_values_are() -> None:
    with pytest.raises(FormatError, match="Its elements alone are 'bnb_fp4_values'"):
        lowp.values("bnb_fp4")


@pytest.mark.parametrize(
    ("name", "normal", "laplace"),
    [
        # Relative squared errors, absmax blocks of 64 and 256: QLoRA, arXiv:2305.14314, and
        # Learning from Students, arXiv:2405.03103, compare these codebooks.
        ("bnb_nf4", 8.46e-3, 1.07e-2),
        ("sf4_g64", 1.08e-2, 1.13e-2),
        ("bnb_fp4", 1.49e-2, 2.27e-2),
        ("float4_e2m1fn_g64", 1.12e-2, 1.26e-2),
        ("int4_sym_g64", 1.16e-2, 1.98e-2),
        ("bnb_dynamic8_signed", 1.173e-4, None),
        ("int8_sym_g256", 4.86e-5, None),
    ],
)
def test_errors_on_normal_and_laplace_numbers(name: str, normal: float, laplace: float | None) -> None:
    for x, expected in ((NORMAL, normal), (LAPLACE, laplace)):
        if expected:
            error = ((lowp.quantize(x, name) - x) ** 2).mean() / (x**2).mean()
            assert error == pytest.approx(expected, rel=0.015)


def test_bits_per_value() -> None:
    """Double quantization takes 4 + 8/64 + 32/(64*256) bits per value, QLoRA, arXiv:2305.14314, section 3."""
    assert parse("bnb_nf4_dq").bits_per_value == 4 + 8 / 64 + 32 / (64 * 256)  # type: ignore[attr-defined]
    assert round(parse("bnb_nf4_dq").bits_per_value, 3) == 4.127  # type: ignore[attr-defined]
    assert parse("bnb_nf4").bits_per_value == 4.5  # type: ignore[attr-defined]
    assert parse("bnb_dynamic8_unsigned").bits_per_value == 8.125  # type: ignore[attr-defined]
