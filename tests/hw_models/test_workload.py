"""Workloads of known models: counts against published ones, and what a pass must consist of."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.model_shapes import Transformer, shape_from
from lowp.hw_models.tables import KINDS

DECODERS = [name for name in hw.models() if hw.model_shape(name).architecture == "decoder"]
TRANSFORMERS = [name for name in hw.models() if isinstance(hw.model_shape(name), Transformer)]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_counted_parameters_are_the_published_ones(name):
    shape = hw.model_shape(name)
    assert shape.counted_parameters == pytest.approx(shape.parameters, rel=shape.parameters_tolerance, abs=0)
    assert shape.kind in KINDS
    assert shape.source


def test_residual_network_has_the_published_parameters_and_multiply_adds():
    shape, work = hw.model_shape("resnet-50"), hw.workload("resnet-50")
    assert work.weight_values + work.head_values + work.other_values == shape.parameters
    assert work.multiply_adds == shape.multiply_adds
    assert hw.workload("resnet-50", batch=3).multiply_adds == 3 * work.multiply_adds


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_weights_of_a_workload_are_all_parameters(name):
    shape, work = hw.model_shape(name), hw.workload(name)
    tied = shape.hidden * shape.vocabulary if shape.tied else 0
    assert tied == 0 or tied == work.head_values
    assert work.weight_values + work.head_values + work.other_values == shape.counted_parameters


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "mixtral-8x7b"])
def test_a_decode_step_multiplies_by_every_weight_once_per_sequence(name):
    work = hw.workload(name, phase="decode", batch=3, context=100)
    linear = sum(op.count * op.multiply_adds for op in work if op.role in ("linear", "head"))
    assert linear == 3 * (work.weight_values + work.head_values)


def test_attention_of_a_decode_step_reads_each_key_and_value_head_once():
    work = hw.workload("llama-2-70b", phase="decode", batch=5, context=777)
    (attention,) = (op for op in work if op.kind == "attention")
    assert attention.count * attention.right_values == work.cache_values == 2 * 80 * 8 * 128 * 777 * 5
    assert attention.out_values == attention.left_values == 5 * 64 * 128  # not context x context
    assert attention.count * attention.multiply_adds == 80 * 5 * 64 * 128 * 777 * 2


def test_causal_prefill_skips_masked_pairs_and_plain_modules_do_not():
    fused = hw.workload("llama-3-8b", phase="prefill", context=64)
    (attention,) = (op for op in fused if op.kind == "attention")
    assert attention.multiply_adds == 2 * 32 * 128 * (64 * 65 // 2)
    apart = hw.workload("llama-3-8b", phase="prefill", context=64, fused=False)
    scores, values = (op for op in apart if op.role == "attention")
    assert scores.multiply_adds == values.multiply_adds == 32 * 128 * 64 * 64
    assert (scores.out_values, values.out_values) == (32 * 64 * 64, 32 * 64 * 128)
    linear = [sum(op.count * op.multiply_adds for op in w if op.role == "linear") for w in (fused, apart)]
    assert linear[0] == linear[1]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_tensor_parallel_parts_add_up_to_the_whole(parts):
    whole, part = (hw.workload("llama-3-70b", batch=2, tensor_parallel=p) for p in (1, parts))
    assert parts * part.multiply_adds == whole.multiply_adds
    assert parts * part.weight_values == whole.weight_values
    assert parts * part.cache_values == whole.cache_values
    assert sum(op.count for op in part if op.kind == "all_reduce") == 2 * 80
    assert not any(op.kind == "all_reduce" for op in whole)


def test_more_devices_than_key_heads_copy_them():
    part = hw.workload("llama-3-70b", tensor_parallel=16)
    assert part.cache_values * 8 == hw.workload("llama-3-70b").cache_values


def test_few_tokens_reach_few_experts_and_many_reach_all():
    def experts(tokens: int) -> int:
        work = hw.workload("mixtral-8x7b", batch=tokens, context=10)
        return next(op.groups for op in work if op.name == "layer.ffn.gate_up")

    assert experts(1) == 2
    assert 2 < experts(4) < 8
    assert experts(64) == 8


def test_an_encoder_has_no_cache_and_images_set_their_tokens():
    assert hw.workload("minilm-l6", batch=4, context=128).cache_values == 0
    (attention,) = (op for op in hw.workload("vit-b16", batch=2) if op.kind == "attention")
    assert (attention.m, attention.n, attention.groups, attention.pairs) == (197, 197, 24, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hw.workload("llama-2-8b"), "Did you mean 'llama-3-8b' or 'llama-2-7b'"),
        (lambda: hw.workload("llama-2-7b", phase="encode"), "phase='encode' is not known"),
        (lambda: hw.workload("llama-2-7b", phase="forward"), "allowed: 'prefill', 'decode'"),
        (lambda: hw.workload("vit-b16", phase="decode"), "allowed: 'forward'"),
        (lambda: hw.workload("vit-b16", context=12), "whose image sets it"),
        (lambda: hw.workload("gpt-3-175b", context=4096), "beyond the 2048 positions"),
        (lambda: hw.workload("llama-2-7b", batch=0), "batch=0 must be at least 1"),
        (lambda: hw.workload("llama-2-7b", tensor_parallel=3), "does not divide heads=32"),
        (lambda: hw.workload("resnet-50", tensor_parallel=2), "tensor_parallel=2"),
        (lambda: hw.Operation("matmul", 1, 0, 1), "n=0 must be at least 1"),
        (lambda: hw.Operation("matmuls", 1, 1, 1), "Did you mean 'matmul'"),
        (lambda: hw.Operation("matmul", 1, 1, 1, role="weights"), "role='weights' is not known"),
        (lambda: hw.Operation("matmul", 1, 1, 1, read=-1), "must not be negative"),
        (lambda: shape_from({"architecture": "decoder", "width": 3}), "field='width' is not known"),
        (lambda: shape_from({"architecture": "decoder"}), "lacks fields"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def test_operations_must_be_operations():
    with pytest.raises(ArgumentTypeError, match=r"operations: \(1, 2, 3\) must be an Operation"):
        hw.Workload("w", [(1, 2, 3)])
    with pytest.raises(ArgumentTypeError, match="work=3 must be a Workload, not int"):
        hw.workload_cost(3)
    assert len(hw.Workload("w", [hw.Operation("matmul", 1, 2, 3)])) == 1


def test_a_model_must_be_a_name_or_a_shape():
    with pytest.raises(ArgumentTypeError, match="model=7 must be a name or a model shape, not int"):
        hw.workload(7)
    small = replace(hw.model_shape("llama-2-7b"), name="mine", layers=2)
    assert hw.workload(small).name == "mine"
    assert hw.model_shape("Llama 2 7B") is hw.model_shape("llama_2_7b") is hw.model_shape("llama-2-7b")


def test_merging_adds_counts_and_keeps_the_work():
    op = hw.Operation("matmul", 4, 5, 6)
    work = hw.Workload("w", (op, replace(op, count=2), replace(op, name="other"))).merged()
    assert [o.count for o in work] == [3, 1]
    assert work.multiply_adds == 4 * 120
    assert work.shapes() == [(4, 5, 6, 3), (4, 5, 6, 1)]
    assert math.prod((4, 5, 6)) == op.multiply_adds
    assert "3 x matmul" in work.describe()


def test_backward_products_are_twice_the_forward_ones():
    forward = hw.workload("llama-2-7b", phase="prefill", context=128)
    train = hw.training_workload(forward)

    def products(work, *kinds):
        return sum(op.count * op.multiply_adds for op in work if op.kind in kinds)

    assert products(train, "matmul") == 3 * products(forward, "matmul")
    assert products(train, "attention") == pytest.approx(3.5 * products(forward, "attention"), rel=1e-6)
    again = hw.training_workload(forward, recompute=True)
    assert products(again, "matmul") == 4 * products(forward, "matmul")
    roles = {op.role for op in train if op.name.startswith("backward.") and op.kind == "matmul"}
    assert roles == {"input_gradient", "weight_gradient"}


@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 7, 64, 1001])
def test_experts_count_every_token_as_often_as_it_goes_through_one(tokens: int):
    ffn = [op for op in hw.workload("mixtral-8x7b", batch=tokens, context=10) if op.name.startswith("layer.ffn.")]
    products = {op.name.removeprefix("layer.ffn."): op for op in ffn if op.is_product}
    assert products["gate_up"].multiply_adds == tokens * 2 * 4096 * 2 * 14336
    assert products["down"].multiply_adds == tokens * 2 * 4096 * 14336
    assert products["down"].left_values == products["gate_up"].out_values // 2 == tokens * 2 * 14336
    cost = hw.workload_cost(hw.workload("mixtral-8x7b", batch=tokens, context=10), device="h200")
    plans = {cost.operation.name: cost.plan for cost in cost.operations}
    assert plans["layer.ffn.down"].multiply_adds == tokens * 2 * 4096 * 14336


def test_more_rows_than_groups_have_are_refused():
    with pytest.raises(ArgumentError, match="rows=9 must be from 0 to groups \\* m = 8"):
        hw.Operation("matmul", 4, 8, 8, groups=2, rows=9)
