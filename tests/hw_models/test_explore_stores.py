"""Explorations that are killed go on where they stopped: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hw_models.exploring import (
    FORMATS,
    OBJECTIVES,
    ROOT,
    SPACE,
    WORK,
    loss,
    processes,
    run_and_kill,
    slow_loss,
    stored,
)

from lowp import hw
from lowp._errors import ArgumentError, Error, FileError
from lowp.hw_models.exploration_store import open_store
from lowp.hw_models.explore import _kept as kept_rows

POINTS = 2 * len(FORMATS)


def run(store: Path | None, **options: Any) -> hw.Exploration:
    noted = partial(slow_loss, calls=os.environ.get("CALLS", os.devnull))
    options = {"space": SPACE, "workload": WORK, "objectives": OBJECTIVES, "accuracy": noted} | options
    return hw.explore(**options, store=store, progress=False)


@pytest.fixture(params=[".sqlite", ".parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "deep" / f"table{request.param}"


def calls(store: Path) -> list[str]:
    file = store.parent.parent / "calls"
    return file.read_text().split() if file.is_file() else []


def test_a_killed_run_goes_on_where_it_stopped(store: Path) -> None:
    before = run_and_kill(store, store.parent.parent / "calls", POINTS // 3)
    assert POINTS // 3 <= before < POINTS
    done = calls(store)
    resumed = run(store)
    assert resumed.resumed == before
    again = calls(store)[len(done) :]
    assert len(again) == (POINTS - before) // 2  # a call per format, of which each has two rows
    kept = set(done[: before // 2])  # written before the kill: not done again
    assert not kept & set(again)
    assert stored(store) == POINTS
    assert resumed.points == run(None).points
    assert len({point.id for point in resumed}) == POINTS


def test_a_run_may_be_killed_again_and_again(store: Path) -> None:
    before = 0
    for share in (0.2, 0.5, 0.8):
        now = run_and_kill(store, store.parent.parent / "calls", int(POINTS * share))
        assert now >= before
        before = now
    assert run(store).points == run(None).points
    most = max(Counter(calls(store)).values())
    assert most <= 1 + 3 + 1  # at most once per kill in vain, and the run without a store


def test_a_finished_run_is_read_not_repeated(store: Path) -> None:
    first = run(store)
    count = len(calls(store))
    second = run(store)
    assert second.points == first.points
    assert (first.resumed, second.resumed) == (0, POINTS)
    assert len(calls(store)) == count
    if store.suffix == ".parquet":
        assert [file.name for file in store.parent.iterdir()] == [store.name]


def test_a_larger_space_adds_to_the_file(store: Path) -> None:
    run(store, space={"formats": FORMATS, "devices": ["h100"]})
    larger = {"formats": [FORMATS, "nvfp4"], "devices": ["h100", "b200"]}
    found = run(store, space=larger, objectives=["energy"])
    assert found.resumed == len(FORMATS)
    assert len(found) == POINTS + 2
    assert stored(store) == POINTS + 2
    assert found.points == run(None, space=larger, objectives=["energy"]).points
    assert len(run(store, space={"formats": ["nvfp4"], "devices": ["b200"]})) == 1


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"workload": [(1, 2, 3)]}, "workload"),
        ({"accuracy": loss}, "accuracy"),
        ({"out": "float16"}, "out"),
        ({"tensors": [[1.0, 2.0]]}, "tensors"),
    ],
)
def test_another_exploration_is_not_mixed_in(store: Path, options: dict[str, Any], what: str) -> None:
    run(store, space={"formats": ["fp8"], "devices": ["h100"]})
    with pytest.raises(ArgumentError, match=f"another {what}"):
        run(store, **options)
    assert run(store, **options, resume=False).resumed == 0
    assert run(store, **options).resumed == POINTS


def test_points_that_failed_are_kept_too(store: Path) -> None:
    space = {"formats": ["fp8", "lns8_f4"], "units": ["n7"], "accumulators": ["exact"]}
    arguments = {"space": space, "workload": None, "objectives": ["area"], "accuracy": None}
    first = run(store, **arguments)
    again = run(store, **arguments)
    assert again.points == first.points
    assert "irrational" in again.failed[0].reason
    assert again.resumed == 2


def test_files_of_others_are_left_alone(store: Path) -> None:
    store.parent.mkdir()
    store.write_bytes(b"something else, longer than a header of such a file would be" * 10)
    for resume in (True, False):
        with pytest.raises(FileError, match="store"):
            run(store, resume=resume)
    assert store.read_bytes().startswith(b"something else")


def test_a_database_of_others_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mine.db") as file:
        file.execute("CREATE TABLE mine (a)")
    file.close()
    with pytest.raises(FileError, match="other tables: mine"):
        run(tmp_path / "mine.db", resume=False)


def test_a_table_of_others_is_left_alone(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table({"a": [1]}), tmp_path / "mine.parquet")
    with pytest.raises(FileError, match="another program"):
        run(tmp_path / "mine.parquet", resume=False)


def test_sql_reads_the_table(tmp_path: Path) -> None:
    found = run(tmp_path / "t.sqlite", accuracy=loss)
    with sqlite3.connect(tmp_path / "t.sqlite") as file:
        query = (
            "SELECT weights, machine, time, time_low, time_unit, loss FROM points WHERE machine = 'b200' ORDER BY time"
        )
        rows = file.execute(query).fetchall()
    file.close()
    assert len(rows) == len(FORMATS)
    fastest = min(found.where(machine="b200"), key=lambda p: p.metrics["time"].value)
    assert rows[0][2:5] == (*fastest.metrics["time"][:2], "s")


def test_a_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from lowp.hw_models.exploration_store import open_store

    kept = open_store(tmp_path / "t.sqlite", True)
    kept.begin({"version": "1"})
    kept.add([{"id": "a", "x": 1.0}])
    with pytest.raises(FileError, match="cannot be read or written"):
        kept.add([{"id": "b", "y": 2.0}, {"id": "c", "y": object()}])
    kept.add([{"id": "a", "x": 5.0}, {"id": "d", "y": 3.0}])
    assert [(row["id"], row["x"]) for row in kept.rows()] == [("a", 1.0), ("d", None)]
    kept.close(True)


def test_a_parquet_store_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ArgumentError, match="pyarrow"):
        run(tmp_path / "t.parquet")


def dying(fmt: Any) -> dict[str, float]:
    """Kill the process that works, once enough is done."""
    if len(list(Path(os.environ["CALLS"] + ".d").iterdir())) > 6:
        os._exit(9)
    (Path(os.environ["CALLS"] + ".d") / fmt.name.replace("/", "_")).touch()
    return loss(fmt)


def test_what_a_broken_pool_finished_is_kept(store: Path) -> None:
    Path(os.environ["CALLS"] + ".d").mkdir()
    with processes(1) as pool, pytest.raises(Error, match="broke down") as caught:
        run(store, accuracy=dying, executor=pool, batch=1)
    assert isinstance(caught.value.__cause__, BrokenProcessPool)
    before = stored(store)
    assert 2 <= before < POINTS
    for file in Path(os.environ["CALLS"] + ".d").iterdir():
        file.unlink()
    Path(os.environ["CALLS"] + ".d").joinpath("x").touch()
    with processes(1) as pool, pytest.raises(Error):
        run(store, accuracy=dying, executor=pool, batch=1)
    assert stored(store) > before


def test_two_runs_may_share_a_file(tmp_path: Path) -> None:
    from lowp.hw_models.exploration_store import open_store

    one, other = (open_store(tmp_path / "t.sqlite", True) for _ in range(2))
    for run_of in (one, other):
        run_of.begin({"version": "1"})
    one.add([{"id": "a", "x": 1.0}])
    other.add([{"id": "a", "x": 9.0}, {"id": "b", "x": 2.0, "y": 3.0}])
    one.add([{"id": "c", "y": 4.0}])
    assert {row["id"]: (row["x"], row["y"]) for row in other.rows()} == {
        "a": (1.0, None),
        "b": (2.0, 3.0),
        "c": (None, 4.0),
    }
    for run_of in (one, other):
        run_of.close(True)


def test_a_place_that_cannot_be_written_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for suffix in (".sqlite", ".parquet"):
        with pytest.raises(FileError, match="store"):
            run(tmp_path / "file" / f"t{suffix}")
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(FileError, match="store"):
        run(tmp_path / "folder.sqlite")


def test_one_process_at_a_time_has_a_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("fcntl")
    store = tmp_path / "table.parquet"

    def again(fmt: Any) -> dict[str, float]:
        with pytest.raises(FileError, match=r"being written by another exploration.*SQLite"):
            hw.explore("int4", WORK, "size", store=store, progress=False)
        return loss(fmt)

    found = hw.explore(["int8", "fp8"], WORK, {"loss": "min"}, store=store, accuracy=again, progress=False)
    assert len(found) == stored(store) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["table.parquet"]


class Level:
    """A caller's function with numbers of its own."""

    def __init__(self, level: float) -> None:
        self.level = level

    def __call__(self, fmt: Any) -> float:
        return self.level

    def method(self, fmt: Any) -> float:
        return self.level + 1


def closed(level: Any) -> Any:
    return lambda fmt: float(np.sum(level))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda fmt: fmt.bits, lambda fmt: fmt.max),
        (closed(1), closed(2)),
        (closed(np.arange(3)), closed(np.arange(4))),
        (Level(1), Level(2)),
        (Level(1).method, Level(2).method),
        (lambda fmt, level=1: level, lambda fmt, level=2: level),
        (lambda fmt: max([2, 3], key=lambda x: x), lambda fmt: max([2, 3], key=lambda x: -x)),
        (partial(lambda fmt, level: level[0], level=[1]), partial(lambda fmt, level: level[0], level=[2])),
    ],
)
def test_a_function_that_gives_other_numbers_is_another(tmp_path: Path, first: Any, second: Any) -> None:
    options: dict[str, Any] = {"store": tmp_path / "table.sqlite", "progress": False}
    before = hw.explore("int8", WORK, "accuracy", accuracy=first, **options)
    assert hw.explore("int8", WORK, "accuracy", accuracy=first, **options).resumed == 1
    with pytest.raises(ArgumentError, match="another accuracy"):
        hw.explore("int8", WORK, "accuracy", accuracy=second, **options)
    after = hw.explore("int8", WORK, "accuracy", accuracy=second, resume=False, **options)
    assert before.points[0].metrics["accuracy"] != after.points[0].metrics["accuracy"]


def test_an_interrupted_run_keeps_what_it_has(store: Path) -> None:
    seen = 0

    def interrupted(fmt: Any) -> dict[str, float]:
        nonlocal seen
        seen += 1
        if seen == 7:
            raise KeyboardInterrupt
        return loss(fmt)

    options: dict[str, Any] = {"store": store, "batch": 2, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        hw.explore(SPACE, WORK, OBJECTIVES, accuracy=interrupted, **options)
    assert stored(store) == 12  # three batches of two, on two devices


def test_of_two_that_make_a_file_the_later_is_checked(tmp_path: Path) -> None:
    first, second = (open_store(tmp_path / "table.sqlite", resume=True) for _ in range(2))
    assert first.settings() is second.settings() is None
    assert kept_rows(first, {"workload": "a"}, set()) == {}
    with pytest.raises(ArgumentError, match="another workload"):
        kept_rows(second, {"workload": "b"}, set())
    first.close(True)
    second.close(True)


def test_workers_that_outlive_a_killed_run_do_not_keep_its_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("fcntl")
    store = tmp_path / "table.parquet"
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}]\n"
        "import os, time\n"
        "from lowp.hw_models.exploration_store import open_store\n"
        f"kept = open_store({str(store)!r}, True)\n"
        "if os.fork():\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "else:\n"
        "    time.sleep(5)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(FileError, match="being written"):
        open_store(store, resume=True)
    child.kill()
    child.wait()
    child.stdout.close()
    open_store(store, resume=True).close(True)


@pytest.mark.parametrize("fill", [False, True], ids=["cut off", "zeros"])
def test_a_store_that_is_damaged_says_so_or_is_right(store: Path, fill: bool) -> None:
    run(store)
    whole, points = store.read_bytes(), run(None).points
    rng = np.random.default_rng(5)
    for cut in (1, 100, *rng.integers(1, len(whole), 12)):
        store.write_bytes(whole[:cut] + bytes(len(whole) - cut) * fill)
        try:
            assert run(store).points == points
        except Error as error:
            assert "store" in str(error)  # noqa: PT017 - either is right


def test_a_changed_byte_in_a_parquet_file_is_seen(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "table.parquet"
    run(path)
    whole = bytearray(path.read_bytes())
    position = whole.index(b"tile and wave")
    whole[position] ^= 1
    path.write_bytes(whole)
    with pytest.raises(FileError, match="damaged"):
        run(path)


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.sqlite"
    run(path)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE points SET time_shares = '{' WHERE rowid = 1")
    file.close()
    with pytest.raises(FileError, match="damaged: the row"):
        run(path)


def test_names_that_differ_in_case_alone_are_refused_in_every_store(store: Path) -> None:
    for name in ("Time", "WEIGHTS", "a_Low"):
        with pytest.raises(ArgumentError, match=f"names a metric '{name}'"):
            run(store, accuracy=lambda fmt, name=name: {name: 1.0}, objectives=["accuracy"], resume=False)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "table[1].parquet"
    (tmp_path / f".{path.name}.123.tmp").write_bytes(b"PAR1")
    other = tmp_path / ".another.parquet.123.tmp"
    other.write_bytes(b"PAR1")
    run(path)
    assert sorted(tmp_path.iterdir()) == [other, path]
