"""What the time model must get right whatever its parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError, FormatError
from lowp.formats import names
from lowp.hw_models.devices import device as find
from lowp.hw_models.gemm import plan
from lowp.hw_models.kernels import fit
from lowp.hw_models.native import operand
from lowp.hw_models.tile_wave import Kernel, Work, roofline, tile_wave

SHAPES = [(1, 384, 384), (128, 1536, 384), (8192, 384, 1536), (1, 8192, 8192), (64, 16384, 8192), (4096, 8192, 8192)]
PAIRS = [
    ("bfloat16", "bfloat16"),
    ("float32", "float32"),
    ("fp8", "fp8"),
    ("mxfp4", "mxfp4"),
    ("nvfp4", "nvfp4"),
    ("int8_row", "int8_row"),
    ("bfloat16", "int4_g128"),
    ("bfloat16", "nf4_g64"),
    ("int4_g64", "int4_g64"),
    ("e5m7", "e5m7"),
]
DEVICES = ["a100", "h100", "h200", "b200", "mi300x", "l40s"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pair", PAIRS, ids="x".join)
def test_interval_is_ordered_and_the_value_never_beats_the_roofline(pair, device):
    machine = find(device)
    left, right = (operand(f, machine) for f in pair)
    for m, n, k in SHAPES:
        done = plan(m, n, k, *pair, device=device)
        moved = left.bytes_per_value * m * k + right.bytes_per_value * n * k + 2 * m * n
        through = moved if moved > machine.l2 else 0.0  # what the cache holds may beat the memory's bandwidth
        ideal = roofline(Work(m, n, k, through, machine.peak(done.compute), machine.bandwidth, machine.sms))
        assert 0 < done.time.low <= done.time.value <= done.time.high
        assert done.time.value > ideal
        assert done.time.low >= ideal


@pytest.mark.parametrize("device", DEVICES)
def test_fewer_weight_bits_never_take_longer_when_memory_bound(device):
    weights = ("bfloat16", "int8_row", "int6_row", "int5_row", "int4_row", "int2_row")
    times = [hw.gemm(1, 16384, 16384, "bfloat16", b, device=device).value for b in weights]
    assert times == sorted(times, reverse=True)


def test_more_tokens_never_take_less_time_on_the_same_weights():
    times = [hw.gemm(m, 4096, 4096, "fp8", "fp8", device="h100").value for m in (1, 16, 64, 256, 1024, 4096)]
    assert times == sorted(times)


@pytest.mark.parametrize("device", ["h100", "h200", "b200"])
def test_fp8_is_faster_than_bfloat16_with_many_tokens(device):
    fp8, wide = (hw.gemm(8192, 8192, 8192, f, f, device=device).value for f in ("fp8", "bfloat16"))
    assert 1.3 < wide / fp8 < 2.0


@pytest.mark.parametrize("device", ["a100", "h100", "b200"])
def test_weight_only_int4_wins_with_one_token_and_not_with_many(device):
    def speedup(m: int) -> float:
        wide = hw.gemm(m, 16384, 8192, "bfloat16", "bfloat16", device=device).value
        return wide / hw.gemm(m, 16384, 8192, "bfloat16", "int4_g128", device=device).value

    assert speedup(1) > 1.5
    assert all(speedup(m) <= 1.0 for m in (1024, 4096, 8192))


def test_small_products_are_bound_by_their_launch_and_quantizing_does_not_pay():
    wide = hw.gemm(128, 384, 384, "bfloat16", "bfloat16", device="h100")
    narrow = hw.gemm(128, 384, 384, "fp8", "fp8", device="h100")
    assert (wide.bound, narrow.bound) == ("launch", "launch")
    assert narrow.value > wide.value


def test_format_without_native_support_is_not_predicted_faster_than_one_with():
    for shape in SHAPES:
        native = hw.gemm(*shape, "fp8", "fp8", device="h100").value
        assert hw.gemm(*shape, "e4m3b9fn", "e4m3b9fn", device="h100").value >= native


@pytest.mark.parametrize(
    ("fmt", "device", "compute"),
    [
        ("fp8", "h100", "fp8"),
        ("e5m2", "h200", "fp8"),
        ("fp8", "a100", "bfloat16"),
        ("fp8", "mi300x", "bfloat16"),
        ("float8_e4m3fnuz", "mi300x", "fp8"),
        ("nvfp4", "b200", "fp4"),
        ("nvfp4", "h100", "bfloat16"),
        ("mxfp4", "b200", "fp4"),
        ("mxfp6", "b200", "fp6"),
        ("mxfp8", "b200", "fp8"),
        ("mxfp8", "h100", "bfloat16"),
        ("mxint8", "b200", "bfloat16"),
        ("int8_row", "a100", "int8"),
        ("int8_tensor", "b200", "int8"),
        ("int8_g128", "h100", "bfloat16"),
        ("int4_g128", "a100", "bfloat16"),
        ("e5m7", "b200", "bfloat16"),
        ("tf32", "h100", "tf32"),
    ],
)
def test_compute_dtype_of_a_pair_of_equal_formats(fmt, device, compute):
    assert plan(512, 512, 512, fmt, fmt, device=device).compute == compute


def test_operands_native_in_different_kernels_are_multiplied_in_bfloat16():
    done = plan(512, 512, 512, "fp8", "nvfp4", device="b200")
    assert done.compute == "bfloat16"
    assert "not native on b200" in done.time.provenance


def test_provenance_says_what_was_fitted_and_what_was_not():
    fitted = hw.gemm(512, 512, 512, "fp8", "fp8", device="h100").provenance
    assert "fp8 fitted to TensorRT-LLM 1.3.0rc20 on h100" in fitted
    assert "quantizing the activations is in the measured time" in fitted
    assert "mxfp4 not measured on this device: scaled from nvfp4, interval widened" in (
        hw.gemm(512, 512, 512, "mxfp4", "mxfp4", device="b200").provenance
    )
    assert "bfloat16 not fitted on this device: average over devices, interval widened" in (
        hw.gemm(512, 512, 512, "bfloat16", "bfloat16", device="mi300x").provenance
    )


def test_interval_is_wider_where_nothing_was_fitted():
    def width(fmt: str, device: str) -> float:
        t = hw.gemm(4096, 4096, 4096, fmt, fmt, device=device)
        return t.high / t.low

    assert width("mxfp4", "b200") > width("nvfp4", "b200")
    assert width("bfloat16", "mi300x") > width("bfloat16", "h100")
    assert width("e5m7", "h100") > width("bfloat16", "h100")


def test_operand_reads_any_object_with_name_and_bits():
    element, scale = SimpleNamespace(name="float4_e2m1fn"), SimpleNamespace(name="float8_e4m3fn")
    home_made = SimpleNamespace(name="mine", bits_per_value=4.5, element=element, scale=scale, size=16)
    assert operand(home_made, find("b200")).kernel == "nvfp4"
    mine = hw.gemm(64, 64, 64, home_made, home_made, device="b200")
    assert mine.value == hw.gemm(64, 64, 64, "nvfp4", "nvfp4", device="b200").value


def test_storage_counts_scales():
    b200 = find("b200")
    stored = {"nvfp4": 4.5, "mxfp4": 4.25, "mxfp8": 8.25, "int4_g128": 4.125}
    assert {f: operand(f, b200).bits_per_value for f in stored} == stored
    assert operand("tf32", b200).bits_per_value == 32  # TF32 lives in memory as float32


@pytest.mark.parametrize(
    ("fmt", "bits", "whole_scale", "unpack"),
    [
        ("ggml_q4_k", 4.5, False, 4),
        ("bitnet_i2_s", 2.0, True, 4),
        ("bnb_nf4", 4.5, False, 4),
        ("posit16", 16, False, 20),
    ],
)
def test_packed_formats_and_posits_move_their_bits(fmt, bits, whole_scale, unpack):
    found = operand(fmt, find("h100"))
    assert (found.bits_per_value, found.whole_scale, found.unpack.value) == (bits, whole_scale, unpack)
    assert found.compute is None
    cost = hw.gemm(1, 8192, 8192, "bfloat16", fmt, device="h100")
    assert 0 < cost.low <= cost.value <= cost.high


@pytest.mark.parametrize("fmt", names())
def test_every_registered_format_has_an_operand(fmt):
    found = operand(fmt, find("b200"))
    assert found.bits_per_value > 0
    assert found.unpack.low <= found.unpack.value <= found.unpack.high


def test_quantize_pass_reaches_the_measured_bandwidth_on_h100():
    t = hw.quantize_pass(16384, 8192, "mxfp8", "h100")
    moved = 16384 * 8192 * (2 + 8.25 / 8)
    assert 0.84 < moved / t.value / 3.35e12 < 0.90
    assert t.low < t.value < t.high


def test_quantize_pass_of_one_scale_per_tensor_reads_twice():
    once = hw.quantize_pass(16384, 16384, "mxfp8", "h100").value
    assert 1.4 < hw.quantize_pass(16384, 16384, "fp8", "h100").value / once < 1.8


def test_tile_wave_equals_its_formula_on_one_wave():
    kernel = Kernel(compute=0.5, memory=1.0, start=0.0, ramp=32)
    work = Work(64, 64, 256, bytes_moved=0.0, peak=1e12, bandwidth=1e12, sms=1)
    assert tile_wave(work, kernel).seconds == pytest.approx(2 * 64 * 64 * (256 + 32) / 0.5e12)


def test_a_last_wave_of_one_tile_costs_a_whole_wave():
    kernel = Kernel(compute=1.0, memory=1.0, start=0.0, ramp=0)

    def seconds(tiles: int) -> float:
        return tile_wave(Work(256 * tiles, 128, 4096, 0.0, 1e15, 1e15, sms=100), kernel).seconds

    assert seconds(401) / seconds(400) > 401 / 400


def test_bad_arguments_name_themselves():
    with pytest.raises(ArgumentError, match=r"m=0 must be at least 1"):
        hw.gemm(0, 8, 8, "fp8", "fp8")
    with pytest.raises(ArgumentTypeError, match=r"k=8.0 must be an integer, not float"):
        hw.gemm(8, 8, 8.0, "fp8", "fp8")
    with pytest.raises(ArgumentTypeError, match=r"n=True must be an integer, not bool"):
        hw.gemm(8, True, 8, "fp8", "fp8")
    with pytest.raises(FormatError, match="nvfp5"):
        hw.gemm(8, 8, 8, "nvfp5", "fp8")
    with pytest.raises(ArgumentTypeError, match=r"format=3 must be a name or a format, not int"):
        hw.gemm(8, 8, 8, 3, "fp8")
    with pytest.raises(ArgumentError, match=r"device='h1000' is not known. Did you mean 'h100'"):
        hw.gemm(8, 8, 8, "fp8", "fp8", device="h1000")
    with pytest.raises(ArgumentError, match=r"kernel='fp7' is not known"):
        fit("h100", "fp7")


def test_an_operand_takes_the_name_of_a_device():
    assert hw.operand("nvfp4", "B200") == operand("nvfp4", find("b200"))
    with pytest.raises(ArgumentError, match="device='b20' is not known"):
        hw.operand("nvfp4", "b20")


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda fmt: hw.gemm(8, 8, 8, fmt, "int8"), "a"),
        (lambda fmt: hw.gemm(8, 8, 8, "int8", fmt), "b"),
        (lambda fmt: hw.gemm(8, 8, 8, "int8", "int8", fmt), "out"),
        (lambda fmt: hw.roofline(8, 8, 8, "int8", fmt), "b"),
        (lambda fmt: hw.quantize_pass(8, 8, fmt), "fmt"),
        (lambda fmt: hw.dequantize_pass(8, 8, fmt), "fmt"),
        (hw.ideal_speedup, "weights"),
        (lambda fmt: hw.llm("llama-2-7b", weights=fmt), "weights"),
        (lambda fmt: hw.llm("llama-2-7b", kv_cache=fmt), "kv_cache"),
        (lambda fmt: hw.training_step("llama-2-7b", gradients=fmt), "gradients"),
    ],
)
def test_errors_say_which_argument_is_no_format(run: Any, name: str):
    with pytest.raises(FormatError, match=f"^{name}: format='float7x'"):
        run("float7x")
    with pytest.raises(ArgumentTypeError, match=f"^{name}: format=3 must be"):
        run(3)
