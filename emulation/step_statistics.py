"""What happened in a computation whose every step is rounded: counts by step, and errors of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepCounts:
    """What happened in the operations of one kind of step.

    Args:
        operations: How many results were computed.
        overflow: Results of finite operands that lie beyond the format's range (rounded as if there were no end), or
            are a number divided by zero. Formats that saturate count them too; posits and takums have none.
        underflow: Nonzero results that became zero.
        nan: NaN from operands that are numbers, and not by overflow.
    """

    operations: int = 0
    overflow: int = 0
    underflow: int = 0
    nan: int = 0

    def __add__(self, other: StepCounts) -> StepCounts:
        return StepCounts(
            self.operations + other.operations,
            self.overflow + other.overflow,
            self.underflow + other.underflow,
            self.nan + other.nan,
        )


@dataclass(frozen=True)
class Errors:
    """Errors of the outputs that are numbers.

    Args:
        outputs: How many outputs there are.
        failed: How many are NaN or infinite though the exact result is a number; the errors do not count them.
        mean_absolute: Mean of the absolute errors.
        max_absolute: Largest absolute error.
        mean_ulps: Mean error in steps of the result's format at the exact result (see `lowp.ulp`).
        max_ulps: Largest error in such steps.
    """

    outputs: int
    failed: int
    mean_absolute: float
    max_absolute: float
    mean_ulps: float
    max_ulps: float


@dataclass(frozen=True)
class StepStatistics:
    """Counts by step, and errors against the exact result of the rounded inputs.

    Args:
        steps: Name of a step to its counts.
        errors: Errors of the outputs.
    """

    steps: Mapping[str, StepCounts] = field(hash=False)
    errors: Errors

    @property
    def total(self) -> StepCounts:
        """Counts of all steps together."""
        return sum(self.steps.values(), StepCounts())

    @property
    def overflow(self) -> int:
        """Overflows in all steps."""
        return self.total.overflow

    @property
    def underflow(self) -> int:
        """Nonzero results that became zero, in all steps."""
        return self.total.underflow

    @property
    def nan(self) -> int:
        """NaN that appeared, in all steps."""
        return self.total.nan

    @property
    def failed(self) -> int:
        """Outputs that are NaN or infinite though the exact result is a number."""
        return self.errors.failed

    @property
    def mean_absolute_error(self) -> float:
        """Mean absolute error of the outputs."""
        return self.errors.mean_absolute

    @property
    def max_absolute_error(self) -> float:
        """Largest absolute error of the outputs."""
        return self.errors.max_absolute

    @property
    def mean_ulps(self) -> float:
        """Mean error of the outputs, in steps of the result's format."""
        return self.errors.mean_ulps

    @property
    def max_ulps(self) -> float:
        """Largest error of the outputs, in steps of the result's format."""
        return self.errors.max_ulps

    def __str__(self) -> str:
        """Return a table of the steps, and the errors."""
        rows = [["step", "operations", "overflow", "underflow", "NaN"]]
        rows += [[k, *(str(n) for n in (c.operations, c.overflow, c.underflow, c.nan))] for k, c in self.steps.items()]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = []
        for first, *others in rows:
            cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
            lines.append("  ".join(cells))
        return "\n".join([*lines, *self._said()])

    def _said(self) -> list[str]:
        e = self.errors
        said = [
            f"absolute error: mean {e.mean_absolute:.3g}, largest {e.max_absolute:.3g}",
            f"error in ulps: mean {e.mean_ulps:.3g}, largest {e.max_ulps:.3g}",
        ]
        return said if not e.failed else [*said, f"failed: {e.failed} of {e.outputs} outputs are NaN or infinite"]
