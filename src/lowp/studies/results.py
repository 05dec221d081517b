"""The rows of a study and what can be done with them."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowp._errors import ArgumentError, unknown_name
from lowp.studies.columns import all_columns
from lowp.studies.costs import Cost
from lowp.studies.metrics import Interval
from lowp.studies.store import to_json, write_atomically

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One format in one mode; `lowp.studies.columns` says what each field means. None: not measured."""

    weights: str
    activations: str
    mode: str
    family: str
    bits_per_value: float
    weight_bytes: int
    model_bytes: int
    sqnr_worst_db: float | None = None
    sqnr_worst_layer: str | None = None
    sqnr_median_db: float | None = None
    activation_sqnr_worst_db: float | None = None
    activation_sqnr_worst_layer: str | None = None
    activation_sqnr_median_db: float | None = None
    cosine_mean: float | None = None
    cosine_min: float | None = None
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    score_change: float | None = None
    score_change_low: float | None = None
    score_change_high: float | None = None
    seconds: float = 0.0
    notes: str = ""
    costs: Mapping[str, Cost] = field(default_factory=dict)

    def as_dict(self, devices: Sequence[str]) -> dict[str, Any]:
        """Return the row by column name, costs flattened; a missing value is None."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "costs"}
        for device, cost in self.costs.items():
            plain |= _flat(f"{device}_time_s", cost.time) | _flat(f"{device}_energy_j", cost.energy)
        return {column.name: plain.get(column.name) for column in all_columns(devices)}


def _flat(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


@dataclass(frozen=True)
class LayerError:
    """The error of one layer in one format; SQNR in dB."""

    weights: str
    activations: str
    mode: str
    layer: str
    rows: int
    columns: int
    weight_sqnr_db: float
    activation_sqnr_db: float | None = None


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        rows: One per format and mode, the float32 model first.
        layers: One per format, mode and layer.
        devices: Devices of the predicted costs.
        about: What was run: model, data, settings, versions, sources of the hardware figures.
        folder: Where the files are.
        complete: Whether every format was run.
    """

    rows: list[Row]
    layers: list[LayerError]
    devices: tuple[str, ...]
    about: dict[str, Any]
    folder: Path
    complete: bool

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries by column name."""
        return [row.as_dict(self.devices) for row in self.rows]

    def pareto(self, x: str = "weight_bytes", y: str = "score") -> list[Row]:
        """Return the rows that no other row beats: none has less `x` and as much `y`, or as little `x` and more `y`.

        Rows without a finite `x` or `y` are left out. The result ascends in `x`.

        Args:
            x: Name of a cost column, smaller is better.
            y: Name of a quality column, larger is better.

        Raises:
            ArgumentError: No such column, or one that holds no numbers.
        """
        names = [column.name for column in all_columns(self.devices)]
        for argument, name in (("x", x), ("y", y)):
            if name not in names:
                raise ArgumentError(unknown_name(argument, name, names))
        points = [(record[x], record[y], row) for record, row in zip(self.records(), self.rows, strict=True)]
        if any(isinstance(value, str) for a, b, _ in points for value in (a, b)):
            raise ArgumentError(f"x={x!r}, y={y!r}: both must be columns of numbers.")
        points = [p for p in points if p[0] is not None and p[1] is not None and math.isfinite(p[0] + p[1])]
        points.sort(key=lambda p: (p[0], -p[1]))
        front: list[Row] = []
        best = -math.inf
        for _, quality, row in points:
            if quality > best:
                best = quality
                front.append(row)
        return front

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the rows as CSV, and write them to `path` if given; a missing value is an empty field."""
        return _csv(self.records(), [c.name for c in all_columns(self.devices)], path)

    def layers_to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the errors by layer as CSV, and write them to `path` if given."""
        return _csv([vars(error) for error in self.layers], [f.name for f in fields(LayerError)], path)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return everything as JSON, columns and sources explained, and write it to `path` if given."""
        columns = [vars(column) for column in all_columns(self.devices)]
        rows = [
            record | {"sources": {device: cost.provenance for device, cost in row.costs.items()}}
            for record, row in zip(self.records(), self.rows, strict=True)
        ]
        text = to_json({"about": self.about, "complete": self.complete, "columns": columns, "rows": rows}, 1)
        if path is not None:
            write_atomically(Path(path), text + "\n")
        return text

    def rich_tables(self) -> list[Table]:
        """Return the tables for a terminal: accuracy, then time and energy."""
        from lowp.studies.tables import accuracy_table, cost_table

        costs = [cost_table(self, "time", "ms"), cost_table(self, "energy", "mJ")] if self.devices else []
        return [accuracy_table(self), *costs]

    def table(self, width: int = 120) -> str:
        """Return the tables as plain text."""
        from rich.console import Console

        console = Console(file=io.StringIO(), width=width, color_system=None)
        for table in self.rich_tables():
            console.print(table)
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _csv(records: Sequence[Mapping[str, Any]], names: Sequence[str], path: str | os.PathLike[str] | None) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    if path is not None:
        write_atomically(Path(path), stream.getvalue())
    return stream.getvalue()
