"""Two processes round the pieces of tensors as one process rounds the whole, bit for bit."""

import re
from pathlib import Path
from typing import Any

import pytest

import lowp

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

import lowp.torch as lt  # noqa: E402  (only where torch is)
from tests.emulation import processes  # noqa: E402
from tests.emulation import scale_out_worker as worker  # noqa: E402

PLACES = ("S(0)", "S(1)", "R")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> list[dict[str, Any]]:
    """What both processes found."""
    return processes.results(worker, tmp_path_factory.mktemp("scale_out"), repo)


class TestDistributedTensors:
    @pytest.mark.parametrize(("fmt", "rounding", "shape"), worker.CASES)
    def test_pieces_are_those_of_the_whole(
        self, found: list[dict[str, Any]], fmt: str, rounding: str, shape: tuple[int, ...]
    ) -> None:
        wanted = lowp.quantize(worker.data(shape), fmt, rounding, seed=worker.SEED)
        mine = [{k: v for k, v in f["tensors"].items() if k.startswith(f"{fmt} {rounding} {shape} ")} for f in found]
        assert all(len(results) == len(PLACES) for results in mine)
        for results in mine:
            for case, got in results.items():
                assert torch.equal(got, wanted), case

    def test_gradients_pass_where_they_pass_in_one_process(self, found: list[dict[str, Any]]) -> None:
        x = worker.data((64, 128)).requires_grad_()
        lt.quantize(x, "nvfp4", gradient="clipped").pow(2).sum().backward()
        assert torch.equal(found[0]["tensors"]["gradient"], x.grad)

    def test_pending_sums_are_carried_out_first(self, found: list[dict[str, Any]]) -> None:
        assert torch.equal(found[1]["tensors"]["pending"], lt.quantize(worker.data((4, 32)), "mxfp4"))

    def test_packed_formats_round_what_every_process_has_the_whole_of(self, found: list[dict[str, Any]]) -> None:
        wanted = lt.quantize(worker.data((64, 128)), "bnb_nf4", "stochastic_a", seed=worker.SEED)
        for process in found:
            assert torch.equal(process["tensors"]["packed"], wanted)

    @pytest.mark.parametrize(("fmt", "rounding"), worker.COMPILED)
    def test_compiled_programs(self, found: list[dict[str, Any]], fmt: str, rounding: str) -> None:
        wanted = lt.quantize(worker.data((64, 128)), fmt, rounding, seed=worker.SEED)
        assert torch.equal(found[0]["tensors"][f"compiled {fmt}"], wanted)

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            (
                "straddle",
                "x of shape (8, 96) is sharded along dimension 1, whose blocks of 32 ('mxfp4') would lie in two",
            ),
            ("row", "blocks of 96 ('int8_row') would lie in two pieces. Redistribute x, or choose another axis."),
            ("packed", "x is sharded; 'ggml_q4_0' takes whole tensors."),
            ("statistics", "needs more of the whole array than its largest magnitude"),
            ("encode", "encode takes plain tensors; x is a DTensor."),
            ("out", "x is a DTensor, which knows its shards and its group"),
        ],
    )
    def test_what_cannot_be_done_in_pieces_is_an_error_everywhere(
        self, found: list[dict[str, Any]], what: str, message: str
    ) -> None:
        for process in found:
            assert re.search(re.escape(message), process["errors"][what])


def test_a_group_shares_the_largest_magnitude(found: list[dict[str, Any]]) -> None:
    whole = worker.data((64, 128))
    together = torch.cat([process["group"] for process in found])
    assert torch.equal(together, lt.quantize(whole, "nvfp4"))
    alone = torch.cat([lt.quantize(piece, "nvfp4") for piece in whole.chunk(worker.WORLD)])
    assert not torch.equal(together, alone)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_training_rounds_what_one_process_rounds(found: list[dict[str, Any]], engine: str) -> None:
    net = worker.Net()
    alone = worker.train(net, net, 0, 1)
    for step, (inputs, first, hidden, second) in enumerate(alone):
        pieces = [process[engine][step] for process in found]
        assert torch.equal(torch.cat([piece[0] for piece in pieces]), inputs)
        assert torch.equal(torch.cat([piece[2] for piece in pieces]), hidden)
        for piece in pieces:
            assert torch.equal(piece[1], first)
            assert torch.equal(piece[3], second)
    assert not torch.equal(alone[0][1], alone[-1][1])  # the weights have moved
