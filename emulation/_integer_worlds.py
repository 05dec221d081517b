"""One network, run three times: in integers, in float64 through lowp's accumulators, and as fake quantisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowp.emulation import _integer_arithmetic as integers
from lowp.emulation._dyadic_scale import DyadicScale, along_channels
from lowp.emulation._integer_layers import check_terms, real_product
from lowp.emulation._integer_plan import BRANCH, check_sum, scaled
from lowp.emulation._integer_steps import Add, Average, Flat, Largest, Product, Rectify, Requantise, Step, Tensor
from lowp.emulation._integer_windows import images, rows, windows
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matmul import matmul
from lowp.rounding import verbs

Array = NDArray[Any]
#: Gets each step with the integers that it gives.
Watch = Callable[[Step, Array], None]


class World:
    """How steps are computed; the order of the steps is the same for all."""

    def run(self, steps: tuple[Step, ...], x: Array, watch: Watch) -> Array:
        """Return what the steps make of an array."""
        for step in steps:
            if isinstance(step, Add):
                x = self.add(step, self.run(step.main, x, watch), self.run(step.shortcut, x, watch))
            elif isinstance(step, Flat):
                x = x.reshape(len(x), -1)
            else:
                x = getattr(self, type(step).__name__.lower())(step, x)
            watch(step, self.codes(x, step.output))
        return x

    def codes(self, x: Array, tensor: Tensor) -> Array:
        """Return the integers that an array of this world stands for."""
        return x

    def add(self, step: Add, main: Array, shortcut: Array) -> Array:
        """Return the sum of two branches."""
        raise NotImplementedError


class IntegerWorld(World):
    """Integers: those of `_integer_arithmetic` alone."""

    def __init__(self, rounding: str, average_rounding: str) -> None:
        self.rounding, self.average_rounding = rounding, average_rounding

    def product(self, step: Product, x: Array) -> Array:
        check_terms(x, len(step.weight), step.window)
        left = x if step.window is None else rows(x, step.window)
        total = integers.product(left, step.weight, step.bias, step.output.format.bits)
        return total if step.window is None else images(total, step.window, x.shape)

    def requantise(self, step: Requantise, x: Array) -> Array:
        return step.scale.apply(x, step.output.format, rounding=self.rounding)

    def rectify(self, step: Rectify, x: Array) -> Array:
        return integers.rectified(x)

    def largest(self, step: Largest, x: Array) -> Array:
        return np.asanyarray(np.maximum.reduce(windows(x, step.window, step.output.low), axis=2))

    def average(self, step: Average, x: Array) -> Array:
        window = step.pool.window_of(x.shape)
        check_sum(step.output, window.size, step.name)  # images may be larger than those of the calibration
        total = np.add.reduce(windows(x, window, 0), axis=2, dtype=np.int32)
        return integers.divided(total, window.size[0] * window.size[1], self.average_rounding).astype(step.output.dtype)

    def add(self, step: Add, main: Array, shortcut: Array) -> Array:
        left = step.main_scale.apply(main, BRANCH, rounding=self.rounding)
        right = step.shortcut_scale.apply(shortcut, BRANCH, rounding=self.rounding)
        return integers.added(left, right, step.output.low, step.output.high, step.output.dtype)


class EmulatedWorld(World):
    """Integers as float64 numbers; products by `lowp.matmul`, roundings by `lowp.quantize`."""

    def __init__(self, rounding: str, average_rounding: str, accumulator: Accumulator) -> None:
        self.rounding, self.average_rounding, self.accumulator = rounding, average_rounding, accumulator

    def product(self, step: Product, x: Array) -> Array:
        check_terms(x, len(step.weight), step.window)
        left = x if step.window is None else rows(x, step.window)
        bias = np.broadcast_to(step.bias.astype(np.float64), (len(left), len(step.bias)))
        weight = step.weight.astype(np.float64)
        total = np.asarray(matmul(left, weight, bias, accumulator=self.accumulator), np.float64)
        return total if step.window is None else images(total, step.window, x.shape)

    def requantise(self, step: Requantise, x: Array) -> Array:
        return step.scale.emulate(x, step.output.format, rounding=self.rounding)

    def rectify(self, step: Rectify, x: Array) -> Array:
        return np.maximum(x, 0.0)

    def largest(self, step: Largest, x: Array) -> Array:
        return np.asarray(windows(x, step.window, -np.inf).max(axis=2))

    def average(self, step: Average, x: Array) -> Array:
        window = step.pool.window_of(x.shape)
        # sums are below 2^31, so that float64's error cannot take a quotient onto, or over, an integer or a half
        mean = windows(x, window, 0.0).sum(axis=2) / (window.size[0] * window.size[1])
        return np.asarray(verbs.quantize(mean, step.output.format, rounding=self.average_rounding), np.float64)

    def add(self, step: Add, main: Array, shortcut: Array) -> Array:
        total = self._branch(step.main_scale, main) + self._branch(step.shortcut_scale, shortcut)
        return np.asarray(np.clip(total, step.output.low, step.output.high))

    def _branch(self, scale: DyadicScale, x: Array) -> Array:
        return scale.emulate(x, BRANCH, rounding=self.rounding)


class FakeQuantisedWorld(World):
    """Real numbers, integer times scale in float64; wherever a step rounds, integers are recovered first."""

    def __init__(self, emulated: EmulatedWorld) -> None:
        self.emulated = emulated

    def codes(self, x: Array, tensor: Tensor) -> Array:
        return np.asarray(np.rint(x / along_channels(tensor.scale.astype(np.float64), x.ndim)))

    def product(self, step: Product, x: Array) -> Array:
        unit = step.input.scale.astype(np.float64) * step.weight_scale.astype(np.float64)
        weight = step.weight * step.weight_scale.astype(np.float64)
        real = real_product(x, weight, step.bias * unit, step.window)
        # as in HAWQ-V3's code, the scale of what follows is rounded to float32: the integers stay
        return scaled(np.rint(real / along_channels(unit, real.ndim)), step.output.scale)

    def rectify(self, step: Rectify, x: Array) -> Array:
        return np.maximum(x, 0.0)

    def largest(self, step: Largest, x: Array) -> Array:
        return self.emulated.largest(step, x)

    def requantise(self, step: Requantise, x: Array) -> Array:
        return scaled(self.emulated.requantise(step, self.codes(x, step.input)), step.output.scale)

    def average(self, step: Average, x: Array) -> Array:
        return scaled(self.emulated.average(step, self.codes(x, step.input)), step.output.scale)

    def add(self, step: Add, main: Array, shortcut: Array) -> Array:
        ends = [self.codes(x, tensor) for x, tensor in zip((main, shortcut), step.ends, strict=True)]
        return scaled(self.emulated.add(step, *ends), step.output.scale)
