"""From layers and a calibration batch to steps: scales, integer weights, and where numbers are requantised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowp._errors import ArgumentError, RangeError
from lowp.emulation._dyadic_scale import DyadicScale, along_channels, storage
from lowp.emulation._integer_layers import (
    PRODUCTS,
    AveragePool2d,
    Flatten,
    MaxPool2d,
    ReLU,
    Residual,
    matrix,
    one_forward,
)
from lowp.emulation._integer_steps import Add, Average, Flat, Largest, Product, Rectify, Requantise, Step, Tensor
from lowp.formats.integer import Integer

Floats = NDArray[np.float64]
#: Branches are requantised to so many bits, so that their sum fits 32.
BRANCH = Integer(31)
_LEAST_RANGE = 1e-8


class Bits(NamedTuple):
    """Widths of weights and activations (one for each product), and of the rest."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]
    residual: int
    output: int
    accumulator: int
    scale: int


@dataclass(frozen=True, eq=False)
class _State:
    """A tensor on the way: how it is stored, its numbers for the calibration batch, and what is known of them."""

    tensor: Tensor
    values: Floats
    nonnegative: bool = False
    accumulators: bool = False


def count_products(layers: Sequence[Any]) -> int:
    """Return how many layers have weights."""
    return sum(
        count_products(x.main) + count_products(x.shortcut) if isinstance(x, Residual) else isinstance(x, PRODUCTS)
        for x in layers
    )


class Planner:
    """Walks along the layers with the calibration batch in float64."""

    def __init__(self, bits: Bits) -> None:
        self.bits = bits
        self.products = 0

    def plan(self, layers: Sequence[Any], calibration: Floats) -> tuple[Tensor, tuple[Step, ...], Tensor]:
        """Return how inputs are stored, the steps, and how outputs are stored."""
        first = tensor_for(calibration, Integer(self.bits.activations[0]))
        steps, end = self._run(layers, _State(first, calibration), "")
        if end.accumulators:
            step, end = self._requantised(end, Integer(self.bits.output), "output")
            steps = (*steps, step)
        return first, steps, end.tensor

    def _run(self, layers: Sequence[Any], state: _State, path: str) -> tuple[tuple[Step, ...], _State]:
        steps: list[Step] = []
        for i, layer in enumerate(layers):
            place = f"{path}{i}"
            before = self._needed(layer, state)
            if before is not None:
                step, state = self._requantised(state, before, f"{place} requantise")
                steps.append(step)
            step, state = self._step(layer, state, place)
            steps.append(step)
        return tuple(steps), state

    def _needed(self, layer: Any, state: _State) -> Integer | None:
        """Return the format to which numbers must be requantised before a layer, if any."""
        signed = not state.nonnegative
        if isinstance(layer, PRODUCTS):
            bits = self.bits.activations[self.products]
            fits = not state.accumulators and state.tensor.format in (Integer(bits), Integer(bits, signed=False))
            return None if fits else Integer(bits, signed=signed)
        if state.accumulators and isinstance(layer, AveragePool2d | Flatten):
            return Integer(self.bits.residual, signed=signed)
        return None

    def _step(self, layer: Any, state: _State, place: str) -> tuple[Step, _State]:
        if isinstance(layer, PRODUCTS):
            return self._product(layer, state, place)
        if isinstance(layer, Residual):
            return self._residual(layer, state, place)
        values = one_forward(layer, state.values)
        common = {"input": state.tensor, "output": state.tensor}
        after = replace(state, values=values)
        if isinstance(layer, ReLU):
            return Rectify(name=f"{place} relu", **common), replace(after, nonnegative=True)
        if isinstance(layer, MaxPool2d):
            return Largest(name=f"{place} max_pool", window=layer.window, **common), after
        if isinstance(layer, AveragePool2d):
            check_sum(state.tensor, layer.window_of(state.values.shape).size, place)
            return Average(name=f"{place} average_pool", pool=layer, **common), after
        return Flat(name=f"{place} flatten", **common), after

    def _product(self, layer: Any, state: _State, place: str) -> tuple[Step, _State]:
        fmt = Integer(self.bits.weights[self.products], symmetric=True)
        self.products += 1
        real = matrix(layer.weight)
        scale = (np.maximum(np.abs(real).max(axis=0), _LEAST_RANGE) / fmt.max).astype(np.float32)
        codes = np.clip(np.rint(real / scale.astype(np.float64)), fmt.min, fmt.max).astype(storage(fmt))
        unit = _product_scale(state.tensor.scale, scale)
        output = Tensor(Integer(self.bits.accumulator), unit)
        bias = np.rint(layer.bias / unit.astype(np.float64))
        if (bias < output.low).any() or (bias > output.high).any():
            raise RangeError(f"layer {place}: a bias is beyond {output.format.name}; give the accumulator more bits.")
        values = one_forward(layer, state.values)
        window = getattr(layer, "window", None)
        step = Product(
            name=f"{place} {'linear' if window is None else 'conv2d'}", input=state.tensor, output=output,
            weight=codes, weight_scale=scale, bias=bias.astype(np.int32), window=window,
        )  # fmt: skip
        return step, _State(output, values, accumulators=True)

    def _residual(self, layer: Residual, state: _State, place: str) -> tuple[Step, _State]:
        main, left = self._run(layer.main, state, f"{place}.main.")
        shortcut, right = self._run(layer.shortcut, state, f"{place}.shortcut.")
        if left.values.shape != right.values.shape:
            shapes = f"{left.values.shape} and {right.values.shape}"
            raise ArgumentError(f"layer {place}: branches of shapes {shapes} do not add.")
        values = left.values + right.values
        output = tensor_for(values, Integer(self.bits.residual))
        step = Add(
            name=f"{place} add", input=state.tensor, output=output, main=main, shortcut=shortcut,
            main_scale=self._dyadic(left.tensor, output), shortcut_scale=self._dyadic(right.tensor, output),
            ends=(left.tensor, right.tensor),
        )  # fmt: skip
        return step, _State(output, values, nonnegative=left.nonnegative and right.nonnegative)

    def _requantised(self, state: _State, fmt: Integer, name: str) -> tuple[Step, _State]:
        output = tensor_for(state.values, fmt)
        step = Requantise(name=name, input=state.tensor, output=output, scale=self._dyadic(state.tensor, output))
        return step, replace(state, tensor=output, accumulators=False)

    def _dyadic(self, source: Tensor, target: Tensor) -> DyadicScale:
        """Return the ratio of two scales, a quotient of float32 numbers in float64 as HAWQ-V3's code has it."""
        return DyadicScale.of(source.scale.astype(np.float64) / target.scale.astype(np.float64), self.bits.scale)


def check_sum(tensor: Tensor, size: tuple[int, int], place: str) -> None:
    """Raise RangeError if the sum of a window of integers may be beyond int32."""
    count = size[0] * size[1]
    if count * max(tensor.high, -tensor.low) >= 1 << 31:
        raise RangeError(f"layer {place}: sums of {count} integers of {tensor.format.name} are beyond int32.")


def tensor_for(values: Floats, fmt: Integer) -> Tensor:
    """Return how numbers are stored in a format: the largest magnitude is the largest integer."""
    largest = max(float(np.abs(values).max(initial=0.0)), _LEAST_RANGE)
    return Tensor(fmt, np.asarray(largest / fmt.max, np.float32))


def _product_scale(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    if x.ndim:
        raise ArgumentError("products take activations of one scale.")
    return (x.astype(np.float64) * weight.astype(np.float64)).astype(np.float32)


def scaled(codes: Floats, scale: NDArray[np.float32]) -> Floats:
    """Return the numbers that integers stand for."""
    return np.asarray(codes * along_channels(scale.astype(np.float64), codes.ndim))
