"""One of two processes that round the pieces of distributed tensors; writes what it finds for the tests to compare.

Run as `python scale_out_worker.py RANK FOLDER`.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import lowp
import lowp.torch as lt

WORLD = 2
#: Formats, roundings and shapes of the tensors; blocks of 32, 16 and 16x16, scales per tensor, no blocks.
CASES = [
    (fmt, rounding, shape)
    for fmt, shapes in {
        "float8_e4m3fn": [(64, 128), (7, 64)],
        "nf4": [(64, 128)],
        "mxfp4": [(64, 128), (7, 64)],
        "nvfp4": [(64, 128)],
        "nvfp4_torchao": [(64, 128)],
        "int8_tensor": [(64, 128), (1, 64)],
        "block[float4_e2m1fn,16x16,float8_e4m3fn,tensor=float32]": [(64, 128)],
    }.items()
    for rounding in ("ties_to_even", "stochastic_b")
    for shape in shapes
]
#: What is compiled: pieces stay pieces in the first, the others ask for the whole tensor.
COMPILED = [("float8_e4m3fn", "ties_to_even"), ("mxfp4", "stochastic_b"), ("nvfp4", "ties_to_even")]
SEED = 11
STEPS = 3


def data(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Numbers of many sizes."""
    made = torch.Generator().manual_seed(seed)
    sizes = torch.randint(-8, 8, shape, generator=made)
    return torch.randn(shape, generator=made) * torch.exp2(sizes.float())


class Net(nn.Module):
    """Two layers whose operands are rounded; all sums are exact, so that their order cannot matter."""

    def __init__(self) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(5)
        self.first = nn.Parameter(torch.randn(32, 64, generator=made))
        self.second = nn.Parameter(torch.randn(8, 32, generator=made))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, rows: int, start: int) -> torch.Tensor:
        def rounded(v: torch.Tensor, fmt: str, seed: int, **place: Any) -> torch.Tensor:
            y: torch.Tensor = lt.quantize(v, fmt, "stochastic_b", seed=seed, **place)
            self.seen.append(y.detach().clone())
            return y

        def here(v: torch.Tensor) -> lt.Shard:
            return lt.Shard((start, 0), (rows, v.shape[1]))

        hidden = rounded(x, "mxfp4", 1, shard=here(x)) @ rounded(self.first, "mxfp4", 2).T
        hidden = torch.relu(hidden)
        return rounded(hidden, "float4_e2m1fn", 3, shard=here(hidden)) @ rounded(self.second, "int4", 4).T


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The input of one step and the gradient of its output, small integers."""
    made = torch.Generator().manual_seed(100 + step)
    return torch.randn(8, 64, generator=made), torch.randint(-2, 3, (8, 8), generator=made).float()


def train(net: nn.Module, inner: Net, rank: int, world: int) -> list[list[torch.Tensor]]:
    """Train on this process's rows; return what each step rounded."""
    optimizer = torch.optim.SGD(net.parameters(), lr=2.0**-6)
    found = []
    for step in range(STEPS):
        x, weight = batch(step)
        count = len(x) // world
        mine = slice(rank * count, (rank + 1) * count)
        inner.seen = []
        loss = (net(x[mine], len(x), mine.start) * weight[mine]).sum() * world
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(inner.seen)
    return found


def distributed_tensors(mesh: Any) -> dict[str, Any]:
    """Round every case under several placements; the whole results by case."""
    from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor

    found: dict[str, Any] = {}
    for fmt, rounding, shape in CASES:
        for place in (Shard(0), Shard(1), Replicate()):
            x = distribute_tensor(data(shape), mesh, [place])
            y = lt.quantize(x, fmt, rounding, seed=SEED, axis=-1)
            assert y.placements == (place,)
            assert y.stride() == (shape[1], 1)
            found[f"{fmt} {rounding} {shape} {place}"] = y.full_tensor()
    x = distribute_tensor(data((64, 128)), mesh, [Shard(0)]).requires_grad_()
    lt.quantize(x, "nvfp4", gradient="clipped").pow(2).sum().backward()
    found["gradient"] = x.grad.full_tensor()
    pending = torch.distributed.tensor.DTensor.from_local(data((4, 32)) / 2, mesh, [Partial()])
    found["pending"] = lt.quantize(pending, "mxfp4").full_tensor()
    copied = distribute_tensor(data((64, 128)), mesh, [Replicate()])
    found["packed"] = lt.quantize(copied, "bnb_nf4", "stochastic_a", seed=SEED).full_tensor()
    compiled = torch.compile(lt.quantize, backend="aot_eager", fullgraph=True)
    for fmt, rounding in COMPILED:
        y = compiled(x.detach(), fmt, rounding, seed=SEED)
        assert y.placements == x.placements
        found[f"compiled {fmt}"] = y.full_tensor()
    return found


def errors(mesh: Any) -> dict[str, str]:
    """What is refused, and how."""
    from torch.distributed.tensor import Shard, distribute_tensor

    columns = distribute_tensor(data((8, 96)), mesh, [Shard(1)])
    refused = {
        "straddle": lambda: lt.quantize(columns, "mxfp4"),
        "row": lambda: lt.quantize(columns, "int8_row"),
        "packed": lambda: lt.quantize(columns, "ggml_q4_0"),
        "statistics": lambda: lt.quantize(columns, "block[int4,tensor,float32,recipe=absmean]"),
        "encode": lambda: lt.encode(columns, "float8_e4m3fn"),
        "out": lambda: lt.quantize(columns, "float8_e4m3fn", out=columns),
    }
    found = {}
    for name, attempt in refused.items():
        try:
            attempt()
        except lowp.Error as error:
            found[name] = str(error)
    return found


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    mesh = init_device_mesh("cpu", (WORLD,))
    found: dict[str, Any] = {"tensors": distributed_tensors(mesh), "errors": errors(mesh)}
    piece = data((64, 128)).chunk(WORLD)[rank]
    found["group"] = lt.quantize(piece, "nvfp4", group=dist.group.WORLD)
    together = torch.compile(
        lambda v: lt.quantize(v, "nvfp4", group=dist.group.WORLD), backend="aot_eager", fullgraph=True
    )
    assert torch.equal(together(piece), found["group"])
    net = Net()
    found["ddp"] = train(DistributedDataParallel(net), net, rank, WORLD)
    net = Net()
    fully_shard(net, mesh=mesh)
    found["fsdp"] = train(net, net, rank, WORLD)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
