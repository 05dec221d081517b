"""Which parameters of a module are quantized, how they are counted, and what the module is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lowp import ArgumentError, ArgumentTypeError, PrecisionWarning

torch = pytest.importorskip("torch")
prune = pytest.importorskip("torch.nn.utils.prune")
pytestmark = pytest.mark.usefixtures("no_report")


# ------------------------------------------------------------------------------- weights that cannot be replaced


def pruned(layer: Any) -> Any:
    return prune.l1_unstructured(layer, "weight", amount=0.5)


def normed(layer: Any) -> Any:
    with pytest.warns(FutureWarning):
        return torch.nn.utils.weight_norm(layer)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (pruned, "prune.remove"),
        (normed, "remove_weight_norm"),
        (torch.nn.utils.parametrizations.weight_norm, "remove_parametrizations"),
        (lambda layer: torch.nn.LazyLinear(4), "run the model once"),
    ],
)
def test_a_weight_that_is_no_plain_parameter_is_refused(
    run: Any, engine: Any, model: Any, change: Any, remedy: str
) -> None:
    model[3] = change(model[3])
    before = dict(model.named_parameters())
    with pytest.raises(ArgumentError, match=rf"model: the weight of layer '3' .*{remedy}"):
        run()
    assert engine.quantized == []
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_a_pruned_layer_runs_after_the_remedy(run: Any, model: Any) -> None:
    prune.remove(pruned(model[3]), "weight")
    assert run(formats=["mxfp4"]).rows[1].cosine_mean < 1.0


# ---------------------------------------------------------------------------------------------------- counting


def test_a_shared_matrix_is_stored_once_and_measured_in_each_layer(run: Any) -> None:
    first, second = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    second.weight = first.weight
    result = run(model=torch.nn.Sequential(first, second), formats=["float8_e4m3fn"], mode="weights")
    reference, row = result.rows
    assert (reference.weight_bytes, reference.model_bytes) == (256, 256)
    assert (row.weight_bytes, row.model_bytes, row.bits_per_value) == (64, 64, 8.0)
    assert result.about["weights"] == 64
    assert {error.layer for error in result.layers} == {"0", "1"}


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_tied_embedding_is_stored_once(run: Any, embeddings: bool) -> None:
    table, out = torch.nn.Embedding(16, 8), torch.nn.Linear(8, 16, bias=False)
    out.weight = table.weight
    model = torch.nn.Sequential(table, out)
    result = run(model=model, data=[torch.arange(4)], formats=["float8_e4m3fn"], embeddings=embeddings)
    assert (result.rows[1].weight_bytes, result.rows[1].model_bytes) == (128, 128)
    assert result.about["not_quantized"] == []


def test_what_is_not_quantized_is_named_once(run: Any) -> None:
    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv1d(2, 3, 1)
            self.out = torch.nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.out(self.conv(x))
            return y

    with pytest.warns(PrecisionWarning, match="1 parameters of two or more dimensions are not.*conv.weight") as caught:
        result = run(model=Mixed(), data=[torch.ones(2, 2, 8)])
    assert len(caught) == 1
    assert result.about["not_quantized"] == ["conv.weight"]
    assert "Not quantized: conv.weight." in result.table()
    from lowp.studies.findings import findings

    assert any("conv.weight" in sentence for sentence in findings(result))


# --------------------------------------------------------------------------------------------------- arguments


def test_a_list_is_a_pair_of_formats_and_positional_arguments(run: Any, model: Any, inputs: Any) -> None:
    dataset = torch.utils.data.TensorDataset(torch.cat(inputs))
    data = torch.utils.data.DataLoader(dataset, batch_size=2)
    result = run(formats=[["mxfp4", "int8_row"]], data=data)
    assert result.rows[2].activations == "int8_row"
    as_tuples = run(formats=[("mxfp4", "int8_row")], data=[tuple(x) for x in data])
    assert as_tuples.rows[2].cosine_mean == result.rows[2].cosine_mean


def test_any_integer_counts_rows(run: Any) -> None:
    result = run(batch_rows=np.int64(128))
    assert result.about["batch_rows"] == 128
    assert type(result.about["batch_rows"]) is int


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"formats": [("mxfp4", "fp8", "fp4")]}, ArgumentError, r"has 3 items; a pair \(weights, activations\)"),
        ({"formats": [[]]}, ArgumentError, r"formats: \[\] has 0 items"),
        ({"mode": 3}, ArgumentTypeError, r"mode=3 must be a string, or several"),
        ({"devices": 3}, ArgumentTypeError, r"devices=3 must be a list of devices"),
        ({"out": 3}, ArgumentTypeError, r"out=3 must be the path of a folder, not int"),
        ({"evaluate": "mrr"}, ArgumentTypeError, r"evaluate='mrr' must be a function"),
        ({"evaluate": lambda outputs: None}, ArgumentTypeError, r"evaluate returned None; a number"),
        ({"evaluate": lambda outputs: "1.5"}, ArgumentTypeError, r"evaluate returned '1.5'; a number"),
        (
            {"evaluate": lambda outputs: [[1.0], [1.0, 2.0]]},
            ArgumentTypeError,
            r"evaluate returned \[\[1.0\], \[1.0, 2",
        ),
        ({"batch_rows": True}, ArgumentTypeError, r"batch_rows=True must be a whole number"),
        ({"data": torch.ones(2, 8)}, ArgumentTypeError, r"single tensor of shape \(2, 8\); pass a list: \[tensor\]"),
        ({"data": np.ones((2, 8))}, ArgumentTypeError, r"single array of shape \(2, 8\)"),
        ({"data": [np.ones((2, 8))]}, ArgumentTypeError, r"data\[0\] is a NumPy array .*; convert it to a tensor"),
    ],
)
def test_a_wrong_argument_is_named(
    run: Any, engine: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(**changes)
    assert engine.quantized == []


def test_scores_of_another_length_are_told_in_the_row(run: Any, engine: Any) -> None:
    def evaluate(outputs: list[Any]) -> Any:
        return torch.ones(3 if engine.quantized else 2)

    row = run(evaluate=evaluate, formats=["mxfp4"]).rows[1]
    assert "evaluate returned shape (3,) here and (2,) for the float32 model" in row.notes
    assert row.score is None


def test_scores_in_bfloat16_are_read(run: Any) -> None:
    result = run(evaluate=lambda outputs: outputs[0].sum().bfloat16(), formats=["mxfp4"])
    assert result.rows[0].score_change == 0.0
