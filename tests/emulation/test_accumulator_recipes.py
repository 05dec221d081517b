"""`lowp.Accumulator` as the accumulator of a recipe: the products of a layer are those of `lowp.matmul`."""

import json
from dataclasses import replace

import numpy as np
import pytest

import lowp
from lowp import Accumulator, Alignment, Cast, Recipe, Rule
from tests.emulation.test_unit_recipes import check, jax_layer, same, torch_layer

HOPPER = Alignment(fraction_bits=13, zero_exponent=-133)
ACCUMULATORS = {
    "each addition": Accumulator(format="float16"),
    "chunks": Accumulator(format="float16", chunk=8, outer=Accumulator(format="float32")),
    "a tree": Accumulator(format="bfloat16", order="pairwise"),
    "aligned": Accumulator(format="e8m13", group=32, rounding="toward_zero", overflow="infinity", alignment=HOPPER),
    "kahan": Accumulator(format="bfloat16", compensation="kahan"),
    "fixed point": Accumulator(format="fixed24_12", overflow="wrap"),
    "posits": Accumulator(format="posit16_es1"),
    "splits at random": Accumulator(format="float32", splits=3, split_tile=4, order="random", seed=3),
}
STOCHASTIC = Accumulator(
    format="float16", rounding="stochastic_b", chunk=4, outer=Accumulator(format="bfloat16", rounding="stochastic_a")
)


def inputs(inner=24, outer=6, tokens=5):
    rng = np.random.default_rng(3)
    return [rng.normal(size=shape).astype(np.float32) for shape in ((outer, inner), (tokens, inner), (tokens, outer))]


@pytest.mark.parametrize("name", ACCUMULATORS)
def test_forward_and_backward(name):
    how, (w, x, g) = ACCUMULATORS[name], inputs()
    recipe = Recipe(weight="e4m3fn", activation="e4m3fn", gradient="e5m2", accumulator=how)
    assert recipe.cast("accumulator", "grad_weight").unit == how
    found, report = torch_layer(recipe, w, x, g)
    w, x, g = lowp.quantize(w, "e4m3fn"), lowp.quantize(x, "e4m3fn"), lowp.quantize(g, "e5m2")
    wanted = [
        np.asarray(lowp.matmul(np.ascontiguousarray(a), np.ascontiguousarray(b), accumulator=how), np.float32)
        for a, b in ((x, w.T), (g.T, x), (g, w))
    ]
    check(found, wanted)
    assert "accumulator" in str(report)


@pytest.mark.parametrize("name", ["chunks", "aligned", "kahan"])
def test_torch_and_jax_give_the_same_bits(name):
    recipe = Recipe(**same("e4m3fn"), accumulator=ACCUMULATORS[name])
    check(jax_layer(recipe, *inputs(), True), torch_layer(recipe, *inputs())[0])


def test_random_bits_are_drawn_from_the_recipe_s_seed():
    recipes = [Recipe(**same("e4m3fn"), accumulator=STOCHASTIC, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (torch_layer(recipe, *inputs())[0] for recipe in recipes)
    check(first, again)
    assert (first[0] != other[0]).any()
    check(first, jax_layer(recipes[0], *inputs(), False))
    with pytest.raises(lowp.ArgumentError, match="leaves none for order='random'"):
        Cast(unit=Accumulator(rounding="stochastic_a", order="random"))


@pytest.mark.parametrize("name", ["chunks", "aligned"])
def test_block_scales_are_part_of_the_products(name):
    how, (w, x, g) = ACCUMULATORS[name], inputs(64, 32, 64)
    found, _ = torch_layer(Recipe(**same("mxfp8"), accumulator=how), w, x, g)
    wanted = []
    for a, b in ((x, w.T), (g.T, x), (g, w)):
        left, right = (lowp.encode(np.ascontiguousarray(y), "mxfp8", axis=axis) for y, axis in ((a, -1), (b, 0)))
        wanted.append(lowp.matmul(left, right, accumulator=how))
    check(found, wanted)


def test_scales_of_a_whole_sum_multiply_it():
    how, (w, x, g) = ACCUMULATORS["each addition"], inputs()
    found, _ = torch_layer(Recipe(**same("e4m3fn_row"), accumulator=how), w, x, g)
    left, right = lowp.encode(x, "e4m3fn_row", axis=-1), lowp.encode(w, "e4m3fn_row", axis=-1)
    elements = [lowp.decode(side.codes, "e4m3fn") for side in (left, right)]
    total = lowp.matmul(elements[0], elements[1].T.copy(), accumulator=how)
    scales = np.asarray(left.scales).reshape(-1, 1) * np.asarray(right.scales).reshape(1, -1)
    check(found[:1], [(total * scales.astype(np.float32)).astype(np.float32)])


@pytest.mark.parametrize("alignment", [HOPPER, Alignment(fraction_bits=35, scaled_group=16)], ids=str)
def test_scales_of_one_operand_alone(alignment):
    how = Accumulator(format="float32", group=32, alignment=alignment)
    w, x, _ = inputs(64, 32, 64)
    x = np.asarray(lowp.quantize(x * 2, "e2m1fn"))
    scaled = lowp.encode(w.T.copy() * 3, "mxfp4", axis=0)
    both = lowp.encode(x, lowp.parse("mxfp4"), axis=-1)
    unscaled = replace(both, codes=lowp.encode(x, "e2m1fn").codes, scales=np.full_like(both.scales, 127))
    found = lowp.matmul(lowp.encode(x, "e2m1fn"), scaled, accumulator=how)
    np.testing.assert_array_equal(found, lowp.matmul(unscaled, scaled, accumulator=how))
    turned = lowp.matmul(lowp.encode(w * 3, "mxfp4", axis=-1), lowp.encode(x.T.copy(), "e2m1fn"), accumulator=how)
    np.testing.assert_array_equal(turned, found.T)


def test_scaled_groups_need_scales():
    how = Accumulator(alignment=Alignment(fraction_bits=35, scaled_group=16))
    with pytest.raises(lowp.ArgumentError, match="is for operands with block scales"):
        lowp.matmul([[1.0]], [[1.0]], accumulator=how)


class TestAsData:
    @pytest.mark.parametrize("name", ACCUMULATORS)
    def test_files(self, name, tmp_path):
        how = ACCUMULATORS[name]
        rules = (Rule("*.head", casts={"accumulator": how}, optional=True),)
        recipe = Recipe(**same("e4m3fn"), accumulator={"unit": how, "group": 8}, rules=rules)
        for kind in ("toml", "json"):
            path = tmp_path / f"recipe.{kind}"
            recipe.save(path)
            assert Recipe.load(path) == recipe
        assert hash(recipe) == hash(Recipe(**json.loads(json.dumps(recipe.to_dict()))))

    def test_what_it_can_be_given_as(self):
        unit = lowp.matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f32")
        assert Recipe(**same("e4m3fn"), accumulator=unit) == Recipe(
            **same("e4m3fn"), accumulator={"unit": unit.name}
        )  # fmt: skip
        how = Accumulator(format="float16", chunk=4)
        table = {"unit": {"format": "float16", "chunk": 4}}
        assert Recipe(accumulator=how) == Recipe(accumulator=table)
        for given in (how, Cast(unit=how)):
            assert Recipe(accumulator=given).cast("accumulator", "forward") == Cast(unit=how)
        assert repr(how) in Cast(unit=how).describe()

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"weight": Accumulator()}, "is for accumulators"),
            ({"accumulator": {"unit": {"format": "float16", "chunks": 4}}}, "Did you mean 'chunk'"),
            ({"accumulator": {"unit": {"format": "float16", "alignment": {"bits": 4}}}}, r"unit\.alignment\.field"),
            ({"accumulator": {"unit": 3}}, "must be the name of a matrix unit, a lowp.Accumulator"),
        ],
        ids=str,
    )
    def test_what_it_can_not(self, given, said):
        with pytest.raises(lowp.Error, match=said):
            Recipe(**given)

    def test_blocks_and_promotion_must_fit(self):
        recipe = Recipe(**same("mxfp8"), accumulator={"unit": Accumulator(), "group": 24})
        with pytest.raises(lowp.ArgumentError, match="group=24 must divide, or be a multiple of, 32"):
            torch_layer(recipe, *inputs(64, 32, 64))
