"""Pictures of explorations show every point once, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lowp import hw
from lowp._errors import ArgumentError, Error

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _no_windows() -> Any:
    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture(scope="module")
def found() -> hw.Exploration:
    formats = hw.grid("block[e{e}m{m}f,32,{scale}]", e=[1, 2, 3], m=[1, 2, 3], scale=["e8m0", "bf16"])
    sample = np.random.default_rng(0).standard_normal((16, 128))
    space = {"formats": formats, "units": ["n7"], "devices": ["b200"]}
    return hw.explore(space, [(64, 512, 512)], ["area", "error"], tensors=sample, progress=False)


def marks(ax: Any) -> dict[str, np.ndarray]:
    named = [c for c in ax.collections if hasattr(c, "get_offsets") and not c.get_label().startswith("_")]
    return {c.get_label(): np.asarray(c.get_offsets()) for c in named}


def test_every_point_is_drawn_by_its_standing(found: hw.Exploration) -> None:
    ax = found.plot()
    drawn = marks(ax)
    knees = drawn.pop("knee", np.empty((0, 2)))
    assert sum(map(len, drawn.values())) == len(found.compared) == 18
    for standing, spots in drawn.items():
        areas = sorted(p.metrics["area"].value * 1e12 for p in found.compared if found.standings[p.id] == standing)
        assert sorted(spots[:, 0]) == pytest.approx(areas)
    assert len(knees) == len(found.knees())
    (line,) = [line for line in ax.lines if line.get_label() == "front"]
    assert list(line.get_ydata()) == [p.metrics["error"].value for p in found.front()]
    assert "µm²" in ax.get_xlabel()


def test_intervals_are_drawn(found: hw.Exploration) -> None:
    ax = found.plot()
    segments = [s for c in ax.collections if hasattr(c, "get_segments") for s in c.get_segments()]
    ends = [list(s[:, 0]) for s in segments if s[0][1] == s[1][1]]
    expected = [[p.metrics["area"].low * 1e12, p.metrics["area"].high * 1e12] for p in found.compared]
    assert np.array(sorted(ends)) == pytest.approx(np.array(sorted(expected)))


def test_other_metrics_can_be_drawn(found: hw.Exploration) -> None:
    ax = found.plot("time", "sqnr")
    assert ax.get_xlabel() == "time, µs (lower is better)"
    assert ax.get_ylabel() == "sqnr, dB (higher is better)"
    assert sum(map(len, marks(ax).values())) == 18
    for wrong in (("area", "tyme"), ("cost", None)):
        with pytest.raises(ArgumentError):
            found.plot(*wrong)
    with pytest.raises(ArgumentError, match="two metrics"):
        hw.explore(["fp8"], None, ["bits"], progress=False).plot()


def test_area_against_error_has_a_panel_for_each_width(tmp_path: Path) -> None:
    sample = {"weights": np.random.default_rng(0).standard_normal((8, 128))}
    families = {"integer": {4: ["int4_sym"], 8: ["int8_sym"]}, "float": {4: ["e2m1f"], 8: ["e4m3fn", "nvfp4"]}}
    figure = hw.plot_area_against_error("sky130", 16, sample, families, bits=(4, 8))
    assert [ax.get_title() for ax in figure.axes] == ["4-bit elements", "8-bit elements"]
    assert [sum(map(len, marks(ax).values())) for ax in figure.axes] == [2, 3]
    cost = hw.dot_unit("block[int4_sym,32,e8m0]", lanes=16, target="sky130").area.value * 1e12
    assert marks(figure.axes[0])["integer"][0, 0] == pytest.approx(cost)
    texts = {text.get_text() for text in figure.axes[1].texts}
    assert texts == {"int8_sym", "e4m3fn", "nvfp4"}
    target = tmp_path / "area.png"
    figure.savefig(target)
    assert target.stat().st_size > 10_000
    with pytest.raises(Error):
        hw.plot_area_against_error("n8")


def test_a_roofline_has_a_roof_per_dtype_and_a_mark_per_product() -> None:
    work = [(1, 4096, 4096), (4096, 4096, 4096)]
    ax = hw.plot_roofline("b200", ["bfloat16", "fp8", ("bfloat16", "int4_g128")], work)
    assert {text.get_text() for text in ax.texts} == {"bfloat16", "fp8", "memory, 7.7 TB/s"}
    peaks = sorted(line.get_ydata()[-1] for line in ax.lines if len(line.get_ydata()) == 3)
    device = hw.device("b200")
    assert peaks == [device.peak("bfloat16"), device.peak("fp8")]
    points = [line for line in ax.lines if len(line.get_ydata()) == 1]
    assert len(points) == 6
    time = hw.gemm(4096, 4096, 4096, "fp8", "fp8", device="b200").value
    assert any(line.get_ydata()[0] == pytest.approx(2 * 4096**3 / time) for line in points)
    for line in points:  # nothing lies above the roof
        x, y = line.get_xdata()[0], line.get_ydata()[0]
        assert y <= min(x * device.bandwidth, max(peaks))
    with pytest.raises(ArgumentError, match="empty"):
        hw.plot_roofline("b200", [], work)


def test_figures_can_be_saved(found: hw.Exploration, tmp_path: Path) -> None:
    from lowp.plots import save

    assert save(found.plot(), tmp_path / "front.svg").read_text().startswith("<?xml")


def test_roofs_that_coincide_share_a_label() -> None:
    ax = hw.plot_roofline("h100", ["int8", "bfloat16", "fp8"], [(64, 4096, 4096)])
    assert [text.get_text() for text in ax.texts if "memory" not in text.get_text()] == ["int8, fp8", "bfloat16"]


def test_axes_are_in_units_that_suit_the_numbers() -> None:
    small, large = (
        hw.explore({"formats": "fp8", "devices": "h100"}, work, ["time", "size"], progress=False).plot()
        for work in ([(8, 8, 8)], [(8192, 8192, 8192, 100)])
    )
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in (small, large)]
    assert [(x[: x.index(" (")], y[: y.index(" (")]) for x, y in labels] == [
        ("time, µs", "size, B"),
        ("time, ms", "size, GB"),
    ]
