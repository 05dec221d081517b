"""Approximations of exp, 2^x, 1/sqrt(x), GELU and others as hardware evaluates them, and their errors in ulps.

An approximation is data: a straight-line program with coefficients and tables. It is evaluated in any scalar format,
with each operation, each constant and each entry of a table rounded into that format; or nearly exactly, in 240 bits.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation import _approximation_worlds as worlds
from lowp.emulation._approximation_programs import (
    Constant,
    Named,
    Names,
    Step,
    Table,
    count,
    exact_number,
    parse_steps,
)
from lowp.emulation._counted import Steps
from lowp.emulation._operands import How, array_format
from lowp.emulation._reference_functions import FUNCTIONS
from lowp.emulation._rows import given_numbers
from lowp.emulation.array import array
from lowp.formats.spec import Format, ScalarFormat

if TYPE_CHECKING:
    from lowp.emulation.ulp_errors import UlpReport

_DATA = files("lowp.emulation") / "data" / "approximations.toml"
_KEYS = (
    "function", "domain", "steps", "constants", "coefficients", "tables", "reduced", "error", "source", "known", "like",
)  # fmt: skip
_LIMITS = ("min", "max", "smallest_normal", "smallest_subnormal")


@dataclass(frozen=True)
class OperationCounts:
    """Operations of one evaluation.

    Args:
        multiplies: Multiplications.
        adds: Additions and subtractions.
        fmas: Fused multiply-adds.
        divides: Divisions.
        roots: Square roots.
        functions: Elementary functions that are called (exp, tanh).
        lookups: Entries read from tables.
        shifts: Multiplications by a power of two, and halvings of an exponent.
        integers: Other operations on codes: taking out the exponent, subtracting codes.
        roundings: Roundings to an integer.
        comparisons: Minimum and maximum.
    """

    multiplies: int = 0
    adds: int = 0
    fmas: int = 0
    divides: int = 0
    roots: int = 0
    functions: int = 0
    lookups: int = 0
    shifts: int = 0
    integers: int = 0
    roundings: int = 0
    comparisons: int = 0

    @property
    def total(self) -> int:
        """All of them; a fused multiply-add is one. Signs and magnitudes are free."""
        return sum(vars(self).values())

    def __str__(self) -> str:
        return ", ".join(f"{n} {kind}" for kind, n in vars(self).items() if n)


@dataclass(frozen=True)
class Approximation:
    """An approximation of a function as a program over one argument.

    Args:
        name: `<function>/<method>`.
        function: What it approximates: "exp", "exp2", "log2", "rsqrt", "reciprocal", "sqrt", "tanh", "sigmoid", "silu",
            "erf" or "gelu".
        domain: The arguments it is meant for: numbers, or "min", "max", "smallest_normal", "smallest_subnormal" of the
            format.
        steps: The program.
        reduced: Where `error` holds; None: it is not stated.
        error: Bound on the relative error in exact arithmetic.
        source: Where coefficients and method are from.
        known: "published", "derived" or "textbook".

    Example:
        >>> print(approximation("exp2/mitchell"))
        exp2/mitchell: 2 adds, 1 shifts, 1 roundings
          n = floor(x)
          f = subtract(x, n)
          p = add(f, 1)
          y = scale(p, n)
          relative error 0.0615 on [0, 1]
          published: J. N. Mitchell, IRE Trans. Electronic Computers EC-11 (1962)
    """

    name: str
    function: str
    domain: tuple[Fraction | str, Fraction | str]
    steps: tuple[Step, ...]
    reduced: tuple[Fraction, Fraction] | None = None
    error: float | None = None
    source: str = ""
    known: str = ""

    @staticmethod
    def from_mapping(name: str, given: Mapping[str, Any]) -> Approximation:
        """Return an approximation of one's own, from what an entry of `data/approximations.toml` has.

        Args:
            name: What it is called in messages.
            given: "function", "steps" (text), and as needed "domain", "constants", "coefficients", "tables", "reduced",
                "error", "source", "known". The constants log2e, ln2 and sqrt_2_over_pi are there already.

        Raises:
            ArgumentError: A key, a function, an operation or a name in the program that is not known.

        Example:
            >>> rough = Approximation.from_mapping("exp/line", {"function": "exp", "steps": "y = add(x, 1)"})
            >>> rough.evaluate([0.5], "float16").values.tolist()
            [1.5]
        """
        return _made(name, given, _data()["constants"])

    def evaluate(self, x: Any, fmt: str | Format, *, fused: bool = True, **options: Unpack[How]) -> array:
        """Return the approximation in a format; every operation is rounded into it.

        Args:
            x: Numbers, rounded into `fmt` first; an array in any format.
            fmt: A scalar format.
            fused: Whether a product and a sum are rounded once, together.
            **options: How operations round: rounding, overflow, seed, nan, ...

        Example:
            >>> approximation("exp/minimax_3").evaluate([0.0, 1.0, -2.0], "bfloat16").values.tolist()
            [1.0, 2.71875, 0.1357421875]
        """
        form = array_format(fmt, "fmt")
        steps = Steps(options)
        given = (
            x if isinstance(x, array) and x.format == form else steps.do("input", "convert", given_numbers(x), fmt=form)
        )
        return self.run(worlds.FormatWorld(form, steps, fused, "approximation"), given)

    def exactly(self, points: Any) -> list[Any]:
        """Return the program's values at numbers, in 240 bits without any rounding, as mpmath's numbers."""
        from lowp.emulation import _accurate

        flat = [_accurate.big(exact_number(p, "points")) for p in points]
        return [worlds.run(self.steps, worlds.ExactWorld(), x)[self.steps[-1].name] for x in flat]

    def relative_error(self, lo: Any = None, hi: Any = None, points: int = 2001) -> float:
        """Return the largest relative error of the program in exact arithmetic, over evenly spaced arguments.

        Args:
            lo: Least argument; None: that of `reduced`.
            hi: Largest argument.
            points: How many arguments.

        Raises:
            ArgumentError: There is no such range.

        Example:
            >>> approximation("exp2/minimax_3").relative_error()  # doctest: +ELLIPSIS
            7.47...e-05
        """
        from lowp.emulation import _accurate, _reference_functions

        ends = self.reduced or (None, None)
        least, most = (end if given is None else given for given, end in zip((lo, hi), ends, strict=True))
        if least is None or most is None:
            raise ArgumentError(f"lo={lo!r}, hi={hi!r}: {self.name!r} has no reduced range of its own; give both.")
        low, high = exact_number(least, "lo"), exact_number(most, "hi")
        if points < 2 or high <= low:
            raise ArgumentError(f"lo={lo!r}, hi={hi!r}, points={points!r}: give a range and at least 2 points.")
        at = [low + (high - low) * i / (points - 1) for i in range(points)]
        worst = 0.0
        for x, got in zip(at, self.exactly(at), strict=True):
            want = _reference_functions.big(self.function, _accurate.big(x))
            worst = max(worst, float(abs(got / want - 1)))
        return worst

    def operations(self, fused: bool = True) -> OperationCounts:
        """Return the operations of one evaluation.

        Example:
            >>> print(approximation("exp2/autonumerics_zero_10").operations())
            3 multiplies, 4 adds, 3 divides
        """
        return OperationCounts(**count(self.steps, fused))

    def bounds(self, fmt: ScalarFormat) -> tuple[float, float]:
        """Return the domain in a format."""
        low, high = (getattr(fmt, end) if isinstance(end, str) else float(end) for end in self.domain)
        return max(low, fmt.min), min(high, fmt.max)

    def run(self, world: worlds.FormatWorld, x: array) -> array:
        """Return the result for an array already in the world's format."""
        result: array = worlds.run(self.steps, world, x)[self.steps[-1].name]
        return result

    def require_scaled(self, argument: str) -> None:
        """Raise ArgumentError unless the last step multiplies by a power of two."""
        last = self.steps[-1]
        if last.op != "scale" or not all(isinstance(a, Named) for a in last.arguments[:2]):
            raise ArgumentError(
                f"{argument}={self.name!r} does not end in scale(p, n), a mantissa times a power of two; "
                f"allowed: {', '.join(repr(n) for n in approximations(self.function) if _ends_scaled(n))}."
            )

    def scaled_parts(self, world: worlds.FormatWorld, x: array) -> tuple[array, NDArray[np.float64]]:
        """Return the mantissa and the exponent that the last step would multiply, an integer of any size."""
        mantissa, exponent, *times = self.steps[-1].arguments
        found = worlds.run(self.steps[:-1], world, x)
        factor = int(times[0].value) if times else 1
        with np.errstate(over="ignore"):
            return found[mantissa.name], np.rint(np.nan_to_num(worlds.plain(found[exponent.name]))) * factor

    def __str__(self) -> str:
        """Return a card: the program, operations and source."""
        lines = [f"{self.name}: {self.operations()}"]
        lines += [f"  {step.name} = {step.op}({', '.join(_shown(a) for a in step.arguments)})" for step in self.steps]
        if self.error is not None and self.reduced is not None:
            low, high = (float(end) for end in self.reduced)
            lines.append(f"  relative error {self.error:g} on [{low:g}, {high:g}]")
        return "\n".join([*lines, f"  {self.known}: {self.source}"])


def _ends_scaled(name: str) -> bool:
    last = approximation(name).steps[-1]
    return last.op == "scale" and all(isinstance(a, Named) for a in last.arguments[:2])


def _shown(argument: Any) -> str:
    if isinstance(argument, Named):
        return f"-{argument.name}" if argument.negated else argument.name
    if isinstance(argument, Constant):
        text = f"{float(argument.value):.17g}"
        return f"{argument.part}({text})" if argument.part else text
    if isinstance(argument, Table):
        return f"table of {argument.entries}"
    return "[" + ", ".join(f"{float(c):.17g}" for c in argument) + "]"


def approximations(function: str | None = None) -> list[str]:
    """Return the names of the approximations that are there, of one function or of all.

    Raises:
        ArgumentError: No approximation of such a function.

    Example:
        >>> approximations("reciprocal")
        ['reciprocal/linear_newton_2', 'reciprocal/table_64_newton_1']
    """
    names = list(_data()["approximations"])
    if function is None:
        return names
    found = [name for name in names if name.partition("/")[0] == function]
    if not found:
        raise ArgumentError(unknown_name("function", function, sorted({n.partition("/")[0] for n in names})))
    return found


@lru_cache(maxsize=256)
def approximation(name: str) -> Approximation:
    """Return the approximation of a name.

    Raises:
        ArgumentError: There is none; the message has the nearest name.

    Example:
        >>> approximation("exp/two_pass_p5").operations().fmas
        7
    """
    entries = _data()["approximations"]
    if name not in entries:
        raise ArgumentError(unknown_name("approximation", name, entries))
    given = dict(entries[name])
    if "like" in given:
        given = {**entries[given.pop("like")], **given}
    return _made(name, given, _data()["constants"])


def resolved(given: Any, argument: str, function: str | None = None) -> Approximation:
    """Return an approximation given by itself or by name, of one function where it has to be."""
    if not isinstance(given, Approximation | str):
        raise ArgumentTypeError(f"{argument}={given!r} must be an Approximation or the name of one.")
    found = approximation(given) if isinstance(given, str) else given
    if function is not None and found.function != function:
        raise ArgumentError(
            f"{argument}={found.name!r} approximates {found.function}, not {function}; "
            f"allowed: {', '.join(repr(n) for n in approximations(function))}."
        )
    return found


def ulp_errors(
    approximation: str | Approximation, fmt: str | Format, lo: Any = None, hi: Any = None, **how: Any
) -> UlpReport:
    """Return the errors of an approximation in a format, over all its numbers; see `lowp.emulation.ulp_errors`.

    Args:
        approximation: An approximation or its name.
        fmt: A scalar format of at most 16 bits, or a wider one together with `inputs`.
        lo: Least argument; None: that of the approximation's domain.
        hi: Largest argument.
        **how: `inputs`, `fused` and how operations round, as there.

    Example:
        >>> report = ulp_errors("exp/minimax_3", "bfloat16")
        >>> report.inputs, round(report.max_ulps, 2), report.operations.total
        (34144, 1.43, 8)
    """
    from lowp.emulation.ulp_errors import measured

    return measured(resolved(approximation, "approximation"), fmt, lo, hi, **how)


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    return tomllib.loads(_DATA.read_text(encoding="utf-8"))


def _made(name: str, given: Mapping[str, Any], shared: Mapping[str, str]) -> Approximation:
    for key in given:
        if key not in _KEYS:
            raise ArgumentError(f"{name}: {unknown_name('key', key, _KEYS)}")
    for key in ("function", "steps"):
        if key not in given:
            raise ArgumentError(f"{name}: there is no {key!r}.")
    function = given["function"]
    if function not in FUNCTIONS:
        raise ArgumentError(f"{name}: {unknown_name('function', function, FUNCTIONS)}")
    constants = {k: exact_number(v, f"{name}: {k}") for k, v in {**shared, **given.get("constants", {})}.items()}
    rows = {k: tuple(exact_number(c, f"{name}: {k}") for c in v) for k, v in given.get("coefficients", {}).items()}
    tables = {k: _table(v, f"{name}: {k}") for k, v in given.get("tables", {}).items()}
    reduced = given.get("reduced")
    return Approximation(
        name,
        function,
        tuple(_end(end, name) for end in given.get("domain", ("min", "max"))),  # type: ignore[arg-type]
        parse_steps(given["steps"], Names(constants, rows, tables), name),
        None if reduced is None else (exact_number(reduced[0], name), exact_number(reduced[1], name)),
        given.get("error"),
        given.get("source", ""),
        given.get("known", ""),
    )


def _end(end: Any, where: str) -> Fraction | str:
    return end if end in _LIMITS else exact_number(end, f"{where}: domain")


def _table(given: Mapping[str, Any], where: str) -> Table:
    function = given.get("function")
    if function not in FUNCTIONS:
        raise ArgumentError(f"{where}: {unknown_name('function', function, FUNCTIONS)}")
    entries = given.get("entries")
    if not isinstance(entries, int) or entries < 2:
        raise ArgumentError(f"{where}: entries={entries!r} must be an integer from 2.")
    start, step = (exact_number(given.get(k), f"{where}: {k}") for k in ("start", "step"))
    return Table(function, start, step, entries)


__all__ = [
    "Approximation",
    "OperationCounts",
    "approximation",
    "approximations",
    "resolved",
    "ulp_errors",
]
