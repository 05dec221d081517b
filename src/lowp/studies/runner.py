"""The loop of a study: quantize, run, measure, write; again for every format."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lowp._errors import ArgumentError, Error, PrecisionWarning
from lowp.studies import metrics
from lowp.studies.cases import BOTH, UNQUANTIZED, Engine, Job
from lowp.studies.costs import storage_bits
from lowp.studies.data import Outputs, hash_values, run_model
from lowp.studies.models import Weights, evaluation, quantized_inputs, quantized_weights
from lowp.studies.store import State, to_json

if TYPE_CHECKING:
    import torch

REFERENCE = "reference"
#: Part of every key; raise it when a measurement changes its meaning.
SCHEMA = 2


@dataclass(frozen=True)
class Program:
    """A module, the inputs it is run on, and how its outputs are scored; absent in a study of weights alone."""

    module: torch.nn.Module
    inputs: Sequence[Any]
    evaluate: Callable[[list[Any]], Any] | None


@dataclass
class Runner:
    """Measures formats on a model; finished measurements are kept in `state`.

    Attributes:
        weights: The matrices to quantize.
        program: What to run, or None to measure weights only.
        engine: The number formats.
        state: Where measurements are kept.
        settings: Whatever else a measurement depends on.
    """

    weights: Weights
    program: Program | None
    engine: Engine
    state: State
    settings: Mapping[str, Any] = field(default_factory=dict)
    _quantized: tuple[Any, _Quantized] | None = field(default=None, init=False, repr=False)

    def steps(self, jobs: Sequence[Job], modes: Sequence[str]) -> list[tuple[Job | None, str]]:
        """Return what is to be measured, the float32 reference first; both modes of a format in succession.

        Two jobs with the same weights differ only where activations are quantized too.
        """
        steps: dict[tuple[str, ...], tuple[Job | None, str]] = {}
        for job in jobs:
            for mode in modes:
                steps.setdefault((mode, *_format_keys(job, mode)), (job, mode))
        return [(None, REFERENCE), *steps.values()]

    def run(self, steps: Sequence[tuple[Job | None, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Measure each step that is not in the state yet; yield its key and record as soon as it is there."""
        for job, mode in steps:
            started = time.perf_counter()
            key = self.key(job, mode)
            if not self.is_done(key):
                record = self._reference_record() if job is None else self._try_to_measure(job, mode)
                record["seconds"] = time.perf_counter() - started
                self.state.add({"key": key, **self._names(job, mode), **record})
            yield key, self.state[key]

    def is_done(self, key: str) -> bool:
        """Whether a measurement is there; one that failed is tried again."""
        return key in self.state and not self.state[key].get("notes")

    def _try_to_measure(self, job: Job, mode: str) -> dict[str, Any]:
        """Measure; a format that does not fit these tensors becomes a note and does not stop the others."""
        try:
            return self._measure(job, mode, self._quantize_weights(job.weights.format))
        except Error as error:
            return {"notes": _reason(error)}

    def key(self, job: Job | None, mode: str) -> str:
        """Return the key of a measurement: a hash of weights, formats, settings and the float32 model's behaviour.

        What the code of module and `evaluate` does cannot be read off them, so their results stand for them.
        """
        behaviour = self._reference[1]
        parts = [SCHEMA, self.weights.digest, behaviour, dict(self.settings), mode, _format_keys(job, mode)]
        return hashlib.sha256(to_json(parts).encode()).hexdigest()[:32]

    def _names(self, job: Job | None, mode: str) -> dict[str, Any]:
        layers = self.weights.stored
        values = sum(layer.rows * layer.columns for layer in layers)
        fmt = job.weights.format if job else self.engine.parse(UNQUANTIZED)
        bits = sum(storage_bits(fmt, layer.rows, layer.columns) for layer in layers)
        return {
            "weights": job.weights.name if job else UNQUANTIZED,
            "activations": job.activations.name if job and mode == BOTH else UNQUANTIZED,
            "mode": mode,
            "bits_per_value": bits / values,
            "weight_bytes": -(-bits // 8),
            "model_bytes": -(-bits // 8) + self.weights.other_bytes,
        }

    def _quantize_weights(self, fmt: Any) -> _Quantized:
        """Return the quantized matrices; the last format's are kept, because both its modes follow each other.

        Raises:
            Error: The format fits no matrix, or not each of those that the model is run with.
        """
        if self._quantized is not None and self._quantized[0] == fmt:
            return self._quantized[1]
        self._quantized = None  # frees the last matrices before the next are made
        done = _Quantized()
        for layer in self.weights.layers:
            weight = layer.load()
            try:
                matrix = self.engine.quantize(weight, fmt, axis=-1)
            except Error as error:
                if self.program:
                    raise
                done.failed[layer.name] = error
                continue
            done.sqnr[layer.name] = metrics.sqnr_db(weight, matrix)
            if self.program:
                done.matrices[layer.name] = matrix
        if not done.sqnr:
            raise next(iter(done.failed.values()))
        self._quantized = (fmt, done)
        return done

    @cached_property
    def _reference(self) -> tuple[Outputs, str]:
        """What the float32 model gives, and a hash of it and of what it was given."""
        if self.program is None:
            return Outputs([], None), ""
        digest = hashlib.sha256()
        hash_values(digest, [getattr(self.program.evaluate, "__qualname__", ""), self.program.inputs])
        with evaluation(self.program.module):
            outputs = run_model(self.program.module, self.program.inputs, self.program.evaluate, digest)
        return outputs, digest.hexdigest()

    def _reference_record(self) -> dict[str, Any]:
        outputs = self._reference[0]
        ones = {"cosine_mean": 1.0, "cosine_min": 1.0} if self.program else {}
        return {"layers": [], **ones, **score_fields(outputs.scores, outputs.scores)}

    def _measure(self, job: Job, mode: str, quantized: _Quantized) -> dict[str, Any]:
        activations = _ActivationError(self.engine, job.activations.format) if mode == BOTH else None
        record = worst_and_median("sqnr", quantized.sqnr)
        if self.program is not None:
            reference = self._reference[0]
            outputs = self._run_quantized(self.program, quantized.matrices, activations)
            cosine = outputs.cosines(reference)
            record |= {"cosine_mean": float(cosine.mean()), "cosine_min": float(cosine.min())}
            record |= score_fields(outputs.scores, reference.scores)
        activation_sqnr = activations.sqnr() if activations else {}
        record |= worst_and_median("activation_sqnr", activation_sqnr)
        record["layers"] = [
            [layer.name, layer.rows, layer.columns, quantized.sqnr[layer.name], activation_sqnr.get(layer.name)]
            for layer in self.weights.layers
            if layer.name in quantized.sqnr
        ]
        if quantized.failed:
            record["notes"] = " ".join(f"Left out: {n} ({_reason(e)})" for n, e in quantized.failed.items())
        return record

    def _run_quantized(
        self, program: Program, matrices: Mapping[str, Any], activations: _ActivationError | None
    ) -> Outputs:
        layers = self.weights.layers
        with ExitStack() as stack:
            stack.enter_context(evaluation(program.module))
            stack.enter_context(quantized_weights(layers, matrices))
            called = stack.enter_context(quantized_inputs(layers, activations)) if activations else None
            outputs = run_model(program.module, program.inputs, program.evaluate)
        linear = [layer.name for layer in layers if not layer.is_table]
        missed = [name for name in linear if called is not None and name not in called]
        if missed:
            names = ", ".join(missed)
            message = f"{len(missed)} layers were not called as modules; their inputs stay float32: {names}."
            warnings.warn(message, PrecisionWarning, stacklevel=2)
        return outputs


@dataclass
class _Quantized:
    """The matrices of a format, if they are needed to run the model; the SQNR of each; those that failed, and why."""

    matrices: dict[str, Any] = field(default_factory=dict)
    sqnr: dict[str, float] = field(default_factory=dict)
    failed: dict[str, Error] = field(default_factory=dict)


def _reason(error: Error) -> str:
    return f"{type(error).__name__}: {error}"


def _format_keys(job: Job | None, mode: str) -> list[str]:
    """Return what tells a measurement's formats from others; activations count where they are quantized."""
    if job is None:
        return []
    return [repr(job.weights.format), *([repr(job.activations.format)] if mode == BOTH else [])]


class _ActivationError:
    """Quantizes inputs of layers and adds up the norms of signal and noise by layer.

    Layers that read the same tensor, such as query, key and value, share one quantization.
    """

    def __init__(self, engine: Engine, fmt: Any) -> None:
        self._engine = engine
        self._format = fmt
        self._sums: dict[str, list[float]] = {}
        self._last: tuple[Any, int | None, Any, tuple[float, float]] | None = None

    def __call__(self, name: str, x: torch.Tensor) -> torch.Tensor:
        # A tensor that was changed in place since is another one; inference tensors do not count their changes.
        version = None if x.is_inference() else x._version  # noqa: SLF001
        if self._last is None or version is None or self._last[0] is not x or self._last[1] != version:
            y = self._engine.quantize(x, self._format, axis=-1)
            self._last = (x, version, y, metrics.norms(x, y))
        sums = self._sums.setdefault(name, [0.0, 0.0])
        sums[:] = map(math.hypot, sums, self._last[3])
        quantized: torch.Tensor = self._last[2]
        return quantized

    def sqnr(self) -> dict[str, float]:
        """Return the SQNR in dB of each layer's inputs so far."""
        return {name: metrics.decibels(*sums) for name, sums in self._sums.items()}


def worst_and_median(prefix: str, sqnr: Mapping[str, float]) -> dict[str, Any]:
    """Return the worst layer, its SQNR and the median; NaN counts as worst and makes the median NaN.

    Empty in, empty out.
    """
    if not sqnr:
        return {}
    order = {name: -float("inf") if value != value else value for name, value in sqnr.items()}
    worst = min(order, key=order.__getitem__)
    return {
        f"{prefix}_worst_db": sqnr[worst],
        f"{prefix}_worst_layer": worst,
        f"{prefix}_median_db": math.nan if math.isnan(sqnr[worst]) else statistics.median(sqnr.values()),
    }


def score_fields(scores: Any, reference: Any) -> dict[str, Any]:
    """Return score and change against the reference: with intervals if there is one score per example."""
    if scores is None:
        return {}
    if scores.shape != reference.shape:
        shapes = f"shape {scores.shape} here and {reference.shape} for the float32 model"
        raise ArgumentError(f"evaluate returned {shapes}; the same examples must be scored each time.")
    if scores.ndim == 0:
        return {"score": float(scores), "score_change": float(scores - reference)}
    value, change = metrics.bootstrap(scores), metrics.bootstrap(scores - reference)
    level = {"score": value.value, "score_low": value.low, "score_high": value.high}
    changes = {"score_change": change.value, "score_change_low": change.low, "score_change_high": change.high}
    return level | changes
