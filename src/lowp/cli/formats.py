"""`lowp formats` and `lowp show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lowp._errors import ArgumentError
from lowp.cli.output import JsonFlag, print_json, print_table
from lowp.formats import Format, describe, names, parse
from lowp.formats.describe import properties
from lowp.formats.table import markdown_page, markdown_table, summary_row


def formats(
    family: Annotated[
        str | None, typer.Option(help='Only one family, such as "float", "posit", "block" or "ggml".')
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, the page docs/formats.md.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the named formats."""
    if markdown:
        print(markdown_page().rstrip("\n") if family is None else markdown_table(family))
        return
    chosen = names(family)
    if json:
        print_json([properties(name) for name in chosen])
        return
    from rich.table import Table

    table = Table(
        *summary_row(None), caption="Names by rule are formats too: e5m7, e4m3b9fn, int5, fixed12_7, int4_g64."
    )
    for name in chosen:
        table.add_row(*summary_row(name))
    table.columns[0].no_wrap = True
    print_table(table)


def show(
    name: Annotated[str, typer.Argument(metavar="FORMAT", help="A name, an alias, or a name by rule such as e5m7.")],
    plot: Annotated[bool, typer.Option("--plot", help="Also draw the values on a number line.")] = False,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE.png]", help="Where --plot draws; default FORMAT.png.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show the card of a format: layout, range, special codes, values."""
    if file is not None and not plot:
        raise ArgumentError(f"{str(file)!r} names a picture; add --plot to draw it.")
    fmt = parse(name)
    path = _draw(fmt, file) if plot else None
    if json:
        picture: dict[str, Any] = {"plot": str(path)} if path else {}
        print_json(properties(fmt) | picture)
        return
    print(describe(fmt))
    if path:
        print(f"\nNumber line: {path}")


def _draw(fmt: Format, file: Path | None) -> Path:
    from lowp.plots import picture, save

    return save(picture(fmt), file or Path(f"{fmt.name}.png"))
