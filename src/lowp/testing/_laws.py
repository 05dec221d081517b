"""How a law is put to a function: many inputs at once, then a search that shrinks what it finds."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.formats.spec import ScalarFormat
from lowp.testing._show import simplicity

_Column = NDArray[Any]


class Law(NamedTuple):
    """A statement about single inputs (one row of one or more columns) and what the function makes of them.

    `apply` maps columns to one result per row. `suspects` marks the rows that may break the law, quickly; `judge`
    decides on one row, exactly, and says what is wrong with it, or None.
    """

    title: str
    apply: Callable[..., _Column]
    suspects: Callable[..., NDArray[np.bool_]]
    judge: Callable[..., str | None]


class Subject:
    """A function under test: called with whole arrays where it takes them, else with one number after the other.

    A result may be an array, a tensor, a number, or `lowp.Encoded`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise ArgumentTypeError(f"the implementation under test is {function!r}; it must be a function.")
        self._function = function
        self._takes_arrays: bool | None = None

    def __call__(self, *columns: _Column) -> _Column:
        """Return one result for each row."""
        if self._takes_arrays is None:
            self._takes_arrays = self._probe(columns)
        if self._takes_arrays:
            results = _plain(self._function(*(column.copy() for column in columns)))
            if results.shape != columns[0].shape:
                raise AssertionError(f"the function returned shape {results.shape} for inputs of {columns[0].shape}")
            return results
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return np.array([_plain(self._function(*row)).item() for row in rows])

    def _probe(self, columns: tuple[_Column, ...]) -> bool:
        """Whether two ones give two results; what raises for an array is called with numbers, and may raise there."""
        try:
            results = _plain(self._function(*(np.ones(2, column.dtype) for column in columns)))
        except Exception:  # noqa: BLE001 - whatever a scalar function makes of an array
            return False
        return results.shape == (2,) and results.dtype != object


def _plain(result: Any) -> _Column:
    result = getattr(result, "codes", result)
    if hasattr(result, "detach"):
        result = result.detach().cpu()
    return np.asarray(result)


def parameters(function: Callable[..., Any]) -> int:
    """Return how many positional arguments a function must be given; 1 where it does not say."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in found)


def enforce(
    law: Law, columns: tuple[_Column, ...], strategy: Callable[[], Any], *, exhaustive: bool, max_examples: int
) -> None:
    """Raise AssertionError with the simplest row that breaks the law, or with one that a search finds and shrinks."""
    if max_examples < 0:
        raise ArgumentError(f"max_examples={max_examples!r} must be 0 or more.")
    if exhaustive and columns and columns[0].size:
        _go_through(law, columns)
    if max_examples:
        dtypes = [column.dtype for column in columns]

        def complaint(row: tuple[Any, ...]) -> str | None:
            single = tuple(np.array([x], dtype) for x, dtype in zip(row, dtypes, strict=True))
            return law.judge(law.apply(*single)[0], *row)

        search(strategy, law.title, complaint, max_examples)


def _go_through(law: Law, columns: tuple[_Column, ...]) -> None:
    results = law.apply(*columns)
    suspects = np.flatnonzero(law.suspects(results, *columns))
    rows = [(tuple(column[i].item() for column in columns), int(i)) for i in suspects]
    for row, i in sorted(rows, key=lambda found: [simplicity(x) for x in found[0]]):
        complaint = law.judge(results[i], *row)
        if complaint:
            raise AssertionError(
                f"{law.title}: broken by {len(rows)} of {columns[0].size} inputs, the simplest:\n{complaint}"
            )


class _FoundError(Exception):
    """A counterexample of a search."""


def search(strategy: Callable[[], Any], title: str, complaint: Callable[[Any], str | None], max_examples: int) -> None:
    """Raise AssertionError with the smallest example that `complaint` objects to; the same examples in every run."""
    try:
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    except ImportError as error:
        raise ImportError(
            "this search needs Hypothesis: pip install 'lowp[testing]', or pass max_examples=0."
        ) from error

    @settings(
        max_examples=max_examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(strategy())
    def holds(example: Any) -> None:
        found = complaint(example)
        if found:
            raise _FoundError(found)

    try:
        holds()
    except _FoundError as found:
        raise AssertionError(f"{title}: broken, after shrinking, by\n{found}") from None


def differ(got: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark codes that differ; integers of any dtype are compared as numbers."""
    return np.asarray(got != wanted, dtype=bool)


def other_values(got: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark floats that differ, in the sign of zero too; NaNs are equal."""
    got = np.asarray(got)
    equal = (got == wanted) & (np.signbit(got) == np.signbit(wanted))
    return np.asarray(~(equal | (np.isnan(got) & np.isnan(wanted))))


def value_rows(fmt: ScalarFormat, dtype: np.dtype[Any], columns: int = 1, **options: Any) -> Callable[[], Any]:
    """Return what makes the strategy for rows of numbers; called only when a search begins."""

    def strategy() -> Any:
        from hypothesis import strategies

        from lowp.testing.strategies import values

        return strategies.tuples(*[values(fmt, dtype=dtype.name, **options)] * columns)

    return strategy


def code_rows(fmt: ScalarFormat, columns: int = 1, *, allow_nan: bool = True) -> Callable[[], Any]:
    """Return what makes the strategy for rows of codes; called only when a search begins."""

    def strategy() -> Any:
        from hypothesis import strategies

        from lowp.testing.strategies import codes

        return strategies.tuples(*[codes(fmt, allow_nan=allow_nan)] * columns)

    return strategy
