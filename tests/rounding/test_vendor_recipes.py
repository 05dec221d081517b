"""Scale recipes of single systems: codes, scales and tensor scale as each system computes them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lowp.formats import Block, parse
from lowp.rounding import decode, encode, quantize

NAN, INF = float("nan"), float("inf")
TORCHAO_ONE_LEVEL = Block("float4_e2m1fn", 16, "float8_e4m3fn", recipe="nvfp4_torchao")
NVFP4 = ("nvfp4", "nvfp4_torchao", "nvfp4_modelopt", TORCHAO_ONE_LEVEL)
ALL = (*NVFP4, "mxfp4_modelopt")


def float32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def nibbles(packed: np.ndarray) -> np.ndarray:
    """Return 4-bit codes from bytes that hold two along the last axis, the first in the low half."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def same_bits(a: Any, b: Any) -> bool:
    """Whether two float arrays agree bit for bit, any NaN equal to any."""
    a, b = np.asarray(a), np.asarray(b)
    unsigned = f"u{a.itemsize}"
    return a.dtype == b.dtype and bool(((a.view(unsigned) == b.view(unsigned)) | (np.isnan(a) & np.isnan(b))).all())


def cases(arrays: Any) -> list[str]:
    return sorted({key.split("/")[0] for key in arrays if "/" in key})


def test_torchao_vectors_equal(vectors):
    z = vectors("torchao/nvfp4")
    assert len(cases(z)) == 28
    for case in cases(z):
        one, two = encode(z[f"{case}/x"], TORCHAO_ONE_LEVEL), encode(z[f"{case}/x"], "nvfp4_torchao")
        for got, name in ((one, "block_only"), (two, "two_level")):
            np.testing.assert_array_equal(got.scales, z[f"{case}/{name}_scales"], err_msg=case)
            np.testing.assert_array_equal(got.codes, nibbles(z[f"{case}/{name}_codes"]), err_msg=case)
        assert one.tensor_scale is None
        assert two.tensor_scale == z[f"{case}/tensor_scale"]


def test_modelopt_nvfp4_vectors_equal(vectors):
    z = vectors("modelopt/nvfp4")
    assert len(cases(z)) == 28
    for case in cases(z):
        got = encode(z[f"{case}/x"], "nvfp4_modelopt")
        np.testing.assert_array_equal(got.scales, z[f"{case}/scales"], err_msg=case)
        np.testing.assert_array_equal(got.codes, nibbles(z[f"{case}/codes"]), err_msg=case)
        assert got.tensor_scale == z[f"{case}/tensor_scale"]
        assert same_bits(decode(got), z[f"{case}/dequant"]), case


def test_modelopt_mxfp4_vectors_equal(vectors):
    z = vectors("modelopt/mxfp4")
    assert len(cases(z)) == 28
    for case in cases(z):
        got = encode(z[f"{case}/x"], "mxfp4_modelopt")
        np.testing.assert_array_equal(got.scales, z[f"{case}/scales"], err_msg=case)
        np.testing.assert_array_equal(got.codes, nibbles(z[f"{case}/codes"]), err_msg=case)


def test_transformer_engine_recipe_agrees_with_fouroversix_where_both_are_defined(vectors):
    """Three known differences of fouroversix: -0, scales that round to 0, and no clamp for quotients of 7 and more."""
    z = vectors("fouroversix/nvfp4_static_6")
    for case in cases(z):
        x = z[f"{case}/x"]
        got, codes = encode(x, "nvfp4_te"), nibbles(z[f"{case}/codes"])
        np.testing.assert_array_equal(got.scales, z[f"{case}/scales"].reshape(16, 8), err_msg=case)
        unit = np.repeat(decode(got.scales, "float8_e4m3fn"), 16, axis=1) * got.tensor_scale
        differs = got.codes != codes
        known = ((x == 0) & np.signbit(x)) | (unit == 0) | (np.abs(x) >= 6.99 * unit)
        assert not (differs & ~known).any(), case


def hard_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    normal = rng.standard_normal((6, 96)).astype(np.float32)
    special = normal.copy()
    for value in (NAN, INF, -INF, 0.0, -0.0, 1e-45):
        special[rng.random(special.shape) < 0.02] = value
    zero_blocks = normal.copy()
    zero_blocks[:, ::64] = 0
    zero_blocks[::2] *= -0.0
    bits = rng.integers(0, 2**32, normal.shape, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return {
        "normal": normal,
        "special": special,
        "zero blocks": zero_blocks,
        "zeros": normal * 0,
        "subnormal": (normal * 1e-42).astype(np.float32),
        "tiny": normal * np.float32(1e-37),
        "huge": normal * np.float32(5e37),
        "wide": (normal * np.ldexp(1.0, rng.integers(-140, 120, (6, 96)))).astype(np.float32),
        "bits": bits,
        "tail": normal[:, :41],
    }


@pytest.mark.parametrize("fmt", ALL, ids=str)
@pytest.mark.parametrize("kind", hard_inputs())
def test_quantize_is_decode_of_encode(fmt, kind):
    x = hard_inputs()[kind]
    for source in (x, x.astype("float64"), x.T):
        assert same_bits(quantize(source, fmt), decode(encode(source, fmt)))


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_element_policy_keeps_nonfinite_elements_out_of_the_scale(fmt):
    x = hard_inputs()["normal"][:1, :32].copy()
    policy = replace(parse(fmt), nonfinite="element")
    x[0, 3] = 0
    clean = encode(x, policy)
    x[0, 3] = NAN
    got = encode(x, policy, nan="max")
    assert np.array_equal(got.scales, clean.scales)
    assert got.tensor_scale == clean.tensor_scale
    assert np.array_equal(np.delete(got.codes, 3), np.delete(clean.codes, 3))
    values = quantize(x, policy)
    assert np.isnan(values[0, 3])
    assert np.isfinite(np.delete(values, 3)).all()


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_element_policy_saturates_infinity_and_accepts_zeros(fmt):
    policy = replace(parse(fmt), nonfinite="element")
    x = hard_inputs()["normal"][0, :32].copy()
    x[[3, 20]] = INF, -INF
    got, values = encode(x, policy), quantize(x, policy)
    assert same_bits(values, decode(got))
    assert np.isfinite(values).all()
    assert values[3] == values[:16].max()
    assert values[20] == values[16:].min()
    assert encode(np.zeros(32, np.float32), policy).codes.shape == (32,)


@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_empty_arrays_have_no_blocks(fmt):
    got = encode(np.zeros((0, 32), np.float32), fmt)
    assert got.codes.shape == (0, 32)
    assert got.scales.size == 0
    assert decode(got).shape == (0, 32)


@pytest.mark.parametrize("mode", ["stochastic", "toward_zero", "ties_to_away"])
@pytest.mark.parametrize("fmt", ALL, ids=str)
def test_other_rounding_modes_stay_within_a_step(fmt, mode):
    x = hard_inputs()["normal"][:, :64]
    nearest, other = quantize(x, fmt), quantize(x, fmt, rounding=mode, seed=3)
    assert np.abs(nearest - other).max() < 1.5
    assert same_bits(other, decode(encode(x, fmt, rounding=mode, seed=3)))


class TestTransformerEngine:
    X = np.array([0.1 * i - 0.7 for i in range(16)], np.float32)

    def test_worked_vector_of_the_largest_block(self):
        got = encode(self.X[None], "nvfp4_te")
        assert decode(got.scales, "float8_e4m3fn").tolist() == [[448.0]]
        assert got.tensor_scale == float(np.float32(1) / np.float32(3360))
        want = [-6, -4, -4, -3, -2, -1.5, -0.5, 0, 0.5, 1.5, 2, 3, 4, 4, 6, 6]
        assert decode(got.codes, "float4_e2m1fn").tolist() == [want]

    def test_worked_vector_with_tensor_maximum_2688(self):
        other = np.zeros(16, np.float32)
        other[0] = 2688
        got = encode(np.stack([self.X, other]), "nvfp4_te")
        assert got.tensor_scale == 1.0
        assert decode(got.scales, "float8_e4m3fn").tolist() == [[0.140625], [448.0]]
        want = [-4, -4, -4, -3, -2, -1.5, -0.5, 0, 0.5, 1.5, 2, 3, 4, 4, 4, 6]
        assert decode(got.codes[0], "float4_e2m1fn").tolist() == want

    def test_zero_blocks_have_scale_zero_and_keep_the_sign_of_zeros(self):
        got = encode(float32(*[0.0] * 8, *[-0.0] * 8), "nvfp4_te")
        assert got.scales.tolist() == [0]
        assert got.tensor_scale == 1.0
        assert got.codes.tolist() == [0] * 8 + [8] * 8

    def test_a_block_too_small_for_a_scale_gets_scale_zero_and_the_largest_codes(self):
        x = np.zeros((2, 16), np.float32)
        x[0, 0], x[1, :2] = 1, (1e-7, -1e-7)
        got = encode(x, "nvfp4_te")
        assert got.scales.tolist() == [[126], [0]]
        assert got.codes[1].tolist() == [7, 15] + [0] * 14
        assert np.all(quantize(x, "nvfp4_te")[1] == 0)

    def test_subnormal_tensor_uses_the_largest_encode_scale(self):
        got = encode(np.full(16, 1e-40, np.float32), "nvfp4_te")
        assert got.tensor_scale == 2.0**-128
        assert got.scales.tolist() == [3]

    def test_nan_is_passed_over_and_becomes_six(self):
        x = np.full(16, 0.5, np.float32)
        x[3] = NAN
        got, clean = encode(x, "nvfp4_te"), encode(np.full(16, 0.5, np.float32), "nvfp4_te")
        assert got.scales.tolist() == clean.scales.tolist()
        assert got.tensor_scale == clean.tensor_scale
        assert got.codes.tolist() == [7] * 16
        assert np.isfinite(decode(got)).all()

    def test_infinity_makes_the_tensor_scale_one_and_its_block_scale_the_largest(self):
        x = np.full(32, 1.0, np.float32)
        x[:2] = INF, -INF
        got = encode(x, "nvfp4_te")
        assert got.tensor_scale == 1.0
        assert got.scales.tolist() == [126, 35]
        assert got.codes[:3].tolist() == [7, 15, 0]
        assert set(got.codes[16:].tolist()) == {7}

    def test_two_dimensional_blocks_share_a_scale(self):
        tile = Block("float4_e2m1fn", (16, 16), "float8_e4m3fn", "float32", recipe="nvfp4_te")
        x = hard_inputs()["normal"][:, :32].repeat(6, axis=0)[:32]
        got = encode(x, tile)
        assert got.scales.shape == (2, 2)
        assert got.tensor_scale == encode(x, "nvfp4_te").tensor_scale


class TestTorchao:
    def test_zero_blocks_have_the_smallest_normal_scale(self):
        got = encode(float32(*[0.0] * 8, *[-0.0] * 8), TORCHAO_ONE_LEVEL)
        assert got.scales.tolist() == [8]
        assert got.codes.tolist() == [0] * 8 + [8] * 8

    def test_an_all_zero_tensor_divides_zero_by_zero(self):
        got = encode(np.zeros(16, np.float32), "nvfp4_torchao")
        assert got.tensor_scale == 0
        assert got.scales.tolist() == [0xFF]
        assert got.codes.tolist() == [12] * 16

    def test_a_tensor_scale_that_underflows_divides_by_zero(self):
        x = np.full(32, 1e-42, np.float32)
        x[0], x[16:] = 0, 0
        got = encode(x, "nvfp4_torchao")
        assert got.tensor_scale == 0
        assert got.scales.tolist() == [126, 0xFF]
        assert got.codes.tolist() == [11] + [7] * 15 + [12] * 16

    def test_nan_without_tensor_scale_stays_in_its_block(self):
        x = np.linspace(-2, 2, 32).astype(np.float32)
        x[3] = NAN
        got = encode(x, TORCHAO_ONE_LEVEL)
        assert got.scales.tolist() == [0x7F, 43]
        assert got.codes[:16].tolist() == [4] * 16
        assert got.codes[16:].tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7]

    def test_nan_with_tensor_scale_reaches_every_block(self):
        x = np.linspace(-2, 2, 32).astype(np.float32)
        x[3] = NAN
        got = encode(x, "nvfp4_torchao")
        assert np.isnan(got.tensor_scale)
        assert got.scales.tolist() == [0x7F, 0xFF]
        assert set(got.codes.tolist()) == {12}

    def test_infinity_takes_the_largest_scale_alone_and_nan_with_a_tensor_scale(self):
        x = np.linspace(-2, 2, 32).astype(np.float32)
        x[3], x[4] = INF, -0.0
        one, two = encode(x, TORCHAO_ONE_LEVEL), encode(x, "nvfp4_torchao")
        assert one.scales.tolist() == [126, 43]
        assert one.codes[:16].tolist() == [8, 8, 8, 7] + [8] * 12
        assert two.tensor_scale == INF
        assert two.scales.tolist() == [0xFF, 8]
        assert two.codes.tolist() == [12] * 16 + [0] * 16

    def test_elements_are_multiplied_by_a_reciprocal(self):
        """The product with 1 / scale rounds up to the tie 1.75, the quotient stays below it."""
        x = np.zeros(16, np.float32)
        x[:2] = 6 * 0.02734375, 0.0478515587747097
        divided = Block("float4_e2m1fn", 16, "float8_e4m3fn", recipe="nvfp4_modelopt")
        assert encode(x, TORCHAO_ONE_LEVEL).codes[:2].tolist() == [7, 4]
        assert encode(x, divided).codes[:2].tolist() == [7, 3]


class TestModelOpt:
    def test_zero_blocks_have_scale_one_and_no_negative_zero(self):
        x = np.zeros((2, 16), np.float32)
        x[0], x[1, 0] = 1, -0.0
        got = encode(x, "nvfp4_modelopt")
        assert decode(got.scales, "float8_e4m3fn").tolist() == [[448.0], [1.0]]
        assert got.codes[1].tolist() == [0] * 16

    def test_an_all_zero_tensor_has_nan_scales_and_codes_seven(self):
        got = encode(np.zeros(16, np.float32), "nvfp4_modelopt")
        assert got.tensor_scale == 0
        assert got.scales.tolist() == [0xFF]
        assert got.codes.tolist() == [7] * 16

    def test_a_scale_that_rounds_to_zero_divides_by_zero(self):
        x = np.zeros((2, 16), np.float32)
        x[0, 0], x[1, :2] = 1, (1e-7, -1e-7)
        got = encode(x, "nvfp4_modelopt")
        assert got.scales.tolist() == [[126], [0]]
        assert got.codes[1].tolist() == [7, 15] + [7] * 14

    def test_nan_makes_every_scale_nan_and_infinity_leaves_zeros_elsewhere(self):
        x = np.linspace(-2, 2, 32).astype(np.float32)
        x[3] = NAN
        got = encode(x, "nvfp4_modelopt")
        assert got.scales.tolist() == [0x7F, 0x7F]
        assert got.codes.tolist() == [7] * 32
        x[3] = INF
        got = encode(x, "nvfp4_modelopt")
        assert got.tensor_scale == INF
        assert got.scales.tolist() == [0xFF, 56]
        assert got.codes.tolist() == [7] * 16 + [0] * 16

    def test_mxfp4_rounds_ties_toward_zero_and_zeros_are_negative(self):
        x = np.zeros(32, np.float32)
        x[:9] = 6, 5, 3.5, 2.5, 1.75, 1.25, 0.75, 0.25, -0.25
        got = encode(x, "mxfp4_modelopt")
        assert got.scales.tolist() == [127]
        assert got.codes.tolist() == [7, 6, 5, 4, 3, 2, 1, 0, 8] + [8] * 23

    def test_mxfp4_logarithm_rounds_just_above_a_power_of_two_down(self):
        """Exactly amax / 6 = 1024 * (1 + 2^-23) needs 2^11; its float32 logarithm is 10."""
        x = np.zeros(32, np.float32)
        x[0] = np.nextafter(np.float32(6 * 1024), np.float32(INF))
        assert encode(x, "mxfp4_modelopt").scales.tolist() == [137]
        assert encode(x, Block("float4_e2m1fn", recipe="rceil")).scales.tolist() == [138]

    @pytest.mark.parametrize("value", [NAN, INF, -INF, 0.0])
    def test_mxfp4_blocks_of_nan_infinity_or_zero_are_negative_zeros(self, value):
        x = np.ones(32, np.float32) * (value == value and abs(value) == INF)
        x[0] = value
        got = encode(x, "mxfp4_modelopt")
        assert got.scales.tolist() == [0]
        assert set(got.codes.tolist()) == {8}


def test_float64_input_is_rounded_to_float32_first():
    x = np.full(16, 1 + 2.0**-40)
    for fmt in NVFP4:
        assert encode(x, fmt).codes.tolist() == encode(x.astype(np.float32), fmt).codes.tolist()


def test_bfloat16_input_counts_by_value():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = hard_inputs()["normal"].astype(ml_dtypes.bfloat16)
    for fmt in ALL:
        got, wide = encode(x, fmt), encode(x.astype(np.float32), fmt)
        assert np.array_equal(got.codes, wide.codes)
        assert np.array_equal(got.scales, wide.scales)
