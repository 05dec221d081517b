"""Handing out an exploration's work to an executor, and gathering what comes back."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any, NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError, Error
from lowp.hw_models.exploration_costs import Task, evaluate
from lowp.hw_models.space import Candidate

#: Batches handed out at a time: enough for a few dozen workers, few enough to keep memory and waste low.
IN_FLIGHT = 64
#: Times that a batch is handed out again whose worker went away.
RETRIES = 3
Rows = list[list[dict[str, Any]]]


class Workers(NamedTuple):
    """What work is handed to.

    Attributes:
        executor: An executor, or None for this process.
        share: Takes a task there once; returns what stands for it in the calls.
    """

    executor: Executor | None
    share: Callable[[Task], Any]


def as_workers(given: Any) -> Workers:
    """Return what work is handed to: an executor as it is, of a Dask client its executor, None for this process.

    Raises:
        ArgumentTypeError: It is neither.
    """
    if given is None or isinstance(given, Executor):
        return Workers(given, _itself)
    if hasattr(given, "get_executor") and hasattr(given, "scheduler_info"):
        return Workers(given.get_executor(pure=False, retries=RETRIES), lambda task: _on_cluster(given, task))
    raise ArgumentTypeError(
        f"executor={given!r} must be a concurrent.futures executor or a dask.distributed Client, or None."
    )


def _on_cluster(client: Any, task: Task) -> Any:
    """Make the task a result on the cluster: sent once, and made again should its worker go away."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)  # once, and of use to every batch
        return client.submit(_itself, task, pure=False)


def _itself(task: Task) -> Task:
    return task


def run(task: Task, batches: Sequence[Sequence[Candidate]], workers: Workers) -> Iterator[Rows]:
    """Yield the rows of each batch as they are ready, in any order.

    A batch whose worker went away is handed out again, a few times.

    Raises:
        Error: The executor broke down; what came back before was yielded.
    """
    if workers.executor is None:
        for batch in batches:
            yield evaluate(task, batch)
        return
    hand_out = _submitter(workers.executor, workers.share(task))
    waiting = list(reversed(batches))
    tries: dict[int, int] = {}
    running: dict[Future[Rows], Sequence[Candidate]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < IN_FLIGHT:
                batch = waiting.pop()
                running[hand_out(batch)] = batch
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                batch = running.pop(future)
                rows = _result(future, tries, batch)
                if rows is None:
                    waiting.append(batch)
                else:
                    yield rows
    finally:
        for future in running:
            future.cancel()


def _submitter(executor: Executor, task: Any) -> Callable[[Sequence[Candidate]], Future[Rows]]:
    def hand_out(batch: Sequence[Candidate]) -> Future[Rows]:
        try:
            return executor.submit(evaluate, task, batch)
        except BrokenExecutor as error:
            raise _broken(error) from error
        except RuntimeError as error:
            raise ArgumentError(f"executor={executor!r} takes no work: {error}.") from error

    return hand_out


def _result(future: Future[Rows], tries: dict[int, int], batch: Sequence[Candidate]) -> Rows | None:
    """Return a batch's rows, or None if it is to be handed out again."""
    try:
        return future.result()
    except BrokenExecutor as error:
        raise _broken(error) from error
    except Exception as error:
        if not _lost(error):
            raise
        tries[id(batch)] = tries.get(id(batch), 0) + 1
        if tries[id(batch)] > RETRIES:
            raise _broken(error) from error
        return None


def _lost(error: BaseException) -> bool:
    """Whether the work was not done because its worker went away, rather than done and failed."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, CancelledError) or bool(
        names & {"KilledWorker", "FutureCancelledError", "CommClosedError"}
    )


def _broken(error: BaseException) -> Error:
    return Error(
        f"The executor broke down ({type(error).__name__}: {error}). What was finished is in the store, if there is "
        "one; the same call with another executor goes on from there."
    )
