"""Each named recipe of low-precision training against its paper's formulas, written out by hand on random operands."""

import warnings

import numpy as np
import pytest

from lowp import PrecisionWarning, Recipe, quantize
from lowp.emulation._numpy_world import NUMPY
from lowp.emulation.casting import Rounded
from lowp.emulation.recipe_files import from_dict, names
from tests.emulation import recipe_reference as ref
from tests.emulation.recipe_operands import AXES, SIX, TENSORS, G, W, X, cast_of, operand, reused, same_bits, source


@pytest.mark.parametrize("place", SIX)
def test_bf16(place):
    x = source(*place)
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    same_bits(operand("bf16", *place).values, rounded)


@pytest.mark.parametrize(("role", "grid"), [("weight", ref.E4M3), ("activation", ref.E4M3), ("gradient", ref.E5M2)])
def test_fp8_of_transformer_engine(role, grid):
    """E4M3 forward, E5M2 gradients; the scale is max / amax, elements are multiplied by it and by its reciprocal."""
    x, product = TENSORS[role], "grad_input" if role == "gradient" else "forward"
    scale = np.float32(grid[-1]) / np.abs(x).max()
    wanted = ref.nearest(x * scale, grid).astype(np.float32) * (np.float32(1) / scale)
    same_bits(operand("fp8_current", product, role).values, wanted)
    same_bits(operand("fp8_transformer_engine", product, role, scale=scale).values, wanted)
    unscaled = operand("fp8_transformer_engine", product, role)
    same_bits(unscaled.values, ref.nearest(x, grid))  # the first step has scale 1
    assert unscaled.amax == np.abs(x).max()


def test_fp8_of_transformer_engine_casts_a_tensor_once():
    for recipe in ("fp8_current", "fp8_transformer_engine"):
        assert reused(recipe, "grad_input", "weight")
        assert reused(recipe, "grad_weight", "activation")
    cast = cast_of("fp8_transformer_engine", "grad_weight", "gradient")
    assert (cast.scaling, cast.history, cast.margin) == ("delayed", 1024, 0)


@pytest.mark.parametrize("place", [("forward", "activation"), ("grad_input", "gradient"), ("grad_weight", "gradient")])
def test_fp8_of_deepseek_v3_tiles_of_128(place):
    b = ref.blocks(source(*place), 128)
    scale = (np.abs(b).max(axis=-1, keepdims=True).astype(np.float64) / 448).astype(np.float32).astype(np.float64)
    same_bits(
        operand("fp8_deepseek_v3", *place).values,
        (ref.nearest(b / scale, ref.E4M3) * scale).reshape(-1, b.shape[-2] * 128),
    )


@pytest.mark.parametrize("place", [("forward", "weight"), ("grad_input", "weight")])
def test_fp8_of_deepseek_v3_blocks_of_weights(place):
    t = ref.tiles(source(*place), 128, 128)
    scale = (np.abs(t).max(axis=-1, keepdims=True).astype(np.float64) / 448).astype(np.float32).astype(np.float64)
    same_bits(
        operand("fp8_deepseek_v3", *place).values, ref.untiled(ref.nearest(t / scale, ref.E4M3) * scale, 128, 128)
    )


def test_fp8_of_deepseek_v3_rounds_activations_again_and_promotes_sums():
    assert reused("fp8_deepseek_v3", "grad_weight", "activation", requantize=True)
    accumulator = cast_of("fp8_deepseek_v3", "forward", "accumulator")
    assert (accumulator.format, accumulator.group) == ("float32", 128)
    first = operand("fp8_deepseek_v3", "forward", "activation")
    again = operand("fp8_deepseek_v3", "grad_weight", "activation", forward=first)
    same_bits(again.values, quantize(first.values, "e4m3fn_g128", axis=0).T)
    assert not Recipe.named("fp8_deepseek_v3").emulates("linear", "lm_head")


@pytest.mark.parametrize("place", SIX)
def test_mxfp8(place):
    """TransformerEngine: E4M3 for all operands, scales rounded up."""
    b = ref.blocks(source(*place), 32)
    fraction, exponent = np.frexp(np.abs(b).max(axis=-1, keepdims=True).astype(np.float64) / 448)
    same_bits(
        operand("mxfp8", *place).values, ref.mx(b, ref.E4M3, exponent - (fraction == 0.5)).reshape(source(*place).shape)
    )


@pytest.mark.parametrize("place", SIX)
def test_mxfp4(place):
    b = ref.blocks(source(*place), 32)
    exponent = ref.floor_log2(np.abs(b).max(axis=-1, keepdims=True)) - 2
    same_bits(operand("mxfp4", *place).values, ref.mx(b, ref.E2M1, exponent).reshape(source(*place).shape))


@pytest.mark.parametrize("place", SIX)
def test_nvfp4(place):
    x = source(*place)
    same_bits(operand("nvfp4", *place).values, ref.nvfp4_te(ref.blocks(x, 16), np.abs(x).max()).reshape(x.shape))


def test_nvfp4_pretraining_forward_and_gradients_of_inputs():
    same_bits(
        operand("nvfp4_pretraining", "forward", "activation").values,
        ref.nvfp4_te(ref.blocks(X, 16), np.abs(X).max()).reshape(X.shape),
    )
    same_bits(
        operand("nvfp4_pretraining", "forward", "weight").values,
        ref.untiled(ref.nvfp4_te(ref.tiles(W, 16, 16), np.abs(W).max()), 16, 16),
    )
    assert reused("nvfp4_pretraining", "grad_input", "weight")

    def pick(scaled, grid):
        return ref.stochastic(scaled.reshape(G.shape), grid, 5).reshape(scaled.shape)

    same_bits(
        operand("nvfp4_pretraining", "grad_input", "gradient").values,
        ref.nvfp4_te(ref.blocks(G, 16), np.abs(G).max(), pick).reshape(G.shape),
    )


def test_nvfp4_pretraining_rotates_for_the_weights_gradient_alone():
    recipe = Recipe.named("nvfp4_pretraining")
    rotations = {place: recipe.cast(place[1], place[0]).rotation for place in SIX}
    assert {place for place, rotation in rotations.items() if rotation == (16, "fixed")} == set(SIX[4:])
    assert {rotation for place, rotation in rotations.items() if place not in SIX[4:]} == {(0, "")}
    assert cast_of("nvfp4_pretraining", "grad_weight", "gradient").stochastic
    assert not cast_of("nvfp4_pretraining", "grad_weight", "activation").stochastic
    assert not recipe.emulates("linear", "model.lm_head")
    assert recipe.emulates("linear", "model.layers.3.mlp.up")


def test_mxfp4_with_stochastic_rounding_and_rotation():
    """Backward operands: rotated in blocks of 64; SR(3/4 x / 2^e) 2^e 4/3 with e = floor(log2 amax) - 2."""
    same_bits(operand("mxfp4_sr_rht", "forward", "weight").values, operand("bf16", "forward", "weight").values)
    for product, role in SIX[2:]:
        cast = cast_of("mxfp4_sr_rht", product, role)
        assert cast.rotation == (64, "random")
        assert cast_of("mxfp4_sr_rht_fp8", product, role) == cast
        rotated = NUMPY.hadamard(source(product, role), 64, 1, 9)
        b = ref.blocks(rotated, 32)
        scale = np.ldexp(1.0, ref.floor_log2(np.abs(b).max(axis=-1, keepdims=True)) - 2)
        rounded = positions_of(product, role, (0.75 * b / scale).reshape(rotated.shape))
        wanted = ref.blocks(rounded, 32) * scale * np.float64(np.float32(4 / 3))
        same_bits(operand("mxfp4_sr_rht", product, role).values, wanted.reshape(rotated.shape))


def positions_of(product: str, role: str, scaled: np.ndarray, seed: int = 5) -> np.ndarray:
    """Return scaled numbers, the contraction axis last, rounded stochastically by their positions in the operand."""
    turned = AXES[product, role] == 0
    rounded = ref.stochastic(np.ascontiguousarray(scaled.T if turned else scaled), ref.E2M1, seed)
    return rounded.T if turned else rounded


def test_rotations_cancel_in_products():
    for recipe, block in (("mxfp4_sr_rht", 64), ("quartet2", 128), ("nvfp4_pretraining", 16)):
        first, second = (source("grad_weight", role) for role in ("gradient", "activation"))
        rotated = [NUMPY.hadamard(x, block, 1, 9).astype(np.float64) for x in (first, second)]
        assert cast_of(recipe, "grad_weight", "gradient").hadamard == block
        np.testing.assert_allclose(rotated[0] @ rotated[1].T, first.astype(np.float64) @ second.T, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("role", ["activation", "weight"])
def test_quartet_forward(role):
    """Hadamard 32; scale 2^floor(log2(0.487 sigma + 1e-8)); ties to the smaller; mask where |x / s| < 6."""
    x = TENSORS[role]
    b = ref.blocks(NUMPY.hadamard(x, 32, 1), 32).astype(np.float64)
    np.testing.assert_allclose(b.reshape(x.shape), ref.rotated(x, 32), rtol=1e-5, atol=1e-6 * np.abs(x).max())
    sigma = np.sqrt((b**2).mean(axis=-1, keepdims=True) - b.mean(axis=-1, keepdims=True) ** 2)
    scale = np.ldexp(1.0, ref.floor_log2(2.92247856 / 6 * sigma + 1e-8))
    got = operand("quartet", "forward", role)
    same_bits(got.values, (ref.nearest(b / scale, ref.E2M1, "zero") * scale).reshape(x.shape))
    np.testing.assert_array_equal(got.mask, (np.abs(b / scale) < 6).reshape(x.shape))
    assert 0.9 < got.mask.mean() < 0.99


def test_quartet_backward_rounds_what_forward_rounded():
    for product, role in (("grad_input", "weight"), ("grad_weight", "activation")):
        assert reused("quartet", product, role, requantize=True)
        assert cast_of("quartet", product, role).rotation == (32, "random")
    first = operand("quartet", "forward", "weight")
    again = operand("quartet", "grad_input", "weight", forward=first)
    rotated = NUMPY.hadamard(first.values, 32, 0, 9)
    same_bits(again.values, quantize(rotated, "mxfp4_three_quarters", "stochastic", seed=5, axis=0).T)


@pytest.mark.parametrize("role", ["activation", "weight"])
def test_quartet2_forward_is_four_over_six(role):
    x = TENSORS[role]
    same_bits(
        operand("quartet2", "forward", role).values,
        ref.four_over_six(ref.blocks(x, 16), np.abs(x).max()).reshape(x.shape),
    )


@pytest.mark.parametrize("place", [("grad_input", "gradient"), ("grad_weight", "gradient")])
def test_quartet2_backward_is_ms_eden(place):
    x = source(*place)
    z = ref.blocks(NUMPY.hadamard(x, 128, 1, 9), 16)
    largest = np.float32(6 / (17 / 16 * 0.93))
    block_amax = np.abs(z).max(axis=-1, keepdims=True)
    unit = block_amax.max() / np.float32(255.99) / largest
    scale = ref.nearest(block_amax / largest / unit, ref.E4M3).astype(np.float32)
    assert (scale > 0).all()
    scaled = z / (scale * unit)
    elements = ref.nearest(scaled, ref.E2M1, "away")
    s64 = scaled.reshape(x.shape[0], -1, 128).astype(np.float64)
    correction = (s64**2).sum(axis=-1) / (s64 * elements.reshape(s64.shape)).sum(axis=-1)
    wanted = scale[..., 0] * np.repeat(correction, 8, axis=-1)
    turned = place[0] == "grad_weight"
    stored = ref.stochastic(np.ascontiguousarray(wanted.T if turned else wanted), ref.E4M3, 5)
    stored = (stored.T if turned else stored)[..., np.newaxis]
    got = ref.blocks(operand("quartet2", *place).values, 16)
    exact = (elements * stored).astype(np.float32) * unit
    agree = (got == exact).all(axis=-1)
    assert agree.mean() > 0.999  # the sums have other orders here, which moves few of the random decisions
    neighbours = [ref.E4M3[np.searchsorted(ref.E4M3, wanted) - k][..., np.newaxis] for k in (0, 1)]
    assert all(((got == (elements * n).astype(np.float32) * unit).all(axis=-1) | agree).any() for n in neighbours)
    assert ((got != 0) == (elements != 0)).all()


def test_quartet2_backward_rounds_what_forward_rounded():
    for product, role in (("grad_input", "weight"), ("grad_weight", "activation")):
        assert reused("quartet2", product, role, requantize=True)
        assert cast_of("quartet2", product, role).rotation == (128, "random")


def test_four_over_six():
    for recipe in ("four_over_six", "four_over_six_unbiased"):
        same_bits(
            operand(recipe, "forward", "activation").values,
            ref.four_over_six(ref.blocks(X, 16), np.abs(X).max()).reshape(X.shape),
        )
        same_bits(
            operand(recipe, "forward", "weight").values,
            ref.untiled(ref.four_over_six(ref.tiles(W, 16, 16), np.abs(W).max()), 16, 16),
        )
        assert reused(recipe, "grad_input", "weight")
        assert cast_of(recipe, "grad_weight", "activation").rotation == (16, "fixed")


def test_four_over_six_says_that_its_gradients_are_biased():
    with pytest.warns(PrecisionWarning, match="biases"):
        operand("four_over_six", "grad_input", "gradient")
    operand("four_over_six_unbiased", "grad_input", "gradient")
    given = Recipe.named("four_over_six").to_dict()
    with pytest.warns(PrecisionWarning, match="nvfp4_static6_unbiased"):
        from_dict(given)


@pytest.mark.parametrize(
    ("recipe", "levels", "best"),
    [("quest", 16, 2.5139325), ("quest_w2a2", 4, 1.4935345), ("quest_w1a1", 2, 0.7978845587)],
)
@pytest.mark.parametrize("role", ["activation", "weight"])
def test_quest(recipe, levels, best, role):
    """Hadamard 128; the centred grid of 2^b levels up to a rms of the row; trust mask |q - x| <= a rms / (2^b - 1)."""
    x = TENSORS[role]
    h = NUMPY.hadamard(x, 128, 1).astype(np.float64)
    np.testing.assert_allclose(h, ref.rotated(x, 128), rtol=1e-5, atol=1e-6 * np.abs(x).max())
    rms = np.sqrt((h**2).mean(axis=-1, keepdims=True))
    scale = best * rms + 1e-8
    step = 2 * scale / (levels - 1)
    q = np.round(np.clip(h, -scale, scale) / step + 0.5) * step - step / 2
    mask = np.abs(q - h) <= rms * best / (levels - 1)
    got = operand(recipe, "forward", role)
    same = np.isclose(got.values, q, rtol=2e-6, atol=0)
    assert same.mean() > 0.9999  # float64 here, float32 there: they part at ties alone
    assert (got.mask == mask).mean() > 0.9999
    assert len(np.unique(np.round(got.values[0] / step[0] + 0.5))) <= levels
    assert reused(recipe, "grad_input", "weight")
    assert reused(recipe, "grad_weight", "activation")
    assert not cast_of(recipe, "grad_input", "gradient")


def test_every_recipe_can_be_used_and_is_defined_somewhere():
    for name in names():
        recipe = Recipe.named(name)
        assert len(recipe.source) > 40
        for product, role in SIX:
            forward = None
            if recipe.cast(role, product).reuse:
                forward = operand(name, "forward", role)
                forward = Rounded(forward.values, forward.mask)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PrecisionWarning)
                got = operand(name, product, role, forward=forward)
            assert np.isfinite(got.values).all()
