"""Run a worker program in several processes at once, and collect what each of them saved."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


def results(worker: ModuleType, folder: Path, repo: Path) -> list[dict[str, Any]]:
    """Start `worker RANK FOLDER` for each rank of `worker.WORLD`; return the `FOLDER/RANK.pt` that they write."""
    environment = {**os.environ, "PYTHONPATH": str(repo / "src"), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, str(worker.__file__), str(rank), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(worker.WORLD)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * worker.WORLD, said
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(worker.WORLD)]
