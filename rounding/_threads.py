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

    The pool lives for one call: 0.1 ms against the milliseconds that such an array takes, and safe after a fork.
    """
    threads = thread_count()
    if size < SERIAL_BELOW or threads == 1:
        work(0, size)
        return
    step = -(-size // (threads * unit)) * unit
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, i, min(i + step, size)) for i in range(0, size, step)]:
            done.result()
