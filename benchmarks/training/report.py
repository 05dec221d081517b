"""From the records of the runs to tables, sentences and plots."""

from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.training.settings import ORDER, RECIPES
from scipy import stats

Records = list[dict[str, Any]]


def gaps(records: Records, world: str, name: str) -> np.ndarray:
    """Return the held-out loss of a recipe less that of float32, per seed."""
    loss = {(r["recipe"], r["seed"]): r["held_out"] for r in records if r["world"] == world}
    seeds = sorted(s for n, s in loss if n == name and ("float32", s) in loss)
    return np.array([loss[name, s] - loss["float32", s] for s in seeds])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval (Student's t over the seeds)."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(half)


def table(records: Records, world: str) -> str:
    """Return loss gaps as a Markdown table."""
    lines = [
        "| recipe | held-out loss | gap to float32 | 95 % interval | seconds/run | |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, what in RECIPES.items():
        mine = [r for r in records if r["world"] == world and r["recipe"] == name]
        if not mine:
            continue
        mean, half = interval(gaps(records, world, name))
        loss, seconds = np.mean([r["held_out"] for r in mine]), np.mean([r["seconds"] for r in mine])
        gap = ("", "") if name == "float32" else (f"{mean:+.4f}", f"±{half:.4f}")
        lines.append(f"| {name} | {loss:.4f} | {gap[0]} | {gap[1]} | {seconds:.0f} | {what} |")
    return "\n".join(lines)


def order(records: Records) -> list[str]:
    """Say for each pair that the papers rank whether the seeds show it: the paired difference and its interval."""
    sentences = []
    for better, worse in ORDER:
        first, second = gaps(records, "torch", better), gaps(records, "torch", worse)
        if not len(first) or len(first) != len(second):
            continue
        mean, half = interval(second - first)
        shown = "shown" if mean - half > 0 else "reversed" if mean + half < 0 else "not shown at this scale"
        sentences.append(f"- {better} before {worse}: {mean:+.4f} ±{half:.4f} nats, {shown}.")
    return sentences


def agreement(records: Records) -> list[str]:
    """Compare the runs in JAX with those in torch: same start, same batches, other arithmetic order."""
    sentences = []
    for name in RECIPES:
        pairs = {r["seed"]: r for r in records if r["world"] == "jax" and r["recipe"] == name}
        torch_runs = {r["seed"]: r for r in records if r["world"] == "torch" and r["recipe"] == name}
        seeds = sorted(pairs.keys() & torch_runs.keys())
        if not seeds:
            continue
        difference = np.array([pairs[s]["held_out"] - torch_runs[s]["held_out"] for s in seeds])
        spread = np.std([torch_runs[s]["held_out"] for s in seeds], ddof=1) if len(seeds) > 1 else float("nan")
        sentences.append(
            f"- {name}: JAX less torch {np.mean(difference):+.4f}, largest {np.abs(difference).max():.4f}; "
            f"torch's own spread over seeds {spread:.4f}."
        )
    return sentences


def smooth(losses: list[float], width: int = 20) -> np.ndarray:
    """Return the running mean of a loss curve."""
    return np.convolve(losses, np.ones(width) / width, mode="valid")


def plot(out: Path, records: Records) -> None:
    """Draw the gaps with their intervals, and the loss curves of both worlds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [n for n in RECIPES if n != "float32" and len(gaps(records, "torch", n))]
    figure, axes = plt.subplots(figsize=(8, 0.38 * len(names) + 1.2), layout="constrained")
    for y, name in enumerate(names):
        values = gaps(records, "torch", name)
        mean, half = interval(values)
        axes.errorbar(mean, y, xerr=half, fmt="o", color="C0", capsize=3)
        axes.plot(values, np.full(len(values), y), ".", color="0.6", zorder=0)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlabel("held-out loss less float32's, nats (mean, 95 % interval; dots: seeds)")
    figure.savefig(out / "gaps.png", dpi=150)
    plt.close(figure)
    worlds = [w for w in ("torch", "jax") if any(r["world"] == w for r in records)]
    figure, panels = plt.subplots(1, len(worlds), figsize=(6 * len(worlds), 4), layout="constrained", squeeze=False)
    for panel, world in zip(panels[0], worlds, strict=True):
        for i, name in enumerate(n for n in RECIPES if any(r["recipe"] == n and r["world"] == world for r in records)):
            curves = [smooth(r["losses"]) for r in records if r["world"] == world and r["recipe"] == name]
            panel.plot(np.mean(curves, axis=0), label=name, color=f"C{i % 10}", linestyle=["-", "--"][i // 10 % 2])
        panel.set(title=world, xlabel="step", ylabel="training loss (running mean)", yscale="log")
        panel.legend(fontsize=7)
    figure.savefig(out / "curves.png", dpi=150)
    plt.close(figure)


def write(out: Path, facts: dict[str, Any], records: Records) -> str:
    """Write report and plots; return the report."""
    parts = ["# Training a small GPT", "", f"{facts}", "", "## torch", "", table(records, "torch")]
    if sentences := order(records):
        parts += ["", "The order that the papers report, seed by seed:", "", *sentences]
    if any(r["world"] == "jax" for r in records):
        parts += ["", "## JAX", "", table(records, "jax"), "", *agreement(records)]
    report = "\n".join(parts) + "\n"
    (out / "report.md").write_text(report)
    if any(r["recipe"] != "float32" for r in records):
        plot(out, records)
    return report
