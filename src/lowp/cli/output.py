"""What the commands share: JSON on stdout, tables, lists of names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowp._errors import ArgumentError
from lowp.studies.store import to_json

if TYPE_CHECKING:
    from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]


def print_json(data: Any) -> None:
    """Print strict JSON; NaN and infinities become strings."""
    print(to_json(data, indent=2))


def print_table(table: Table) -> None:
    """Print a table as wide as it needs to be where stdout is no terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, Console(width=1000).measure(table).maximum))
    console.print(table)


def name_list(argument: str, text: str) -> list[str]:
    """Return the names of a comma-separated list; a comma inside brackets belongs to a name.

    Raises:
        ArgumentError: There is no name.

    Example:
        >>> name_list("formats", "fp8, ap_fixed<8,4>,block[fp4,16,e4m3fn]")
        ['fp8', 'ap_fixed<8,4>', 'block[fp4,16,e4m3fn]']
    """
    names, depth = [""], 0
    for character in text:
        depth += (character in "[<(") - (character in "])>")
        if character == "," and depth == 0:
            names.append("")
        else:
            names[-1] += character
    found = [name.strip() for name in names if name.strip()]
    if not found:
        raise ArgumentError(f"{argument}={text!r} is empty; give names with commas between them.")
    return found
