"""Explorations on a Dask cluster of several processes, one of which is killed while it works."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hw_models.exploring import FORMATS, OBJECTIVES, SPACE, WORK, loss, slow_loss

from lowp import hw
from lowp._errors import Error

distributed = pytest.importorskip("distributed", reason="needs lowp[cluster]")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ports in use and the like
        with (
            distributed.LocalCluster(
                n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster) as one,
        ):
            yield one


def run(executor: Any, **options: Any) -> hw.Exploration:
    return hw.explore(SPACE, WORK, OBJECTIVES, executor, progress=False, **options)


def test_a_client_gives_the_same_table(client: Any) -> None:
    assert run(client, accuracy=loss) == run(None, accuracy=loss)


def test_its_executor_does_too(client: Any) -> None:
    assert run(client.get_executor(), accuracy=loss, batch=3) == run(None, accuracy=loss)


def test_tensors_go_along(client: Any) -> None:
    rng = np.random.default_rng(0)
    layers = {"weights": rng.standard_normal((8, 64)), "activations": rng.standard_normal((4, 64))}
    arguments = (["mxfp4", "nvfp4", "fp8"], None, ["error"])
    there = hw.explore(*arguments, client, tensors=layers, batch=1, progress=False)
    assert there == hw.explore(*arguments, tensors=layers, progress=False)


@pytest.mark.parametrize("suffix", [None, ".sqlite", ".parquet"])
def test_a_worker_that_is_killed_loses_nothing(client: Any, tmp_path: Path, suffix: str | None) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    client.wait_for_workers(3, timeout=60)
    client.run(os.environ.__setitem__, "PAUSE", "0.03")
    workers = client.run(os.getpid)
    killed: list[int] = []
    calls = tmp_path / "calls"
    noted = partial(slow_loss, calls=str(calls))

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while not calls.is_file() or len(calls.read_text().split()) < 4:
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
        killed.append(next(iter(workers.values())))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    store = None if suffix is None else tmp_path / f"table{suffix}"
    found = run(client, accuracy=noted, batch=1, store=store)
    killer.join()
    names = calls.read_text().split()
    assert len(killed) == 1
    assert len(names) >= len(FORMATS)
    assert {point.weights for point in found} == set(names)
    assert found.points == run(None, accuracy=noted).points
    if store is not None:
        again = run(None, accuracy=noted, store=store)
        assert again.resumed == len(found) == 2 * len(FORMATS)
        assert again.points == found.points


def always_dying(fmt: Any) -> dict[str, float]:
    """Take every worker down that tries."""
    os._exit(9)


def test_work_that_kills_every_worker_is_given_up(client: Any) -> None:
    client.wait_for_workers(3, timeout=60)
    with pytest.raises(Error, match="broke down"):
        hw.explore(["fp8"], None, ["loss"], client, accuracy=always_dying, progress=False)
