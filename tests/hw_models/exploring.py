"""What tests of explorations share: functions that processes can be handed, and a run in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from lowp import hw

ROOT = Path(__file__).resolve().parents[2]
WORK = [(512, 1024, 1024, 8), (512, 4096, 1024, 2)]
FORMATS = hw.grid("block[e{e}m{m}f,{size},{scale}]", e=[1, 2, 3], m=[1, 2], size=[16, 32, 64], scale=["e8m0", "bf16"])
SPACE = {"formats": FORMATS, "devices": ["h100", "b200"]}
OBJECTIVES = {"time": "min", "loss": "min"}


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of new processes: JAX, where other tests have loaded it, does not allow forks."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def loss(fmt: Any) -> dict[str, float]:
    """A stand-in for a model: narrower formats lose more."""
    return {"loss": 1 / fmt.bits_per_value + len(fmt.name) * 1e-4}


def slow_loss(fmt: Any, *, calls: str) -> dict[str, float]:
    """The same, slower where PAUSE is set; notes every call in a file."""
    with Path(calls).open("a") as file:
        file.write(fmt.name + "\n")
    time.sleep(float(os.environ.get("PAUSE", "0")))
    return loss(fmt)


def run_and_kill(store: Path, calls: Path, rows_before: int) -> int:
    """Start an exploration in a process of its own, kill it when the store has some rows; return how many it has."""
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {str(ROOT / 'tests' / 'hw_models')!r}]\n"
        "import exploring as e\n"
        "from functools import partial\n"
        "from lowp import hw\n"
        f"loss = partial(e.slow_loss, calls={str(calls)!r})\n"
        f"options = dict(store={str(store)!r}, accuracy=loss, batch=2, progress=False)\n"
        "hw.explore(e.SPACE, e.WORK, e.OBJECTIVES, **options)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PAUSE": "0.1"})
    deadline = time.monotonic() + 120
    while stored(store) < rows_before and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.kill()
    assert child.wait() < 0, "the run ended before it was killed"
    return stored(store)


def stored(store: Path) -> int:
    """Return how many rows a store has, as another program sees it."""
    if store.suffix == ".parquet":
        import pyarrow.parquet

        parts = [*store.parent.glob(store.name + ".parts/*.parquet"), *([store] if store.is_file() else [])]
        return sum(pyarrow.parquet.read_metadata(part).num_rows for part in parts)
    import sqlite3

    if not store.is_file():
        return 0
    file = sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30)
    try:
        return int(file.execute("SELECT count(*) FROM points").fetchone()[0])
    except sqlite3.OperationalError:  # the tables are not there yet
        return 0
    finally:
        file.close()
