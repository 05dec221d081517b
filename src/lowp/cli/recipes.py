"""`lowp recipes`."""

from __future__ import annotations

from typing import Annotated

import typer

from lowp._errors import ArgumentError
from lowp.cli.output import JsonFlag, print_json, print_table
from lowp.emulation import Recipe
from lowp.emulation.recipe import as_recipe
from lowp.emulation.recipe_table import recipes_markdown


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Print this one as TOML: a recipe, a format, or a .toml or .json file."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, the page docs/recipes.md.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the published recipes, or print one."""
    if markdown:
        if name is not None or json:
            raise ArgumentError("--markdown prints the page of all recipes; give it alone.")
        print(recipes_markdown().rstrip("\n"))
    elif name is not None:
        recipe = as_recipe(name)
        if json:
            print_json(recipe.to_dict())
        else:
            print(str(recipe).rstrip("\n"))
    elif json:
        print_json([Recipe.named(each).to_dict() for each in Recipe.names()])
    else:
        _print_all()


def _print_all() -> None:
    from rich.table import Table

    table = Table("Recipe", "Definition", caption="lowp recipes NAME prints one as TOML: change it, load it.")
    for name in Recipe.names():
        table.add_row(name, Recipe.named(name).source)
    table.columns[0].no_wrap = True
    print_table(table)
