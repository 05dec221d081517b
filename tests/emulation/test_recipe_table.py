"""docs/recipes.md says what the recipes are."""

from pathlib import Path

from lowp import Recipe
from lowp.emulation.recipe_table import recipes_markdown


def test_the_page_is_current(repo: Path):
    """If not: write `recipes_markdown()` to docs/recipes.md."""
    assert (repo / "docs" / "recipes.md").read_text(encoding="utf-8") == recipes_markdown()


def test_every_recipe_has_a_row_and_a_section():
    page = recipes_markdown()
    for name in Recipe.names():
        assert f"| [`{name}`](#{name}) |" in page
        assert f"\n### {name}\n\nSource: {Recipe.named(name).source}.\n" in page
    assert all(line.count(" | ") == 3 for line in page.splitlines() if line.startswith("| [`"))


def test_rows():
    page = recipes_markdown()
    assert "| [`bf16`](#bf16) | bfloat16 | bfloat16 | bfloat16 |" in page
    assert "| [`int8`](#int8) | int8_row | dY: -; W: as rounded forward | X: as rounded forward; dY: - |" in page
    assert "- Rotations: grad weight in blocks of 16, fixed signs." in page
    assert "- Partial sums: float32, sums of 128." in page
    assert "- Left in their own precision: `lm_head`, `*.lm_head`" in page
