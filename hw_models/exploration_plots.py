"""Pictures of explorations: fronts with intervals, area against error, rooflines with formats. Needs matplotlib."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lowp._errors import ArgumentError, unknown_name
from lowp.formats import parse
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.exploration import Exploration
from lowp.hw_models.exploration_costs import product_plan, read_workload
from lowp.hw_models.exploration_points import METRICS, Point
from lowp.hw_models.explore import explore
from lowp.hw_models.plot_labels import drawn_unit, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colour, marker size and layer of each standing.
_STANDINGS = {
    "surely optimal": ("#0b3c6f", 42, 5),
    "optimal": ("#0072B2", 42, 4),
    "possibly optimal": ("#E69F00", 22, 3),
    "dominated": ("#b5b5b5", 12, 2),
}
#: Okabe and Ito's colours, told apart with any kind of colour vision, and markers that repeat the distinction.
_STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#555555", "X"),
)
#: Families that are compared at equal bits of their elements, in blocks of 32: with a scale that is a power of two, but
#: for NF4, which is made for scales that bring the largest number to 1.
FAMILIES: dict[str, dict[int, tuple[str, ...]]] = {
    "integer": {4: ("int4_sym",), 6: ("int6_sym",), 8: ("int8_sym",)},
    "float": {
        4: ("e1m2f", "e2m1f", "e3m0f"),
        6: ("e1m4f", "e2m3f", "e3m2f", "e4m1f"),
        8: ("e2m5f", "e3m4f", "e4m3fn", "e5m2"),
    },
    "posit": {
        4: ("posit4_es0", "posit4_es1"),
        6: ("posit6_es0", "posit6_es1"),
        8: ("posit8_es0", "posit8_es1", "posit8_es2"),
    },
    "logarithmic": {4: ("lns4_f1",), 6: ("lns6_f2", "lns6_f3"), 8: ("lns8_f3", "lns8_f4")},
    "codebook": {4: ("nf4_g32_bf16",), 6: (), 8: ()},
}
_MOST_LABELS = 12


def plot_front(
    found: Exploration, x: str | None = None, y: str | None = None, ax: Axes | None = None, labels: bool = True
) -> Axes:
    """Draw the points of an exploration in two metrics, with their intervals and the Pareto front.

    Colours say how a point stands in all objectives; knees have a ring. The line is the front of the two metrics drawn.

    Args:
        found: The exploration.
        x: Metric along; default the first objective.
        y: Metric upwards; default the second objective.
        ax: Where to draw; default a new figure.
        labels: Whether to name the knees and some of the front.

    Returns:
        The axes.

    Raises:
        ArgumentError: Fewer than two metrics, or one that no point has.
    """
    names = [name for name in (x, y) if name] + [name for name in found.objectives if name not in (x, y)]
    if len(names) < 2:
        raise ArgumentError(f"objectives={list(found.objectives)!r}: a front needs two metrics, x and y.")
    across, along = (x or names[1 if y == names[0] else 0]), (y or names[1])
    known = {name for p in found for name in p.metrics}
    for name in (across, along):
        if name not in known:
            raise ArgumentError(unknown_name("metric", name, sorted(known)))
    drawn = [p for p in found if across in p.metrics and along in p.metrics]
    ax = _axes(ax)
    scales = [_scale(drawn, name) for name in (across, along)]
    for standing, (color, size, layer) in _STANDINGS.items():
        _points(
            ax,
            [p for p in drawn if found.standings.get(p.id) == standing],
            (across, along),
            scales,
            color,
            size,
            layer,
            standing,
        )
    _points(
        ax, [p for p in drawn if p.id not in found.standings], (across, along), scales, "#e0e0e0", 10, 1, "not compared"
    )
    directions = {name: found.objectives.get(name, METRICS.get(name, ("min",))[0]) for name in (across, along)}
    front = Exploration(tuple(drawn), directions).front()
    spots = {p.id: _spot(p, (across, along), scales) for p in drawn}
    if front:
        ax.plot(*zip(*(spots[p.id] for p in front), strict=True), color="black", lw=0.9, zorder=3, label="front")
    knees = [p for p in found.knees() if p.id in spots]
    if knees:
        columns, rows = zip(*(spots[p.id] for p in knees), strict=True)
        ax.scatter(
            columns, rows, s=130, facecolors="none", edgecolors="#D55E00", linewidths=1.4, zorder=6, label="knee"
        )
    for axis, name, scale in zip("xy", (across, along), scales, strict=True):
        _label_axis(ax, axis, name, scale, directions[name], [p.metrics[name].value for p in drawn])
    ax.legend(frameon=False, fontsize="small")
    if labels:
        chosen = _chosen(knees, front)
        place_labels(ax, [(_short(p, found), spots[p.id]) for p in chosen], list(spots.values()))
    return ax


def plot_area_against_error(
    target: str = "n7",
    lanes: int = 32,
    tensors: Any = None,
    families: Mapping[str, Mapping[int, Sequence[str]]] | None = None,
    bits: Sequence[int] = (4, 6, 8),
) -> Figure:
    """Draw the area of dot units against the error of their formats, a panel for each width of the elements.

    Args:
        target: Technology of the units.
        lanes: Products per step.
        tensors: What errors are measured on, as `hw.explore` takes them; default normal weights and activations,
            64 x 1024 of each.
        families: By family and bits, names of element formats, which are put in blocks of 32 with a scale that is a
            power of two; or of block formats, which are taken as they are. Default: integers, floats, posits,
            logarithms, and NF4.
        bits: The panels.

    Returns:
        The figure; `lowp.plots.save` writes it.

    Raises:
        ArgumentError: The target is unknown, or nothing is left to draw.
    """
    from matplotlib.figure import Figure

    chosen = FAMILIES if families is None else families
    figure = Figure(figsize=(4.3 * len(bits), 4.4), layout="constrained")
    panels = figure.subplots(1, len(bits), squeeze=False)[0]
    sample = _normal() if tensors is None else tensors
    for ax, width in zip(panels, bits, strict=True):
        _draw_families(ax, {name: of.get(width, ()) for name, of in chosen.items()}, target, lanes, sample)
        ax.set_title(f"{width}-bit elements", fontsize="medium")
    panels[0].set_ylabel("relative mean squared error of the product")
    handles = {label: handle for ax in panels for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(f"Area against error: dot units of {lanes} lanes, {target}; bars from low to high")
    _label_when_placed(figure, panels)
    return figure


def plot_roofline(
    device: str | Device, formats: Iterable[Any], workload: Any, out: Any = "bfloat16", ax: Axes | None = None
) -> Axes:
    """Draw a device's roofline with what a workload's products attain in several formats.

    A roof for each dtype that is multiplied in; a mark for each product and format, with its interval. A format with
    fewer bits moves marks to the right, one with a faster dtype has a higher roof.

    Args:
        device: A GPU.
        formats: Formats, or (activations, weights) pairs of them.
        workload: As `hw.explore` takes it.
        out: Format of the results.
        ax: Where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ArgumentError: As `hw.gemm`.
    """
    machine = find_device(device)
    products, _ = read_workload(workload)
    pairs: list[tuple[Any, Any]] = [f if isinstance(f, tuple) else (f, f) for f in formats]
    if not pairs or not products:
        raise ArgumentError("formats and workload must not be empty.")
    ax = _axes(ax)
    roofs: dict[str, float] = {}
    spots: list[tuple[float, float]] = []
    for index, pair in enumerate(pairs):
        plans = [product_plan(op, *pair, out, machine) for op in products]
        color, marker = _STYLES[index % len(_STYLES)]
        roofs |= {p.compute: machine.peak(p.compute) for p in plans}
        names = dict.fromkeys(parse(f).name for f in pair)
        spots += _attained(ax, plans, color, marker, f"{' x '.join(names)}, multiplied in {plans[0].compute}")
    _roofs(ax, roofs, machine, spots)
    ax.set_xlabel("operations per byte moved")
    ax.set_ylabel("operations per second")
    ax.set_title(f"{machine.title}: what the products attain in each format", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", loc="lower right")
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(figsize=(8, 5.2), layout="constrained")[1]
    ax.spines[["right", "top"]].set_visible(False)
    ax.grid(alpha=0.25)
    return ax


def _scale(points: Sequence[Point], name: str) -> tuple[str, float]:
    """Return the unit a metric is drawn in, and the factor to it."""
    units = {p.metrics[name].unit for p in points}
    unit = units.pop() if len(units) == 1 else ""
    return drawn_unit(unit, [p.metrics[name].value for p in points])


def _spot(p: Point, names: tuple[str, str], scales: Sequence[tuple[str, float]]) -> tuple[float, float]:
    """Return where a point is drawn."""
    (x, y), ((_, across), (_, along)) = names, scales
    return p.metrics[x].value * across, p.metrics[y].value * along


def _points(
    ax: Axes,
    points: Sequence[Point],
    names: tuple[str, str],
    scales: Sequence[tuple[str, float]],
    color: str,
    size: int,
    layer: int,
    label: str,
    marker: str = "o",
) -> None:
    if not points:
        return
    ends = [
        np.array([p.metrics[name][:3] for p in points]) * scale for name, (_, scale) in zip(names, scales, strict=True)
    ]
    bars = [
        np.abs(np.stack([e[:, 0] - e[:, 1], e[:, 2] - e[:, 0]])) if (e[:, 1] < e[:, 2]).any() else None for e in ends
    ]
    faint = {"dominated": 0.25, "possibly optimal": 0.3}.get(label, 0.6)
    ax.errorbar(
        ends[0][:, 0],
        ends[1][:, 0],
        bars[1],
        bars[0],
        fmt="none",
        ecolor=color,
        elinewidth=0.8,
        alpha=faint,
        zorder=layer,
    )
    ax.scatter(ends[0][:, 0], ends[1][:, 0], s=size, color=color, marker=marker, zorder=layer, label=label)


def _label_axis(
    ax: Axes, axis: str, name: str, scale: tuple[str, float], direction: str, values: Sequence[float]
) -> None:
    unit = f", {scale[0]}" if scale[0] else ""
    getattr(ax, f"set_{axis}label")(
        f"{name.replace('_', ' ')}{unit} ({'lower' if direction == 'min' else 'higher'} is better)"
    )
    finite = [v for v in values if math.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) > 4 * min(finite):
        _log_axis(ax, axis)


def _log_axis(ax: Axes, axis: str) -> None:
    """Make an axis logarithmic, with ticks in plain numbers, densely enough for a range of less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(ax, f"set_{axis}scale")("log")
    low, high = getattr(ax, f"get_{axis}lim")()
    subs = (1, 1.5, 2, 3, 4, 6) if high / low < 8 else (1, 2, 5) if high / low < 100 else (1,)
    which = getattr(ax, f"{axis}axis")
    which.set_major_locator(LogLocator(base=10, subs=subs))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_formatter(NullFormatter())


def _chosen(knees: Sequence[Point], front: Sequence[Point]) -> list[Point]:
    """Return the knees, the ends of the front, and points evenly spread over it."""
    spread = [front[round(i)] for i in np.linspace(0, len(front) - 1, min(len(front), _MOST_LABELS))] if front else []
    return list({p.id: p for p in [*knees[:3], *spread]}.values())[:_MOST_LABELS]


def _short(p: Point, found: Exploration) -> str:
    """Name a point without the machine if there is but one."""
    several = len({q.machine for q in found}) > 1
    name = p.name if several or not p.machine else p.name.removesuffix(f" on {p.machine}")
    return re.sub(r"float\d+_(u?e\d)", r"\1", name).replace("e8m0fnu", "e8m0")


def _normal() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"weights": rng.standard_normal((64, 1024)), "activations": rng.standard_normal((64, 1024))}


def _draw_families(ax: Axes, families: Mapping[str, Sequence[str]], target: str, lanes: int, tensors: Any) -> None:
    spots: list[tuple[str, tuple[float, float]]] = []
    for (family, elements), (color, marker) in zip(families.items(), _STYLES, strict=False):
        if not elements:
            continue
        formats = {_in_blocks(name): name for name in elements}
        found = explore(
            {"formats": list(formats), "units": [target], "lanes": lanes},
            None,
            ["area", "error"],
            tensors=tensors,
            progress=False,
        )
        names = dict(zip((parse(f).name for f in formats), formats.values(), strict=True))
        scales = [_scale(found.compared, "area"), ("", 1.0)]
        _points(ax, found.compared, ("area", "error"), scales, color, 36, 3, family, marker)
        spots += [
            (names[p.weights], (p.metrics["area"].value * scales[0][1], p.metrics["error"].value))
            for p in found.compared
        ]
        ax.set_xlabel(f"area, {scales[0][0]}")
    _log_axis(ax, "x")
    _log_axis(ax, "y")
    ax.spines[["right", "top"]].set_visible(False)
    ax.grid(alpha=0.25)
    ax._lowp_labels = spots  # type: ignore[attr-defined]  # noqa: SLF001 - placed once the layout is final


def _in_blocks(name: str) -> str:
    return name if parse(name).kind == "block" else f"block[{name},32,e8m0]"


def _label_when_placed(figure: Figure, panels: Sequence[Axes]) -> None:
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in panels:
        spots = ax._lowp_labels  # type: ignore[attr-defined]  # noqa: SLF001
        place_labels(ax, spots, [spot for _, spot in spots])


def _attained(ax: Axes, plans: Sequence[Any], color: str, marker: str, label: str) -> list[tuple[float, float]]:
    spots = []
    for index, one in enumerate(plans):
        operations = 2 * one.multiply_adds
        x, y = operations / one.bytes_moved, operations / one.time.value
        low, high = operations / one.time.high, operations / one.time.low if one.time.low else y
        ax.errorbar(
            x,
            y,
            [[y - low], [high - y]],
            fmt=marker,
            color=color,
            elinewidth=0.9,
            ms=6,
            label="" if index else label,
            zorder=4,
        )
        spots.append((x, y))
    return spots


def _roofs(ax: Axes, roofs: Mapping[str, float], machine: Device, spots: Sequence[tuple[float, float]]) -> None:
    left = min(x for x, _ in spots) / 3
    right = 3 * max([x for x, _ in spots] + [max(roofs.values()) / machine.bandwidth])
    for dtype, peak in roofs.items():
        corner = peak / machine.bandwidth
        ax.plot(
            [min(left, corner), corner, right],
            [min(left, corner) * machine.bandwidth, peak, peak],
            color="black",
            lw=1.1,
            zorder=2,
        )
        alike = [name for name, other in roofs.items() if other == peak]
        if alike[0] == dtype:  # one label for roofs that coincide
            text, at = ", ".join(alike), (right, peak)
            ax.annotate(text, at, (-2, 2), textcoords="offset points", ha="right", va="bottom", fontsize=8.5)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(left, right)
    middle = math.sqrt(left * max(roofs.values()) / machine.bandwidth)
    text = f"memory, {machine.bandwidth / 1e12:.3g} TB/s"
    at = (middle, middle * machine.bandwidth)
    ax.annotate(text, at, (-8, 4), textcoords="offset points", ha="right", va="bottom", fontsize=8.5)
