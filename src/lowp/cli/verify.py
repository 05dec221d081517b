"""`lowp verify`: whether every backend of this machine gives the bits that the definitions ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lowp._errors import ArgumentError
from lowp.cli.output import JsonFlag, name_list, print_json, print_table
from lowp.cli.vectors import MISMATCH
from lowp.formats import parse
from lowp.rounding.modes import rounding as rounding_mode

if TYPE_CHECKING:
    from lowp.cli.verify_backends import Row
    from lowp.cli.verify_float32 import Outcome


def verify(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[FORMAT]", help="One format, or names with commas; default one of each kind."),
    ] = None,
    rounding: Annotated[
        str | None, typer.Option(help="Modes with commas; default ties_to_even, toward_zero, stochastic_a.")
    ] = None,
    overflow: Annotated[str, typer.Option(help="Mode, such as infinity_or_nan; for --all-float32.")] = "saturate",
    all_float32: Annotated[
        bool, typer.Option("--all-float32", help="All 2^32 float32 numbers, of one format and mode.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the inputs and of stochastic modes.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Check NumPy, torch and JAX on this machine against each other and the exact oracle, bit for bit.

    Exit code 1 says that something differs.
    """
    if all_float32:
        _verify_all(name, rounding, overflow, seed, json)
        return
    if overflow != "saturate":
        raise ArgumentError(f"overflow={overflow!r} goes with --all-float32; backends are compared with saturation.")
    from lowp.cli.verify_backends import DEFAULT_FORMATS, DEFAULT_MODES, check

    names = list(DEFAULT_FORMATS) if name is None else name_list("format", name)
    modes = list(DEFAULT_MODES) if rounding is None else name_list("rounding", rounding)
    for each in names:
        parse(each)
    for mode in modes:
        rounding_mode(mode)
    with _progress(len(names) * len(modes), "Comparing") as advance:
        rows = check(names, modes, seed, lambda: advance(1))
    if json:
        print_json({"rows": [row.data() for row in rows], "agrees": all(row.agrees for row in rows)})
    else:
        _print_rows(rows)
    _leave(all(row.agrees for row in rows))


def _verify_all(name: str | None, rounding: str | None, overflow: str, seed: int, json: bool) -> None:
    if name is None:
        raise ArgumentError("format is missing: --all-float32 takes one format.")
    from lowp.cli.verify_float32 import PIECES, check_all_float32

    with _progress(PIECES, "Rounding") as advance:
        outcome = check_all_float32(name, rounding or "ties_to_even", overflow, seed, advance=advance)
    if json:
        print_json(outcome.data())
    else:
        print(_text(outcome))
    _leave(outcome.wrong == 0)


@contextmanager
def _progress(total: int, text: str) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    with progress.Progress(console=console, disable=not console.is_terminal or total < 2, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda steps: bar.update(task, advance=steps)


def _leave(agrees: bool) -> None:
    if not agrees:
        raise typer.Exit(MISMATCH)


def _print_rows(rows: list[Row]) -> None:
    from rich.table import Table

    ways = list(rows[0].differing)
    table = Table(caption="Results of each way that differ from NumPy's on float32; of NumPy's from the oracle's.")
    for heading in ("format", "rounding"):
        table.add_column(heading, no_wrap=True)
    for heading in ("inputs", *ways):
        table.add_column(heading, justify="right")
    table.add_column("asked", justify="right")
    for row in rows:
        counts = (str(row.differing[way]) for way in ways)
        table.add_row(row.format, row.rounding, str(row.inputs), *counts, str(row.asked))
    print_table(table)
    for row in rows:
        for way, (x, wanted, got) in row.first.items():
            print(f"{row.format}, {row.rounding}, {way}: {x} gives {got}, not {wanted}")
    wrong = sum(not row.agrees for row in rows)
    print(f"{wrong} of {len(rows)} rows differ" if wrong else f"all {len(rows)} rows agree")


def _text(outcome: Outcome) -> str:
    left_out = f" ({outcome.left_out} without a result in float32)" if outcome.left_out else ""
    lines = [
        f"{outcome.format}, rounding {outcome.rounding}, overflow {outcome.overflow}: "
        f"{outcome.inputs} inputs{left_out}, {outcome.seconds:.1f} s",
        f"  against the {outcome.reference}, and the exact oracle on {outcome.oracle_inputs} inputs: "
        f"{outcome.wrong or 'none'} differ",
    ]
    if outcome.steps:
        proof = ", which proves all inputs" if outcome.steps_checked == outcome.steps else ""
        lines.append(f"  oracle at both ends of {outcome.steps_checked} of {outcome.steps} steps{proof}")
    lines += [
        f"  {d['x']} gives {d['got']}, not {d['wanted']} ({d['by']})" for d in (d.data() for d in outcome.differences)
    ]
    return "\n".join(lines)
