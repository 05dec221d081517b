"""Four Over Six, IF4 and their kin against fouroversix's own arrays, and the rules that those arrays do not reach."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Block, parse
from lowp.rounding import decode, encode, exact, quantize
from lowp.rounding._layout import make_layout
from lowp.rounding.recipes import Scales, choose_scales
from lowp.rounding.request import make_request
from tests.rounding.schemes.scaled import check_round_trip, same_bits

STATIC = (
    "nvfp4_static_6", "nvfp4_static_4", "nvfp4_static_6_2d", "nvint4_static_6", "nvfp6_e2m3_static_6",
    "nvfp6_e3m2_static_6", "mxfp4_static_6", "mxfp4_static_4",
)  # fmt: skip
ADAPTIVE = ("nvfp4_mse", "nvfp4_mae", "nvfp4_abs_max", "nvfp4_mse_2d")
FLAGGED = ("if4_mse", "if4_mae", "if4_abs_max", "if6_e2m3_mse", "if6_e3m2_mse")
#: The format of each file of stochastic vectors.
STOCHASTIC = {
    "nvfp4_static_6_stochastic": "nvfp4_static6",
    "nvfp4_static_6_stochastic_unbiased": "nvfp4_static6_unbiased",
    "mxfp4_static_6_stochastic": "mxfp4_static6",
}
NAN, INF = float("nan"), float("inf")


def nibbles(packed: np.ndarray) -> np.ndarray:
    """Return 4-bit codes from bytes that hold two along the last axis, the first in the low half."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def expected(arrays: Any, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the codes of a case, its scales as rows of blocks, and which of its blocks are no close call."""
    codes = arrays[f"{case}/codes"]
    codes = nibbles(codes) if codes.shape[1] == 64 else codes
    scales = arrays[f"{case}/scales"].reshape(len(codes), -1)
    near = arrays[f"{case}/near_tie"] if f"{case}/near_tie" in arrays else np.zeros(scales.size, bool)
    clear = ~np.broadcast_to(near.reshape(-1, scales.shape[1]), scales.shape)
    return codes, scales, clear


def check_codes(codes: np.ndarray, scales: np.ndarray, arrays: Any, case: str) -> None:
    wanted_codes, wanted_scales, clear = expected(arrays, case)
    np.testing.assert_array_equal(scales[clear], wanted_scales[clear], case)
    elements = np.repeat(clear, codes.shape[1] // scales.shape[1], axis=1)
    np.testing.assert_array_equal(codes[elements], wanted_codes[elements], case)
    assert clear.mean() > 0.2 or np.abs(arrays[f"{case}/x"]).max() in (0, 200) or case.startswith("constant")


def whole(name: str) -> np.float32:
    """The tensor's largest magnitude in units of the tensor scale: largest element times largest scale."""
    fmt = parse(name)
    assert isinstance(fmt, Block)
    element = 4 if fmt.recipe == "fouroversix_4" else fmt.element.max
    scale = 448 if fmt.recipe.startswith(("fouroversix_4", "fouroversix_6")) else 256
    return np.float32(element * scale * (16 / 17 if fmt.recipe.endswith("unbiased") else 1))


@pytest.mark.parametrize("name", [*STATIC, *ADAPTIVE])
def test_codes_and_scales_of_fouroversix(vectors, name):
    z = vectors(f"fouroversix/{name}")
    for case in z["names"]:
        got = encode(z[f"{case}/x"], name)
        scales = np.repeat(got.scales, 16, axis=0) if name.endswith("2d") else got.scales
        check_codes(got.codes, scales, z, case)
        if not name.startswith("mx"):
            assert got.tensor_scale == float(z[f"{case}/amax"] / whole(name))


@pytest.mark.parametrize("name", FLAGGED)
def test_codes_flags_and_amax_of_integer_or_float(vectors, name):
    z = vectors(f"fouroversix/{name}")
    for case in z["names"]:
        fields = encode(z[f"{case}/x"], name).fields
        assert fields is not None
        check_codes(fields["codes"].reshape(16, 128), fields["scales"][..., 0], z, case)
        assert fields["amax"].view(np.float32)[0] == z[f"{case}/amax"]


def scaled_for_draws(x: np.ndarray, name: str) -> tuple[Scales, np.ndarray]:
    """Return the scales of x under stochastic rounding, and the numbers that are to be rounded."""
    fmt = parse(name)
    assert isinstance(fmt, Block)
    request = make_request("stochastic", "saturate", 0, None, 0, "keep", ("keep",))
    with np.errstate(all="ignore"):
        scales = choose_scales(x, make_layout(x.shape, fmt, -1), fmt, request)
        return scales, scales.scaled(x)


def by_draws(scaled: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return E2M1 numbers as fouroversix rounds: a uniform number less a half is added in float32, in grid steps."""
    a, noise = np.abs(scaled), draws - np.float32(0.5)
    low, middle = np.rint(2 * a + noise) / 2, np.rint(a + noise)
    high = np.minimum(2 * np.rint(a / 2 + noise), np.float32(6))
    return np.sign(scaled) * np.where(a < 2, low, np.where(a < 4, middle, high))  # the sign of zeros may flip


@pytest.mark.parametrize("vector", STOCHASTIC)
def test_stochastic_codes_with_recorded_draws(vectors, vector):
    z, name = vectors(f"fouroversix/{vector}"), STOCHASTIC[vector]
    for case in z["names"]:
        x = z[f"{case}/x"]
        scales, scaled = scaled_for_draws(x, name)
        rounded = by_draws(scaled, z[f"{case}/uniform"].reshape(x.shape))
        check_codes(encode(rounded, "fp4").codes, scales.codes, z, case)


@pytest.mark.parametrize("vector", STOCHASTIC)
def test_recorded_draws_as_random_bits_of_stochastic_rounding(vectors, vector):
    """Uniform numbers of torch are 24 bits over 2^24: the same decision but for float32 rounding of the sum."""
    z, name = vectors(f"fouroversix/{vector}"), STOCHASTIC[vector]
    x = z["normal_f32/x"]
    draws = z["normal_f32/uniform"].reshape(x.shape)[:2]
    scaled = scaled_for_draws(x, name)[1][:2]
    ours = [
        exact.encode(float(v), "fp4", "stochastic_a", random=round(float(u) * 2**24) << 8, random_bits=24)
        for v, u in zip(scaled.ravel(), draws.ravel(), strict=True)
    ]
    np.testing.assert_array_equal(decode(ours, "fp4"), decode(expected(z, "normal_f32")[0][:2].ravel(), "fp4"))


def test_worked_example():
    """arXiv:2512.02010, section 3: with the scale 40/6, 30 becomes 26.67; with 40/4 all four numbers are exact."""
    x = np.array([10, 20, 30, 40] + [0] * 12, np.float32)
    six = Block("fp4", 16, "float32", recipe="round")
    assert quantize(x, six)[2] == pytest.approx(26.67, abs=0.005)
    assert quantize(x, "nvfp4_static6")[2] == pytest.approx(26.67, abs=0.005)
    np.testing.assert_array_equal(encode(x, "nvfp4_4over6").codes[:4], [2, 4, 5, 6])  # 1, 2, 3, 4
    np.testing.assert_allclose(quantize(x, "nvfp4_4over6"), x, rtol=1e-7)
    assert encode(x, "nvfp4_4over6").scales[0] == 0x7C  # 384 = 1.5 * 256


def test_a_tie_keeps_six():
    x = np.array([6, 3, 1.5] + [0] * 13, np.float32)  # exact with either scale
    for rule in ("mse", "mae", "abs_max"):
        assert encode(x, f"nvfp4_{rule}").scales[0] == 0x78


def test_values_of_seven_and_more_keep_a_defect_of_the_source():
    """Its rounding to E2M1 has no clamp: 8 gets the code of -0. The exact result would be 6."""
    x = np.zeros((1, 32), np.float32)
    x[0, 0], x[0, 16], x[0, 17] = 2688, 1.4 * 6 * 2**-9, 6.9 * 2**-9  # a scale of 1.4 * 2^-9 rounds to 2^-9
    got = encode(x, "nvfp4_static6")
    assert got.scales[0, 1] == 1
    assert got.codes[0, 16:18].tolist() == [8, 7]
    for rounding in ("stochastic", "toward_zero"):
        assert encode(x, "nvfp4_static6", rounding).codes[0, 16] == 7
    assert quantize(x, "nvfp4_static6")[0, 16] == 0
    assert quantize(x, "nvfp4_torchao")[0, 16] > 0


NAMES = ("if3", "if4", "if6_e2m3", "if6_e3m2", "if4_mae", "if3_abs_max")


@pytest.mark.parametrize("name", NAMES)
def test_packed_bytes_say_the_same(name):
    x = np.random.default_rng(1).laplace(size=(5, 40))
    for rounding in ("ties_to_even", "stochastic"):
        check_round_trip(x.astype(np.float32), name, rounding=rounding)
    check_round_trip(x, name, axis=0)


def test_bits_per_value():
    sizes = {"if3": 3.5, "if4": 4.5, "if6": 6.5, "nvfp4_4over6": 4.5, "nvint4": 4.5, "nvfp6_e2m3": 6.5}
    assert {name: parse(name).bits_per_value for name in sizes} == sizes
    assert parse("nvfp4_4over6_2d").bits_per_value == 4 + 8 / 256
    assert parse("mxfp4_three_quarters").bits_per_value == 4.25
    assert encode(np.ones((4, 64), np.float32), "if4").nbytes == 4 * 32 + 4 * 4 + 4


def test_if3_grids():
    """FP3 holds 0, 1, 2, 4 with ties toward zero, INT3 -3 to 3; both end at 4."""
    floats = np.array([4, 2, 1, -4, -2, -1, 0.5, 1.5, 3, 0] + [0] * 6, np.float32)
    fields = encode(floats, "if3").fields
    assert fields is not None
    assert fields["scales"][0, 0, 0] == 0x7E
    assert fields["codes"][0, 0, :10].tolist() == [3, 2, 1, 7, 6, 5, 0, 1, 2, 0]
    integers = np.array([4, 8 / 3, 4 / 3, -4, -8 / 3, -4 / 3] + [0] * 10, np.float32)
    fields = encode(integers, "if3").fields
    assert fields is not None
    assert fields["scales"][0, 0, 0] == 0xFE
    assert fields["codes"][0, 0, :6].tolist() == [3, 2, 1, 7, 6, 5]
    np.testing.assert_allclose(quantize(integers, "if3"), integers, rtol=1e-6)


@pytest.mark.parametrize("name", ["nvfp4_4over6", "nvfp4_static6", "nvint4", "if4", "if6"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_nan_and_infinity_make_the_whole_tensor_nan(name, bad):
    x = np.array([bad, *range(31)], np.float32)
    assert np.isnan(quantize(x, name)).all()
    assert np.isnan(decode(encode(x, name))).all()


def test_nan_and_infinity_mark_one_block_of_mxfp4():
    for name in ("mxfp4_static6", "mxfp4_mse", "mxfp4_quest", "mxfp4_three_quarters"):
        for bad in (NAN, INF):
            q = quantize(np.array([bad, *range(1, 64)], np.float32), name)
            assert np.isnan(q[:32]).all(), name
            assert np.isfinite(q[32:]).all(), name


@pytest.mark.parametrize("name", [*STATIC, *ADAPTIVE, *NAMES, "ms_eden", "mxfp4_mse", "mxfp4_quest", "mxfp4_amazon"])
def test_zeros_empty_arrays_and_tiny_numbers(name):
    assert np.array_equal(quantize(np.zeros((16, 128), np.float32), name), np.zeros((16, 128)))
    assert quantize(np.zeros((0, 32), np.float32), name).shape == (0, 32)
    tiny = quantize(np.full((16, 128), 1e-40, np.float32), name)
    assert np.isfinite(tiny).all()
    assert (np.abs(tiny) <= 2e-40).all()
    beside_zeros = np.repeat(np.array([0, 1e-37], np.float32), 128)[np.newaxis].repeat(16, axis=0)
    assert np.array_equal(quantize(beside_zeros, name)[:, :128], np.zeros((16, 128)))


@pytest.mark.parametrize("name", ["nvfp4_4over6", "nvfp4_mae", "if4", "nvfp4_fouroversix_mse_unbiased"])
@pytest.mark.filterwarnings("error::lowp.PrecisionWarning")
def test_stochastic_rounding_with_a_choice_warns(name):
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    for verb in (quantize, encode):
        with pytest.warns(lowp.PrecisionWarning, match="chooses between two stochastically rounded results"):
            verb(x, name, "stochastic")
        verb(x, name)
    quantize(x, "nvfp4_static6_unbiased", "stochastic")


def test_names():
    assert parse("fouroversix") == parse("NVFP4-4over6") == parse("nvfp4_mse") == parse("nvfp4_4over6")
    assert parse("if4_mse") == parse("if4")
    assert parse("mxfp4_quartet").name == "mxfp4_quest"
    assert parse("nvint4_fouroversix_4") == parse("nvint4").with_recipe("fouroversix_4")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "fouroversix_mse"}, "needs scale 'float8_e4m3fn'"),
        ({"recipe": "fouroversix_6", "tensor_scale": "fp32"}, "no tensor scale beside E8M0"),
        ({"recipe": "three_quarters"}, "which holds 4/3"),
        ({"recipe": "quest", "element": "int4", "zero_point": True}, "has no zero point"),
    ],
)
def test_blocks_that_the_rules_are_not_for(arguments, message):
    with pytest.raises(lowp.FormatError, match=message):
        Block(**{"element": "fp4", **arguments})


def test_float64_and_padding():
    x = np.random.default_rng(3).standard_normal((3, 21))
    for name in ("nvfp4_4over6", "if4", "nvint4", "mxfp4_three_quarters", "mxfp4_mse", "mxfp4_quest"):
        assert quantize(x, name).dtype == np.float64
        if name.startswith(("nv", "if")):
            padded = np.pad(x, [(0, 0), (0, 11)])
            np.testing.assert_array_equal(quantize(x, name), quantize(padded, name)[:, :21])
        assert same_bits(quantize(x.T.copy(), name, axis=0), quantize(x, name).T)
