"""A whole study of a tiny module with stand-ins for formats and hardware."""

from __future__ import annotations

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lowp import ArgumentError, ArgumentTypeError, FileError, FormatError, PrecisionWarning
from lowp.studies import DEFAULT_CASES, Case
from lowp.studies.columns import all_columns
from tests.studies.conftest import FORMATS

torch = pytest.importorskip("torch")


def mean_of_outputs(outputs: list[Any]) -> Any:
    return torch.cat(outputs)[:, 0]


# ------------------------------------------------------------------------------------------------ the whole


def test_a_study_writes_every_file(run: Any, tmp_path: Path) -> None:
    result = run(evaluate=mean_of_outputs)
    expected = [("float32", "float32", "reference")]
    for name in FORMATS:
        expected += [(name, "float32", "weights"), (name, name, "weights+activations")]
    assert [(row.weights, row.activations, row.mode) for row in result.rows] == expected
    names = {"results.csv", "results.json", "layers.csv", "report.html", "state.jsonl"}
    names |= {"accuracy_cost.png", "accuracy_energy.png", "layer_error.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names:
        if name.endswith(".png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_the_report_stands_alone(run: Any, tmp_path: Path) -> None:
    """Nothing is loaded from elsewhere, and every column is explained."""
    run(evaluate=mean_of_outputs)
    loaded: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            loaded.extend(value or "" for name, value in attrs if name in ("src", "href", "srcset", "data"))

    page = (tmp_path / "report.html").read_text()
    Links().feed(page)
    assert len(loaded) == 3
    assert all(link.startswith("data:image/png;base64,") for link in loaded)
    assert "url(" not in page
    assert "@import" not in page
    for column in all_columns(["DEVICE"]):
        assert f"<code>{column.name}</code>" in page
    for expected in ("a stub", "no source", "Main findings", "mxfp4", "mean_of_outputs", "Model SHA-256"):
        assert expected in page


@pytest.mark.usefixtures("no_report")
def test_csv_and_json_say_the_same(run: Any, tmp_path: Path) -> None:
    result = run(evaluate=mean_of_outputs)
    with (tmp_path / "results.csv").open(newline="") as stream:
        from_csv = list(csv.DictReader(stream))
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["complete"] is True
    assert [c["name"] for c in document["columns"]] == list(from_csv[0])
    assert len(from_csv) == len(document["rows"]) == len(result.rows) == 7
    for line, record in zip(from_csv, document["rows"], strict=True):
        assert record.pop("sources") == {"toy": "a stub; no source"}
        for name, value in record.items():
            assert line[name] == ("" if value is None else str(value))
    assert {"toy_time_s", "toy_time_s_low", "toy_energy_j_high", "score_low"} <= set(from_csv[0])


@pytest.mark.usefixtures("no_report")
def test_numbers_are_those_worked_out_by_hand(run: Any, model: Any, inputs: Any, engine: Any) -> None:
    result = run(evaluate=mean_of_outputs, formats=["float8_e4m3fn"])
    reference, weights_only, both = result.rows
    assert (weights_only.bits_per_value, weights_only.weight_bytes) == (8.0, 8 * 6 + 6 * 4)
    assert weights_only.model_bytes == 8 * 6 + 6 * 4 + 4 * (6 + 4)  # biases stay float32
    assert reference.weight_bytes == 4 * (8 * 6 + 6 * 4)

    step = 2.0**-8
    model.eval()
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.copy_(torch.round(layer.weight / step) * step)
        x = torch.cat(inputs)
        expected = model(x)
        rounded = model[3](torch.round(torch.relu(model[0](torch.round(x / step) * step)) / step) * step)
    assert weights_only.score == pytest.approx(float(expected[:, 0].double().mean()), abs=1e-7)
    assert both.score == pytest.approx(float(rounded[:, 0].double().mean()), abs=1e-7)
    assert weights_only.activation_sqnr_worst_db is None
    assert both.activation_sqnr_worst_db < both.activation_sqnr_median_db
    assert weights_only.sqnr_worst_db == min(e.weight_sqnr_db for e in result.layers)
    assert weights_only.costs["toy"].time.value == pytest.approx(1e-9 * 65536 * 16 * (8 + 6) + 1e-9 * 8 * 72)


@pytest.mark.usefixtures("no_report")
def test_the_reference_is_compared_with_itself(run: Any) -> None:
    reference = run(evaluate=mean_of_outputs).rows[0]
    assert (reference.cosine_mean, reference.cosine_min, reference.score_change) == (1.0, 1.0, 0.0)
    assert reference.score_low < reference.score < reference.score_high


@pytest.mark.usefixtures("no_report")
def test_the_module_comes_back_as_it_was(run: Any, model: Any) -> None:
    model[2].eval()
    before = {name: (value, value.clone()) for name, value in model.named_parameters()}
    run()
    for name, value in model.named_parameters():
        assert value is before[name][0]
        assert torch.equal(value, before[name][1])
        assert value.requires_grad
    assert [m.training for m in model.modules()] == [True, True, True, False, True]
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.usefixtures("no_report")
def test_the_module_comes_back_when_it_fails(run: Any, model: Any) -> None:
    before = model[0].weight
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(data=[torch.ones(2, 3)])
    assert model[0].weight is before
    assert model.training


@pytest.mark.usefixtures("no_report")
def test_a_matrix_that_an_embedding_shares_is_not_changed_there(run: Any, engine: Any) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(5, 4)
            self.out = torch.nn.Linear(4, 5, bias=False)
            self.out.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> Any:
            seen.append(self.table.weight)
            return {"logits": self.out(self.table(ids))}

    seen: list[Any] = []
    tied = Tied()
    result = run(model=tied, data=[torch.arange(5)], formats=["mxfp4"])
    assert all(weight is tied.table.weight for weight in seen)
    assert len(seen) == 3
    assert result.rows[1].cosine_mean < 1.0
    tables = run(model=tied, data=[torch.arange(5)], formats=["mxfp4"], embeddings=True)
    assert {error.layer for error in tables.layers} == {"table", "out"}


@pytest.mark.usefixtures("no_report")
def test_layers_that_share_an_input_share_its_rounding(run: Any, engine: Any) -> None:
    class Heads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, *, x: torch.Tensor) -> tuple[int, torch.Tensor]:
            return 3, self.q(x) + self.k(input=x)

    result = run(model=Heads(), data=[{"x": torch.ones(2, 4) / 3}], formats=["int8_row"])
    assert engine.quantized == ["int8_row"] * (2 + 2 + 1) or engine.quantized == ["int8_row"] * (2 + 1)
    both = [e.activation_sqnr_db for e in result.layers if e.mode == "weights+activations"]
    assert both[0] == both[1] is not None


@pytest.mark.usefixtures("no_report")
def test_a_layer_that_is_not_called_is_told(run: Any, model: Any) -> None:
    model.spare = torch.nn.Linear(2, 2)

    class Skips(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.inner[0](x)
            return y

    with pytest.warns(PrecisionWarning, match=r"2 layers were not called as modules.*inner\.3, inner\.spare"):
        run(model=Skips(), formats=["mxfp4"], mode="weights+activations")


# ------------------------------------------------------------------------------- formats that come in and fail


@pytest.mark.usefixtures("no_report")
def test_pairs_and_cases_name_both_operands_and_weights_are_run_once(run: Any) -> None:
    result = run(formats=[("mxfp4", "int8_row"), Case("mxfp4"), "mxfp4"])
    assert [(row.weights, row.activations) for row in result.rows[1:]] == [
        ("mxfp4", "float32"),
        ("mxfp4", "int8_row"),
        ("mxfp4", "mxfp4"),
    ]


@pytest.mark.usefixtures("no_report")
def test_a_format_that_fails_becomes_a_note_and_is_tried_again(run: Any, engine: Any) -> None:
    quantize = engine.quantize

    def refuse(x: Any, fmt: Any, axis: int = -1) -> Any:
        if fmt.name == "mxfp4":
            raise FormatError("mxfp4 does not fit.")
        return quantize(x, fmt, axis)

    engine.quantize = refuse
    result = run(mode="weights")
    assert [row.notes for row in result.rows] == ["", "", "", "FormatError: mxfp4 does not fit."]
    assert result.rows[3].score is None
    assert "mxfp4 does not fit" in result.table()
    engine.quantize = quantize
    assert [row.notes for row in run(mode="weights").rows] == ["", "", "", ""]


@pytest.mark.usefixtures("no_report")
def test_a_cost_that_cannot_be_predicted_is_a_note(run: Any) -> None:
    row = run(formats=["int4_g128"], mode="weights").rows[1]
    assert row.costs == {}
    assert row.notes == "no prediction for toy: int4_g128 has no kernel on toy."
    assert row.cosine_mean is not None


def test_the_default_covers_every_family_and_parses(engine: Any) -> None:
    from lowp.studies.cases import family, read_cases

    jobs = read_cases(None, engine)
    assert len(jobs) == len(DEFAULT_CASES) >= 16
    families = {family(job.weights.format) for job in jobs}
    assert families == {"float", "block float", "block integer", "fixed point", "codebook"}


# --------------------------------------------------------------------------------------- interrupt and resume


@pytest.mark.usefixtures("no_report")
def test_an_interrupt_leaves_what_is_finished_and_a_second_run_does_the_rest(
    run: Any, engine: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.interrupt_at = "mxfp4"
    with pytest.raises(KeyboardInterrupt):
        run(progress=True)
    assert "the same call resumes" in capsys.readouterr().err.replace("\n", " ")
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["complete"] is False
    assert [row["weights"] for row in document["rows"]] == ["float32", *["float8_e4m3fn"] * 2, *["int8_row"] * 2]
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 6

    engine.interrupt_at = None
    engine.quantized.clear()
    resumed = run()
    assert set(engine.quantized) == {"mxfp4"}
    assert resumed.complete
    assert len(resumed.rows) == 7

    engine.quantized.clear()
    again = run()
    assert engine.quantized == []
    assert again.rows == resumed.rows
    assert again.layers == resumed.layers


@pytest.mark.usefixtures("no_report")
def test_resumed_numbers_equal_those_of_one_run(run: Any, engine: Any, tmp_path: Path) -> None:
    run(formats=["int8_row"], evaluate=mean_of_outputs)
    resumed = run(evaluate=mean_of_outputs)
    whole = run(evaluate=mean_of_outputs, out=tmp_path / "other")
    for a, b in zip(resumed.records(), whole.records(), strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("change", ["weights", "data", "metric", "resume"])
def test_what_changed_is_measured_anew(run: Any, engine: Any, model: Any, inputs: Any, change: str) -> None:
    scale = 1.0

    def metric(outputs: list[Any]) -> float:
        return float(outputs[0].sum()) * scale

    run(evaluate=metric)
    engine.quantized.clear()
    if change == "weights":
        with torch.no_grad():
            model[3].weight[0, 0] += 1
    elif change == "data":
        inputs[0][0, 0] += 1
    elif change == "metric":
        scale = 2.0
    run(evaluate=metric, resume=change != "resume")
    assert set(engine.quantized) == set(FORMATS)


@pytest.mark.usefixtures("no_report")
def test_other_devices_need_no_new_measurement(run: Any, engine: Any) -> None:
    run(devices=[])
    engine.quantized.clear()
    assert run(devices=["toy"]).rows[1].costs["toy"].time.low > 0
    assert engine.quantized == []


# ----------------------------------------------------------------------------------------------- bad arguments


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"formats": ["mxfp44"]}, FormatError, r"'mxfp44' is not known.*'mxfp4'"),
        ({"formats": [("mxfp4", "int9_rwo")]}, FormatError, r"'int9_rwo' is not known"),
        ({"formats": "mxfp4"}, ArgumentTypeError, r"formats='mxfp4' must be a list of formats"),
        ({"formats": []}, ArgumentError, r"formats=\[\] is empty"),
        ({"devices": ["tyo"]}, ArgumentError, r"device='tyo' is not known"),
        ({"devices": "toy"}, ArgumentTypeError, r"devices='toy' must be a list"),
        ({"mode": "weight"}, ArgumentError, r"mode='weight' is not known. Allowed: 'weights', 'weights\+activations'"),
        ({"mode": ()}, ArgumentError, r"mode=\(\) is not known"),
        ({"batch_rows": 0}, ArgumentError, r"batch_rows=0 must be at least 1"),
        ({"batch_rows": 1.5}, ArgumentTypeError, r"batch_rows=1.5 must be a whole number"),
        ({"data": []}, ArgumentError, r"data is empty"),
        ({"data": 3}, ArgumentTypeError, r"data=3 must be an iterable of model inputs"),
        ({"model": 3}, ArgumentTypeError, r"model=3 must be a torch.nn.Module, the path of a safetensors file"),
        ({"model": torch.nn.ReLU()}, ArgumentError, r"model=ReLU has no torch.nn.Linear layer"),
        ({"model": None}, ArgumentError, r"data and evaluate belong to a model of your own"),
        ({"data": None, "evaluate": len}, ArgumentError, r"evaluate needs data"),
        ({"data": None, "mode": "weights+activations"}, ArgumentError, r"needs data to run the model on"),
        ({"evaluate": lambda outputs: torch.zeros(2, 2)}, ArgumentTypeError, r"evaluate returned shape \(2, 2\)"),
    ],
)
def test_a_wrong_argument_is_named_before_any_work(
    run: Any, engine: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(**changes)
    assert engine.quantized == []


def test_an_unwritable_folder_is_an_error_before_any_work(run: Any, engine: Any, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(FileError, match="is not a folder that can be written"):
        run(out=taken)
    assert engine.quantized == []


# ---------------------------------------------------------------------------------------------------- results


@pytest.mark.usefixtures("no_report")
def test_the_pareto_front_keeps_what_nothing_beats(run: Any) -> None:
    result = run(mode="weights")
    front = result.pareto("bits_per_value", "sqnr_median_db")
    assert [row.weights for row in front] == ["mxfp4", "float8_e4m3fn"]  # equal error and more bits: int8_row is beaten
    with pytest.raises(ArgumentError, match=r"x='bits' is not known.*Did you mean"):
        result.pareto("bits", "score")
    with pytest.raises(ArgumentError, match="both must be columns of numbers"):
        result.pareto("weights", "score")


@pytest.mark.usefixtures("no_report")
def test_tables_show_every_row_with_its_interval(run: Any) -> None:
    text = run(evaluate=mean_of_outputs).table()
    for name in FORMATS:
        assert text.count(name) >= 3
    assert "mxfp4 × same" in text
    assert "95 % interval" in text


@pytest.mark.usefixtures("no_report")
def test_an_exact_format_has_infinite_sqnr_and_valid_json(run: Any, model: Any, tmp_path: Path) -> None:
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.round_()
    result = run(formats=["int8_row"], mode="weights")
    assert result.rows[1].sqnr_worst_db == math.inf
    assert json.loads((tmp_path / "results.json").read_text())["rows"][1]["sqnr_worst_db"] == "inf"
    assert run(formats=["int8_row"], mode="weights").rows[1].sqnr_worst_db == math.inf
