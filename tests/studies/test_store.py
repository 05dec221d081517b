"""Files are whole or absent, and finished work is found again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lowp import FileError
from lowp.studies.store import State, prepare_folder, to_json, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.csv"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(FileError, match=r"results\.csv' cannot be written: No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.csv"
    write_atomically(path, "old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    for out in (taken, taken / "inside"):
        with pytest.raises(FileError, match=r"out='.*taken.*' is not a folder that can be written"):
            prepare_folder(out)


def test_json_is_strict_and_keeps_infinities_as_words() -> None:
    text = to_json([math.inf, -math.inf, math.nan, 1.5, None])
    assert json.loads(text) == ["inf", "-inf", "nan", 1.5, None]


def test_state_is_found_again_and_can_be_discarded(tmp_path: Path) -> None:
    State(tmp_path).add({"key": "a", "value": 1})
    again = State(tmp_path)
    again.add({"key": "b", "value": 2})
    assert "a" in State(tmp_path)
    assert State(tmp_path)["b"]["value"] == 2
    fresh = State(tmp_path, resume=False)
    assert "a" not in fresh


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"other": 1}', "\x00"])
def test_a_damaged_state_is_an_error_with_advice(tmp_path: Path, line: str) -> None:
    (tmp_path / "state.jsonl").write_text('{"key": "a"}\n' + line + "\n")
    with pytest.raises(FileError, match=r"line 2 is not a record of a study; delete the file or run with resume=False"):
        State(tmp_path)
