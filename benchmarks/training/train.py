"""One training run in torch: a recipe, a seed, and the record of its losses."""

import contextlib
import time
from typing import Any

import numpy as np
import torch
from benchmarks.training import text
from benchmarks.training.gpt import GPT, loss_of
from benchmarks.training.settings import Settings

import lowp.torch as lt
from lowp import Recipe, Rule


def recipe_of(name: str) -> Recipe | None:
    """Return a recipe with the output layer left in float32, as the papers do; None for no emulation."""
    if name == "float32":
        return None
    recipe = Recipe.named(name)
    return recipe.replace(rules=[*recipe.rules, Rule("*head", exempt=True)])


def optimizer_of(name: str, model: torch.nn.Module, s: Settings) -> torch.optim.Optimizer:
    """Return AdamW, or for LNS-Madam its own optimizer."""
    if name == "lns_madam":
        return lt.optim.Madam(model.parameters(), lr=0.01)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decayed, "weight_decay": s.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=s.peak_rate, betas=(0.9, 0.95))


def train(name: str, seed: int, s: Settings) -> dict[str, Any]:
    """Train once; the seed decides initial weights and batches, so that runs of equal seed differ by recipe alone."""
    corpus = text.load()
    torch.manual_seed(seed)
    model = GPT(s, len(corpus.alphabet))
    optimizer = optimizer_of(name, model, s)
    first_rates = [group["lr"] for group in optimizer.param_groups]
    recipe = recipe_of(name)
    rng = np.random.default_rng(seed)
    losses = []
    start = time.perf_counter()
    with lt.emulate(recipe) if recipe else contextlib.nullcontext():
        for step in range(s.steps):
            for group, first in zip(optimizer.param_groups, first_rates, strict=True):
                group["lr"] = first * s.rate(step) / s.peak_rate
            inputs, targets = map(torch.from_numpy, text.batch(corpus.train, rng, s.batch, s.context))
            loss = loss_of(model, inputs, targets)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - start
        with torch.no_grad():
            batches = text.held_out_batches(s.context, 64, s.judged_on)
            judged = [float(loss_of(model, *map(torch.from_numpy, pair))) for pair in batches]
    return {
        "world": "torch", "recipe": name, "seed": seed, "losses": losses,
        "held_out": float(np.mean(judged)), "seconds": seconds,
    }  # fmt: skip
