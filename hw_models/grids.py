"""Families of formats by ranges of their parameters."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError
from lowp.formats import Format, parse


@dataclass(frozen=True)
class Skipped:
    """A combination of parameters that is no format, or a point that could not be evaluated.

    Attributes:
        what: The combination, or the point.
        reason: What the library says about it.
    """

    what: str
    reason: str


@dataclass(frozen=True)
class Expansion:
    """The formats of a grid.

    Attributes:
        formats: Each format once, in the order of the grid.
        skipped: Combinations that are no format, each with its reason.
        repeated: Combinations that give a format which is there already.
    """

    formats: tuple[Format, ...]
    skipped: tuple[Skipped, ...]
    repeated: int


@dataclass(frozen=True)
class Grid:
    """Formats by ranges of parameters; see `grid`.

    Attributes:
        make: A template of a name, or what makes a format from the parameters.
        parameters: Each parameter's name and its values.
    """

    make: str | Callable[..., Any]
    parameters: tuple[tuple[str, tuple[Any, ...]], ...]

    def expand(self) -> Expansion:
        """Return the formats, what was skipped, and how many were there twice."""
        return expanded(self)

    def __len__(self) -> int:
        """The number of combinations, valid or not."""
        count = 1
        for _, values in self.parameters:
            count *= sum(len(value) if isinstance(value, Grid) else 1 for value in values)
        return count


def grid(make: str | Callable[..., Any], /, **parameters: Any) -> Grid:
    """Return all formats that a template or a class makes from ranges of its parameters.

    Combinations that are no format are skipped and counted: see `Expansion.skipped`.

    Args:
        make: The template of a name, such as "e{e}m{m}fn" or "block[{element},{size},{scale}]"; or a class of formats,
            such as `lowp.Float`, or a function that returns a format.
        **parameters: A value, or an iterable of values, for each parameter. Strings and formats are single values;
            a value may itself be a `Grid`, which stands for its formats.

    Returns:
        The grid, not expanded yet.

    Raises:
        ArgumentError: A template and its parameters do not fit, or a parameter has no value.
        ArgumentTypeError: `make` is neither a string nor callable.

    Example:
        >>> floats = grid("e{e}m{m}f", e=range(1, 4), m=range(0, 3))
        >>> blocks = grid("block[{element},{size},e8m0]", element=floats, size=[16, 32])
        >>> len(floats), len(blocks), len(blocks.expand().formats)
        (9, 18, 18)
    """
    if isinstance(make, str):
        wanted = {name for _, name, _, _ in Formatter().parse(make) if name is not None}
        if wanted != set(parameters):
            raise ArgumentError(
                f"make={make!r} has the parameters {sorted(wanted)}, not {sorted(parameters)}; every one needs values."
            )
    elif not callable(make):
        raise ArgumentTypeError(f"make={make!r} must be a template, a class or a function.")
    else:
        _check_parameters(make, parameters)
    return Grid(make, tuple((name, _values(name, given)) for name, given in parameters.items()))


def _check_parameters(make: Callable[..., Any], parameters: Iterable[str]) -> None:
    try:
        signature = inspect.signature(make)
    except ValueError:  # a built-in function
        return
    try:
        signature.bind(**dict.fromkeys(parameters))
    except TypeError as error:
        name = getattr(make, "__name__", repr(make))
        raise ArgumentError(f"make={name} and its parameters do not fit: {error}; allowed: {signature}.") from error


def expanded(given: Any) -> Expansion:
    """Return the formats that a grid, a format, a name, or an iterable of these stands for.

    Raises:
        FormatError: A name that was given by itself, not by a grid, is unknown.
        ArgumentTypeError: Something else was given.
    """
    formats: dict[Format, None] = {}
    skipped: list[Skipped] = []
    repeated = 0
    for made in _made(given):
        if isinstance(made, Skipped):
            skipped.append(made)
        elif made in formats:
            repeated += 1
        else:
            formats[made] = None
    return Expansion(tuple(formats), tuple(skipped), repeated)


def _values(name: str, given: Any) -> tuple[Any, ...]:
    single = isinstance(given, str | Format | Grid | Mapping) or not isinstance(given, Iterable)
    values = (given,) if single else tuple(given)
    if not values:
        raise ArgumentError(f"{name}={given!r} has no value; allowed: at least one.")
    return values


def _made(given: Any) -> Iterator[Format | Skipped]:
    if isinstance(given, str | Format):
        yield parse(given)
    elif isinstance(given, Grid):
        yield from _combinations(given)
    elif isinstance(given, Iterable) and not isinstance(given, Mapping | bytes):
        for one in given:
            yield from _made(one)
    else:
        raise ArgumentTypeError(f"formats={given!r} must be a format, a name, a grid, or a list of these.")


def _combinations(of: Grid) -> Iterator[Format | Skipped]:
    names = [name for name, _ in of.parameters]
    axes = []
    for _, values in of.parameters:
        axis: list[Any] = []
        for value in values:
            axis += list(_combinations(value)) if isinstance(value, Grid) else [value]
        axes.append(axis)
    for combination in itertools.product(*axes):
        lost = next((value for value in combination if isinstance(value, Skipped)), None)
        yield _format(of.make, dict(zip(names, combination, strict=True))) if lost is None else lost


def _format(make: str | Callable[..., Any], parameters: dict[str, Any]) -> Format | Skipped:
    what = make.format(**parameters) if isinstance(make, str) else _call(make, parameters)
    try:
        made = parse(what) if isinstance(make, str) else parse(make(**parameters))
    except FormatError as error:
        return Skipped(what, str(error))
    return made


def _call(make: Callable[..., Any], parameters: dict[str, Any]) -> str:
    named = ", ".join(f"{k}={v.name if isinstance(v, Format) else v!r}" for k, v in parameters.items())
    return f"{getattr(make, '__name__', repr(make))}({named})"
