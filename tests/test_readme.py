"""The README shows what the code does."""

import doctest
from pathlib import Path

from lowp.formats.table import markdown_table


def test_format_table_is_current(repo: Path) -> None:
    assert markdown_table() in (repo / "README.md").read_text(encoding="utf-8")


def test_examples_run(repo: Path) -> None:
    text = (repo / "README.md").read_text(encoding="utf-8").replace("```", "")
    examples = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples)
    assert result.attempted >= 4
    assert result.failed == 0
