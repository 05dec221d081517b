"""Optimizers in low precision in two processes make the parameters of one process, bit for bit."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from tests.emulation import optimizer_worker as worker  # noqa: E402
from tests.emulation import processes  # noqa: E402


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> list[dict[str, Any]]:
    """What both processes found."""
    return processes.results(worker, tmp_path_factory.mktemp("optimizers"), repo)


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
