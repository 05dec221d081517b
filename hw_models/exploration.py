"""What an exploration found: a table of points, the Pareto front with intervals, knees, and why."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lowp._errors import ArgumentError, ArgumentTypeError, FileError, unknown_name
from lowp.hw_models.exploration_points import METRICS, Metric, Point
from lowp.hw_models.grids import Skipped
from lowp.hw_models.pareto import STANDINGS, knees, standings


@dataclass(frozen=True)
class Exploration:
    """The points of an exploration, in the order of the space.

    Attributes:
        points: One per candidate and machine.
        objectives: By metric, whether "min" or "max" is better.
        skipped: Combinations of parameters that are no format.
        repeated: Combinations that gave a format which was there already.
        resumed: Points that were read from the store, not computed.
    """

    points: tuple[Point, ...]
    objectives: Mapping[str, str]
    skipped: tuple[Skipped, ...] = ()
    repeated: int = 0
    resumed: int = 0

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    @cached_property
    def compared(self) -> tuple[Point, ...]:
        """The points that have every objective, which alone can be compared."""
        return tuple(p for p in self.points if all(name in p.metrics for name in self.objectives))

    @cached_property
    def incomplete(self) -> tuple[Point, ...]:
        """The points that lack an objective: a model refused them, or their machine has no such metric."""
        kept = {p.id for p in self.compared}
        return tuple(p for p in self.points if p.id not in kept)

    @cached_property
    def failed(self) -> tuple[Skipped, ...]:
        """The points of which something could not be found out, each with its reason."""
        return tuple(Skipped(p.name, p.reason) for p in self.points if p.reason)

    @cached_property
    def _groups(self) -> list[list[Point]]:
        """The points that have every objective, those together whose objectives have the same units."""
        groups: dict[tuple[str, ...], list[Point]] = {}
        for p in self.compared:
            groups.setdefault(tuple(p.metrics[name].unit for name in self.objectives), []).append(p)
        return list(groups.values())

    def _matrix(self, points: Sequence[Point], part: int = 0) -> np.ndarray:
        """Return values (0), better ends (1) or worse ends (2) of the objectives; smaller is better."""
        rows = []
        for p in points:
            row = []
            for name, direction in self.objectives.items():
                ends = p.metrics[name][:3]
                row.append(ends[part] if direction == "min" else -ends[(0, 2, 1)[part]])
            rows.append(row)
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.objectives))

    @cached_property
    def standings(self) -> dict[str, str]:
        """How each point that can be compared stands, by its id: see `hw.STANDINGS`.

        Intervals are independent of each other, but for those of units on one target, whose coefficients are the same.
        """
        found: dict[str, str] = {}
        for group in self._groups:
            value, better, worse = (self._matrix(group, part) for part in range(3))
            one_target = [p.machine if p.kind == "unit" else None for p in group]  # priced by the same coefficients
            names = standings(value, better, worse, one_target)
            found |= {p.id: name for p, name in zip(group, names, strict=True)}
        return found

    def front(self, at_least: str = "optimal") -> list[Point]:
        """Return the Pareto front, by the first objective.

        Points whose objectives have different units have fronts of their own, one after the other.

        Args:
            at_least: "surely optimal": only points that no other dominates, wherever in their intervals the truth lies;
                "optimal": those that none dominates by the best guesses; "possibly optimal": all but those that one
                dominates wherever the truth lies.

        Raises:
            ArgumentError: Another standing.
        """
        allowed = list(STANDINGS)[:3]
        if at_least not in allowed:
            raise ArgumentError(unknown_name("at_least", at_least, allowed))
        kept = allowed[: allowed.index(at_least) + 1]
        found: list[Point] = []
        for group in self._groups:
            order = np.lexsort(self._matrix(group).T[::-1])
            found += [group[i] for i in order if self.standings[group[i].id] in kept]
        return found

    def knees(self) -> list[Point]:
        """Return the knees of the front, sharpest first; see `hw.knees`."""
        return [group[i] for group in self._groups for i in knees(self._matrix(group))]

    def where(self, **wanted: Any) -> Exploration:
        """Return the points with given properties, which are then compared among themselves.

        Args:
            **wanted: Attributes of `Point` and their values, such as machine="h100".

        Raises:
            ArgumentError: A point has no such attribute, or no point has these.
        """
        known = [name for name in Point.__dataclass_fields__ if name not in ("metrics",)]
        for name in wanted:
            if name not in known:
                raise ArgumentError(unknown_name("where", name, known))
        points = tuple(p for p in self.points if all(getattr(p, k) == v for k, v in wanted.items()))
        if not points:
            raise ArgumentError(f"no point has {', '.join(f'{k}={v!r}' for k, v in wanted.items())}.")
        return replace(self, points=points)

    def by(self, **objectives: str) -> Exploration:
        """Return the same points compared by other objectives.

        Args:
            **objectives: By metric, "min" or "max": `time="min", sqnr="max"`.

        Raises:
            ArgumentError: A metric that no point has, or a direction other than "min" and "max".
        """
        return replace(self, objectives=checked_objectives(objectives, {n for p in self.points for n in p.metrics}))

    def why(self, point: Point, metric: str | None = None) -> str:
        """Say what a point's metrics are made of: the largest share of each way to divide them.

        Args:
            point: One of the points.
            metric: One metric; default all objectives that are made of something.

        Raises:
            ArgumentError: The point has no such metric.
            ArgumentTypeError: `point` is none.

        Example:
            >>> from lowp.hw_models.explore import explore
            >>> found = explore({"formats": ["fp8"], "devices": ["h100"]}, [(1, 4096, 4096, 32)], ["time"])
            >>> print(found.why(found.points[0]))
            float8_e4m3fn on h100
              time ... us (... to ... us): launch 100 %
        """
        _check_point(point)
        if metric is not None and metric not in point.metrics:
            raise ArgumentError(unknown_name("metric", metric, point.metrics))
        lines = [point.name]
        for name in [metric] if metric else [n for n in self.objectives if n in point.metrics]:
            found = point.metrics[name]
            parts = "; ".join(_largest(of) for of in found.shares.values() if of) or found.bound
            lines.append(f"  {name} {_amount(found)}" + (f": {parts}" if parts else ""))
        return "\n".join([*lines, *([f"  {point.reason}"] if point.reason else [])])

    def dominant(self, point: Point, metric: str) -> str:
        """Return the name of the largest part of a metric: what bounds it, or the block or product that dominates it.

        Raises:
            ArgumentError: The point has no such metric, or it is not divided.
            ArgumentTypeError: `point` is none.
        """
        _check_point(point)
        if metric not in point.metrics:
            raise ArgumentError(unknown_name("metric", metric, point.metrics))
        shares = next((of for of in point.metrics[metric].shares.values() if of), {})
        if not shares and not point.metrics[metric].bound:
            raise ArgumentError(f"metric={metric!r} of {point.name} is not divided into parts.")
        return max(shares, key=lambda name: shares[name]) if shares else point.metrics[metric].bound

    def records(self) -> list[dict[str, Any]]:
        """Return flat rows: formats, machine, every metric with its interval, unit, bound, provenance and shares."""
        return [p.record() | {"standing": self.standings.get(p.id, "not compared")} for p in self.points]

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write `records` to a file; an old one is replaced only when the new one is whole.

        Raises:
            FileError: The file cannot be written.
        """
        rows = self.records()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, columns)
                writer.writeheader()
                writer.writerows(rows)
            temporary.replace(target)
        except OSError as error:
            raise FileError(f"path={str(path)!r} cannot be written: {error.strerror or error}.") from error
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def plot(self, x: str | None = None, y: str | None = None, ax: Any = None) -> Any:
        """Draw the points and the front in two metrics; see `hw.plot_front`."""
        from lowp.hw_models.exploration_plots import plot_front

        return plot_front(self, x, y, ax)

    def table(self, points: Sequence[Point] | None = None) -> str:
        """Return points as text, a line each: objectives with intervals and how they stand; default the front."""
        shown = self.front() if points is None else list(points)
        header = ["point", *self.objectives, "standing"]
        lines = [header]
        for p in shown:
            amounts = [_amount(p.metrics[name]) if name in p.metrics else "-" for name in self.objectives]
            lines.append([p.name, *amounts, self.standings.get(p.id, "not compared")])
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def __str__(self) -> str:
        counts = f"{len(self.points)} points, {len(self.skipped)} combinations skipped, {self.repeated} repeated"
        lacking = f"{len(self.incomplete)} without every objective"
        return f"{counts}, {lacking}\n{self.table()}"


def checked_objectives(given: Any, known: set[str] | None) -> dict[str, str]:
    """Return objectives by metric, with their directions.

    Args:
        given: A metric, a list of them, or a dict from metrics to "min" or "max".
        known: Metrics that there are; None: any name may turn up.

    Raises:
        ArgumentError: None are given, one is unknown, or a direction is neither, or is not known of a caller's metric.
        ArgumentTypeError: Something else than names was given.
    """
    named = {given: None} if isinstance(given, str) else given
    if not isinstance(named, Mapping):
        listed = tuple(named) if isinstance(named, Iterable) else (None,)
        if not all(isinstance(name, str) for name in listed):
            raise ArgumentTypeError(f"objectives={given!r} must be a metric's name, a list of names, or a dict.")
        named = dict.fromkeys(listed)
    if not named:
        raise ArgumentError(f"objectives={given!r} is empty; allowed: at least one metric.")
    found: dict[str, str] = {}
    for name, direction in named.items():
        if known is not None and name not in known:
            raise ArgumentError(unknown_name("objectives", name, sorted(known)))
        chosen = direction if direction is not None else METRICS.get(name, ("",))[0]
        if chosen not in ("min", "max"):
            raise ArgumentError(
                f"objectives[{name!r}]={direction!r} must be 'min' or 'max'; only of {', '.join(METRICS)} is it known."
            )
        found[name] = chosen
    return found


def _check_point(point: Any) -> None:
    if not isinstance(point, Point):
        raise ArgumentTypeError(f"point={point!r} must be one of the points, such as points[0] or front()[0].")


def _amount(metric: Metric) -> str:
    return str(metric).replace(f", {metric.bound})", ")") if metric.bound else str(metric)


def _largest(shares: Mapping[str, float], count: int = 2) -> str:
    largest = sorted(shares.items(), key=lambda item: -item[1])[:count]
    return ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in largest if share >= 0.005)
