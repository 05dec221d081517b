"""Pictures of the last run: throughput by format, and time by elements, threads, block and table size.

`python -m benchmarks.plots` draws them into build/bench, `python -m benchmarks.page` into docs/images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

#: Colours that stay apart for most eyes (Okabe and Ito), the copy in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#888888"

Points = list[dict[str, Any]]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def by_format(rows: list[dict[str, Any]], path: Path) -> Path:
    """Draw billions of elements per second of every work: lowp with the better output, the copy, the fastest peer."""
    works = list(dict.fromkeys(r["work"] for r in rows))
    figure, axes = _axes(9.0, 1.2 + 0.27 * len(works))
    for i, work in enumerate(works):
        here = [r for r in rows if r["work"] == work and r["status"] == "ok" and r["ns"]]
        ours = [r["ns"] for r in here if r["owner"] == "lowp"]
        copies = [r["ns"] for r in here if r["owner"] == "copy"]
        peers = [r for r in here if r["owner"] not in ("lowp", "lowp.torch", "lowp.jax", "copy")]
        if ours:
            axes.barh(i, 1 / min(ours), color=_COLOURS[0], height=0.7, label="lowp" if i == 0 else None)
        if copies:
            axes.plot(
                [1 / min(copies)] * 2, [i - 0.42, i + 0.42], color=_GREY, lw=2, label="a copy" if i == 0 else None
            )
        if peers:
            peer = min(peers, key=lambda r: float(r["ns"]))
            axes.plot(1 / peer["ns"], i, "D", color=_COLOURS[1], ms=5, label="fastest peer" if i == 0 else None)
            end = max([1 / peer["ns"], *(1 / ns for ns in ours)])
            place = {"xytext": (7, -3), "textcoords": "offset points", "fontsize": 7, "color": _COLOURS[1]}
            axes.annotate(peer["owner"], (end, i), **place)
    axes.set_yticks(range(len(works)), works, fontsize=8)
    axes.set_ylim(len(works) - 0.4, -0.6)
    axes.set_xlabel("billion elements per second")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return _save(figure, path)


def _lines(points: Points, kind: str) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for p in points:
        if p["kind"] == kind:
            found.setdefault(p["line"], []).append((p["at"], p["ns"]))
    return {line: sorted(values) for line, values in found.items()}


def by_axis(points: Points, kind: str, heading: str, path: Path, log_y: bool = False) -> Path:
    """Draw ns/element along one axis; a copy that was timed at one place is a level line."""
    figure, axes = _axes(7.5, 4.5)
    lines = _lines(points, kind)
    colours = iter(_COLOURS)
    for line, values in lines.items():
        if line == "copy" and len(values) == 1:
            axes.axhline(values[0][1], color=_GREY, lw=1.5, ls="--", label="copy")
            continue
        style = {"color": _GREY, "ls": "--"} if line == "copy" else {"color": next(colours)}
        axes.plot(*zip(*values, strict=True), marker="o", ms=3.5, lw=1.6, label=line, **style)
    ticks = sorted({at for values in lines.values() for at, _ in values})
    if kind != "threads":
        axes.set_xscale("log", base=10 if kind == "size" else 2)
    if kind in ("block", "table"):
        axes.set_xticks(ticks, [f"{t}" for t in ticks], fontsize=8)
        axes.minorticks_off()
    if kind == "threads":
        axes.set_xticks(ticks)
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(heading)
    axes.set_ylabel("ns per element")
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, path)


#: Name of the picture, kind of point, words below the axis, whether times are on a logarithmic axis.
SCALING = (
    ("performance_sizes.png", "size", "elements", True),
    ("performance_threads.png", "threads", "threads, 2^24 elements", False),
    ("performance_blocks.png", "block", "elements that share a scale, 2^24 elements", False),
    ("performance_tables.png", "table", "values of the format, 2^24 elements", False),
)


def draw(rows: list[dict[str, Any]], points: Points, folder: Path) -> list[Path]:
    """Draw everything there is data for."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [by_format(rows, folder / "performance_formats.png")] if rows else []
    for name, kind, heading, log_y in SCALING:
        if any(p["kind"] == kind for p in points):
            made.append(by_axis(points, kind, heading, folder / name, log_y))
    return made


def main() -> int:
    """Draw the last run into build/bench."""
    folder = Path("build/bench")
    files = [folder / name for name in ("results.json", "scaling.json")]
    results, scaled = (json.loads(f.read_text()) if f.exists() else {} for f in files)
    for path in draw(results.get("rows", []), scaled.get("points", []), folder):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
