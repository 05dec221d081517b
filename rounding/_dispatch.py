"""Which array library an argument belongs to, without importing any."""

from __future__ import annotations

import sys
from typing import Any


def is_torch(x: Any) -> bool:
    """Whether `x` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_jax(x: Any) -> bool:
    """Whether `x` is a JAX array, or stands for one while JAX traces; never imports jax."""
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(x, jax.Array)
