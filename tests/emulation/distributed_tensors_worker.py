"""One of two processes that compute emulated products of DTensors, and write down operands, results and gradients."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowp.emulation._torch_calls import Call
from lowp.torch import Cast, Recipe, emulate

WORLD = 2
_MX = Cast("mxfp4", rounding="stochastic_a")
RECIPES = {
    "mxfp4": Recipe(weight=_MX, activation=_MX, gradient=_MX, operations=["linear", "matmul"]),
    "rotated": Recipe(
        weight="float8_e4m3fn",
        activation="float8_e4m3fn",
        grad_weight={
            "gradient": {"format": "mxfp4", "hadamard": 16},
            "activation": {"format": "mxfp4", "hadamard": 16},
        },
    ),
    "delayed": Recipe(
        weight=Cast("float8_e4m3fn", scaling="delayed"),
        activation=Cast("float8_e4m3fn", scaling="delayed", gradient="clipped"),
        gradient="float8_e5m2",
    ),
    "sums": Recipe(
        weight="float8_e4m3fn",
        activation="float8_e4m3fn",
        gradient="float8_e5m2",
        accumulator=Cast("bfloat16", rounding="stochastic_a"),
        output="mxfp8",
    ),
}
#: Placements of x, weight and bias: data, columns, rows, copies, and pieces that pass the borders of blocks.
PLACES = {"data": "0..", "columns": ".00", "rows": "11.", "copies": "...", "tokens": "1..", "both": "000"}


def numbers(seed: int, *shape: int) -> Any:
    """Return short binary fractions, whose sums do not depend on their order; the largest is 448 / 128."""
    return torch.randint(-7, 8, shape, generator=torch.Generator().manual_seed(seed)) / 2.0


def compute(recipe: Recipe, spread: Any) -> dict[str, Any]:
    """Return operands, results and gradients; `spread` makes a tensor what it is in each process."""
    places = spread("place")
    x, w, b, other, g = (numbers(i, *s) for i, s in enumerate([(4, 8, 48), (40, 48), (40,), (4, 40, 16), (4, 8, 16)]))
    x = spread(x, places[0]).requires_grad_()
    layer = nn.Linear(48, 40)
    layer.weight = nn.Parameter(spread(w, places[1]))
    layer.bias = nn.Parameter(spread(b, places[2]))
    found: dict[str, Any] = {}
    original = Call.round

    def recorded(call: Any, t: Any, role: str, product: str, *args: Any, **kwargs: Any) -> Any:
        result = original(call, t, role, product, *args, **kwargs)
        second = "_2" if kwargs.get("second") else ""
        found[f"{call.operation}/{call.index}/{product}/{role}{second}"] = _full(result.values)
        return result

    Call.round = recorded  # type: ignore[method-assign]
    try:
        with emulate(recipe, strict=True) as run:
            for step in range(2):
                y = layer(x)
                z = y @ spread(other, ".")
                z.backward(spread(g / 4 ** (2 + step), "."))
    finally:
        Call.round = original  # type: ignore[method-assign]
    for name, t in {"y": y, "z": z, "dx": x.grad, "dw": layer.weight.grad, "db": layer.bias.grad}.items():
        found[name] = _full(t.detach())
    found["rows"] = [str(row) for row in run.report.rows]
    return found


def _full(t: Any) -> Any:
    return (t.full_tensor() if hasattr(t, "full_tensor") else t).clone()


def tensor_parallel(mesh: Any) -> dict[str, Any]:
    """Return the result of layers whose weights torch's own tensor parallelism splits, and their gradients."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    net = layers()
    if mesh is not None:
        parallelize_module(net, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})  # and a third layer as it is
    with emulate(RECIPES["mxfp4"], strict=True) as run:
        y = net(numbers(7, 16, 64))
    y.backward(numbers(8, 16, 64) / 64)
    found = {name: _full(p.grad) for name, p in net.named_parameters()}
    return {**found, "y": y.detach(), "rows": [str(row) for row in run.report.rows]}


def layers() -> Any:
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Linear(64, 64))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(numbers(20 + i, *p.shape))
    return net


def spread_over(mesh: Any, places: str) -> Any:
    """Return the function that makes DTensors: "0" and "1" are dimensions that are split, "." copies."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    def spread(t: Any, place: str = "") -> Any:
        if isinstance(t, str):
            return places
        return distribute_tensor(t, mesh, [Replicate() if place == "." else Shard(int(place))])

    return spread


def main(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (WORLD,))
    found: dict[str, Any] = {"parallel": tensor_parallel(mesh)}
    for name, recipe in RECIPES.items():
        for place, letters in PLACES.items():
            found[f"{name} {place}"] = compute(recipe, spread_over(mesh, letters))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
