"""Errors of an approximation over all numbers of a format, against the exact function and the correctly rounded one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError
from lowp.emulation import _accurate, _reference_functions
from lowp.emulation._counted import ends
from lowp.emulation._operands import array_format, decoded
from lowp.emulation._order import ranks
from lowp.emulation._rows import given_numbers
from lowp.emulation.approximations import Approximation, OperationCounts
from lowp.emulation.array import array
from lowp.formats.spec import ScalarFormat
from lowp.formats.tables import code_dtype

_EXHAUSTIVE_BITS = 16


@dataclass(frozen=True)
class UlpReport:
    """Errors of an approximation in a format.

    An ulp is a step of the format at the correctly rounded result, to the next larger magnitude (`lowp.ulp`). Arguments
    whose exact result lies beyond the format's range, or is not a number, do not count.

    Args:
        approximation: Its name.
        format: Name of the format.
        lo: Least argument that counts.
        hi: Largest argument that counts.
        inputs: Arguments that count.
        beyond: Arguments between `lo` and `hi` that do not.
        failed: Results that are NaN or infinite where they should be numbers; they make `max_ulps` infinite, and the
            means leave them out.
        max_ulps: Largest |result - exact| in ulps.
        mean_ulps: Mean of the same.
        at: The argument of the largest error, the least in magnitude of several.
        got: The result there.
        expected: The correctly rounded result there.
        max_steps: Largest distance from the correctly rounded result, in numbers of the format.
        mean_steps: Mean of the same.
        correctly_rounded: Fraction of the results that are correctly rounded; zeros of either sign are equal.
        max_absolute: Largest absolute error.
        max_relative: Largest relative error where the correctly rounded result is a normal number, and not zero.
        operations: Operations of one evaluation.
    """

    approximation: str
    format: str
    lo: float
    hi: float
    inputs: int
    beyond: int
    failed: int
    max_ulps: float
    mean_ulps: float
    at: float
    got: float
    expected: float
    max_steps: float
    mean_steps: float
    correctly_rounded: float
    max_absolute: float
    max_relative: float
    operations: OperationCounts

    @property
    def digits(self) -> float:
        """Decimal digits: `-log10` of the largest relative error, as AutoNumerics-Zero counts accuracy."""
        return math.inf if self.max_relative == 0 else -math.log10(self.max_relative)

    def __str__(self) -> str:
        """Return a card."""
        lines = [
            f"{self.approximation} in {self.format}, {self.inputs} arguments from {self.lo:.6g} to {self.hi:.6g}",
            f"  error in ulps: mean {self.mean_ulps:.4g}, largest {self.max_ulps:.4g} at x = {self.at!r}: "
            f"{self.got!r} instead of {self.expected!r}",
            f"  correctly rounded: {100 * self.correctly_rounded:.2f} %; largest distance {self.max_steps:g} numbers",
            f"  {self.operations.total} operations: {self.operations}",
        ]
        return "\n".join(lines if not self.failed else [*lines, f"  failed: {self.failed} results are NaN or infinite"])


def measured(
    approximation: Approximation,
    fmt: Any,
    lo: Any = None,
    hi: Any = None,
    *,
    inputs: Any = None,
    fused: bool = True,
    **options: Any,
) -> UlpReport:
    """Return the errors over all numbers of a format between `lo` and `hi`.

    Args:
        approximation: What is measured.
        fmt: A scalar format of at most 16 bits, or a wider one with `inputs`.
        lo: Least argument; None: that of the approximation's domain.
        hi: Largest argument.
        inputs: Arguments to measure instead of all numbers of the format; rounded into it.
        fused: Whether a product and a sum are rounded once, together.
        **options: How operations round: rounding, overflow, seed, ...

    Raises:
        ArgumentError: A wide format without inputs; a range without arguments.
    """
    form = array_format(fmt, "fmt")
    low, high = approximation.bounds(form)
    low, high = (low if lo is None else _bound(lo, "lo")), (high if hi is None else _bound(hi, "hi"))
    if not low <= high:
        raise ArgumentError(f"lo={low!r} is not below hi={high!r}.")
    x = _arguments(form, inputs)
    values = decoded(x.codes, form)
    x = _chosen(x, (values >= low) & (values <= high))
    if not x.codes.size:
        raise ArgumentError(f"{form.name!r} has no arguments from lo={low!r} to hi={high!r}.")
    want = _reference_functions.rounded(approximation.function, x, form)
    exact = _reference_functions.exact(approximation.function, x, _accurate.is_fine(form))
    least, most = ends(form, nearest=True)
    about = _accurate.as_floats(exact)
    counts = np.isfinite(want.values) & (about <= most) & (about >= least)
    exact = exact[counts]
    if not exact.size:
        raise RangeError(f"{approximation.function} is beyond {form.name!r} everywhere from lo={low!r} to hi={high!r}.")
    got = approximation.evaluate(_chosen(x, counts), form, fused=fused, **options)
    return _report(approximation, (low, high), _chosen(x, counts), got, _chosen(want, counts), exact, x.size, fused)


def _bound(given: Any, argument: str) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if math.isnan(value):
        raise ArgumentError(f"{argument}={given!r} must be a number.")
    return value


def _arguments(fmt: ScalarFormat, inputs: Any) -> array:
    if inputs is not None:
        return array(given_numbers(inputs), fmt).ravel()
    if fmt.bits > _EXHAUSTIVE_BITS:
        raise ArgumentError(
            f"fmt={fmt.name!r} has {fmt.bits} bits: all numbers are measured up to {_EXHAUSTIVE_BITS}; give inputs=."
        )
    codes = np.arange(1 << fmt.bits, dtype=code_dtype(fmt.bits))
    return array.from_codes(codes, fmt)


def _chosen(x: array, which: NDArray[np.bool_]) -> array:
    return array.from_codes(x.codes[which], x.format)


def _report(
    approximation: Approximation,
    domain: tuple[float, float],
    x: array,
    got: array,
    want: array,
    exact: _accurate.Numbers,
    asked: int,
    fused: bool,
) -> UlpReport:
    fmt, results, targets = x.format, got.values, want.values
    proper = np.isfinite(results)
    with np.errstate(all="ignore"):
        gaps = np.full(x.shape, np.inf)
        finite = _chosen(got, proper)
        gaps[proper] = _accurate.as_floats(abs(_accurate.numbers(finite, exact.dtype == object) - exact[proper]))
        ulps = gaps / _accurate.ulps_of(exact, fmt)
        relative = gaps / np.abs(_accurate.as_floats(exact))
        steps = np.abs(_places(got, fmt) - _places(want, fmt)).astype(np.float64)
    steps[~proper] = np.inf
    worst = _worst(ulps, x.values)
    normal = (np.abs(targets) >= fmt.smallest_normal) & (targets != 0)
    return UlpReport(
        approximation.name,
        fmt.name,
        *domain,
        inputs=int(x.size),
        beyond=int(asked - x.size),
        failed=int(np.count_nonzero(~proper)),
        max_ulps=float(ulps.max()),
        mean_ulps=float(ulps[proper].mean()) if proper.any() else math.nan,
        at=float(x.values[worst]),
        got=float(results[worst]),
        expected=float(targets[worst]),
        max_steps=float(steps.max()),
        mean_steps=float(steps[proper].mean()) if proper.any() else math.nan,
        correctly_rounded=float(np.count_nonzero(proper & (steps == 0)) / x.size),
        max_absolute=float(gaps.max()),
        max_relative=float(relative[normal].max()) if normal.any() else math.nan,
        operations=approximation.operations(fused),
    )


def _places(x: array, fmt: ScalarFormat) -> NDArray[np.int64]:
    """Return ranks in which both zeros are one."""
    rank = ranks(x.codes, fmt)
    return np.where(rank < 0, rank + 1, rank) if fmt.has_negative_zero else rank


def _worst(ulps: NDArray[np.float64], x: NDArray[np.float64]) -> int:
    """Return the place of the largest error, of several the one nearest to zero."""
    places = np.flatnonzero(ulps == ulps.max())
    return int(places[np.argmin(np.abs(x[places]))])


__all__ = ["UlpReport", "measured"]
