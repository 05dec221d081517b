"""Where an exploration's rows go as they come in: a SQLite file, a Parquet file, or memory.

Every batch is written at once or not at all, so that a killed run leaves whole batches, which the next run picks up.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lowp._errors import ArgumentError, ArgumentTypeError, FileError

#: Endings of file names, and what they stand for.
SUFFIXES = {".sqlite": "SQLite", ".sqlite3": "SQLite", ".db": "SQLite", ".parquet": "Parquet"}
_SETTINGS = "lowp.settings"
Row = Mapping[str, Any]


class Store(Protocol):
    """What an exploration needs of a store."""

    def settings(self) -> dict[str, str] | None:
        """Return the settings the rows were made with; None of a new store."""

    def begin(self, settings: Mapping[str, str]) -> None:
        """Make a new store."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield what is there."""

    def add(self, batch: Sequence[Row]) -> None:
        """Write rows, all or none; those whose id is there already are left as they are."""

    def close(self, complete: bool) -> None:
        """Finish; `complete` if no row is missing."""


def open_store(path: str | os.PathLike[str] | None, resume: bool) -> Store:
    """Return the store that a path stands for; without one, rows are kept in memory.

    Args:
        path: A file ending in .sqlite, .sqlite3, .db or .parquet, or None.
        resume: Whether to keep what an earlier run left in the file; otherwise it is removed.

    Raises:
        ArgumentTypeError: `path` is no path.
        ArgumentError: It has another ending, or needs pyarrow, which is absent.
        FileError: The file cannot be read or made, or is another program's.
    """
    if path is None:
        return MemoryStore()
    if not isinstance(path, str | os.PathLike):
        raise ArgumentTypeError(f"store={path!r} must be the path of a file, not {type(path).__name__}.")
    target = Path(path)
    kind = SUFFIXES.get(target.suffix.lower())
    if kind is None:
        raise ArgumentError(f"store={str(path)!r} must end in one of: {', '.join(SUFFIXES)}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return SqliteStore(target, resume) if kind == "SQLite" else ParquetStore(target, resume)
    except FileError:
        raise
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"store={str(path)!r} cannot be opened: {reason}.") from error


class MemoryStore:
    """Rows in memory."""

    def __init__(self) -> None:
        self._settings: dict[str, str] | None = None
        self._rows: dict[str, dict[str, Any]] = {}

    def settings(self) -> dict[str, str] | None:
        """Return the settings."""
        return self._settings

    def begin(self, settings: Mapping[str, str]) -> None:
        """Keep the settings."""
        self._settings = dict(settings)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows."""
        yield from self._rows.values()

    def add(self, batch: Sequence[Row]) -> None:
        """Add rows that are not there yet."""
        for row in batch:
            self._rows.setdefault(row["id"], dict(row))

    def close(self, complete: bool) -> None:
        """Nothing to do."""


class SqliteStore:
    """Rows in a table `points` of a SQLite file, one transaction per batch.

    Metrics are columns, which are added as they turn up; `settings` has what the rows were made with.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        self._file = sqlite3.connect(path, timeout=60, isolation_level=None)
        self._columns: list[str] = []
        try:
            self._file.execute("PRAGMA synchronous = FULL")
            tables = {name for (name,) in self._file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            damage = self._file.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise FileError(f"store={str(path)!r} is not a whole SQLite file: {error}.") from error
        if damage != "ok":
            self._file.close()
            raise FileError(f"store={str(path)!r} is damaged: {damage}.")
        self._new = not tables
        if tables and not {"points", "settings"} <= tables:
            self._file.close()
            raise FileError(f"store={str(path)!r} holds other tables: {', '.join(sorted(tables))}.")
        if tables and not resume:
            self._clear()
        self._read_columns()

    def _clear(self) -> None:
        with _transaction(self._file):
            self._file.execute("DROP TABLE points")
            self._file.execute("DROP TABLE settings")
        self._new = True

    def _read_columns(self) -> None:
        self._columns = [row[1] for row in self._file.execute("PRAGMA table_info(points)")]

    def settings(self) -> dict[str, str] | None:
        """Return the settings."""
        with self._reported():
            return None if self._new else dict(self._file.execute("SELECT name, value FROM settings"))

    def begin(self, settings: Mapping[str, str]) -> None:
        """Make the tables."""
        with self._reported(), _transaction(self._file):
            self._file.execute("CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT)")
            self._file.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", list(settings.items()))
            self._file.execute("CREATE TABLE IF NOT EXISTS points (id TEXT PRIMARY KEY)")
        self._new = False
        self._read_columns()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows."""
        with self._reported(), closing(self._file.execute("SELECT * FROM points ORDER BY rowid")) as cursor:
            names = [column[0] for column in cursor.description]
            for values in cursor:
                yield dict(zip(names, values, strict=True))

    def add(self, batch: Sequence[Row]) -> None:
        """Write rows in one transaction."""
        with self._reported():
            try:
                with _transaction(self._file):
                    self._insert(batch)
            finally:
                self._read_columns()

    def _insert(self, batch: Sequence[Row]) -> None:
        self._read_columns()  # another run on the same file may have added some
        for name in dict.fromkeys(name for row in batch for name in row):
            if name not in self._columns:
                self._file.execute(f'ALTER TABLE points ADD COLUMN "{name}"')
        for row in batch:
            names = ", ".join(f'"{name}"' for name in row)
            marks = ", ".join("?" * len(row))
            statement = f"INSERT OR IGNORE INTO points ({names}) VALUES ({marks})"  # noqa: S608 - checked identifiers
            self._file.execute(statement, list(row.values()))

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Say which file it was that could not be read or written."""
        try:
            yield
        except sqlite3.Error as error:
            raise FileError(f"store={str(self.path)!r} cannot be read or written: {error}.") from error

    def close(self, complete: bool) -> None:
        """Close the file."""
        self._file.close()


class _transaction:  # noqa: N801 - reads as a statement
    """Commit what is done inside, or undo all of it."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def __enter__(self) -> None:
        self._file.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.execute("COMMIT" if kind is None else "ROLLBACK")


class ParquetStore:
    """Rows in a Parquet file.

    Such a file cannot be added to. While a run is on, each batch is a file of its own in a folder beside it; in the end
    they become one file, and the folder goes. One process has the file at a time.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        _pyarrow()
        self.path = path
        self.parts = path.with_name(path.name + ".parts")
        self._seen: set[str] | None = None
        self._lock = _Lock(path)
        try:
            self._settings = self._read_settings()
        except BaseException:
            self._lock.release()
            raise
        if not resume:
            path.unlink(missing_ok=True)
            self._remove_parts()
            self._settings = None

    def _part_files(self) -> list[Path]:
        return sorted(self.parts.glob("*.parquet")) if self.parts.is_dir() else []

    def _read_settings(self) -> dict[str, str] | None:
        note = self.parts / "settings.json"
        if note.is_file():
            try:
                return dict(json.loads(note.read_text(encoding="utf-8")))
            except ValueError as error:
                raise FileError(f"store={str(self.path)!r}: {note} is damaged: {error}.") from error
        if not self.path.is_file():
            return None
        arrow, parquet = _pyarrow()
        try:
            metadata = parquet.read_schema(self.path).metadata or {}
            found = dict(json.loads(metadata.get(_SETTINGS.encode(), b"{}")))
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise FileError(f"store={str(self.path)!r} is not a whole Parquet file: {error}.") from error
        if not found:
            raise FileError(f"store={str(self.path)!r} is a Parquet file of another program.")
        return found

    def settings(self) -> dict[str, str] | None:
        """Return the settings."""
        return self._settings

    def begin(self, settings: Mapping[str, str]) -> None:
        """Make the folder of batches."""
        self._settings = dict(settings)
        self._write_note()

    def _write_note(self) -> None:
        self.parts.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._settings)
        _replace(self.parts / "settings.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, each id once."""
        seen: set[str] = set()
        for file in [self.path] * self.path.is_file() + self._part_files():
            for row in self._read(file):
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield row
        self._seen = seen

    def _read(self, file: Path) -> list[dict[str, Any]]:
        arrow, parquet = _pyarrow()
        try:
            rows: list[dict[str, Any]] = parquet.read_table(file, page_checksum_verification=True).to_pylist()
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise FileError(f"store={str(self.path)!r}: {file.name} is damaged or cannot be read: {error}.") from error
        return rows

    def _ids(self) -> set[str]:
        if self._seen is None:
            self._seen = {row["id"] for row in self.rows()}
        return self._seen

    def add(self, batch: Sequence[Row]) -> None:
        """Write rows as a file of their own."""
        fresh = [row for row in batch if row["id"] not in self._ids()]
        if not fresh:
            return
        if not self.parts.is_dir():  # the file was complete, and there is more to add
            self._write_note()
        taken = [int(file.stem) for file in self._part_files()]
        self._write(self.parts / f"{max(taken, default=-1) + 1:08d}.parquet", fresh)
        self._ids().update(row["id"] for row in fresh)

    def _write(self, file: Path, rows: Iterable[Row]) -> None:
        arrow, parquet = _pyarrow()
        listed = list(rows)
        names = dict.fromkeys(name for row in listed for name in row)
        table = arrow.table({name: [row.get(name) for row in listed] for name in names})
        table = table.replace_schema_metadata({_SETTINGS: json.dumps(self._settings)})
        try:
            _replace(file, lambda temporary: parquet.write_table(table, temporary, write_page_checksum=True))
        except OSError as error:
            raise FileError(f"store={str(self.path)!r} cannot be written: {error.strerror or error}.") from error

    def close(self, complete: bool) -> None:
        """Put the batches together if nothing is missing; otherwise they wait for the next run."""
        try:
            if complete:
                if self._part_files():
                    self._write(self.path, self.rows())
                self._remove_parts()
        finally:
            self._lock.release()

    def _remove_parts(self) -> None:
        for file in self.path.parent.glob(f".{escape(self.path.name)}.*.tmp"):  # of a run killed while writing
            file.unlink(missing_ok=True)
        if self.parts.is_dir():
            for file in [*self._part_files(), *self.parts.glob(".*.tmp"), self.parts / "settings.json"]:
                file.unlink(missing_ok=True)
            with suppress(OSError):  # someone else's files are in it
                self.parts.rmdir()


class _Lock:
    """Keeps other explorations from a file until it is released, or this process ends, however it ends.

    A record lock, which processes that are forked meanwhile do not hold on to; it does not keep a process from itself,
    which `_held` does.
    """

    _held: ClassVar[set[Path]] = set()

    def __init__(self, path: Path) -> None:
        self._path = path.resolve().with_name(f".{path.name}.lock")
        self._file: Any = None
        taken = FileError(
            f"store={str(path)!r} is being written by another exploration; several at once can share a SQLite file."
        )
        if self._path in self._held:
            raise taken
        try:
            import fcntl
        except ModuleNotFoundError:  # not on this system
            return
        while self._file is None:
            file = self._path.open("ab")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                file.close()
                raise taken from error
            except OSError:  # a file system without locks
                file.close()
                return
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), self._path.stat()):
                    self._file = file
                    self._held.add(self._path)
                    return
            file.close()  # another process has just removed it

    def release(self) -> None:
        """Let others have the file."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._held.discard(self._path)
            self._file.close()
            self._file = None


def _replace(file: Path, write: Any) -> None:
    """Write a file so that it is whole or not there."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ArgumentError(
            "store ends in .parquet, which needs pyarrow: pip install 'lowp[cluster]'; or let it end in .sqlite."
        ) from error
    return pyarrow, pyarrow.parquet
