"""What a call costs whatever its size: arrays of 1, 100 and 10,000 numbers, in microseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np

import lowp

SIZES = (1, 100, 10_000)
FORMATS = ("float8_e4m3fn", "bfloat16", "int8", "mxfp4", "nvfp4", "int8_row", "posit8_es2", "nf4", "lns8_f3")
TARGET_US = 10.0
_BATCH_S, _BATCHES = 0.004, 15

Call = Callable[[], Any]


@dataclass
class Small:
    """One way, one size: microseconds of a call, the median of batches and the least."""

    what: str
    size: int
    us: float
    us_min: float


def calls(size: int) -> Iterator[tuple[str, Call]]:
    """Yield what is timed, lowp's verbs first."""
    x = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    out = np.empty_like(x)
    for name in FORMATS:
        yield f"lowp {name}", lambda name=name: lowp.quantize(x, name)
    yield "lowp float8_e4m3fn, out=", lambda: lowp.quantize(x, "float8_e4m3fn", out=out)
    yield "lowp float8_e4m3fn, stochastic", lambda: lowp.quantize(x, "float8_e4m3fn", "stochastic")
    yield "lowp float8_e4m3fn, encode", lambda: lowp.encode(x, "float8_e4m3fn")
    codes = lowp.encode(x, "float8_e4m3fn")
    yield "lowp float8_e4m3fn, decode", lambda: lowp.decode(codes)
    yield "NumPy copy()", x.copy
    with suppress(ModuleNotFoundError):
        dtype = import_module("ml_dtypes").float8_e4m3fn
        yield "ml_dtypes float8_e4m3fn", lambda: x.astype(dtype).astype(np.float32)
    with suppress(ModuleNotFoundError):
        torch = import_module("torch")
        lt, t = import_module("lowp.torch"), torch.from_numpy(x)
        yield "torch float8_e4m3fn", lambda: t.to(torch.float8_e4m3fn).to(torch.float32)
        yield "lowp.torch float8_e4m3fn", lambda: lt.quantize(t, "float8_e4m3fn")
    with suppress(ModuleNotFoundError):
        gfloat = import_module("gfloat")
        info = import_module("gfloat.formats").format_info_ocp_e4m3
        yield "gfloat float8_e4m3fn", lambda: gfloat.round_ndarray(info, x, sat=True)


def microseconds(call: Call) -> tuple[float, float]:
    """Return the median and the least of batches, per call."""
    call()
    count = 1
    while _timed(call, count) < _BATCH_S:
        count *= 2
    times = [1e6 * _timed(call, count) / count for _ in range(_BATCHES)]
    return median(times), min(times)


def _timed(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


def measure() -> list[Small]:
    """Time every call at every size."""
    return [Small(what, size, *microseconds(call)) for size in SIZES for what, call in calls(size)]


def table(found: list[Small]) -> str:
    """Return a line for each call."""
    head = " | ".join(f"{size} | least" for size in SIZES)
    lines = [f"| us/call | {head} |", "| --- |" + " ---: | ---: |" * len(SIZES)]
    for what in dict.fromkeys(f.what for f in found):
        cells = [f"{f.us:.3g} | {f.us_min:.3g}" for size in SIZES for f in found if (f.what, f.size) == (what, size)]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)
