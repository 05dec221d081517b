"""`lowp study` hands its arguments on; the study itself is tested elsewhere."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.conftest import Run, assert_refused


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the study was called with."""
    seen: list[dict[str, Any]] = []

    def study(model: object, **options: Any) -> SimpleNamespace:
        seen.append({"model": model, **options})
        return SimpleNamespace(to_json=lambda: '{"rows": []}', rich_tables=list, folder=Path("there"))

    monkeypatch.setattr("lowp.studies.study", study)
    return seen


def test_defaults(lowp: Run, calls: list[dict[str, Any]]) -> None:
    done = lowp("study")
    assert done.out == f"Report: {Path('there') / 'report.html'}\n"
    (call,) = calls
    assert call["model"] is None
    assert call["formats"] is None
    assert call["devices"] is None
    assert call["mode"] is None
    assert call["resume"] is True
    assert call["progress"] is True
    assert call["out"] == Path("study")


def test_options(lowp: Run, calls: list[dict[str, Any]]) -> None:
    formats = "mxfp4,nf4_g64:int8_row"
    options = [
        "--model",
        "m.safetensors",
        "--formats",
        formats,
        "--devices",
        "none",
        "--mode",
        "weights",
        "--no-resume",
    ]
    assert lowp("study", *options, "--out", "o", "--json").json == {"rows": []}
    (call,) = calls
    assert call["model"] == Path("m.safetensors")
    assert call["formats"] == ["mxfp4", ("nf4_g64", "int8_row")]
    assert call["devices"] == []
    assert call["mode"] == ["weights"]
    assert call["resume"] is False
    assert call["progress"] is False


def test_an_unknown_format_is_refused_before_any_work(lowp: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    options = ["--devices", "none", "--out", tmp_path / "o"]
    assert_refused(lowp("study", "--formats", "mxfp5", *options), "format='mxfp5'", "'mxfp4'")
    assert not (tmp_path / "o").exists()


def test_a_missing_model_is_refused(lowp: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    options = ["--devices", "none", "--out", tmp_path / "o"]
    assert_refused(lowp("study", "--model", tmp_path / "none.safetensors", *options), "none.safetensors")
