"""Time lowp and its peers side by side: `python -m benchmarks.run [WORK ...] [--size N] [--rounds N]`."""

import argparse
import contextlib
import datetime
import io
import json
import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for huge pages only if told; NumPy always does

import benchmarks.emulators
import benchmarks.limits
import benchmarks.ours  # noqa: F401 - the three enter their contenders
import numpy as np
from benchmarks import first_use, small, tables
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.memory import extra_bytes
from benchmarks.report import (
    OURS,
    Faster,
    Ratio,
    Row,
    aims_table,
    best,
    faster_peers,
    faster_table,
    formats_table,
    ratios,
    rows_table,
)
from benchmarks.timing import Call, Timing, fitting_rows, take_turns
from benchmarks.works import COLUMNS, WORKS, Work, input_of, make_input, wanted

import lowp

CALL_LIMIT_S = 0.3  # a contender that needs longer for the whole input gets a part of it
ONE_ULP = 2.0**-22  # of float32, and a little more: products with a scale that are rounded in two steps
OUT = Path("build/bench")
PACKAGES = ["lowp", "numpy", "numba", "llvmlite", "ml_dtypes", "torch", "torchao", "jax", "jaxlib", "gfloat"]
PACKAGES += ["pychop", "apytypes", "qtorch", "qtorch-plus", "brevitas", "bitsandbytes"]


def as_numpy(result: Any) -> np.ndarray:
    """Return a result as an array; tensors of bfloat16 as their bits."""
    if type(result).__module__ == "torch" and str(result.dtype) == "torch.bfloat16":
        return np.asarray(result.view(import_module("torch").uint16).numpy())
    return np.asarray(result)


def compare(result: Any, right: np.ndarray) -> str:
    """Say how a result differs from lowp's."""
    got = as_numpy(result).reshape(right.shape)
    if got.dtype != right.dtype and got.dtype.itemsize == right.dtype.itemsize == 2:
        got = got.view(right.dtype)  # bits of bfloat16
    if got.dtype == right.dtype and np.array_equal(got.view(np.uint8), right.view(np.uint8)):
        return "same"
    same = (got == right) | (np.isnan(got) & np.isnan(right))
    if same.all():
        return "same but -0"
    far = ~same & ~np.isclose(got, right, rtol=ONE_ULP, atol=0)
    return f"{100 * far.mean():.2g} % differ" if far.any() else "same to 1 ulp"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the peers print and warn out of the report."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def prepare(entry: Contender, work: Work, x: np.ndarray, row: Row, right: np.ndarray) -> Call | None:
    """Build the call, compare its result and note what became of it; None if it cannot take part."""
    try:
        rows = len(x) if entry.whole else fitting_rows(lambda part: entry.build(work, part), x, CALL_LIMIT_S)
        call = entry.build(work, x[:rows])
        result = call()
        row.n = rows * COLUMNS
        if entry.owner != "copy":
            whole = rows == len(x) or work.format != "nvfp4"  # only NVFP4 depends on the rest of the tensor
            expected = right[:rows] if whole else wanted(work, x[:rows])
            row.bits = "random" if "stochastic" in work.rounding else compare(result, expected)
            size = expected.nbytes
            row.memory = extra_bytes(call, size if entry.into == "new" else 0) / size
    except ModuleNotFoundError as error:
        row.status = f"not installed ({error})"
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the others go on
        row.status = f"failed ({type(error).__name__}: {error})".split("\n")[0][:160]
    else:
        return call
    return None


def run_work(work: Work, x: np.ndarray, rounds: int, peers: bool = True) -> list[Row]:
    """Time every contender of one work in turns."""
    source = input_of(work, x)
    right = wanted(work, source)
    rows, calls = [], {}
    for entry in CONTENDERS:
        if work.name not in entry.works or not (peers or entry.owner in (*OURS, "copy")):
            continue
        row = Row(work.name, entry.owner, entry.label, entry.into)
        rows.append(row)
        print(f"  {work.name}: preparing {entry.owner}, {entry.label}", file=sys.stderr)
        with quiet():
            if (call := prepare(entry, work, source, row, right)) is not None:
                calls[len(rows) - 1] = call
    with quiet():
        timings = take_turns(calls, rounds, budget_s=3.0 if work.headline else 1.0)
    for index, timing in timings.items():
        note(rows[index], timing)
    for row in rows:
        row.limit = row.ns / best(rows, "copy", row.into)
    return sorted(rows, key=lambda r: (r.status != "ok", r.owner != "copy", r.ns))


def note(row: Row, timing: Timing) -> None:
    row.ns, row.ns_min = timing.median / row.n, timing.min / row.n
    row.samples, row.clean = len(timing.samples), len(timing.clean)


def run_tables(x: np.ndarray, rounds: int) -> tuple[str, list[tables.Figure]]:
    """Time the formats of `benchmarks.tables`; return and print their section of the report."""
    print("  tables: preparing", file=sys.stderr)
    with quiet():
        figures = tables.measure(x, rounds)
    late = ", ".join(tables.slow(figures)) or "none"
    section = f"## tables\n\nns/element, new output. Over {tables.LIMIT:g}x FP8: {late}.\n\n{tables.table(figures)}\n"
    print(section, flush=True)
    return section, figures


def machine() -> dict[str, Any]:
    """Return what a reader needs in order to judge the figures."""
    cpu = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    versions.setdefault("lowp", lowp.__version__)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "load before": [round(v, 2) for v in os.getloadavg()],
        "versions": versions,
    }


@dataclass
class Results:
    """Everything that a run found."""

    rows: list[Row] = field(default_factory=list)
    aims: list[Ratio] = field(default_factory=list)
    faster: list[Faster] = field(default_factory=list)
    small_arrays: list[small.Small] = field(default_factory=list)
    first_uses: list[first_use.First] = field(default_factory=list)
    figures: list[tables.Figure] = field(default_factory=list)
    sections: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def add(self, section: str) -> None:
        """Keep and print a section of the report."""
        self.sections.append(section)
        print(section, flush=True)


def time_works(results: Results, options: argparse.Namespace, x: np.ndarray, facts: dict[str, Any]) -> None:
    """Time the works that were asked for; what is found is on disk after each."""
    for work in WORKS:
        if options.work and work.name not in options.work:
            continue
        rounds = options.rounds if work.headline else min(options.rounds, 5)
        rows = run_work(work, x, rounds, options.peers)
        faster = faster_peers(rows)
        results.rows += rows
        results.aims += ratios(work, rows)
        results.faster += faster
        if work.headline and any(f.lowp.startswith("lowp,") for f in faster):
            results.lost.append(work.name)
        results.add(f"## {work.name}\n\n{rows_table(rows)}\n")
        write(results, facts)


def time_the_rest(results: Results, options: argparse.Namespace, x: np.ndarray) -> None:
    """Time small arrays, first use, and tables."""
    if not options.work or "small" in options.work:
        results.small_arrays = small.measure()
        results.add(f"## Small arrays\n\n{small.table(results.small_arrays)}\n")
    if not options.work or "first_use" in options.work:
        results.first_uses = first_use.measure(min(options.rounds, 5))
        results.add(f"## First use\n\n{first_use.table(results.first_uses)}\n")
    if not options.work or "tables" in options.work:
        section, results.figures = run_tables(x, options.rounds)
        results.lost += tables.slow(results.figures)
        results.sections.append(section)


def write(results: Results, facts: dict[str, Any]) -> str:
    """Write results.json and results.md, the peers that are faster and the missed aims first; return that much."""
    OUT.mkdir(parents=True, exist_ok=True)
    parts = {
        name: [asdict(v) for v in getattr(results, name)] for name in ("rows", "faster", "small_arrays", "first_uses")
    }
    parts |= {
        "aims": [asdict(a) | {"met": a.met} for a in results.aims],
        "tables": [asdict(f) for f in results.figures],
    }
    text = json.dumps({"machine": facts, **parts}, indent=1).replace("NaN", "null")
    (OUT / "results.json").write_text(text + "\n")
    head = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    top = [f"## Peers that are faster\n\n{faster_table(results.faster, facts['peers'])}\n"]
    top += [f"## Formats\n\n{formats_table(results.rows)}\n", f"## Aims\n\n{aims_table(results.aims)}\n"]
    (OUT / "results.md").write_text(f"# Benchmark\n\n{head}\n\n" + "\n".join([*top, *results.sections]))
    return "\n".join([*top, head, f"\nwritten: {OUT}/results.json, {OUT}/results.md"])


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    names = [*(w.name for w in WORKS), "small", "first_use", "tables"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="*", metavar="WORK", help=f"which works (default all): {', '.join(names)}")
    parser.add_argument("--size", type=int, default=1 << 24, help="elements, a multiple of 4096 (default 2^24)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender (default 7)")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="lowp and the copies alone")
    options = parser.parse_args()
    if unknown := set(options.work) - set(names):
        parser.error(f"unknown work {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.size < COLUMNS or options.size % COLUMNS:
        parser.error(f"--size {options.size} is not a positive multiple of {COLUMNS}")
    return options


def main() -> int:
    """Run the benchmark; the exit status is 1 if a headline is too slow."""
    options = parsed()
    logging.disable(logging.WARNING)
    start = time.monotonic()
    facts = machine() | {"elements": options.size, "rounds": options.rounds, "peers": options.peers}
    x = make_input(options.size)
    results = Results()
    time_works(results, options, x, facts)
    time_the_rest(results, options, x)
    facts |= {"load after": [round(v, 2) for v in os.getloadavg()], "seconds": round(time.monotonic() - start)}
    print(write(results, facts))
    return int(bool(results.lost))


if __name__ == "__main__":
    raise SystemExit(main())
