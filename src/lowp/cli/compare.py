"""`lowp compare`: what formats do to the tensors of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lowp._errors import ArgumentError, unknown_name
from lowp.cli.output import JsonFlag, name_list, print_json, print_table
from lowp.cli.tensors import Tensor, read_tensors
from lowp.formats import Format, parse
from lowp.studies.costs import storage_bits
from lowp.studies.metrics import decibels

DEFAULT_FORMATS = "bfloat16,float8_e4m3fn,mxfp8,int8_row,mxfp6,nvfp4,mxfp4,int4_g128"
ALL = "all tensors"


@dataclass(frozen=True)
class Line:
    """The error of one tensor in one format: storage with scales, SQNR, largest |q - x| / |x| over x != 0."""

    tensor: str
    shape: list[int]
    format: str
    bits_per_value: float
    sqnr_db: float
    max_relative_error: float


SORTS: dict[str, Callable[[Line], Any] | None] = {
    "file": None,
    "name": lambda line: line.tensor,
    "sqnr": lambda line: line.sqnr_db,
    "error": lambda line: -line.max_relative_error,
    "bits": lambda line: line.bits_per_value,
}


def compare(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors, .npy or .npz file.")],
    formats: Annotated[str, typer.Option(help="Names with commas between.")] = DEFAULT_FORMATS,
    sort: Annotated[str, typer.Option(help="Order: file, name, sqnr or error (worst first), bits.")] = "file",
    json: JsonFlag = False,
) -> None:
    """Compare formats on every floating-point tensor of a file; blocks and rows lie along the last axis.

    A tensor of more than two dimensions is taken as (first, product of the others).
    """
    if sort not in SORTS:
        raise ArgumentError(unknown_name("sort", sort, SORTS))
    chosen = {name: parse(name) for name in name_list("formats", formats)}
    tensors, skipped = read_tensors(file)
    lines, totals = _measure(tensors, chosen)
    key = SORTS[sort]
    if key is not None:
        lines.sort(key=key)
        totals.sort(key=key)
    if json:
        omitted = [asdict(s) for s in skipped]
        print_json(
            {
                "file": str(file),
                "lines": list(map(asdict, lines)),
                "total": list(map(asdict, totals)),
                "skipped": omitted,
            }
        )
        return
    _print(file, lines, totals if len(tensors) > 1 else [])
    if skipped:
        print("Not compared: " + ", ".join(f"{s.name} ({s.reason})" for s in skipped))


@dataclass
class _Sums:
    """Running sums of one format over tensors."""

    values: int = 0
    bits: int = 0
    signal: float = 0.0
    noise: float = 0.0
    worst: float = 0.0

    def add(self, values: int, bits: int, signal: float, noise: float, worst: float) -> None:
        self.values += values
        self.bits += bits
        self.signal += signal
        self.noise += noise
        self.worst = max(self.worst, worst)

    def line(self, tensor: str, shape: Sequence[int], name: str) -> Line:
        return Line(tensor, list(shape), name, self.bits / self.values, decibels(self.signal, self.noise), self.worst)


def _measure(tensors: Sequence[Tensor], formats: dict[str, Format]) -> tuple[list[Line], list[Line]]:
    lines, totals = [], {name: _Sums() for name in formats}
    for tensor in _with_progress(tensors):
        data = np.atleast_1d(tensor.load())
        x = data.reshape(data.shape[0], -1) if data.ndim > 2 else data
        for name, fmt in formats.items():
            sums = _Sums()
            sums.add(*_errors(x, fmt))
            totals[name].add(sums.values, sums.bits, sums.signal, sums.noise, sums.worst)
            lines.append(sums.line(tensor.name, tensor.shape, name))
    return lines, [sums.line(ALL, [sums.values], name) for name, sums in totals.items()]


def _errors(x: np.ndarray, fmt: Format) -> tuple[int, int, float, float, float]:
    """Return values, bits, energy of signal and noise, and the largest relative error."""
    from lowp import quantize

    columns = x.shape[-1]
    exact = np.asarray(x, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        noise = np.asarray(quantize(x, fmt), dtype=np.float64) - exact
        nonzero = exact != 0
        relative = np.abs(noise[nonzero] / exact[nonzero])
        sums = float(np.sum(exact * exact)), float(np.sum(noise * noise))
    return x.size, storage_bits(fmt, x.size // columns, columns), *sums, float(relative.max(initial=0.0))


def _with_progress(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    quiet = not console.is_terminal or len(tensors) < 2
    yield from track(tensors, "Comparing", console=console, disable=quiet, transient=True)


def _print(file: Path, lines: Sequence[Line], totals: Sequence[Line]) -> None:
    from rich.table import Table

    table = Table(title=file.name)
    table.add_column("tensor", no_wrap=True)
    for name in ("shape", "format"):
        table.add_column(name, no_wrap=True)
    for heading in ("bits/value", "SQNR dB", "max rel. error"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for i, line in enumerate([*lines, *totals]):
        if i == len(lines):
            table.add_section()
        repeated = line.tensor == previous
        previous = line.tensor
        shape = "x".join(map(str, line.shape)) or "scalar"
        first = ("", "") if repeated else (line.tensor, shape)
        numbers = f"{line.bits_per_value:.4g}", f"{line.sqnr_db:.2f}", f"{line.max_relative_error:.3g}"
        table.add_row(*first, line.format, *numbers)
    print_table(table)
