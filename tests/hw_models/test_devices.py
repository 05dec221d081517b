"""Device figures: identities, lookups, and that every cell says where it comes from."""

from __future__ import annotations

import math

import pytest

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.tables import KINDS, rows

TABLES = (
    "devices",
    "gemm_fit",
    "gemm_defaults",
    "native",
    "widening",
    "conversion",
    "passes",
    "energy",
    "attention",
    "launches",
    "links",
    "collectives",
    "measured_gemm",
)


IDENTITIES = [(name, dtype) for name in hw.devices() for dtype, _ in hw.device(name).fma_per_clock]


@pytest.mark.parametrize(("name", "dtype"), IDENTITIES)
def test_peak_is_twice_multiprocessors_times_multiply_adds_times_clock(name, dtype):
    device = hw.device(name)
    per_clock = dict(device.fma_per_clock)[dtype]
    tolerance = 0.015 if name == "l40s" else 0.005  # its published float16 rate is rounded down
    assert device.peak(dtype) == pytest.approx(2 * device.sms * per_clock * device.clock, rel=tolerance)


def test_identities_of_every_generation():
    for name, dtype in (
        ("v100", "float16"),
        ("a100", "int1"),
        ("a100", "int4"),
        ("a100", "float64"),
        ("h100", "fp8"),
        ("b200", "fp4"),
        ("rtx_4090", "bfloat16"),
        ("rtx_5090", "fp4"),
        ("mi250x", "float16"),
        ("mi300x", "fp8"),
        ("mi355x", "fp4"),
        ("tpu_v6e", "bfloat16"),
    ):
        assert (name, dtype) in IDENTITIES


#: Dense TFLOPS or TOPS, TB/s, and capacity in GB or GiB, as vendors print them.
PRINTED = {
    "v100": ({"float16": 125, "int8": 62, "float64": 7.8}, 0.9, 32e9),
    "a100": ({"tf32": 156, "bfloat16": 312, "int8": 624, "int4": 1248, "int1": 4992, "float64": 19.5}, 2.039, 80e9),
    "a100_pcie": ({"bfloat16": 312, "int8": 624}, 1.935, 80e9),
    "h100": ({"float64": 67, "tf32": 494.7, "bfloat16": 989, "fp8": 1978, "int8": 1978}, 3.35, 80e9),
    "h100_pcie": ({"tf32": 378, "bfloat16": 756.5, "fp8": 1513, "int8": 1513}, 2.0, 80e9),
    "h200": ({"bfloat16": 989, "fp8": 1978}, 4.8, 141e9),
    "b200": ({"bfloat16": 2250, "fp8": 4500, "fp6": 4500, "fp4": 9000, "int8": 4500}, 7.7, 180 * 2**30),
    "gb200": ({"bfloat16": 2500, "fp8": 5000, "fp4": 10000, "int8": 5000}, 8.0, 185 * 2**30),
    "b300": ({"bfloat16": 2250, "fp8": 4500, "fp4": 14000, "int8": 153.5, "float64": 1.3}, 7.75, 269 * 2**30),
    "gb300": ({"bfloat16": 2500, "fp8": 5000, "fp4": 15000, "int8": 165}, 8.0, 278 * 2**30),
    "rtx_4090": ({"tf32": 82.6, "float16": 165.2, "fp8": 330.3, "int8": 660.6, "int4": 1321}, 1.008, 24e9),
    "rtx_5090": ({"bfloat16": 209.5, "fp8": 419, "fp6": 419, "fp4": 1676, "int8": 838}, 1.792, 32e9),
    "rtx_pro_6000": ({"bfloat16": 467.8, "fp8": 935.6, "fp4": 1871, "int8": 935.6}, 1.792, 95.6 * 2**30),
    "l40s": ({"bfloat16": 362.05, "fp8": 733, "int8": 733, "int4": 733, "tf32": 183}, 0.864, 45 * 2**30),
    "l4": ({"bfloat16": 121, "fp8": 242, "int8": 242}, 0.3, 24e9),
    "mi250x": ({"float64": 95.7, "bfloat16": 383, "int8": 383}, 3.28, 128e9),
    "mi300x": ({"float64": 163.4, "tf32": 653.7, "bfloat16": 1307, "fp8": 2615, "int8": 2615}, 5.3, 192e9),
    "mi355x": ({"bfloat16": 2516, "fp8": 5033, "fp6": 10066, "fp4": 10066, "int8": 5033}, 8.0, 288e9),
    "tpu_v4": ({"bfloat16": 275, "int8": 275}, 1.228, 32e9),
    "tpu_v5e": ({"bfloat16": 197, "int8": 394}, 0.82, 16e9),
    "tpu_v5p": ({"bfloat16": 459, "int8": 918}, 2.765, 95e9),
    "tpu_v6e": ({"bfloat16": 918, "int8": 1836}, 1.64, 32e9),
}


@pytest.mark.parametrize("name", PRINTED)
def test_printed_rates_bandwidths_and_capacities(name):
    rates, bandwidth, capacity = PRINTED[name]
    device = hw.device(name)
    for dtype, rate in rates.items():
        assert device.peak(dtype) == pytest.approx(rate * 1e12, rel=1e-9)
    assert device.bandwidth == pytest.approx(bandwidth * 1e12, rel=1e-9)
    assert device.capacity == pytest.approx(capacity, rel=1e-9)


def test_missing_figures_are_refused_by_name():
    assert hw.device("a100").need("sms") == 108
    with pytest.raises(ArgumentError, match="device='tpu_v5e' has no figure 'tdp'"):
        hw.device("tpu_v5e").need("tdp")
    with pytest.raises(ArgumentError, match="device='h100', vector unit: dtype='fp8' is not known"):
        hw.device("h100").vector_peak("fp8")
    assert dict(hw.device("mi300x").figures)["infinity_cache"] == 256e6


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
        assert math.isnan(d.tdp) or 50 < d.tdp < 2000
        assert 1e9 < d.clock < 3e9
        assert math.isnan(d.l2) or 1e6 < d.l2 < 1e9
        assert len({d.peak(dtype) for dtype in ("bfloat16", "float16") if d.has(dtype)}) == 1
        assert not d.title.startswith("NVIDIA") or not math.isnan(d.tdp)


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
        needed = {("memory", d.memory_kind)} | ({("node_scale", d.process)} if d.process else set())
        needed |= {(quantity, dtype) for dtype, _, _ in d.peaks for quantity in ("multiply", "accumulate")}
        assert needed <= energies


def test_the_usual_accumulator_has_a_name():
    for name in hw.devices():
        device = hw.device(name)
        for dtype, accumulator, rate in device.peaks:
            if not accumulator:
                usual = "int32" if dtype.startswith("int") else "float64" if dtype == "float64" else "float32"
                assert device.peak(dtype, usual) == device.peak(dtype) == rate
    assert hw.device("rtx_4090").peak("float16", "float32") == 165.2e12
    assert hw.device("rtx_4090").peak("float16", "float16") == 330.3e12
    for dtype, accumulator in (("float16", "int32"), ("int8", "float32"), ("float64", "float32")):
        with pytest.raises(ArgumentError, match="has no rate for it"):
            hw.device("rtx_4090").peak(dtype, accumulator)
