"""Parts of an array on threads: each is done once, in whatever order, by whoever has the time."""

from __future__ import annotations

import _thread
import threading
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.rounding._threads import SERIAL_BELOW, split

Part = tuple[int, int]


def parts(size: int, unit: int = 1, pieces: int = 1) -> list[Part]:
    found: list[Part] = []
    split(size, lambda a, b: found.append((a, b)), unit, pieces)
    return sorted(found)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("size", [0, 1, SERIAL_BELOW - 1, SERIAL_BELOW, SERIAL_BELOW + 1, 10**7 + 3])
@pytest.mark.parametrize(("unit", "pieces"), [(1, 1), (1, 4), (96, 1), (1000, 4)])
def test_every_element_is_in_one_part(
    size: int, unit: int, pieces: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWP_NUM_THREADS", threads)
    found = parts(size, unit, pieces)
    assert found[0][0] == 0
    assert found[-1][1] == size
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert all(start % unit == 0 for start, _ in found)
    assert len(found) <= int(threads) * pieces
    if size < SERIAL_BELOW or threads == "1":
        assert found == [(0, size)]


def test_more_than_one_thread_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWP_NUM_THREADS", "2")
    both = threading.Barrier(2, timeout=30)
    split(SERIAL_BELOW, lambda a, b: both.wait() is None)


def test_nobody_waits_for_a_thread_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWP_NUM_THREADS", "3")
    monkeypatch.setattr(_thread, "start_new_thread", lambda *a: 0)
    assert sum(b - a for a, b in parts(10**7, 1, 4)) == 10**7
    x = np.random.default_rng(0).standard_normal(SERIAL_BELOW * 2, dtype=np.float32)
    alone = lowp.quantize(x, "float8_e4m3fn", "stochastic", seed=5)
    monkeypatch.undo()
    assert np.array_equal(alone, lowp.quantize(x, "float8_e4m3fn", "stochastic", seed=5))


@pytest.mark.parametrize("by_main", [True, False])
def test_an_error_ends_all_and_is_raised(by_main: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWP_NUM_THREADS", "2")
    main, done = threading.main_thread(), []

    def work(a: int, b: int) -> None:
        if (threading.current_thread() is main) == by_main:
            raise ValueError("this part")
        time.sleep(0.02)
        done.append(a)

    with pytest.raises(ValueError, match="this part"):
        split(10**7, work, 1, 16)
    assert len(done) < 31


def test_all_parts_are_done_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWP_NUM_THREADS", "4")
    main, done = threading.main_thread(), []

    def work(a: int, b: int) -> Any:
        time.sleep(0 if threading.current_thread() is main else 0.05)
        done.append((a, b))

    for _ in range(5):
        done.clear()
        split(SERIAL_BELOW, work)
        assert sum(b - a for a, b in done) == SERIAL_BELOW
