"""Products on CPUs: instructions, bytes, threads, tokens per second."""

from __future__ import annotations

import pytest

import lowp
from lowp import hw
from lowp.hw_models.cpu_simd import unpack_instructions
from lowp.hw_models.tables import rows


def test_bytes_are_those_of_the_format():
    core = hw.cpu_core("m2_ultra").with_figures(ipc=1000.0)
    for weights in ("ggml_q8_0", "ggml_q4_0", "ggml_q2_k", "ggml_q3_k", "bitnet_i2_s"):
        time = hw.cpu_gemm(1, 4096, 4096, weights, core)
        moved = 4096 * 4096 * lowp.parse(weights).bits_per_value / 8 + 4096 + 4 * 4096
        assert time.bound == "memory"
        assert time.value == pytest.approx(moved / (819.2e9 * 0.7))


@pytest.mark.parametrize(
    ("fmt", "bits"),
    [("ggml_q8_0", 8.5), ("ggml_q6_k", 6.5625), ("ggml_q5_k", 5.5), ("ggml_q4_k", 4.5), ("ggml_q3_k", 3.4375),
     ("ggml_q2_k", 2.625), ("ggml_tq2_0", 2.0625), ("ggml_tq1_0", 1.6875), ("bitnet_i2_s", 2.0), ("ggml_iq4_nl", 4.5)],
)  # fmt: skip
def test_bits_per_weight_of_llama_cpp(fmt, bits):
    assert lowp.parse(fmt).bits_per_value == bits


def test_instructions_of_neon():
    core = hw.cpu_core("rpi5").with_figures(bandwidth=1e15)
    time = hw.cpu_gemm(3, 64, 96, "ggml_q4_0", core)
    instructions = 3 * 64 * 96 / 16 + 3 * 64 * 96 / 32 * 3
    assert time.value == pytest.approx(instructions / (0.39 * 2.4e9))
    assert time.bound == "convert"
    assert time.low < time.value < time.high


def test_instructions_of_avx2_and_a_tile_of_tokens():
    time = hw.cpu_gemm(8, 2048, 2048, "bitnet_i2_s", "epyc_7v13")
    instructions = 8 * 2048 * 2048 / 32 * 2.5 + 2048 * 2048 / 32 * 2 * 2
    assert time.value == pytest.approx(instructions / (2.55 * 3.5e9))
    assert time.bound == "compute"


def test_threads():
    one, eight = (hw.cpu_gemm(1, 4096, 4096, "ggml_q4_0", "m2_ultra", threads) for threads in (1, 8))
    assert one.value / eight.value == pytest.approx(8 / (1 + 0.06 * 7))
    with pytest.raises(lowp.ArgumentError, match="allowed: 1 to 16"):
        hw.cpu_gemm(1, 1, 1, "ggml_q4_0", "m2_ultra", 17)
    with pytest.raises(lowp.ArgumentError, match="mac_contention"):
        hw.cpu_gemm(1, 1, 1, "bitnet_i2_s", "epyc_7v13", 2)


def test_unknown_unpacking_raises():
    with pytest.raises(lowp.FormatError, match=r"cpu_unpack\.csv"):
        hw.cpu_gemm(1, 64, 64, "nf4_g64")
    assert hw.cpu_gemm(1, 64, 64, "nf4_g64", unpack=4).value > 0
    assert unpack_instructions(lowp.parse("int8")).value == 0


def test_unknown_core_raises():
    with pytest.raises(lowp.ArgumentError, match="Did you mean"):
        hw.cpu_core("m2_ulta")
    with pytest.raises(lowp.ArgumentTypeError, match="CpuCore"):
        hw.cpu_core(3)


#: The shape of BitNet-3B is not among the models, nor the format that llama.cpp ran it in published.
_MEASURED = [row for row in rows("cpu_measured") if row["model"] == "Llama-2-7B"]


@pytest.mark.parametrize("row", _MEASURED, ids=lambda r: "-".join(list(r.values())[:5]))
def test_measured_speeds_lie_near(row):
    engine = "t_mac" if row["engine"] == "t_mac" else None
    weights = {("2", "t_mac"): "int2_g128_fp16", ("2", None): "ggml_q2_k"}.get((row["bits"], engine), "ggml_q4_0")
    predicted = hw.cpu_tokens_per_second("llama-2-7b", weights, row["core"], int(row["threads"]), engine)
    measured = float(row["tokens_per_second"])
    assert measured == pytest.approx(predicted.value, rel=0.4)


def test_energy_per_token():
    found = hw.measured_tokens("orin", "Llama-2-7B", 2, "t_mac", 12)
    assert found.joules_per_token == pytest.approx(0.66, abs=0.01)
    assert hw.measured_tokens("orin", "Llama-2-7B", 2, "llama.cpp", 12).joules_per_token == pytest.approx(
        2.12, rel=0.01
    )
    assert hw.measured_tokens("orin", "Llama-2-7B", 4, "t_mac", 12).joules_per_token is None
    with pytest.raises(lowp.ArgumentError, match="Did you mean"):
        hw.measured_tokens("orin", "Llama-2-7B", 2, "t_mac", 11)


def test_tables_beat_unpacking_below_the_break_even():
    for core in ("m2_ultra", "orin", "rpi5"):
        tables = hw.cpu_tokens_per_second("llama-2-7b", "int2_g128_fp16", core, 1, "t_mac")
        unpacked = hw.cpu_tokens_per_second("llama-2-7b", "ggml_q2_k", core)
        assert tables.value > 2 * unpacked.value
