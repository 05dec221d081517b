"""What a new process pays: imports over NumPy's, and the first call with and without compiled code on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from statistics import median

#: Names, and how many seconds lowp aims at.
IMPORT_S, WARM_S, COLD_S = 0.15, 0.5, 5.0
PACKAGES = (
    "lowp",
    "ml_dtypes",
    "torch",
    "jax",
    "numba",
    "gfloat",
    "pychop",
    "apytypes",
    "torchao",
    "qtorch",
    "brevitas",
)
FORMATS = ("float8_e4m3fn", "mxfp4", "nvfp4", "posit8_es2", "nf4")
_IMPORT = "import time, numpy\nw, c = time.perf_counter(), time.process_time()\nimport {name}\n"
_FIRST = """import time, numpy as np, lowp
x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
w, c = time.perf_counter(), time.process_time()
lowp.quantize(x, "{name}")
"""
_PRINT = "print(time.perf_counter() - w, time.process_time() - c)"


@dataclass
class First:
    """Seconds by the clock and of the processor, medians; `aim` is None for other packages."""

    what: str
    wall: float
    cpu: float
    aim: float | None = None


def _run(code: str, **environment: str) -> tuple[float, float] | None:
    surroundings = {**os.environ, **environment}
    command = [sys.executable, "-c", code + _PRINT]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)


def _median(what: str, code: str, runs: int, aim: float | None = None, cold: bool = False) -> list[First]:
    found = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            found.append(_run(code, **({"NUMBA_CACHE_DIR": folder} if cold else {})))
    times = [f for f in found if f is not None]
    return [First(what, median(t[0] for t in times), median(t[1] for t in times), aim)] if times else []


def measure(runs: int = 5) -> list[First]:
    """Time imports and first calls, each in new processes. A package that is not installed is left out."""
    found = []
    for name in PACKAGES:
        code = _IMPORT.format(name=name)
        _run(code)  # what is compiled and cached on import
        found += _median(f"import {name}, over numpy", code, runs, IMPORT_S if name == "lowp" else None)
    for name in FORMATS:
        code = _FIRST.format(name=name)
        _run(code)
        found += _median(f"first quantize, {name}, compiled code on disk", code, runs, WARM_S)
    for name in FORMATS:
        found += _median(f"first quantize, {name}, nothing on disk", _FIRST.format(name=name), 1, COLD_S, cold=True)
    return found


def table(found: list[First]) -> str:
    """Return a line for each."""
    lines = ["| | s | processor s | aim | |", "| --- | ---: | ---: | ---: | --- |"]
    for f in found:
        verdict = "" if f.aim is None else ("met" if f.wall <= f.aim else "**missed**")
        lines.append(f"| {f.what} | {f.wall:.3g} | {f.cpu:.3g} | {'' if f.aim is None else f.aim} | {verdict} |")
    return "\n".join(lines)
