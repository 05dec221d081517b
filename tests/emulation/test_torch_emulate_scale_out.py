"""Two processes that train under emulation round the same operands as one process, bit for bit."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

from tests.emulation import emulate_scale_out_worker as worker  # noqa: E402
from tests.emulation import processes  # noqa: E402


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> list[dict[str, Any]]:
    """What both processes rounded."""
    return processes.results(worker, tmp_path_factory.mktemp("emulate_scale_out"), repo)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", worker.RECIPES)
def test_operands_are_those_of_one_process(found: list[dict[str, Any]], name: str, engine: str) -> None:
    wanted = worker.train(worker.model(), worker.RECIPES[name], 0, 1)
    assert len(wanted) >= 2 * 2 * worker.STEPS
    for rank in range(worker.WORLD):
        got = found[rank][f"{engine} {name}"]
        assert got.keys() == wanted.keys(), "names of layers and counts of calls are those of one process"
        for key, whole in wanted.items():
            size = worker.TOKENS // worker.WORLD
            piece = whole if key.endswith("/weight") else whole[rank * size : (rank + 1) * size]
            assert torch.equal(got[key], piece), key
