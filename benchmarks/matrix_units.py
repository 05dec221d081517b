"""Time products as matrix units compute them: `python -m benchmarks.matrix_units [PRODUCT ...] [--size N]`."""

import argparse
import json
import logging
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from benchmarks.matrix_units_peers import LOOP, PRODUCTS, Product, Way
from benchmarks.run import OUT, machine, quiet
from benchmarks.timing import Call, Timing, quickest, take_turns

import lowp

CALL_LIMIT_NS = 0.5e9  # a way that takes longer for a part of the rows and columns is not tried on a larger one
CHECKED = (64, 16)  # outputs that every way computes from operands of many magnitudes, at most
PACKAGES = ("mmasim", "softposit")
MMASIM, EXACT_LIMIT = 1000, 20  # times faster; times the Hopper model's time


@dataclass
class Row:
    """What one way gave.

    Attributes:
        ns: Median nanoseconds per multiply-add.
        least: The least of them.
        shape: m, n and k of the product that was timed.
        bits: Whether its outputs are lowp's, of that product and of operands of many magnitudes.
        wrong: Outputs that are not lowp's although the definitions agree.
    """

    product: str
    owner: str
    label: str
    status: str = "ok"
    ns: float = math.nan
    least: float = math.nan
    shape: tuple[int, int, int] = (0, 0, 0)
    samples: int = 0
    clean: int = 0
    bits: str = ""
    wrong: int = 0


def operands(fmt: str, size: int, inputs: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two square matrices of numbers that a format has.

    Args:
        fmt: The format.
        size: Rows.
        inputs: "normal": N(0, 1). "wide": magnitudes over some 2^28 and the format's subnormals, signed zeros.
        seed: Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    if fmt == "int8":
        whole = rng.integers(-128, 128, (2, size, size)).astype(np.float32)
        return whole[0], whole[1]
    x = rng.standard_normal((2, size, size))
    if inputs == "wide":
        x = np.ldexp(x, rng.integers(-24, 5, x.shape)) * (rng.random(x.shape) > 0.05)
    left, right = lowp.quantize(x, fmt).astype(np.float32)
    return left, right


def timed_part(way: Way, a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    """Return the m and n with which a way is quickest per multiply-add, up to a call that takes long."""
    m, n = (min(least, len(a)) for least in way.least)
    best, found = math.inf, (m, n)
    while True:
        call = way.build(a[:m], b[:, :n].copy())
        call()
        elapsed = quickest(call, tries=3)
        if elapsed / (m * n) < best:
            best, found = elapsed / (m * n), (m, n)
        if m == n == len(a) or elapsed > CALL_LIMIT_NS:
            return found
        m, n = min(2 * m, len(a)), min(2 * n, len(a))


def as_array(result: Any) -> np.ndarray:
    """Return a result as float64, which holds every output here."""
    if hasattr(result, "to_numpy"):  # apytypes
        return np.asarray(result.to_numpy(), np.float32).astype(np.float64)
    return np.asarray(result).astype(np.float64)


def differing(got: np.ndarray, right: np.ndarray, no_minus_zero: bool) -> int:
    """Return how many outputs differ; NaN equals NaN, and -0 is not 0 unless one of the sides has no -0."""
    equal = (got == right) | (np.isnan(got) & np.isnan(right))
    if not no_minus_zero:
        equal &= (np.signbit(got) == np.signbit(right)) | np.isnan(got)
    return int((~equal).sum())


def check(row: Row, way: Way, product: Product, inputs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Compare the outputs of both inputs with lowp's on values."""
    said = []
    for a, b in inputs:
        with np.errstate(all="ignore"):
            got, right = as_array(way.build(a, b)()), as_array(product.lowp(a, b)())
        count = differing(got, right, way.no_minus_zero)
        row.wrong += 0 if way.other else count
        said.append(f"{count} of {right.size} differ" if count else "same")
    row.bits = "same" if said == ["same", "same"] else f"{said[0]}; many magnitudes: {said[1]}"
    if way.other and row.bits != "same":
        row.bits += f" ({way.other})"


def prepare(way: Way, product: Product, inputs: dict[str, tuple[np.ndarray, np.ndarray]], row: Row) -> Call | None:
    """Build the call and compare its results; None if it cannot take part."""
    a, b = inputs[way.inputs]
    try:
        m, n = (len(a), len(a)) if way.owner == "lowp" else timed_part(way, a, b)
        part = a[:m], b[:, :n].copy()
        call = way.build(*part)
        row.shape = m, n, a.shape[1]
        checked = [max(least, min(limit, size)) for least, limit, size in zip(way.least, CHECKED, (m, n), strict=True)]
        left, right = inputs["wide"]
        if way.build != product.lowp:
            check(row, way, product, [part, (left[: checked[0]], right[:, : checked[1]].copy())])
    except ModuleNotFoundError as error:
        row.status = f"not installed ({error})"
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the others go on
        row.status = f"failed ({type(error).__name__}: {error})".split("\n")[0][:160]
    else:
        return call
    return None


def run_product(product: Product, size: int, rounds: int) -> list[Row]:
    """Time every way of one product in turns."""
    inputs = {kind: operands(product.format, size, kind) for kind in ("normal", "wide")}
    rows, calls = [], {}
    for way in product.ways:
        row = Row(product.name, way.owner, way.label)
        rows.append(row)
        print(f"  {product.name}: preparing {way.owner}, {way.label}", file=sys.stderr)
        with quiet():
            if (call := prepare(way, product, inputs, row)) is not None:
                calls[len(rows) - 1] = call
    with quiet(), np.errstate(all="ignore"):
        timings = take_turns(calls, rounds, budget_s=1.5)
    for index, timing in timings.items():
        note(rows[index], timing)
    return rows


def note(row: Row, timing: Timing) -> None:
    terms = math.prod(row.shape)
    row.ns, row.least = timing.median / terms, timing.min / terms
    row.samples, row.clean = len(timing.samples), len(timing.clean)


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| product | who | how | ns/multiply-add | least | x lowp | m x n x k | clean/samples | outputs |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for row in rows:
        if row.status == "ok":
            cells = [f"{row.ns:.3g}", f"{row.least:.3g}", f"{row.ns / own(rows, row.product):.3g}"]
            cells += [" x ".join(map(str, row.shape)), f"{row.clean}/{row.samples}", row.bits]
        else:
            cells = [row.status.replace("|", "/"), *[""] * 5]
        lines.append("| " + " | ".join([row.product, row.owner, row.label, *cells]) + " |")
    return "\n".join(lines)


def own(rows: list[Row], product: str) -> float:
    """Return lowp's ns of a product, on values; NaN if it was not timed."""
    return next((r.ns for r in rows if (r.product, r.owner, r.label) == (product, "lowp", "values")), math.nan)


def claims(rows: list[Row]) -> list[tuple[str, float, bool]]:
    """Return what is claimed, what was measured, and whether it holds; claims about what was not timed are left out."""
    found = []
    for product, modelled in (("hopper_fp8", "hopper_fp8"), ("float16_sums", "ampere_f16_into_f16")):
        for row in rows:
            if row.owner == "mmasim" and row.status == "ok" and row.product == modelled:
                ratio = row.ns / own(rows, product)
                found.append((f"{product}: {MMASIM}x faster than mmasim, {row.label}", ratio, ratio >= MMASIM))
    for row in rows:
        if row.owner in ("pychop", "apytypes", LOOP) and row.status == "ok":
            ratio = row.ns / own(rows, row.product)
            found.append((f"{row.product}: faster than {row.owner}, {row.label}", ratio, ratio > 1))
    for product in ("posit16_quire", "posit16es1_quire", "float16_exact", "bfloat16_exact"):
        ratio = own(rows, product) / own(rows, "hopper_fp8")
        found.append((f"{product}: at most {EXACT_LIMIT}x the time of hopper_fp8", ratio, ratio <= EXACT_LIMIT))
    return [claim for claim in found if not math.isnan(claim[1])]


def claims_table(found: list[tuple[str, float, bool]]) -> str:
    lines = ["| claim | measured | holds |", "| --- | ---: | --- |"]
    lines += [f"| {what} | {ratio:.3g}x | {'yes' if holds else 'no'} |" for what, ratio, holds in found]
    return "\n".join(lines)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> int:
    """Run the benchmark; the exit status is 1 if a claim does not hold, or outputs differ where definitions agree."""
    names = [product.name for product in PRODUCTS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("product", nargs="*", help=f"which products (default all): {', '.join(names)}")
    parser.add_argument("--size", type=int, default=512, help="m, n and k, a multiple of 64 (default 512)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every way (default 5)")
    options = parser.parse_args()
    if unknown := set(options.product) - set(names):
        parser.error(f"unknown product {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.size < 64 or options.size % 64:
        parser.error(f"--size {options.size} is not a positive multiple of 64")
    logging.disable(logging.WARNING)
    facts, start = machine(), time.monotonic()
    facts["versions"] |= versions()
    facts["cores in use"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows: list[Row] = []
    for product in PRODUCTS:
        if not options.product or product.name in options.product:
            rows += run_product(product, options.size, options.rounds)
    facts |= {"load after": [round(v, 2) for v in os.getloadavg()], "seconds": round(time.monotonic() - start)}
    report(facts, rows)
    right = not any(row.wrong or (row.owner == "lowp" and row.status != "ok") for row in rows)
    return int(not right or not all(holds for _, _, holds in claims(rows)))


def report(facts: dict[str, Any], rows: list[Row]) -> None:
    """Write and print what was found."""
    found = claims(rows)
    OUT.mkdir(parents=True, exist_ok=True)
    results = {"machine": facts, "claims": found, "rows": [asdict(row) for row in rows]}
    (OUT / "matrix_units.json").write_text(json.dumps(results, indent=1).replace("NaN", "null") + "\n")
    head = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    text = f"{table(rows)}\n\n{claims_table(found)}"
    (OUT / "matrix_units.md").write_text(f"# Matrix units\n\n{head}\n\n{text}\n")
    print(f"{text}\n\n{head}\n\nwritten: {OUT}/matrix_units.json, {OUT}/matrix_units.md")


if __name__ == "__main__":
    raise SystemExit(main())
