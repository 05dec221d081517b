"""One of two processes that train a small model under emulation, and write down the operands that they round."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowp.emulation._torch_calls import Call
from lowp.torch import Cast, Recipe, emulate

WORLD = 2
TOKENS = 64
STEPS = 2
_MX = Cast("mxfp4", rounding="stochastic_a")
_CURRENT = Cast("float8_e5m2", scaling="current", rounding="stochastic_a")
_ROTATED = Cast("mxfp4", rounding="stochastic_a", hadamard=16)
RECIPES = {
    "mxfp4": Recipe(weight=_MX, activation=_MX, gradient=_MX),
    "nvfp4": Recipe(weight="nvfp4", activation=Cast("nvfp4", rounding="stochastic_a"), gradient="nvfp4"),
    "current": Recipe(weight=_CURRENT, activation=_CURRENT, gradient=_CURRENT),
    "delayed": Recipe(
        weight=Cast("float8_e4m3fn", scaling="delayed"),
        activation=Cast("float8_e4m3fn", scaling="delayed"),
        gradient=Cast("float8_e5m2", scaling="delayed"),
    ),
    "rotated": Recipe(weight=_ROTATED, activation=_ROTATED, gradient=_ROTATED),
}


def model() -> Any:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 32, bias=False))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randint(-6, 7, p.shape) / 4)
    return net


def data(step: int) -> Any:
    torch.manual_seed(10 + step)
    return torch.randint(-6, 7, (TOKENS, 64)) / 2


class Recorder:
    """Keeps every operand that an emulation rounds."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self._round = Call.round

    def __enter__(self) -> "Recorder":
        recorder, original = self, self._round

        def recorded(call: Any, x: Any, role: str, product: str, *args: Any, **kwargs: Any) -> Any:
            result = original(call, x, role, product, *args, **kwargs)
            recorder.found[f"{call.layer}/{call.index}/{product}/{role}"] = result.values.clone()
            return result

        Call.round = recorded  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Call.round = self._round  # type: ignore[method-assign]


def train(net: Any, recipe: Recipe, rank: int, world: int) -> dict[str, Any]:
    """Train and return the operands; every number is a short binary fraction, so sums do not depend on their order."""
    run = emulate(recipe, shard=(rank, world)) if world > 1 else emulate(recipe)
    # Data parallelism takes the mean over ranks of the weights' gradients, where one process has their sum.
    optimizer = torch.optim.SGD(net.parameters(), lr=2.0**-12 * world)
    size = TOKENS // world
    with Recorder() as recorder:
        for step in range(STEPS):
            optimizer.zero_grad()
            with run:
                y = net(data(step)[rank * size : (rank + 1) * size])
            (y.square().sum() / 2**14).backward()
            optimizer.step()
    return recorder.found


def main(rank: int, folder: Path) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    found: dict[str, Any] = {}
    for name, recipe in RECIPES.items():
        found[f"ddp {name}"] = train(nn.parallel.DistributedDataParallel(model()), recipe, rank, WORLD)
        sharded = model()
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (WORLD,))
        for layer in (sharded[0], sharded[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        found[f"fsdp {name}"] = train(sharded, recipe, rank, WORLD)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
