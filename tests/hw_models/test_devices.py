"""Device figures: identities, lookups, and that every cell says where it comes from."""

from __future__ import annotations

import pytest

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.tables import KINDS, rows

TABLES = ("devices", "gemm_fit", "gemm_defaults", "native", "conversion", "passes", "energy")


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("a100", "bfloat16", 0.005),
        ("a100", "int8", 0.005),
        ("a100", "int4", 0.005),
        ("h100", "bfloat16", 0.005),
        ("h100", "fp8", 0.005),
        ("h100", "int8", 0.005),
        ("h200", "bfloat16", 0.005),
        ("h100_pcie", "bfloat16", 0.005),
        ("rtx_4090", "bfloat16", 0.005),
        ("rtx_5090", "bfloat16", 0.005),
        ("rtx_pro_6000", "bfloat16", 0.005),
        ("l40s", "bfloat16", 0.015),
    ],
)
def test_peak_is_twice_multiprocessors_times_multiply_adds_times_clock(name, dtype, tolerance):
    device = hw.device(name)
    per_clock = dict(device.fma_per_clock)[dtype]
    assert device.peak(dtype) == pytest.approx(2 * device.sms * per_clock * device.clock, rel=tolerance)


def test_rates_are_never_inferred_from_another_dtype():
    with pytest.raises(ArgumentError, match=r"device='a100' has no rate for it: dtype='fp8' is not known"):
        hw.device("a100").peak("fp8")
    assert hw.device("b300").peak("int8") < hw.device("b300").peak("fp8") / 20


def test_accumulator_is_part_of_the_key():
    card = hw.device("rtx_4090")
    assert card.peak("float16", accumulator="float16") == pytest.approx(2 * card.peak("float16"), rel=1e-3)
    with pytest.raises(ArgumentError, match="dtype='fp8/float16' is not known"):
        hw.device("h100").peak("fp8", accumulator="float16")


@pytest.mark.parametrize("name", ["h100", "H100", "h100-sxm", "NVIDIA H100 SXM5", "h100_sxm"])
def test_aliases(name):
    assert hw.device(name).name == "h100"


def test_device_passes_through_and_wrong_names_suggest():
    h200 = hw.device("h200")
    assert hw.device(h200) is h200
    with pytest.raises(ArgumentError, match="Did you mean 'mi300x'"):
        hw.device("mi300y")
    with pytest.raises(ArgumentTypeError, match="device=100 must be a name or a Device, not int"):
        hw.device(100)


def test_device_figures_are_plausible_si():
    for name in hw.devices():
        d = hw.device(name)
        assert 1e11 < d.bandwidth < 2e13
        assert 1e10 < d.capacity < 1e12
        assert 50 < d.tdp < 2000
        assert 1e9 < d.clock < 3e9
        assert 1e6 < d.l2 < 1e9
        assert d.peak("bfloat16") == d.peak("float16") > 1e13


@pytest.mark.parametrize("table", TABLES)
def test_every_row_has_a_source_and_a_kind(table):
    for row in rows(table):
        assert row["kind"] in KINDS, row
        assert row["source"], row
        assert None not in row, row


def test_every_kernel_of_the_native_table_has_parameters():
    known = {row["kernel"] for row in rows("gemm_defaults")}
    assert {row["kernel"] for row in rows("native")} | {"w4a16", "w8a16", "dequantize"} <= known


def test_every_device_of_the_fits_exists_and_every_compute_dtype_has_energies():
    assert {row["device"] for row in rows("gemm_fit")} <= set(hw.devices())
    energies = {(row["quantity"], row["key"]) for row in rows("energy")}
    for name in hw.devices():
        d = hw.device(name)
        needed = {("memory", d.memory_kind), ("node_scale", d.process)}
        needed |= {(quantity, dtype) for dtype, _, _ in d.peaks for quantity in ("multiply", "accumulate")}
        assert needed <= energies
