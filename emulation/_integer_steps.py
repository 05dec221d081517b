"""A network as steps between integer tensors: what is stored, in which format, at which scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation._dyadic_scale import DyadicScale, storage
from lowp.emulation._integer_windows import Window
from lowp.formats.integer import Integer


@dataclass(frozen=True, eq=False)
class Tensor:
    """How a tensor is stored: integers of a format, and the float32 scale of one, or one for each channel."""

    format: Integer
    scale: NDArray[np.float32]

    @property
    def low(self) -> int:
        """The least integer."""
        return int(self.format.min)

    @property
    def high(self) -> int:
        """The largest integer."""
        return int(self.format.max)

    @property
    def dtype(self) -> Any:
        """The NumPy dtype of the integers."""
        return storage(self.format)


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One step.

    Args:
        name: Its place and kind, such as "3 conv2d".
        input: How what it takes is stored.
        output: How what it gives is stored.
    """

    name: str
    input: Tensor
    output: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Step):
    """Integers times integer weights (terms, outputs) plus a bias, in accumulators; a convolution with a window."""

    weight: NDArray[Any]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    window: Window | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantise(Step):
    """Other integers for the same numbers."""

    scale: DyadicScale


@dataclass(frozen=True, eq=False, kw_only=True)
class Rectify(Step):
    """The larger of x and 0."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Flat(Step):
    """Another shape."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Largest(Step):
    """A max-pool."""

    window: Window


@dataclass(frozen=True, eq=False, kw_only=True)
class Average(Step):
    """An average pool: the integer sum, divided by the count."""

    pool: Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Step):
    """Two branches, each requantised to the scale of the sum, and added."""

    main: tuple[Step, ...]
    shortcut: tuple[Step, ...]
    main_scale: DyadicScale
    shortcut_scale: DyadicScale
    #: How the branches' ends are stored.
    ends: tuple[Tensor, Tensor]


def all_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Yield steps in the order in which they run, those of branches before the sum."""
    for step in steps:
        if isinstance(step, Add):
            yield from all_steps(step.main)
            yield from all_steps(step.shortcut)
        yield step
