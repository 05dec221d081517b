"""What a workload costs on a machine, operation by operation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.energy import plan_energy
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.gemm import Plan
from lowp.hw_models.operation_cost import Formats, operation_plan
from lowp.hw_models.workload import Operation, Workload

#: Bytes that a serving process holds beside weights, cache and activations.
_RUNTIME_BYTES = 3.5 * 2**30
_RUNTIME_SOURCE = "run-time memory up to 3.5 GiB, AIConfigurator system YAML @095f58a"


@dataclass(frozen=True)
class OperationCost:
    """All runs of one operation.

    Attributes:
        operation: What runs.
        plan: How one run is carried out.
        device: The machine.
    """

    operation: Operation
    plan: Plan
    device: Device

    @cached_property
    def time(self) -> Estimate:
        """Seconds of all runs."""
        return self.plan.time * self.operation.count

    @cached_property
    def energy(self) -> Estimate:
        """Joules of all runs, on one device."""
        return plan_energy(self.plan, self.device) * self.operation.count

    @property
    def bytes_moved(self) -> float:
        """Bytes of all runs to and from memory."""
        return self.plan.bytes_moved * self.operation.count


@dataclass(frozen=True)
class WorkloadCost:
    """What a workload costs.

    Attributes:
        workload: The operations.
        operations: The cost of each, in order.
        formats: The formats, described for the device.
        device: The machine; all figures but `energy` are of one of them.
    """

    workload: Workload
    operations: tuple[OperationCost, ...]
    formats: Formats
    device: Device

    @cached_property
    def time(self) -> Estimate:
        """Seconds of all operations, one after the other."""
        return reduce(add, (cost.time for cost in self.operations))

    @cached_property
    def energy(self) -> Estimate:
        """Joules of all operations on all devices.

        Raises:
            ArgumentError: The data lack the device's power, process or memory.
        """
        return reduce(add, (cost.energy for cost in self.operations)) * self.workload.devices

    @property
    def weight_bytes(self) -> float:
        """Bytes of all weights on one device, scales included."""
        work, formats = self.workload, self.formats
        return (
            work.weight_values * formats.weights.bytes_per_value
            + work.head_values * formats.head.bytes_per_value
            + work.other_values * formats.stored.bytes_per_value
        )

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values on one device, scales included."""
        return self.workload.cache_values * self.formats.cache.bytes_per_value

    @property
    def activation_bytes(self) -> float:
        """Bytes of the operands and result of the operation that has the most of them."""
        most = max((op.left_values + op.out_values for op in self.workload if op.kind != "all_reduce"), default=0)
        return most * self.formats.stored.bytes_per_value

    @cached_property
    def memory(self) -> Estimate:
        """Bytes held on one device: weights, keys and values, and the largest operation's activations."""
        value = self.weight_bytes + self.kv_bytes + self.activation_bytes
        parts = {
            "weights": self.weight_bytes,
            "cache": self.kv_bytes,
            "activations": self.activation_bytes,
        }
        bound = max(parts, key=lambda name: parts[name])
        provenance = f"weights, cache and activations counted; {_RUNTIME_SOURCE}"
        low = self.weight_bytes + self.kv_bytes
        return Estimate(value, low, value + _RUNTIME_BYTES, "B", bound, provenance)

    @property
    def fits(self) -> bool:
        """Whether the device's memory holds it, run-time memory not counted."""
        return self.memory.value <= self.device.need("capacity")

    def by_operation(self) -> dict[str, Estimate]:
        """Return the seconds of each operation by name; operations of one name are added."""
        return self._by(lambda cost: cost.operation.name)

    def by_kind(self) -> dict[str, Estimate]:
        """Return the seconds of each kind of operation."""
        return self._by(lambda cost: cost.operation.kind)

    def _by(self, key: Any) -> dict[str, Estimate]:
        found: dict[str, Estimate] = {}
        for cost in self.operations:
            name = key(cost)
            found[name] = found[name] + cost.time if name in found else cost.time
        return found

    def describe(self) -> str:
        """Return the costs as a table in text."""
        work = self.workload
        lines = [
            f"{work.name}, {work.phase}, on {work.devices} x {self.device.title}"
            if work.devices > 1
            else f"{work.name}, {work.phase}, on {self.device.title}",
            f"  time {self.time}",
            f"  memory {self.memory}{'' if self.fits else ', more than the device has'}",
        ]
        for name, time in self.by_operation().items():
            lines.append(f"  {time.value / self.time.value:6.1%}  {name or '-'}: {time}")
        return "\n".join(lines)


def workload_cost(
    work: Workload,
    *,
    weights: Any = None,
    activations: Any = None,
    kv_cache: Any = None,
    head: Any = None,
    gradients: Any = None,
    device: str | Device = "h100",
    stack: str = "",
) -> WorkloadCost:
    """Predict what a workload costs with its tensors in given formats.

    Args:
        work: The operations: of `workload`, `trace`, or made by hand.
        weights: Format of the weights; default bfloat16 (float16 on devices without it), as for all others.
        activations: Format of the left operands of products with weights, quantized from bfloat16 as part of them.
        kv_cache: Format of keys and values.
        head: Format of the last layer's weights.
        gradients: Format of the left operands of backward products.
        device: A device or its name.
        stack: Software, as `gemm`; "pytorch" launches every operation from Python.

    Raises:
        ArgumentError: The workload is empty, the device is unknown, or data that this needs are missing.
        FormatError: A format is unknown.

    Example:
        >>> from lowp.hw_models.model_workloads import workload
        >>> work = workload("resnet-50", batch=32)
        >>> workload_cost(work, weights="int8_row", activations="int8_row", device="a100").time.unit
        's'
    """
    machine = find_device(device)
    if not isinstance(work, Workload):
        raise ArgumentTypeError(f"work={work!r} must be a Workload, not {type(work).__name__}.")
    if not work.operations:
        raise ArgumentError(f"work={work.name!r} has no operations.")
    formats = Formats.on(machine, activations, weights, kv_cache, head, gradients)
    costs = tuple(OperationCost(op, operation_plan(op, formats, machine, work.devices, stack), machine) for op in work)
    return WorkloadCost(work, costs, formats, machine)
