"""One operand through a cast: axes, rotation, scales in front, masks, reuse; and the bits that methods promise."""

import numpy as np
import pytest

from lowp import ArgumentError, Cast, Recipe, parse, quantize
from lowp.emulation._blockwise import block_largest, tree_sum
from lowp.emulation._numpy_world import NUMPY, NumpyWorld
from lowp.emulation.casting import Rounded, World, rotate_back, round_operand, scale_of
from lowp.emulation.methods import GAUSSIAN_GRIDS, METHODS
from tests.emulation import recipe_reference as ref

X = np.random.default_rng(3).standard_normal((96, 160)).astype(np.float32)


def rounded(cast: Cast, x: np.ndarray = X, axis: int = 1, **options) -> Rounded:
    return round_operand(NUMPY, x, cast, axis=axis, **options)


def test_the_numpy_world_is_a_world():
    world: World = NUMPY
    wanted = {name for name in vars(World) if not name.startswith("_")}
    assert wanted <= set(dir(world))
    assert isinstance(world, NumpyWorld)


def test_a_cast_that_changes_nothing_returns_the_operand():
    assert rounded(Cast()).values is X


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
@pytest.mark.parametrize("fmt", ["bfloat16", "mxfp4", "nvfp4", "int8_row", "fp8_tile128", "ggml_q4_0"])
def test_plain_rounding_is_quantize_along_the_contraction_axis(fmt, axis):
    along = (1 - axis % 2, axis % 2) if fmt == "fp8_tile128" else axis
    along = -1 if fmt == "bfloat16" else along
    np.testing.assert_array_equal(rounded(Cast(fmt), axis=axis).values, quantize(X, fmt, axis=along))


def test_other_axes_rounding_and_seeds():
    cube = X.reshape(4, 24, 160)
    np.testing.assert_array_equal(rounded(Cast("mxfp4", axis="outer"), outer=0).values, quantize(X, "mxfp4", axis=0))
    np.testing.assert_array_equal(rounded(Cast("mxfp4", axis="last"), axis=0).values, quantize(X, "mxfp4", axis=1))
    np.testing.assert_array_equal(
        rounded(Cast("mxfp4", axis="outer"), cube, axis=2).values, quantize(cube, "mxfp4", axis=1)
    )
    noisy = rounded(Cast("mxfp4", rounding="stochastic_b", random_bits=8), seed=4).values
    np.testing.assert_array_equal(noisy, quantize(X, "mxfp4", "stochastic_b", seed=4, random_bits=8))
    wrapped = rounded(Cast("int4", overflow="wrap"), X * 100).values
    np.testing.assert_array_equal(wrapped, quantize(X * 100, "int4", overflow="wrap"))


def test_dtypes():
    """Half precision is computed and returned in float32, without a rounding to float16; float64 stays."""
    half = X.astype(np.float16)
    values = rounded(Cast("nvfp4"), half).values
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, quantize(half.astype(np.float32), "nvfp4"))
    assert (values.astype(np.float16) != values).any()
    wide = rounded(Cast("nvfp4"), X.astype(np.float64)).values
    assert wide.dtype == np.float64
    assert rounded(Cast("nvfp4", method="ms_eden", hadamard=32), X.astype(np.float64)).values.dtype == np.float64
    assert rounded(Cast("int4_t32x32", method="gauss_noise"), X.astype(np.float64)).values.dtype == np.float64


@pytest.mark.parametrize("shape", [(0, 160), (96, 0)])
@pytest.mark.parametrize(
    "cast",
    [Cast("mxfp4"), Cast("fp8", scaling="current"), Cast("int4_row", method="quest", hadamard=16), Cast(hadamard=16)],
)
def test_empty_operands(shape, cast):
    assert rounded(cast, np.zeros(shape, np.float32)).values.shape == shape


@pytest.mark.parametrize("signs", ["random", "fixed", "none"])
@pytest.mark.parametrize("axis", [0, 1])
def test_rotation_and_back(signs, axis):
    cast = Cast(hadamard=32, signs=signs)
    turned = rounded(cast, axis=axis, sign_seed=11).values
    moved = turned.T if axis == 0 else turned
    plain = ref.rotated(X.T if axis == 0 else X, 32)
    assert np.allclose(np.abs(moved), np.abs(plain), atol=1e-5) == (signs == "none")
    np.testing.assert_allclose(np.sum(turned.astype(np.float64) ** 2), np.sum(X.astype(np.float64) ** 2), rtol=1e-5)
    np.testing.assert_allclose(rotate_back(NUMPY, turned, cast, axis, 11), X, atol=1e-5)
    assert rotate_back(NUMPY, X, Cast("mxfp4"), axis, 11) is X


def test_rotation_comes_before_rounding():
    cast = Cast("mxfp4", hadamard=32)
    turned = NUMPY.hadamard(X, 32, 1, 11)
    np.testing.assert_array_equal(rounded(cast, sign_seed=11).values, quantize(turned, "mxfp4"))


def test_rotation_that_does_not_fit():
    with pytest.raises(ArgumentError, match=r"hadamard=64 does not divide the contraction axis, of length 160"):
        rounded(Cast("mxfp4", hadamard=64))
    with pytest.raises(ArgumentError, match=r"groups of 12, which do not divide the axis, of length 160"):
        rounded(Cast("int4_g12", method="quest"))


@pytest.mark.parametrize("fmt", ["float8_e4m3fn", "float8_e5m2", "float16", "int8"])
def test_current_scaling(fmt):
    """Max / amax in float32; the number times it is rounded; times its reciprocal."""
    got = rounded(Cast(fmt, scaling="current", margin=1))
    largest = {"float8_e4m3fn": 448, "float8_e5m2": 57344, "float16": 65504, "int8": 127}[fmt]
    scale = np.float32(largest) / np.abs(X).max() / np.float32(2)
    np.testing.assert_array_equal(got.values, quantize(X * scale, fmt) * (np.float32(1) / scale))
    assert got.amax == np.abs(X).max()


def test_delayed_scaling_uses_the_scale_it_is_given():
    cast = Cast("fp8", scaling="delayed")
    np.testing.assert_array_equal(rounded(cast).values, quantize(X, "fp8"))
    scale = np.float32(37.5)
    np.testing.assert_array_equal(rounded(cast, scale=scale).values, quantize(X * scale, "fp8") * (1 / scale))


@pytest.mark.parametrize(
    ("amax", "previous", "wanted"),
    [(2.0, None, 224.0), (0.0, None, 1.0), (0.0, 8.0, 8.0), (np.inf, 8.0, 8.0), (np.nan, None, 1.0),
     (1e-40, None, float.fromhex("0x1.fffffep127")), (3.0, 8.0, 448 / np.float32(3))],
)  # fmt: skip
def test_scale_of(amax, previous, wanted):
    """As TransformerEngine's default scaling factor."""
    before = None if previous is None else np.asarray(previous, np.float32)
    with np.errstate(over="ignore"):
        scale = scale_of(NUMPY, np.asarray(amax, np.float32), Cast("fp8", scaling="delayed"), before)
    assert scale.dtype == np.float32
    assert scale == np.float32(wanted)


def test_scale_over_pieces_of_a_tensor():
    whole = rounded(Cast("fp8", scaling="current"))
    parts = [
        rounded(
            Cast("fp8", scaling="current"), X[i : i + 32], amax=lambda piece: np.maximum(piece, np.abs(X).max())
        ).values
        for i in (0, 32, 64)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole.values)


def test_masks_of_gradient_rules():
    assert rounded(Cast("int4")).mask is None
    wide = X * 5
    np.testing.assert_array_equal(rounded(Cast("int4", gradient="clipped"), wide).mask, (wide >= -8) & (wide <= 7))
    assert not np.any(rounded(Cast("int4", gradient="none")).mask)
    scaled = rounded(Cast("fp8", scaling="delayed", gradient="clipped"), scale=np.float32(200))
    np.testing.assert_array_equal(scaled.mask, np.abs(X * np.float32(200)) <= 448)
    blocks = rounded(Cast("mxfp4", gradient="clipped"))
    b = ref.blocks(X, 32)
    scale = np.ldexp(1.0, ref.floor_log2(np.abs(b).max(axis=-1, keepdims=True)) - 2)
    np.testing.assert_array_equal(blocks.mask, (np.abs(b) <= 6 * scale).reshape(X.shape))
    assert not blocks.mask.all()


def test_reuse():
    forward = rounded(Cast("mxfp4"))
    assert rounded(Cast("mxfp4", reuse=True), forward=forward).values is forward.values
    again = rounded(Cast("fp8", reuse=True, requantize=True), axis=0, forward=forward)
    np.testing.assert_array_equal(again.values, quantize(forward.values, "fp8"))
    with pytest.raises(ArgumentError, match="reuses what the forward pass rounded, which is not there"):
        rounded(Cast("mxfp4", reuse=True))


def test_numpy_arrays_are_whole():
    with pytest.raises(ArgumentError, match="NumPy arrays are whole"):
        rounded(Cast("mxfp4", rounding="stochastic_a"), shard=object())


@pytest.mark.parametrize("length", [*range(1, 20), 127, 128, 129])
def test_tree_sum_adds_halves(length):
    x = X.reshape(-1)[: 3 * length].reshape(3, length)

    def halves(values):
        while len(values) > 1:
            half = len(values) // 2
            values = [a + b for a, b in zip(values[:half], values[half : 2 * half], strict=True)] + values[2 * half :]
        return values[0]

    wanted = [halves(list(row)) for row in x]
    np.testing.assert_array_equal(tree_sum(NUMPY, x)[:, 0], wanted)


@pytest.mark.parametrize("size", [1, 7, 32, 96, 100])
@pytest.mark.parametrize("axis", [0, 1])
def test_block_largest(size, axis):
    got = block_largest(NUMPY, np.abs(X), axis, size)
    for i, j in ((0, 0), (95, 159), (41, 77)):
        start = (i, j)[axis] // size * size
        line = np.abs(X[:, j] if axis == 0 else X[i])
        assert got[i, j] == line[start : start + size].max()


@pytest.mark.parametrize("bits", range(1, 9))
def test_gaussian_grids_are_optimal(bits):
    """The published a is where the squared error on normal data is least (within 5%: they were fitted)."""

    def error(a: float) -> float:
        t = np.linspace(-9, 9, 200_001)
        density = np.exp(-t * t / 2) / np.sqrt(2 * np.pi)
        step = 2 * a / (2**bits - 1)
        q = np.clip(np.floor(np.clip(t, -a, a) / step) + 0.5, -(2**bits - 1) / 2, (2**bits - 1) / 2) * step
        return float(((q - t) ** 2 * density).sum() * (t[1] - t[0]))

    published = [0.36338023, 0.11884605, 0.03743966, 0.01154288, 0.00349521, 0.00104005, 3.04366e-4, 8.782118e-5]
    best = GAUSSIAN_GRIDS[bits]
    assert error(best) == pytest.approx(published[bits - 1], rel=1e-4)
    assert error(best) < min(error(best * 0.95), error(best * 1.05))


@pytest.mark.parametrize("axis", [0, 1])
def test_tiles_have_their_columns_along_the_contraction_axis(axis):
    got = rounded(Cast("e4m3fn_t32x16"), axis=axis, outer=1 - axis).values
    np.testing.assert_array_equal(got, quantize(X, "e4m3fn_t32x16", axis=(1 - axis, axis)))
    assert (got != quantize(X, "e4m3fn_t32x16", axis=(axis, 1 - axis))).any()
    np.testing.assert_array_equal(rounded(Cast("e4m3fn_t32x16"), axis=axis).values, got)  # the other of two axes


HALFWAY = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]


def test_ms_eden_rounds_halfway_elements_away_from_zero():
    """A largest magnitude for which the scales are powers of two, and elements halfway between two FP4 numbers."""
    largest = np.float32(6 / (17 / 16 * 0.93))
    amax = np.float32(255.99 / 256) * largest
    while amax / np.float32(255.99) / largest < np.float32(2**-8):
        amax = np.nextafter(amax, np.float32(np.inf))
    z = np.array([[amax, 0, *HALFWAY, *(-h for h in HALFWAY)]], np.float32)
    cast = Cast("nvfp4", method="ms_eden", hadamard=16)
    values, _ = METHODS["ms_eden"](NUMPY, z, cast, parse("nvfp4"), axis=1, seed=0, shard=None, combine=None)
    elements = values / values[0, 0] * 6
    assert elements[0].tolist() == [6, 0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6]


def test_quartet_rounds_halfway_elements_toward_zero_and_masks_the_largest():
    """In units of the block's scale, which is the power of two below 0.487 standard deviations."""
    cast = Recipe.named("quartet").cast("weight", "forward")
    x = np.zeros((1, 32), np.float32)
    x[0, :18] = [*HALFWAY, *(-h for h in HALFWAY), 6, -6, 5.75, -7]
    x[0, 18:] = [3, -3] * 7
    assert 1 <= 2.92247856 / 6 * x.std() < 2
    got = rounded(Cast(cast.format, cast.rounding, method="quest"), x)
    assert got.values[0, :18].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, -0.0, -0.5, -1, -1.5, -2, -3, -4, 6, -6, 6, -6]
    assert np.flatnonzero(~got.mask[0]).tolist() == [14, 15, 17]


def test_zero_blocks_of_methods():
    x = X.copy()
    x[:, :32] = 0
    for cast in (
        Cast("int4_g32", method="quest"),
        Cast("nvfp4", method="ms_eden", hadamard=32, signs="none"),
        Cast("e2m1_g32", method="pow2_ratio"),
        Cast("int4_g32", method="gauss_noise"),
        Cast("mxfp4_quest", method="quest"),
    ):
        for given in (x, np.zeros_like(x)):
            got = rounded(cast, given).values
            assert np.isfinite(got).all()
            assert np.abs(got[:, :32]).max() <= 1e-8


def test_nan_stays_nan():
    x = X.copy()
    x[5, 40] = np.nan
    for cast in (
        Cast("int4_row", method="quest"),
        Cast("e2m1_g32", method="pow2_ratio"),
        Cast("fp8", scaling="current"),
    ):
        with np.errstate(invalid="ignore"):
            assert np.isnan(rounded(cast, x).values[5, 40])
