"""Formats that a device does not multiply natively: what they are unpacked to, and passes that convert."""

from __future__ import annotations

import pytest

from lowp import hw
from lowp._errors import ArgumentError
from lowp.hw_models.devices import device as find
from lowp.hw_models.gemm import plan
from lowp.hw_models.native import operand
from lowp.hw_models.tile_wave import Kernel, Work, tile_wave


@pytest.mark.parametrize(
    ("pair", "device", "compute"),
    [
        (("int4_row", "int4_row"), "a100", "int4"),
        (("int4_row", "int4_row"), "h100", "int8"),
        (("int8_row", "int2_row"), "a100", "int8"),
        (("int8_row", "ternary"), "a100", "int8"),
        (("float6_e2m3fn", "float8_e4m3fn"), "h100", "fp8"),
        (("float6_e2m3fn", "float6_e2m3fn"), "a100", "bfloat16"),
        (("int4_g128", "int4_g128"), "h100", "bfloat16"),
        (("float16", "int4_g128"), "h100", "float16"),
        (("bfloat16", "int4_g128"), "h100", "bfloat16"),
        (("bfloat16", "float16"), "a100", "tf32"),
        (("bfloat16", "bfloat16"), "v100", "float32"),
        (("float16", "int4_g128"), "v100", "float16"),
        (("float32", "float32"), "v100", "float32"),
        (("float32", "float32"), "a100", "tf32"),
        (("float64", "float64"), "a100", "float64"),
        (("posit16_es1", "posit16_es1"), "h100", "float32"),
        (("posit8_es1", "posit8_es1"), "h100", "bfloat16"),
        (("float32", "float64"), "h100", "float64"),
        (("e4m10", "e4m10"), "h100", "float16"),
        (("e8m10", "e8m10"), "h100", "tf32"),
        (("int8_row", "int8_row"), "tpu_v5e", "int8"),
    ],
)
def test_compute_dtype_holds_both_operands(pair, device, compute):
    assert plan(4096, 4096, 4096, *pair, device=device).compute == compute


def test_a_wider_integer_unit_is_used_where_it_is_faster():
    for m in (16, 4096):
        done = plan(m, 8192, 8192, "int8_row", "int4_row", device="h100")
        assert done.compute == "int8"
        assert "unpacked to int8" in done.time.provenance
        apart = hw.gemm(m, 8192, 8192, "int8_g128", "int4_g128", device="h100")  # scales inside forbid it
        assert done.time.value < apart.value


def test_no_dtype_that_holds_both_is_an_error():
    with pytest.raises(ArgumentError, match="'gb300' has no dtype that holds the values of both 'float64'"):
        hw.gemm(8, 8, 8, "float64", "float64", device="gb300")
    with pytest.raises(ArgumentError, match="device='tpu_v4' has no dtype that holds"):
        hw.gemm(8, 8, 8, "float16", "float16", device="tpu_v4")


@pytest.mark.parametrize(
    ("fmt", "bits"),
    [("nvfp4", 4.5), ("mxfp4", 4.25), ("mxfp6", 6.25), ("mxfp8", 8.25), ("int4_g128", 4.125), ("int8_g128", 8.25)],
)
def test_bytes_count_the_scales_of_blocks(fmt, bits):
    machine = find("a100")
    assert operand(fmt, machine).bits_per_value == bits
    done = plan(1, 4096, 4096, "bfloat16", fmt, device=machine)
    assert done.bytes_moved >= 4096 * 4096 * bits / 8


def test_dequantizing_repeats_for_every_tile_of_tokens():
    counts = [plan(m, 8192, 8192, "bfloat16", "int4_g128", device="a100").instructions.value for m in (16, 512, 1024)]
    assert counts == sorted(counts)
    assert counts[0] == pytest.approx(8192 * 8192 * 1.25)


def test_groups_are_one_launch_and_as_much_work():
    one, grouped = (hw.gemm(256, 256, 64, "bfloat16", "bfloat16", groups=g).value for g in (1, 64))
    assert one < grouped < 64 * one
    kernel = Kernel(1.0, 1.0, 0.0, 0.0)
    # 4 tiles of 256 x 128 on 8 multiprocessors: a half-empty wave for one product, four full waves for eight.
    one, eight = (tile_wave(Work(512, 256, 512, 1.0, 8e12, 1e12, 8, groups=g), kernel).seconds for g in (1, 8))
    assert eight == pytest.approx(8 * 2 * 512 * 256 * 512 / 8e12)
    assert one == pytest.approx(eight / 8, rel=1e-6)  # smaller tiles fill the wave


def test_what_fits_the_cache_moves_faster_where_measurements_show_it():
    kernel = Kernel(0.9, 0.8, 0.0, 0.0, cache=2.0, cache_share=0.5)
    small = Work(64, 1024, 1024, 4e6, 1e15, 1e12, 100, l2=1e8)
    large = Work(64, 1024, 1024, 6e7, 1e15, 1e12, 100, l2=1e8)
    assert tile_wave(small, kernel).seconds == pytest.approx(4e6 / 1e12 / 0.8 / 2)
    assert tile_wave(large, kernel).seconds == pytest.approx(6e7 / 1e12 / 0.8)


def test_overlap_of_one_adds_and_of_infinity_takes_the_longest():
    work = Work(128, 128, 1000, 1e6, 1e12, 1e11, 1)

    def seconds(overlap: float) -> float:
        return tile_wave(work, Kernel(1.0, 1.0, 0.0, 0.0, overlap=overlap)).seconds

    assert seconds(1.0) == pytest.approx(2 * 128 * 128 * 1000 / 1e12 + 1e-5)
    assert seconds(float("inf")) == pytest.approx(2 * 128 * 128 * 1000 / 1e12)
    assert seconds(float("inf")) < seconds(3.0) < seconds(1.5) < seconds(1.0)


def test_quantizing_reads_once_or_twice_and_casts_at_the_measured_share():
    def seconds(fmt: str, **options: object) -> float:
        return hw.quantize_pass(16384, 16384, fmt, "h100", **options).value

    values = 16384**2
    known = seconds("fp8", known_scale=True)
    assert 0.83 <= 3 * values / 3.35e12 / known <= 0.93
    assert seconds("fp8") == pytest.approx(5 / 3 * known, rel=0.05)
    assert seconds("mxfp8") == pytest.approx(known * (2 + 33 / 32) / 3, rel=0.05)
    assert hw.quantize_pass(1, 128, "mxfp8", "h100").bound == "launch"


def test_a_rotation_moves_nothing_more_and_may_hide_behind_the_memory():
    def pass_of(block: int) -> hw.Estimate:
        return hw.quantize_pass(8192, 8192, "mxfp4", "b200", hadamard=block)

    times = [pass_of(block) for block in (1, 16, 128, 8192)]
    assert [t.value for t in times] == sorted(t.value for t in times)
    assert times[1].value < 1.5 * times[0].value
    assert "Hadamard rotation of 16 values" in times[1].provenance
    for bad in (3, 0, 16384):
        with pytest.raises(ArgumentError, match=f"hadamard={bad}"):
            pass_of(bad)


def test_unpacking_reads_the_codes_and_writes_two_bytes():
    values = 16384**2
    times = {fmt: hw.dequantize_pass(16384, 16384, fmt, "h100") for fmt in ("int4_g128", "fp8", "mxfp4")}
    for fmt, time in times.items():
        moved = values * (2 + operand(fmt, find("h100")).bits_per_value / 8)
        assert moved / 3.35e12 < time.low <= time.value <= time.high
        assert time.value == pytest.approx(moved / 3.35e12 / 0.88, rel=0.02)
    assert hw.dequantize_pass(16384, 16384, "posit16_es1", "h100").bound == "convert"


@pytest.mark.parametrize("fmt", ["bfloat16", "fp8", "nvfp4", "int4_g128"])
def test_the_roofline_is_the_slower_of_peak_rate_and_bandwidth(fmt):
    machine = find("b200")
    for m in (1, 128, 4096):
        ideal = hw.roofline(m, 8192, 4096, fmt, fmt, device=machine)
        done = plan(m, 8192, 4096, fmt, fmt, device=machine)
        bytes_per_value = operand(fmt, machine).bytes_per_value
        moved = bytes_per_value * (m * 4096 + 8192 * 4096) + 2 * m * 8192
        rate = machine.peak(done.compute)
        assert ideal.value == max(2 * m * 8192 * 4096 / rate, moved / machine.bandwidth)
        assert ideal.low == ideal.high == ideal.value < done.time.value


def test_break_even_batches_and_ideal_speedups():
    assert hw.break_even_batch("int4_g128", "a10") == pytest.approx(53.7, abs=0.05)
    assert hw.break_even_batch("int4_g128", "a100") == pytest.approx(39.5, abs=0.1)
    assert hw.break_even_batch("int4_g128", "h100") == pytest.approx(76, abs=0.5)
    assert hw.ideal_speedup("int4_g128") == 16 / 4.125
    assert hw.ideal_speedup("mxfp4", over="fp8") == 8 / 4.25


def test_consumer_cards_are_faster_with_a_narrow_accumulator():
    wide, narrow = (
        hw.gemm(4096, 4096, 4096, "fp8", "fp8", device="rtx_4090", accumulator=acc).value for acc in ("", "float16")
    )
    assert 1.5 < wide / narrow < 2.1
    with pytest.raises(ArgumentError, match="dtype='fp8/float16' is not known"):
        hw.gemm(64, 64, 64, "fp8", "fp8", device="h100", accumulator="float16")


def test_a_stack_must_have_been_measured_on_the_device():
    eager = hw.gemm(1024, 12288, 12288, "float16", "float16", device="a100", stack="pytorch")
    assert "PyTorch of LLMCompass" in eager.provenance
    with pytest.raises(ArgumentError, match="device='h100': stack='pytorch' is not known"):
        hw.gemm(8, 8, 8, "bfloat16", "bfloat16", device="h100", stack="pytorch")
