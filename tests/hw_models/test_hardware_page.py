"""The pages about hardware models show what the code does."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from lowp.hw_models.validation import validate
from lowp.hw_models.validation_page import validation_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_example_runs() -> None:
    page = (DOCS / "hardware.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n\n".join(blocks), {}, "hardware.md", "hardware.md", 0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.DocTestRunner(optionflags=flags).run(examples)
    assert result.attempted >= 40
    assert result.failed == 0


def test_page_of_published_numbers_is_current() -> None:
    """If not: lowp cost --validate --markdown > docs/validation.md."""
    assert (DOCS / "validation.md").read_text(encoding="utf-8") == validation_page()


def test_page_has_a_row_for_each_number() -> None:
    checks = validate()
    page = validation_page(checks)
    rows = [line for line in page.splitlines() if line.startswith("| ") and "| --- |" not in line]
    headings = page.count("\n## ")
    assert len(rows) == len(checks) + headings
    assert page.count("**Missed**") == sum(check.standing == "missed" for check in checks)
    assert all(row.count(" | ") == 6 for row in rows)
