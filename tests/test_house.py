"""Files stay short, speak of the project alone, and carry no trace of one machine."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {"build", "dist", "__pycache__"}
MADE = (".egg-info", "_cache", "_checkpoints")
TEXT = {".py", ".md", ".toml", ".txt", ".cff", ".yml", ".yaml", ".ipynb", ".csv", ".html", ".json", ""}
MAX_LINES = 400
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home|tmp)/|\bshared/")


def files() -> Iterator[Path]:
    """Yield the text files of the checkout; hidden folders of tools and made files are left out."""
    for path, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in SKIPPED and not f.endswith(MADE)]
        if Path(path) == ROOT:
            folders[:] = [f for f in folders if not f.startswith(".") or f in {".ci", ".github"}]
        yield from (Path(path, name) for name in names if Path(name).suffix in TEXT)


def test_python_files_are_short() -> None:
    sizes = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files() if p.suffix == ".py"}
    assert len(sizes) > 20
    assert {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > MAX_LINES} == {}


def test_no_file_names_a_place_on_one_machine() -> None:
    """Only a conftest.py may, since it looks for optional data beside the checkout."""
    found = {}
    for path in files():
        if path.name not in {"conftest.py", "test_house.py"} and (hit := MACHINE_PATH.search(path.read_text("utf-8"))):
            found[str(path.relative_to(ROOT))] = hit.group()
    assert found == {}


@pytest.mark.parametrize(
    ("text", "caught"),
    [("see /" + "work/x", True), ("../sha" + "red/vectors", True), ("share/doc", False), ("network/x", False)],
)
def test_the_search_can_fail(text: str, caught: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) is caught


def test_text_files_end_with_one_newline() -> None:
    bad = []
    for path in files():
        text = path.read_text(encoding="utf-8")
        if text and (not text.endswith("\n") or text.endswith("\n\n") or "\r" in text):
            bad.append(str(path.relative_to(ROOT)))
    assert bad == []


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    helped = re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)
    assert sorted(helped) == sorted(phony.split())
    assert {"demo", "test", "test-slow", "lint", "bench", "clean"} <= set(helped)


def test_ci_lints_first_and_ends_with_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    lines = script.read_text().splitlines()
    assert lines[-2:] == ["make lint", "make test"]
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)
