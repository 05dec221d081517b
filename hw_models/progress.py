"""A progress bar on stderr: rich's where it is installed, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds between two lines where there is no bar.
_PAUSE = 10.0


@contextmanager
def progress_bar(total: int, done: int, text: str, show: bool) -> Iterator[Callable[[int], None]]:
    """Show how much of a long task is done.

    Args:
        total: Steps in all.
        done: Steps that an earlier run has done.
        text: What is being done.
        show: Whether to show anything.

    Yields:
        A function that takes the number of steps just done.
    """
    try:
        from rich import progress
        from rich.console import Console
    except ModuleNotFoundError:
        yield _lines(total, done, text, show)
        return
    columns = [progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()]
    columns += [progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn()]
    with progress.Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        task = bar.add_task(text, total=total, completed=done)
        yield lambda steps: bar.update(task, advance=steps)


def _lines(total: int, done: int, text: str, show: bool) -> Callable[[int], None]:
    so_far, last = done, time.monotonic()

    def advance(steps: int) -> None:
        nonlocal so_far, last
        so_far += steps
        if show and (time.monotonic() - last > _PAUSE or so_far == total):
            last = time.monotonic()
            sys.stderr.write(f"{text}: {so_far} of {total}\n")

    return advance
