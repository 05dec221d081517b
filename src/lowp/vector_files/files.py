"""Test vectors on disk: hexadecimal text, $readmemh memories, NPZ and JSON lines, each with the whole header."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from lowp._errors import ArgumentError, FileError, unknown_name
from lowp.studies.store import to_json, write_atomically
from lowp.vector_files.cases import Case
from lowp.vector_files.collection import FILE_VERSION, Vectors
from lowp.vector_files.semantics import Column, Semantics

#: Styles and the ending of a file's name that stands for each.
STYLES = {"hex": ".hex", "mem": ".mem", "npz": ".npz", "jsonl": ".jsonl"}
_MAGIC = f"lowp-vectors {FILE_VERSION}"
_COMMENTS = {"hex": "#", "mem": "//"}


def checked_style(style: str | None, path: str | PathLike[str] | None) -> str:
    """Return a style by its name, or by the ending of a file's name.

    Raises:
        ArgumentError: There is no such style.
    """
    if style is None:
        ending = Path(path).suffix.lower() if path is not None else ""
        return next((name for name, own in STYLES.items() if own == ending), "hex")
    if style not in STYLES:
        raise ArgumentError(unknown_name("style", style, STYLES))
    return style


def save(vectors: Vectors, path: str | PathLike[str], style: str | None = None) -> None:
    """Write a file, whole or not at all.

    Raises:
        FileError: It cannot be written.
        ArgumentError: An unknown style.
    """
    chosen = checked_style(style, path)
    write_atomically(Path(path), _npz(vectors) if chosen == "npz" else to_text(vectors, chosen))


def to_text(vectors: Vectors, style: str) -> str:
    """Return the vectors in one of the text styles.

    Raises:
        ArgumentError: An unknown style, or "npz", which is no text.
    """
    if checked_style(style, None) == "npz":
        raise ArgumentError("style='npz' is no text; give a path to write it to.")
    writers: dict[str, Callable[[Vectors], Iterator[str]]] = {
        "hex": _hex_lines,
        "mem": _mem_lines,
        "jsonl": _json_lines,
    }
    return "\n".join(writers[style](vectors)) + "\n"


def operand_lines(vectors: Vectors) -> Iterator[str]:
    """Yield the operands of each case in hexadecimal, with spaces between them."""
    digits = _digits(vectors.semantics.operands)
    return (" ".join(f"{code:0{n}x}" for code, n in zip(case, digits, strict=True)) for case in vectors.cases)


def _digits(columns: tuple[Column, ...]) -> list[int]:
    return [column.digits for column in columns for _ in range(column.size)]


def _header_lines(header: dict[str, Any], comment: str) -> Iterator[str]:
    yield f"{comment} {_MAGIC}"
    for name, value in header.items():
        yield f"{comment} {name}: {to_json(value)}"


def _hex_lines(vectors: Vectors) -> Iterator[str]:
    yield from _header_lines(vectors.header, _COMMENTS["hex"])
    digits = _digits(vectors.semantics.results)
    for operands, answer in zip(operand_lines(vectors), vectors.answers, strict=True):
        yield operands + " " + " ".join(f"{code:0{n}x}" for code, n in zip(answer, digits, strict=True))


def _widths(semantics: Semantics) -> list[tuple[str, int]]:
    return [(label, c.bits) for c in (*semantics.operands, *semantics.results) for label in c.labels]


def _mem_lines(vectors: Vectors) -> Iterator[str]:
    """One word per case: the columns one after the other, the first in the highest bits."""
    widths = _widths(vectors.semantics)
    total = sum(bits for _, bits in widths)
    parts, high = [], total
    for label, bits in widths:
        parts.append(f"{label}[{high - 1}:{high - bits}]")
        high -= bits
    yield from _header_lines(vectors.header | {"word_bits": total, "word": parts}, _COMMENTS["mem"])
    for row in _rows(vectors):
        word = 0
        for code, (_, bits) in zip(row, widths, strict=True):
            word = word << bits | code
        yield f"{word:0{(total + 3) // 4}x}"


def _rows(vectors: Vectors) -> Iterator[Case]:
    return (case + answer for case, answer in zip(vectors.cases, vectors.answers, strict=True))


def _json_lines(vectors: Vectors) -> Iterator[str]:
    """The header, then an object per case with hexadecimal strings, in lists where a column has several codes."""
    yield to_json({"lowp-vectors": FILE_VERSION} | vectors.header)
    columns = (*vectors.semantics.operands, *vectors.semantics.results)
    for row in _rows(vectors):
        data: dict[str, Any] = {}
        start = 0
        for column in columns:
            texts = [f"{code:0{column.digits}x}" for code in row[start : start + column.size]]
            data[column.name] = texts[0] if column.length is None else texts
            start += column.size
        yield to_json(data)


def _npz(vectors: Vectors) -> bytes:
    """Arrays by column, of codes; codes of more than 64 bits as rows of little-endian bytes. "header" is JSON."""
    arrays: dict[str, Any] = {"header": np.array(to_json({"lowp-vectors": FILE_VERSION} | vectors.header))}
    for column in (*vectors.semantics.operands, *vectors.semantics.results):
        codes = (vectors.operands | vectors.results)[column.name]
        arrays[column.name] = _as_bytes(codes, column.bits) if codes.dtype == object else codes
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _as_bytes(codes: Any, bits: int) -> Any:
    size = (bits + 7) // 8
    rows = [np.frombuffer(int(code).to_bytes(size, "little"), np.uint8) for code in codes.ravel()]
    return np.array(rows, np.uint8).reshape(*codes.shape, size)


# Reading


def read_vectors(path: str | PathLike[str]) -> Vectors:
    """Read a file of test vectors, of whatever style.

    Raises:
        FileError: It cannot be read, or is not what its header says.

    Example:
        >>> import tempfile
        >>> from lowp.vector_files.collection import vectors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = vectors("int4", "add", path=f"{folder}/add.mem")
        ...     read_vectors(f"{folder}/add.mem").answers == made.answers
        True
    """
    name = fspath(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{name!r} cannot be read: {error.strerror or error}.") from error
    try:
        return _from_npz(data) if data[:2] == b"PK" else _from_text(data.decode("utf-8"))
    except FileError as error:
        raise FileError(f"{name!r} is no file of test vectors: {error}") from error
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise FileError(f"{name!r} is no file of test vectors: {error!r}.") from error


def _from_npz(data: bytes) -> Vectors:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = _checked_version(json.loads(str(arrays["header"])))
        semantics = Semantics.from_header(header)
        columns = (*semantics.operands, *semantics.results)
        parts = [_from_array(arrays[c.name], c, int(header["count"])) for c in columns]
    return _assembled(header, semantics, [sum(row, ()) for row in zip(*parts, strict=True)])


def _from_array(codes: Any, column: Column, count: int) -> list[Case]:
    rows = codes.reshape(count, column.size, -1)
    if column.bits > 64:
        return [tuple(int.from_bytes(bytes(code), "little") for code in row) for row in rows.tolist()]
    return [tuple(code for (code,) in row) for row in rows.tolist()]


def _from_text(text: str) -> Vectors:
    lines = text.splitlines()
    first = lines[0] if lines else ""
    if first.startswith("{"):
        return _from_json_lines(lines)
    style = next((name for name, comment in _COMMENTS.items() if first.startswith(comment)), None)
    if style is None:
        raise FileError("it begins neither with a comment nor with a JSON object.")
    comment = _COMMENTS[style]
    comments = [line.removeprefix(comment).strip() for line in lines if line.startswith(comment)]
    header = _checked_version({"lowp-vectors": _version(comments[0])} | _header_of(comments[1:]))
    semantics = Semantics.from_header(header)
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith(comment):
            rows.append(_row(line, style, semantics, number))
    return _assembled(header, semantics, rows)


def _version(line: str) -> Any:
    name, _, version = line.partition(" ")
    return int(version) if name == "lowp-vectors" and version.isdecimal() else None


def _header_of(comments: list[str]) -> dict[str, Any]:
    pairs = (line.partition(": ") for line in comments)
    return {name: json.loads(value) for name, mark, value in pairs if mark}


def _checked_version(header: dict[str, Any]) -> dict[str, Any]:
    if header.get("lowp-vectors") != FILE_VERSION:
        found = header.get("lowp-vectors")
        raise FileError(f"it has version {found!r} of the format; this program reads version {FILE_VERSION}.")
    return header


def _row(line: str, style: str, semantics: Semantics, number: int) -> Case:
    """Return the codes of one line."""
    widths = [bits for _, bits in _widths(semantics)]
    try:
        if style == "hex":
            codes = [int(text, 16) for text in line.split()]
        else:
            word, codes = int(line.replace("_", ""), 16), []
            for bits in reversed(widths):
                codes.insert(0, word & ((1 << bits) - 1))
                word >>= bits
            widths = [*widths, 0]
            codes.append(word)  # what is left over, which must be nothing
    except ValueError:
        raise FileError(f"line {number} holds {line[:60]!r}, which is not hexadecimal.") from None
    if len(codes) != len(widths) or any(code >> bits for code, bits in zip(codes, widths, strict=True)):
        raise FileError(f"line {number} does not hold codes of {len(_widths(semantics))} columns: {line[:60]!r}.")
    return tuple(codes[: len(_widths(semantics))])


def _from_json_lines(lines: list[str]) -> Vectors:
    header = _checked_version(json.loads(lines[0]))
    semantics = Semantics.from_header(header)
    rows = []
    for line in filter(None, lines[1:]):
        data, row = json.loads(line), []
        for column in (*semantics.operands, *semantics.results):
            texts = data[column.name]
            row += [int(text, 16) for text in ([texts] if column.length is None else texts)]
        rows.append(tuple(row))
    return _assembled(header, semantics, rows)


#: What of a header belongs to the cases, not to the semantics.
_ORIGIN = ("version", "generator", "level", "seed", "order", "left_out")


def _assembled(header: dict[str, Any], semantics: Semantics, rows: list[Case]) -> Vectors:
    split = sum(column.size for column in semantics.operands)
    whole = split + sum(column.size for column in semantics.results)
    if len(rows) != header["count"] or any(len(row) != whole for row in rows):
        raise FileError(f"it holds {len(rows)} cases, its header promises {header['count']} of {whole} codes.")
    origin = {name: header[name] for name in _ORIGIN}
    return Vectors(semantics, [row[:split] for row in rows], [row[split:] for row in rows], origin)
