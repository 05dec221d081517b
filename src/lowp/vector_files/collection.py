"""A set of test vectors: cases, results, and the header that says what they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.formats import Format, Packed, ScalarFormat, parse
from lowp.formats.block import Block
from lowp.formats.float_format import Float
from lowp.rounding.random_bits import keys
from lowp.vector_files.cases import GROUPS, LEVEL_COUNTS, Case, cases, is_exhaustive, level_count
from lowp.vector_files.semantics import ALIASES, OPERATIONS, Column, Semantics, make_semantics

#: Version of what the files say and how; docs/vectors.md describes it.
FILE_VERSION = 1
MOST_CASES = 1 << 20


@dataclass(frozen=True, eq=False)
class Vectors:
    """Test vectors of one operation.

    Attributes:
        semantics: The operation, its formats and modes.
        cases: The operand codes of every case, one after the other.
        answers: The result codes of every case.
        origin: Where the cases come from: generator, level, seed, order, ...
    """

    semantics: Semantics
    cases: list[Case]
    answers: list[Case]
    origin: dict[str, Any]

    def __len__(self) -> int:
        return len(self.cases)

    def __repr__(self) -> str:
        s = self.semantics
        return f"Vectors({s.operation}, {s.operand.name} -> {s.result.name}, {s.rounding}, {len(self)} cases)"

    @property
    def header(self) -> dict[str, Any]:
        """Everything a reader needs to know, as data that JSON can hold."""
        columns = [label for c in (*self.semantics.operands, *self.semantics.results) for label in c.labels]
        return {"count": len(self), **self.semantics.header(), **self.origin, "columns": columns}

    @cached_property
    def operands(self) -> dict[str, NDArray[Any]]:
        """Codes of the operands by name: arrays of one code, or one row of codes, per case."""
        return _arrays(self.semantics.operands, self.cases)

    @cached_property
    def results(self) -> dict[str, NDArray[Any]]:
        """Codes of the results by name, as `operands`."""
        return _arrays(self.semantics.results, self.answers)

    def recomputed(self) -> list[Case]:
        """Return the results computed anew."""
        answers = [self.semantics.evaluate(case) for case in self.cases]
        assert None not in answers
        return [answer for answer in answers if answer is not None]

    def text(self, style: str = "hex") -> str:
        """Return the vectors as text: "hex", "mem" or "jsonl"."""
        from lowp.vector_files.files import to_text

        return to_text(self, style)

    def save(self, path: str | PathLike[str], style: str | None = None) -> None:
        """Write a file, whole or not at all; the default style follows from the name.

        Raises:
            FileError: The file cannot be written.
        """
        from lowp.vector_files.files import save

        save(self, path, style)


def vectors(
    fmt: str | Format,
    op: str,
    level: int = 1,
    rounding: str = "ties_to_even",
    overflow: str = "infinity_or_nan",
    seed: int = 0,
    result: str | Format | None = None,
    path: str | PathLike[str] | None = None,
    style: str | None = None,
    count: int | None = None,
    *,
    length: int | None = None,
    accumulator: str | Format | None = None,
    random_bits: int | None = None,
    nan: str = "skip",
) -> Vectors:
    """Make test vectors of an operation in a format, and write them to a file if `path` is given.

    Results come from the exact oracle. Operands of at most 16 bits together are tested exhaustively; others in groups
    from special values over results aimed at (ties, thresholds, cancellation) to random codes. The same arguments give
    the same vectors everywhere. Block quantization takes finite numbers only.

    Args:
        fmt: Format of the operands, and of the result if that is not given. "convert" and "block_quantize" without
            `result` convert float32 into `fmt`.
        op: "convert", "add", "subtract", "multiply", "divide", "sqrt", "fma", "dot", "block_quantize", another of the
            operations of `lowp.emulation.exact_ops`, or a short name such as "sub".
        level: 1 for some thousand cases, 2 for more landmarks and many more cases.
        rounding: Rounding mode. Stochastic modes bring a column of random words.
        overflow: Overflow mode; blocks saturate.
        seed: Seed of the cases that are drawn, 0 to 2^64 - 1.
        result: Format of the result.
        path: File to write.
        style: "hex", "mem", "npz" or "jsonl"; default by the ending of `path`, else "hex".
        count: How many cases, instead of the level's number; fewer where there are no more.
        length: Numbers in a dot product (default 4) or a block (default a whole one; for rows and tensors 32).
        accumulator: Of dot: None, a format, or "exact" ("quire"), see `lowp.dot`.
        random_bits: Random bits of a stochastic mode.
        nan: What a NaN becomes in a format without NaN: "skip" leaves the case out, "zero", "max".

    Raises:
        ArgumentError, ArgumentTypeError: An argument that is not allowed.
        FormatError: A format that does not fit the operation.
        FileError: The file cannot be written.

    Source:
        The idea of levels: J. Hauser, Berkeley TestFloat, release 3e.

    Example:
        >>> made = vectors("float4_e2m1fn", "add")
        >>> made
        Vectors(add, float4_e2m1fn -> float4_e2m1fn, ties_to_even, 256 cases)
        >>> [int(codes[18]) for codes in (*made.operands.values(), *made.results.values())]
        [1, 2, 3]
    """
    from lowp.vector_files.files import checked_style

    checked_style(style, path)
    operation = ALIASES.get(op, op)
    if operation not in OPERATIONS:
        raise ArgumentError(unknown_name("op", op, [*OPERATIONS, *ALIASES]))
    _check_numbers(level, seed, count)
    operand, target = _formats(operation, parse(fmt), None if result is None else parse(result))
    semantics = make_semantics(operation, operand, target, rounding, overflow, random_bits, nan, length, accumulator)
    made = _collect(semantics, level, int(seed), count)
    if path is not None:
        made.save(path, style)
    return made


def _check_numbers(level: int, seed: int, count: int | None) -> None:
    if isinstance(level, bool) or level not in LEVEL_COUNTS:
        raise ArgumentError(f"level={level!r} must be 1 or 2.")
    keys(seed)
    if count is not None and (
        isinstance(count, bool) or not hasattr(count, "__index__") or not 1 <= count <= MOST_CASES
    ):
        raise ArgumentError(f"count={count!r} must be an integer from 1 to {MOST_CASES}.")


def _formats(operation: str, fmt: Format, result: Format | None) -> tuple[ScalarFormat, Format]:
    """Return the formats of operands and result."""
    converts = operation in ("convert", "block_quantize")
    operand, target = (Float(8, 23), fmt) if result is None and converts else (fmt, result or fmt)
    if not isinstance(operand, ScalarFormat):
        raise ArgumentTypeError(f"fmt={operand.name!r} must be a scalar format; a block format can be a result only.")
    if not isinstance(target, ScalarFormat | Block | Packed):
        raise ArgumentTypeError(f"result={target.name!r} is of a family that vectors do not know.")
    return operand, target


def _collect(semantics: Semantics, level: int, seed: int, count: int | None) -> Vectors:
    """Evaluate the cases, each once, until there are enough."""
    everything = is_exhaustive(semantics) and count is None
    wanted = MOST_CASES if everything else level_count(semantics, level) if count is None else int(count)
    found: dict[Case, Case] = {}
    groups: Counter[str] = Counter()
    left_out: set[Case] = set()
    for group, case in cases(semantics, level, seed, count):
        if len(found) >= wanted:
            break
        if case in found or case in left_out:
            continue
        answer = semantics.evaluate(case)
        if answer is None:
            left_out.add(case)
            continue
        found[case] = answer
        groups[group] += 1
    return Vectors(semantics, list(found), list(found.values()), _origin(level, seed, groups, len(left_out)))


def _origin(level: int, seed: int, groups: Counter[str], left_out: int) -> dict[str, Any]:
    from lowp import __version__

    return {
        "version": FILE_VERSION,
        "generator": f"lowp {__version__}",
        "level": level,
        "seed": seed,
        "order": [{"group": name, "cases": n, "holds": GROUPS[name][1]} for name, n in groups.items()],
        "left_out": left_out,
    }


def _arrays(columns: tuple[Column, ...], rows: list[Case]) -> dict[str, NDArray[Any]]:
    arrays, start = {}, 0
    for column in columns:
        dtype = code_array_type(column.bits)
        part = [row[start : start + column.size] for row in rows]
        whole = np.array(part, dtype=dtype).reshape(len(rows), column.size)
        arrays[column.name] = whole[:, 0] if column.length is None else whole
        start += column.size
    return arrays


def code_array_type(bits: int) -> Any:
    """Return the smallest unsigned dtype that holds codes; Python integers beyond 64 bits."""
    return next((np.dtype(f"u{n}") for n in (1, 2, 4, 8) if bits <= 8 * n), np.dtype(object))
