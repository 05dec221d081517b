"""What becomes of sums of products: they are multiplied by tensor scales, and rounded to the format of a store."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from lowp.emulation._side import Side
from lowp.emulation._sum_terms import Sums, Terms
from lowp.emulation._sum_trace import Step
from lowp.emulation.accumulator import Accumulator
from lowp.formats.float_format import Float
from lowp.formats.spec import ScalarFormat
from lowp.rounding import verbs

_FLOAT64 = Float(11, 52)


class Epilogue(NamedTuple):
    """What `lowp.matmul` does to sums.

    Args:
        own: Format of the sums.
        scale_a: Tensor scale of the left operand, or None.
        scale_b: That of the right one.
        fmt: Format of the results, or None: that of the sums.
    """

    own: ScalarFormat
    scale_a: float | None = None
    scale_b: float | None = None
    fmt: ScalarFormat | None = None

    @property
    def scales(self) -> tuple[float, float]:
        """Both tensor scales, 1 where there is none."""
        return 1.0 if self.scale_a is None else self.scale_a, 1.0 if self.scale_b is None else self.scale_b

    @property
    def is_scaled(self) -> bool:
        """Whether there is a tensor scale."""
        return self.scale_a is not None or self.scale_b is not None

    @property
    def exact_scale(self) -> Fraction:
        """The product of the tensor scales."""
        return Fraction(self.scales[0]) * Fraction(self.scales[1])

    @property
    def format(self) -> ScalarFormat:
        """Format of the results."""
        return self.own if self.fmt is None else self.fmt

    def run(self, sums: Sums, watch: Callable[[Step], None] | None = None) -> Sums:
        """Return the results; a watcher is told of both steps, if they are there."""
        from lowp.emulation.matmul import beyond  # which imports reports

        if self.is_scaled:
            first, second = (np.float32(s) for s in self.scales)
            after = np.asarray(verbs.quantize(sums * np.float64(first * second), self.own, overflow=beyond(self.own)))
            if watch is not None:
                watch(self._scaling(sums, after))
            sums = after
        if self.fmt is not None:
            after = np.asarray(verbs.quantize(sums, self.fmt, overflow=beyond(self.fmt)))
            if watch is not None:
                how = Accumulator(format=self.fmt, overflow=beyond(self.fmt))
                states = (sums.reshape(-1),), (after.reshape(-1),)
                watch(Step("store", "", ("the store",), states[0], self.own, None, states[1], how, self.fmt))
            sums = after
        return sums

    def _scaling(self, sums: Sums, after: Sums) -> Step:
        """Return the product with the tensor scales as a step from zero."""
        from lowp.emulation.matmul import beyond

        flat = sums.reshape(1, 1, -1)
        left = Side(np.full((1, 1, 1), self.scales[0]), _FLOAT64, np.full((1, 1, 1), self.scales[1]), _FLOAT64)
        how = Accumulator(format=self.own, overflow=beyond(self.own))
        return Step(
            "scaling", "", ("the tensor scales",), (np.zeros(sums.size),), self.own, Terms(left, Side(flat, self.own)),
            (after.reshape(-1),), how, self.own, self.scales[0] * self.scales[1],
        )  # fmt: skip
