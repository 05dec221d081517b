"""Results on disk: whole files or none, and a record of finished work that a second run picks up."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lowp._errors import ArgumentTypeError, FileError

STATE_FILE = "state.jsonl"


def prepare_folder(out: str | os.PathLike[str]) -> Path:
    """Create the output folder and prove that files can be written in it.

    Raises:
        ArgumentTypeError: `out` is not a path.
        FileError: It cannot be created or written.
    """
    if not isinstance(out, (str, os.PathLike)):
        raise ArgumentTypeError(f"out={out!r} must be the path of a folder, not {type(out).__name__}.")
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(f"out={str(out)!r} is not a folder that can be written: {error.strerror or error}.") from error
    return folder


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    Raises:
        FileError: The file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON; infinities and NaN, which JSON lacks, become the strings "inf", "-inf" and "nan".

    Example:
        >>> to_json({"a": [1.5, float("inf")]})
        '{"a": [1.5, "inf"]}'
    """
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


class State:
    """Finished measurements by key, one JSON object per line.

    Records of other models, data or settings stay in the file, so alternating between two studies loses nothing.

    Args:
        folder: An existing folder.
        resume: Whether to read what an earlier run finished; otherwise it is discarded at the first write.

    Raises:
        FileError: The file exists and is not what this class writes.
    """

    def __init__(self, folder: Path, resume: bool = True) -> None:
        self.path = folder / STATE_FILE
        self._records: dict[str, dict[str, Any]] = {}
        if resume and self.path.exists():
            self._records = {record["key"]: record for record in self._read()}

    def _read(self) -> Iterable[dict[str, Any]]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{str(self.path)!r} cannot be read: {error}.") from error
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                record["key"]
            except (ValueError, TypeError, KeyError) as error:
                advice = "delete the file or run with resume=False"
                raise FileError(f"{str(self.path)!r} line {number} is not a record of a study; {advice}.") from error
            yield record

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._records[key]

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record under its "key" and write the file."""
        self._records[record["key"]] = json.loads(to_json(record))
        write_atomically(self.path, "".join(to_json(r) + "\n" for r in self._records.values()))
