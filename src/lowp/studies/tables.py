"""Tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lowp.studies.metrics import Interval

if TYPE_CHECKING:
    from rich.table import Table

    from lowp.studies.results import Row, StudyResult


def number(value: float | None, digits: int, missing: str = "–") -> str:
    """Return a number with fixed digits, or a dash where there is none."""
    return missing if value is None else f"{value:.{digits}f}"


def span(interval: Interval | None, factor: float) -> str:
    """Return "value (low–high)" in three significant digits, in another unit.

    Example:
        >>> span(Interval(0.00123, 0.001, 0.0015), 1e3)
        '1.23 (1.00–1.50)'
    """
    if interval is None:
        return "–"
    value, low, high = (significant(x * factor) for x in (interval.value, interval.low, interval.high))
    return f"{value} ({low}–{high})"


def significant(x: float) -> str:
    """Return a positive number in three significant digits without an exponent."""
    whole = len(str(int(abs(x)))) if abs(x) >= 1 else 0
    return f"{x:.{max(0, 3 - whole) if whole else 3}f}"


def label(row: Row) -> str:
    """Return the shortest name that tells a row from the others: weights, and activations where they are quantized."""
    if row.mode == "reference":
        return "float32"
    if row.activations == "float32":
        return row.weights
    return f"{row.weights} × {row.activations}" if row.activations != row.weights else f"{row.weights} × same"


def accuracy_table(result: StudyResult) -> Table:
    """Return what each format keeps of the model."""
    table = _table(f"Accuracy of {result.about['model']}", _caption(result))
    headings = ["bits per\nvalue", "weights\nMB", "SQNR dB\nworst", "\nmedian"]
    scored = any(row.score is not None for row in result.rows)
    measured = any(row.cosine_mean is not None for row in result.rows)
    headings += ["inputs dB\nworst", "cosine\nmean", "\nmin"] if measured else []
    headings += [f"{result.about['score']}\n(95 % interval)"] if scored else []
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in result.rows:
        cells = [label(row), number(row.bits_per_value, 3), number(row.weight_bytes / 1e6, 2)]
        cells += [number(row.sqnr_worst_db, 1), number(row.sqnr_median_db, 1)]
        if measured:
            cells += [number(row.activation_sqnr_worst_db, 1), number(row.cosine_mean, 4), number(row.cosine_min, 4)]
        if scored:
            interval = f" ({number(row.score_low, 3)}–{number(row.score_high, 3)})" if row.score_low is not None else ""
            cells.append(number(row.score, 3) + interval)
        table.add_row(*cells)
    return table


def cost_table(result: StudyResult, quantity: str, unit: str) -> Table:
    """Return the predicted "time" (in ms) or "energy" (in mJ) of each format on each device."""
    rows = f"{result.about['batch_rows']:,} rows of activations"
    title = f"Predicted {quantity} of all matrix products on {rows}, {unit} (low–high)"
    table = _table(title, "estimates; the report names their sources")
    for device in result.devices:
        table.add_column(device, justify="right", no_wrap=True)
    for row in result.rows:
        costs = [row.costs.get(device) for device in result.devices]
        table.add_row(label(row), *(span(getattr(cost, quantity, None), 1e3) for cost in costs))
    return table


def _table(title: str, caption: str) -> Table:
    """Return an empty table with the column of formats."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.caption_justify = "left"
    table.add_column("format", no_wrap=True)
    return table


def _caption(result: StudyResult) -> str:
    failed = [f"{label(row)}: {row.notes}" for row in result.rows if row.notes]
    unfinished = [] if result.complete else ["Not finished; run again to resume."]
    legend = ["a alone: weights only, inputs of the products stay float32. a × b: weights in a, inputs in b."]
    names = result.about["not_quantized"]
    left = [f"Not quantized: {', '.join(names)}."] if names else []
    return "\n".join(legend + left + unfinished + failed)
