"""One study from its arguments to its files."""

from __future__ import annotations

import datetime
import operator
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, PrecisionWarning
from lowp.studies.cases import (
    BOTH,
    MODES,
    UNQUANTIZED,
    UNQUANTIZED_ON_HARDWARE,
    WEIGHTS,
    Job,
    family,
    read_cases,
    read_modes,
)
from lowp.studies.costs import Cost, predict, products
from lowp.studies.data import read_inputs
from lowp.studies.models import Weights, file_weights, module_weights
from lowp.studies.results import LayerError, Row, StudyResult
from lowp.studies.runner import REFERENCE, Program, Runner
from lowp.studies.store import State, prepare_folder

PACKAGES = ("lowp", "numpy", "numba", "torch", "transformers", "sentence-transformers", "safetensors")


@dataclass(frozen=True)
class Request:
    """The arguments of `lowp.study`, which documents them."""

    model: Any
    data: Any
    formats: Iterable[Any] | None
    devices: Sequence[str]
    evaluate: Callable[[list[Any]], Any] | None
    out: str | os.PathLike[str]
    mode: str | Iterable[str] | None
    batch_rows: int
    embeddings: bool
    resume: bool
    progress: bool
    engine: Any
    hardware: Any


def run_study(request: Request) -> StudyResult:
    """Run a study; see `lowp.study`. Arguments are checked before any work."""
    request = _checked(request)
    engine, hardware = _engine(request.engine), _hardware(request)
    jobs = read_cases(request.formats, engine)
    devices = _checked_devices(request, hardware)
    modes = None if request.mode is None else read_modes(request.mode)
    folder = prepare_folder(request.out)
    weights, program, about = _target(request)
    modes = _possible_modes(modes, program)
    runner = Runner(weights, program, engine, State(folder, request.resume), {"embeddings": request.embeddings})
    writer = _Writer(weights, about | _settings(request, weights, modes), devices, folder, hardware, request.batch_rows)
    steps = runner.steps(jobs, modes)
    with _progress(len(steps), request.progress, folder) as advance:
        for (job, mode), (_, record) in zip(steps, runner.run(steps), strict=True):
            writer.add(job, mode, record)
            writer.write_tables(complete=False)
            advance(f"{record['weights']} × {record['activations']}")
        advance("report", 0)
        return writer.finish()


def _checked(request: Request) -> Request:
    """Return the request with the types of its simple arguments made sure of."""
    if isinstance(request.devices, str) or not isinstance(request.devices, Iterable):
        raise ArgumentTypeError(f"devices={request.devices!r} must be a list of devices, such as ['h100', 'b200'].")
    if request.evaluate is not None and not callable(request.evaluate):
        raise ArgumentTypeError(
            f"evaluate={request.evaluate!r} must be a function from the list of outputs to a score."
        )
    try:
        batch_rows = operator.index(request.batch_rows)
    except TypeError as error:
        raise ArgumentTypeError(f"batch_rows={request.batch_rows!r} must be a whole number.") from error
    if isinstance(request.batch_rows, bool):
        raise ArgumentTypeError(f"batch_rows={request.batch_rows!r} must be a whole number.")
    if batch_rows < 1:
        raise ArgumentError(f"batch_rows={batch_rows!r} must be at least 1.")
    return replace(request, devices=list(request.devices), batch_rows=batch_rows)


def _engine(engine: Any) -> Any:
    if engine is None:
        import lowp

        return lowp
    return engine


def _hardware(request: Request) -> Any:
    if request.hardware is None and len(request.devices):
        from lowp import hw

        return hw
    return request.hardware


def _checked_devices(request: Request, hardware: Any) -> dict[str, Any]:
    """Return the devices by column name; an unknown one raises."""
    named = {str(getattr(d, "name", d)).lower().replace(" ", "_").replace("-", "_"): d for d in request.devices}
    for device in named.values():
        hardware.matmuls_cost([(128, 128, 128, 1)], UNQUANTIZED_ON_HARDWARE, UNQUANTIZED_ON_HARDWARE, device)
    return named


def _target(request: Request) -> tuple[Weights, Program | None, dict[str, Any]]:
    """Return the weights, the program that runs them if there is one, and what to say about both."""
    if request.model is None:
        if request.data is not None or request.evaluate is not None:
            raise ArgumentError("data and evaluate belong to a model of your own; with model=None the demo's are used.")
        from lowp.studies.demo import MODEL_NAME, SCORE_NAME, demo

        module, inputs, evaluate, text = demo()
        program = Program(module, inputs, evaluate)
        return module_weights(module, MODEL_NAME, request.embeddings), program, {"data": text, "score": SCORE_NAME}
    if isinstance(request.model, (str, os.PathLike)):
        if request.data is not None:
            raise ArgumentError("data needs a torch module; of a file only the weights are studied.")
        return file_weights(request.model), None, {"data": "none: only the weights are studied", "score": None}
    return _module_target(request)


def _module_target(request: Request) -> tuple[Weights, Program | None, dict[str, Any]]:
    import torch

    if not isinstance(request.model, torch.nn.Module):
        kinds = "a torch.nn.Module, the path of a safetensors file, or None for the demo"
        raise ArgumentTypeError(f"model={request.model!r} must be {kinds}.")
    weights = module_weights(request.model, embeddings=request.embeddings)
    if weights.unquantized:
        names = ", ".join(weights.unquantized)
        message = f"{len(weights.unquantized)} parameters of two or more dimensions are not quantized: {names}."
        warnings.warn(message, PrecisionWarning, stacklevel=5)
    if request.data is None:
        if request.evaluate is not None:
            raise ArgumentError("evaluate needs data: it scores the outputs of the model on them.")
        return weights, None, {"data": "none: only the weights are studied", "score": None}
    inputs = read_inputs(request.data)
    program = Program(request.model, inputs, request.evaluate)
    score = getattr(request.evaluate, "__name__", "score") if request.evaluate else None
    return weights, program, {"data": f"{len(inputs)} inputs given by the caller", "score": score}


def _possible_modes(modes: tuple[str, ...] | None, program: Program | None) -> tuple[str, ...]:
    if modes is None:
        return MODES if program else (WEIGHTS,)
    if program is None and BOTH in modes:
        raise ArgumentError(f"mode={BOTH!r} needs data to run the model on; without data only 'weights' is possible.")
    return modes


def _settings(request: Request, weights: Weights, modes: tuple[str, ...]) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "model": weights.name,
        "model_sha256": weights.digest,
        "matrices": len(weights.layers),
        "weights": sum(layer.rows * layer.columns for layer in weights.stored),
        "not_quantized": list(weights.unquantized),
        "modes": list(modes),
        "batch_rows": request.batch_rows,
        "embeddings_quantized": request.embeddings,
        "date": now,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} logical processors",
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@dataclass
class _Writer:
    """Gathers rows and writes the files."""

    weights: Weights
    about: dict[str, Any]
    devices: Mapping[str, Any]
    folder: Path
    hardware: Any
    batch_rows: int

    def __post_init__(self) -> None:
        self._rows: list[Row] = []
        self._layers: list[LayerError] = []
        self._shapes = products(self.weights.layers, self.batch_rows)

    def add(self, job: Job | None, mode: str, record: Mapping[str, Any]) -> None:
        """Add a measurement, with its predicted costs."""
        if job is None:
            a = b = UNQUANTIZED
        else:
            a, b = (job.activations.format if mode == BOTH else UNQUANTIZED_ON_HARDWARE), job.weights.format
        costs, notes = predict(self._shapes, a, b, self.devices, self.hardware)
        group = family(job.weights.format) if job else REFERENCE
        self._rows.append(_row(record, group, costs, notes))
        names = (record["weights"], record["activations"], mode)
        self._layers += [LayerError(*names, *map(_number, layer)) for layer in record.get("layers", ())]

    def result(self, complete: bool) -> StudyResult:
        """Return what is there so far."""
        return StudyResult(self._rows, self._layers, tuple(self.devices), self.about, self.folder, complete)

    def write_tables(self, complete: bool) -> None:
        """Write results.csv, results.json and layers.csv."""
        result = self.result(complete)
        result.to_csv(self.folder / "results.csv")
        result.to_json(self.folder / "results.json")
        result.layers_to_csv(self.folder / "layers.csv")

    def finish(self) -> StudyResult:
        """Write everything, plots and report included."""
        from lowp.studies.report import write_report

        self.write_tables(complete=True)
        result = self.result(complete=True)
        write_report(result)
        return result


def _number(value: Any) -> Any:
    """Undo the strings that stand for infinity and NaN in JSON."""
    return float(value) if value in ("inf", "-inf", "nan") else value


def _row(record: Mapping[str, Any], group: str, costs: Mapping[str, Cost], notes: Sequence[str]) -> Row:
    known = {f.name for f in fields(Row)} - {"notes", "family"}
    values = {name: _number(value) for name, value in record.items() if name in known}
    texts = [record.get("notes", ""), *notes]
    return Row(**values, family=group, costs=costs, notes=" ".join(t for t in texts if t))


@contextmanager
def _progress(total: int, show: bool, folder: Path) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr; an interrupt says where the finished part is."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    columns = [progress.TextColumn("{task.description:<36}"), progress.BarColumn(), progress.MofNCompleteColumn()]
    columns += [progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn()]
    try:
        with progress.Progress(*columns, console=console, disable=not show) as bar:
            task = bar.add_task("float32", total=total)
            yield lambda text, steps=1: bar.update(task, description=text, advance=steps)
    except KeyboardInterrupt:
        if show:
            message = f"Stopped. What is finished is in {folder / 'results.csv'}; the same call resumes."
            console.print(message, soft_wrap=True, markup=False, highlight=False)
        raise
