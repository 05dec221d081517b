"""Time lowp and its peers side by side: `python -m benchmarks.run [WORK ...] [--size N] [--rounds N]`."""

import argparse
import contextlib
import datetime
import io
import json
import logging
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for huge pages only if told; NumPy always does

import benchmarks.emulators  # noqa: F401 - enters its contenders
import numpy as np
from benchmarks import tables
from benchmarks.contenders import CONTENDERS, WORKS, Contender, Work
from benchmarks.timing import Call, Timing, fitting_rows, take_turns

import lowp

COLUMNS = 4096
CALL_LIMIT_S = 0.3  # a contender that needs longer for the whole input gets a part of it
ONE_ULP = 2.0**-22  # of float32, and a little more: products with a scale that are rounded in two steps
OUT = Path("build/bench")
PACKAGES = ["lowp", "numpy", "numba", "llvmlite", "ml_dtypes", "torch", "torchao", "jax", "jaxlib", "gfloat"]
PACKAGES += ["pychop", "apytypes", "qtorch", "qtorch-plus", "brevitas"]


@dataclass
class Row:
    """What one contender did with one work."""

    work: str
    owner: str
    label: str
    into: str
    status: str = "ok"
    n: int = 0
    ns: float = math.nan
    ns_min: float = math.nan
    samples: int = 0
    clean: int = 0
    bits: str = ""
    limit: float = math.nan  # ns / ns of the fastest copy into the same kind of output


def make_input(size: int) -> np.ndarray:
    """Return N(0, 1) in rows of 4096; the first row spans the range of E4M3 and is full of ties."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size // COLUMNS, COLUMNS), dtype=np.float32)
    wide = np.ldexp(rng.standard_normal(COLUMNS), rng.integers(-12, 8, COLUMNS)).clip(-448, 448).astype(np.float32)
    wide[::2] = (wide[::2].view(np.uint32) & 0xFFF80000).view(np.float32)
    x[0] = wide
    return x


def input_of(work: Work, x: np.ndarray) -> np.ndarray:
    return lowp.encode(x, work.format).codes if work.verb == "decode" else x


def wanted(work: Work, x: np.ndarray) -> np.ndarray:
    """Return lowp's result."""
    if work.verb == "encode":
        return lowp.encode(x, work.format).codes
    if work.verb == "decode":
        return lowp.decode(x, work.format, dtype=np.float32)
    return lowp.quantize(x, work.format)


def compare(result: Any, right: np.ndarray) -> str:
    """Say how a result differs from lowp's."""
    got = np.asarray(result).reshape(right.shape)
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
            row.bits = "random" if work.rounding == "stochastic" else compare(result, expected)
    except ModuleNotFoundError as error:
        row.status = f"not installed ({error})"
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the others go on
        row.status = f"failed ({type(error).__name__}: {error})".split("\n")[0][:160]
    else:
        return call
    return None


def run_work(work: Work, x: np.ndarray, rounds: int) -> list[Row]:
    """Time every contender of one work in turns."""
    source = input_of(work, x)
    right = wanted(work, source)
    rows, calls = [], {}
    for entry in CONTENDERS:
        if work.name not in entry.works:
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


def best(rows: list[Row], owner: str, into: str = "") -> float:
    """Return the fewest ns among the rows of an owner ("peers": everybody but lowp and the copies), or NaN."""
    measured = [r for r in rows if r.status == "ok" and into in ("", r.into)]
    chosen = [r for r in measured if (r.owner not in ("lowp", "copy") if owner == "peers" else r.owner == owner)]
    return min((r.ns for r in chosen), default=math.nan)


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| who | how | output | ns/element | min | x limit | x lowp | elements | clean/samples | bits |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for r in rows:
        if r.status == "ok":
            figures = (r.ns, r.ns_min, r.limit, r.ns / best(rows, "lowp", r.into))
            cells = ["" if math.isnan(v) else f"{v:.3g}" for v in figures]
            cells += [f"2^{math.log2(r.n):g}", f"{r.clean}/{r.samples}", r.bits]
        else:
            cells = [r.status.replace("|", "/"), *[""] * 6]
        lines.append("| " + " | ".join([r.owner, r.label, r.into, *cells]) + " |")
    return "\n".join(lines)


def verdict(work: Work, rows: list[Row]) -> tuple[str, bool]:
    """Return a sentence for each kind of output, and whether lowp is faster than every peer of the same kind.

    With an existing output lowp must also beat the peers that make a new one, which most of them always do.
    """
    sentences, won = [], True
    for into, rivals in (("existing", ""), ("new", "new")):
        ours, theirs = best(rows, "lowp", into), best(rows, "peers", rivals)
        if math.isnan(ours) or math.isnan(theirs):
            continue
        rival = next(r for r in rows if r.ns == theirs and r.owner not in ("lowp", "copy"))
        who = f"{rival.owner}, {rival.label} ({rival.into} output)"
        ratio = theirs / ours
        sentences.append(f"{into} output: lowp {ours:.3g} ns, fastest peer {theirs:.3g} ns: {who}; {ratio:.3g}x lowp.")
        won &= ours < theirs
    return f"{work.name}, " + " ".join(sentences), won


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


def main() -> int:
    """Run the benchmark; the exit status is 1 if a headline is too slow."""
    names = [*(w.name for w in WORKS), "tables"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="*", metavar="WORK", help=f"which works (default all): {', '.join(names)}")
    parser.add_argument("--size", type=int, default=1 << 24, help="elements, a multiple of 4096 (default 2^24)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender (default 7)")
    options = parser.parse_args()
    if unknown := set(options.work) - set(names):
        parser.error(f"unknown work {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.size < COLUMNS or options.size % COLUMNS:
        parser.error(f"--size {options.size} is not a positive multiple of {COLUMNS}")
    logging.disable(logging.WARNING)
    facts, start = machine(), time.monotonic()
    x = make_input(options.size)
    rows: list[Row] = []
    report, lost = [], False
    for work in WORKS:
        if options.work and work.name not in options.work:
            continue
        found = run_work(work, x, options.rounds if work.headline else min(options.rounds, 3))
        sentence, won = verdict(work, found)
        lost |= work.headline and not won
        rows += found
        report += [f"## {work.name}\n\n{sentence}\n\n{table(found)}\n"]
        print(report[-1], flush=True)
    figures: list[tables.Figure] = []
    if not options.work or "tables" in options.work:
        section, figures = run_tables(x, options.rounds)
        lost |= bool(tables.slow(figures))
        report.append(section)
    facts |= {"load after": [round(v, 2) for v in os.getloadavg()], "seconds": round(time.monotonic() - start)}
    OUT.mkdir(parents=True, exist_ok=True)
    results = {"machine": facts, "rows": [asdict(r) for r in rows], "tables": [asdict(f) for f in figures]}
    (OUT / "results.json").write_text(json.dumps(results, indent=1).replace("NaN", "null") + "\n")
    head = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    (OUT / "results.md").write_text(f"# Benchmark\n\n{head}\n\n" + "\n".join(report))
    print(f"{head}\n\nwritten: {OUT}/results.json, {OUT}/results.md")
    return int(lost)


if __name__ == "__main__":
    raise SystemExit(main())
