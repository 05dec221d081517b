"""A picture of where table lookup stops paying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lowp._errors import ArgumentError
from lowp.hw_models.cpu_cores import CpuCore, cpu_core
from lowp.hw_models.lut_break_even import instructions_per_weight, lut_break_even
from lowp.hw_models.lut_engine import LutEngine, lut_engine

_TABLE, _MULTIPLY = "#1f5a94", ("#d9731a", "#8a5a9c", "#4f8a5b", "#7a7a7a")
MAX_BITS = 8


def plot_lut_break_even(
    core: str | CpuCore = "m2_ultra",
    engine: str | LutEngine = "t_mac",
    unpack: Sequence[float] = (1.0, 3.0),
    ax: Any = None,
) -> Any:
    """Draw the SIMD instructions per weight of table lookup against bits, and of unpacking and multiplying.

    Where the rising line crosses a level one, both take as long; the band is the interval of the additions that a table
    instruction needs.

    Args:
        core: A CPU or its name; only its instruction set counts.
        engine: A bit-serial engine or its name.
        unpack: Unpacking instructions per multiply-add instruction, one line each.
        ax: Where to draw; default a new figure.

    Returns:
        The axes.

    Raises:
        ArgumentError: As `lut_break_even`, or `unpack` is empty.
    """
    if not unpack:
        raise ArgumentError("unpack is empty; allowed: at least one number.")
    found, how = cpu_core(core), lut_engine(engine)
    crossings = [lut_break_even(u, found, how) for u in unpack]
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    bits = [0.0, float(MAX_BITS)]
    ends = [instructions_per_weight(b, found, how)[0] for b in bits]
    ax.fill_between(bits, [e.low for e in ends], [e.high for e in ends], color=_TABLE, alpha=0.15, linewidth=0)
    ax.plot(bits, [e.value for e in ends], color=_TABLE, linewidth=2, label=f"{how.title}: table lookup")
    for place, (u, crossing) in enumerate(zip(unpack, crossings, strict=True)):
        level = instructions_per_weight(1, found, how, u)[1].value
        colour = _MULTIPLY[place % len(_MULTIPLY)]
        ax.plot(bits, [level, level], color=colour, linewidth=2, label=f"multiply, {u:g} unpacking instructions each")
        if crossing.value <= MAX_BITS:
            ax.plot([crossing.value], [level], "o", color=colour, markersize=7, zorder=3)
            words = f"{crossing.value:.1f} bits"
            place_at = {"xytext": (8, -14), "textcoords": "offset points", "color": colour, "fontsize": 9}
            ax.annotate(words, (crossing.value, level), **place_at)
    ax.set_xlim(0, MAX_BITS)
    ax.set_ylim(0, 1.35 * max(ax.dataLim.y1, 0.01))  # room for the legend
    ax.set_xlabel("bits per weight")
    ax.set_ylabel("SIMD instructions per weight and token")
    ax.set_title(f"{found.title}: tables win left of the dots", fontsize=10, loc="left")
    ax.grid(alpha=0.25)
    ax.spines[["right", "top"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax
