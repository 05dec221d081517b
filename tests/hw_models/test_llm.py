"""Inference and training of models: what must hold whatever the coefficients, and measured points."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lowp import hw
from lowp._errors import ArgumentError
from lowp.hw_models.operation_cost import Formats, operation_plan

HALF = ["a100", "h100", "b200", "mi300x"]


@pytest.mark.parametrize(
    ("model", "mebibytes"), [("llama-2-7b", 0.5), ("llama-3-8b", 0.125), ("llama-3-70b", 0.3125), ("gpt-3-175b", 4.5)]
)
def test_cache_of_a_token_in_16_bits(model, mebibytes):
    assert hw.llm(model, kv_cache="bfloat16", context=100).kv_bytes_per_token == mebibytes * 2**20


@pytest.mark.parametrize(("fmt", "bits"), [("fp8", 8), ("mxfp4", 4.25), ("nvfp4", 4.5), ("int4_g128", 4.125)])
def test_the_cache_is_in_its_own_format_with_its_scales(fmt, bits):
    wide, narrow = (hw.llm("llama-2-7b", kv_cache=f, batch=3, context=500) for f in ("bfloat16", fmt))
    assert narrow.kv_bytes == pytest.approx(wide.kv_bytes * bits / 16, rel=1e-12)
    assert narrow.weight_bytes == wide.weight_bytes


@pytest.mark.parametrize("device", HALF)
def test_a_step_takes_at_least_one_pass_over_weights_and_cache(device):
    machine = hw.device(device)
    for weights in ("bfloat16", "int4_g128"):
        done = hw.llm("llama-2-7b", weights=weights, device=device, batch=4, context=1000)
        embedding = 2 * 32000 * 4096  # looked up, not read
        floor = (done.weight_bytes - embedding + done.kv_bytes) / machine.bandwidth
        assert floor < done.tpot.value < 5 * floor
        assert done.tpot.low <= done.tpot.value <= done.tpot.high


@pytest.mark.parametrize("device", HALF)
def test_the_first_token_takes_at_least_the_peak_rate(device):
    machine = hw.device(device)
    done = hw.llm("llama-2-7b", "prefill", device=device, batch=2, context=2048)
    least = 2 * hw.workload("llama-2-7b", phase="prefill", batch=2).multiply_adds / machine.peak("bfloat16")
    assert least < done.ttft.value < 3 * least
    assert done.time == done.ttft
    assert done.tokens_per_second.value == pytest.approx(2 * 2048 / done.ttft.value)
    assert done.tokens_per_second.low <= done.tokens_per_second.value <= done.tokens_per_second.high


def test_narrow_weights_speed_up_steps_of_few_sequences_only():
    def ratio(phase: str, batch: int) -> float:
        wide, narrow = (
            hw.llm("llama-2-7b", phase, weights=w, device="a100", batch=batch, context=512).time.value
            for w in ("bfloat16", "int4_g128")
        )
        return wide / narrow

    assert ratio("decode", 1) > 1.7
    assert ratio("decode", 1) > ratio("decode", 128)
    assert ratio("prefill", 8) < 1.1


def test_time_grows_with_context_and_batch_and_shrinks_with_devices():
    steps = [hw.llm("llama-3-8b", batch=16, context=c).tpot.value for c in (512, 2048, 8192, 32768)]
    assert steps == sorted(steps)
    batches = [hw.llm("llama-3-8b", batch=b).tpot.value for b in (1, 8, 64, 256)]
    assert batches == sorted(batches)
    shared = [hw.llm("llama-3-70b", "prefill", tensor_parallel=p).ttft.value for p in (1, 2, 4, 8)]
    assert shared == sorted(shared, reverse=True)
    assert shared[0] / shared[3] < 8


def test_a_generation_is_its_prompt_and_its_steps():
    done = hw.llm("llama-3-8b", "generate", batch=2, context=100, new_tokens=50)
    first, last = (hw.llm("llama-3-8b", batch=2, context=c).tpot.value for c in (101, 150))
    assert done.time.value == pytest.approx(done.ttft.value + 49 * (first + last) / 2)
    assert done.kv_bytes_per_token == 2**17
    assert done.tokens_per_second.value == pytest.approx(100 / done.time.value)
    alone = hw.llm("llama-3-8b", "generate", batch=2, context=100, new_tokens=1)
    assert alone.time == alone.ttft


def test_operations_add_up_and_energy_stays_below_tdp():
    done = hw.llm("llama-2-13b", activations="int8_row", weights="int8_row", device="h100", batch=8)
    assert sum(t.value for t in done.by_operation().values()) == pytest.approx(done.time.value)
    assert sum(cost.time.value for cost in done.operations) == pytest.approx(done.time.value)
    assert 0 < done.energy.low <= done.energy.value <= 700 * done.time.value * (1 + 1e-9)
    assert done.energy_per_token.value == pytest.approx(done.energy.value / 8)
    assert "layer.ffn.down" in done.describe()


def test_memory_is_weights_cache_and_activations():
    done = hw.llm("llama-2-70b", batch=4, context=2048)
    assert done.weight_bytes == 2 * 68976648192
    assert not done.fits
    assert hw.llm("llama-2-70b", weights="int4_g128", batch=4).fits
    assert done.memory.unit == "B"
    assert done.memory.low == done.weight_bytes + done.kv_bytes


def test_attention_reads_its_cache_once_in_its_format_and_writes_as_much_as_it_asks():
    device = hw.device("h100")
    work = hw.workload("llama-3-8b", phase="decode", batch=4, context=1000)
    attention = next(op for op in work if op.kind == "attention")
    for cache, bits in (("bfloat16", 16), ("fp8", 8), ("mxfp4", 4.25)):
        done = operation_plan(attention, Formats.on(device, cache=cache), device)
        keys_and_values = 2 * 4 * 8 * 128 * 1000
        assert done.bytes_moved == pytest.approx(2 * 2 * 4 * 32 * 128 + keys_and_values * bits / 8)


def test_fp8_attention_needs_fp8_on_both_sides():
    device = hw.device("h100")
    attention = next(op for op in hw.workload("llama-3-8b", phase="prefill") if op.kind == "attention")

    def compute(activations: str, cache: str) -> str:
        return operation_plan(attention, Formats.on(device, activations, cache=cache), device).compute

    assert compute("fp8", "fp8") == "fp8"
    assert compute("bfloat16", "fp8") == "bfloat16"
    assert compute("fp8", "int4_g64") == "bfloat16"


def test_a_device_without_bfloat16_stores_float16_and_missing_figures_are_refused():
    done = hw.llm("llama-2-7b", device="v100")
    assert done.operations[0].plan.compute == ""
    assert {cost.plan.compute for cost in done.operations if cost.operation.is_product} == {"float16"}
    tpu = hw.llm("llama-2-7b", device="tpu_v5e")
    assert tpu.time.value > 0
    with pytest.raises(ArgumentError, match="device='tpu_v5e' has no figure 'tdp'"):
        _ = tpu.energy


def test_figures_measured_on_one_gpt_3_layer():
    one = replace(hw.model_shape("gpt-3-175b"), layers=1)

    def milliseconds(phase: str) -> dict[str, float]:
        work = hw.workload(one, phase=phase, batch=8, context=2048, tensor_parallel=4, fused=False)
        cost = hw.workload_cost(work, device="a100", stack="pytorch")
        return {name: time.value * 1e3 for name, time in cost.by_operation().items()}

    prefill, decode = milliseconds("prefill"), milliseconds("decode")
    # LLMCompass, real hardware: each operation as measured, within a fifth (products) or a half (passes).
    assert 3 * prefill["layer.attention.q"] == pytest.approx(13.72, rel=0.1)
    assert prefill["layer.attention.out"] == pytest.approx(4.54, rel=0.1)
    assert prefill["layer.ffn.up"] == pytest.approx(17.46, rel=0.1)
    assert prefill["layer.attention.softmax"] == pytest.approx(2.80, rel=0.2)
    assert prefill["layer.ffn.activation"] == pytest.approx(0.524, rel=0.2)
    assert prefill["layer.ffn.all_reduce"] == pytest.approx(2.89, rel=0.2)
    assert 3 * decode["layer.attention.q"] == pytest.approx(0.212, rel=0.1)
    assert decode["layer.ffn.up"] == pytest.approx(0.186, rel=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hw.llm("resnet-50"), "'resnet-50' is no language model"),
        (lambda: hw.llm("llama-2-7b", "decoding"), "Did you mean 'decode'"),
        (lambda: hw.llm("llama-2-7b", context=0), "context=0 must be at least 1"),
        (lambda: hw.llm("llama-2-7b", device="mi300x", stack="pytorch"), "stack='pytorch'"),
        (lambda: hw.workload_cost(hw.Workload("empty", ())), "'empty' has no operations"),
        (lambda: hw.training_step("llama-2-7b", optimizer="adamw"), "Did you mean 'adam'"),
        (lambda: hw.all_reduce(1, 0), "devices=0 must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_ring_moves_twice_the_tensor_less_its_own_part():
    nbytes = 2**30
    times = [hw.all_reduce(nbytes, p, "h100").value for p in (2, 4, 8)]
    assert times == sorted(times)
    assert nbytes / 450e9 < times[0] < 2 * nbytes / 450e9
    assert hw.all_reduce(nbytes, 1).value == 0
    small = hw.all_reduce(1024, 8, "h100")
    assert small.bound == "launch"
    assert small.value < 50e-6


def test_a_training_step_is_about_six_operations_per_weight_and_token():
    done = hw.training_step("llama-2-7b", batch=2, context=2048, device="h100")
    assert 0.4 < done.utilization < 0.8
    ideal = 6 * 6.6e9 * 4096 / 989e12
    assert ideal < done.time.value < 2.5 * ideal
    assert done.tokens_per_second.value == pytest.approx(4096 / done.time.value)


def test_fp8_training_is_faster_recomputing_is_slower_and_keeps_less():
    wide = hw.training_step("llama-3-8b", batch=1, context=4096)
    fp8 = hw.training_step("llama-3-8b", batch=1, context=4096, weights="fp8", activations="fp8", gradients="e5m2")
    again = hw.training_step("llama-3-8b", batch=1, context=4096, recompute=True)
    assert fp8.time.value < wide.time.value < again.time.value < 1.5 * wide.time.value
    assert again.memory.value < wide.memory.value
    assert 0 < wide.energy.value <= 700 * wide.time.value
    assert wide.memory.low == 8030261248 * (2 + 2 + 12)
    copies = hw.training_step("llama-3-8b", batch=1, context=4096, data_parallel=8)
    assert copies.time.value == pytest.approx(wide.time.value + copies.exchange.value)


@pytest.mark.parametrize("name", ["resnet-50", "vit-l16", "minilm-l6", "mixtral-8x7b"])
def test_other_models_train_too(name):
    step = hw.training_step(name, batch=8, device="a100")
    forward = hw.workload_cost(step.forward, device="a100")
    assert 2 * forward.time.value < step.time.value
    assert "utilization" in step.describe()


@pytest.mark.parametrize("given", [{"batch": 8}, {"context": 128}, {"tensor_parallel": 2}])
def test_a_workload_that_is_trained_has_its_sizes(given: dict[str, int]):
    with pytest.raises(ArgumentError, match="a workload that has its sizes; leave them out"):
        hw.training_step(hw.workload("resnet-50", batch=4), **given)
