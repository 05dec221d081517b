"""Exploring a space of formats and machines: `explore`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import astuple
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from lowp._errors import ArgumentError, FileError
from lowp.formats import parse
from lowp.hw_models.arguments import sizes
from lowp.hw_models.exploration import Exploration, checked_objectives
from lowp.hw_models.exploration_accuracy import arity, read_tensors
from lowp.hw_models.exploration_costs import Task, read_workload
from lowp.hw_models.exploration_points import METRICS, Point
from lowp.hw_models.exploration_run import Workers, as_workers, run
from lowp.hw_models.exploration_store import Store, open_store
from lowp.hw_models.fingerprints import digest, fingerprint
from lowp.hw_models.progress import progress_bar
from lowp.hw_models.space import Candidate, Machine, Space, as_space, point_id

#: Candidates that are handed out, and written, at a time.
BATCH = 8
_OF_UNITS = ("area", "unit_energy", "lut", "ff", "dsp", "bram", "clock")
_OF_TENSORS = ("weight_error", "activation_error", "error", "sqnr")


def explore(
    space: Space | Any,
    workload: Any,
    objectives: Any,
    executor: Executor | Any | None = None,
    store: str | os.PathLike[str] | None = None,
    *,
    tensors: Any = None,
    accuracy: Callable[..., Any] | None = None,
    out: Any = "bfloat16",
    batch: int = BATCH,
    resume: bool = True,
    progress: bool = True,
) -> Exploration:
    """Try every candidate of a space on every machine; return the table, the Pareto front, its knees, and why.

    Costs are those of the workload's products with weights, and of a training step those of the gradients, which are in
    the activations' format; what a program does besides costs the same in every format.
    A combination of parameters that is no format is skipped and counted; a point that a model refuses keeps the reason.

    Args:
        space: A `hw.Space`; a dict of its arguments; or formats alone.
        workload: What runs: a `Workload`; (m, n, k, count) of each product; the name of a model, for what `hw.workload`
            makes of it; or None if only formats and units are compared.
        objectives: Metrics to compare by: a name, a list, or a dict from names to "min" or "max". On GPUs "time" and
            "energy"; of units "area", "unit_energy", "lut", "ff", "dsp", "bram", "clock"; of formats "size", "bits"; on
            tensors "error", "sqnr", "weight_error", "activation_error"; what `accuracy` and functions among the units
            return. Points whose metrics are in different units, such as m2 and gate equivalents, are not compared with
            each other.
        executor: Any `concurrent.futures` executor, or a `dask.distributed` Client; None: this process.
        store: A file ending in .sqlite, .sqlite3, .db, or .parquet (needs pyarrow), that rows are written to batch by
            batch. The same call after a kill goes on where it stopped; a larger space adds to the file.
        tensors: What accuracy is measured on by the emulation: an array of weights (outputs, inputs); a dict with
            "weights" and "activations" (rows, inputs), whose product is then emulated too; or such by layer's name.
        accuracy: A function of the weights' format, or of (weights, activations) or (weights, activations,
            accumulator), that returns a number (called "accuracy"), an Estimate or Metric, or a dict of these by name.
            Processes and clusters need one that can be pickled.
        out: Format of the products' results on GPUs.
        batch: Candidates that are handed out and written at a time.
        resume: Whether to go on from what is in the store; otherwise it starts anew.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The points in the order of the space, whatever the executor.

    Raises:
        ArgumentError: An argument that is not allowed; objectives that nothing of the space can have; a store that was
            made with another workload, tensors, function or version.
        ArgumentTypeError: An argument of another type.
        FormatError: A name that is no format.
        FileError: The store cannot be read or written.
        Error: The executor broke down; the store keeps what was finished.

    Example:
        >>> from lowp.hw_models.grids import grid
        >>> formats = [grid("e{e}m{m}fn", e=[2, 3, 4], m=[1, 2, 3]), "int8", "bfloat16"]
        >>> found = explore({"formats": formats, "devices": ["h100"]}, [(4096, 4096, 4096, 8)], ["time", "size"])
        >>> len(found), found.front()[0].weights
        (11, 'float8_e4m3fn')
    """
    described, products = as_space(space), read_workload(workload)
    (size,) = sizes(batch=batch)
    measured = read_tensors(tensors)
    if accuracy is not None:
        arity(accuracy)
    wanted = _objectives(objectives, described, products[1], measured, accuracy)
    workers = as_workers(executor)
    task = Task(*products, described.machines, parse(out), measured, accuracy)
    kept = open_store(store, resume)
    complete = False
    try:
        found, resumed = _run(described, task, kept, _settings(task), workers, size, progress)
        complete = True
    finally:
        kept.close(complete)
    result = Exploration(found, wanted, described.skipped, described.repeated, resumed)
    if not result.compared:
        there = sorted({name for found in result for name in found.metrics})
        reasons = "; ".join(dict.fromkeys(f.reason for f in result.failed[:20])).rstrip(".")
        raise ArgumentError(
            f"objectives={list(wanted)!r} cannot be compared: no point has all of them; there are: {', '.join(there)}"
            + (f". Reasons: {reasons}." if reasons else ".")
        )
    return result


def _objectives(objectives: Any, space: Space, weights: int, tensors: Any, accuracy: Any) -> dict[str, str]:
    if isinstance(objectives, Iterator):
        objectives = tuple(objectives)
    kinds = {machine.kind for machine in space.machines}
    known = {"bits"} | ({"size"} if weights else set())
    known |= {"time", "energy"} if "gpu" in kinds and weights else set()
    known |= set(_OF_UNITS) if "unit" in kinds else set()
    if tensors is not None:
        without = {"activation_error"} if any(x is None for *_, x in tensors.layers) else set()
        known |= set(_OF_TENSORS) - without
    if accuracy is not None or "function" in kinds:
        return checked_objectives(objectives, None)  # the functions' metrics are known once they have run
    for name in checked_objectives(objectives, set(METRICS) | known):
        if name not in known:
            raise ArgumentError(
                f"objectives={name!r} ({METRICS[name][2] or name}) needs devices and a workload, units, tensors or a "
                f"function; with what is given there are: {', '.join(sorted(known))}."
            )
    return checked_objectives(objectives, known)


def _run(
    space: Space,
    task: Task,
    store: Store,
    settings: dict[str, str],
    workers: Workers,
    size: int,
    progress: bool,
) -> tuple[tuple[Point, ...], int]:
    """Compute what the store lacks; return all points in order, and how many were there."""
    ids = [[point_id(candidate, machine) for machine in space.machines] for candidate in space.candidates]
    wanted = {identity for row in ids for identity in row}
    rows = _kept(store, settings, wanted)
    resumed = len(rows)
    missing = _missing(space, ids, rows)
    with progress_bar(len(wanted), resumed, "points", progress) as advance:
        for machines, candidates in missing.items():
            part = Task(task.products, task.weight_values, machines, task.out, task.tensors, task.accuracy)
            batches = [candidates[i : i + size] for i in range(0, len(candidates), size)]
            for done in run(part, batches, workers):
                flat = [row for of_candidate in done for row in of_candidate]
                store.add(flat)
                rows |= {row["id"]: row for row in flat}
                advance(len(flat))
    return tuple(Point.from_record(rows[identity]) for row in ids for identity in row), resumed


def _kept(store: Store, settings: dict[str, str], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of the store that are wanted; make the store if it is new."""
    found = store.settings()
    if found is None:
        store.begin(settings)
        found = store.settings() or {}  # another process may have been quicker
    other = [name for name, value in settings.items() if found.get(name) != value]
    if other:
        raise ArgumentError(
            f"store holds an exploration with another {' and another '.join(other)}; allowed: the same, another file, "
            "or resume=False, which starts anew."
        )
    rows = {row["id"]: row for row in store.rows() if row["id"] in wanted}
    for row in rows.values():
        try:
            Point.from_record(row)
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"store is damaged: the row {row['id']!r} cannot be read: {error!r}.") from error
    return rows


def _missing(
    space: Space, ids: Sequence[Sequence[str]], rows: dict[str, Any]
) -> dict[tuple[Machine, ...], list[Candidate]]:
    """Return the candidates that lack rows, by the machines whose rows they lack."""
    missing: dict[tuple[Machine, ...], list[Candidate]] = {}
    for candidate, of_candidate in zip(space.candidates, ids, strict=True):
        pairs = zip(space.machines, of_candidate, strict=True)
        lacking = tuple(machine for machine, identity in pairs if identity not in rows)
        if lacking:
            missing.setdefault(lacking, []).append(candidate)
    return missing


def _settings(task: Task) -> dict[str, str]:
    """Return what rows depend on besides the candidate and the machine."""
    return {
        "workload": json.dumps([list(astuple(op)) for op in task.products]),
        "weights": str(task.weight_values),
        "out": repr(task.out),
        "tensors": task.tensors.fingerprint if task.tensors else "",
        "accuracy": "" if task.accuracy is None else fingerprint(task.accuracy),
        "version": _version(),
        "coefficients": _coefficients(),
    }


def _version() -> str:
    try:
        return version("lowp")
    except PackageNotFoundError:
        return "not installed"


def _coefficients() -> str:
    """Return a digest of the models' data files."""
    folders = [files("lowp.hw_models") / "data"]
    parts: list[str] = []
    while folders:
        for entry in sorted(folders.pop().iterdir(), key=lambda e: e.name):
            if entry.is_dir():
                folders.append(entry)
            elif not entry.name.startswith("validation"):
                parts.append(f"{entry.name}{digest(entry.read_bytes())}")
    return digest("".join(parts))[:16]
