"""Array code on tensors whose steps of aligned terms are compiled: one kernel for each step where a GPU runs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch

from lowp.rounding._namespaces import Arrays, TorchNamespace

#: Steps from which compiling pays.
_FEW = 4


class CompiledSteps(TorchNamespace):
    """Tensors, and the steps of one product's aligned sums, compiled once for each shape: their arithmetic is exact.

    A product always makes the same scans in the same order, so that a scan is known by its number.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Any, Any] = {}
        self._number = 0

    def restarted(self) -> CompiledSteps:
        """Return itself, at the beginning of a product."""
        self._number = 0
        return self

    def scan_compiled(
        self, step: Callable[[Arrays, Arrays], tuple[Arrays, Any]], state: Arrays, parts: Arrays
    ) -> tuple[Arrays, Any]:
        """Return what `scan` does."""
        self._number += 1
        if parts[0].shape[0] < _FEW:
            return self.scan(step, state, parts)
        key = (self._number, parts[0].device, *((tuple(x.shape), x.dtype) for x in (*state, *parts)))
        if key not in self._known:
            self._known[key] = torch.compile(step, dynamic=False)
        return self.scan(self._known[key], state, parts)


@lru_cache(maxsize=256)
def steps_of(text: str) -> CompiledSteps:
    """Return the namespace that keeps the compiled steps of a product."""
    return CompiledSteps()


@lru_cache(maxsize=1)
def can_compile() -> bool:
    """Whether torch can compile for GPUs here."""
    return find_spec("triton") is not None
