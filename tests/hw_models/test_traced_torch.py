"""Workloads of PyTorch programs against counts by hand and against the shapes of known models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lowp import hw
from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.model_shapes import Transformer


def products(work: hw.Workload) -> list[tuple[int, int, int, int, int, str]]:
    return [(op.m, op.n, op.k, op.groups, op.count, op.role) for op in work.products]


def test_linear_layers_name_their_modules_and_weights():
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10, bias=False))
    work = hw.trace(model, torch.empty(4, 7, 64))
    assert products(work) == [(28, 128, 64, 1, 1, "linear"), (28, 10, 128, 1, 1, "linear")]
    assert [op.name.split(".")[0] for op in work.products] == ["0", "2"]
    assert (work.weight_values, work.other_values) == (64 * 128 + 1280, 128)
    (gelu,) = (op for op in work if "gelu" in op.name)
    assert (gelu.left_values, gelu.out_values) == (28 * 128, 28 * 128)


def test_parameters_are_real_and_untouched_afterwards():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hw.trace(model, torch.randn(2, 3, 8, 8))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(type(p) is nn.Parameter for p in model.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_equal_calls_are_counted_and_repeated_layers_too():
    layer = nn.Linear(16, 16)

    def thrice(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = functional.linear(x, layer.weight)
        return x

    assert products(hw.trace(thrice, torch.empty(2, 16))) == [(2, 16, 16, 1, 3, "linear")]
    work = hw.trace(lambda x, w: thrice(x) @ w, torch.empty(2, 16), torch.empty(16, 5), weights=1)
    assert products(work)[-1] == (2, 5, 16, 1, 1, "linear")


def test_convolutions_grouped_strided_and_transposed():
    x = torch.empty(2, 8, 32, 32)
    work = hw.trace(nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4), x)
    assert products(work) == [(2 * 16 * 16, 3, 2 * 9, 4, 1, "linear")]
    (op,) = work.products
    assert (op.left_values, op.out_values, op.right_values) == (x.numel(), 2 * 12 * 256, 12 * 2 * 9)
    back = hw.trace(nn.ConvTranspose2d(8, 4, 3), x)
    assert back.multiply_adds == 2 * 32 * 32 * 8 * 4 * 9


def test_fused_attention_counts_key_and_value_heads():
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    work = hw.trace(attend, torch.empty(2, 32, 50, 64), torch.empty(2, 8, 50, 64), torch.empty(2, 8, 50, 64))
    (op,) = work
    assert (op.kind, op.m, op.n, op.k, op.groups) == ("attention", 200, 50, 64, 16)
    assert op.multiply_adds == 2 * 2 * 32 * 64 * (50 * 51 // 2)
    assert op.right_values == 2 * 2 * 8 * 50 * 64
    assert op.out_values == 2 * 32 * 50 * 64


@pytest.mark.parametrize(
    ("query", "key", "pairs"),
    [((5, 8), (7, 8), 35), ((3, 5, 8), (3, 7, 8), 105), ((1, 2, 5, 8), (3, 2, 7, 8), 210), ((3, 1, 5, 8), (7, 8), 105)],
)
def test_fused_attention_of_any_leading_sizes(query, key, pairs):
    tensors = (torch.empty(query), torch.empty(key), torch.empty(key))
    assert hw.trace(functional.scaled_dot_product_attention, *tensors).multiply_adds == 2 * 8 * pairs


def test_a_backward_pass_has_twice_the_products_in_their_roles():
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10))

        def forward(self, x: torch.Tensor) -> None:
            self.net(x).sum().backward()

    work = hw.trace(Step(), torch.empty(16, 64))
    assert products(work) == [
        (16, 128, 64, 1, 1, "linear"),
        (16, 10, 128, 1, 1, "linear"),
        (16, 128, 10, 1, 1, "input_gradient"),
        (128, 10, 16, 1, 1, "weight_gradient"),
        (64, 128, 16, 1, 1, "weight_gradient"),
    ]
    conv = nn.Conv2d(3, 8, 3, padding=1)
    work = hw.trace(lambda x: conv(x).sum().backward(), torch.empty(2, 3, 16, 16))
    assert sorted(op.multiply_adds for op in work.products) == [2 * 256 * 8 * 27] * 2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_grad_modes_do_not_change_what_is_seen(mode):
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()

    def run(x: torch.Tensor) -> torch.Tensor:
        with mode():
            return model(x)

    with_grad, without = (hw.trace(f, torch.empty(2, 5, 32)) for f in (model, run))
    shapes = [[(op.m, op.n, op.k, op.groups) for op in work.products] for work in (with_grad, without)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_taken_apart(layer, gates):
    work = hw.trace(layer(8, 16), torch.empty(5, 2, 8))
    assert work.multiply_adds == 5 * 2 * gates * 16 * (8 + 16)


def test_programs_that_need_values_run_on_them():
    work = hw.trace(lambda x, w: x[x[:, 0] > 0] @ w, torch.ones(6, 4), torch.ones(4, 3))
    assert products(work) == [(6, 3, 4, 1, 1, "activations")]


def test_what_multiplies_inside_is_refused_not_skipped():
    with pytest.raises(ArgumentError, match=r"linalg_inv_ex.* multiplies matrices in a way that is not known"):
        hw.trace(torch.linalg.inv, torch.eye(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hw.trace(3), "program=3 must be a torch.nn.Module, a function or a jaxpr, not int"),
        (lambda: hw.trace(torch.abs, torch.ones(2), weights="x"), "weights='x' must be a position"),
        (lambda: hw.trace(torch.abs, torch.ones(2), weights=1), "there are 1 inputs"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ArgumentTypeError, match=message):
        call()


def _bottleneck(inputs: int, width: int, stride: int) -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            out = 4 * width
            self.main = nn.Sequential(
                nn.Conv2d(inputs, width, 1, bias=False),
                nn.Conv2d(width, width, 3, stride, 1, bias=False),
                nn.Conv2d(width, out, 1, bias=False),
            )
            same = inputs == out and stride == 1
            self.side = nn.Identity() if same else nn.Conv2d(inputs, out, 1, stride, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.main(x) + self.side(x)

    return Block()


def test_a_residual_network_as_modules_is_its_shape():
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            layers.append(_bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    with torch.device("meta"):
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    traced = hw.trace(model, torch.empty(2, 3, 224, 224, device="meta"))
    known = hw.workload("resnet-50", batch=2)
    assert traced.multiply_adds == known.multiply_adds

    def sizes(work: hw.Workload) -> list[tuple[int, int, int, int]]:
        return sorted((op.m, op.n, op.k, op.left_values) for op in work.merged().products if op.kind == "convolution")

    merged = {(m, n, k) for m, n, k, _ in sizes(traced)}
    assert merged == {(m, n, k) for m, n, k, _ in sizes(known)}


def test_a_language_model_of_transformers_is_its_shape():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=1000,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).eval()
    traced = hw.trace(model, torch.zeros(2, 40, dtype=torch.long, device="meta"))
    shape = Transformer("m", "m", "decoder", 256, 3, 8, 2, 688, True, "rms", 0, "assumed", "made up", vocabulary=1000)
    known = hw.workload(shape, phase="prefill", batch=2, context=40, fused=False)
    assert traced.weight_values == known.weight_values + known.head_values
    assert traced.weight_values + traced.other_values == shape.counted_parameters
    heads = sum(op.multiply_adds for op in known if op.role == "head")
    linear = [sum(op.count * op.multiply_adds for op in work if op.role == "linear") for work in (traced, known)]
    assert linear[0] == linear[1] + 40 * heads  # the module's last layer sees every token
    attention = [op for op in traced if op.kind == "attention"]
    assert sum(op.count for op in attention) == 3
    fused = hw.workload(shape, phase="prefill", batch=2, context=40)
    (known_attention,) = (op for op in fused if op.kind == "attention")
    assert {(op.m, op.n, op.k, op.groups) for op in attention} == {
        (known_attention.m, known_attention.n, known_attention.k, known_attention.groups)
    }


def test_a_traced_workload_has_a_cost_and_trains():
    work = hw.trace(nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512)), torch.empty(4096, 512))
    wide = hw.workload_cost(work, device="h100")
    narrow = hw.workload_cost(work, weights="fp8", activations="fp8", device="h100")
    assert wide.weight_bytes == 2 * (2 * 512 * 2048 + 2048 + 512)
    assert narrow.by_kind().keys() == wide.by_kind().keys() == {"matmul", "elementwise"}
    assert hw.training_step(work, device="h100").time.value > 2 * wide.time.value


@pytest.mark.parametrize("name", ["minilm-l6", "vit-b16"])
def test_encoders_of_transformers_are_their_shapes(name):
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        if name == "minilm-l6":
            config = transformers.BertConfig(
                hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
            )
            model, inputs = transformers.BertModel(config), torch.zeros(2, 128, dtype=torch.long)
            known = hw.workload(name, batch=2, context=128)
        else:
            model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))
            inputs, known = torch.zeros(2, 3, 224, 224), hw.workload(name, batch=2)
    traced = hw.trace(model.eval(), inputs)
    assert traced.multiply_adds == known.multiply_adds
    counted = known.weight_values + known.head_values + known.other_values
    assert traced.weight_values + traced.other_values == counted
    assert {op.role for op in traced.products} == {"linear", "attention"}


def test_experts_share_the_tokens():
    def experts(x: torch.Tensor, w: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return torch._grouped_mm(x, w, offs=ends)

    x, w = torch.empty(64, 32, dtype=torch.bfloat16), torch.empty(4, 32, 48, dtype=torch.bfloat16)
    work = hw.trace(experts, x, w, torch.tensor([16, 32, 48, 64], dtype=torch.int32), weights=1)
    assert products(work) == [(16, 48, 32, 4, 1, "linear")]


def test_errors_of_the_program_are_its_own():
    with pytest.raises(RuntimeError, match=r"cannot be multiplied|same reduction dim"):
        hw.trace(nn.Linear(2, 3), torch.empty(1, 5))


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
def test_resampling_and_norms_are_passes_over_memory(mode: str):
    def program(x: torch.Tensor) -> torch.Tensor:
        return functional.normalize(functional.interpolate(x, scale_factor=2, mode=mode)).norm()

    work = hw.trace(program, torch.ones(1, 4, 9, 9))
    assert not work.products
    assert any("upsample" in op.name or "pool" in op.name for op in work)


@pytest.mark.parametrize("program", [torch.linalg.inv, torch.linalg.svd, torch.linalg.cholesky, torch.linalg.pinv])
def test_decompositions_are_refused(program: Any):
    with pytest.raises(ArgumentError, match="in a way that is not known here"):
        hw.trace(program, torch.eye(4))


def test_modules_without_sizes_are_refused():
    with pytest.raises(ArgumentError, match="LazyLinear has parameters without a size"):
        hw.trace(nn.LazyLinear(4), torch.ones(2, 3))
