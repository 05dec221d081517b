"""Run a serial, GIL-free kernel over the parts of a large array on all cores."""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable
from threading import Condition

#: Elements below which starting threads costs more than they save.
SERIAL_BELOW = 1 << 18
#: The least part where there are more parts than threads.
_PART = 1 << 17


def thread_count() -> int:
    """Return how many cores this process may use (`LOWP_NUM_THREADS` overrides)."""
    setting = os.environ.get("LOWP_NUM_THREADS", "")
    if setting.isdecimal() and int(setting) > 0:
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split(size: int, work: Callable[[int, int], None], unit: int = 1, pieces: int = 1) -> None:
    """Call `work(start, stop)` on consecutive parts of `range(size)`, cut at multiples of `unit`.

    The calling thread and as many others as there are more cores take one part after the other. Nobody waits for a
    thread that another program keeps from running: its parts are taken by the others. Threads live for one call: some
    0.05 ms against the milliseconds that such an array takes, and safe after a fork.

    Args:
        size: Elements.
        work: What to do; an exception ends all and is raised here.
        unit: What the bounds of parts are multiples of.
        pieces: Parts for each thread, where a part costs nothing of its own.
    """
    threads = 1 if size < SERIAL_BELOW else thread_count()
    if threads == 1:
        work(0, size)
        return
    count = threads * min(pieces, max(1, size // (threads * _PART)))
    parts = _Parts(size, -(-size // (count * unit)) * unit, work)
    for _ in range(threads - 1):
        _thread.start_new_thread(parts.take, ())
    parts.take()
    parts.wait()


class _Parts:
    """The parts of one call, taken by threads in turn."""

    def __init__(self, size: int, step: int, work: Callable[[int, int], None]) -> None:
        self._size, self._step, self._work = size, step, work
        self._next = self._running = 0
        self._error: BaseException | None = None
        self._changed = Condition()

    def take(self) -> None:
        """Do parts until there is none left."""
        while (start := self._begun()) is not None:
            error = None
            try:
                self._work(start, min(start + self._step, self._size))
            except BaseException as raised:  # noqa: BLE001 - raised again by `wait`
                error = raised
            with self._changed:
                self._running -= 1
                self._error = self._error or error
                self._changed.notify()

    def _begun(self) -> int | None:
        with self._changed:
            start = self._next
            if start >= self._size or self._error:
                return None
            self._next += self._step
            self._running += 1
            return start

    def wait(self) -> None:
        """Return when no part is being done; raise what a part has raised."""
        with self._changed:
            while self._running:
                self._changed.wait()
        if self._error:
            raise self._error
