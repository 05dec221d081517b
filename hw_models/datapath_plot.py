"""A picture of a datapath: a column for each role, a box for each block, in the order of the data's way."""

from __future__ import annotations

from typing import Any

from lowp.hw_models.blocks import ROLES, Block
from lowp.hw_models.datapath import Datapath

_WIDTH, _HEIGHT, _GAP = 2.6, 0.68, 0.7
#: Fills that print well in grey, by what the role does to numbers.
_COLOURS = {
    "decode": "#dbe7f3",
    "multiply": "#f6d9c4",
    "exponent": "#f6ecc4",
    "linear": "#e4dcf1",
    "align": "#d5ead8",
    "sum": "#cfe3ee",
    "normalise": "#e6eccb",
    "scale": "#f4d7de",
    "accumulate": "#d9d4ee",
    "register": "#e6e6e6",
    "convert": "#f3e3d3",
}


def plot(unit: Datapath, ax: Any = None) -> Any:
    """Draw a datapath; returns the Matplotlib axes.

    Blocks at the edges have dashed frames, registers stand in a row below, and an arrow leads from each role to the
    next.
    """
    import matplotlib.pyplot as plt

    flow = [role for role in ROLES if role != "register" and unit.of_role(role)]
    stored = unit.of_role("register")
    tallest = max((len(unit.of_role(role)) for role in flow), default=1)
    if ax is None:
        width = max(6.0, 1.35 * len(flow) + 0.6)
        _, ax = plt.subplots(figsize=(width, 0.55 * tallest + 1.1 + 0.8 * bool(stored)), layout="constrained")
    step = _WIDTH + _GAP
    for column, role in enumerate(flow):
        blocks = unit.of_role(role)
        left, top = column * step, (tallest + len(blocks)) * _HEIGHT / 2
        ax.text(left + _WIDTH / 2, tallest * _HEIGHT + 0.45, role, ha="center", va="bottom", weight="bold", fontsize=8)
        for row, block in enumerate(blocks):
            _box(ax, block, left, top - (row + 1) * _HEIGHT, _WIDTH)
        if column:
            middle = tallest * _HEIGHT / 2
            arrow = {"arrowstyle": "-|>", "color": "#555555", "lw": 1.0}
            ax.annotate("", (left - 0.06, middle), (left - _GAP + 0.06, middle), arrowprops=arrow)
    span = max(len(flow) * step - _GAP, _WIDTH)
    if stored:
        ax.text(span / 2, -0.62, "registers", ha="center", va="bottom", weight="bold", fontsize=8)
        each = (span + 0.15) / len(stored)
        for column, block in enumerate(stored):
            _box(ax, block, column * each, -1.35, each - 0.15)
    ax.set_xlim(-0.2, span + 0.2)
    ax.set_ylim(-1.55 if stored else -0.2, tallest * _HEIGHT + 0.95)
    ax.set_axis_off()
    ax.set_title(unit.describe().splitlines()[0], fontsize=9)
    return ax


def _box(ax: Any, block: Block, left: float, bottom: float, width: float) -> None:
    from matplotlib.patches import Rectangle

    style = "--" if block.edge else "-"
    frame: dict[str, Any] = {"facecolor": _COLOURS[block.role], "edgecolor": "#444444", "linestyle": style, "lw": 0.8}
    ax.add_patch(Rectangle((left, bottom + 0.04), width, _HEIGHT - 0.08, **frame))
    name = f"{f'{block.count} x ' if block.count > 1 else ''}{block.kind.replace('_', ' ')}"
    sizes = "  ".join(f"{key} {value}" for key, value in block.sizes)
    middle = left + width / 2
    place: dict[str, Any] = {"ha": "center", "va": "center"}
    if block.role == "register":
        name, sizes = block.label, f"{f'{block.count} x ' if block.count > 1 else ''}{block['bits']} bits"
    elif block.label:
        ax.text(middle, bottom + _HEIGHT * 0.22, block.label, fontsize=5.5, color="#666666", **place)
    rows = (0.68, 0.3) if block.role == "register" or not block.label else (0.78, 0.5)
    ax.text(middle, bottom + _HEIGHT * rows[0], name, fontsize=6.4, **place)
    ax.text(middle, bottom + _HEIGHT * rows[1], sizes, fontsize=5.8, color="#333333", **place)
