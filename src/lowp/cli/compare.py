"""`lowp compare`: what formats do to the tensors of a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lowp._errors import ArgumentError, Error, unknown_name
from lowp.cli.output import JsonFlag, name_list, print_json, print_table
from lowp.cli.tensors import Tensor, read_tensors
from lowp.formats import Format, Packed, parse
from lowp.formats.cards import CODED_SCHEMES
from lowp.studies.costs import storage_bits
from lowp.studies.metrics import decibels, norm

DEFAULT_FORMATS = "bfloat16,float8_e4m3fn,mxfp8,int8_row,mxfp6,nvfp4,mxfp4,int4_g128"
ALL = "all tensors"


@dataclass(frozen=True)
class Line:
    """The error of one tensor in one format: storage with scales, SQNR, largest |q - x| / |x| over x != 0.

    Where the format does not fit, `error` says why and the numbers are None.
    """

    tensor: str
    shape: list[int]
    format: str
    bits_per_value: float | None = None
    sqnr_db: float | None = None
    max_relative_error: float | None = None
    error: str | None = None


def _ascending(value: float | None) -> tuple[bool, float]:
    """Return a key that sorts NaN first and what was not measured last."""
    return value is None, -math.inf if value is None or math.isnan(value) else value


SORTS: dict[str, Callable[[Line], Any] | None] = {
    "file": None,
    "name": lambda line: line.tensor,
    "sqnr": lambda line: _ascending(line.sqnr_db),
    "error": lambda line: _ascending(None if line.max_relative_error is None else -line.max_relative_error),
    "bits": lambda line: _ascending(line.bits_per_value),
}


def compare(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors, .npy or .npz file.")],
    formats: Annotated[str, typer.Option(help="Names with commas between.")] = DEFAULT_FORMATS,
    sort: Annotated[str, typer.Option(help="Order: file, name, sqnr or error (worst first), bits.")] = "file",
    json: JsonFlag = False,
) -> None:
    """Compare formats on every floating-point tensor of a file; blocks and rows lie along the last axis.

    A tensor of more than two dimensions is taken as (first, product of the others). A format that does not fit a
    tensor shows the reason in its line.
    """
    if sort not in SORTS:
        raise ArgumentError(unknown_name("sort", sort, SORTS))
    chosen = {name: parse(name) for name in name_list("formats", formats)}
    tensors, skipped = read_tensors(file)
    lines, totals = _measure(tensors, chosen)
    if all(line.error for line in lines):
        raise ArgumentError(f"file={str(file)!r}: no format fits any tensor ({lines[0].tensor}: {lines[0].error})")
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
    """Running sums of one format over tensors; of signal and noise the norms."""

    values: int = 0
    bits: int = 0
    signal: float = 0.0
    noise: float = 0.0
    worst: float = 0.0
    failed: int = 0

    def add(self, other: _Sums) -> None:
        self.values += other.values
        self.bits += other.bits
        self.signal = math.hypot(self.signal, other.signal)
        self.noise = math.hypot(self.noise, other.noise)
        self.worst = float(np.maximum(self.worst, other.worst))  # unlike max, keeps NaN

    def line(self, tensor: str, shape: Sequence[int], name: str) -> Line:
        sqnr = decibels(self.signal, self.noise)
        worst = math.nan if math.isnan(sqnr) else self.worst
        return Line(tensor, list(shape), name, self.bits / self.values, sqnr, worst)

    def total(self, name: str) -> Line:
        error = f"left out: {self.failed}" if self.failed else None
        shape = [self.values]
        return replace(self.line(ALL, shape, name), error=error) if self.values else Line(ALL, shape, name, error=error)


def _measure(tensors: Sequence[Tensor], formats: dict[str, Format]) -> tuple[list[Line], list[Line]]:
    lines, totals = [], {name: _Sums() for name in formats}
    for tensor in _with_progress(tensors):
        data = np.atleast_1d(tensor.load())
        x = data.reshape(data.shape[0], -1) if data.ndim > 2 else data
        for name, fmt in formats.items():
            try:
                sums = _errors(x, fmt)
            except Error as error:
                totals[name].failed += 1
                lines.append(Line(tensor.name, list(tensor.shape), name, error=str(error)))
            else:
                totals[name].add(sums)
                lines.append(sums.line(tensor.name, tensor.shape, name))
    return lines, [sums.total(name) for name, sums in totals.items()]


def _errors(x: np.ndarray, fmt: Format) -> _Sums:
    """Return the sums of one tensor."""
    from lowp import quantize

    columns = x.shape[-1]
    exact = np.asarray(x, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        noise = np.asarray(quantize(x, fmt), dtype=np.float64) - exact
        nonzero = exact != 0
        relative = np.abs(noise[nonzero] / exact[nonzero])
        worst = float(relative.max(initial=0.0))
    bits = _stored_bits(x, fmt, columns)
    return _Sums(x.size, bits, norm(exact.ravel()), norm(noise.ravel()), worst)


def _stored_bits(x: np.ndarray, fmt: Format, columns: int) -> int:
    from lowp import encode

    if isinstance(fmt, Packed) and fmt.scheme in CODED_SCHEMES:
        return 8 * encode(x, fmt).nbytes
    return storage_bits(fmt, x.size // columns, columns)


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
    with_errors = any(line.error for line in [*lines, *totals])
    if with_errors:
        table.add_column("not compared")
    previous = ""
    for i, line in enumerate([*lines, *totals]):
        if i == len(lines):
            table.add_section()
        repeated = line.tensor == previous
        previous = line.tensor
        shape = "x".join(map(str, line.shape)) or "scalar"
        first = ("", "") if repeated else (line.tensor, shape)
        values = (line.bits_per_value, ".4g"), (line.sqnr_db, ".2f"), (line.max_relative_error, ".3g")
        numbers = ["–" if value is None else format(value, spec) for value, spec in values]
        table.add_row(*first, line.format, *numbers, *([line.error or ""] if with_errors else []))
    print_table(table)
