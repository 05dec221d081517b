"""Promotion, split-K, tile orders and the epilogue, against plain loops and against mmaemu."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import lowp
from lowp.emulation.gemm import Schedule, epilogue, gemm, gemm_accumulator, schedule, stream_k

HOPPER = "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"
ADA = "ada_lovelace/mma_m16n8k32/e4m3_e4m3/f32"


def operands(rng, m, k, n, fmt="float8_e4m3fn", spread=3.0):
    """Numbers of a format with exponents all over the place, zeros among them."""
    a, b = (rng.standard_normal(s) * np.exp2(rng.uniform(-spread, spread, s)) for s in ((m, k), (k, n)))
    a[rng.random(a.shape) < 0.1] = 0
    return tuple(np.asarray(lowp.quantize(x, fmt), np.float64) for x in (a, b))


def chain(unit, a, b, terms):
    return unit.run(a[:, terms], b[terms])


def float32_sum(parts):
    total = parts[0].astype(np.float32)
    for x in parts[1:]:
        total = total + x.astype(np.float32)
    return total.astype(np.float64)


@pytest.mark.parametrize("name", [HOPPER, ADA, "ampere/mma_m16n8k16/bf16_bf16/f32"])
@pytest.mark.parametrize("promote", [None, 64, 128])
@pytest.mark.parametrize("splits", [1, 3])
def test_contiguous_splits_and_promotion_are_loops_over_the_instruction(name, promote, splits):
    rng = np.random.default_rng(0)
    unit = lowp.matrix_unit(name)
    k = 992
    a, b = operands(rng, 3, k, 4)
    tiles = -(-k // 128)
    q = -(-tiles // splits) * 128
    parts = []
    for first in range(0, k, q):
        own = np.arange(first, min(first + q, k))
        chains = [
            chain(unit, a, b, own[i : i + (promote or len(own))]) for i in range(0, len(own), promote or len(own))
        ]
        parts.append(float32_sum([np.zeros((3, 4)), *chains]) if promote else chains[0])
    wanted = float32_sum(parts)
    described = gemm_accumulator(unit, promote=promote, splits=splits)
    assert np.array_equal(described.run(a, b), wanted)
    assert np.array_equal(gemm(a, b, unit, schedule(k, promote=promote, splits=splits)), wanted)
    if promote or splits > 1:
        assert not np.array_equal(unit.run(a, b), wanted)


@pytest.mark.parametrize("promote", [None, 128])
def test_interleaved_splits(promote):
    rng = np.random.default_rng(1)
    a, b = operands(rng, 2, 768, 3)
    unit = lowp.matrix_unit(ADA)
    parts = []
    for s in range(3):
        own = np.concatenate([np.arange(t * 64, t * 64 + 64) for t in range(s, 12, 3)])
        chains = [
            chain(unit, a, b, own[i : i + (promote or len(own))]) for i in range(0, len(own), promote or len(own))
        ]
        parts.append(float32_sum([np.zeros((2, 3)), *chains]))
    wanted = float32_sum(parts)
    how = {"promote": promote, "splits": 3, "split_tile": 64, "interleaved": True}
    assert np.array_equal(gemm(a, b, unit, schedule(768, **how)), wanted)
    assert np.array_equal(gemm_accumulator(unit, terms=768, **how).run(a, b), wanted)
    with pytest.raises(lowp.ArgumentError, match="multiple"):
        gemm_accumulator(unit, terms=700, **how)


def test_stream_k_takes_every_step_once_and_in_equal_shares():
    for terms, tiles, workers in ((512, 3, 2), (1000, 5, 4), (128, 7, 3), (384, 2, 6)):
        found = stream_k(terms, tiles, workers)
        assert len(found) == tiles
        for one in found:
            assert [k for worker in one.workers for ch in worker for k in ch] == list(range(terms))
        steps = -(-terms // 128)
        lengths = [-(-len(w[0]) // 128) for one in found for w in one.workers]
        assert sum(lengths) == steps * tiles
        assert max(lengths) <= max(-(-steps * tiles // workers), 1)


def test_stream_k_products_are_those_of_their_tiles():
    rng = np.random.default_rng(2)
    a, b = operands(rng, 5, 512, 6)
    plans = stream_k(512, 6, 4)
    found = gemm(a, b, HOPPER, plans, tile=(3, 2))
    unit = lowp.matrix_unit(HOPPER)
    for tile, plan in enumerate(plans):
        i, j = tile // 3 * 3, tile % 3 * 2
        parts = [chain(unit, a[i : i + 3], b[:, j : j + 2], list(w[0])) for w in plan.workers]
        assert np.array_equal(found[i : i + 3, j : j + 2], float32_sum(parts))


@pytest.mark.parametrize("how", ["fast", "slow", "deepseek"])
def test_presets_by_name(how):
    rng = np.random.default_rng(3)
    a, b = operands(rng, 3, 1024, 3)
    unit = lowp.matrix_unit(f"gemm/hopper_fp8_{how}/e4m3_e4m3/f32")
    assert unit.name in lowp.matrix_units()
    wanted = gemm_accumulator(HOPPER, promote=None if how == "fast" else 128).run(a, b)
    assert np.array_equal(unit.run(a, b), wanted)
    codes = [lowp.encode(x, "float8_e4m3fn").codes for x in (a, b)]
    assert np.array_equal(unit.run_codes(*codes).view(np.float32), wanted)


def test_promotion_cures_the_14_bit_accumulator():
    rng = np.random.default_rng(4)
    a, b = (
        np.asarray(lowp.quantize(np.abs(rng.standard_normal(s)), "float8_e4m3fn"), float)
        for s in ((4, 4096), (4096, 4))
    )
    exact = a @ b
    errors = {
        how: np.abs(lowp.matrix_unit(f"gemm/hopper_fp8_{how}/e4m3_e4m3/f32").run(a, b) / exact - 1).max()
        for how in ("fast", "slow")
    }
    assert errors["fast"] > 20 * errors["slow"]


class TestEpilogue:
    def test_is_one_rounding_to_float32_then_one_to_the_format(self):
        rng = np.random.default_rng(5)
        sums = rng.standard_normal(2000).astype(np.float32)
        sa, sb = np.float32(0.37), np.float32(1.9)
        alpha = np.float32(sa * sb)
        y = [lowp.exact.quantize(Fraction(float(s)) * Fraction(float(alpha)), "float32") for s in sums]
        for out in ("float32", "bfloat16", "float16"):
            wanted = [float(lowp.exact.quantize(v, out)) for v in y]
            assert epilogue(sums, (float(sa), float(sb)), out=out).tolist() == wanted

    def test_rounds_twice(self):
        tie = 1 + 2.0**-8
        assert epilogue(tie, 1 + 2.0**-23, out="float32").item() > tie
        assert epilogue(1 + 2.0**-8 + 2.0**-23, 1 - 2.0**-24).item() == 1.0  # y is the tie; its exact value is above

    def test_zeros_are_positive_and_tiny_products_keep_their_sign(self):
        zero, tiny = epilogue([-0.0, -(2.0**-149)], 0.25, out="float32")
        assert (np.signbit(zero), np.signbit(tiny)) == (False, True)

    def test_fp8_is_scaled_and_saturates(self):
        assert epilogue([3.0, 1e6, -np.inf, np.nan], out="float8_e4m3fn", scale_result=2.0).tolist()[:3] == [
            6.0,
            448.0,
            -448.0,
        ]
        assert epilogue([1e6], out="float16").item() == np.inf
        with pytest.raises(lowp.ArgumentError, match="scale_result"):
            epilogue([1.0], scale_result=2.0)

    def test_bias_is_added_in_float32(self):
        assert epilogue([[1.0, 2.0]], 2.0, bias=[2.0**-25, 1.0], out="float32").tolist() == [[2.0, 5.0]]

    def test_wrong_arguments(self):
        with pytest.raises(lowp.ArgumentError, match="float32"):
            epilogue([0.1])
        with pytest.raises(lowp.ArgumentError, match="alpha"):
            epilogue([1.0], (1.0, 2.0, 3.0))
        with pytest.raises(lowp.ArgumentError, match="floating-point"):
            epilogue([1.0], out="int8")


def test_wrong_arguments():
    with pytest.raises(lowp.ArgumentError, match="combine"):
        Schedule(((),), "tree")
    with pytest.raises(lowp.ArgumentError, match="once"):
        gemm(np.ones((1, 64)), np.ones((64, 1)), HOPPER, schedule(32))
    with pytest.raises(lowp.ArgumentError, match="promote"):
        gemm_accumulator(HOPPER, promote=0)
    with pytest.raises(lowp.ArgumentError, match="partial sums"):
        gemm_accumulator("gemm/hopper_fp8_slow/e4m3_e4m3/f32", splits=2)


class TestMmaemu:
    """Bit for bit what mmaemu computes, which reproduces recorded cuBLAS products."""

    @staticmethod
    def product(preset, a, b, formats, **how):
        torch = pytest.importorskip("torch")
        plan = pytest.importorskip("mmaemu.model.plan", reason="mmaemu is not installed")
        from mmaemu.model.chain import chain_gemm

        codes = [torch.from_numpy(np.ascontiguousarray(x)) for x in (a, b)]
        short = {"float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2"}
        names = {"fmt_a": short[formats[0]], "fmt_b": short[formats[1]]}
        made = plan.make_plan(a.shape[1], preset=preset, **how)
        found = plan.execute_plan(
            made, *codes, **names, chain_fn=lambda x, y: chain_gemm(x, y, preset=preset, **names)
        )  # fmt: skip
        return found.numpy().astype(np.float64)

    @pytest.mark.parametrize("formats", [("float8_e4m3fn", "float8_e4m3fn"), ("float8_e5m2", "float8_e4m3fn")])
    @pytest.mark.parametrize("fast", [True, False])
    @pytest.mark.parametrize(
        ("preset", "scheme", "splits"),
        [("hopper", "none", 1), ("hopper", "contiguous", 2), ("hopper", "contiguous", 5), ("ada", "none", 1),
         ("ada", "serial", 2), ("ada", "serial", 3), ("ada", "pairwise", 3), ("ada", "pairwise", 5)],
    )  # fmt: skip
    def test_products(self, preset, scheme, splits, fast, formats):
        rng = np.random.default_rng(6)
        unit = lowp.matrix_unit(
            (HOPPER if preset == "hopper" else ADA).replace("e4m3_e4m3", "_".join(f[7:11] for f in formats))
        )
        for k in (16, 128, 352, 1040):
            a, b = operands(rng, 5, k, 3, formats[0], 5.0)
            b = np.asarray(lowp.quantize(b, formats[1]), np.float64)
            codes = lowp.encode(a, formats[0]).codes, lowp.encode(b.T, formats[1]).codes
            wanted = self.product(preset, *codes, formats, fast=fast, S=splits, scheme=scheme)
            how = schedule(
                k, promote=None if fast else 128, splits=splits, split_tile=128 if preset == "hopper" else 64,
                interleaved=preset == "ada", combine="pairwise" if scheme == "pairwise" else "serial",
            )  # fmt: skip
            assert np.array_equal(gemm(a, b, unit, how), wanted), k
            if splits == 1 and formats[0] == formats[1]:
                named = lowp.matrix_unit(f"gemm/{preset}_fp8_{'fast' if fast else 'slow'}/e4m3_e4m3/f32")
                assert np.array_equal(named.run(a, b), wanted)

    def test_epilogue(self):
        torch = pytest.importorskip("torch")
        theirs = pytest.importorskip("mmaemu.model.epilogue", reason="mmaemu is not installed")

        rng = np.random.default_rng(7)
        sums = (rng.standard_normal(5000) * np.exp2(rng.uniform(-140, 127, 5000))).astype(np.float32)
        sums[:4] = 0.0, -0.0, np.inf, np.nan
        for out, scale in (
            ("float32", None),
            ("bfloat16", None),
            ("float16", None),
            ("float8_e4m3fn", 3.7),
            ("float8_e5m2", None),
        ):
            for scales in ((0.37, 1.9), (2.0**-100, 2.0**-40), (-1.5, 3e38)):
                sa, sb = (float(np.float32(x)) for x in scales)
                wanted = theirs.apply(
                    torch.from_numpy(sums), torch.tensor([sa]), torch.tensor([sb]), out_dtype=getattr(torch, out),
                    scale_result=None if scale is None else torch.tensor([scale]),
                ).double().numpy()  # fmt: skip
                found = epilogue(
                    sums, (sa, sb), out=out, scale_result=None if scale is None else float(np.float32(scale))
                )
                assert np.array_equal(found, wanted, equal_nan=True)
                assert np.array_equal(np.signbit(found[~np.isnan(found)]), np.signbit(wanted[~np.isnan(found)]))
