"""A point of an exploration: formats, a machine, and what was found out about them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.space import Candidate, Machine, point_id

#: What can be asked for: which way is better, the unit, and what it is.
METRICS: dict[str, tuple[str, str, str]] = {
    "time": ("min", "s", "of the workload's products on a GPU"),
    "energy": ("min", "J", "of the workload's products on a GPU"),
    "size": ("min", "B", "storage of the workload's weights, scales included"),
    "bits": ("min", "bit", "storage per weight, scales included"),
    "area": ("min", "", "of a unit"),
    "unit_energy": ("min", "J", "of one step of a unit"),
    "lut": ("min", "LUT", "of a unit on an FPGA"),
    "ff": ("min", "FF", "of a unit on an FPGA"),
    "dsp": ("min", "DSP", "of a unit on an FPGA"),
    "bram": ("min", "", "of a unit on an FPGA"),
    "clock": ("max", "Hz", "of a unit on an FPGA"),
    "weight_error": ("min", "", "relative mean squared error of the weights"),
    "activation_error": ("min", "", "relative mean squared error of the activations"),
    "error": ("min", "", "relative mean squared error of the product, or of the weights where they are alone"),
    "sqnr": ("max", "dB", "-10 log10 of `error`"),
    "accuracy": ("max", "", "what the caller's function returns"),
    "loss": ("min", "", "if the caller's function returns it"),
    "perplexity": ("min", "", "if the caller's function returns it"),
}
#: Columns that every point has, before those of its metrics.
COLUMNS = ("id", "weights", "activations", "accumulator", "machine", "kind", "weight_bits", "activation_bits", "reason")
#: Endings of a metric's columns after its value.
_PARTS = ("low", "high", "unit", "bound", "provenance", "shares")


class Metric(NamedTuple):
    """A number with its interval.

    Attributes:
        value: The best guess, any number but NaN.
        low: Lower end of the interval.
        high: Upper end.
        unit: SI unit, or "".
        bound: What decides it, if a model says so.
        provenance: Where it is from.
        shares: What it is made of: for each way to divide it, parts and their shares of the whole.
    """

    value: float
    low: float
    high: float
    unit: str = ""
    bound: str = ""
    provenance: str = ""
    shares: Mapping[str, Mapping[str, float]] = {}

    @classmethod
    def of(cls, value: Any, name: str = "value", **rest: Any) -> Metric:
        """Return a metric of a number, which has no interval, or of an Estimate.

        Raises:
            ArgumentTypeError: `value` is neither, or NaN.
            ArgumentError: A metric whose numbers are not in the order low, value, high.
        """
        if isinstance(value, Metric):
            return _ordered(value, name)
        if isinstance(value, Estimate):
            ends = float(value.value), float(value.low), float(value.high)
            return cls(*ends, value.unit, value.bound, value.provenance, **rest)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isnan(number):
            raise ArgumentTypeError(f"{name}={value!r} must be a number that is not NaN, or an Estimate.")
        return cls(number, number, number, **rest)

    def __str__(self) -> str:
        if self.unit and self.low >= 0 and self.high < math.inf:
            text = str(Estimate(self.value, self.low, self.high, self.unit, self.bound, "")).replace(", )", ")")
            return text if self.low < self.high else text.split(" (")[0]
        unit = f" {self.unit}" if self.unit else ""
        interval = f" ({self.low:.4g} to {self.high:.4g})" if self.low < self.high else ""
        return f"{self.value:.4g}{unit}{interval}"


def _ordered(metric: Metric, name: str) -> Metric:
    low, value, high = float(metric.low), float(metric.value), float(metric.high)
    if not low <= value <= high:
        raise ArgumentError(f"{name}={metric!r} must have low <= value <= high, none of them NaN.")
    return metric._replace(low=low, value=value, high=high)


@dataclass(frozen=True)
class Point:
    """A candidate on a machine.

    Attributes:
        id: The same in every run.
        weights: Name of the weights' format.
        activations: Name of the activations' format.
        accumulator: Name of the accumulator; "" where it was left to the machine.
        machine: Name of the machine; "" if there is none.
        kind: "gpu", "unit", "function" or "none".
        weight_bits: Storage bits of a weight, its share of the scales included.
        activation_bits: The same of an activation.
        metrics: What was found out.
        reason: Why some or all metrics are missing; else "".
    """

    id: str
    weights: str
    activations: str
    accumulator: str
    machine: str
    kind: str
    weight_bits: float
    activation_bits: float
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    reason: str = ""

    @property
    def name(self) -> str:
        """Formats, accumulator and machine in one line."""
        formats = self.weights if self.weights == self.activations else f"{self.weights} x {self.activations}"
        return (
            formats
            + (f" + {self.accumulator}" if self.accumulator else "")
            + (f" on {self.machine}" if self.machine else "")
        )

    def record(self) -> dict[str, Any]:
        """Return the point as one flat row: what stores keep and `from_record` reads."""
        row: dict[str, Any] = {column: getattr(self, column) for column in COLUMNS}
        for name, metric in self.metrics.items():
            row[name] = metric.value
            row |= {f"{name}_{part}": getattr(metric, part) for part in _PARTS[:-1]}
            row[f"{name}_shares"] = json.dumps(metric.shares)
        return row

    @classmethod
    def from_record(cls, row: Mapping[str, Any]) -> Point:
        """Return the point that a flat row describes."""
        metrics = {
            name.removesuffix("_shares"): _metric(row, name.removesuffix("_shares"))
            for name, value in row.items()
            if name.endswith("_shares") and value is not None
        }
        return cls(**{column: row[column] for column in COLUMNS}, metrics=metrics)


def _metric(row: Mapping[str, Any], name: str) -> Metric:
    parts = {part: row[f"{name}_{part}"] for part in _PARTS[:-1]}
    return Metric(row[name], **parts, shares=json.loads(row[f"{name}_shares"]))


def named_metrics(given: Any, whose: str) -> dict[str, Metric]:
    """Return the metrics that a caller's function gives by name.

    Names that differ in upper and lower case alone are one name to SQLite, and so are not told apart here either.

    Raises:
        ArgumentTypeError: It gives no dict, or a value is neither a number nor an Estimate.
        ArgumentError: A name is no identifier, one that the result table needs itself, or another one but for its case.
    """
    if not isinstance(given, Mapping):
        raise ArgumentTypeError(f"{whose} gives {given!r}; allowed: a dict of numbers or Estimates by name.")
    seen = {name: name for name in METRICS}
    for name in given:
        folded = str(name).lower()
        taken = folded in COLUMNS or folded.endswith(tuple(f"_{part}" for part in _PARTS))
        if not isinstance(name, str) or not name.isidentifier() or taken:
            endings = ", ".join(f"_{part}" for part in _PARTS)
            raise ArgumentError(
                f"{whose} names a metric {name!r}; allowed: identifiers other than {', '.join(COLUMNS)}, and without "
                f"the endings {endings}."
            )
        if seen.setdefault(folded, name) != name:
            raise ArgumentError(f"{whose} names a metric {name!r}; allowed: {seen[folded]!r}, or another name.")
    return {name: Metric.of(value, name) for name, value in given.items()}


def point(candidate: Candidate, machine: Machine, metrics: Mapping[str, Metric], reason: str) -> Point:
    """Return the point of a candidate on a machine."""
    weights, activations, accumulator = candidate.names
    bits = (float(candidate.weights.bits_per_value), float(candidate.activations.bits_per_value))  # type: ignore[attr-defined]
    names = (point_id(candidate, machine), weights, activations, accumulator, machine.name, machine.kind)
    return Point(*names, *bits, dict(metrics), reason)
