"""`lowp formats` and `lowp show`."""

from pathlib import Path

import pytest

from lowp.formats import describe, names
from lowp.formats.table import markdown_page, markdown_table
from tests.cli.conftest import Run, assert_refused


def test_formats_lists_every_name(lowp: Run) -> None:
    done = lowp("formats")
    assert done.code == 0
    listed = {line.split("│")[1].strip() for line in done.out.splitlines() if line.startswith("│")}
    assert set(names()) <= listed


def test_formats_of_one_family(lowp: Run) -> None:
    assert [f["name"] for f in lowp("formats", "--family", "fixed-point", "--json").json] == names("fixed point")
    assert len(lowp("formats", "--json").json) == len(names())


def test_formats_as_markdown(lowp: Run) -> None:
    assert lowp("formats", "--markdown") == (0, markdown_page(), "")
    assert lowp("formats", "--markdown", "--family", "posit") == (0, markdown_table("posit") + "\n", "")


def test_an_unknown_family_is_refused(lowp: Run) -> None:
    assert_refused(lowp("formats", "--family", "floots"), "family='floots' is not known.", "'float'", "codebook")


def test_show_prints_the_card(lowp: Run) -> None:
    assert lowp("show", "FP8") == (0, describe("fp8") + "\n", "")


def test_show_json(lowp: Run) -> None:
    data = lowp("show", "fp4", "--json").json
    assert data["max"] == 6.0
    assert data["max_hex"] == "0x1.8p+2"
    assert data["values"][9] == -0.5
    assert data["special_codes"] == {"-0": [[8, 8]]}


@pytest.mark.parametrize(
    ("given", "nearest"), [("float8_e4m3fm", "'float8_e4m3fn'"), ("mxfp5", "'mxfp4'"), ("nvpf4", "'nvfp4'")]
)
def test_an_unknown_format_is_refused_with_the_nearest(lowp: Run, given: str, nearest: str) -> None:
    assert_refused(lowp("show", given), f"format={given!r} is not known. Did you mean", nearest)
    assert_refused(lowp("show", given, "--json"), nearest)


def test_an_impossible_format_is_refused(lowp: Run) -> None:
    assert_refused(lowp("show", "e12m3"), "exponent_bits=12", "1 to 11")


@pytest.mark.parametrize(
    "name", ["fp8", "int1", "mxfp4", "nf4", "posit8", "takum8_log", "lns8_f3", "bnb_dynamic8_signed_values"]
)
def test_plot_writes_a_picture(lowp: Run, tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "line.png"
    done = lowp("show", name, "--plot", path)
    assert done.code == 0
    assert done.out.endswith(f"Number line: {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_packed_formats_have_no_number_line(lowp: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = lowp("show", "ggml_q4_k", "--plot", tmp_path / "x.png")
    assert_refused(done, "format='ggml_q4_k'", "has no number line: what its values are depends on the block")
    assert not list(tmp_path.iterdir())
    assert "field dmin" in lowp("show", "ggml_q4_k").out


def test_plot_takes_its_name_from_the_format(lowp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert lowp("show", "fp4", "--plot", "--json").json["plot"] == "float4_e2m1fn.png"
    assert (tmp_path / "float4_e2m1fn.png").stat().st_size > 1000


def test_a_picture_that_cannot_be_written_is_refused(lowp: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "missing", tmp_path / "file"):
        assert_refused(lowp("show", "fp4", "--plot", folder / "x.png"), "x.png", "cannot be written")
    assert_refused(lowp("show", "fp4", "--plot", tmp_path / "x.txt"), "must end in one of: .png, .pdf, .svg")
    assert_refused(lowp("show", "float32", "--plot", tmp_path / "x.png"), "at most 2^16")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_picture_without_plot_is_refused(lowp: Run) -> None:
    assert_refused(lowp("show", "fp4", "x.png"), "add --plot")
