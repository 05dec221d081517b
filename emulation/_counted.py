"""Rounded steps that are counted: how many overflowed, became zero, or are no number."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._evaluate import evaluate
from lowp.emulation._operands import Coded, How, Settings, check_options, decoded, operand
from lowp.emulation.array import array
from lowp.emulation.neighbours import ulp
from lowp.emulation.step_statistics import StepCounts
from lowp.formats.ranked import TaperedFormat
from lowp.formats.spec import ScalarFormat
from lowp.rounding.modes import rounding
from lowp.rounding.verbs import quantize

Values = NDArray[np.float64]
_QUIET = np.errstate(all="ignore")

#: What float64 makes of the operations, near enough to tell what lies beyond a format.
_ESTIMATES: dict[str, Any] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "sqrt": np.sqrt,
    "fma": lambda a, b, c: a * b + c, "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "tanh": np.tanh,
    "power": np.power, "convert": lambda a: a, "negative": np.negative, "absolute": np.abs,
    "minimum": np.minimum, "maximum": np.maximum,
}  # fmt: skip


class Steps:
    """Does operations in formats, one after the other, and counts what happened by the name of the step.

    Each operation has a seed of its own: that of the options, plus the number of operations before.
    """

    def __init__(self, options: How) -> None:
        check_options(options)
        self._settings = Settings().changed(options)
        self._seed = self._settings.seed
        self._nearest = rounding(self._settings.rounding, self._settings.random_bits).name.startswith("ties")
        self.counts: dict[str, StepCounts] = {}

    @property
    def settings(self) -> Settings:
        """Settings of the next operation."""
        return self._settings._replace(seed=self._seed)

    def do(self, step: str, op: str, *operands: Any, fmt: ScalarFormat) -> array:
        """Return the rounded result of a named operation."""
        result = array._made(evaluate(op, operands, self.settings.options(fmt)))  # noqa: SLF001 - its own wrapper
        self._seed = (self._seed + 1) % (1 << 64)
        given = [operand(x).values for x in operands]
        self.count(step, op, given, result)
        return result

    def count(self, step: str, op: str, operands: list[Values], result: Coded) -> None:
        """Count what became of the results of an operation."""
        found = _happened(op, operands, decoded(result.codes, result.format), result.format, self._nearest)
        self.counts[step] = self.counts.get(step, StepCounts()) + found

    def lost(self, step: str, underflow: int) -> None:
        """Count nonzero numbers that were replaced by zero."""
        self.counts[step] = self.counts.get(step, StepCounts()) + StepCounts(underflow=underflow)


@_QUIET
def _happened(op: str, operands: list[Values], result: Values, fmt: ScalarFormat, nearest: bool) -> StepCounts:
    estimate = _ESTIMATES[op](*operands)
    finite, numbers = np.ones(result.shape, bool), np.ones(result.shape, bool)
    for x in operands:
        finite &= np.isfinite(x)
        numbers &= ~np.isnan(x)
    beyond = np.zeros(result.shape, bool)
    if not isinstance(fmt, TaperedFormat):
        least, most = ends(fmt, nearest)
        lost = ~np.isfinite(result) & ((estimate > fmt.max) | (estimate < fmt.min))
        beyond = finite & ((estimate > most) | (estimate < least) | lost)
    zero = finite & (result == 0) & _is_nonzero(op, operands, estimate)
    return StepCounts(
        result.size,
        int(np.count_nonzero(beyond)),
        int(np.count_nonzero(zero & ~beyond)),
        int(np.count_nonzero(np.isnan(result) & numbers & ~beyond)),
    )


@lru_cache(maxsize=256)
def ends(fmt: ScalarFormat, nearest: bool) -> tuple[float, float]:
    """Return the numbers beyond which results count as overflow even where they saturate."""
    limits = array([fmt.min, fmt.max], fmt)
    steps = ulp(limits) / (2 if nearest else 1)
    return fmt.min - float(steps[0]), fmt.max + float(steps[1])  # Python's floats overflow to infinity quietly


def _is_nonzero(op: str, operands: list[Values], estimate: Values) -> Any:
    """Return where the exact result of finite operands is not zero, though float64's may be."""
    if op in ("exp", "exp2"):
        return True
    if op in ("multiply", "divide", "power"):
        return (operands[0] != 0) & ((operands[1] != 0) | (op == "power"))
    return estimate != 0


def rounded_constant(value: float, fmt: ScalarFormat) -> float:
    """Return a constant as a format stores it: nearest, saturated."""
    return float(quantize(np.array(value), fmt))


__all__ = ["Steps", "ends", "rounded_constant"]
