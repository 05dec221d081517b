"""Run a serial, GIL-free kernel over the parts of a large array on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

#: Elements below which starting threads costs more than they save.
SERIAL_BELOW = 1 << 18


def thread_count() -> int:
    """Return how many cores this process may use (`LOWP_NUM_THREADS` overrides)."""
    setting = os.environ.get("LOWP_NUM_THREADS", "")
    if setting.isdecimal() and int(setting) > 0:
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split(size: int, work: Callable[[int, int], None], unit: int = 1) -> None:
    """Call `work(start, stop)` on consecutive parts of `range(size)`, cut at multiples of `unit`.

    The calling thread takes the first part. The pool lives for one call: some 0.05 ms against the milliseconds that
    such an array takes, and safe after a fork.
    """
    threads = 1 if size < SERIAL_BELOW else thread_count()
    if threads == 1:
        work(0, size)
        return
    step = -(-size // (threads * unit)) * unit
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, i, min(i + step, size)) for i in range(step, size, step)]
        work(0, min(step, size))
        for done in others:
            done.result()
