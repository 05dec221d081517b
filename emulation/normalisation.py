"""Layer normalisation and RMS normalisation with every step rounded, and what that costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation import _accurate
from lowp.emulation._counted import Steps
from lowp.emulation._operands import How, array_format
from lowp.emulation._rows import back, given_numbers, rows_first, running_sum, sum_of_rows
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.array import array
from lowp.emulation.step_statistics import StepStatistics
from lowp.formats.spec import Format, ScalarFormat

if TYPE_CHECKING:
    from lowp.emulation.approximations import Approximation

VARIANCES = ("two_pass", "welford", "one_pass")
SCALINGS = ("divide", "reciprocal", "rsqrt")


@dataclass(frozen=True)
class NormStatistics(StepStatistics):
    """What happened in a normalisation, and its errors against the exact one of the rounded inputs.

    Args:
        steps: Name of a step to its counts.
        errors: Errors of the outputs.
        mean_error: Largest absolute error of a row's mean, over the exact standard deviation (the root of variance plus
            eps); 0 for RMS normalisation. NaN means do not count here, but make outputs fail.
        variance_error: Largest relative error of a row's variance plus eps (of its mean square plus eps).
        negative_variances: Rows whose variance was computed as less than zero.
    """

    mean_error: float = 0.0
    variance_error: float = 0.0
    negative_variances: int = 0

    def _said(self) -> list[str]:
        said = [
            *super()._said(),
            f"largest error of mean {self.mean_error:.3g} sd, of variance {self.variance_error:.3g}",
        ]
        return said if not self.negative_variances else [*said, f"negative variances: {self.negative_variances}"]


@dataclass(frozen=True, eq=False)
class NormResult:
    """A normalised array and what happened on the way.

    Args:
        array: The outputs in their format, in the shape of the inputs.
        statistics: Counts and errors.
    """

    array: array
    statistics: NormStatistics

    @property
    def values(self) -> NDArray[np.float64]:
        """The outputs as float64."""
        return self.array.values


class _Plan(NamedTuple):
    """Formats and choices of one call."""

    input: ScalarFormat
    sum: ScalarFormat
    result: ScalarFormat
    sum_by: Accumulator | str | None
    scaling: str
    rsqrt_by: Approximation | None
    fused: bool


def layer_norm(
    x: Any,
    fmt: str | Format,
    weight: Any = None,
    bias: Any = None,
    *,
    variance: str = "two_pass",
    axis: int = -1,
    eps: float = 1e-5,
    accumulator: str | Format | Accumulator | None = None,
    result: str | Format | None = None,
    scaling: str = "divide",
    rsqrt_by: str | Approximation | None = None,
    fused: bool = False,
    **options: Unpack[How],
) -> NormResult:
    """Return `(x - mean) / sqrt(variance + eps) * weight + bias` along an axis; every step is correctly rounded.

    The variance is that of the population (divided by n).

    - "two_pass": mean = sum(x) / n; variance = sum((x - mean)^2) / n.
    - "welford": for the k-th x: d = x - mean; mean' = mean + d / k; s' = s + d * (x - mean'); variance = s / n.
    - "one_pass": variance = sum(x^2) / n - mean^2, which cancels, and may come out negative: then the row is NaN.

    Args:
        x: Numbers, rounded into `fmt` first; an array in any format.
        fmt: Format of inputs, weight and bias, and of what no other argument says.
        weight: One factor for each place along the axis; None: there are none.
        bias: One addend for each place; None: there are none.
        variance: "two_pass", "welford" or "one_pass".
        axis: The axis along which numbers are normalised.
        eps: What is added to the variance, rounded into the accumulator.
        accumulator: Format of sums, mean, differences, squares and variance; or a `lowp.Accumulator` that makes the
            sums ("welford" has none), and whose format is that of the rest; or "exact": sums are exact, and rounded
            once into `fmt`.
        result: Format of outputs, from the scaling on.
        scaling: "divide" by the square root; multiply by its "reciprocal"; or by "rsqrt", rounded once.
        rsqrt_by: An approximation of 1/sqrt(x) (see `lowp.emulation.approximations`), evaluated in the accumulator's
            format; needs scaling "rsqrt".
        fused: Whether squares and products are added in one rounding.
        **options: How steps round: rounding, overflow, seed, random_bits, saturation_bits, nan.

    Returns:
        The outputs, counts of overflow, underflow and NaN by step, and errors.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: An argument that is not allowed.
        RangeError: NaN where a format has none.

    Source:
        J. L. Ba and others, arXiv 1607.06450; B. P. Welford, Technometrics 4 (1962).

    Example:
        >>> x = 30 + np.arange(64.0) / 16
        >>> for v in VARIANCES:
        ...     print(v, round(layer_norm(x, "float16", variance=v).statistics.max_absolute_error, 4))
        two_pass 0.0014
        welford 0.0009
        one_pass 0.0978
    """
    steps = Steps(options)
    if variance not in VARIANCES:
        raise ArgumentError(unknown_name("variance", variance, VARIANCES))
    plan = _plan(fmt, accumulator, result, scaling, rsqrt_by, fused)
    if variance == "welford" and plan.sum_by is not None:
        raise ArgumentError(f"accumulator={accumulator!r} with variance='welford', which has no sums; give a format.")
    rows, shape = _inputs(steps, x, plan, axis)
    mean, spread = _MOMENTS[variance](steps, rows, plan)
    centred = steps.do("difference", "subtract", rows, mean, fmt=plan.sum)
    given = [_per_place(steps, p, name, rows, plan) for p, name in ((weight, "weight"), (bias, "bias"))]
    made, shifted = _scaled(steps, centred, spread, eps, plan, *given)
    exact, centre, power = _exact(rows, made, eps, True, *given)
    statistics = _statistics(steps, made, exact, (mean, centre), (shifted, power), spread)
    return NormResult(back(made, shape, axis), statistics)


def rms_norm(
    x: Any,
    fmt: str | Format,
    weight: Any = None,
    *,
    axis: int = -1,
    eps: float = 1e-5,
    accumulator: str | Format | Accumulator | None = None,
    result: str | Format | None = None,
    scaling: str = "divide",
    rsqrt_by: str | Approximation | None = None,
    fused: bool = False,
    **options: Unpack[How],
) -> NormResult:
    """Return `x / sqrt(mean(x^2) + eps) * weight` along an axis; every step is correctly rounded.

    Squares overflow early: of float16 from 256 on. Arguments as `layer_norm`.

    Source:
        B. Zhang, R. Sennrich, arXiv 1910.07467.

    Example:
        >>> x = [[300.0, -200.0, 100.0, 50.0]]
        >>> low, high = rms_norm(x, "float16"), rms_norm(x, "float16", accumulator="float32")
        >>> low.statistics.overflow, low.values.tolist(), high.values.round(2).tolist()
        (1, [[0.0, -0.0, 0.0, 0.0]], [[1.59, -1.06, 0.53, 0.26]])
    """
    steps = Steps(options)
    plan = _plan(fmt, accumulator, result, scaling, rsqrt_by, fused)
    rows, shape = _inputs(steps, x, plan, axis)
    power = _mean_square(steps, rows, plan)
    given = _per_place(steps, weight, "weight", rows, plan)
    made, shifted = _scaled(steps, rows, power, eps, plan, given, None)
    exact, _, wanted = _exact(rows, made, eps, False, given, None)
    return NormResult(back(made, shape, axis), _statistics(steps, made, exact, None, (shifted, wanted), power))


def _plan(fmt: Any, accumulator: Any, result: Any, scaling: Any, rsqrt_by: Any, fused: bool) -> _Plan:
    form = array_format(fmt, "fmt")
    outer = form if result is None else array_format(result, "result")
    if scaling not in SCALINGS:
        raise ArgumentError(unknown_name("scaling", scaling, SCALINGS))
    by = None
    if rsqrt_by is not None:
        from lowp.emulation.approximations import resolved

        by = resolved(rsqrt_by, "rsqrt_by", "rsqrt")
        if scaling != "rsqrt":
            raise ArgumentError(f"rsqrt_by={by.name!r} needs scaling='rsqrt', not {scaling!r}.")
    if isinstance(accumulator, Accumulator):
        kept = array_format((accumulator.outer or accumulator).format, "accumulator")
        return _Plan(form, kept, outer, accumulator, scaling, by, fused)
    if isinstance(accumulator, str) and accumulator in ("exact", "quire"):
        return _Plan(form, form, outer, accumulator, scaling, by, fused)
    if accumulator is not None and not isinstance(accumulator, str | Format):
        raise ArgumentTypeError(
            f"accumulator={accumulator!r} must be a format, its name, 'exact' or a lowp.Accumulator."
        )
    kept = form if accumulator is None else array_format(accumulator, "accumulator")
    return _Plan(form, kept, outer, None, scaling, by, fused)


def _inputs(steps: Steps, x: Any, plan: _Plan, axis: int) -> tuple[array, tuple[int, ...]]:
    given = steps.do("input", "convert", given_numbers(x), fmt=plan.input)
    return rows_first(given, axis), given.shape


def _per_place(steps: Steps, given: Any, argument: str, rows: array, plan: _Plan) -> array | None:
    if given is None:
        return None
    values = steps.do("input", "convert", given_numbers(given), fmt=plan.input)
    if values.shape != (len(rows),):
        raise ArgumentError(f"{argument} has shape {values.shape}; the axis has length {len(rows)}.")
    return values.reshape(-1, 1)


def _sum(steps: Steps, rows: array, plan: _Plan) -> array:
    if plan.sum_by is not None:
        total = sum_of_rows(steps, rows, plan.sum_by)
        return total if total.format == plan.sum else steps.do("sum", "convert", total, fmt=plan.sum)
    return running_sum(steps, "sum", rows, plan.sum)


def _mean_square(steps: Steps, rows: array, plan: _Plan) -> array:
    """Return the mean of the squares."""
    if plan.fused and plan.sum_by is None:
        total = steps.do("square", "multiply", rows[0], rows[0], fmt=plan.sum)
        for k in range(1, len(rows)):
            total = steps.do("sum", "fma", rows[k], rows[k], total, fmt=plan.sum)
    else:
        total = _sum(steps, steps.do("square", "multiply", rows, rows, fmt=plan.sum), plan)
    return steps.do("mean", "divide", total, float(len(rows)), fmt=plan.sum)


def _two_pass(steps: Steps, rows: array, plan: _Plan) -> tuple[array, array]:
    mean = steps.do("mean", "divide", _sum(steps, rows, plan), float(len(rows)), fmt=plan.sum)
    return mean, _mean_square(steps, steps.do("difference", "subtract", rows, mean, fmt=plan.sum), plan)


def _one_pass(steps: Steps, rows: array, plan: _Plan) -> tuple[array, array]:
    mean = steps.do("mean", "divide", _sum(steps, rows, plan), float(len(rows)), fmt=plan.sum)
    power = _mean_square(steps, rows, plan)
    if plan.fused:
        return mean, steps.do(
            "variance", "fma", mean, steps.do("mean", "negative", mean, fmt=plan.sum), power, fmt=plan.sum
        )
    square = steps.do("square", "multiply", mean, mean, fmt=plan.sum)
    return mean, steps.do("variance", "subtract", power, square, fmt=plan.sum)


def _welford(steps: Steps, rows: array, plan: _Plan) -> tuple[array, array]:
    fmt = plan.sum
    mean = rows[0] if rows.format == fmt else steps.do("mean", "convert", rows[0], fmt=fmt)
    total = steps.do("sum", "convert", np.zeros(mean.shape), fmt=fmt)
    for k in range(1, len(rows)):
        before = steps.do("difference", "subtract", rows[k], mean, fmt=fmt)
        mean = steps.do("mean", "add", mean, steps.do("mean", "divide", before, float(k + 1), fmt=fmt), fmt=fmt)
        later = steps.do("difference", "subtract", rows[k], mean, fmt=fmt)
        if plan.fused:
            total = steps.do("sum", "fma", before, later, total, fmt=fmt)
        else:
            total = steps.do("sum", "add", total, steps.do("square", "multiply", before, later, fmt=fmt), fmt=fmt)
    return mean, steps.do("variance", "divide", total, float(len(rows)), fmt=fmt)


_MOMENTS: dict[str, Callable[[Steps, array, _Plan], tuple[array, array]]] = {
    "two_pass": _two_pass, "welford": _welford, "one_pass": _one_pass,
}  # fmt: skip


def _scaled(
    steps: Steps, x: array, spread: array, eps: float, plan: _Plan, weight: array | None, bias: array | None
) -> tuple[array, array]:
    """Return the outputs, and the variance plus eps."""
    small = steps.do("eps", "convert", np.array(_checked_eps(eps)), fmt=plan.sum)
    shifted = steps.do("variance", "add", spread, small, fmt=plan.sum)
    if plan.scaling == "rsqrt":
        factor = _rsqrt(steps, shifted, plan)
    else:
        factor = steps.do("root", "sqrt", shifted, fmt=plan.sum)
        if plan.scaling == "reciprocal":
            factor = steps.do("reciprocal", "divide", 1.0, factor, fmt=plan.sum)
    op = "divide" if plan.scaling == "divide" else "multiply"
    made = steps.do("scaling", op, x, factor, fmt=plan.result)
    if weight is not None and bias is not None and plan.fused:
        return steps.do("affine", "fma", made, weight, bias, fmt=plan.result), shifted
    if weight is not None:
        made = steps.do("affine", "multiply", made, weight, fmt=plan.result)
    if bias is not None:
        made = steps.do("affine", "add", made, bias, fmt=plan.result)
    return made, shifted


def _checked_eps(eps: Any) -> float:
    if isinstance(eps, bool | str) or not np.isscalar(eps) or not 0 <= eps < np.inf:  # type: ignore[operator]
        raise ArgumentError(f"eps={eps!r} must be a number from 0.")
    return float(eps)  # type: ignore[arg-type]


def _rsqrt(steps: Steps, x: array, plan: _Plan) -> array:
    if plan.rsqrt_by is None:
        return steps.do("rsqrt", "power", x, -0.5, fmt=plan.sum)
    from lowp.emulation._approximation_worlds import FormatWorld

    return plan.rsqrt_by.run(FormatWorld(plan.sum, steps, plan.fused, "rsqrt"), x)


def _exact(
    rows: array, made: array, eps: float, centred: bool, weight: array | None, bias: array | None
) -> tuple[_accurate.Numbers, _accurate.Numbers, _accurate.Numbers]:
    """Return exact outputs, means, and variances plus eps; the mean of the differences corrects the mean."""
    fine = _accurate.is_fine(made.format) or _accurate.is_far(rows)
    n, small = len(rows), (_accurate.big(eps) if fine else float(eps))
    with np.errstate(all="ignore"):
        x = _accurate.numbers(rows, fine)
        mean = x.sum(axis=0) / n if centred else np.zeros(x.shape[1:], x.dtype)
        rest = x - mean if centred else x
        if centred:
            rest = rest - rest.sum(axis=0) / n
        power = (rest * rest).sum(axis=0) / n + small
        exact = _accurate.quotient(rest, _accurate.sqrt(power))
        if weight is not None:
            exact = exact * _accurate.numbers(weight, fine)
        if bias is not None:
            exact = exact + _accurate.numbers(bias, fine)
    return np.asarray(exact), np.asarray(mean), np.asarray(power)


def _statistics(steps: Steps, made: array, exact: Any, mean: Any, power: Any, spread: array) -> NormStatistics:
    shifted, wanted = power[0].values, _accurate.as_floats(power[1])
    with np.errstate(all="ignore"):
        off = np.abs(shifted / wanted - 1)
        away = np.zeros(1) if mean is None else np.abs(mean[0].values - _accurate.as_floats(mean[1])) / np.sqrt(wanted)
    return NormStatistics(
        dict(steps.counts),
        _accurate.errors(made, exact),
        _largest(away),
        _largest(off),
        int(np.count_nonzero(spread.values < 0)),
    )


def _largest(errors: NDArray[np.float64]) -> float:
    known = errors[~np.isnan(errors)]
    return float(known.max()) if known.size else np.nan


__all__ = ["SCALINGS", "VARIANCES", "NormResult", "NormStatistics", "layer_norm", "rms_norm"]
