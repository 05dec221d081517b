"""Files of test vectors: what is written comes back, and what is broken is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

import lowp
from lowp._errors import ArgumentError, FileError
from lowp.vector_files import read_vectors
from tests.vector_files.test_collection import SETS, make


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("style", ["hex", "mem", "jsonl", "npz"])
def test_what_is_written_comes_back(kind: str, style: str, tmp_path: Path) -> None:
    made = make(kind)
    path = tmp_path / f"file.{style}"
    made.save(path)
    back = read_vectors(path)
    assert (back.semantics, back.cases, back.answers) == (made.semantics, made.cases, made.answers)
    assert back.header == json.loads(json.dumps(made.header))
    assert back.recomputed() == made.answers


def test_hexadecimal_text_has_a_line_per_case() -> None:
    lines = lowp.vectors("float4_e2m1fn", "add").text().splitlines()
    assert lines[0] == "# lowp-vectors 1"
    assert "# columns: " + json.dumps(["a", "b", "result"]) in lines
    assert [line for line in lines if not line.startswith("#")][18] == "1 2 3"


def test_memories_have_a_word_per_case() -> None:
    lines = lowp.vectors("int6", "add").text("mem").splitlines()
    assert lines[0] == "// lowp-vectors 1"
    assert '// word: ["a[17:12]", "b[11:6]", "result[5:0]"]' in lines
    words = [line for line in lines if not line.startswith("//")]
    assert words[1 << 6 | 63] == f"{1 << 12 | 63 << 6 | 0:05x}"


def test_json_lines_and_arrays_name_their_columns(tmp_path: Path) -> None:
    made = make("chain")
    made.save(tmp_path / "x.jsonl")
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["rounding"] == "ties_to_even"
    assert json.loads(lines[1])["a"] == [f"{code:02x}" for code in made.cases[0][:4]]
    made.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["a", "b", "header", "result"]
        np.testing.assert_array_equal(arrays["a"], made.operands["a"])


def test_the_style_follows_from_the_name_or_is_given(tmp_path: Path) -> None:
    for name, style, start in (("x.mem", None, "//"), ("x.txt", None, "#"), ("x.txt", "jsonl", "{")):
        lowp.vectors("int2", "add", path=tmp_path / name, style=style)
        assert (tmp_path / name).read_text().startswith(start)
    with pytest.raises(ArgumentError, match="no text"):
        make("add").text("npz")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        lowp.vectors("int2", "add", path=tmp_path / "absent" / "x.hex")
    path = tmp_path / "x.hex"
    path.write_text("old")
    with pytest.raises(ArgumentError, match="style"):
        lowp.vectors("int2", "add", path=path, style="binary")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.hex"]


TEXT = lowp.vectors("int2", "add").text()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "neither with a comment"),
        ("hello\n", "neither with a comment"),
        ("# something else\n0 0 0\n", "version None"),
        (TEXT.replace("lowp-vectors 1", "lowp-vectors 2"), "version 2"),
        (TEXT.replace('# rounding: "ties_to_even"\n', ""), "'rounding'"),
        (TEXT.replace("# level: 1\n", ""), "'level'"),
        (TEXT.replace("# formats", "# fromats"), "'formats'"),
        (TEXT.replace("\n1 1 1\n", "\n"), "15 cases"),
        (TEXT.replace("\n1 1 1\n", "\n1 1\n"), "3 columns"),
        (TEXT.replace("\n1 1 1\n", "\n1 1 4\n"), "3 columns"),
        (TEXT.replace("\n1 1 1\n", "\n1 1 x\n"), "not hexadecimal"),
        ('{"lowp-vectors": 1}\n', "'formats'"),
        ("{broken\n", "JSONDecodeError"),
    ],
)
def test_broken_files_are_refused(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.hex"
    path.write_text(content)
    with pytest.raises(FileError, match=says):
        read_vectors(path)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        read_vectors(tmp_path / "absent.hex")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(FileError, match="no file of test vectors"):
        read_vectors(tmp_path / "x.npz")
    (tmp_path / "x.hex").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="no file of test vectors"):
        read_vectors(tmp_path / "x.hex")
