"""One training run, as a process of its own starts it."""

from typing import Any

from benchmarks.training.settings import Settings


def run(world: str, name: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Train once in a process of its own, on one core."""
    import torch

    torch.set_num_threads(1)
    if world == "jax":
        from benchmarks.training.gpt_jax import train
    else:
        from benchmarks.training.train import train
    return train(name, seed, settings)
