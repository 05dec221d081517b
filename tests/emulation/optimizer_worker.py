"""One of two processes that train a sharded and a copied model with optimizers in low precision.

Run as `python optimizer_worker.py RANK FOLDER`. Both processes see the same inputs, so that mean gradients are exactly
those of one process.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from lowp.emulation import Cast
from lowp.emulation.torch_optim import LowPrecision

WORLD = 2
STEPS = 3
MXFP8 = Cast("mxfp8", rounding="stochastic_a")
BFLOAT16 = Cast("bfloat16", rounding="stochastic_a")
#: Wrappers of AdamW; what is sharded cannot be stored as codes.
CASES: dict[str, dict[str, Any]] = {
    "states": {"states": MXFP8, "encoded": False},
    "parameters": {"parameters": BFLOAT16},
    "masters": {"states": BFLOAT16, "parameters": MXFP8, "master_weights": True, "encoded": False},
}


def net() -> nn.Module:
    made = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Linear(64, 32, bias=False), nn.Tanh(), nn.Linear(32, 64, bias=False))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=made) / 8)
    return model


def train(model: nn.Module, case: str, **changes: Any) -> list[torch.Tensor]:
    """Return the parameters after some steps."""
    optimizer = LowPrecision(torch.optim.AdamW(model.parameters(), lr=1e-2), seed=7, **(CASES[case] | changes))
    for step in range(STEPS):
        x = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(x) - x).pow(2).sum().backward()
        optimizer.step()
    return [p.detach().full_tensor() if hasattr(p, "full_tensor") else p.detach().clone() for p in model.parameters()]


def main(rank: int, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    mesh = init_device_mesh("cpu", (WORLD,))
    found: dict[str, Any] = {}
    for case in CASES:
        sharded = net()
        fully_shard(sharded, mesh=mesh)
        found[f"fsdp2 {case}"] = train(sharded, case)
        found[f"ddp {case}"] = train(nn.parallel.DistributedDataParallel(net()), case, encoded=True)
    try:
        train(sharded, "states", encoded=True)
    except TypeError as error:
        found["refused"] = str(error)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
