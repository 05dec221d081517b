"""Named recipes of quantized weights and activations and of other formats against their papers' formulas."""

import numpy as np
import pytest

from lowp.emulation._numpy_world import NUMPY
from lowp.emulation.casting import round_operand
from lowp.rounding.random_bits import word
from tests.emulation import recipe_reference as ref
from tests.emulation.recipe_operands import INPUTS, SIX, TENSORS, W, X, cast_of, operand, reused, same_bits, source


def test_bitnet_b158():
    gamma = np.float64(np.float32(np.abs(W.astype(np.float64)).mean()))
    same_bits(operand("bitnet_b158", "forward", "weight").values, (np.clip(np.rint(W / gamma), -1, 1) + 0.0) * gamma)
    scale = (np.abs(X).max(axis=-1, keepdims=True).astype(np.float64) / 127).astype(np.float32).astype(np.float64)
    same_bits(operand("bitnet_b158", "forward", "activation").values, (np.rint(X / scale) + 0.0) * scale)
    assert reused("bitnet_b158", "grad_input", "weight")
    assert reused("bitnet_b158", "grad_weight", "activation")


def integers(x: np.ndarray, largest: int, size: int, scale_type: type = np.float32) -> np.ndarray:
    b = ref.blocks(x, size)
    scale = (np.abs(b).max(axis=-1, keepdims=True).astype(np.float64) / largest).astype(scale_type).astype(np.float64)
    return ((np.clip(np.rint(b / scale), -largest - 1, largest) + 0.0) * scale).reshape(x.shape)


@pytest.mark.parametrize(
    ("recipe", "weight", "activation"),
    [("int8", (127, INPUTS, np.float32), (127, INPUTS)), ("int4", (7, 128, np.float16), (7, INPUTS)),
     ("w4a8", (7, 128, np.float16), (127, INPUTS)), ("w4a16", (7, 128, np.float16), None)],
)  # fmt: skip
def test_integers(recipe, weight, activation):
    same_bits(operand(recipe, "forward", "weight").values, integers(W, *weight))
    if activation:
        same_bits(operand(recipe, "forward", "activation").values, integers(X, *activation))
        assert reused(recipe, "grad_weight", "activation")
    else:
        assert operand(recipe, "forward", "activation").values is X
    assert reused(recipe, "grad_input", "weight")
    assert not cast_of(recipe, "grad_input", "gradient")


@pytest.mark.parametrize("place", SIX)
def test_lns_madam(place):
    """Values are sign 2^(k / 8) s, k = round(8 log2(|x| / s)) from 0 to 127; a row's largest magnitude has 127."""
    x = source(*place).astype(np.float64)
    scale = (np.abs(x).max(axis=-1, keepdims=True) / 2 ** (127 / 8)).astype(np.float32).astype(np.float64)
    k = np.clip(np.rint(8 * np.log2(np.abs(x) / scale)), 0, 127)
    got = operand("lns_madam", *place).values
    np.testing.assert_allclose(got, np.sign(x) * 2 ** (k / 8) * scale, rtol=1e-6)
    error = ((got / x - 1) ** 2)[k > 0].mean()
    assert error == pytest.approx((np.log(2) / 8) ** 2 / 12, rel=0.02)


def test_zeroquant_fp_weights():
    """M1: scales rounded up to powers of two; M2: the row's largest scale over powers of two, rounded down."""
    b = ref.blocks(W, 256)
    scale = np.abs(b).max(axis=-1, keepdims=True).astype(np.float64) / 6
    m1 = np.exp2(np.ceil(np.log2(scale)))
    same_bits(
        operand("w4a8_zeroquant_fp_m1", "forward", "weight").values,
        (ref.nearest(b / m1, ref.E2M1) * m1).reshape(W.shape),
    )
    wide = np.concatenate([W, W[:, ::-1] * np.float32(0.45), W * np.float32(0.01)], axis=1)
    b = ref.blocks(wide, 256)
    scale = np.abs(b).max(axis=-1, keepdims=True) / np.float32(6)
    largest = scale.max(axis=-2, keepdims=True)
    m2 = largest / np.exp2(np.ceil(np.log2(largest / scale))).astype(np.float32)
    assert len(np.unique(largest / m2)) > 2
    wanted = ref.nearest(b / m2, ref.E2M1).astype(np.float32) * m2
    got = round_operand(NUMPY, wide, cast_of("w4a8_zeroquant_fp", "forward", "weight"), axis=1)
    same_bits(got.values, wanted.reshape(wide.shape))


def test_zeroquant_fp_activations():
    scale = (np.abs(X).max(axis=-1, keepdims=True).astype(np.float64) / 448).astype(np.float32).astype(np.float64)
    wanted = ref.nearest(X / scale, ref.E4M3) * scale
    for recipe in ("w4a8_zeroquant_fp", "w4a8_zeroquant_fp_m1"):
        same_bits(operand(recipe, "forward", "activation").values, wanted)


@pytest.mark.parametrize(("suffix", "bits"), [("", 3), ("_e8m4", 4), ("_e8m5", 5)])
@pytest.mark.parametrize("place", SIX)
def test_to_fp8_and_back_masks_mantissa_bits(suffix, bits, place):
    x = operand("bf16", *place).values
    masked = (np.ascontiguousarray(x).view(np.uint32) & np.uint32(0xFFFFFFFF << (23 - bits) & 0xFFFFFFFF)).view(
        np.float32
    )
    cast = cast_of(f"to_fp8_and_back{suffix}", *place)
    same_bits(round_operand(NUMPY, np.ascontiguousarray(x), cast, axis=1).values, masked)


def test_to_fp8_and_back_with_five_exponent_bits():
    x = TENSORS["activation"]
    below = ref.E5M2[np.searchsorted(ref.E5M2, np.abs(x), side="right") - 1]
    same_bits(operand("to_fp8_and_back_e5m2", "forward", "activation").values, np.copysign(below, x))


def test_gaussian_weight_sampling():
    """Weights are w + round(N(0, 1) / 2) amax 2^(1 - 4) in blocks of 32x32; N by its distribution from 24 bits."""
    got = operand("gauss_ws", "forward", "weight").values
    t = ref.tiles(W, 32, 32)
    step = np.abs(t).max(axis=-1, keepdims=True) * np.float32(2**-3)
    u = np.array([word(5, i) >> 8 for i in range(W.size)]).reshape(W.shape) / 2**24
    below = [0.158655253931457, 0.001349898031630, 2.866515718791945e-07]
    r = sum((u >= 1 - p).astype(int) - (u < p).astype(int) for p in below)
    noise = ref.untiled(ref.tiles(r, 32, 32).astype(np.float32) * step, 32, 32)
    same_bits(got, W + noise)
    assert (r == 0).mean() == pytest.approx(0.68269, abs=5 * np.sqrt(0.68 * 0.32 / r.size))
    assert r.var() == pytest.approx(0.3254, rel=0.02)
    assert reused("gauss_ws", "grad_input", "weight")
