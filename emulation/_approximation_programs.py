"""Straight-line programs of approximations: from the text in their data to steps with resolved arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from lowp._errors import ArgumentError, nearest, unknown_name

#: Operation -> (fewest arguments, most arguments, what it is counted as).
OPERATIONS: dict[str, tuple[int, int, str]] = {
    "add": (2, 2, "adds"), "subtract": (2, 2, "adds"), "multiply": (2, 2, "multiplies"), "square": (1, 1, "multiplies"),
    "divide": (2, 2, "divides"), "fma": (3, 3, "fmas"), "sqrt": (1, 1, "roots"), "exp": (1, 1, "functions"),
    "exp2": (1, 1, "functions"), "tanh": (1, 1, "functions"), "negative": (1, 1, ""), "absolute": (1, 1, ""),
    "copysign": (2, 2, ""), "minimum": (2, 2, "comparisons"), "maximum": (2, 2, "comparisons"),
    "round": (1, 1, "roundings"), "floor": (1, 1, "roundings"), "exponent": (1, 1, "integers"),
    "half": (1, 1, "shifts"), "scale": (2, 3, "shifts"), "horner": (2, 2, "fmas"), "lookup": (2, 2, "lookups"),
    "interpolate": (2, 2, ""), "magic_rsqrt": (2, 2, "integers"),
}  # fmt: skip
KINDS = (
    "multiplies", "adds", "fmas", "divides", "roots", "functions", "lookups", "shifts", "integers", "roundings",
    "comparisons",
)  # fmt: skip
_STEP = re.compile(r"\s*(\w+)\s*=\s*(\w+)\((.*)\)\s*(?:#.*)?")
_NUMBER = re.compile(r"[-+]?(?:0x[0-9a-f.]+p[-+]?\d+|[\d.]+(?:e[-+]?\d+)?(?:/\d+)?)", re.IGNORECASE)
_PART = re.compile(r"(high|low)\((-?)(\w+)\)")
_NEGATED = re.compile(r"negative\((\w+)\)|-(\w+)")


class Named(NamedTuple):
    """The result of a step, or x."""

    name: str
    negated: bool = False


class Constant(NamedTuple):
    """A number; `part` "high" is what a format holds of it, "low" the rest."""

    value: Fraction
    part: str = ""


class Table(NamedTuple):
    """Entries `function(start + i * step)`."""

    function: str
    start: Fraction
    step: Fraction
    entries: int


#: What a step is applied to: a result, a number, the coefficients of a polynomial, or a table.
Argument = Named | Constant | tuple[Fraction, ...] | Table


class Step(NamedTuple):
    """One operation, the name of its result, and its arguments."""

    name: str
    op: str
    arguments: tuple[Any, ...]


def exact_number(text: Any, where: str) -> Fraction:
    """Return the exact value of a number in data: an integer, a decimal, a fraction, or a hexadecimal float."""
    if isinstance(text, int | float | Fraction) and not isinstance(text, bool):
        return Fraction(text)
    try:
        return Fraction(float.fromhex(text)) if "0x" in str(text).lower() else Fraction(str(text))
    except (ValueError, TypeError, ZeroDivisionError):
        raise ArgumentError(
            f"{where}: {text!r} is no number; allowed: decimals, fractions, hexadecimal floats."
        ) from None


class Names(NamedTuple):
    """What the arguments of a program may name."""

    constants: Mapping[str, Fraction]
    coefficients: Mapping[str, tuple[Fraction, ...]]
    tables: Mapping[str, Table]


def parse_steps(text: str, names: Names, where: str) -> tuple[Step, ...]:
    """Return the steps of a program, checked: operations exist, and what they name is known before.

    Raises:
        ArgumentError: A line that is no step.
    """
    known, steps = {"x"}, []
    for line in text.strip().splitlines():
        found = _STEP.fullmatch(line)
        if found is None:
            raise ArgumentError(f"{where}: {line!r} is no step; a step is 'name = operation(argument, ...)'.")
        name, op, given = found.groups()
        if op not in OPERATIONS:
            raise ArgumentError(f"{where}: {unknown_name('operation', op, OPERATIONS)}")
        arguments = tuple(_argument(part.strip(), known, names, f"{where}: {line.strip()!r}") for part in _parts(given))
        fewest, most, _ = OPERATIONS[op]
        if not fewest <= len(arguments) <= most:
            raise ArgumentError(
                f"{where}: {line.strip()!r} has {len(arguments)} arguments; {op} takes {fewest} to {most}."
            )
        _check_kinds(op, arguments, f"{where}: {line.strip()!r}")
        steps.append(Step(name, op, arguments))
        known.add(name)
    if not steps:
        raise ArgumentError(f"{where} has no steps.")
    return tuple(steps)


def _parts(text: str) -> Iterable[str]:
    """Split at the commas outside parentheses."""
    return re.split(r",(?![^(]*\))", text) if text.strip() else []


def _check_kinds(op: str, arguments: tuple[Any, ...], where: str) -> None:
    for i, argument in enumerate(arguments):
        table, row = isinstance(argument, Table), type(argument) is tuple
        if table != (op in ("lookup", "interpolate") and i == 0) or row != (op == "horner" and i == 1):
            raise ArgumentError(f"{where}: argument {i + 1} of {op} is of the wrong kind.")


def _argument(text: str, known: set[str], names: Names, where: str) -> Argument:
    if _NUMBER.fullmatch(text):
        return Constant(exact_number(text, where))
    if text in known:
        return Named(text)
    if text in names.coefficients:
        return names.coefficients[text]
    if text in names.tables:
        return names.tables[text]
    if found := _PART.fullmatch(text):
        part, sign, name = found.groups()
        return Constant(_constant(name, names, known, where) * (-1 if sign else 1), part)
    if found := _NEGATED.fullmatch(text):
        name = found.group(1) or found.group(2)
        return Named(name, True) if name in known else Constant(-_constant(name, names, known, where))
    return Constant(_constant(text, names, known, where))


def _constant(name: str, names: Names, known: set[str], where: str) -> Fraction:
    if name in names.constants:
        return names.constants[name]
    everything = [*sorted(known), *names.constants, *names.coefficients, *names.tables]
    raise ArgumentError(f"{where}: {name!r} is not known before this step.{nearest(name, everything)}")


def count(steps: tuple[Step, ...], fused: bool) -> dict[str, int]:
    """Return how many operations of each kind an evaluation takes; signs are free."""
    found = dict.fromkeys(KINDS, 0)
    for step in steps:
        kind = OPERATIONS[step.op][2]
        times = len(step.arguments[1]) - 1 if step.op == "horner" else 1
        if step.op == "interpolate":
            found["roundings"] += 1
            found["adds"] += 2
            found["lookups"] += 2
            kind = "fmas"
        if kind == "fmas" and not fused:
            found["multiplies"] += times
            found["adds"] += times
        elif kind:
            found[kind] += times
    return found
