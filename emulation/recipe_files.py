"""Recipes as TOML and JSON, and by name."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, FileError, FormatError, PrecisionWarning, nearest
from lowp.emulation.casts import Settings
from lowp.emulation.recipe import PASSES, ROLES, Recipe
from lowp.formats import Format, parse

_DATA = files("lowp.emulation") / "data" / "recipes"


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as nested dictionaries and lists; see `Recipe.to_dict`."""
    result: dict[str, Any] = {}
    for f in fields(recipe):
        value = getattr(recipe, f.name)
        if f.default is not MISSING and value == f.default:
            continue
        if f.name in ROLES:
            result[f.name] = _cast_dict(value)
        elif f.name in PASSES:
            result[f.name] = {role: _cast_dict(given) for role, given in value}
        elif f.name == "rules":
            result[f.name] = [_rule_dict(rule) for rule in value]
        else:
            result[f.name] = list(value) if isinstance(value, tuple) else value
    return result


def _rule_dict(rule: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"match": list(rule.match) if len(rule.match) > 1 else rule.match[0]}
    if rule.operation:
        result["operation"] = rule.operation
    for flag in ("exempt", "optional"):
        if getattr(rule, flag):
            result[flag] = True
    for place, given in rule.casts:
        product, _, role = place.rpartition(".")
        (result.setdefault(product, {}) if product else result)[role] = _cast_dict(given)
    return result


def _cast_dict(given: Settings) -> dict[str, Any]:
    """Return the settings of a cast, an accumulator among them as a table."""
    from lowp.emulation._accumulator_tables import to_table

    result = dict(given)
    if "unit" in result and not isinstance(result["unit"], str):
        result["unit"] = to_table(result["unit"])
    return result


def from_dict(given: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Return the recipe that nested tables describe.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: They describe none; the message starts with `where`.
    """
    names = [f.name for f in fields(Recipe)]
    for name in given:
        if name not in names:
            hint = nearest(str(name), names)
            raise ArgumentError(f"{where}: {name!r} is not known.{hint} Allowed: {', '.join(names)}.")
    try:
        return Recipe(**given)
    except (ArgumentError, ArgumentTypeError, FormatError) as error:
        raise type(error)(f"{where}: {error}") from None


def to_text(recipe: Recipe) -> str:
    """Return a recipe as TOML."""
    import tomli_w

    return tomli_w.dumps(_plain(to_dict(recipe)))


def _plain(value: Any) -> Any:
    """Return nested data with "none" for None, which TOML lacks."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else "none" if value is None else value


def save(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe to a file; see `Recipe.save`."""
    target = _path(path)
    kind = _kind(target)
    text = to_text(recipe) if kind == ".toml" else json.dumps(to_dict(recipe), indent=2) + "\n"
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FileError(f"path={str(path)!r} cannot be written: {error.strerror}.") from error


def load(path: str | Path) -> Recipe:
    """Read a recipe from a file; see `Recipe.load`."""
    source = _path(path)
    kind = _kind(source)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"path={str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        given = tomllib.loads(text) if kind == ".toml" else json.loads(text)
    except ValueError as error:
        raise FileError(f"path={str(path)!r} is not valid {kind[1:].upper()}: {error}.") from error
    if not isinstance(given, dict):
        raise ArgumentTypeError(f"path={str(path)!r} holds a {type(given).__name__}; a recipe is a table.")
    return from_dict(given, str(path))


def _path(path: Any) -> Path:
    if not isinstance(path, str | PathLike):
        raise ArgumentTypeError(f"path={path!r} must be a path, as text or as a Path.")
    return Path(path)


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in (".toml", ".json"):
        raise ArgumentError(f"path={str(path)!r} must end in .toml or .json.")
    return kind


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return the names of the recipes that come with lowp.

    Example:
        >>> "mxfp8" in names()
        True
    """
    return tuple(sorted(p.name.removesuffix(".toml") for p in _DATA.iterdir() if p.name.endswith(".toml")))


@lru_cache(maxsize=64)
def named(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        ArgumentError, ArgumentTypeError: There is none.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name={name!r} must be a string, one of: {', '.join(names())}.")
    key = name.strip().lower().replace("-", "_")
    if key not in names():
        raise ArgumentError(f"recipe={name!r} is not known.{nearest(key, names())} Allowed: {', '.join(names())}.")
    given = tomllib.loads((_DATA / f"{key}.toml").read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)  # who takes a published recipe has not chosen its parts
        return from_dict({"name": key, **given}, key)


def resolve(given: Any) -> Recipe:
    """Return the recipe that something stands for; see `lowp.emulation.recipe.as_recipe`."""
    if isinstance(given, Recipe):
        return given
    if isinstance(given, Mapping):
        return from_dict(given)
    if isinstance(given, Path) or (isinstance(given, str) and given.lower().endswith((".toml", ".json"))):
        return load(given)
    if isinstance(given, Format):
        return uniform(given)
    if not isinstance(given, str):
        raise ArgumentTypeError(
            f"recipe={given!r} must be a Recipe, a name, a format, a table, or the path of a .toml or .json file."
        )
    key = given.strip().lower().replace("-", "_")
    if key in names():
        return named(key)
    try:
        return uniform(parse(given))
    except FormatError:
        raise ArgumentError(
            f"recipe={given!r} is neither a recipe nor a format.{nearest(key, names())} "
            f"Recipes: {', '.join(names())}; formats: lowp.formats.names()."
        ) from None


def uniform(fmt: Format) -> Recipe:
    """Return the recipe that has weights, activations and gradients in one format."""
    return Recipe(name=fmt.name, weight=fmt, activation=fmt, gradient=fmt)
