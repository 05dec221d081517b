"""`lowp study`: accuracy against cost of a whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lowp.cli.output import JsonFlag, name_list, print_table
from lowp.studies.costs import BATCH_ROWS


def study(
    model: Annotated[
        Path | None,
        typer.Option(help="A safetensors file; default the demo, a sentence-embedding model."),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(help="Names with commas between, WEIGHTS:ACTIVATIONS for a pair; default some of all families."),
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="Names with commas between, or none; default h100,h200,b200.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the tables, plots and report.")] = Path("study"),
    mode: Annotated[
        str | None,
        typer.Option(help="weights, weights+activations, or both with a comma; default all possible."),
    ] = None,
    batch_rows: Annotated[int, typer.Option(help="Rows of activations in the predicted products.")] = BATCH_ROWS,
    resume: Annotated[bool, typer.Option(help="Keep what an earlier run finished in the folder.")] = True,
    json: JsonFlag = False,
) -> None:
    """Run a model in many formats, and predict what each costs on hardware."""
    from lowp.studies import study as run

    result = run(
        model,
        formats=None if formats is None else [_case(name) for name in name_list("formats", formats)],
        devices=_devices(devices),
        out=out,
        mode=None if mode is None else name_list("mode", mode),
        batch_rows=batch_rows,
        resume=resume,
        progress=not json,
    )
    if json:
        print(result.to_json())
        return
    for table in result.rich_tables():
        print_table(table)
    print(f"Report: {result.folder / 'report.html'}")


def _case(name: str) -> str | tuple[str, str]:
    weights, colon, activations = name.partition(":")
    return (weights, activations) if colon else name


def _devices(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [] if text.strip().lower() == "none" else name_list("devices", text)
