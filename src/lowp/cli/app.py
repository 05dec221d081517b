"""The commands put together."""

from __future__ import annotations

from typing import Annotated

import typer

from lowp.cli.compare import compare
from lowp.cli.cost import cost
from lowp.cli.formats import formats, show
from lowp.cli.recipes import recipes
from lowp.cli.rounding import round_value
from lowp.cli.study import study
from lowp.cli.vectors import vectors, verify_vectors
from lowp.cli.verify import verify

app = typer.Typer(
    name="lowp",
    help="Bit-exact low-precision number formats, and what they cost on hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(formats)
app.command()(show)
# A negative VALUE begins like an option; unknown options are therefore taken as arguments.
app.command("round", context_settings={"ignore_unknown_options": True})(round_value)
app.command()(compare)
app.command()(study)
app.command()(recipes)
app.add_typer(cost, name="cost")
app.command()(vectors)
app.command()(verify_vectors)
app.command()(verify)


def _print_version(wanted: bool) -> None:
    if wanted:
        from lowp import __version__

        print(f"lowp {__version__}")
        raise typer.Exit


@app.callback()
def _lowp(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Bit-exact low-precision number formats, and what they cost on hardware."""
