"""Optimizers in low precision in two processes make the parameters of one process, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from tests.emulation import optimizer_worker as worker  # noqa: E402  (only where torch is)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> list[dict[str, Any]]:
    """What both processes found."""
    folder = tmp_path_factory.mktemp("optimizers")
    environment = {**os.environ, "PYTHONPATH": str(repo / "src"), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, worker.__file__, str(rank), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(worker.WORLD)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * worker.WORLD, said
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(worker.WORLD)]


@pytest.mark.parametrize("case", worker.CASES)
@pytest.mark.parametrize("how", ["fsdp2", "ddp"])
def test_parameters_are_those_of_one_process(found: list[dict[str, Any]], case: str, how: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wanted = worker.train(worker.net(), case)
    finally:
        torch.set_num_threads(threads)
    for results in found:
        for got, expected in zip(results[f"{how} {case}"], wanted, strict=True):
            assert torch.equal(got, expected)


def test_shards_are_not_stored_as_codes(found: list[dict[str, Any]]) -> None:
    for results in found:
        assert "state 'exp_avg' of parameter 0" in results["refused"]
        assert "encoded=False" in results["refused"]
