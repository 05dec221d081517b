"""Train every recipe and report: `python -m benchmarks.training [RECIPE ...] [--seeds N] [--steps N] [--jobs N]`."""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.training.one_run import run
from benchmarks.training.report import write
from benchmarks.training.settings import JAX_RECIPES, RECIPES, Settings

OUT = Path("build/bench/training")


def report() -> int:
    """Print and write the report and the plots of what is recorded."""
    facts = json.loads((OUT / "records.json").read_text())
    records = facts.pop("records")
    print(write(OUT, facts, records))
    return int(bool(facts["failed"]))


def main() -> int:
    """Train, write the records, the report and the plots; the exit status is 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="*", help=f"which (default all): {', '.join(RECIPES)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at the same time, one core each")
    parser.add_argument("--report", action="store_true", help="train nothing: report what the last run recorded")
    parser.add_argument("--no-jax", action="store_true", help="leave out the runs in JAX")
    options = parser.parse_args()
    if options.report:
        return report()
    if unknown := set(options.recipe) - set(RECIPES):
        parser.error(f"unknown recipe {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    settings = Settings(steps=options.steps)
    wanted = [n for n in RECIPES if not options.recipe or n in options.recipe or n == "float32"]
    runs = [("torch", name, seed) for seed in range(options.seeds) for name in wanted]
    if not options.no_jax:
        runs += [("jax", name, seed) for seed in range(options.seeds) for name in JAX_RECIPES if name in wanted]
    os.environ.update(OMP_NUM_THREADS="1", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false", LOWP_NUM_THREADS="1")
    records: list[dict[str, Any]] = []
    failed: list[str] = []
    start = time.monotonic()
    OUT.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run, *r, settings): r for r in runs}
        for future in as_completed(futures):
            label = " ".join(map(str, futures[future]))
            if error := future.exception():
                failed.append(f"{label}: {type(error).__name__}: {error}")
                print(f"failed: {failed[-1]}", file=sys.stderr)
                continue
            records.append(future.result())
            facts = {"settings": settings.as_dict(), "seconds": round(time.monotonic() - start), "failed": failed}
            (OUT / "records.json").write_text(json.dumps({**facts, "records": records}))
            done = f"{len(records)}/{len(runs)}"
            print(f"{done} {label}: {records[-1]['held_out']:.4f} in {records[-1]['seconds']:.0f} s", file=sys.stderr)
    report()
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
