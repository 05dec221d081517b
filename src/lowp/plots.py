"""Pictures of formats: their values on a line, and the error of rounding into them. Needs matplotlib (lowp[plots])."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lowp._errors import ArgumentError, FileError, FormatError, unknown_name
from lowp.formats import Block, Float, Format, Packed, ScalarFormat, parse
from lowp.formats.spec import finite_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["number_line", "picture", "rounding_error", "save"]

NORMAL, SUBNORMAL, SPECIAL = "#1f5a94", "#d9731a", "#7a7a7a"
SCALES = ("linear", "log")
MAX_BITS = 16
_HALF_HEIGHT = 0.28  # of a value's stroke; rows are 1 apart
_SUFFIXES = (".png", ".pdf", ".svg")


def number_line(formats: Any, ax: Axes | None = None, scale: str = "linear") -> Axes:
    """Draw the finite values of formats as strokes on a line, one row per format.

    Values of full precision are blue, subnormals orange, zero a dot; infinities are arrows at the ends, and NaN is
    named at the right. A block format is shown by its elements, which its scales stretch.

    Args:
        formats: A format or a name, or a list of them; at most 16 bits each.
        ax: Where to draw; default a new figure.
        scale: "linear", or "log" for the positive values on an axis of powers of two.

    Returns:
        The axes.

    Raises:
        FormatError: A name is not known, or a format has more than 16 bits.
        ArgumentError: The scale is not known, or there is no format.
    """
    if scale not in SCALES:
        raise ArgumentError(unknown_name("scale", scale, SCALES))
    shown = _formats(formats)
    ax = _axes(ax, height=1.0 + 0.7 * len(shown))
    for row, (_, fmt) in enumerate(shown):
        _draw_row(ax, fmt, -row, scale)
    ax.set_yticks([-row for row in range(len(shown))], [label for label, _ in shown])
    ax.set_ylim(0.55 - len(shown), 0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "right", "top"]].set_visible(False)
    if scale == "log":
        ax.set_xscale("log", base=2)
    else:
        ax.margins(x=0.04)
    _legend(ax, [fmt for _, fmt in shown])
    return ax


def rounding_error(
    formats: Any,
    low: float | None = None,
    high: float | None = None,
    ax: Axes | None = None,
    points: int = 4000,
    rounding: str = "ties_to_even",
    overflow: str = "saturate",
) -> Axes:
    """Draw the relative error |q - x| / x of rounding x > 0 into formats, over a range of x.

    One format is drawn point by point; of several, so that they can be told apart, the largest error within an octave.

    Args:
        formats: A scalar format or a name, or a list of them.
        low: Smallest x; default half the smallest positive value of all the formats.
        high: Largest x; default four times the largest value.
        ax: Where to draw; default a new figure.
        points: Number of x, evenly spaced in log x.
        rounding: A deterministic or stochastic rounding mode.
        overflow: An overflow mode.

    Returns:
        The axes.

    Raises:
        FormatError: A name is not known, or names a block format, whose error depends on the neighbours in the block.
        ArgumentError: The range is empty or not positive, or there is no format.
    """
    from lowp.rounding import quantize

    shown = [(label, fmt) for label, fmt in _formats(formats, blocks=False) if fmt.max > 0]
    low = min((fmt.smallest_subnormal for _, fmt in shown), default=1.0) / 2 if low is None else low
    high = 4 * max((fmt.max for _, fmt in shown), default=1.0) if high is None else high
    if not 0 < low < high < math.inf:
        raise ArgumentError(f"low={low!r}, high={high!r}: the range must be positive, finite and not empty.")
    x = np.exp2(np.linspace(math.log2(low), math.log2(high), points))
    ax = _axes(ax, height=3.2)
    for label, fmt in shown:
        with np.errstate(invalid="ignore"):
            error = np.abs(quantize(x, fmt, rounding=rounding, overflow=overflow) - x) / x
        if len(shown) > 1:
            error = _largest_nearby(error, round(points / math.log2(high / low)))
        width = 1.0 if len(shown) == 1 else 1.8
        ax.plot(x, np.where(error > 0, error, np.nan), linewidth=width, label=label, alpha=0.9)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_ylim(2.0**-12, 2)
    ax.set_xlabel("x")
    ax.set_ylabel("relative error" if len(shown) == 1 else "largest relative error in an octave")
    ax.grid(alpha=0.25)
    ax.spines[["right", "top"]].set_visible(False)
    if len(shown) > 1:
        ax.legend(frameon=False, fontsize="small")
    return ax


def _largest_nearby(values: np.ndarray, window: int) -> np.ndarray:
    """Return the maximum of a window around each value."""
    window = max(1, min(window | 1, values.size - 1 + values.size % 2))  # odd, so that it has a middle
    padded = np.pad(values, window // 2, mode="edge")
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, window).max(axis=-1))


def picture(fmt: str | Format) -> Figure:
    """Return one figure of a format: number lines, linear and logarithmic, and the error of rounding.

    Args:
        fmt: A format of at most 16 bits or its name; a block format is shown by its elements.

    Raises:
        FormatError: The name is unknown, or the format has more than 16 bits.
    """
    from matplotlib.figure import Figure

    ((label, scalar),) = _formats(parse(fmt))
    figure = Figure(figsize=(10, 6), layout="constrained")
    linear, log, error = figure.subplots(3, 1, height_ratios=(1, 1, 1.7))
    number_line(scalar, linear)
    if scalar.max > 0:
        number_line(scalar, log, scale="log")
        rounding_error(scalar, ax=error)
        error.set_xlim(log.get_xlim())
    else:
        log.set_axis_off()
        error.set_axis_off()
    if log.get_legend():
        log.get_legend().remove()
    for ax, text in ((linear, "all values"), (log, "positive values"), (error, "")):
        ax.set_yticks([], []) if ax is not error else None
        ax.set_title(text, loc="left", fontsize="small", color=SPECIAL)
    figure.suptitle(label, x=0.01, ha="left", fontweight="bold")
    return figure


def save(figure: Figure | Axes, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file; the suffix picks the kind: .png, .pdf or .svg.

    Args:
        figure: A figure, or axes on it.
        path: The file; an old one is replaced only when the new one is whole.

    Returns:
        The path.

    Raises:
        FileError: The file cannot be written.
        ArgumentError: The suffix is not known.
    """
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise ArgumentError(f"path={str(path)!r} must end in one of: {', '.join(_SUFFIXES)}.")
    whole = figure if hasattr(figure, "savefig") else figure.figure
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        whole.savefig(temporary, dpi=150)  # type: ignore[union-attr]
        temporary.replace(target)
    except OSError as error:
        raise FileError(f"path={str(path)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # of a folder that is none, the first error says enough
            temporary.unlink()
    return target


def _formats(formats: Any, blocks: bool = True) -> list[tuple[str, ScalarFormat]]:
    """Return labels and scalar formats of one format or several."""
    given = [formats] if isinstance(formats, str | Format) else list(formats)
    if not given:
        raise ArgumentError("formats=[] is empty; at least one format is needed.")
    return [_scalar(parse(fmt), blocks) for fmt in given]


def _scalar(fmt: Format, blocks: bool) -> tuple[str, ScalarFormat]:
    scalar, label = fmt, fmt.name
    if isinstance(fmt, Packed) and blocks:
        raise FormatError(f"format={fmt.name!r} has no number line: what its values are depends on the block.")
    if isinstance(fmt, Block) and blocks:
        scalar, label = fmt.element, f"{fmt.name}, elements"
    if not isinstance(scalar, ScalarFormat):
        raise FormatError(f"format={fmt.name!r} is a block format: the error of a number depends on its whole block.")
    if blocks and scalar.bits > MAX_BITS:
        raise FormatError(f"format={fmt.name!r} has 2^{scalar.bits} codes; a number line shows at most 2^{MAX_BITS}.")
    return label, scalar


def _axes(ax: Axes | None, height: float) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(10, height), layout="constrained")[1]


def _draw_row(ax: Axes, fmt: ScalarFormat, y: float, scale: str) -> None:
    values = np.array([float(v) for v in finite_values(fmt) if float(v) >= fmt.min])
    values = values[values > 0] if scale == "log" else values
    if not values.size:
        return
    subnormal = (np.abs(values) < fmt.smallest_normal) & (values != 0)
    width = 1.4 if values.size <= 64 else 0.8
    ax.hlines(y, values.min(), values.max(), color=SPECIAL, linewidth=0.6, zorder=1)
    for chosen, color in ((~subnormal & (values != 0), NORMAL), (subnormal, SUBNORMAL)):
        ax.vlines(values[chosen], y - _HALF_HEIGHT, y + _HALF_HEIGHT, color=color, linewidth=width, zorder=2)
    if scale == "linear" and fmt.has_zero:
        ax.plot(0, y, "o", color="black", markersize=4, zorder=3)
    _draw_specials(ax, fmt, y, values, scale)


def _draw_specials(ax: Axes, fmt: ScalarFormat, y: float, values: np.ndarray, scale: str) -> None:
    """Mark infinities as arrows at the ends; name all special codes at the right."""
    ends = [(values.max(), "▶", 7)] + ([(values.min(), "◀", -7)] if fmt.signed and scale == "linear" else [])
    for x, arrow, shift in ends if fmt.has_infinity else []:
        align = "left" if shift > 0 else "right"
        offset = {"xytext": (shift, 0), "textcoords": "offset points", "va": "center", "ha": align}
        ax.annotate(f"{arrow}∞" if shift > 0 else f"∞{arrow}"[::-1], (x, y), color=SPECIAL, fontsize=9, **offset)  # type: ignore[arg-type]
    words = ["NaN"] * fmt.has_nan + ["−0"] * fmt.has_negative_zero
    if words:
        place = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
        ax.annotate(", ".join(words), (1.01, y), color=SPECIAL, fontsize=8, **place)  # type: ignore[arg-type]


def _legend(ax: Axes, formats: Sequence[ScalarFormat]) -> None:
    if not any(isinstance(fmt, Float) and fmt.subnormals for fmt in formats):
        return
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=color, linewidth=2) for color in (NORMAL, SUBNORMAL)]
    labels = ["normal", "subnormal"]
    ax.legend(marks, labels, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
