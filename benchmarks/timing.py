"""Timing on a machine that other programs use too: take turns, drop the samples that had to wait, take medians."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

Call = Callable[[], Any]

MAX_WAIT = 0.1 * (os.cpu_count() or 1)  # share of a sample that the threads together may have waited for a core
MIN_CLEAN = 3  # with fewer clean samples than this, all samples count
TURN_S = 0.06  # what one contender runs before the next one has its turn
SETTLE_S = 0.004  # idle threads of OpenMP pools spin for a while after a call


@dataclass
class Timing:
    """The samples of one contender, in nanoseconds for the whole call."""

    samples: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)

    def add(self, elapsed: int, wait: int) -> None:
        self.samples.append(elapsed)
        self.waits.append(wait)

    @property
    def clean(self) -> list[int]:
        """Samples during which the threads hardly waited for a core."""
        return [s for s, w in zip(self.samples, self.waits, strict=True) if w <= MAX_WAIT * s]

    @property
    def median(self) -> float:
        return median(self.clean if len(self.clean) >= MIN_CLEAN else self.samples)

    @property
    def min(self) -> int:
        return min(self.samples)

    @property
    def total(self) -> int:
        return sum(self.samples)


def waited() -> int:
    """Return the ns that this process's threads were ready to run without a core; 0 where the system does not tell."""
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):  # a thread may have ended
            total += int(path.read_text().split()[1])
    return total


def sample(call: Call) -> tuple[int, int]:
    """Return elapsed and waited ns of one call; freeing the result is not part of it."""
    wait = waited()
    start = time.perf_counter_ns()
    result = call()
    elapsed = time.perf_counter_ns() - start
    wait = waited() - wait
    del result
    return elapsed, wait


def take_turns(calls: dict[Any, Call], rounds: int, budget_s: float) -> dict[Any, Timing]:
    """Time all calls in rounds, so that drift of the machine meets all of them alike.

    A turn is one call that does not count and then calls for `TURN_S`. A contender that has used `budget_s` and has
    `MIN_CLEAN` samples sits out the rest.
    """
    timings = {key: Timing() for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            timing = timings[key]
            if timing.total > budget_s * 1e9 and len(timing.samples) >= MIN_CLEAN:
                continue
            time.sleep(SETTLE_S)
            if not timing.samples or timing.min < TURN_S * 1e9:
                call()
            end = time.perf_counter() + TURN_S
            timing.add(*sample(call))
            while time.perf_counter() < end:
                timing.add(*sample(call))
    return timings


def quickest(call: Call, tries: int = 4, budget_s: float = 0.2) -> int:
    """Return the least ns of a few calls."""
    end, times = time.perf_counter() + budget_s, [sample(call)[0]]
    while len(times) < tries and time.perf_counter() < end:
        times.append(sample(call)[0])
    return min(times)


def fitting_rows(build: Callable[[np.ndarray], Call], x: np.ndarray, limit_s: float) -> int:
    """Return how many rows of `x` (a power of two) a call can take within `limit_s`, by trying ever larger parts."""
    rows = 1
    while True:
        call = build(x[:rows])
        call()
        elapsed = quickest(call) / 1e9
        if rows * 16 > len(x) or elapsed * 4 > limit_s:  # not 16: much of a short call does not grow with the input
            break
        rows *= 16
    while rows > 1 and elapsed > limit_s:
        rows, elapsed = rows // 2, elapsed / 2
    while rows * 2 <= len(x) and elapsed * 2 <= limit_s:
        rows, elapsed = rows * 2, elapsed * 2
    return rows
