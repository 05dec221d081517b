"""`lowp recipes`."""

import tomllib
from pathlib import Path

import pytest

from lowp import Recipe
from lowp.emulation.recipe_files import from_dict
from lowp.emulation.recipe_table import recipes_markdown
from tests.cli.conftest import Run, assert_refused


def test_every_recipe_is_listed_with_its_source(lowp: Run) -> None:
    done = lowp("recipes")
    assert done.code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in done.out.splitlines() if line.startswith("│")]
    assert rows == [[name, Recipe.named(name).source] for name in Recipe.names()]


def test_json_holds_all_recipes(lowp: Run) -> None:
    assert lowp("recipes", "--json").json == [Recipe.named(name).to_dict() for name in Recipe.names()]


def test_markdown_is_the_page(lowp: Run) -> None:
    assert lowp("recipes", "--markdown") == (0, recipes_markdown(), "")
    assert_refused(lowp("recipes", "quartet", "--markdown"), "--markdown")


@pytest.mark.parametrize("name", Recipe.names())
def test_toml_leads_back(lowp: Run, name: str) -> None:
    done = lowp("recipes", name)
    assert done.code == 0
    assert tomllib.loads(done.out) == Recipe.named(name).to_dict()


def test_json_of_one(lowp: Run) -> None:
    assert from_dict(lowp("recipes", "NVFP4-pretraining", "--json").json) == Recipe.named("nvfp4_pretraining")


def test_a_format_and_a_file_are_recipes_too(lowp: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(lowp("recipes", "posit8").out, encoding="utf-8")
    assert Recipe.load(path).weight == (("format", "posit8_es2"),)
    assert lowp("recipes", path) == (0, str(Recipe.load(path)), "")


def test_bad_input_is_refused(lowp: Run, tmp_path: Path) -> None:
    assert_refused(lowp("recipes", "quartett"), "recipe='quartett'", "Did you mean 'quartet'")
    assert_refused(lowp("recipes", tmp_path / "missing.toml"), "missing.toml", "cannot be read")
    (tmp_path / "bad.toml").write_text('wieght = "fp8"\n', encoding="utf-8")
    assert_refused(lowp("recipes", tmp_path / "bad.toml"), "'wieght' is not known", "'weight'")
