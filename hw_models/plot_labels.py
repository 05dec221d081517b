"""Labels in a plot: of points, placed where they cover little, and the units of axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Spot = tuple[float, float]
_SMALL = {"p": 1e-12, "n": 1e-9, "µ": 1e-6, "m": 1e-3, "": 1.0}
#: What metrics are drawn in, the smallest unit first, by the unit they have.
_UNITS = {
    "m2": {"µm²": 1e-12},
    "s": {f"{prefix}s": size for prefix, size in _SMALL.items()},
    "J": {f"{prefix}J": size for prefix, size in _SMALL.items()},
    "B": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
}


def drawn_unit(unit: str, values: Iterable[float]) -> tuple[str, float]:
    """Return the unit that values are drawn in, the largest that is not above all of them, and the factor to it.

    Example:
        >>> drawn_unit("s", [0.002, 0.0005])
        ('ms', 1000.0)
    """
    largest = max(filter(math.isfinite, values), default=0.0)
    known = _UNITS.get(unit, {unit: 1.0})
    fitting = [label for label, size in known.items() if size <= largest][-1:] or list(known)[:1]
    return fitting[0], 1 / known[fitting[0]]


def place_labels(ax: Axes, labels: Sequence[tuple[str, Spot]], points: Sequence[Spot]) -> None:
    """Write each label near its point, where it covers no other label and few points, with a thin leader.

    Args:
        ax: Axes whose limits and size are final.
        labels: Texts and the points they belong to, in data coordinates.
        points: All points.
    """
    ax.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    transform = ax.transData.transform
    dots: Any = transform(points) if points else []
    taken: list[Any] = []
    for text, position in labels:
        note = ax.annotate(
            text,
            position,
            (0, 0),
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=8,
            zorder=8,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "black", "shrinkA": 0, "shrinkB": 3},
        )
        size = _size(note)
        spot, box = _free_spot(transform(position), size, ax.get_window_extent(), dots, taken)
        note.set_position(spot)
        taken.append(box)


def _size(note: Any) -> Spot:
    from matplotlib.text import Text

    extent = Text.get_window_extent(note)  # of the text alone; an annotation's own includes its leader
    return extent.width, extent.height


def _free_spot(point: Any, size: Spot, frame: Any, dots: Any, taken: Sequence[Any]) -> tuple[Spot, Any]:
    """Return the offset of a label's centre from its point, in pixels, and the label's box there."""
    from matplotlib.transforms import Bbox

    def spots() -> Iterator[tuple[float, Spot, Any]]:
        for distance in range(10, 130, 10):
            for step in range(16):
                angle = math.pi * (0.25 + step / 8)
                dx = math.cos(angle) * (distance + size[0] / 2)
                dy = math.sin(angle) * (distance + size[1] / 2)
                box = Bbox.from_bounds(point[0] + dx - size[0] / 2, point[1] + dy - size[1] / 2, *size)
                inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
                covered = sum(bool(box.padded(3).contains(*dot)) for dot in dots)
                overlaps = any(box.padded(2).overlaps(other) for other in taken)
                yield 1000 * overlaps + 500 * (not inside) + 20 * covered + distance, (dx, dy), box

    _, spot, box = min(spots(), key=lambda s: s[0])
    return spot, box
