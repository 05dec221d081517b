"""Matrix units as accumulators of recipes: a linear layer by hand, and the same bits from torch and JAX."""

import tomllib
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp import Accumulator, Cast, Recipe, Rule
from lowp.formats.spec import to_float

HOPPER = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
MIXED = "hopper/wgmma_m64n8k32/e5m2_e4m3/f32"
MXFP8 = "blackwell/tcgen05_m128n8k32_mxf8f6f4_block32/e4m3_e4m3_ue8m0/f32"
NVFP4 = "blackwell/tcgen05_m128n8k64_mxf4nvf4_block16/e2m1_e2m1_ue4m3/f32"
TF32 = "ampere/mma_m16n8k8/tf32_tf32/f32"
CURRENT = {"format": "e4m3fn", "scaling": "current"}


def same(fmt, **others):
    """Return settings of one format for all operands."""
    return {"weight": fmt, "activation": fmt, "gradient": fmt, **others}


RECIPES = {
    "one sum": Recipe(**same("e4m3fn"), accumulator={"unit": HOPPER}),
    "promoted": Recipe(**same("e4m3fn"), accumulator={"unit": HOPPER, "group": 128}),
    "promoted to bfloat16": Recipe(**same("e4m3fn"), accumulator={"unit": HOPPER, "group": 64, "format": "bfloat16"}),
    "one product": Recipe(**same("e4m3fn"), grad_weight={"accumulator": {"unit": HOPPER}}),
    "tensor scales": Recipe(**same(CURRENT), accumulator={"unit": HOPPER}),
    "rows": Recipe(**same("e4m3fn_row"), accumulator={"unit": HOPPER}),
    "deepseek": Recipe.named("fp8_deepseek_v3_hopper").replace(rules=()),
    "mxfp8": Recipe(**same("mxfp8"), accumulator={"unit": MXFP8}),
    "nvfp4": Recipe(**same("nvfp4"), accumulator={"unit": NVFP4}),
    "nvfp4 promoted": Recipe(**same("nvfp4"), accumulator={"unit": NVFP4, "group": 64}),
    "two formats": Recipe(
        weight="e4m3fn",
        activation="e4m3fn",
        gradient="e5m2",
        accumulator={"unit": HOPPER},
        grad_input={"accumulator": {"unit": MIXED}},
        grad_weight={"accumulator": {"unit": MIXED}},
    ),
    "unrounded": Recipe(accumulator={"unit": TF32}),
    "reused": Recipe(**same("e4m3fn"), accumulator={"unit": HOPPER}, grad_weight={"activation": {"reuse": True}}),
    "every addition": Recipe(**same("bfloat16"), accumulator={"format": "bfloat16", "group": 1}),
    "every addition, stochastic": Recipe(
        **same("bfloat16"), accumulator={"format": "bfloat16", "group": 1, "rounding": "stochastic_a"}
    ),
}


def layer_inputs(name):
    """Return weight, input and gradient of the result of a layer that a recipe can take."""
    rng = np.random.default_rng(7)
    tokens, inner, outer = (
        (64, 320, 32) if RECIPES[name].cast("weight").format in ("mxfp8", "nvfp4") else (130, 300, 18)
    )
    return [rng.normal(size=shape).astype(np.float32) for shape in ((outer, inner), (tokens, inner), (tokens, outer))]


def torch_layer(recipe, w, x, g):
    """Return the result of `x w^T`, and the gradients of weight and input."""
    torch = pytest.importorskip("torch")
    from lowp.torch import emulate

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
            self.fc.weight = torch.nn.Parameter(torch.tensor(w))

        def forward(self, x):
            return self.fc(x)

    net, given = Net(), torch.tensor(x, requires_grad=True)
    with emulate(recipe) as run:
        y = net(given)
    y.backward(torch.tensor(g))
    return [t.detach().numpy() for t in (y, net.fc.weight.grad, given.grad)], run.report


def jax_layer(recipe, w, x, g, compiled):
    """Return the same from JAX."""
    jax = pytest.importorskip("jax")
    from lowp.jax import emulate

    def run(w, x, g):
        low = emulate(lambda params, x: x @ params["fc"]["weight"].T, recipe)
        y, pull = jax.vjp(low, {"fc": {"weight": w}}, x)
        dw, dx = pull(g)
        return y, dw["fc"]["weight"], dx

    return [np.asarray(t) for t in (jax.jit(run) if compiled else run)(*map(jax.numpy.asarray, (w, x, g)))]


def q(x, fmt, **options):
    return np.asarray(lowp.quantize(x, fmt, **options))


def check(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_torch_and_jax_give_the_same_bits(name, compiled):
    given = layer_inputs(name)
    if compiled and name not in ("promoted", "deepseek", "nvfp4"):
        pytest.skip("compiled as the others are")
    check(jax_layer(RECIPES[name], *given, compiled), torch_layer(RECIPES[name], *given)[0])


class TestByHand:
    """The three products of a layer are those of `lowp.matmul` on the rounded operands."""

    def products(self, multiply, w, x, g):
        return multiply(x, w.T), multiply(g.T, x), multiply(g, w)

    def test_plain(self):
        w, x, g = layer_inputs("one sum")
        rounded = [q(t, "e4m3fn") for t in (w, x, g)]
        wanted = self.products(lambda a, b: lowp.matmul(a, b, unit=HOPPER), *rounded)
        check(torch_layer(RECIPES["one sum"], w, x, g)[0], wanted)

    def test_promoted(self):
        w, x, g = layer_inputs("promoted")
        unit = lowp.matrix_unit(HOPPER)
        unit = replace(unit, accumulator=replace(unit.accumulator, chunk=128, outer=Accumulator(format="float32")))
        rounded = [q(t, "e4m3fn") for t in (w, x, g)]
        wanted = self.products(lambda a, b: lowp.matmul(a, b, unit=unit), *rounded)
        check(torch_layer(RECIPES["promoted"], w, x, g)[0], wanted)

    def test_one_product_alone(self):
        w, x, g = layer_inputs("one product")
        found, _ = torch_layer(RECIPES["one product"], w, x, g)
        np.testing.assert_array_equal(found[1], lowp.matmul(q(g, "e4m3fn").T, q(x, "e4m3fn"), unit=HOPPER))
        assert (found[0] != lowp.matmul(q(x, "e4m3fn"), q(w, "e4m3fn").T, unit=HOPPER)).any()

    def test_tensor_scales_are_an_epilogue(self):
        def scaled(t):
            scale = np.float32(448) / np.abs(t).max()
            return q(t * scale, "e4m3fn"), np.float32(1) / scale

        def multiply(a, b):
            (a, first), (b, second) = scaled(a), scaled(b)
            return lowp.matmul(a, b, unit=HOPPER) * (first * second)

        given = layer_inputs("tensor scales")
        check(torch_layer(RECIPES["tensor scales"], *given)[0], self.products(multiply, *given))

    def test_blocks_go_to_a_unit_that_takes_them(self):
        for name, fmt, unit in (("mxfp8", "mxfp8", MXFP8), ("nvfp4", "nvfp4", NVFP4)):

            def multiply(a, b, fmt=fmt, unit=unit):
                a, b = lowp.encode(np.ascontiguousarray(a), fmt), lowp.encode(np.ascontiguousarray(b), fmt, axis=0)
                return lowp.matmul(a, b, unit=unit)

            given = layer_inputs(name)
            check(torch_layer(RECIPES[name], *given)[0], self.products(multiply, *given))

    def test_every_addition_is_rounded_once(self):
        how = Accumulator(format="bfloat16", overflow="saturate")
        given = layer_inputs("every addition")
        rounded = [q(t, "bfloat16") for t in given]
        wanted = self.products(lambda a, b: lowp.matmul(a, b, accumulator=how), *rounded)
        check(torch_layer(RECIPES["every addition"], *given)[0], wanted)

    def test_deepseek_on_hopper(self):
        """Sums of 128 on Hopper, each times its scales in one fused multiply-add of float32."""
        w, x, g = layer_inputs("deepseek")
        found, report = torch_layer(RECIPES["deepseek"], w, x, g)
        outputs = [(0, 0), (7, 3), (129, 17)]
        wanted = [self.promoted(x[i], w, j, "forward") for i, j in outputs]
        np.testing.assert_array_equal([found[0][i, j] for i, j in outputs], wanted)
        assert report.find(role="accumulator", cast=f"{HOPPER}, promoted every 128")
        plain = Recipe.named("fp8_deepseek_v3").replace(rules=())
        assert (torch_layer(plain, w, x, g)[0][0] != found[0]).mean() > 0.5

    def promoted(self, row, w, j, product):
        """Return one output of the forward product, exactly rounded by Fractions."""
        tokens, weights = lowp.encode(row[None], "e4m3fn_g128"), lowp.encode(w, "fp8_tile128", axis=(0, 1))
        a, b = (np.asarray(lowp.decode(t.codes, "e4m3fn")) for t in (tokens, weights))
        first, second = (np.asarray(lowp.decode(t.scales, t.format.scale), np.float32) for t in (tokens, weights))
        total = np.float32(0)
        for k in range(0, row.size, 128):
            piece = lowp.matmul(a[:, k : k + 128], b[j : j + 1, k : k + 128].T, unit=HOPPER)[0, 0]
            scale = first[0, k // 128] * second[j // 128, k // 128]
            exact = Fraction(float(total)) + Fraction(float(scale)) * Fraction(float(piece))
            low = np.float32(to_float(exact))
            around = [np.nextafter(low, np.float32(-np.inf)), low, np.nextafter(low, np.float32(np.inf))]
            errors = [abs(Fraction(float(t)) - exact) for t in around]
            assert sorted(errors)[0] < sorted(errors)[1]  # no tie
            total = around[int(np.argmin([float(e) for e in errors]))]
        return total


class TestTheRecipe:
    def test_is_toml_and_back(self, tmp_path):
        rule = Rule("fc", casts={"grad_weight.accumulator": {"unit": HOPPER}})
        recipe = Recipe(**same("e4m3fn"), accumulator={"unit": HOPPER, "group": 128}, rules=[rule])
        assert Recipe(**tomllib.loads(str(recipe))) == recipe
        for ending in (".toml", ".json"):
            recipe.save(tmp_path / f"r{ending}")
            assert Recipe.load(tmp_path / f"r{ending}") == recipe

    def test_describes_itself(self):
        assert Cast(unit=HOPPER).describe() == HOPPER
        assert Cast(unit=HOPPER, group=128).describe() == f"{HOPPER}, promoted every 128"
        assert Cast("bfloat16", unit=HOPPER, group=4).describe() == f"{HOPPER}, bfloat16, promoted every 4"
        assert repr(Cast(unit=HOPPER)) == f"Cast('', unit='{HOPPER}')"

    def test_explains(self):
        torch = pytest.importorskip("torch")
        rows = RECIPES["promoted"].explain(torch.nn.Sequential(torch.nn.Linear(4, 5))).find(role="accumulator")
        assert {row.cast for row in rows} == {f"{HOPPER}, promoted every 128"}
        assert {row.product for row in rows} == {"forward", "grad_input", "grad_weight"}

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"accumulator": {"unit": HOPPER + "x"}}, "Did you mean"),
            ({"accumulator": {"unit": 3}}, "unit=3 must be the name"),
            ({"weight": {"unit": HOPPER}}, "is for accumulators"),
            ({"weight": "e4m3fn", "activation": "e5m2", "accumulator": {"unit": HOPPER}}, "Did you mean 'hopper/wgmma"),
            (same("nvfp4", accumulator={"unit": MXFP8}), "Did you mean 'blackwell/tcgen05_m128n8k32_mxf8"),
            (same("mxfp8", accumulator={"unit": MXFP8, "group": 48}), "must be a multiple of 32"),
        ],
    )
    def test_says_what_does_not_fit(self, given, said):
        with pytest.raises(lowp.Error, match=said):
            Recipe(**given)


class TestWhatAUnitCannotSum:
    """An error, never other sums than those that were asked for."""

    def linear(self, recipe, *shape):
        torch = pytest.importorskip("torch")
        from lowp.torch import emulate

        x, w = torch.randn(*shape), torch.nn.Parameter(torch.randn(8, shape[-1]))
        with emulate(recipe):
            return torch.nn.functional.linear(x, w)

    @pytest.mark.parametrize(
        ("recipe", "said"),
        [
            (Recipe(**same("mxfp8"), accumulator={"unit": HOPPER}), "give the accumulator group=32"),
            (
                Recipe(**same("e4m3fn_g128"), accumulator={"unit": HOPPER, "group": 96}),
                "give the accumulator group=128",
            ),
            (Recipe(accumulator={"unit": HOPPER}), "which 'float8_e4m3fn' does not have"),
            (Recipe(**same("e4m3fn_g64"), accumulator={"unit": MXFP8}), "takes scales of ue8m0 for blocks of 32"),
            (
                Recipe(activation={"format": "mxfp8", "axis": "outer"}, weight="mxfp8", accumulator={"unit": MXFP8}),
                "takes scales of ue8m0 for blocks of 32 along the sum",
            ),
        ],
    )
    def test_in_a_layer(self, recipe, said):
        with pytest.raises(lowp.ArgumentError, match=said):
            self.linear(recipe, 64, 256)

    def test_what_is_reused_with_its_scales(self):
        torch = pytest.importorskip("torch")
        from lowp.torch import emulate

        recipe = Recipe(**same("mxfp8"), accumulator={"unit": MXFP8}, grad_weight={"activation": {"reuse": True}})
        x, w = torch.randn(32, 64), torch.nn.Parameter(torch.randn(32, 64))
        with emulate(recipe), pytest.raises(lowp.ArgumentError, match="add requantize=True"):
            torch.nn.functional.linear(x, w).sum().backward()

    def test_convolutions(self):
        torch = pytest.importorskip("torch")
        from lowp.torch import emulate

        with emulate(RECIPES["promoted"]), pytest.raises(lowp.ArgumentError, match="sums matrix products"):
            torch.nn.Conv2d(3, 4, 3)(torch.randn(1, 3, 8, 8))

    def test_convolutions_in_jax(self):
        jax = pytest.importorskip("jax")
        from lowp.jax import emulate

        def conv(params, x):
            return jax.lax.conv(x, params["w"], (1, 1), "VALID")

        x, w = jax.numpy.ones((1, 3, 8, 8)), jax.numpy.ones((4, 3, 3, 3))
        with pytest.raises(lowp.ArgumentError, match="sums matrix products"):
            emulate(conv, RECIPES["promoted"])({"w": w}, x)

    def test_sums_that_jax_has_no_array_code_for(self):
        recipe = Recipe(**same("float16"), accumulator={"unit": "cdna3/mfma_16x16x16/f16_f16/f32"})
        given = [t[:8, :16] for t in layer_inputs("one sum")]
        given[2] = given[2][:, :8]
        assert torch_layer(recipe, *given)[0][0].shape == (8, 8)
        with pytest.raises(lowp.ArgumentError, match="aligned after the products"):
            jax_layer(recipe, *given, False)


def test_promotion_can_round_at_random():
    given = layer_inputs("one sum")
    cast = {"unit": HOPPER, "group": 64, "format": "bfloat16", "rounding": "stochastic_a"}
    recipe = Recipe(**same("e4m3fn"), accumulator=cast)
    first, again = (torch_layer(recipe, *given)[0] for _ in range(2))
    check(first, again)
    assert (first[0] != torch_layer(recipe.replace(seed=1), *given)[0][0]).any()
    assert (first[0] != torch_layer(RECIPES["promoted to bfloat16"], *given)[0][0]).any()
    found = jax_layer(recipe, *given, False)[0]
    np.testing.assert_array_equal(found, q(found, "bfloat16"))


def test_a_gradient_of_a_gradient_is_that_of_the_plain_product():
    torch = pytest.importorskip("torch")
    from lowp.torch import emulate

    x, w = torch.randn(4, 64, requires_grad=True), torch.nn.Parameter(torch.randn(8, 64))
    with emulate(RECIPES["one sum"]):
        y = torch.nn.functional.linear(x, w)
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        dx.sum().backward()
    assert torch.isfinite(w.grad).all()
    assert w.grad.abs().sum() > 0


def test_batched_products_and_attention():
    torch = pytest.importorskip("torch")
    from lowp.torch import emulate

    a, b = torch.randn(2, 3, 4, 64), torch.randn(2, 3, 64, 5)
    recipe = Recipe(activation="e4m3fn", accumulator={"unit": HOPPER, "group": 32}, operations=["matmul", "attention"])
    with emulate(recipe) as run:
        y = a @ b
        torch.nn.functional.scaled_dot_product_attention(a, a, a)
    unit = lowp.matrix_unit(HOPPER)
    unit = replace(unit, accumulator=replace(unit.accumulator, chunk=32, outer=Accumulator(format="float32")))
    np.testing.assert_array_equal(y, lowp.matmul(q(a.numpy(), "e4m3fn"), q(b.numpy(), "e4m3fn"), unit=unit))
    assert run.report.find(operation="attention", role="accumulator")
