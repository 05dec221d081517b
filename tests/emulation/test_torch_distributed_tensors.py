"""Emulated products of DTensors in two processes have the operands and results of one process, bit for bit."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from tests.emulation import distributed_tensors_worker as worker  # noqa: E402
from tests.emulation import processes  # noqa: E402


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> list[dict[str, Any]]:
    """What both processes computed."""
    return processes.results(worker, tmp_path_factory.mktemp("distributed_tensors"), repo)


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got.keys() == wanted.keys(), "operands are those of one process"
    for key, value in wanted.items():
        assert got[key] == value if key == "rows" else torch.equal(got[key], value), key


@pytest.mark.parametrize("place", worker.PLACES)
@pytest.mark.parametrize("name", worker.RECIPES)
def test_operands_and_results_are_those_of_one_process(found: list[dict[str, Any]], name: str, place: str) -> None:
    wanted = worker.compute(worker.RECIPES[name], lambda t, _="": "..." if isinstance(t, str) else t)
    assert sum("/" in key for key in wanted) >= 6
    for rank in range(worker.WORLD):
        same(found[rank][f"{name} {place}"], wanted)


def test_layers_of_torchs_own_tensor_parallelism(found: list[dict[str, Any]]) -> None:
    wanted = worker.tensor_parallel(None)
    for rank in range(worker.WORLD):
        same(found[rank]["parallel"], wanted)
