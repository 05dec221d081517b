"""How results change with the order of the sum, and a recipe that keeps them together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import lowp
from lowp.emulation.reproducibility import reproducibility, variants

SPLITS = (1, 2, 4, 8)


@pytest.fixture(scope="module")
def operands():
    rng = np.random.default_rng(0)
    return tuple(
        np.asarray(lowp.quantize(rng.standard_normal(s), "bfloat16"), np.float64) for s in ((8, 512), (512, 8))
    )


def test_counts_are_those_of_the_results(operands):
    a, b = operands
    report = reproducibility(
        a, b, accumulator="float16", splits=SPLITS, seeds=(1, 2), groups=(4,), orders=("pairwise",)
    )
    assert [v.name for v in report.variants] == [
        "first", "order pairwise", "random order 1", "random order 2", "2 splits", "4 splits", "8 splits",
        "groups of 4",
    ]  # fmt: skip
    plain = lowp.Accumulator(format="float16")
    ways = [plain, *(way for _, way in variants(plain, splits=SPLITS, seeds=(1, 2), groups=(4,), orders=("pairwise",)))]
    results = np.stack([lowp.matmul(a, b, accumulator=way) for way in ways])
    assert np.array_equal(report.results, results)
    for v, x in zip(report.variants, results, strict=True):
        assert v.differing == (x != results[0]).mean()
        between = [steps_between(p, q) for p, q in zip(results[0].ravel(), x.ravel(), strict=True)]
        assert v.max_ulps == max(between)
        assert v.mean_ulps == pytest.approx(np.mean(between))
        assert v.max_difference == np.abs(x.astype(float) - results[0]).max()
    assert report.distinct.tolist() == [[len(set(results[:, i, j].tolist())) for j in range(8)] for i in range(8)]
    assert report.differing == (report.distinct > 1).mean()


def steps_between(x, y):
    """Count the float16 numbers from one to the other."""
    codes = [int(np.float16(v).view(np.int16)) for v in (x, y)]
    ranks = [c if c >= 0 else -(c & 0x7FFF) for c in codes]
    return abs(ranks[0] - ranks[1])


def test_numbers_beside_zero_and_those_that_are_none():
    ways = {"other": lowp.Accumulator(format="float16", order=(1, 0, 2, 3))}
    report = reproducibility(
        [[60000.0, 60000.0, -60000.0, 1.0]], np.ones((4, 1)), accumulator="float16", splits=(), ways=ways
    )
    assert report.variants[1].differing == 0  # infinite both times
    ways = {"other": lowp.Accumulator(format="float16", order=(0, 2, 1, 3))}
    report = reproducibility(
        [[60000.0, 60000.0, -60000.0, 1.0]], np.ones((4, 1)), accumulator="float16", splits=(), ways=ways
    )
    assert report.variants[1].max_ulps == np.inf
    tiny = 2.0**-24
    ways = {"other": lowp.Accumulator(format="float16", order=(2, 1, 0))}
    rows = [[2048.0, 1.0, -2048.0], [2048.0, -1.0, -2048.0], [-tiny, 0.0, 0.0]]
    report = reproducibility(rows, np.ones((3, 1)), accumulator="float16", splits=(), ways=ways)
    assert report.variants[1].max_ulps == 0x3C00  # the numbers from 0 to 1
    signs = {"up": lowp.Accumulator(format="float16", rounding="toward_positive")}
    down = lowp.Accumulator(format="float16", rounding="toward_negative")
    report = reproducibility([[tiny, -tiny]], [[0.5], [0.5]], accumulator=down, splits=(), ways=signs)
    assert report.results[:, 0, 0].tolist() == [-tiny, tiny]
    assert report.variants[1].max_ulps == 2


def test_a_matrix_unit_keeps_its_own_steps(operands):
    a, b = (np.asarray(lowp.quantize(x, "float8_e4m3fn"), np.float64) for x in operands)
    name = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
    report = reproducibility(a, b, unit=name, splits=(2, 4), split_tile=128, outer="float32", fmt="bfloat16",
                             ways={"slow": "gemm/hopper_fp8_slow/e4m3_e4m3/f32"})  # fmt: skip
    assert report.format == lowp.parse("bfloat16")
    assert np.array_equal(report.results[0], lowp.matmul(a, b, unit=name, fmt="bfloat16"))
    slow = lowp.matmul(a, b, unit="gemm/hopper_fp8_slow/e4m3_e4m3/f32", fmt="bfloat16")
    assert np.array_equal(report.results[-1], slow)


def test_exact_sums_do_not_differ(operands):
    a, b = operands
    quire = lowp.Accumulator(format="float32", group=1 << 20)
    report = reproducibility(a, b, accumulator=quire, splits=(), seeds=range(5), orders=("sequential",))
    assert report.differing == 0
    assert "0 of them with several results, up to 1" in str(report)


def test_wrong_ways_are_named(operands):
    with pytest.raises(lowp.ArgumentTypeError, match="ways"):
        reproducibility(*operands, ways={"x": 3})


class TestLayerCast:
    """Weights in bfloat16, everything else float32: what the order of the sum changes is far below a bfloat16 step."""

    def test_results_are_those_of_float32_products_of_bfloat16_weights(self):
        torch = pytest.importorskip("torch")
        import lowp.torch as lt

        torch.manual_seed(0)
        layer = torch.nn.Linear(64, 16)
        x = torch.randn(5, 64)
        with lt.emulate("layercast"), torch.no_grad():
            found = layer(x)
        weight = layer.weight.to(torch.bfloat16).to(torch.float32)
        with torch.no_grad():
            wanted = torch.nn.functional.linear(x, weight, layer.bias)
        assert torch.allclose(found, wanted, rtol=0, atol=1e-5)
        assert not torch.allclose(found, layer(x), rtol=0, atol=1e-5)

    def test_split_orders_agree_to_float32_level_where_bfloat16_products_differ(self):
        rng = np.random.default_rng(1)
        recipe = lowp.Recipe.named("layercast")
        weight = np.asarray(
            lowp.quantize(rng.standard_normal((512, 16)), recipe.cast("weight", "forward").format), np.float64
        )
        assert not recipe.cast("activation", "forward")
        x = rng.standard_normal((16, 512)).astype(np.float32).astype(np.float64)
        scale = np.abs(x) @ np.abs(weight)
        cast = reproducibility(x, weight, accumulator="float32", splits=SPLITS, seeds=(1, 2))
        plain = reproducibility(
            np.asarray(lowp.quantize(x, "bfloat16"), np.float64), weight, accumulator="float32", splits=SPLITS,
            seeds=(1, 2), outer="bfloat16", fmt="bfloat16",
        )  # fmt: skip
        spread = [np.ptp(r.results, axis=0) / scale for r in (cast, plain)]
        assert 0 < spread[0].max() < 2.0**-20  # float32 level
        assert spread[1].max() > 1000 * spread[0].max()
        assert plain.differing > 0.3
        top = cast.results.argmax(axis=-1)
        assert all(np.array_equal(p, q) for p, q in pairwise(top))


def test_long_permutations_have_short_names_of_their_own(operands):
    a, b = operands
    rng = np.random.default_rng(3)
    orders = [tuple(rng.permutation(512).tolist()), rng.permutation(512), (1, 0)]
    orders.append((*orders[0][:-2], orders[0][-1], orders[0][-2]))  # begins as the first one does
    report = reproducibility(a, b, accumulator="float16", orders=orders, splits=())
    assert len(report.variants) == 5
    assert [v.name for v in report.variants][3] == "order (1, 0)"
    assert max(map(len, str(report).splitlines())) < 120


@pytest.mark.parametrize("given", [{"groups": 4}, {"splits": 2}, {"seeds": 1}, {"orders": "pairwise"}])
def test_one_where_several_are_asked_for(operands, given):
    with pytest.raises(lowp.ArgumentTypeError, match=f"{next(iter(given))}=.* must be several"):
        reproducibility(*operands, accumulator="float16", **given)


def test_a_way_does_not_take_the_name_of_another(operands):
    with pytest.raises(lowp.ArgumentError, match="ways holds 'first'"):
        reproducibility(*operands, accumulator="float16", ways={"first": "float32"})
