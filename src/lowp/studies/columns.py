"""What each column of the results means: the one source for files, tables and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of results.csv and results.json."""

    name: str
    unit: str
    meaning: str


COLUMNS = (
    Column("weights", "", "Number format of the weight matrices."),
    Column("activations", "", "Number format of what the weight matrices are multiplied with; float32: not quantized."),
    Column("mode", "", "weights: only weights are quantized. weights+activations: both operands of every product."),
    Column("family", "", "Family of the weights' format."),
    Column("bits_per_value", "bit", "Storage of one weight, with its share of all scales and zero points. Exact."),
    Column("weight_bytes", "byte", "All quantized matrices, scales included; a shared one once. Exact."),
    Column("model_bytes", "byte", "The whole model: quantized matrices, and all else in the type it came in. Exact."),
    Column("sqnr_worst_db", "dB", "Signal-to-quantization-noise ratio of the worst weight matrix; 6 dB are a bit."),
    Column("sqnr_worst_layer", "", "Name of that matrix."),
    Column("sqnr_median_db", "dB", "The same ratio, median over the weight matrices."),
    Column("activation_sqnr_worst_db", "dB", "The same ratio of the worst layer's inputs over all data."),
    Column("activation_sqnr_worst_layer", "", "Name of that layer."),
    Column("activation_sqnr_median_db", "dB", "The same ratio, median over the layers' inputs."),
    Column("cosine_mean", "", "Cosine of each output with the float32 model's output, mean over the data."),
    Column("cosine_min", "", "The smallest such cosine."),
    Column("score", "", "The task's score, higher is better; for the demo MRR@10 (see the task)."),
    Column("score_low", "", "Lower end of its 95 % bootstrap interval over the examples."),
    Column("score_high", "", "Upper end of that interval."),
    Column("score_change", "", "Score minus the float32 model's score on the same examples."),
    Column("score_change_low", "", "Lower end of its 95 % paired bootstrap interval."),
    Column("score_change_high", "", "Upper end of that interval; if the interval holds 0, no loss was shown."),
)
TAIL = (
    Column("seconds", "s", "How long this line took to measure here. Says nothing about the format's speed."),
    Column("notes", "", "What could not be measured or predicted, and why."),
)


def cost_columns(devices: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of the predicted costs on some devices."""
    columns = []
    for device in devices:
        for quantity, unit in (("time", "s"), ("energy", "J")):
            name = f"{device}_{quantity}_{unit.lower()}"
            what = f"Predicted {quantity} of all matrix products on {device}"
            columns.append(Column(name, unit, f"{what}."))
            columns.append(Column(f"{name}_low", unit, f"{what}, low end of the estimate."))
            columns.append(Column(f"{name}_high", unit, f"{what}, high end of the estimate."))
    return tuple(columns)


def all_columns(devices: Sequence[str]) -> tuple[Column, ...]:
    """Return every column of a study on some devices, in order."""
    return (*COLUMNS, *cost_columns(devices), *TAIL)
