"""A small CNN on digits, trained in low precision and quantized after training: `python -m benchmarks.digits`."""

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

import lowp.torch as lt
from lowp import Recipe

OUT = Path("build/bench/digits")
#: Name -> formats of weights and activations; gradients stay in float32.
RECIPES = {
    "float32": None,
    "int8": Recipe(name="int8", weight="int8_sym_tensor", activation="int8_sym_tensor"),
    "int4": Recipe(name="int4", weight="int4_sym_tensor", activation="int4_sym_tensor"),
    "ternary weights": Recipe(name="ternary", weight="block[ternary,tensor,float32,recipe=absmean]"),
    "posit8": Recipe(name="posit8", weight="posit8_es1", activation="posit8_es1"),
    "fp6": Recipe(
        name="fp6",
        weight={"format": "float6_e2m3fn", "scaling": "current"},
        activation={"format": "float6_e2m3fn", "scaling": "current"},
    ),
}
EPOCHS, BATCH = 12, 64


def data() -> tuple[torch.Tensor, ...]:
    """Return training and test images (8x8, in [0, 1]) and labels; every fifth image is for the test."""
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images.reshape(-1, 1, 8, 8) / 16).float()
    y = torch.from_numpy(labels).long()
    test = torch.arange(len(y)) % 5 == 0
    return x[~test], y[~test], x[test], y[test]


def network(seed: int) -> nn.Module:
    """Return two convolutions and two linear layers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def emulated(recipe: Recipe | None) -> Any:
    """Return the context that a recipe asks for."""
    return lt.emulate(recipe) if recipe else contextlib.nullcontext()


def train(recipe: Recipe | None, seed: int) -> nn.Module:
    """Train with the operands of every layer rounded, forward; the gradient passes straight through."""
    x, y, _, _ = data()
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(x) // BATCH))
    order = np.random.default_rng(seed)
    with emulated(recipe):
        for _ in range(EPOCHS):
            shuffled = torch.from_numpy(order.permutation(len(x)))
            for part in shuffled[: len(x) // BATCH * BATCH].view(-1, BATCH):
                loss = functional.cross_entropy(model(x[part]), y[part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model


def accuracy(model: nn.Module, recipe: Recipe | None) -> float:
    """Return the share of test images that are recognized."""
    _, _, x, y = data()
    with torch.no_grad(), emulated(recipe):
        return float((model(x).argmax(1) == y).float().mean())


def table(rows: list[dict[str, Any]], seeds: int) -> str:
    """Return mean accuracies as a Markdown table."""
    lines = [f"Test accuracy, mean of {seeds} seeds (least, greatest).", "",
             "| format | quantized after training | trained in the format |", "| --- | ---: | ---: |"]  # fmt: skip
    for row in rows:
        cells = [
            f"{100 * np.mean(v):.2f} % ({100 * min(v):.2f}, {100 * max(v):.2f})" for v in (row["after"], row["trained"])
        ]
        lines.append(f"| {row['format']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Train all, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    plain = [train(None, seed) for seed in range(seeds)]
    rows = []
    for name, recipe in RECIPES.items():
        after = [accuracy(model, recipe) for model in plain]
        trained = [accuracy(train(recipe, s), recipe) if recipe else after[s] for s in range(seeds)]
        rows.append({"format": name, "after": after, "trained": trained})
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "records.json").write_text(json.dumps(rows))
    (OUT / "report.md").write_text(f"# CNN on digits\n\n{table(rows, seeds)}\n")
    print(table(rows, seeds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
