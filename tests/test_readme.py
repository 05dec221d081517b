"""The README shows what the code does, and the page of formats lists what there is."""

import doctest
import re
from pathlib import Path

import pytest

import lowp
from lowp.formats.registry import sections
from lowp.formats.table import markdown_page


@pytest.fixture(scope="module")
def readme(repo: Path) -> str:
    return (repo / "README.md").read_text(encoding="utf-8")


def test_page_of_formats_is_current(repo: Path) -> None:
    """If not: lowp formats --markdown > docs/formats.md."""
    assert (repo / "docs" / "formats.md").read_text(encoding="utf-8") == markdown_page()


def test_families_are_all_there_with_their_counts(readme: str) -> None:
    counts = {heading: len(names) for heading, names in sections().items()}
    assert {row[0]: int(row[1]) for row in families(readme)} == counts


def test_names_by_rule_are_formats_without_an_entry(readme: str) -> None:
    names = [name for row in families(readme) for name in re.findall(r"`([^`]+)`", row[3])]
    assert len(names) >= 20
    for name in names:
        assert lowp.parse(name).name not in lowp.formats.names(), name


def families(readme: str) -> list[list[str]]:
    """Return the cells of the table of families."""
    _, _, table = readme.partition("<!-- families")
    table, _, _ = table.partition("<!-- end of families")
    rows = [[cell.strip() for cell in line.strip("|").split(" |")] for line in table.splitlines() if line[:1] == "|"]
    return rows[2:]


def test_examples_run(readme: str) -> None:
    for name in ("torch", "jax"):
        pytest.importorskip(name)
    examples = doctest.DocTestParser().get_doctest(readme.replace("```", ""), {}, "README.md", "README.md", 0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS).run(examples)
    assert result.attempted >= 10
    assert result.failed == 0
