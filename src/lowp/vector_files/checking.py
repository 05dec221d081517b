"""Another implementation's answers against test vectors, and the differences spelled out field by field."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from lowp._errors import ArgumentError, Error
from lowp.formats import ScalarFormat
from lowp.formats.text import code_bits, code_hex, fields, meaning_text
from lowp.vector_files.cases import Case
from lowp.vector_files.collection import Vectors
from lowp.vector_files.files import operand_lines, read_vectors
from lowp.vector_files.semantics import Column

DEFAULT_TIMEOUT = 60.0


class ProgramError(Error):
    """A program under test that crashed, hung, or did not answer with one line of codes per case."""


@dataclass(frozen=True)
class Code:
    """One code of a case, spelled out.

    Attributes:
        name: Its column.
        hex: The code.
        bits: The code in binary, fields apart: sign|exponent|mantissa.
        value: What it stands for.
    """

    name: str
    hex: str
    bits: str
    value: str

    def __str__(self) -> str:
        return f"{self.name} = {self.hex}  {self.bits}  {self.value}".rstrip()


@dataclass(frozen=True)
class Mismatch:
    """A case whose answer is wrong.

    Attributes:
        case: Its number, from 0.
        operands: The operands.
        expected: The results that the vectors hold, of the columns that differ.
        got: The program's results there.
        differing_fields: The fields in which those differ, "result: exponent, mantissa".
    """

    case: int
    operands: tuple[Code, ...]
    expected: tuple[Code, ...]
    got: tuple[Code, ...]
    differing_fields: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"case {self.case}", *(f"  {code}" for code in self.operands)]
        for expected, got, differing in zip(self.expected, self.got, self.differing_fields, strict=True):
            lines += [f"  expected {expected}", f"  got      {got}", f"  differs in {differing}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Verification:
    """The outcome of a comparison.

    Attributes:
        cases: How many cases were compared.
        wrong: How many of them differ.
        mismatches: The first of those.
    """

    cases: int
    wrong: int
    mismatches: tuple[Mismatch, ...]

    def __bool__(self) -> bool:
        return self.wrong == 0

    def __str__(self) -> str:
        if self:
            return f"all {self.cases} cases agree"
        head = f"{self.wrong} of {self.cases} cases differ; the first {len(self.mismatches)}:"
        return "\n".join([head, *map(str, self.mismatches)])

    def data(self) -> dict[str, Any]:
        """Return everything as data that JSON can hold."""
        return {"agrees": bool(self), **asdict(self)}


def verify_vectors(
    vectors: Vectors | str | PathLike[str],
    command: str | Sequence[str],
    first: int = 10,
    *,
    nan_payload: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
) -> Verification:
    """Run a program on the operands and compare its answers.

    The program gets one case per line on its standard input: the operand codes in hexadecimal, in the order of the
    header's columns, with spaces between them. It answers each with a line of the result codes, likewise.

    Args:
        vectors: Test vectors, or a file of them.
        command: The program and its arguments, as a list, or as text that is split as a shell would; no shell runs.
        first: How many mismatches to spell out.
        nan_payload: Whether a NaN must be the very code that the vectors hold; else any NaN is as good.
        timeout: Seconds that the program may take.

    Returns:
        The outcome, true where all cases agree.

    Raises:
        ProgramError: The program cannot be started, crashed, took too long, or its answer is too short, too long or no
            codes.
        FileError: The file is not what it should be.
        ArgumentError: No command, or numbers out of range.
    """
    loaded = vectors if isinstance(vectors, Vectors) else read_vectors(vectors)
    answers = _run(loaded, _split(command), timeout)
    return compare(loaded, answers, first, nan_payload=nan_payload)


def compare(
    vectors: Vectors, answers: Iterable[Sequence[int]], first: int = 10, *, nan_payload: bool = False
) -> Verification:
    """Compare result codes, one sequence per case, with those of the vectors.

    Args:
        vectors: Test vectors.
        answers: The result codes of every case in the order of the columns.
        first: How many mismatches to spell out.
        nan_payload: As `verify_vectors`.

    Raises:
        ArgumentError: Another number of answers than there are cases.

    Example:
        >>> from lowp.vector_files.collection import vectors
        >>> made = vectors("float4_e2m1fn", "add")
        >>> wrong = [answer if i != 18 else (2,) for i, answer in enumerate(made.answers)]
        >>> print(compare(made, wrong))
        1 of 256 cases differ; the first 1:
        case 18
          a = 0x1  0|00|1  0.5
          b = 0x2  0|01|0  1
          expected result = 0x3  0|01|1  1.5
          got      result = 0x2  0|01|0  1
          differs in mantissa
    """
    given = [tuple(int(code) for code in answer) for answer in answers]
    if len(given) != len(vectors):
        raise ArgumentError(f"answers has {len(given)} entries; there are {len(vectors)} cases.")
    if isinstance(first, bool) or not hasattr(first, "__index__") or first < 0:
        raise ArgumentError(f"first={first!r} must be a count.")
    columns = [column for column in vectors.semantics.results for _ in range(column.size)]
    wrong = [
        i
        for i, (expected, got) in enumerate(zip(vectors.answers, given, strict=True))
        if expected != got and any(not _agree(*pair, nan_payload) for pair in zip(columns, expected, got, strict=True))
    ]
    found = tuple(_mismatch(vectors, i, given[i], nan_payload) for i in wrong[:first])
    return Verification(len(vectors), len(wrong), found)


def _agree(column: Column, expected: int, got: int, nan_payload: bool) -> bool:
    if expected == got:
        return True
    fmt = column.format
    return not nan_payload and fmt is not None and fmt.meaning(expected) == "nan" == fmt.meaning(got)


def _mismatch(vectors: Vectors, case: int, got: Case, nan_payload: bool) -> Mismatch:
    operands = _codes(vectors.semantics.operands, vectors.cases[case])
    columns = [column for column in vectors.semantics.results for _ in range(column.size)]
    pairs = list(zip(columns, vectors.answers[case], got, strict=True))
    which = [i for i, pair in enumerate(pairs) if not _agree(*pair, nan_payload)]
    expected, given = (_codes(vectors.semantics.results, codes) for codes in (vectors.answers[case], got))
    return Mismatch(
        case,
        operands,
        tuple(expected[i] for i in which),
        tuple(given[i] for i in which),
        tuple(_differing(*pairs[i]) for i in which),
    )


def _codes(columns: tuple[Column, ...], codes: Case) -> tuple[Code, ...]:
    named = [(column, label) for column in columns for label in column.labels]
    return tuple(_spelled(column, label, code) for (column, label), code in zip(named, codes, strict=True))


def _spelled(column: Column, label: str, code: int) -> Code:
    fmt = column.format
    if fmt is None:
        return Code(label, code_hex(code, column.bits), f"{code:0{column.bits}b}", "")
    return Code(label, code_hex(code, fmt.bits), code_bits(code, fmt, "|"), meaning_text(fmt.meaning(code)))


def _differing(column: Column, expected: int, got: int) -> str:
    """Return the names of the fields in which two codes differ."""
    parts = fields(column.format) if isinstance(column.format, ScalarFormat) else [("bits", column.bits)]
    low = 0
    names: list[str] = []
    for name, width in reversed(parts):
        if ((expected ^ got) >> low) & ((1 << width) - 1):
            names.insert(0, name)
        low += width
    return ", ".join(names)


# The program


def _split(command: str | Sequence[str]) -> list[str]:
    try:
        parts = shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
    except ValueError as error:
        raise ArgumentError(f"command={command!r} cannot be split: {error}.") from None
    if not parts:
        raise ArgumentError(f"command={command!r} names no program.")
    return parts


def _run(vectors: Vectors, command: list[str], timeout: float) -> list[Case]:
    """Return the program's answers."""
    if not 0 < timeout < float("inf"):
        raise ArgumentError(f"timeout={timeout!r} must be a positive number of seconds.")
    lines = "".join(f"{line}\n" for line in operand_lines(vectors))
    try:
        done = subprocess.run(  # noqa: S603 - running the user's program is what is asked for
            command, input=lines.encode(), capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        answered = (error.stdout or b"").count(b"\n")
        raise ProgramError(
            f"{command[0]!r} took longer than {timeout:g} seconds; it had answered {answered} cases."
        ) from None
    except OSError as error:
        raise ProgramError(f"{command[0]!r} cannot be run: {error.strerror or error}.") from error
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    hint = f" Its last message: {said[-1][:200]!r}." if said else ""
    answers = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode:
        raise ProgramError(f"{command[0]!r} {_exit(done.returncode)} after {len(answers)} lines of output.{hint}")
    while answers and not answers[-1].strip():
        answers.pop()
    if len(answers) != len(vectors):
        raise ProgramError(f"{command[0]!r} answered {len(answers)} lines for {len(vectors)} cases.{hint}")
    columns = [column for column in vectors.semantics.results for _ in range(column.size)]
    return [_answer(line, columns, number) for number, line in enumerate(answers, start=1)]


def _exit(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _answer(line: str, columns: list[Column], number: int) -> Case:
    texts = line.split()
    if len(texts) != len(columns):
        raise ProgramError(f"line {number} of the answers must hold {len(columns)} codes, not {line[:80]!r}.")
    return tuple(_code(text, column, number) for text, column in zip(texts, columns, strict=True))


def _code(text: str, column: Column, number: int) -> int:
    try:
        code = int(text, 16)
    except ValueError:
        code = -1
    if not 0 <= code < 1 << column.bits or "_" in text:
        raise ProgramError(
            f"line {number} of the answers: {text[:40]!r} is no {column.name} of {column.bits} bits in hexadecimal."
        )
    return code
