"""Which step of one sum, and which of its terms, lost how much: exactly, in Fractions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from fractions import Fraction

import numpy as np

from lowp.emulation._side import Side
from lowp.emulation._sum_trace import Step
from lowp.emulation.exact_alignment import Factor, Term, cut, exponent
from lowp.rounding.exact import exact_value

_COLUMNS = ("step", "term", "before", "addend", "after", "lost", "why")


@dataclass(frozen=True)
class Loss:
    """What a step, or alignment of one of its terms, lost.

    Args:
        step: Number of the step.
        term: The term's place among all, or what else was added; with alignment a term that was cut, "running sum", or
            all terms of the step.
        before: The running sum before.
        addend: Exact sum of what was added, or the term that was cut.
        after: What was stored; None: not a number that is finite.
        lost: Exact sum less what was stored, or the term less what was left of it, times the tensor scales that follow;
            None: infinite or not known.
        why: "rounding", "alignment", or "overflow".
    """

    step: int
    term: int | str
    before: Fraction | None
    addend: Fraction | None
    after: Fraction | None
    lost: Fraction | None
    why: str


class Losses(tuple[Loss, ...]):
    """Losses, the largest first; losses that are not finite before all others."""

    __slots__ = ()

    def __new__(cls, losses: Iterable[Loss]) -> Losses:
        key = [loss for loss in losses if loss.lost != 0]
        key.sort(key=lambda loss: (loss.lost is not None, -abs(loss.lost or 0), loss.step))
        return super().__new__(cls, key)

    @property
    def total(self) -> Fraction | None:
        """Exact sum less result: the sum of the losses of all steps; None where some are not finite."""
        lost = [loss.lost for loss in self]
        return None if None in lost else sum((x for x in lost if x is not None), Fraction(0))

    def __str__(self) -> str:
        """Return a table of the first twenty."""
        if not self:
            return "nothing was lost"
        rows = [_COLUMNS, *(tuple(_shown(x) for x in astuple(loss)) for loss in self[:20])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, f"... and {len(self) - 20} more"] if len(self) > 20 else lines)


def _shown(x: object) -> str:
    if isinstance(x, Fraction):
        return f"{float(x):.12g}"
    return "not finite" if x is None else str(x)


def losses_of(steps: Sequence[tuple[Step, int]], scale: Fraction) -> list[Loss]:
    """Return the losses of steps, each with the position of the output in it; `scale` is that of all tensor scales."""
    losses: list[Loss] = []
    for i, (step, position) in enumerate(steps):
        if step.kind == "scaling":
            losses = [replace(x, lost=None if x.lost is None else x.lost * scale) for x in losses]
        losses += _of_step(i, step, position)
    return losses


def _of_step(number: int, step: Step, position: int) -> list[Loss]:
    before, after = (_sum([_finite(x[position]) for x in given]) for given in (step.before, step.after))
    addends = [] if step.terms is None else step.terms.exactly(position)
    addend = _sum(addends)
    label = step.labels[0] if len(step.labels) == 1 else f"{step.labels[0]} .. {step.labels[-1]}"
    if before is None or addend is None or after is None:
        why = "overflow" if before is not None and addend is not None else "not finite"
        return [Loss(number, label, before, addend, after, None, why)]
    lost, cuts = before + addend - after, list[Loss]()
    if step.accumulator.alignment is not None and step.kind == "step":
        cuts = _cuts(number, step, position, addends, before, after)
    rest = lost - sum((loss.lost or Fraction(0) for loss in cuts), Fraction(0))
    why = "overflow" if abs(after) < abs(before + addend) and _outside(step, before + addend) else "rounding"
    return [*cuts, Loss(number, label, before, addend, after, rest, why)]


def _outside(step: Step, total: Fraction) -> bool:
    return not Fraction(step.format.min) <= total <= Fraction(step.format.max)


def _finite(x: float) -> Fraction | None:
    return Fraction(float(x)) if np.isfinite(x) else None


def _sum(numbers: Sequence[Fraction | None]) -> Fraction | None:
    total = Fraction(0)
    for x in numbers:
        if x is None:
            return None
        total += x
    return total


# What alignment cuts off the terms of one step


def _cuts(
    number: int, step: Step, position: int, addends: Sequence[Fraction | None], before: Fraction, after: Fraction
) -> list[Loss]:
    alignment = step.accumulator.alignment
    assert alignment is not None
    parts = _parts(step, position, [x or Fraction(0) for x in addends])
    least = [] if alignment.zero_exponent is None else [alignment.zero_exponent]
    if alignment.running_sum == "term" and before:
        found = exponent(Factor(before, step.before_format))
        least.append(found)
        parts.append(("running sum", before, found))
    result = []
    for lane in range(alignment.lanes):
        mine = parts[lane :: alignment.lanes]
        reference = max([*least, *(e for _, _, e in mine if e is not None)], default=None)
        for label, value, _ in mine:
            left = value if reference is None else cut(value, reference - alignment.fraction_bits, alignment.cut)
            if left != value:
                result.append(Loss(number, label, before, value, after, value - left, "alignment"))
    return result


_Part = tuple[int | str, Fraction, int | None]


def _parts(step: Step, position: int, addends: Sequence[Fraction]) -> list[_Part]:
    """Return labels, values, and the exponents by which they are aligned; None for zero."""
    alignment, terms = step.accumulator.alignment, step.terms
    assert alignment is not None
    assert terms is not None
    if alignment.scaled_group is None:
        each = [_term(terms.a, terms.b, position, k) for k in range(len(terms))]
        exponents = [
            sum(exponent(f) for f in (*term.operands, *term.scales)) if value else None
            for term, value in zip(each, addends, strict=True)
        ]
        return list(zip(step.labels, addends, exponents, strict=True))
    parts = []
    for first in range(0, len(terms), alignment.scaled_group):
        group = slice(first, first + alignment.scaled_group)
        scales = _term(terms.a, terms.b, position, first).scales
        counts = any(addends[group])
        labels = step.labels[group]
        label = labels[0] if len(labels) == 1 else f"{labels[0]} .. {labels[-1]}"
        e = sum(exponent(scale) for scale in scales) if counts else None
        parts.append((label, sum(addends[group], Fraction(0)), e))
    return parts


def _term(a: Side, b: Side, position: int, k: int) -> Term:
    row, column = divmod(position, b.values.shape[2])
    batch, row = divmod(row, a.values.shape[1])
    operands = Factor(_number(a.values[batch, row, k]), a.format), Factor(_number(b.values[batch, k, column]), b.format)
    scales = []
    for side, axis, at in ((a, -1, (batch, row, k)), (b, -2, (batch, k, column))):
        if side.scales is not None:
            scales.append(Factor(_number(side.spread_scales(axis)[at]), side.scale_format))
    return Term(operands, tuple(scales))


def _number(x: float) -> Fraction:
    value = exact_value(float(x))
    return value if isinstance(value, Fraction) else Fraction(0)
