"""Studies of safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lowp import ArgumentError, FileError
from lowp.studies import study
from lowp.studies.models import file_weights

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "layer.weight": torch.randn(6, 8, generator=generator),
        "conv.weight": torch.randn(4, 2, 3, 3, generator=generator).to(torch.bfloat16),
        "layer.bias": torch.zeros(6),
        "steps": torch.zeros(2, 2, dtype=torch.int64),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    return path


def test_a_file_gives_its_matrices_and_counts_the_rest(checkpoint: Path) -> None:
    weights = file_weights(checkpoint)
    assert {(layer.name, layer.rows, layer.columns) for layer in weights.layers} == {
        ("layer.weight", 6, 8),
        ("conv.weight", 4, 18),
    }
    assert weights.other_bytes == 6 * 4 + 4 * 8
    assert {tuple(layer.load().shape) for layer in weights.layers} == {(6, 8), (4, 18)}


def test_a_study_of_a_file_measures_its_weights(checkpoint: Path, tmp_path: Path, engine: Any, hardware: Any) -> None:
    out = tmp_path / "out"
    arguments: dict[str, Any] = {"devices": ["toy"], "out": out, "progress": False}
    arguments |= {"engine": engine, "hardware": hardware}
    result = study(checkpoint, formats=["int8_row", "mxfp4"], **arguments)
    assert [(row.weights, row.mode) for row in result.rows] == [
        ("float32", "reference"),
        ("int8_row", "weights"),
        ("mxfp4", "weights"),
    ]
    row = result.rows[1]
    assert row.bits_per_value == 8 + 32 * 10 / 120
    assert row.score is row.cosine_mean is None
    assert row.costs["toy"].energy.value > 0
    assert {error.layer for error in result.layers} == {"layer.weight", "conv.weight"}
    assert (out / "report.html").exists()
    engine.quantized.clear()
    study(checkpoint, formats=["int8_row", "mxfp4"], **arguments)
    assert engine.quantized == []


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_truncated_file_is_an_error(checkpoint: Path, keep: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(FileError, match=r"model='.*model\.safetensors' is not a whole safetensors file"):
        file_weights(checkpoint)


def test_a_corrupted_header_is_an_error(checkpoint: Path, tmp_path: Path, engine: Any) -> None:
    data = bytearray(checkpoint.read_bytes())
    data[8:16] = b"\xff" * 8
    checkpoint.write_bytes(data)
    with pytest.raises(FileError, match="is not a whole safetensors file"):
        study(checkpoint, devices=[], out=tmp_path / "out", progress=False, engine=engine)
    assert engine.quantized == []


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"model='.*none\.safetensors' cannot be read"):
        file_weights(tmp_path / "none.safetensors")
    with pytest.raises(FileError, match=r"model='.*' is a folder; give the path of a \.safetensors file"):
        file_weights(tmp_path)


def test_another_suffix_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"")
    with pytest.raises(ArgumentError, match=r"model='.*model\.bin' must be a safetensors file, with the suffix"):
        file_weights(path)


def test_a_tensor_that_fails_a_format_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(4, 8), "b": torch.full((4, 8), float("inf"))}, path)
    arguments: dict[str, Any] = {"devices": [], "out": tmp_path / "out", "progress": False}
    result = study(path, formats=["int32", "float16"], **arguments)
    row = result.rows[1]
    assert row.notes.startswith("Left out: b (RangeError: ")
    assert row.sqnr_worst_layer == "a"
    assert [(e.weights, e.layer) for e in result.layers] == [("int32", "a"), ("float16", "a"), ("float16", "b")]
    assert result.rows[2].notes == ""


def test_tensors_that_are_8_bit_floats_already_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(4, 8), "b": torch.ones(4, 8).to(torch.float8_e4m3fn)}, path)
    result = study(path, formats=["mxfp4"], devices=[], out=tmp_path / "out", progress=False)
    assert {error.layer for error in result.layers} == {"a"}
    assert result.about["not_quantized"] == ["b (float8_e4m3fn)"]
    assert "Not quantized: b (float8_e4m3fn)." in result.table()
    assert "b (float8_e4m3fn)" in (tmp_path / "out" / "report.html").read_text()


def test_a_file_without_matrices_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "vectors.safetensors"
    save_file({"bias": torch.zeros(3)}, path)
    with pytest.raises(ArgumentError, match="holds no floating-point tensor of two or more dimensions"):
        file_weights(path)


def test_data_for_a_file_is_refused(checkpoint: Path, tmp_path: Path, engine: Any) -> None:
    with pytest.raises(ArgumentError, match="data needs a torch module"):
        study(checkpoint, [torch.ones(1)], devices=[], out=tmp_path / "out", progress=False, engine=engine)
