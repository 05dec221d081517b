"""Accuracy against cost: run a model in many number formats, measure what is lost, predict what it costs.

`study` is the function; the modules behind it, in the order of use:

    cases       which formats          models, demo, data   what is run, and on what
    runner      the loop               retrieval, metrics   how it is judged
    costs       hardware predictions   store, results       what is kept
    columns     meaning of columns     tables, plots, report   what people see
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lowp.studies.cases import DEFAULT_CASES, DEFAULT_DEVICES, MODES, Case
from lowp.studies.costs import BATCH_ROWS
from lowp.studies.results import LayerError, Row, StudyResult

__all__ = ["DEFAULT_CASES", "DEFAULT_DEVICES", "MODES", "Case", "LayerError", "Row", "StudyResult", "study"]


def study(
    model: Any = None,
    data: Any = None,
    formats: Iterable[Any] | None = None,
    devices: Sequence[str] | None = None,
    *,
    evaluate: Callable[[list[Any]], Any] | None = None,
    out: str | os.PathLike[str] = "study",
    mode: str | Iterable[str] | None = None,
    batch_rows: int = BATCH_ROWS,
    embeddings: bool = False,
    resume: bool = True,
    progress: bool = True,
    engine: Any = None,
    hardware: Any = None,
) -> StudyResult:
    """Measure what number formats do to a model and predict what they cost; write tables, plots and a report.

    Quantized are the weights of all `torch.nn.Linear` layers, with scales along the inputs of the products (axis -1),
    and with mode "weights+activations" also each layer's input, along its last axis. Everything else, such as
    attention scores, normalisation and embeddings, stays as it is. The module is given back as it came.

    Files in `out`: results.csv, results.json, layers.csv, report.html, accuracy_cost.png, accuracy_energy.png,
    layer_error.png, and state.jsonl. The first three are whole after every format. After an interrupt (the
    KeyboardInterrupt is passed on) a second call runs the float32 model and measures only what is missing: a
    measurement is known by a hash of weights, formats, settings, the float32 model's inputs and outputs, and their
    scores. A change of `evaluate` that leaves its name and the float32 scores as they are needs `resume=False`.

    A `PrecisionWarning`, and a line in the report, names the parameters of two or more dimensions that stay as they
    are.

    Args:
        model: A torch module; the path of a safetensors file, whose matrices are studied without running anything; or
            None for the demo, the sentence-embedding model all-MiniLM-L6-v2 on a retrieval task.
        data: Inputs of the module, or a function that returns them. A tuple or list is passed as positional
            arguments, a mapping as keywords, anything else as one argument. Without data only the weights are studied.
        formats: Names, formats, pairs (weights, activations) or `Case`s; default `DEFAULT_CASES`.
        devices: Devices to predict time and energy for; default H100, H200 and B200; an empty list for none.
        evaluate: Function from the list of the module's outputs to a score, higher being better: one number, or one
            per example, which gives bootstrap intervals.
        out: Folder for the files; created if missing.
        mode: "weights", "weights+activations", or both; default all that is possible.
        batch_rows: Rows of activations in the predicted matrix products.
        embeddings: Whether to quantize `torch.nn.Embedding` tables too; their cost as matrix products is not counted.
        resume: Whether to keep what an earlier run finished in `out`.
        progress: Whether to show a progress bar on stderr.
        engine: What parses and quantizes; default `lowp` itself. Anything with its `parse` and `quantize` will do.
        hardware: What predicts costs; default `lowp.hw`. Anything with its `matmuls_cost` will do.

    Returns:
        The rows, the errors by layer, and where the files are.

    Raises:
        FormatError: A format's name is not known.
        FileError: `out` cannot be written, or the model's file is missing, corrupted or truncated.
        ArgumentError: A mode or device is not known, there is nothing to quantize, or a layer's weight is not a plain
            parameter (pruned, parametrized, or not initialized).
        ArgumentTypeError: An argument is of the wrong kind.
    """
    from lowp.studies.session import Request, run_study

    return run_study(
        Request(
            model=model,
            data=data,
            formats=formats,
            devices=DEFAULT_DEVICES if devices is None else devices,
            evaluate=evaluate,
            out=out,
            mode=mode,
            batch_rows=batch_rows,
            embeddings=embeddings,
            resume=resume,
            progress=progress,
            engine=engine,
            hardware=hardware,
        )
    )
