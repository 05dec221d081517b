"""Whether an accumulator can overflow for some inputs: a proof that it cannot, or inputs for which it does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._exact_widths import numbers
from lowp.emulation._side import Side
from lowp.emulation._sum_statistics import NEVER, Statistics
from lowp.emulation._sum_trace import Step, Trace
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matrix_units import MatrixUnit, matrix_unit
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.parse import parse
from lowp.formats.spec import Format, ScalarFormat
from lowp.rounding import verbs
from lowp.rounding.modes import rounding

_FLOAT64 = Float(11, 52)
_MOST_FIXED_BITS = 53


@dataclass(frozen=True, kw_only=True)
class Proof:
    """No inputs make the accumulator overflow. True as a condition.

    Args:
        why: The argument, in words.
        least: No stored number is below this.
        largest: No stored number is above this.
    """

    why: str
    least: float
    largest: float

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class CounterExample:
    """Inputs that make the accumulator overflow, as it did when it ran on them. False as a condition.

    Args:
        why: What happened, in words.
        inputs: The inputs' values.
        codes: Their codes, where they have a format.
        output: Of which output's weights.
        step: The first stored number that overflowed.
        result: What the accumulator returned.
        exact: The exact sum.
    """

    why: str
    inputs: NDArray[np.float64]
    codes: NDArray[Any] | None
    output: int
    step: int
    result: float
    exact: Fraction

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Undecided:
    """Neither a proof nor inputs that overflow were found. False as a condition.

    Args:
        why: What the search does not cover.
    """

    why: str

    def __bool__(self) -> bool:
        return False


def prove_no_overflow(
    accumulator: Accumulator | MatrixUnit | str | Format,
    weights: Any,
    inputs: str | Format | tuple[float, float],
    *,
    input_range: tuple[float, float] | None = None,
) -> Proof | CounterExample | Undecided:
    """Return a proof that no inputs make an accumulator overflow, or inputs that do.

    Overflow is a stored number whose exact value lies, rounded, beyond its format's range. Of accumulators that wrap
    around, it is a final sum there: sums on the way may wrap, in any order. The answer is exact where every stored
    number grows with every term: accumulators without alignment, compensation or tables, rounded deterministically.
    With alignment or stochastic rounding a bound is tried and may not decide.

    Args:
        accumulator: An `Accumulator`, a matrix unit that has one or its name, or a format that stands for one that adds
            in it.
        weights: Numbers, (terms,) or (terms, outputs): real ones, a `lowp.array`, or `lowp.Encoded` ones of a scalar
            format, whose exponents alignment looks at.
        inputs: Format of the inputs, all finite numbers of which may come; or the least and the largest input.
        input_range: Only numbers of the format from the first to the second come.

    Raises:
        ArgumentError: There are no such inputs, or weights that are not finite.

    Example:
        >>> import lowp
        >>> int16 = lowp.Accumulator(format="int16", overflow="saturate")
        >>> bool(prove_no_overflow(int16, [100, -27], "uint8")), bool(prove_no_overflow(int16, [100, -29], "uint8"))
        (True, True)
        >>> found = prove_no_overflow(int16, [100, 29], "uint8")
        >>> found.inputs.tolist(), found.step, found.result, int(found.exact)
        ([255.0, 255.0], 1, 32767.0, 32895)
    """
    how = _accumulator(accumulator)
    matrix = numbers(weights, "weights", -2)
    fmt, least, largest = _ends(inputs, input_range)
    case = _Case(how, matrix, _weight_format(weights, matrix), fmt, least, largest)
    if "wrap" in (how.overflow, getattr(how.outer, "overflow", "")):
        return _of_wrapping(case)
    return _of_saturating(case)


def _accumulator(given: Any) -> Accumulator:
    """Return the accumulator that is asked for."""
    if isinstance(given, str) and "/" in given:
        given = matrix_unit(given)
    if isinstance(given, MatrixUnit):
        return given.accumulator
    return given if isinstance(given, Accumulator) else Accumulator(format=given)


class _Case:
    """Weights, and the ends of their inputs."""

    def __init__(
        self,
        how: Accumulator,
        weights: NDArray[np.float64],
        weight_format: ScalarFormat,
        fmt: ScalarFormat,
        least: float,
        largest: float,
    ) -> None:
        self.how, self.weights, self.weight_format, self.format = how, weights, weight_format, fmt
        self.ends = least, largest
        high = np.where(weights >= 0, largest, least).T
        low = np.where(weights >= 0, least, largest).T
        #: Inputs by which every term is largest, then those by which every term is least: (2 * outputs, terms).
        self.inputs = np.concatenate([high, low])
        self.columns = np.concatenate([weights.T, weights.T])

    def run(self, how: Accumulator, columns: NDArray[np.float64] | None = None, only: int | None = None) -> _Run:
        """Return what an accumulator does with the extreme inputs, or with one of them."""
        rows = slice(None) if only is None else slice(only, only + 1)
        a, b = self.inputs[rows, None, :], (self.columns if columns is None else columns)[rows, :, None]
        c = np.zeros((len(a), 1, 1))
        run = _Run(len(a))
        sides = Side(np.ascontiguousarray(a), self.format), Side(np.ascontiguousarray(b), self.weight_format)
        run.results = Trace(run.watch).summed(*sides, c, how, how.format, range(a.shape[2])).reshape(-1)  # type: ignore[arg-type]
        return run

    def exact(self, row: int) -> Fraction:
        """Return the exact sum for one of the extreme inputs."""
        pairs = zip(self.inputs[row].tolist(), self.columns[row].tolist(), strict=True)
        return sum((Fraction(x) * Fraction(w) for x, w in pairs), Fraction(0))

    def counterexample(self, row: int, step: int, result: float, why: str) -> CounterExample:
        inputs = self.inputs[row].copy()
        codes = None if self.format == _FLOAT64 else np.asarray(verbs.encode(inputs, self.format).codes)
        return CounterExample(
            why=why,
            inputs=inputs,
            codes=codes,
            output=row % self.weights.shape[1],
            step=step,
            result=result,
            exact=self.exact(row),
        )


class _Run:
    """The least and the largest numbers that were stored, and where something overflowed."""

    def __init__(self, size: int) -> None:
        self.counts = Statistics(size)
        self.least, self.largest = 0.0, 0.0
        self.results = np.zeros(size)

    def watch(self, step: Step) -> None:
        self.counts.watch(step)
        self.least = min(self.least, float(np.nanmin(step.after[0], initial=0.0)))
        self.largest = max(self.largest, float(np.nanmax(step.after[0], initial=0.0)))

    @property
    def overflowed(self) -> NDArray[np.intp]:
        """Which inputs overflowed."""
        return np.flatnonzero((self.counts.overflow_step != NEVER) | (self.counts.nan_step != NEVER))


def _of_saturating(case: _Case) -> Proof | CounterExample | Undecided:
    run = case.run(case.how)
    for row in run.overflowed.tolist():
        place = row
        if not _is_deterministic(case.how):  # random bits depend on the place: the inputs count by themselves
            run, place = case.run(case.how, only=row), 0
            if not run.overflowed.size:
                continue
        step = int(run.counts.overflow_step[place])
        why = f"step {step} stored {_words(case.how)} for a sum beyond the range of {case.how.format.name}"  # type: ignore[union-attr]
        return case.counterexample(row, step, float(run.results[place]), why)
    if _is_monotone(case.how):
        why = (
            "every stored number grows with every term, and none overflows at the inputs that make all terms largest, "
            "nor at those that make all least"
        )
        return Proof(why=why, least=run.least, largest=run.largest)
    return _bounded(case)


def _words(how: Accumulator) -> str:
    return "the largest number" if how.overflow in ("saturate", "saturate_symmetric") else f"what {how.overflow!r} says"


def _is_monotone(how: Accumulator) -> bool:
    own = how.alignment is None and how.compensation is None and how.table is None
    return own and _is_deterministic(how) and (how.outer is None or _is_monotone(how.outer))


def _is_deterministic(how: Accumulator) -> bool:
    return rounding(how.rounding).variant == 0 and (how.outer is None or _is_deterministic(how.outer))


def _bounded(case: _Case) -> Proof | Undecided:
    """Return a proof by sums that are never exceeded: of the positive terms alone, and of the negative ones."""
    how = case.how
    if any(x is not None and (x.compensation is not None or x.table is not None) for x in (how, how.outer)):
        return Undecided(why="compensated sums and tables of logarithmic sums do not grow with every term")
    cuts = how.alignment
    if cuts is not None and not (
        cuts.cut == "toward_zero"
        and cuts.running_sum == "term"
        and cuts.product_limit is None
        and (cuts.result_fraction_bits is None or cuts.sum_cut == "toward_zero")
    ):
        return Undecided(why="terms may be cut to numbers of larger magnitude; only cuts toward zero have a bound")
    outer = None if how.outer is None else replace(how.outer, rounding="away_from_zero")
    plain = replace(how, alignment=None, rounding="away_from_zero", outer=outer)
    half = len(case.inputs) // 2
    terms = case.inputs * case.columns
    keep = np.concatenate([terms[:half] > 0, terms[half:] < 0])
    run = case.run(plain, np.where(keep, case.columns, 0.0))
    if run.overflowed.size:
        return Undecided(
            why="the positive terms alone, or the negative ones, overflow if every step is rounded away from zero"
        )
    why = "no stored number exceeds the sum of the positive, or of the negative terms, steps rounded away from zero"
    return Proof(why=why, least=run.least, largest=run.largest)


def _of_wrapping(case: _Case) -> Proof | CounterExample | Undecided:
    """Decide by the final sum, which wraps as one number does whatever happens on the way."""
    how, fmt = case.how, case.how.format
    modular = isinstance(fmt, Integer | Fixed) and _is_monotone(how) and how.product == "exact"
    if not modular or (how.outer is not None and (how.outer.format, how.outer.overflow) != (fmt, "wrap")):
        return _of_mixed(case)
    ends = [case.exact(row) for row in range(len(case.inputs))]
    wide = _wide(fmt, max((abs(x) for x in ends), default=Fraction(0)), case)  # type: ignore[arg-type]
    if wide is None:
        return Undecided(why="sums beyond 53 bits, with bits below the accumulator's last one, are not searched")
    sums = ends if wide == fmt else [Fraction(x) for x in case.run(_in_format(how, wide)).results.tolist()]
    least, largest = Fraction(fmt.min), Fraction(fmt.max)  # type: ignore[union-attr]
    for row, total in enumerate(sums):
        if not least <= total <= largest:
            run = case.run(how)
            why = f"the sum {float(total):.9g} is beyond the range of {fmt.name}, and wraps around"  # type: ignore[union-attr]
            step = int(run.counts.overflow_step[row])
            return case.counterexample(row, step, float(run.results[row]), why)
    why = "the least and the largest final sums are in range; sums on the way may wrap around, right modulo 2^bits"
    low, high = min([*sums, Fraction(0)]), max([*sums, Fraction(0)])
    return Proof(why=why, least=float(low), largest=float(high))


def _wide(fmt: Integer | Fixed, most: Fraction, case: _Case) -> Integer | Fixed | None:
    """Return a format in which nothing wraps; the same one where sums are exact, None where there is none."""
    fraction_bits = getattr(fmt, "fraction_bits", 0)
    unit = Fraction(1, 2) ** fraction_bits
    ends = {x for x in case.inputs.ravel().tolist() if x}
    if case.format == _FLOAT64 or not _multiples(case, ends, unit):
        total = sum(abs(x) for x in (np.abs(case.inputs) * np.abs(case.columns)).sum(axis=1).tolist())
        if not np.isfinite(total):
            return None
        bits = int(max(Fraction(total), most) / unit + 1).bit_length() + 2 + case.inputs.shape[1].bit_length()
        return Fixed(bits, fraction_bits) if bits <= _MOST_FIXED_BITS else None
    return fmt


def _multiples(case: _Case, ends: set[float], unit: Fraction) -> bool:
    """Whether every product of a number of the inputs' format is a multiple of the accumulator's last bit."""
    from lowp.emulation._exact_widths import grid_of

    last = Fraction(2) ** grid_of(case.format).unit
    return all((last * Fraction(w) / unit).denominator == 1 for w in set(case.weights.ravel().tolist()))


def _in_format(how: Accumulator, fmt: Integer | Fixed) -> Accumulator:
    outer = None if how.outer is None else replace(how.outer, format=fmt, overflow="saturate")
    return replace(how, format=fmt, overflow="saturate", outer=outer)


def _of_mixed(case: _Case) -> Proof | CounterExample | Undecided:
    """Decide where sums of different formats wrap or saturate: nothing may overflow on the way."""

    def saturating(x: Accumulator) -> Accumulator:
        return replace(x, overflow="saturate") if x.overflow == "wrap" else x

    outer = None if case.how.outer is None else saturating(case.how.outer)
    strict = saturating(replace(case.how, outer=outer))
    found = _of_saturating(_Case(strict, case.weights, case.weight_format, case.format, *case.ends))
    if not isinstance(found, CounterExample):
        return found
    run, alone = case.run(case.how), not _is_deterministic(case.how)
    for row in range(len(case.inputs)):
        place = 0 if alone else row
        run = case.run(case.how, only=row) if alone else run
        result = float(run.results[place])
        wrong = not math.isfinite(result) or Fraction(result) != case.exact(row)
        if run.counts.overflow_step[place] != NEVER and wrong:
            why = "a sum on the way is beyond the range of its format, and the result is wrong"
            return case.counterexample(row, int(run.counts.overflow_step[place]), result, why)
    return Undecided(why="partial sums may wrap around, but no wrong result was found")


def _ends(inputs: Any, input_range: Any) -> tuple[ScalarFormat, float, float]:
    """Return the inputs' format, and their least and largest values."""
    if isinstance(inputs, tuple | list):
        if input_range is not None:
            raise ArgumentError("input_range is for inputs with a format.")
        least, largest = _pair("inputs", inputs)
        return _FLOAT64, least, largest
    if not isinstance(inputs, str | Format):
        raise ArgumentTypeError(f"inputs={inputs!r} must be a format, its name, or the least and the largest input.")
    fmt = parse(inputs)
    if not isinstance(fmt, ScalarFormat):
        raise ArgumentError(f"inputs={fmt.name!r} must be a scalar format; give the range of scaled inputs instead.")
    if input_range is None:
        return fmt, fmt.min, fmt.max
    low, high = _pair("input_range", input_range)
    found = [
        float(verbs.quantize(np.array([x]), fmt, mode, overflow="saturate")[0])
        for x, mode in ((low, "toward_positive"), (high, "toward_negative"))
    ]
    if not low <= found[0] <= found[1] <= high:
        raise ArgumentError(f"input_range={input_range!r} holds no number of {fmt.name}.")
    return fmt, found[0], found[1]


def _weight_format(weights: Any, matrix: NDArray[np.float64]) -> ScalarFormat:
    """Return the format of weights: their own, or float32 where that has plain numbers."""
    from lowp.emulation.matmul import operand  # which needs modules that come after this one

    found = operand(weights, "weights", -2)
    if found.scales is not None:
        raise ArgumentError("weights must have no block scales; give their values.")
    with np.errstate(over="ignore"):
        narrow = found.format == _FLOAT64 and (matrix.astype(np.float32) == matrix).all()
    return Float(8, 23) if narrow else found.format


def _pair(name: str, given: Any) -> tuple[float, float]:
    try:
        least, largest = (float(x) for x in given)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name}={given!r} must be two numbers, the least and the largest.") from None
    if not -np.inf < least <= largest < np.inf:
        raise ArgumentError(f"{name}={given!r} must be two finite numbers, the least first.")
    return least, largest
