"""Softmax as machines compute it: three passes, online, or with exponents apart; every step rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation import _accurate
from lowp.emulation._counted import Steps
from lowp.emulation._operands import Coded, How, array_format, decoded
from lowp.emulation._rows import back, given_numbers, rows_first, sum_of_rows
from lowp.emulation._softmax_passes import ALGORITHMS, DIVISIONS, Formats, Rows, exponential, masked_rows
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.array import array
from lowp.emulation.step_statistics import StepStatistics
from lowp.formats.spec import Format, ScalarFormat

if TYPE_CHECKING:
    from lowp.emulation.approximations import Approximation


@dataclass(frozen=True)
class SoftmaxStatistics(StepStatistics):
    """What happened in a softmax, and its errors against the exact softmax of the rounded inputs.

    Args:
        steps: Name of a step to its counts: "input", "difference", "exp", "sum", ...
        errors: Errors of the outputs.
        mean_sum_minus_one: Mean over the rows of the outputs' exact sum minus one; rows with NaN do not count.
        max_sum_minus_one: That of the row where it is largest in magnitude, with its sign.
    """

    mean_sum_minus_one: float = 0.0
    max_sum_minus_one: float = 0.0

    def _said(self) -> list[str]:
        mean, most = self.mean_sum_minus_one, self.max_sum_minus_one
        return [*super()._said(), f"sum of a row minus one: mean {mean:.3g}, largest {most:.3g}"]


@dataclass(frozen=True, eq=False)
class SoftmaxResult:
    """A softmax and what happened on the way.

    Args:
        array: The outputs in their format, in the shape of the inputs.
        statistics: Counts and errors.
    """

    array: array
    statistics: SoftmaxStatistics

    @property
    def values(self) -> NDArray[np.float64]:
        """The outputs as float64."""
        return self.array.values


def softmax(
    x: Any,
    fmt: str | Format,
    algorithm: str = "three_pass",
    axis: int = -1,
    *,
    exp: str | Format | None = None,
    accumulator: str | Format | Accumulator | None = None,
    result: str | Format | None = None,
    exp_by: str | Approximation | None = None,
    division: str | None = None,
    fused: bool = False,
    **options: Unpack[How],
) -> SoftmaxResult:
    """Return the softmax along an axis, computed in low precision; every step is correctly rounded into its format.

    - "three_pass": m = max x; d = the sum of e = exp(x - m), from the first to the last; y = e / d.
    - "online": m' = max(m, x), d' = d * exp(m - m') + exp(x - m') for one x after the other; y = exp(x - m) / d. While
      m' is -infinity, d stays 0.
    - "two_pass": exp(x) = p * 2^n with an integer n, p between 0.7 and 1.42; sums are such pairs (s, e):
      e' = max(e, n), s' = s * 2^(e - e') + p * 2^(n - e'); y = p * (1 / s) * 2^(n - e). There is no maximum, and
      nothing overflows for large x. Powers of two below 2^-126 are 0.

    -infinity is a mask, also in formats without infinities: its exponential is zero. A row of -infinity alone is 0 / 0
    (with a reciprocal, 0 times 1 / 0): NaN, or zeros where 1 / 0 saturates. A row with NaN gives NaN. So does one with
    infinity that stays one in `fmt` (by `overflow` it may become the largest number), but for the zeros that "two_pass"
    gives beside it. The mantissa p is 1 where numbers of the format are 128 and more apart.

    Args:
        x: Numbers, rounded into `fmt` first, but for -infinity; an array in any format.
        fmt: Format of the inputs, and of what no other argument says.
        algorithm: "three_pass", "online" or "two_pass".
        axis: The axis along which outputs sum to one.
        exp: Format of differences, of reduced arguments and of exponentials.
        accumulator: Format of the sum, or with "three_pass" also "exact" (the exact sum, rounded once into `exp`) or a
            `lowp.Accumulator`.
        result: Format of the outputs.
        exp_by: An approximation of exp (see `lowp.emulation.approximations`) that is evaluated in the format `exp`;
            None: correctly rounded exponentials.
        division: "divide" by the sum, or multiply by its "reciprocal", which is rounded into the accumulator. Default
            "divide", for "two_pass" "reciprocal".
        fused: Whether "online" and "two_pass" multiply and add in one rounding.
        **options: How steps round: rounding, overflow, seed, random_bits, saturation_bits, nan.

    Returns:
        The outputs, the counts of overflow, underflow and NaN by step, and the errors.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: An argument that is not allowed.
        RangeError: NaN where a format has none.

    Source:
        M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867; M. Dukhan,
        A. Ablavatski, "Two-Pass Softmax Algorithm", arXiv 2001.04438; XNNPACK's f32-raddextexp and f32-vscaleextexp.

    Example:
        >>> x = np.linspace(-20.0, 20.0, 41)
        >>> low = softmax(x, "float16")
        >>> low.statistics.underflow, round(low.statistics.max_ulps, 2)
        (23, 0.79)
        >>> softmax([1.0, -np.inf, 2.0], "posit16").values.round(3).tolist()
        [0.269, 0.0, 0.731]
        >>> round(softmax(x, "float16", exp="float32", accumulator="float32").statistics.max_ulps, 2)
        0.49
    """
    steps = Steps(options)
    formats, sum_by = _formats(fmt, algorithm, exp, accumulator, result)
    wanted = _named("division", division or ("reciprocal" if algorithm == "two_pass" else "divide"), DIVISIONS)
    by = None if exp_by is None else exponential(exp_by, reduced=algorithm == "two_pass")
    given, masked = _read(steps, x, formats.input)
    rows = Rows(rows_first(given, axis))
    if masked is not None:
        rows = masked_rows(rows.x, np.moveaxis(masked, axis, 0).reshape(rows.x.shape))
    if algorithm == "three_pass" and sum_by is not None:
        made = ALGORITHMS[algorithm](steps, rows, formats, wanted, fused, by, lambda e: sum_of_rows(steps, e, sum_by))
    else:
        made = ALGORITHMS[algorithm](steps, rows, formats, wanted, fused, by, None)
    statistics = _statistics(steps, rows, made)
    return SoftmaxResult(back(made, given.shape, axis), statistics)


def _read(steps: Steps, x: Any, fmt: ScalarFormat) -> tuple[array, NDArray[np.bool_] | None]:
    """Return the rounded inputs, and where -infinity was that the format does not have, zeros in its place."""
    given = given_numbers(x)
    masked = None
    if not (fmt.has_infinity and fmt.signed):
        values = decoded(given.codes, given.format) if isinstance(given, Coded) else given
        masked = np.isneginf(values) if values.dtype.kind == "f" else None
    if masked is None or not masked.any():
        return steps.do("input", "convert", given, fmt=fmt), None
    if isinstance(given, Coded):
        given = array.from_codes(given.codes.copy(), given.format)
        given[masked] = 0.0
    else:
        given = np.where(masked, given.dtype.type(0), given)
    return steps.do("input", "convert", given, fmt=fmt), masked


def _named(argument: str, value: Any, allowed: Any) -> str:
    if value not in allowed:
        raise ArgumentError(unknown_name(argument, value, allowed))
    return str(value)


def _formats(
    fmt: Any, algorithm: Any, exp: Any, accumulator: Any, result: Any
) -> tuple[Formats, Accumulator | str | None]:
    """Return the formats of the steps, and how sums are made where that is not one by one."""
    _named("algorithm", algorithm, ALGORITHMS)
    form = array_format(fmt, "fmt")
    inner = form if exp is None else array_format(exp, "exp")
    outer = form if result is None else array_format(result, "result")
    if isinstance(accumulator, Accumulator) or accumulator in ("exact", "quire"):
        if algorithm != "three_pass":
            raise ArgumentError(
                f"accumulator={accumulator!r} with algorithm={algorithm!r}: a sum that is rescaled on the way is kept "
                "in a format; give one, or use algorithm='three_pass'."
            )
        kept = (
            inner
            if isinstance(accumulator, str)
            else array_format((accumulator.outer or accumulator).format, "accumulator")
        )
        return Formats(form, inner, kept, outer), accumulator
    if accumulator is not None and not isinstance(accumulator, str | Format):
        raise ArgumentTypeError(
            f"accumulator={accumulator!r} must be a format, its name, 'exact' or a lowp.Accumulator."
        )
    return Formats(form, inner, form if accumulator is None else array_format(accumulator, "accumulator"), outer), None


def _statistics(steps: Steps, rows: Rows, made: array) -> SoftmaxStatistics:
    fine = _accurate.is_fine(made.format)
    numbers = _accurate.numbers(rows.x, fine)
    if rows.masked is not None:
        numbers = np.where(rows.masked, -_accurate.context().inf if fine else -np.inf, numbers)
    with np.errstate(all="ignore"):
        exact = exact_softmax(numbers)
        outputs = _accurate.numbers(made, fine)
        sums = _accurate.as_floats(outputs.sum(axis=0) - 1)
    sums = sums[np.isfinite(sums)]
    worst = float(sums[np.argmax(np.abs(sums))]) if sums.size else np.nan
    mean = float(sums.mean()) if sums.size else np.nan
    return SoftmaxStatistics(dict(steps.counts), _accurate.errors(made, exact), mean, worst)


def exact_softmax(x: _accurate.Numbers) -> _accurate.Numbers:
    """Return the softmax along the first axis, in float64 or 240 bits."""
    powers = _accurate.exp(x - x.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


__all__ = ["SoftmaxResult", "SoftmaxStatistics", "softmax"]
