"""The two figures of a study: accuracy against cost, and error by layer and format."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec

from lowp.studies.tables import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lowp.studies.results import LayerError, Row, StudyResult

P = ParamSpec("P")

#: Okabe and Ito's colours, told apart with any kind of colour vision; markers repeat the distinction.
FAMILY_STYLES = {
    "float": ("#0072B2", "o"),
    "block float": ("#D55E00", "s"),
    "block integer": ("#009E73", "^"),
    "fixed point": ("#CC79A7", "D"),
    "integer": ("#56B4E9", "P"),
    "codebook": ("#E69F00", "v"),
    "other": ("#555555", "X"),
}
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}
DPI = 130
#: Cosines closer to 1 than this are drawn at this distance: float32 embeddings do not tell them apart.
SMALLEST_DISTANCE = 1e-7
#: SQNR from which the heat map no longer tells colours apart, dB; more is never what limits a model here.
BRIGHTEST_DB = 45.0


def _styled(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """Draw in this module's style and leave the caller's matplotlib settings alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> bytes:
        from matplotlib import rc_context

        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


@dataclass(frozen=True)
class _Axis:
    """A column to draw, in the unit and on the scale it is drawn in."""

    column: str
    text: str
    factor: float = 1.0
    #: Draw 1 - value on a logarithmic, inverted axis: up stays better.
    distance_to_one: bool = False

    def drawn(self, value: float) -> float:
        return max(1 - value, SMALLEST_DISTANCE) if self.distance_to_one else value * self.factor


def accuracy_cost(result: StudyResult) -> bytes:
    """Return the figure of accuracy against storage and predicted time as PNG; see `_accuracy_figure`."""
    return _accuracy_figure(result, "time")


def accuracy_energy(result: StudyResult) -> bytes:
    """Return the figure of accuracy against storage and predicted energy as PNG; see `_accuracy_figure`."""
    return _accuracy_figure(result, "energy")


@_styled
def _accuracy_figure(result: StudyResult, quantity: str) -> bytes:
    """Draw each measure of accuracy (a row) against storage and the cost on each device (a column).

    Bars are intervals: bootstrap for the score, low to high for predictions. The line is the Pareto front.
    """
    column, text = {"time": ("time_s", "predicted time, ms"), "energy": ("energy_j", "predicted energy, mJ")}[quantity]
    measures = _measures(result)
    costs = [("storage, exact", _Axis("bits_per_value", "bits per weight, scales included"))]
    costs += [(device.upper(), _Axis(f"{device}_{column}", text, 1e3)) for device in result.devices]
    figure = _figure(4.3 * max(2, len(costs)), 0.9 + 4.0 * len(measures))
    panels = figure.subplots(len(measures), len(costs), squeeze=False, sharex="col", sharey="row")
    for line, measure in enumerate(measures):
        for panel, (title, cost) in zip(panels[line], costs, strict=True):
            _scatter(panel, result, cost, measure)
            panel.set_title(title if line == 0 else "")
            panel.set_xlabel(cost.text if line == len(measures) - 1 else "")
        panels[line, 0].set_ylabel(measure.text)
        if measure.distance_to_one:
            panels[line, 0].invert_yaxis()
    _legend(figure, result)
    rows = f" of all matrix products on {result.about['batch_rows']:,} rows of activations" if result.devices else ""
    figure.suptitle(f"{result.about['model']}: accuracy against {quantity if rows else 'storage'}{rows}")
    _label_fronts(figure, panels, result, measures, [cost for _, cost in costs])
    return _png(figure)


def _measures(result: StudyResult) -> list[_Axis]:
    measures = []
    if any(row.score is not None for row in result.rows):
        measures.append(_Axis("score", f"{result.about['score']}, 95 % interval"))
    if any(row.cosine_mean is not None for row in result.rows):
        measures.append(_Axis("cosine_mean", "1 − cosine with the float32 model, mean", distance_to_one=True))
    return measures or [_Axis("sqnr_median_db", "SQNR of the weights, median, dB")]


def _points(result: StudyResult, x: _Axis, y: _Axis) -> dict[int, tuple[float, float]]:
    """Return the place of each row that has one, by the row's id."""
    points = {}
    for row, record in zip(result.rows, result.records(), strict=True):
        if row.mode == "reference" and (x.column == "bits_per_value" or y.distance_to_one):
            continue  # far to the right of all, or at minus infinity
        if _drawable(record[x.column], record[y.column]):
            points[id(row)] = (x.drawn(record[x.column]), y.drawn(record[y.column]))
    return points


def _front(result: StudyResult, x: _Axis, y: _Axis, points: dict[int, tuple[float, float]]) -> list[Row]:
    rows = [row for row in result.rows if id(row) in points]
    return replace(result, rows=rows).pareto(x.column, y.column)


def _scatter(axes: Axes, result: StudyResult, x: _Axis, y: _Axis) -> None:
    """Draw every row, with bars where there are intervals, and the Pareto front."""
    points = _points(result, x, y)
    for row, record in zip(result.rows, result.records(), strict=True):
        if id(row) not in points:
            continue
        color, marker = FAMILY_STYLES.get(row.family, FAMILY_STYLES["other"])
        if row.mode == "reference":
            color, marker = "black", "*"
        face = "white" if row.activations == "float32" and row.mode != "reference" else color
        across, along = _bar(record, x), None if y.distance_to_one else _bar(record, y)
        axes.errorbar(*points[id(row)], along, across, fmt="none", ecolor=color, elinewidth=0.8, alpha=0.3)
        axes.plot(*points[id(row)], marker=marker, ms=6.5, mec=color, mfc=face, mew=1.3, ls="none", zorder=3)
    front = [points[id(row)] for row in _front(result, x, y, points)]
    if front:
        axes.step(*zip(*front, strict=True), where="post", color="black", lw=1.1, zorder=2)
    axes.set_xscale("log")
    if y.distance_to_one:
        axes.set_yscale("log")
        axes.minorticks_off()
    _plain_ticks(axes)
    axes.margins(x=0.1, y=0.2)


def _label_fronts(
    figure: Figure, panels: Any, result: StudyResult, measures: Sequence[_Axis], costs: Sequence[_Axis]
) -> None:
    """Label the Pareto fronts once the layout is final: a label's place depends on the size of its panel."""
    from lowp.hw_models.plot_labels import place_labels

    figure.canvas.draw()
    figure.set_layout_engine("none")
    for line, measure in zip(panels, measures, strict=True):
        for axes, cost in zip(line, costs, strict=True):
            points = _points(result, cost, measure)
            front = _front(result, cost, measure, points)
            place_labels(axes, [(label(row), points[id(row)]) for row in front], list(points.values()))


def _drawable(*values: Any) -> bool:
    return all(v is not None and math.isfinite(v) for v in values)


def _bar(record: dict[str, Any], axis: _Axis) -> list[list[float]] | None:
    value, low, high = (record.get(f"{axis.column}{end}") for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return None
    return [[max(0.0, value - low) * axis.factor], [max(0.0, high - value) * axis.factor]]


def _plain_ticks(axes: Axes) -> None:
    """Label a logarithmic axis in plain numbers, densely enough for its range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    subs = (1, 1.5, 2, 3, 4, 6) if high / low < 8 else (1, 2, 4) if high / low < 40 else (1, 3)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, result: StudyResult) -> None:
    from matplotlib.lines import Line2D

    def key(color: str, marker: str, face: str, text: str) -> Line2D:
        return Line2D([], [], ls="none", marker=marker, mec=color, mfc=face, mew=1.3, ms=7, label=text)

    present = {row.family for row in result.rows if row.mode != "reference"}
    keys = [key("black", "*", "black", "float32 model")]
    keys += [key(c, m, c, family) for family, (c, m) in FAMILY_STYLES.items() if family in present]
    keys += [key("#555555", "o", "white", "hollow: weights only")]
    if any(row.mode == "weights+activations" for row in result.rows):
        keys += [key("#555555", "o", "#555555", "filled: weights × activations")]
    keys += [Line2D([], [], color="black", lw=1.2, label="Pareto front, labelled")]
    keys += [Line2D([], [], color="#555555", lw=0.8, alpha=0.5, label="low to high")]
    figure.legend(handles=keys, loc="outside lower center", ncols=6, frameon=False)


@_styled
def layer_error(result: StudyResult) -> bytes:
    """Return the heat map of SQNR by layer and format as PNG: weights, and inputs where they were quantized."""
    tables = [("weights", _heat(result.layers, weights=True)), ("inputs", _heat(result.layers, weights=False))]
    tables = [(name, table) for name, table in tables if table[2]]
    layers = max((len(table[0]) for _, table in tables), default=1)
    widths = [max(4, len(table[1])) for _, table in tables] or [4]
    figure = _figure(3.2 + 0.34 * sum(widths) + 1.2 * len(widths), min(22, 2.8 + 0.23 * layers))
    panels = figure.subplots(1, max(1, len(tables)), squeeze=False, width_ratios=widths)[0]
    for index, (axes, (name, table)) in enumerate(zip(panels, tables, strict=False)):
        _heat_panel(figure, axes, f"SQNR of the {name}, dB", table, show_layers=index == 0)
    figure.suptitle(f"{result.about['model']}: error by layer and format (darker is worse)")
    return _png(figure)


def _heat(errors: Sequence[LayerError], weights: bool) -> tuple[list[str], list[str], list[list[float]]]:
    """Return layers, formats (best median first) and SQNR[layer][format]."""
    import statistics

    columns: dict[str, dict[str, float]] = {}
    for error in errors:
        value = error.weight_sqnr_db if weights else error.activation_sqnr_db
        if value is not None:
            columns.setdefault(error.weights if weights else error.activations, {}).setdefault(error.layer, value)
    formats = sorted(columns, key=lambda name: -statistics.median(columns[name].values()))
    layers = list(dict.fromkeys(error.layer for error in errors))
    grid = [[columns[name].get(layer, math.nan) for name in formats] for layer in layers]
    return layers, formats, grid if formats else []


def _heat_panel(
    figure: Figure, axes: Axes, title: str, table: tuple[list[str], list[str], list[list[float]]], show_layers: bool
) -> None:
    import numpy as np

    layers, formats, grid = table
    values = np.ma.masked_invalid(np.array(grid, dtype=float))
    top = min(BRIGHTEST_DB, float(values.max())) if values.count() else 1.0
    bottom = min(0.0, float(values.min())) if values.count() else 0.0
    top = max(top, bottom + 1)
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=bottom, vmax=top, interpolation="none")
    axes.set_title(title, fontsize=11)
    axes.set_xticks(range(len(formats)), formats, rotation=60, ha="right", rotation_mode="anchor", fontsize=8.5)
    step = max(1, math.ceil(len(layers) / 80))
    names = short_names(layers)[::step] if show_layers else [""] * len(layers[::step])
    axes.set_yticks(range(0, len(layers), step), names, fontsize=8.5)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if len(layers) <= 60 and len(formats) <= 30:
        _write_values(axes, values, bottom, top)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, shrink=0.6, extend="max")


def _write_values(axes: Axes, values: Any, low: float, high: float) -> None:
    import numpy as np

    for i, j in np.ndindex(values.shape):
        if values[i, j] is not np.ma.masked:
            dark = (values[i, j] - low) / (high - low) < 0.6
            color = "white" if dark else "black"
            axes.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=6.5, color=color)


def short_names(names: Sequence[str]) -> list[str]:
    """Return dotted names without the parts that all of them begin with, or end with.

    Example:
        >>> short_names(["model.0.query.weight", "model.1.query.weight", "model.1.key.weight"])
        ['0.query', '1.query', '1.key']
    """
    split = [name.split(".") for name in names]
    if len(split) < 2:
        return list(names)
    start = _shared(split)
    end = _shared([parts[start:][::-1] for parts in split])
    return [".".join(parts[start : len(parts) - end]) for parts in split]


def _shared(split: Sequence[Sequence[str]]) -> int:
    """Return how many leading parts all have in common; at least one part of each is left."""
    most = min(map(len, split)) - 1
    return next((i for i in range(most) if len({parts[i] for parts in split}) > 1), max(0, most))


def _figure(width: float, height: float) -> Figure:
    """Return a figure that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
