"""The report: one HTML file with everything in it, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

from lowp.studies.columns import COLUMNS, TAIL, cost_columns
from lowp.studies.findings import findings
from lowp.studies.plots import accuracy_cost, accuracy_energy, layer_error
from lowp.studies.store import write_atomically
from lowp.studies.tables import label, number, span

if TYPE_CHECKING:
    from lowp.studies.results import Row, StudyResult


def write_report(result: StudyResult) -> None:
    """Write accuracy_cost.png, accuracy_energy.png, layer_error.png and report.html into the study's folder."""
    images = {"accuracy_cost": accuracy_cost(result), "layer_error": layer_error(result)}
    if result.devices:
        images["accuracy_energy"] = accuracy_energy(result)
    for name, image in images.items():
        write_atomically(result.folder / f"{name}.png", image)
    write_atomically(result.folder / "report.html", render(result, images))


def render(result: StudyResult, images: dict[str, bytes]) -> str:
    """Return the report as HTML; `images` are PNG files by name."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lowp.studies"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        about=result.about,
        complete=result.complete,
        devices=result.devices,
        findings=findings(result),
        head=_head(result),
        rows=[_cells(row, result) for row in result.rows],
        images={name: base64.b64encode(data).decode() for name, data in images.items()},
        columns=(*COLUMNS, *cost_columns(["DEVICE"]), *TAIL),
        sources=_sources(result),
    )


def _head(result: StudyResult) -> list[tuple[str, str]]:
    """Return (heading, unit or hint) of each column of the report's table."""
    score = [(result.about["score"], "95 % interval"), ("change", "95 % interval")] if result.about["score"] else []
    head = [("weights", ""), ("activations", ""), ("bits", "per weight"), ("matrices", "MB"), ("model", "MB")]
    head += [("SQNR worst", "dB"), ("SQNR median", "dB"), ("inputs worst", "dB"), ("cosine", "mean"), ("cosine", "min")]
    head += score
    for device in result.devices:
        head += [(f"{device.upper()} time", "ms, low–high"), (f"{device.upper()} energy", "mJ, low–high")]
    return head


def _cells(row: Row, result: StudyResult) -> list[tuple[str, Any]]:
    """Return (text, value to sort by) of each cell."""
    cells: list[tuple[str, Any]] = [(row.weights, row.weights), (row.activations, row.activations)]
    for value, digits in (
        (row.bits_per_value, 3),
        (row.weight_bytes / 1e6, 2),
        (row.model_bytes / 1e6, 2),
        (row.sqnr_worst_db, 1),
        (row.sqnr_median_db, 1),
        (row.activation_sqnr_worst_db, 1),
        (row.cosine_mean, 4),
        (row.cosine_min, 4),
    ):
        cells.append((number(value, digits), _sortable(value)))
    if result.about["score"]:
        cells.append((_with_interval(row.score, row.score_low, row.score_high, ""), _sortable(row.score)))
        change = _with_interval(row.score_change, row.score_change_low, row.score_change_high, "+")
        cells.append((change, _sortable(row.score_change)))
    for device in result.devices:
        cost = row.costs.get(device)
        for interval in (cost.time, cost.energy) if cost else (None, None):
            cells += [(span(interval, 1e3), _sortable(interval.value if interval else None))]
    return cells


def _with_interval(value: float | None, low: float | None, high: float | None, sign: str) -> str:
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def _sortable(value: float | None) -> float:
    """Return a number for the browser; missing values and minus infinity sort first."""
    return -1e300 if value is None or math.isnan(value) else max(-1e299, min(1e299, value))


def _sources(result: StudyResult) -> list[tuple[str, list[str], list[str]]]:
    """Return, per device, what many of its predictions are made from, and what belongs to single formats."""
    sources = []
    for device in result.devices:
        used: dict[str, list[str]] = {}
        rows = [row for row in result.rows if device in row.costs]
        for row in rows:
            for part in filter(None, row.costs[device].provenance.split("; ")):
                used.setdefault(part, []).append(label(row))
        shared = [f"{part} [{_few(names, len(rows))}]" for part, names in used.items() if len(names) > 1]
        single = [f"{names[0]}: {part}" for part, names in used.items() if len(names) == 1]
        sources.append((device.upper(), shared, single))
    return sources


def _few(names: list[str], total: int) -> str:
    """Return names as a short list."""
    if len(names) == total:
        return "all"
    return ", ".join(names) if len(names) <= 8 else f"{len(names)} of {total} lines of the table"
