"""How time grows: by elements, threads, block size and table size. `python -m benchmarks.scaling [--huge]`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from benchmarks.limits import copy_parts
from benchmarks.run import OUT, machine
from benchmarks.timing import take_turns
from benchmarks.works import make_input

import lowp

#: A format of each way to round.
LINES = {
    "e4m3fn": ("float8_e4m3fn", "ties_to_even"),
    "e4m3fn, stochastic": ("float8_e4m3fn", "stochastic"),
    "mxfp4": ("mxfp4", "ties_to_even"),
    "nvfp4": ("nvfp4", "ties_to_even"),
    "posit16": ("posit16_es2", "ties_to_even"),
    "nf4": ("nf4", "ties_to_even"),
}
BLOCKS = (8, 16, 32, 64, 128, 256, 512, 1024, 4096)
TABLES = tuple(f"posit{bits}_es2" for bits in (4, 5, 6, 7, 8, 9, 10, 12, 14, 16))
_USUAL = 1 << 24


@dataclass
class Point:
    """One time: `kind` is "size", "threads", "block" or "table", `at` where on the axis."""

    kind: str
    line: str
    at: int
    ns: float
    ns_min: float


def quantizing(x: np.ndarray, name: str, rounding: str = "ties_to_even") -> Callable[[], Any]:
    """Return a call into an array that is there."""
    out = np.zeros_like(x)
    return lambda: lowp.quantize(x, name, rounding, out=out)


def copying(x: np.ndarray) -> Callable[[], Any]:
    """Return a plain copy on as many threads as lowp takes."""
    return partial(copy_parts, x, np.zeros_like(x))


def timed(
    kind: str, calls: dict[tuple[str, int], Callable[[], Any]], sizes: dict[int, int], rounds: int
) -> list[Point]:
    """Time calls in turns; `sizes`: elements at each place on the axis."""
    for call in calls.values():
        call()
    found = take_turns(calls, rounds, budget_s=1.0)
    return [Point(kind, line, at, t.median / sizes[at], t.min / sizes[at]) for (line, at), t in found.items()]


def by_size(rounds: int, largest: int) -> Iterator[Point]:
    """Yield times for 10^2 to 10^8 elements, or more."""
    size = 100
    while size <= largest:
        x = make_input(1 << 12 if size < 1 << 12 else -(-size // 4096) * 4096).reshape(-1)[:size]
        calls = {(line, size): quantizing(x, *how) for line, how in LINES.items() if size <= 10**8 or "sto" not in line}
        calls["copy", size] = copying(x)
        yield from timed("size", calls, {size: size}, rounds if size < 10**7 else min(rounds, 3))
        size = size * 3 if str(size)[0] == "1" else size * 10 // 3
        size = round(size, -(len(str(size)) - 1))


def by_threads(rounds: int) -> Iterator[Point]:
    """Yield times for 1 thread to as many as there are cores."""
    x = make_input(_USUAL)
    before = os.environ.get("LOWP_NUM_THREADS")
    for threads in range(1, (os.cpu_count() or 1) + 1):
        os.environ["LOWP_NUM_THREADS"] = str(threads)
        calls = {(line, threads): quantizing(x, *how) for line, how in LINES.items()}
        calls["copy", threads] = copying(x)
        yield from timed("threads", calls, {threads: x.size}, rounds)
    os.environ.pop("LOWP_NUM_THREADS")
    if before is not None:
        os.environ["LOWP_NUM_THREADS"] = before


def by_block(rounds: int) -> list[Point]:
    """Return times of block formats by the elements that share a scale."""
    x = make_input(_USUAL)
    kinds = {"int4, float16 scale": "block[int4,{},float16]", "fp4, E8M0 scale": "block[fp4,{},e8m0]"}
    calls = {(line, size): quantizing(x, name.format(size)) for line, name in kinds.items() for size in BLOCKS}
    calls |= {("copy", size): copying(x) for size in BLOCKS[:1]}
    return timed("block", calls, dict.fromkeys(BLOCKS, x.size), rounds)


def by_table(rounds: int) -> list[Point]:
    """Return times of posits by bits: their values are a table of so many entries."""
    x = make_input(_USUAL)
    bits = {name: lowp.parse(name).bits for name in TABLES}
    calls = {("posit, to nearest", 1 << bits[name]): quantizing(x, name) for name in TABLES}
    calls |= {("posit, toward zero", 1 << bits[name]): quantizing(x, name, "toward_zero") for name in TABLES}
    calls["copy", 1 << bits[TABLES[0]]] = copying(x)
    return timed("table", calls, {1 << b: x.size for b in bits.values()}, rounds)


def table(points: list[Point], kind: str, heading: str) -> str:
    """Return ns/element: a row for each place on the axis, a column for each line."""
    chosen = [p for p in points if p.kind == kind]
    lines = list(dict.fromkeys(p.line for p in chosen))
    rows = [f"| {heading} | {' | '.join(lines)} |", "| ---: |" + " ---: |" * len(lines)]
    for at in dict.fromkeys(p.at for p in chosen):
        here = {p.line: f"{p.ns:.3g}" for p in chosen if p.at == at}
        rows.append(f"| {at:,} | {' | '.join(here.get(line, '') for line in lines)} |")
    return "\n".join(rows)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--huge", action="store_true", help="also 10^9 elements: 12 GB")
    options = parser.parse_args()
    facts = machine()
    points: list[Point] = []
    for kind, heading, measure in (
        ("size", "elements", lambda: by_size(options.rounds, 10**9 if options.huge else 10**8)),
        ("threads", "threads", lambda: by_threads(options.rounds)),
        ("block", "elements a block", lambda: by_block(options.rounds)),
        ("table", "entries", lambda: by_table(options.rounds)),
    ):
        points += measure()
        print(f"## By {heading}\n\n{table(points, kind, heading)}\n", flush=True)
    facts["load after"] = [round(v, 2) for v in os.getloadavg()]
    OUT.mkdir(parents=True, exist_ok=True)
    data = {"machine": facts, "points": [asdict(p) for p in points]}
    (OUT / "scaling.json").write_text(json.dumps(data, indent=1) + "\n")
    print(f"written: {OUT}/scaling.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
