"""Energy, sums over a model, and the arithmetic of estimates."""

from __future__ import annotations

import pytest

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.energy import multiply_add_energy

SHAPES = [(128, 384, 384), (8192, 1536, 384), (1, 8192, 8192), (4096, 8192, 8192)]
MINILM = [(4096, 384, 384, 24), (4096, 1536, 384, 6), (4096, 384, 1536, 6)]


@pytest.mark.parametrize("device", ["a100", "h100", "h200", "b200", "mi300x"])
@pytest.mark.parametrize("pair", [("bfloat16", "bfloat16"), ("fp8", "fp8"), ("bfloat16", "int4_g128")], ids="x".join)
def test_mean_power_stays_between_idle_and_tdp(device, pair):
    tdp = hw.device(device).tdp
    for shape in SHAPES:
        time, energy = hw.gemm(*shape, *pair, device=device), hw.gemm_energy(*shape, *pair, device=device)
        assert 0 < energy.low <= energy.value <= energy.high
        assert 0.1 * tdp < energy.value / time.value <= tdp * (1 + 1e-9)
        assert energy.high <= tdp * time.high * (1 + 1e-9)


def test_narrow_multiply_adds_take_less_energy():
    mid = {d: sum(multiply_add_energy(d, "b200")) / 2 for d in ("tf32", "bfloat16", "fp8", "fp4")}
    assert mid["tf32"] > mid["bfloat16"] > mid["fp8"] > mid["fp4"]
    assert 1.5 < mid["bfloat16"] / mid["fp8"] < 4


def test_upper_end_of_a_multiply_add_is_tdp_over_peak():
    assert multiply_add_energy("bfloat16", "a100")[1] / 2 == pytest.approx(1.28e-12, rel=0.01)
    assert multiply_add_energy("fp4", "b200")[1] / 2 == pytest.approx(0.11e-12, rel=0.02)


def test_decoding_energy_falls_with_weight_bits():
    weights = ("bfloat16", "int8_row", "int4_g128")
    energy = [hw.gemm_energy(1, 8192, 8192, "bfloat16", b, device="h100").value for b in weights]
    assert energy == sorted(energy, reverse=True)


def test_model_cost_is_the_sum_of_its_products():
    time, energy = hw.matmuls_cost(MINILM, "bfloat16", "bfloat16", device="h100")
    assert time.value == pytest.approx(sum(c * hw.gemm(m, n, k, "bfloat16", "bfloat16").value for m, n, k, c in MINILM))
    assert energy.high == pytest.approx(
        sum(c * hw.gemm_energy(m, n, k, "bfloat16", "bfloat16").high for m, n, k, c in MINILM)
    )
    assert (time.unit, energy.unit) == ("s", "J")
    assert time.provenance.count("fitted to") == 1


def test_model_cost_refuses_nothing_and_bad_counts():
    with pytest.raises(ArgumentError, match="shapes is empty"):
        hw.matmuls_cost([], "fp8", "fp8")
    with pytest.raises(ArgumentError, match="count=0 must be at least 1"):
        hw.matmuls_cost([(8, 8, 8, 0)], "fp8", "fp8")


def test_estimates_add_scale_and_print_with_prefixes():
    t = hw.Estimate(12.34e-6, 10e-6, 20e-6, "s", "memory", "a; b")
    u = hw.Estimate(1e-6, 1e-6, 1e-6, "s", "launch", "b; c")
    total = t + 2 * u
    assert (total.value, total.low, total.high) == pytest.approx((14.34e-6, 12e-6, 22e-6))
    assert (total.bound, total.provenance) == ("memory", "a; b; c")
    assert str(t) == "12.3 us (10 to 20 us, memory)"
    assert str(hw.Estimate(0.9995, 0.5, 12.34, "s", "compute", "")) == "1000 ms (500 to 12300 ms, compute)"
    assert str(hw.Estimate(0.0, 0.0, 0.0, "J", "compute", "")) == "0 pJ (0 to 0 pJ, compute)"


def test_estimates_refuse_disorder_and_mixed_units():
    with pytest.raises(ArgumentError, match=r"low=3\.0, value=2\.0, high=4\.0 must be finite, not negative"):
        hw.Estimate(2.0, 3.0, 4.0, "s", "memory", "")
    with pytest.raises(ArgumentError, match="finite"):
        hw.Estimate(float("nan"), 0.0, 1.0, "s", "memory", "")
    t, e = hw.Estimate(1.0, 1.0, 1.0, "s", "memory", ""), hw.Estimate(1.0, 1.0, 1.0, "J", "memory", "")
    with pytest.raises(ArgumentError, match="unit='J' cannot be added to 's'"):
        _ = t + e
    with pytest.raises(ArgumentError, match="factor=0 must be positive and finite"):
        _ = t * 0
    with pytest.raises(ArgumentTypeError, match="factor='2' must be a number, not str"):
        _ = t * "2"


def test_areas_and_counts_print_without_wrong_prefixes():
    assert str(hw.Estimate(1.2e-9, 1e-9, 2e-9, "m2", "align", "")) == "1200 um2 (1000 to 2000 um2, align)"
    assert str(hw.Estimate(8.26e-4, 7e-4, 9e-4, "m2", "cores", "")) == "826 mm2 (700 to 900 mm2, cores)"
    assert str(hw.Estimate(1500.0, 1e3, 2e3, "GE", "align", "")) == "1500 GE (1000 to 2000 GE, align)"
    assert str(hw.Estimate(3e-15, 1e-15, 4e-15, "J", "sum", "")) == "3 fJ (1 to 4 fJ, sum)"
