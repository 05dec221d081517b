"""Published numbers that the models are held against, one row of data and one prediction each.

A row says who published what, how close a sound model should come and how the prediction stands; the prediction is a
function that calls the models as a user would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from lowp._errors import ArgumentError, unknown_name
from lowp.hw_models.tables import rows

AREAS = ("gpu", "fpga", "lut", "asic", "cpu")
KINDS = ("identity", "analytic", "performance", "ordinal")
#: `reproduced`: within the tolerance. `missed`: predicted, not within it. The other two: not predicted, for a reason.
STANDINGS = ("reproduced", "missed", "open", "out of reach")
#: What a prediction owes to the number itself; "" is nothing.
BASES = {
    "": "the number was not used",
    "fitted": "a coefficient of the model is fitted to it, or to figures that it is among or made of",
    "stored": "the model's data hold it as it is published",
}

Prediction = Callable[[], float]
_PREDICTIONS: dict[str, Prediction] = {}


@dataclass(frozen=True)
class Check:
    """A published number and what the models say.

    Attributes:
        key: Name of the row.
        area: "gpu", "fpga", "lut", "asic" or "cpu".
        quantity: What it is.
        published: The number as its source gives it, in `unit`.
        predicted: What the models give; NaN if they cannot, for `reason`.
        unit: Of both.
        tolerance: Allowed |predicted / published - 1|; with mode "absolute", |predicted - published|; with "below",
            unused: predicted must be at most published.
        mode: "relative", "absolute" or "below".
        kind: "identity", "analytic", "performance" or "ordinal".
        standing: "reproduced", "missed", "open" or "out of reach", as the data says.
        source: Who published it, and where.
        reason: Why it is not reproduced; else empty.
        basis: What the prediction owes to the number, "fitted", "stored" or, if nothing, "": see `BASES`.
    """

    key: str
    area: str
    quantity: str
    published: float
    predicted: float
    unit: str
    tolerance: float
    mode: str
    kind: str
    standing: str
    source: str
    reason: str
    basis: str = ""

    @property
    def error(self) -> float:
        """Predicted over published, less 1."""
        if self.published == 0:
            return 0.0 if self.predicted == 0 else math.inf
        return self.predicted / self.published - 1

    @property
    def within(self) -> bool:
        """Whether the prediction is within the tolerance."""
        if self.mode == "below":
            return self.predicted <= self.published
        if self.mode == "absolute":
            return abs(self.predicted - self.published) <= self.tolerance
        return abs(self.error) <= self.tolerance * (1 + 1e-12)


def predicts(key: str) -> Callable[[Prediction], Prediction]:
    """Register a function as the prediction of a row."""

    def register(function: Prediction) -> Prediction:
        if key in _PREDICTIONS:
            raise ArgumentError(f"key={key!r} has a prediction already.")
        _PREDICTIONS[key] = function
        return function

    return register


def validate(area: str | None = None) -> list[Check]:
    """Return every published number with its prediction.

    Args:
        area: Only those of "gpu", "fpga", "lut", "asic" or "cpu".

    Raises:
        ArgumentError: The area is unknown.

    Example:
        >>> checks = validate("gpu")
        >>> all(check.within for check in checks if check.standing == "reproduced")
        True
    """
    if area is not None and area not in AREAS:
        raise ArgumentError(unknown_name("area", area, AREAS))
    return [_check(name, row) for name in AREAS if area in (None, name) for row in _rows(name)]


def _rows(area: str) -> tuple[dict[str, str], ...]:
    import_module(f"lowp.hw_models.validated_{area}")
    return rows(f"validation_{area}")


def _check(area: str, row: dict[str, str]) -> Check:
    predicted = _PREDICTIONS[row["key"]]() if row["standing"] in ("reproduced", "missed") else math.nan
    return Check(
        row["key"],
        area,
        row["quantity"],
        float(row["published"] or "nan"),
        predicted,
        row["unit"],
        float(row["tolerance"] or "nan"),
        row["mode"] or "relative",
        row["kind"],
        row["standing"],
        row["source"],
        row["reason"],
        row["basis"],
    )
