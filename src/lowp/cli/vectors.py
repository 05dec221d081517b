"""`lowp vectors` and `lowp verify-vectors`: test vectors for other implementations, and the check against them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lowp._errors import ArgumentError
from lowp.cli.output import JsonFlag, print_json

#: Exit code of a comparison in which a case differs.
MISMATCH = 1


def vectors(
    name: Annotated[
        str, typer.Argument(metavar="FORMAT", help="Format of the operands, and of the result by default.")
    ],
    operation: Annotated[
        str,
        typer.Argument(
            metavar="OPERATION", help="convert, add, sub, mul, div, sqrt, fma, dot, block_quantize, exp, ..."
        ),
    ],
    result: Annotated[str | None, typer.Option(help="Format of the result.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default standard output.")] = None,
    style: Annotated[str | None, typer.Option(help="hex, mem ($readmemh), npz or jsonl; default by --out.")] = None,
    level: Annotated[int, typer.Option(help="1, or 2 for more cases; few operands are all tested anyway.")] = 1,
    count: Annotated[int | None, typer.Option(help="How many cases.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the drawn cases.")] = 0,
    rounding: Annotated[str, typer.Option(help="Mode, such as ties_to_away, toward_zero.")] = "ties_to_even",
    overflow: Annotated[
        str,
        typer.Option(
            help="Mode; the default is that of IEEE 754. lowp.encode and lowp.quantize default to saturate: "
            "give saturate to match them. Others: wrap, ..."
        ),
    ] = "infinity_or_nan",
    random_bits: Annotated[int | None, typer.Option(help="Random bits of a stochastic mode; default 32.")] = None,
    length: Annotated[int | None, typer.Option(help="Numbers in a dot product or a block.")] = None,
    accumulator: Annotated[str | None, typer.Option(help='Of dot: a format, or "exact" ("quire").')] = None,
    nan: Annotated[str, typer.Option(help="A NaN where the format has none: skip the case, zero, max.")] = "skip",
    json: JsonFlag = False,
) -> None:
    """Make test vectors of an operation with the exact oracle."""
    from lowp.vector_files import vectors as make

    if style == "npz" and out is None:
        raise ArgumentError("style='npz' is no text; give --out FILE.")
    made = make(
        name, operation, level, rounding, overflow, seed, result, out, style, count,
        length=length, accumulator=accumulator, random_bits=random_bits, nan=nan,
    )  # fmt: skip
    if json:
        print_json(_as_data(made, out))
    elif out is None:
        print(made.text(style or "hex"), end="")
    else:
        print(f"{out}: {made}")


def _as_data(made: Any, out: Path | None) -> dict[str, Any]:
    """Return the header, and the cases unless they went to a file."""
    if out is not None:
        return {"path": str(out), "header": made.header}
    rows = zip(made.cases, made.answers, strict=True)
    return {"header": made.header, "cases": [[f"{code:x}" for code in case + answer] for case, answer in rows]}


def verify_vectors(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Test vectors of any style.")],
    command: Annotated[str, typer.Option("--command", "-c", help="The program and its arguments, in one string.")],
    first: Annotated[int, typer.Option(help="How many mismatches to show.")] = 10,
    nan_payload: Annotated[bool, typer.Option("--nan-payload", help="Compare the codes of NaN too.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that the program may take.")] = 60.0,
    json: JsonFlag = False,
) -> None:
    """Run a program on test vectors: operands in, one hexadecimal line per case; results out, likewise.

    Exit code 1 says that a case differs, 2 that the program or the file failed.
    """
    from lowp.vector_files import verify_vectors as verify

    outcome = verify(file, command, first, nan_payload=nan_payload, timeout=timeout)
    if json:
        print_json(outcome.data())
    else:
        print(outcome)
    if not outcome:
        raise typer.Exit(MISMATCH)
