"""What sums of products lost on the way: swamped terms, cancellation, overflow and rounding, by output and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation import _unit_rows, _unit_run
from lowp.emulation._side import Side
from lowp.emulation._sum_epilogue import Epilogue
from lowp.emulation._sum_errors import errors, ulps
from lowp.emulation._sum_losses import Loss, Losses, losses_of
from lowp.emulation._sum_statistics import Statistics
from lowp.emulation._sum_terms import Sums
from lowp.emulation._sum_trace import Label, Step, Trace, with_scale_each
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matrix_units import MatrixUnit
from lowp.formats.spec import ScalarFormat
from lowp.rounding.modes import rounding

if TYPE_CHECKING:
    from lowp.emulation.matmul import Operand

__all__ = ["Loss", "Losses", "SumReport", "traced"]


@dataclass(frozen=True, kw_only=True, repr=False)
class SumReport:
    """What happened in the sums of a matrix product.

    Arrays have the shape of the product of matrices, (..., m, n), axes of vectors kept. A step is one stored value: a
    running sum, a rounded product, or an addition of partial sums, in the order of `Accumulator.rounding`, then the
    product with tensor scales and the rounding to `fmt`, if any; steps count from 0, -1 is never.

    Args:
        result: The results, multiplied by tensor scales and rounded to `fmt` where there are such.
        exact: The exact sums, rounded once to float64; addend and tensor scales included.
        error: Result less exact sum, rounded once to float64.
        error_ulps: Error in steps of the result's format at the exact sum (see `lowp.ulp`).
        condition: Sum of the magnitudes of all terms over the magnitude of their sum; inf where that is zero.
        swamped: Addends (terms, and partial sums) that are not zero and left what they were added to as it was, and
            terms that alignment cut to zero.
        cancelled_bits: Largest drop of the exponent in one step, from the largest addend to the sum; of a sum of
            exactly zero, all bits of the format.
        overflows: Steps whose exact sum of numbers lies, rounded, beyond the format's range: became infinite, NaN,
            saturated or wrapped around.
        overflow_step: The first of them.
        nan_step: The first step that stored NaN.
        lost: Sum of the magnitudes of what the steps lost: exact sum less stored value, of steps where both are finite;
            times the tensor scales, so that losses are parts of the error.
        worst_loss: The largest of them, with its sign.
        worst_step: Where it was.
        steps: Steps of one output.
        terms: Terms of one output.
        format: Format of the results.

    Example:
        >>> import lowp
        >>> a, b = np.full((1, 4096), 0.0625), np.full((4096, 1), 0.0625)
        >>> result, report = lowp.matmul(a, b, accumulator="float16", trace=True)
        >>> report.exact.item(), report.error.item(), report.swamped.item()
        (16.0, -8.0, 2048)
        >>> print(report)
        4096 terms in 4096 steps, 1 output in float16
                                               median       most  at
        error, ulps                               512        512  (0, 0)
        relative error                            0.5        0.5  (0, 0)
        swamped terms                            2048       2048  (0, 0)
        bits cancelled in a step                    0          0  (0, 0)
        lost in all steps, / |exact sum|          0.5        0.5  (0, 0)
        condition                                   1          1  (0, 0)
        no overflow, no NaN
    """

    result: NDArray[np.float64]
    exact: NDArray[np.float64]
    error: NDArray[np.float64]
    error_ulps: NDArray[np.float64]
    condition: NDArray[np.float64]
    swamped: NDArray[np.int64]
    cancelled_bits: NDArray[np.int64]
    overflows: NDArray[np.int64]
    overflow_step: NDArray[np.int64]
    nan_step: NDArray[np.int64]
    lost: NDArray[np.float64]
    worst_loss: NDArray[np.float64]
    worst_step: NDArray[np.int64]
    steps: int
    terms: int
    format: ScalarFormat
    _sum: _Sum = field(compare=False)

    def losses(self, output: int | Sequence[int]) -> Losses:
        """Return what each step of one output lost, and each term that alignment cut, exactly; the largest loss first.

        Args:
            output: Index of the output in the arrays of this report, or its place in C order.

        Raises:
            ArgumentError, ArgumentTypeError: There is no such output.

        Example:
            >>> import lowp
            >>> half = [[2.0**-11], [2.0**-10], [1.0]]
            >>> _, report = lowp.matmul([[1.0, 1.0, 1.0]], half, [[1.0]], accumulator="float16", trace=True)
            >>> print(report.losses(0))
            step  term  before        addend         after  lost           why
            2     2     1.0009765625  1              2      0.0009765625   rounding
            0     0     1             0.00048828125  1      0.00048828125  rounding
        """
        return Losses(losses_of(self._sum.steps_of(self._flat(output)), self._sum.epilogue.exact_scale))

    def rows(self, output: int | Sequence[int]) -> list[tuple[int, str, str, str]]:
        """Return the steps of one output: number, kind, partial sum, and what is added."""
        steps = self._sum.steps_of(self._flat(output))
        return [(i, step.kind, step.place, ", ".join(map(str, step.labels))) for i, (step, _) in enumerate(steps)]

    def _flat(self, output: Any) -> int:
        shape = self.result.shape
        index = output if isinstance(output, Sequence) else [output]
        if not all(hasattr(i, "__index__") and not isinstance(i, bool) for i in index):
            raise ArgumentTypeError(f"output={output!r} must be an integer or a tuple of integers.")
        try:
            if len(index) == 1:
                return range(self.result.size)[index[0]]
            place = [range(n)[i] for i, n in zip(index, shape, strict=True)]
        except (IndexError, ValueError):
            raise ArgumentError(f"output={output!r} must be an index into outputs of shape {shape}.") from None
        return int(np.ravel_multi_index(place, shape))

    def __repr__(self) -> str:
        return (
            f"<SumReport: {self.result.size} outputs in {self.format.name}, {self.terms} terms in {self.steps} steps>"
        )

    def __str__(self) -> str:
        """Return a table."""
        outputs = f"{self.result.size} output{'s' * (self.result.size != 1)}"
        lines = [f"{self.terms} terms in {self.steps} steps, {outputs} in {self.format.name}"]
        if not self.result.size:
            return lines[0]
        size = np.abs(self.exact)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative, lost = (np.where(x == 0, 0.0, x / size) for x in (np.abs(self.error), self.lost))
        lines.append(f"{'':34}{'median':>11}{'most':>11}  at")
        for name, values in (
            ("error, ulps", np.abs(self.error_ulps)),
            ("relative error", relative),
            ("swamped terms", self.swamped),
            ("bits cancelled in a step", self.cancelled_bits),
            ("lost in all steps, / |exact sum|", lost),
            ("condition", self.condition),
        ):
            lines.append(_line(name, np.asarray(values, np.float64)))
        for word, first in (("overflowed", self.overflow_step), ("became NaN", self.nan_step)):
            hit = first >= 0
            if hit.any():
                at = np.unravel_index(int(np.argmax(hit)), hit.shape)
                lines.append(f"{int(hit.sum())} {word}, the first of them {_index(at)} in step {int(first[at])}")
        return "\n".join(lines if len(lines) > 8 else [*lines, "no overflow, no NaN"])


def _line(name: str, values: NDArray[np.float64]) -> str:
    known = values[~np.isnan(values)]
    if not known.size:
        return f"{name:34}{'nan':>11}{'nan':>11}"
    at = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return f"{name:34}{_shown(float(np.median(known))):>11}{_shown(float(known.max())):>11}  {_index(at)}"


def _index(at: Sequence[Any]) -> str:
    return f"({', '.join(str(int(i)) for i in at)})"


def _shown(x: float) -> str:
    return f"{x:.4g}"


@dataclass(frozen=True, kw_only=True)
class _Sum:
    """The operands of a product, to go through the steps of one output again."""

    a: Side
    b: Side
    c: Sums
    accumulator: Accumulator
    c_format: ScalarFormat
    epilogue: Epilogue

    def trace(self, watch: Any) -> Sums:
        """Tell of every step, and return the results that the last of them stores."""
        labels: Sequence[Label] = range(self.a.values.shape[2])
        sums = Trace(watch).summed(self.a, self.b, self.c, self.accumulator, self.c_format, labels)
        return self.epilogue.run(sums, watch)

    def steps_of(self, output: int) -> list[tuple[Step, int]]:
        """Return the steps of one output, and where in them it is."""
        steps: list[tuple[Step, int]] = []
        whole, position = self, output
        if all(rounding(x.rounding).variant == 0 for x in (self.accumulator, self.accumulator.outer) if x is not None):
            whole, position = self._alone(output), 0  # random bits depend on how many outputs there are
        whole.trace(lambda step: steps.append((step, position)))
        return steps

    def _alone(self, output: int) -> _Sum:
        batch, row, column = (int(i) for i in np.unravel_index(output, self.c.shape))
        sides = []
        for side, index in (
            (self.a, (slice(batch, batch + 1), slice(row, row + 1))),
            (self.b, (slice(batch, batch + 1), slice(None), slice(column, column + 1))),
        ):
            scales = None if side.scales is None else side.scales[index]
            sides.append(side._replace(values=side.values[index], scales=scales))
        c = self.c[batch : batch + 1, row : row + 1, column : column + 1]
        return replace(self, a=sides[0], b=sides[1], c=c)


def traced(
    how: MatrixUnit | Accumulator,
    a: Operand,
    b: Operand,
    c: NDArray[np.float64] | None,
    fmt: ScalarFormat | None = None,
) -> tuple[NDArray[np.float64], SumReport]:
    """Return the product of two matrices before tensor scales and `fmt`, and the report on the results after them.

    Args:
        how: Matrix unit or accumulator.
        a: Left operand, (..., m, k).
        b: Right operand, (..., k, n).
        c: Addend, (..., m, n), or None.
        fmt: Format that results are rounded to in the end.

    Raises:
        ArgumentError: As `lowp.matmul` does.
    """
    from lowp.emulation.matmul import product, result_format

    result = product(how, a, b, c)
    epilogue = Epilogue(result_format(how), a.tensor_scale, b.tensor_scale, fmt)
    given, lead = _sum_of(how, a, b, c, epilogue)
    counts = Statistics(given.c.size)
    given.trace(counts.watch)
    stored = epilogue.run(result.reshape(given.c.shape))
    exact, error, magnitude = errors(given.a.scaled_values(-1), given.b.scaled_values(-2), given.c, stored, epilogue)
    with np.errstate(divide="ignore", invalid="ignore"):
        condition = np.where(magnitude == 0, 1.0, magnitude / np.abs(exact))
    shape = (*lead, *given.c.shape[1:])

    def shaped(x: NDArray[Any]) -> NDArray[Any]:
        return x.reshape(shape)

    report = SumReport(
        result=shaped(stored),
        exact=shaped(exact),
        error=shaped(error),
        error_ulps=shaped(ulps(error, exact, epilogue.format)),
        condition=shaped(condition),
        swamped=shaped(counts.swamped),
        cancelled_bits=shaped(counts.cancelled_bits),
        overflows=shaped(counts.overflows),
        overflow_step=shaped(counts.overflow_step),
        nan_step=shaped(counts.nan_step),
        lost=shaped(counts.lost),
        worst_loss=shaped(counts.worst_loss),
        worst_step=shaped(counts.worst_step),
        steps=counts.steps,
        terms=given.a.values.shape[2],
        format=epilogue.format,
        _sum=given,
    )
    return result, report


def _sum_of(
    how: MatrixUnit | Accumulator, a: Operand, b: Operand, c: NDArray[np.float64] | None, epilogue: Epilogue
) -> tuple[_Sum, tuple[int, ...]]:
    """Return the operands as the sum takes them, and the shape of the batch."""
    from lowp.emulation.matmul import flat_scales

    left, right, start, lead = _unit_run.shaped(a.values, b.values, c)
    scales = [flat_scales(x, lead) for x in (a, b)]
    formats: list[Any] = [a.format, b.format]
    scale_formats, blocks = [a.scale_format, b.scale_format], [a.block, b.block]
    accumulator, c_format = how, None
    if isinstance(how, MatrixUnit):
        left, right = _unit_run.checked(how.a, left, "a"), _unit_run.checked(how.b, right, "b")
        formats = [_unit_rows.coding(how.reads or name).format for name in (how.a, how.b)]
        if how.scale:
            scale_formats, blocks = [_unit_rows.coding(how.scale).format] * 2, [how.block] * 2
            count = -(-left.shape[2] // how.block)
            whole = (len(left), left.shape[1], count), (len(left), count, right.shape[2])
            scales = [np.ones(shape) if s is None else s for s, shape in zip(scales, whole, strict=True)]
        accumulator, c_format = how.accumulator, _unit_rows.coding(how.c).format
    assert isinstance(accumulator, Accumulator)
    sides = [
        with_scale_each(Side(values, fmt, scale, scale_format, block), axis)
        for values, fmt, scale, scale_format, block, axis in zip(
            (left, right), formats, scales, scale_formats, blocks, (2, 1), strict=True
        )
    ]
    c_format = c_format or epilogue.own
    start = np.ascontiguousarray(start)
    return _Sum(
        a=sides[0], b=sides[1], c=start, accumulator=accumulator, c_format=c_format, epilogue=epilogue
    ), lead  # fmt: skip
