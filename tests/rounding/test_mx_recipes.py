"""Scale recipes of the standards: against worked tables, independent programs and the exact oracle."""

from typing import Any

import numpy as np
import pytest

from lowp.formats import Block, Fixed, Float, Integer, parse
from lowp.formats.tables import decode_codes
from lowp.rounding import decode, encode, quantize
from lowp.rounding.exact_block import EXACT_RECIPES, decode_block, encode_block

NAN, INF = float("nan"), float("inf")
RECIPES = ("floor", "ceil", "even", "rceil")
ELEMENTS = {
    "fp4_e2m1": "float4_e2m1fn",
    "fp6_e2m3": "float6_e2m3fn",
    "fp6_e3m2": "float6_e3m2fn",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
}


def scale_code(amax: float, element: str, recipe: str) -> int:
    x = np.zeros(32, np.float32)
    x[5] = -amax
    return int(encode(x, Block(element, recipe=recipe)).scales[0])


@pytest.mark.parametrize(
    ("element", "amax", "codes"),
    [
        ("float8_e4m3fn", 224, (126, 127, 126, 126)),
        ("float8_e4m3fn", 226.24, (126, 127, 126, 127)),
        ("float8_e4m3fn", 256, (127, 127, 127, 127)),
        ("float8_e4m3fn", 403.2, (127, 128, 127, 127)),
        ("float8_e4m3fn", 448, (127, 128, 127, 127)),
        ("float8_e4m3fn", 452.5, (127, 128, 127, 128)),
        ("float8_e4m3fn", 512, (128, 128, 128, 128)),
        ("float8_e4m3fn", 1, (119, 119, 119, 119)),
        ("float8_e4m3fn", 0, (0, 0, 0, 0)),
        ("float4_e2m1fn", 3, (126, 127, 126, 126)),
        ("float4_e2m1fn", 5.4, (127, 128, 127, 127)),
        ("float4_e2m1fn", 6, (127, 128, 127, 127)),
        ("float4_e2m1fn", 6.06, (127, 128, 127, 128)),
        ("float4_e2m1fn", 7, (127, 128, 128, 128)),
        ("float4_e2m1fn", 8, (128, 128, 128, 128)),
        ("float8_e5m2", 63078, (127, 128, 128, 128)),
        ("float8_e5m2", 2.0**-149, (0, 0, 0, 0)),
        ("float4_e2m1fn", 3.4e38, (252, 253, 253, 253)),
    ],
)
def test_biased_scale_of_a_block_maximum(element, amax, codes):
    assert tuple(scale_code(amax, element, recipe) for recipe in RECIPES) == codes


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nan_and_infinity_make_the_block_nan(recipe, value):
    x = np.ones((2, 32), np.float32)
    x[0, 7] = value
    fmt = Block("float8_e4m3fn", recipe=recipe)
    got = encode(x, fmt)
    assert got.scales[0, 0] == 255
    assert got.scales[1, 0] != 255
    assert set(got.codes[0].tolist()) == {0}
    assert np.isnan(quantize(x, fmt)[0]).all()
    assert (quantize(x, fmt)[1] == 1).all()


def torchao_cases(z: Any, size: int, recipe: str, suffix: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return input, scales and codes, one code an entry."""
    key = f"bs{size}_{recipe}{suffix}"
    x, codes = z["x"], z[f"{key}_codes"]
    if suffix:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        with np.errstate(over="ignore"):
            x = x.astype(ml_dtypes.bfloat16)
    if codes.shape != x.shape:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(x.shape)
    return x, z[f"{key}_scales"], codes


@pytest.mark.parametrize("suffix", ["", "_bf16in"])
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ELEMENTS)
def test_torchao_mx_vectors_equal(vectors, name, recipe, size, suffix):
    """All scales and codes but two cases: infinity counts as 2^128 there; to elements scale code 0 is not 2^-127."""
    x, scales, codes = torchao_cases(vectors(f"torchao/mx_{name}"), size, recipe, suffix)
    fmt = Block(ELEMENTS[name], size, recipe=recipe)
    got = encode(x, fmt)
    wide = x.astype(np.float32)
    infinite = np.isinf(wide.reshape(69, -1, size)).any(axis=-1)
    np.testing.assert_array_equal(got.scales[~infinite], scales[~infinite])
    assert (got.scales[infinite] == 255).all()
    assert infinite.sum() <= 3
    live = np.repeat((got.scales > 0) & (got.scales < 255), size, axis=1)
    assert live.mean() > 0.7
    np.testing.assert_array_equal(got.codes[live], codes[live])
    smallest = np.repeat(got.scales == 0, size, axis=1)
    assumed = 1.0 if recipe == "rceil" else 2.0**126
    theirs = encode(wide[smallest] * np.float32(assumed), ELEMENTS[name]).codes
    np.testing.assert_array_equal(theirs, codes[smallest])


MICROXCALING = {
    "int8": Fixed(8, 6, symmetric=True),
    "int4": Fixed(4, 2, symmetric=True),
    "int2": Fixed(2, 0, symmetric=True),
    **{name: parse(fmt) for name, fmt in ELEMENTS.items()},
}
MODES = {"nearest": "ties_to_away", "floor": "toward_zero", "even": "ties_to_even"}
SCALES = {
    "sb8": parse("float8_e8m0fnu"),
    "sb5": Float(5, 0, bias=15, signed=False, subnormals=False, specials="fn", zero=False),
}


def rounds_up_to_a_power_of_two(magnitude: np.ndarray) -> np.ndarray:
    """Whether a float32 logarithm takes the number for one of the next binade."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log2(magnitude.astype(np.float64)).astype(np.float32)
    return np.floor(logarithm) > np.frexp(magnitude)[1] - 1


def microxcaling_case(z: Any, key: str) -> tuple[np.ndarray, np.ndarray, int, str, str]:
    """Return the input, what stays outside the comparison, block size, scale name and rounding mode of a case."""
    size_name, scale, flush, mode = key.split("_")
    size, x = int(size_name[2:]), z["x"].copy()
    blocks = x.reshape(len(x), -1, size)
    amax = np.abs(blocks).max(axis=-1)
    if flush == "flush1":  # blocks of subnormal numbers become zero
        blocks[amax < 2.0**-126] = 0
    edge = (z["log2_edge"].reshape(blocks.shape) & (np.abs(blocks) == amax[..., None])).any(axis=-1)
    out = edge | ~(amax < 2.0**127) | (z[f"{size_name}_{scale}_scale_exp"] == -32768)
    return x, out, size, scale, MODES[mode]


@pytest.mark.parametrize("name", MICROXCALING)
def test_microxcaling_vectors_equal(vectors, name):
    """All values, signs of zero aside, where its float32 logarithm is right; scales of zero blocks differ by design."""
    z = vectors(f"microxcaling/mx_{name}")
    keys = [key for key in z if key.startswith("bs") and not key.endswith("scale_exp")]
    assert len(keys) == 14
    for key in keys:
        x, out, size, scale, mode = microxcaling_case(z, key)
        fmt = Block(MICROXCALING[name], size, SCALES[scale], recipe="floor")
        exponents = np.log2(decode_codes(encode(x, fmt).scales, fmt.scale))
        nonzero = np.abs(x).reshape(len(x), -1, size).max(axis=-1) > 0
        theirs = z["_".join(key.split("_")[:2]) + "_scale_exp"]
        np.testing.assert_array_equal(exponents[~out & nonzero], theirs[~out & nonzero], err_msg=key)
        scaled = np.abs(x) / np.exp2(np.repeat(exponents, size, axis=1))
        kept = ~np.repeat(out, size, axis=1) & ~z["log2_edge"] & ~rounds_up_to_a_power_of_two(scaled)
        assert kept.mean() > 0.5, key
        np.testing.assert_array_equal(quantize(x, fmt, mode)[kept], z[key][kept], err_msg=key)


ELEMENT_FORMATS = (
    "float4_e2m1fn",
    "float6_e3m2fn",
    "float8_e4m3fn",
    "float8_e5m2",
    Integer(4),
    Integer(8, symmetric=True),
)
SCALE_FORMATS = ("float8_e8m0fnu", "float8_e4m3fn", "float16", "float32", "float8_ue5m3")


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Numbers of many magnitudes with ties, zeros and powers of two among them."""
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-12, 12, (*shape[:-1], 1)))
    lattice = rng.integers(-32, 33, shape) * 0.125
    x = np.where(rng.random(shape) < 0.4, lattice, x)
    x[rng.random(shape) < 0.1] = 0
    return x.astype(dtype)


def assert_equals_oracle(x: np.ndarray, fmt: Block, axis: int, mode: str = "ties_to_even") -> None:
    got, values = encode(x, fmt, mode, axis=axis), quantize(x, fmt, mode, axis=axis)
    decoded = decode(got)
    assert np.array_equal(decoded, values, equal_nan=True)
    moved = [np.moveaxis(a, axis, -1) for a in (x, got.codes, got.scales, values)]
    zeros = None if got.zero_points is None else np.moveaxis(got.zero_points, axis, -1)
    for row in np.ndindex(moved[0].shape[:-1]):
        for block in range(moved[2].shape[-1]):
            part = slice(block * fmt.size, (block + 1) * fmt.size)
            numbers, codes = moved[0][row][part].tolist(), moved[1][row][part].tolist()
            scale, want, zero = encode_block(
                numbers, fmt.element, fmt.scale, fmt.recipe, zero_point=fmt.zero_point, rounding=mode
            )
            assert (moved[2][row][block], codes) == (scale, want), (numbers, fmt)
            if zeros is not None:
                assert int(zeros[row][block]) == zero % (1 << fmt.bits)
            exact = [float(v) for v in decode_block(scale, want, zero, fmt.element, fmt.scale)]
            np.testing.assert_array_equal(moved[3][row][part], np.array(exact).astype(x.dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("element", ELEMENT_FORMATS, ids=str)
@pytest.mark.parametrize("recipe", EXACT_RECIPES)
def test_random_blocks_equal_the_exact_oracle(recipe, element, dtype):
    rng = np.random.default_rng(sum(map(ord, recipe + str(element))))
    powers = recipe in ("floor", "ceil", "even")
    for scale in SCALE_FORMATS[:1] if powers else SCALE_FORMATS:
        for size, shape, axis in ((8, (2, 21), -1), (5, (13, 2), 0), (1, (1, 4), -1)):
            assert_equals_oracle(random_array(rng, shape, dtype), Block(element, size, scale, recipe=recipe), axis)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("element", [Integer(4, signed=False), Integer(4), Integer(8, signed=False)], ids=str)
@pytest.mark.parametrize("recipe", EXACT_RECIPES)
def test_zero_points_equal_the_exact_oracle(recipe, element, dtype):
    rng = np.random.default_rng(sum(map(ord, recipe + str(element))))
    powers = recipe in ("floor", "ceil", "even")
    for scale in ("float8_e8m0fnu",) if powers else ("float8_e8m0fnu", "float16", "float32"):
        for shift in (0.0, 3.0, -3.0):
            x = random_array(rng, (3, 19), dtype) + dtype(shift)
            assert_equals_oracle(x, Block(element, 8, scale, zero_point=True, recipe=recipe), -1)


@pytest.mark.parametrize("low", [-(2.0**-60), -(2.0**-1000)])
def test_a_span_that_float64_cannot_hold_still_rounds_up(low):
    fmt = Block("uint4", 2, "float16", zero_point=True, recipe="rceil")
    assert_equals_oracle(np.array([[15.0, low], [15.0, 0.0]]), fmt, -1)
    assert decode_codes(encode([[15.0, low]], fmt).scales, parse("float16")).tolist() == [[1.0009765625]]


@pytest.mark.parametrize("mode", ["ties_to_away", "toward_zero", "toward_positive", "to_odd"])
def test_other_rounding_modes_equal_the_exact_oracle(mode):
    rng = np.random.default_rng(4)
    for fmt in (Block("float4_e2m1fn"), Block("float6_e2m3fn", 7, recipe="rceil"), Block("int4", 16, "float16")):
        assert_equals_oracle(random_array(rng, (3, 40), np.float32), fmt, -1, mode)
