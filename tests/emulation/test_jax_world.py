"""Casting on JAX arrays: the bits of the NumPy world, compiled, for every cast of every named recipe."""

import numpy as np
import pytest

from lowp.emulation._numpy_world import NUMPY
from lowp.emulation.casting import Rounded, round_operand
from lowp.emulation.recipe import PASSES, Cast, Recipe

jax = pytest.importorskip("jax")
jnp = jax.numpy
from lowp.emulation._jax_world import WORLD, Key  # noqa: E402
from lowp.rounding.random_bits import keys  # noqa: E402


def casts():
    found = {}
    for name in Recipe.names():
        recipe = Recipe.named(name)
        for product, roles in PASSES.items():
            for role in roles:
                cast = recipe.cast(role, product)
                if cast and not (cast.reuse and not cast.requantize):
                    found.setdefault(cast, f"{name}-{product}-{role}")
    return found.items()


@pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")  # four_over_six is published with a biased combination
@pytest.mark.parametrize("cast", [pytest.param(cast, id=name) for cast, name in casts()])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_cast_gives_the_bits_of_numpy(cast, axis):
    rng = np.random.default_rng(len(cast.describe()))
    x = (rng.normal(size=(128, 256)) * np.exp2(rng.integers(-8, 8, (128, 1)))).astype(np.float32)
    x[:2] = 0
    x[5, 40:80] *= np.float32(2.0**-120)
    forward = np.round(x * 4) / 4
    options = {"axis": axis, "outer": 1 - axis}
    wanted = round_operand(NUMPY, x, cast, seed=11, sign_seed=12, forward=Rounded(forward), **options)

    def run(x, forward, seed, signs):
        result = round_operand(WORLD, x, cast, seed=seed, sign_seed=signs, forward=Rounded(forward), **options)
        return result.values, result.mask

    as_keys = [Key(*(jnp.uint32(k) for k in keys(seed))) for seed in (11, 12)]
    values, mask = jax.jit(run)(x, forward, *as_keys)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(
        np.asarray(values).view(np.uint32), np.asarray(wanted.values, np.float32).view(np.uint32)
    )
    assert (mask is None) == (wanted.mask is None)
    if mask is not None:
        np.testing.assert_array_equal(np.asarray(mask), wanted.mask)


@pytest.mark.parametrize("fmt", ["mxfp4", "nvfp4", "float8_e4m3fn", "int4", "float6_e2m3fn"])
def test_masks_compare_exactly(fmt):
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(32, 64)) * np.exp2(rng.integers(-3, 14, (32, 1)))).astype(np.float32)
    cast = Cast(fmt, gradient="clipped")
    wanted = round_operand(NUMPY, x, cast, axis=1)
    got = jax.jit(lambda x: round_operand(WORLD, x, cast, axis=1))(x)
    np.testing.assert_array_equal(np.asarray(got.mask), wanted.mask)
    assert not wanted.mask.all()


def test_uniform_numbers_are_those_of_numpy():
    x = np.zeros((7, 9), np.float32)
    key = Key(*(jnp.uint32(k) for k in keys(5)))
    np.testing.assert_array_equal(np.asarray(WORLD.uniform(jnp.asarray(x), key)), NUMPY.uniform(x, 5))
