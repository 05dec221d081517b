"""Integer-only inference with dyadic scales, as HAWQ-V3 has it, and its emulation in floating point, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, RangeError
from lowp.emulation._dyadic_scale import DyadicScale, check_width, integer_rounding
from lowp.emulation._integer_bounds import AccumulatorBound, bound_of
from lowp.emulation._integer_layers import (
    AveragePool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    folded,
    forward,
)
from lowp.emulation._integer_plan import Bits, Planner, count_products, scaled
from lowp.emulation._integer_steps import Product, Step, all_steps
from lowp.emulation._integer_worlds import EmulatedWorld, FakeQuantisedWorld, IntegerWorld, World
from lowp.emulation.accumulator import Accumulator
from lowp.formats.integer import Integer
from lowp.rounding import verbs

__all__ = [
    "AccumulatorBound",
    "AveragePool2d",
    "BatchNorm",
    "Conv2d",
    "DyadicScale",
    "Flatten",
    "IntegerNetwork",
    "Linear",
    "MaxPool2d",
    "NetworkCheck",
    "ReLU",
    "Residual",
    "StepCheck",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StepCheck:
    """What one step gave in the three executions. True if they gave the same integers.

    Args:
        name: Of the step.
        dtype: Of the integers.
        count: How many integers there are.
        least: The least integer.
        largest: The largest one.
        emulated_differ: How many differ in the emulation.
        fake_differ: How many differ in fake quantisation.
    """

    name: str
    dtype: str
    count: int
    least: int
    largest: int
    emulated_differ: int
    fake_differ: int

    def __bool__(self) -> bool:
        return not (self.emulated_differ or self.fake_differ)


@dataclass(frozen=True, kw_only=True)
class NetworkCheck:
    """Whether integers, emulation and fake quantisation agree. True if every integer of every step does.

    Args:
        steps: What each step gave.
        output: The integers that came out.
        bounds: For each product, which sums its accumulator can meet.
    """

    steps: tuple[StepCheck, ...]
    output: NDArray[Any]
    bounds: tuple[AccumulatorBound, ...]

    def __bool__(self) -> bool:
        return all(self.steps)

    def __str__(self) -> str:
        """Return the steps as a table."""
        width = max(len(s.name) for s in self.steps)
        lines = [f"{'step':{width}}  dtype   integers  least..largest, of which differ: emulated, fake quantised"]
        for s in self.steps:
            seen = f"{s.least}..{s.largest}"
            lines.append(f"{s.name:{width}}  {s.dtype:6}{s.count:10}  {seen:24} {s.emulated_differ}, {s.fake_differ}")
        return "\n".join(lines)


class IntegerNetwork:
    """A small network that runs on integers alone: weights, activations, accumulators and scales.

    As in HAWQ-V3: weights are symmetric with a scale for each output channel, activations have one scale, and are
    unsigned without zero points after a ReLU; batch normalisation is folded into weights; biases have the scale of the
    accumulator; wherever numbers go to another scale, they are multiplied by a dyadic number b / 2^c and rounded once
    (`DyadicScale.apply`); the branches of a residual sum have dyadic numbers of their own, straight from the
    accumulators where the branch ends in a product, and their sum is kept in 16 bits; an average is an integer sum
    divided by the count and truncated. Every scale is set by the calibration batch, whose largest magnitude becomes the
    largest integer. What is beyond the range of a stored tensor saturates, sums of residuals too (HAWQ-V3's code does
    not clamp those); accumulators wrap around. Logits are requantised to one scale, so that they can be compared.

    Args:
        layers: Layers of this module, with weights as arrays.
        calibration: Real inputs, (N, C, H, W) or (N, inputs).
        weight_bits: 2 to 8, or one for each Conv2d and Linear, branches in the order main, shortcut.
        activation_bits: 2 to 8, of the inputs of products, likewise. The network's inputs have those of the first one.
        residual_bits: Bits of residual sums, 2 to 16, and of what is averaged.
        output_bits: Bits of the logits, 2 to 32.
        accumulator_bits: Bits of accumulators, 8 to 32.
        scale_bits: Bits of b, 1 to 31.
        rounding: Deterministic rounding mode of every requantisation.
        average_rounding: The same for averages.

    Raises:
        ArgumentError: Layers that do not fit, or widths that are not allowed.
        RangeError: A bias that the accumulator does not hold.

    Source:
        Z. Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", ICML 2021, arXiv 2011.10680.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(64, 4))
        >>> w = np.random.default_rng(1).normal(size=(2, 3, 4))
        >>> net = IntegerNetwork([Linear(w[0]), ReLU(), Linear(w[1][:, :3])], x)
        >>> codes = net.encode(x)
        >>> codes.dtype, net.run_integers(codes).dtype
        (dtype('int8'), dtype('int16'))
        >>> bool(np.array_equal(net.run_emulated(x), net.decode(net.run_integers(codes)))), bool(net.check(x))
        (True, True)
        >>> [(b.name, b.needed, bool(b)) for b in net.bounds()]
        [('0 linear', 17, True), ('2 linear', 17, True)]
    """

    def __init__(
        self,
        layers: Sequence[Any],
        calibration: ArrayLike,
        *,
        weight_bits: int | Sequence[int] = 8,
        activation_bits: int | Sequence[int] = 8,
        residual_bits: int = 16,
        output_bits: int = 16,
        accumulator_bits: int = 32,
        scale_bits: int = 31,
        rounding: str = "ties_to_even",
        average_rounding: str = "toward_zero",
    ) -> None:
        self.layers = folded(layers)
        count = count_products(self.layers)
        if not count:
            raise ArgumentError("layers holds no Conv2d or Linear.")
        bits = Bits(
            weights=_widths("weight_bits", weight_bits, count),
            activations=_widths("activation_bits", activation_bits, count),
            residual=check_width("residual_bits", residual_bits, 2, 16),
            output=check_width("output_bits", output_bits, 2, 32),
            accumulator=check_width("accumulator_bits", accumulator_bits, 8, 32),
            scale=check_width("scale_bits", scale_bits, 1, 31),
        )
        self.rounding, self.average_rounding = integer_rounding(rounding), integer_rounding(average_rounding)
        self.accumulator = Accumulator(format=Integer(bits.accumulator), overflow="wrap")
        self.input, self.steps, self.output = Planner(bits).plan(self.layers, _real(calibration, "calibration"))

    @classmethod
    def of_torch(cls, module: Any, calibration: Any, **options: Any) -> IntegerNetwork:
        """Return the network of a torch module in evaluation mode.

        Its graph, as `torch.fx` traces it, holds Conv2d (no groups, no dilation), Linear, BatchNorm, ReLU, MaxPool2d,
        AvgPool2d, AdaptiveAvgPool2d(1), Flatten, Dropout, Identity, and sums of two branches of one tensor.

        Args:
            module: A `torch.nn.Module`.
            calibration: Inputs, a tensor or an array.
            **options: As for `IntegerNetwork`.

        Raises:
            ArgumentError: The module is training, or holds something else.
        """
        from lowp.emulation._torch_integer_network import layers_of

        return cls(layers_of(module), np.asarray(calibration, np.float64), **options)

    def encode(self, x: ArrayLike) -> NDArray[Any]:
        """Return real inputs as integers, `rint(x / scale)`, saturated."""
        return self._values(x).astype(self.input.dtype)

    def decode(self, codes: ArrayLike) -> Floats:
        """Return the real outputs that integers stand for."""
        return scaled(np.asarray(codes, np.float64), self.output.scale)

    def run_integers(self, codes: ArrayLike, watch: Callable[[str, NDArray[Any]], None] | None = None) -> NDArray[Any]:
        """Return the outputs as integers, computed with integers alone.

        Args:
            codes: Integers of `encode`.
            watch: Gets the name of every step and the integers that it gives.

        Raises:
            ArgumentTypeError: Inputs that are not of an integer dtype.
            RangeError: Integers beyond the input's format.
        """
        x = np.asanyarray(codes)
        if x.dtype.kind not in "iu":
            raise ArgumentTypeError(f"codes must be integers, not of dtype {x.dtype}; encode real numbers first.")
        if x.size and (x.min() < self.input.low or x.max() > self.input.high):
            raise RangeError(f"codes must lie in {self.input.low}..{self.input.high}.")
        return self._run(IntegerWorld(self.rounding, self.average_rounding), x.astype(self.input.dtype), watch)

    def run_emulated(self, x: ArrayLike, *, accumulator: Accumulator | None = None) -> Floats:
        """Return the real outputs of the emulation: products by `lowp.matmul`, roundings by `lowp.quantize`.

        Args:
            x: Real inputs.
            accumulator: Another accumulator for the products; None: integers that wrap, as wide as the network's.
        """
        return self.decode(self._run(self._emulated(accumulator), self._values(x), None))

    def run_fake_quantised(self, x: ArrayLike) -> Floats:
        """Return the real outputs of fake quantisation: float64 products of integers times their scales.

        Integers are recovered where a step rounds. That is exact while `(terms + 5) * sum(|x| * |w|)`, in integers, is
        below 2^52. There is no accumulator that could overflow.
        """
        world = FakeQuantisedWorld(self._emulated(None))
        return self._run(world, scaled(self._values(x), self.input.scale), None)

    def run_float(self, x: ArrayLike) -> Floats:
        """Return what the layers compute in float64 before any quantisation."""
        return forward(self.layers, _real(x, "x"))

    def check(self, x: ArrayLike) -> NetworkCheck:
        """Return whether the three executions give the same integers at every step, for real inputs.

        Example:
            >>> import numpy as np
            >>> x = np.linspace(-1, 1, 6).reshape(3, 2)
            >>> print(IntegerNetwork([Linear([[0.5, -0.25]])], x).check(x))
            step      dtype   integers  least..largest, of which differ: emulated, fake quantised
            0 linear  int32          3  -11265..1524             0, 0
            output    int16          3  -32694..4423             0, 0
        """
        values, emulated = self._values(x), self._emulated(None)
        integers = self._integers_of(IntegerWorld(self.rounding, self.average_rounding), self.encode(x))
        others = (
            self._integers_of(emulated, values),
            self._integers_of(FakeQuantisedWorld(emulated), scaled(values, self.input.scale)),
        )
        found = zip(all_steps(self.steps), integers, *others, strict=True)
        return NetworkCheck(steps=tuple(_step_check(*f) for f in found), output=integers[-1], bounds=self.bounds())

    def bounds(self) -> tuple[AccumulatorBound, ...]:
        """Return, for each product, which sums its accumulator can meet with any activations."""
        return tuple(bound_of(s, self.accumulator) for s in all_steps(self.steps) if isinstance(s, Product))

    def _values(self, x: ArrayLike) -> Floats:
        scale = float(self.input.scale)
        return np.asarray(verbs.quantize(_real(x, "x") / scale, self.input.format, overflow="saturate"), np.float64)

    def _emulated(self, accumulator: Accumulator | None) -> EmulatedWorld:
        return EmulatedWorld(self.rounding, self.average_rounding, accumulator or self.accumulator)

    def _integers_of(self, world: World, x: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the integers that every step gives."""
        seen: list[NDArray[Any]] = []
        self._run(world, x, lambda _, codes: seen.append(codes))
        return seen

    def _run(self, world: World, x: NDArray[Any], watch: Callable[[str, NDArray[Any]], None] | None) -> NDArray[Any]:
        def seen(step: Step, codes: NDArray[Any]) -> None:
            if watch is not None:
                watch(step.name, codes)

        return world.run(self.steps, x, seen)


def _step_check(step: Step, codes: NDArray[Any], emulated: NDArray[Any], fake: NDArray[Any]) -> StepCheck:
    return StepCheck(
        name=step.name, dtype=codes.dtype.name, count=codes.size,
        least=int(codes.min()), largest=int(codes.max()),
        emulated_differ=int((codes != emulated).sum()), fake_differ=int((codes != fake).sum()),
    )  # fmt: skip


def _real(x: ArrayLike, name: str) -> Floats:
    values = np.asarray(x, np.float64)
    if values.ndim not in (2, 4) or not values.size or not np.isfinite(values).all():
        shape = f"(N, C, H, W) or (N, inputs), not {values.shape}"
        raise ArgumentError(f"{name} must be finite and not empty, of shape {shape}.")
    return values


def _widths(name: str, value: Any, count: int) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * count
    if len(given) != count:
        raise ArgumentError(f"{name}={value!r} must hold {count} widths, one for each Conv2d and Linear.")
    return tuple(check_width(name, v, 2, 8) for v in given)
