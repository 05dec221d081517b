"""Digits on integers alone: accuracy, and the same bits as the emulation: `python -m benchmarks.integer_network`."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.digits import data
from torch import nn
from torch.nn import functional

from lowp.emulation.dyadic import IntegerNetwork

OUT = Path("build/bench/integer_network")
EPOCHS, BATCH = 12, 64
#: Name -> bits of weights and activations of the seven products.
WIDTHS: dict[str, dict[str, Any]] = {
    "int8": {"weight_bits": 8, "activation_bits": 8},
    "int4, first and last layer int8": {"weight_bits": (8, 4, 4, 4, 4, 4, 8), "activation_bits": (8, 4, 4, 4, 4, 4, 8)},
    "int4": {"weight_bits": 4, "activation_bits": 4},
}


class Block(nn.Module):
    """Two convolutions and a shortcut, which has a convolution of its own where the channels change."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def network(seed: int) -> nn.Module:
    """Return a small residual network: seven products, batch normalisation, both kinds of shortcut, an average pool."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16), Block(16, 32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def trained(seed: int) -> nn.Module:
    """Return the network, trained in float32."""
    x, y, _, _ = data()
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(x) // BATCH))
    order = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        shuffled = torch.from_numpy(order.permutation(len(x)))
        for part in shuffled[: len(x) // BATCH * BATCH].view(-1, BATCH):
            loss = functional.cross_entropy(model(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def measured(model: nn.Module, name: str) -> dict[str, Any]:
    """Return accuracy, and whether the three executions agree, on all test images; calibrated on training images."""
    calibration, _, x, y = data()
    net = IntegerNetwork.of_torch(model, calibration[:256], **WIDTHS[name])
    start = time.perf_counter()
    logits = net.run_integers(net.encode(x))
    seconds = time.perf_counter() - start
    found = net.check(x)
    return {
        "format": name,
        "accuracy": float((logits.argmax(1) == y.numpy()).mean()),
        "integers": sum(s.count for s in found.steps),
        "differ": sum(s.emulated_differ + s.fake_differ for s in found.steps),
        "needed": max(b.needed for b in found.bounds),
        "safe": all(found.bounds),
        "seconds": seconds,
    }


def main() -> int:
    """Train, run on integers, print and write the table; the exit status is 1 if one integer differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    models = [trained(seed) for seed in range(parser.parse_args().seeds)]
    _, _, x, y = data()
    with torch.no_grad():
        plain = [float((model(x).argmax(1) == y).float().mean()) for model in models]
    rows = {name: [measured(model, name) for model in models] for name in WIDTHS}
    lines = [f"Test accuracy on {len(x)} images, mean of {len(models)} seeds (least, greatest).", "",
             "| integers only | accuracy | integers compared | differ | accumulator bits needed of 32 | s |",
             "| --- | ---: | ---: | ---: | ---: | ---: |", f"| float32 | {shares(plain)} | | | | |"]  # fmt: skip
    for name, found in rows.items():
        total, differ = (sum(r[key] for r in found) for key in ("integers", "differ"))
        needed, seconds = max(r["needed"] for r in found), min(r["seconds"] for r in found)
        accuracy = shares([r["accuracy"] for r in found])
        lines.append(f"| {name} | {accuracy} | {total} | {differ} | {needed} | {seconds:.2f} |")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "records.json").write_text(json.dumps({"float32": plain, **rows}))
    (OUT / "report.md").write_text("# Digits on integers alone\n\n" + "\n".join(lines) + "\n")
    print("\n".join(lines))
    return int(any(r["differ"] or not r["safe"] for found in rows.values() for r in found))


def shares(values: list[float]) -> str:
    return f"{100 * np.mean(values):.2f} % ({100 * min(values):.2f}, {100 * max(values):.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
