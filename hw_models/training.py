"""Steps of training: the backward pass that belongs to a workload, the update of the weights, and what is held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lowp._errors import ArgumentError, unknown_name
from lowp.formats.spec import check_flag
from lowp.hw_models.arguments import sizes
from lowp.hw_models.collectives import all_reduce
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.model_shapes import Shape, model_shape
from lowp.hw_models.model_workloads import workload
from lowp.hw_models.workload import Operation, Workload
from lowp.hw_models.workload_cost import OperationCost, WorkloadCost, workload_cost

#: Bytes of state per weight: copies in float32, moments.
OPTIMIZERS = {"sgd": 4, "momentum": 8, "adam": 12}
#: Products of fused attention backward (five) over forward (two): scores again, and four gradients.
_ATTENTION_BACKWARD = 2.5


def training_workload(work: Workload, recompute: bool = False) -> Workload:
    """Return a forward workload with its backward pass.

    Each product has two of its size in the backward pass (the gradients of both operands), fused attention five for
    its two, an elementwise operation reads and writes twice as much, and an all-reduce occurs once more.

    Args:
        work: A forward pass.
        recompute: Whether the forward pass runs a second time instead of keeping all activations.

    Example:
        >>> forward = Workload("mine", (Operation("matmul", 512, 1024, 256),))
        >>> training_workload(forward).multiply_adds == 3 * forward.multiply_adds
        True
    """
    backward = [op for forward in reversed(work.operations) for op in _backward(forward)]
    again = [replace(op, name=f"recomputed.{op.name}") for op in work.operations if recompute]
    return replace(work, operations=(*work.operations, *again, *backward), phase="train", cache_values=0)


def _backward(op: Operation) -> Iterator[Operation]:
    name = f"backward.{op.name}"
    if op.kind in ("matmul", "convolution"):
        weights = op.role in ("linear", "head")
        values = op.out_values if op.kind == "convolution" else 0
        yield replace(
            op,
            n=op.k,
            k=op.n,
            name=f"{name}.input",
            role="input_gradient" if weights else op.role,
            read=values,
            written=op.left_values if op.kind == "convolution" else 0,
        )
        yield replace(
            op,
            m=op.k,
            n=op.n,
            k=op.m,
            rows=0,
            name=f"{name}.weight" if weights else f"{name}.other",
            role="weight_gradient" if weights else op.role,
            read=op.left_values if op.kind == "convolution" else 0,
        )
    elif op.kind == "attention":
        queries, keys = op.groups * op.m * op.k, op.right_values
        yield replace(
            op,
            name=name,
            pairs=math.ceil(_ATTENTION_BACKWARD * (op.pairs or op.m * op.n)),
            read=3 * queries,
            written=queries + keys,
        )
    elif op.kind == "elementwise":
        yield replace(op, name=name, read=op.left_values + op.out_values, written=op.left_values)
    else:
        yield replace(op, name=name)


@dataclass(frozen=True)
class TrainingStep:
    """What one step of training costs.

    Attributes:
        passes: Forward and backward pass.
        update: Reading gradients and state, writing state and weights.
        exchange: Seconds of summing gradients over data-parallel devices.
        forward: The forward pass, which says what is kept.
        state_bytes: Bytes of optimizer state on one device.
        recompute: Whether the forward pass runs twice.
        data_parallel: Copies of the model.
    """

    passes: WorkloadCost
    update: OperationCost
    exchange: Estimate
    forward: Workload
    state_bytes: float
    recompute: bool
    data_parallel: int

    @cached_property
    def time(self) -> Estimate:
        """Seconds of a step, the exchange of gradients not hidden behind the backward pass."""
        return self.passes.time + self.update.time + self.exchange

    @cached_property
    def energy(self) -> Estimate:
        """Joules of a step on all devices, the exchange of gradients not counted.

        Raises:
            ArgumentError: The data lack the device's power, process or memory.
        """
        devices = self.forward.devices * self.data_parallel
        return self.passes.energy * self.data_parallel + self.update.energy * devices

    @property
    def operations(self) -> tuple[OperationCost, ...]:
        """The cost of each operation of both passes, and of the update."""
        return (*self.passes.operations, self.update)

    def by_operation(self) -> dict[str, Estimate]:
        """Return the seconds of each operation by name."""
        return {**self.passes.by_operation(), "update": self.update.time}

    @cached_property
    def memory(self) -> Estimate:
        """Bytes held on one device: weights, gradients, optimizer state, and what the backward pass needs.

        Kept are the left operands of products, queries, keys and values; with `recompute` a layer's input only, which
        is taken to be the smallest of them.
        """
        passes = self.passes
        stored = passes.formats.stored.bytes_per_value
        held = passes.weight_bytes + self.state_bytes + stored * _weights(self.forward)
        kept = stored * _kept(self.forward, self.recompute)
        value = held + kept
        bound = "activations" if kept > held else "weights"
        provenance = "weights, gradients, state and kept activations counted; upper end 1.3 times the activations"
        return Estimate(value, held, value + 0.3 * kept, "B", bound, provenance)

    @property
    def fits(self) -> bool:
        """Whether the device's memory holds it."""
        return self.memory.value <= self.passes.device.need("capacity")

    @property
    def tokens_per_second(self) -> Estimate:
        """Tokens (of images: images) per second, of all copies."""
        tokens, time = self.forward.tokens * self.data_parallel, self.time
        return Estimate(
            tokens / time.value, tokens / time.high, tokens / time.low, "tokens/s", time.bound, time.provenance
        )

    @property
    def utilization(self) -> float:
        """Useful operations (forward three times) over the peak rate of the dtype stored activations have."""
        device, stored = self.passes.device, self.passes.formats.stored
        return 6 * self.forward.multiply_adds / self.time.value / device.peak(stored.compute or "bfloat16")

    def describe(self) -> str:
        """Return the costs as text."""
        lines = [f"step {self.time}", f"memory {self.memory}", f"throughput {self.tokens_per_second}"]
        return "\n".join([*lines, f"utilization {self.utilization:.1%}", self.passes.describe()])


def _weights(work: Workload) -> int:
    return work.weight_values + work.head_values + work.other_values


def _kept(work: Workload, recompute: bool) -> int:
    products = [op for op in work if op.is_product]
    if recompute:
        layers = max(op.count for op in products)
        smallest = min(op.left_values for op in products if op.count == layers)
        return layers * smallest + max(op.left_values + op.out_values for op in products)
    keys = sum(op.count * op.right_values for op in products if op.kind == "attention")
    return keys + sum(op.count * op.left_values for op in products)


def training_step(
    model: str | Shape | Workload,
    *,
    weights: Any = None,
    activations: Any = None,
    gradients: Any = None,
    device: str | Device = "h100",
    batch: int = 1,
    context: int | None = None,
    tensor_parallel: int = 1,
    data_parallel: int = 1,
    optimizer: str = "adam",
    recompute: bool = False,
    stack: str = "",
) -> TrainingStep:
    """Predict time, energy and memory of one step of training.

    Args:
        model: A name of `models()`, a shape, or the forward workload of any program (`trace`); then leave out `batch`,
            `context` and `tensor_parallel`.
        weights: Format of weights in products; default bfloat16, as for all others.
        activations: Format of activations in products, forward and for the gradients of weights.
        gradients: Format of the gradients that products read.
        device: A device or its name.
        batch: Sequences, or images, per copy of the model.
        context: Tokens per sequence; default 2048.
        tensor_parallel: Devices that share each layer.
        data_parallel: Copies of the model, which sum their gradients once per step over the same kind of link.
        optimizer: "sgd" (float32 weights), "momentum" (and one moment) or "adam" (two).
        recompute: Whether the forward pass runs twice, to keep less.
        stack: Software, as `gemm`.

    Raises:
        ArgumentError: An unknown name, a size below 1, or data that this needs are missing.
        FormatError: A format is unknown.

    Example:
        >>> wide = training_step("llama-2-7b", batch=1, context=4096)
        >>> fp8 = training_step("llama-2-7b", batch=1, context=4096, weights="fp8", activations="fp8", gradients="e5m2")
        >>> fp8.time.value < wide.time.value
        True
    """
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(unknown_name("optimizer", optimizer, OPTIMIZERS))
    check_flag("recompute", recompute)
    machine = find_device(device)
    (data_parallel,) = sizes(data_parallel=data_parallel)
    if isinstance(model, Workload):
        if batch != 1 or context is not None or tensor_parallel != 1:
            raise ArgumentError(
                f"batch={batch!r}, context={context!r}, tensor_parallel={tensor_parallel!r} of model={model.name!r}, a "
                "workload that has its sizes; leave them out."
            )
        forward = model
    else:
        forward = _forward(model, batch, context, tensor_parallel)
    passes = workload_cost(
        training_workload(forward, recompute),
        weights=weights,
        activations=activations,
        gradients=gradients,
        device=machine,
        stack=stack,
    )
    count, stored = _weights(forward), passes.formats.stored.bytes_per_value
    if count < 1:
        raise ArgumentError(f"model={forward.name!r} has no weights to train.")
    state = OPTIMIZERS[optimizer] * count
    # In units of stored values: read gradient and state, write state and weight.
    update = Operation(
        "elementwise",
        count,
        1,
        name="update",
        role="other",
        read=math.ceil(count * (1 + OPTIMIZERS[optimizer] / stored)),
        written=math.ceil(count * (1 + OPTIMIZERS[optimizer] / stored)),
    )
    cost = workload_cost(Workload("update", (update,)), device=machine).operations[0]
    exchange = all_reduce(math.ceil(count * stored), data_parallel, machine)
    return TrainingStep(passes, cost, exchange, forward, state, recompute, data_parallel)


def _forward(model: str | Shape, batch: int, context: int | None, tensor_parallel: int) -> Workload:
    shape = model_shape(model)
    phase = "prefill" if shape.architecture == "decoder" else "forward"
    work = workload(shape, phase=phase, batch=batch, context=context, tensor_parallel=tensor_parallel)
    if shape.architecture != "decoder":
        return work
    # Unlike in serving, the last layer sees every token.
    ops = (replace(op, m=work.tokens) if op.role == "head" else op for op in work.operations)
    return replace(work, operations=tuple(ops), cache_values=0)
