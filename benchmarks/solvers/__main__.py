"""Solve, report and plot: `python -m benchmarks.solvers [--size N] [--no-jax]`."""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.solvers.numpy_solvers import conjugate_gradients, refine

import lowp

OUT = Path("build/bench/solvers")
FORMATS = {
    "float32": "C0", "float16": "C1", "bfloat16": "C2", "posit16_es1": "C3", "posit16_es2": "C4", "float8_e4m3fn": "C5",
    "float8_e5m2": "C6",
}  # fmt: skip
CONDITIONS = (10.0, 100.0, 1000.0)
STEPS, REFINEMENTS = 60, 15


def system(size: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a symmetric positive definite matrix with geometric eigenvalues, and the right side of x = 1."""
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))
    a = (q * np.geomspace(1, 1 / condition, size)) @ q.T
    a = (a + a.T) / 2
    return a, a @ np.ones(size)


def residuals(a: np.ndarray, b: np.ndarray, iterates: Any) -> list[float]:
    """Return the relative residuals of iterates, computed in float64."""
    with np.errstate(all="ignore"):
        return [float(np.linalg.norm(b - a @ np.asarray(x, float)) / np.linalg.norm(b)) for x in iterates]


def solve(size: int, with_jax: bool) -> list[dict[str, Any]]:
    """Return one record per solver, condition and format."""
    records = []
    for condition in CONDITIONS:
        a, b = system(size, condition)
        for fmt in FORMATS:

            def low(v: np.ndarray, fmt: str = fmt) -> Any:
                return lowp.every_operation(v, fmt)

            runs = {
                "conjugate gradients, NumPy": lambda a=a, b=b, low=low: conjugate_gradients(low(a), low(b), STEPS),
                "iterative refinement": lambda a=a, b=b, low=low: refine(a, b, low, REFINEMENTS),
            }
            if with_jax:
                from benchmarks.solvers import jax_solvers

                runs["conjugate gradients, JAX"] = lambda a=a, b=b, f=fmt: jax_solvers.in_format(a, b, STEPS, f)
            for solver, run in runs.items():
                start = time.perf_counter()
                curve = residuals(a, b, run())
                seconds = time.perf_counter() - start
                record = {"solver": solver, "condition": condition, "format": fmt, "seconds": seconds}
                records.append({**record, "residuals": curve})
    return records


def unit_roundoff(fmt: str) -> float:
    """Return half the spacing at 1."""
    return float(lowp.ulp(lowp.array(1.0, fmt))) / 2


def table(records: list[dict[str, Any]]) -> str:
    """Return the least residual of each run, and in which iteration it came, as a Markdown table."""
    lines = ["| solver | condition | format | condition x u | least residual | at | last |", "| --- " * 7 + "|"]
    for r in records:
        curve = np.array(r["residuals"])
        best = int(np.nanargmin(curve))
        product = r["condition"] * unit_roundoff(r["format"])
        cells = [r["solver"], f"{r['condition']:g}", r["format"], f"{product:.2g}", f"{curve[best]:.1e}", str(best)]
        lines.append(f"| {' | '.join(cells)} | {curve[-1]:.1e} |")
    return "\n".join(lines)


def plot(records: list[dict[str, Any]]) -> None:
    """Draw residual curves: a row of panels per solver, a column per condition."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    solvers = list(dict.fromkeys(r["solver"] for r in records))
    shape = (len(solvers), len(CONDITIONS))
    figure, panels = plt.subplots(*shape, figsize=(12, 3.2 * len(solvers)), layout="constrained", squeeze=False)
    for row, solver in zip(panels, solvers, strict=True):
        for panel, condition in zip(row, CONDITIONS, strict=True):
            for r in records:
                if (r["solver"], r["condition"]) == (solver, condition):
                    panel.semilogy(np.clip(r["residuals"], 1e-17, 1e3), label=r["format"], color=FORMATS[r["format"]])
            panel.set(xlabel="iteration", ylim=(1e-17, 1e3))
            panel.set_title(f"{solver}, condition {condition:g}", fontsize=10)
        row[0].set_ylabel("relative residual")
    panels[0][-1].legend(fontsize=8)
    figure.savefig(OUT / "residuals.png", dpi=130)
    plt.close(figure)


def main() -> int:
    """Solve and write records, table and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--no-jax", action="store_true")
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        records = solve(options.size, not options.no_jax)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "records.json").write_text(json.dumps(records))
    (OUT / "report.md").write_text(f"# Solvers in low precision\n\n{table(records)}\n")
    plot(records)
    print(table(records))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
