"""The published recipes as a page of Markdown."""

from __future__ import annotations

from lowp.emulation.casts import AXES, GRADIENTS, METHODS, SCALINGS, SIGNS, Cast
from lowp.emulation.recipe import OPERATIONS, PASSES, ROLES, Recipe, Rule

_INTRODUCTION = """# Recipes by name

A recipe says which tensors of a program use which format, in the forward pass and in the two products of the backward
pass. Every name below is accepted where a recipe is: `lowp.Recipe.named("quartet2")`, `lowp.torch.emulate("quartet2")`.
A name that is both a recipe's and a format's, such as `mxfp4`, means the recipe there. `str(recipe)` is its TOML;
`recipe.replace(...)`, `recipe.save("mine.toml")` and `Recipe.load` make one's own.

Written by `lowp.emulation.recipe_table.recipes_markdown()`."""

_HEADINGS = {"forward": "Y = X W^T", "grad_input": "dX = dY W", "grad_weight": "dW = dY^T X"}
_LETTERS = {"activation": "X", "weight": "W", "gradient": "dY"}


def recipes_markdown() -> str:
    """Return the page docs/recipes.md: every published recipe, and the words that recipes are made of.

    Example:
        >>> recipes_markdown().splitlines()[0]
        '# Recipes by name'
    """
    parts = [_INTRODUCTION, "## The recipes", _overview()]
    parts += [_section(Recipe.named(name)) for name in Recipe.names()]
    parts.append("## The words")
    for heading, words in (
        ("Roles", ROLES),
        ("Operations", OPERATIONS),
        ("Methods of a cast", METHODS),
        ("Scales in front of scalar formats", SCALINGS),
        ("Signs of a rotation", SIGNS),
        ("Axes of blocks", AXES),
        ("Gradients of a cast", GRADIENTS),
    ):
        rows = "\n".join(f"| `{name}` | {_cell(text)} |" for name, text in words.items())
        parts.append(f"### {heading}\n\n| Name | What it is |\n| --- | --- |\n{rows}")
    return "\n\n".join(parts) + "\n"


def _overview() -> str:
    """Return a table of the operands of all six places."""
    lines = [f"| Recipe | {' | '.join(_HEADINGS.values())} |", "| --- | --- | --- | --- |"]
    for name in Recipe.names():
        recipe = Recipe.named(name)
        cells = [_product(recipe, product) for product in PASSES]
        lines.append(f"| [`{name}`](#{name}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _product(recipe: Recipe, product: str) -> str:
    """Return what the two operands of a product are, in one phrase if both are the same."""
    casts = {role: _words(recipe.cast(role, product)) for role in PASSES[product]}
    if len(set(casts.values())) == 1:
        return next(iter(casts.values()))
    return "; ".join(f"{_LETTERS[role]}: {words}" for role, words in casts.items())


def _words(cast: Cast) -> str:
    return _cell(cast.describe().replace("unchanged", "-"))


def _section(recipe: Recipe) -> str:
    """Return the source of a recipe, what else it sets, and its exempt layers."""
    lines = [
        f"### {recipe.name}",
        "",
        f"Source: {recipe.source}.",
        "",
        f"- Operations: {', '.join(recipe.operations)}.",
    ]
    lines += [f"- Rotations: {', '.join(_rotations(recipe))}."] if _rotations(recipe) else []
    sums = recipe.cast("accumulator", "forward")
    lines += [f"- Partial sums: {sums.describe()}."] if sums else []
    lines += [f"- {_rule(rule)}" for rule in recipe.rules]
    return "\n".join(lines)


def _rotations(recipe: Recipe) -> list[str]:
    found = {}
    for product, roles in PASSES.items():
        block, signs = recipe.cast(roles[0], product).rotation
        if block:
            kind = {"random": "new signs at every call", "fixed": "fixed signs", "none": "no signs"}[signs]
            found[product] = f"{product.replace('_', ' ')} in blocks of {block}, {kind}"
    return list(found.values())


def _rule(rule: Rule) -> str:
    patterns = ", ".join(f"`{pattern}`" for pattern in rule.match)
    return f"Left in their own precision: {patterns}." if rule.exempt else f"Different for {patterns}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
