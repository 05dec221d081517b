"""Operands that are DTensors: every process rounds the whole tensor as one process would, and keeps its own piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lowp.rounding._torch_distributed import is_distributed

__all__ = ["arrived", "by_whole", "has_plain_pieces", "is_distributed", "like", "settled", "whole"]


def has_plain_pieces(x: Any) -> bool:
    """Whether a tensor is a DTensor of equal pieces, copies and pending sums."""
    if not is_distributed(x):
        return False
    from torch.distributed.tensor import Replicate, Shard

    return all(type(p) in (Shard, Replicate) or p.is_partial("sum") for p in x.placements)


def arrived(x: Any) -> Any:
    """Return what a collective operation in flight gives, once it is there; anything else as it is."""
    return x.clone() if type(x).__name__ == "AsyncCollectiveTensor" else x


def whole(x: torch.Tensor) -> torch.Tensor:
    """Return all of a DTensor, without a gradient; any other tensor as it is."""
    return x.detach().full_tensor() if is_distributed(x) else x  # type: ignore[attr-defined]


def settled(x: Any) -> Any:
    """Return a DTensor whose pending sums are carried out; any other tensor as it is."""
    if not is_distributed(x) or not any(p.is_partial() for p in x.placements):
        return x
    from torch.distributed.tensor import Replicate

    return x.redistribute(placements=[Replicate() if p.is_partial() else p for p in x.placements])


def like(y: Any, x: Any) -> Any:
    """Return this process's piece of a whole tensor, as a DTensor that lies as `x` does."""
    if y is None:
        return None
    from torch.distributed.tensor import DTensor, Replicate

    places = [Replicate() if p.is_partial() else p for p in x.placements]
    spread = DTensor.from_local(y, x.device_mesh, [Replicate()] * len(places), run_check=False)
    return spread.redistribute(placements=places)


def by_whole(x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return a function of the whole of a DTensor, as a DTensor."""
    result: torch.Tensor = like(function(whole(x)), x)
    return result
