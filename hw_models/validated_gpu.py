"""Predictions of published numbers about GPUs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from statistics import fmean, median

from lowp.hw_models.devices import device
from lowp.hw_models.gemm import gemm
from lowp.hw_models.llm import llm
from lowp.hw_models.model_shapes import Transformer, model_shape
from lowp.hw_models.model_workloads import workload
from lowp.hw_models.native import operand
from lowp.hw_models.passes import quantize_pass
from lowp.hw_models.tables import rows
from lowp.hw_models.tile_wave import Work, roofline
from lowp.hw_models.validation import predicts
from lowp.hw_models.weight_only import break_even_batch, ideal_speedup
from lowp.hw_models.workload import Operation
from lowp.hw_models.workload_cost import workload_cost


def _identity(name: str, dtype: str) -> float:
    """Peak from the sizes of a device, in 1e12 operations per second."""
    machine = device(name)
    return 2 * machine.sms * dict(machine.fma_per_clock)[dtype] * machine.clock / 1e12


def _register_identities() -> None:
    for key, name, dtype in (
        ("f01_a100_peak", "a100", "bfloat16"),
        ("f02_h100_peak", "h100", "bfloat16"),
        ("f03_rtx_4090_peak", "rtx_4090", "bfloat16"),
    ):
        predicts(key)(lambda name=name, dtype=dtype: _identity(name, dtype))  # type: ignore[misc]


_register_identities()


@predicts("f04_marlin_speedup")
def _() -> float:
    return ideal_speedup("int4_g128")


@predicts("f05_a10_break_even")
def _() -> float:
    return break_even_batch("int4_g128", "a10")


def _query(phase: str) -> Operation:
    """The projection to queries of Llama 2 7B with 2048 tokens, as its own product."""
    work = workload("llama-2-7b", phase=phase, context=2048, fused=False)
    return next(op for op in work if op.name == "layer.attention.q")


def _bytes(op: Operation) -> float:
    """Bytes of operands and result in 16 bits."""
    return 2.0 * (op.left_values + op.right_values + op.out_values)


@predicts("f06a_q_proj_operations")
def _() -> float:
    return _query("prefill").operations / 1e9


@predicts("f06b_q_proj_bytes")
def _() -> float:
    return _bytes(_query("prefill")) / 1e6


@predicts("f06c_q_proj_intensity")
def _() -> float:
    return _query("prefill").operations / _bytes(_query("prefill"))


@predicts("f07a_decode_operations")
def _() -> float:
    return _query("decode").operations / 1e6


@predicts("f07b_decode_intensity")
def _() -> float:
    return _query("decode").operations / _bytes(_query("decode"))


@predicts("f07c_decode_rate")
def _() -> float:
    op, card = _query("decode"), device("rtx_a6000")
    work = Work(op.m, op.n, op.k, _bytes(op), card.peak("float16"), card.bandwidth, card.sms)
    return op.operations / roofline(work) / 1e9


@predicts("f08a_llama_2_7b_cache")
def _() -> float:
    return llm("llama-2-7b", kv_cache="float16").kv_bytes_per_token / 2**20


@predicts("f08b_llama_3_8b_cache")
def _() -> float:
    return llm("llama-3-8b", kv_cache="float16").kv_bytes_per_token / 2**20


@predicts("f09_nvfp4_bytes")
def _() -> float:
    return operand("nvfp4", device("b200")).bytes_per_value


@predicts("f10a_mxfp4_bits")
def _() -> float:
    return operand("mxfp4", device("b200")).bits_per_value


@predicts("f10b_mxfp8_bits")
def _() -> float:
    return operand("mxfp8", device("b200")).bits_per_value


@predicts("f10c_mxfp6_bits")
def _() -> float:
    return operand("mxfp6", device("b200")).bits_per_value


@cache
def _errors(name: str, stack: str, dtype: str) -> tuple[float, ...]:
    """Relative errors on the measured products of `data/measured_gemm.csv`."""
    found = []
    for row in rows("measured_gemm"):
        if (row["device"], row["stack"], row["dtype"]) == (name, stack, dtype):
            m, n, k = (int(row[size]) for size in "mnk")
            chosen = "pytorch" if stack == "pytorch" else ""
            time = gemm(m, n, k, dtype, dtype, out=_out(dtype), device=name, stack=chosen).value
            found.append(time / (float(row["microseconds"]) * 1e-6) - 1)
    return tuple(found)


def _out(dtype: str) -> str:
    return "float16" if dtype == "float16" else "bfloat16"


def _mean_error(name: str, stack: str, dtype: str) -> float:
    return 100 * fmean(map(abs, _errors(name, stack, dtype)))


@predicts("f11a_a100_mean_error")
def _() -> float:
    return _mean_error("a100", "pytorch", "float16")


@predicts("f11b_a100_largest_error")
def _() -> float:
    return 100 * max(map(abs, _errors("a100", "pytorch", "float16")))


@predicts("f12_mi210_product")
def _() -> float:
    time = gemm(1024, 12288, 12288, "float16", "float16", out="float16", device="mi210", stack="pytorch")
    return time.value * 1e3


def _gpt3_layer(phase: str) -> float:
    """Milliseconds of one layer of GPT-3 on four A100, batch 8, 2048 tokens, operation by operation in PyTorch."""
    shape = model_shape("gpt-3-175b")
    assert isinstance(shape, Transformer)
    work = workload(replace(shape, layers=1), phase=phase, batch=8, context=2048, tensor_parallel=4, fused=False)
    cost = workload_cost(work, device="a100", stack="pytorch")
    return 1e3 * sum(c.time.value for c in cost.operations if c.operation.name.startswith("layer."))


@predicts("f13a_gpt3_prefill")
def _() -> float:
    return _gpt3_layer("prefill")


@predicts("f13b_gpt3_decode")
def _() -> float:
    return _gpt3_layer("decode")


_TRT = "TensorRT-LLM 1.3.0rc20"


@predicts("f14a_h100_mean_error")
def _() -> float:
    return _mean_error("h100", _TRT, "bfloat16")


@predicts("f14b_h100_median_error")
def _() -> float:
    return 100 * median(map(abs, _errors("h100", _TRT, "bfloat16")))


@predicts("f15_h100_roofline_error")
def _() -> float:
    machine, errors = device("h100"), []
    for row in rows("measured_gemm"):
        if (row["device"], row["dtype"]) == ("h100", "bfloat16"):
            m, n, k = (int(row[size]) for size in "mnk")
            moved = 2.0 * (m * k + n * k + m * n)
            work = Work(m, n, k, moved, machine.peak("bfloat16"), machine.bandwidth, machine.sms)
            errors.append(abs(roofline(work) / (float(row["microseconds"]) * 1e-6) - 1))
    return 100 * fmean(errors)


@predicts("f16_a100_mean_error")
def _() -> float:
    return _mean_error("a100", "SGLang 0.5.10", "bfloat16")


@predicts("f17_b200_mean_error")
def _() -> float:
    return _mean_error("b200", _TRT, "bfloat16")


@predicts("f18_b200_nvfp4_mean_error")
def _() -> float:
    return _mean_error("b200", _TRT, "nvfp4")


def _register_products() -> None:
    for number, name in (("19", "h100"), ("20", "b200")):
        for letter, m in (("a", 1), ("b", 1024), ("c", 8192)):

            def microseconds(name: str = name, m: int = m) -> float:
                return 1e6 * gemm(m, 8192, 8192, "bfloat16", "bfloat16", device=name).value

            predicts(f"f{number}{letter}_{name}_{m}")(microseconds)


_register_products()


def _speedup(m: int, a: str, b: str, name: str) -> float:
    """Time in bfloat16 over that in other formats, of m x 16384 x 8192."""
    wide = gemm(m, 16384, 8192, "bfloat16", "bfloat16", device=name).value
    return wide / gemm(m, 16384, 8192, a, b, device=name).value


def _register_speedups() -> None:
    for letter, m in (("a", 1), ("b", 16), ("c", 128), ("d", 1024)):

        def speedup(m: int = m) -> float:
            return _speedup(m, "bfloat16", "int4_g128", "a100")

        predicts(f"f21{letter}_w4a16_{m}")(speedup)


_register_speedups()


@predicts("f22_w8a8")
def _() -> float:
    return _speedup(4096, "int8_row", "int8_row", "a100")


@predicts("f23_nvfp4")
def _() -> float:
    return _speedup(4096, "nvfp4", "nvfp4", "b200")


@predicts("f24_cast_share")
def _() -> float:
    """Attained share of the bandwidth, in percent, of a cast that reads two bytes and writes one."""
    values = 16384 * 16384
    time = quantize_pass(16384, 16384, "float8_e4m3fn", "h100", known_scale=True).value
    return 100 * 3 * values / device("h100").bandwidth / time


def _ternary(n: int, k: int) -> float:
    """Microseconds of one token times two-bit weights, activations in int8."""
    return 1e6 * gemm(1, n, k, "int8_row", "int2_row", device="a100_40gb").value


@predicts("f25a_w2a8_20480")
def _() -> float:
    return _ternary(20480, 3200)


@predicts("f25b_bfloat16_20480")
def _() -> float:
    return 1e6 * gemm(1, 20480, 3200, "bfloat16", "bfloat16", device="a100_40gb").value


@predicts("f26_w2a8_2560")
def _() -> float:
    return _ternary(2560, 2560)
