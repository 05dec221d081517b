"""The time and energy of one operation in given formats. Data: `data/attention.csv`, `data/launches.csv`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

from lowp._errors import ArgumentError
from lowp.hw_models.collectives import all_reduce
from lowp.hw_models.devices import Device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.gemm import Plan, plan
from lowp.hw_models.native import WIDE, Instructions, Operand, operands
from lowp.hw_models.passes import alu_rate
from lowp.hw_models.tables import rows
from lowp.hw_models.workload import Operation

#: Query rows that one read of keys and values serves in fused attention.
_QUERY_TILE = 128


@dataclass(frozen=True)
class Formats:
    """The formats a workload runs in, described for one device.

    Attributes:
        activations: Left operands of products with weights; quantizing them is part of the product.
        weights: Weights of all products but the last layer's.
        cache: Keys and values.
        head: Weights of the last layer.
        stored: What products and everything else leave in memory: bfloat16, or float16 where there is none.
        gradients: Left operands of backward products.
    """

    activations: Operand
    weights: Operand
    cache: Operand
    head: Operand
    stored: Operand
    gradients: Operand

    @classmethod
    def on(
        cls,
        device: Device,
        activations: Any = "bfloat16",
        weights: Any = "bfloat16",
        cache: Any = None,
        head: Any = None,
        gradients: Any = None,
    ) -> Formats:
        """Describe formats on a device; `None` is what tensors are stored in."""
        stored = "bfloat16" if device.has("bfloat16") or not device.has("float16") else "float16"
        given = {"activations": activations, "weights": weights, "kv_cache": cache, "head": head}
        given |= {"stored": stored, "gradients": gradients}
        return cls(*operands(device, **{name: stored if fmt is None else fmt for name, fmt in given.items()}))


def operation_plan(op: Operation, formats: Formats, device: Device, devices: int = 1, stack: str = "") -> Plan:
    """Return how a device carries out one run of an operation.

    Args:
        op: The operation.
        formats: The formats.
        device: The machine.
        devices: Devices that an all-reduce sums over.
        stack: Software, as `gemm`; "pytorch" launches every operation from Python.

    Raises:
        ArgumentError: A figure that this needs is missing in the data, or as `gemm`.
    """
    return _operation_plan(op, formats, device, devices, stack)


@lru_cache(maxsize=16384)
def _operation_plan(op: Operation, formats: Formats, device: Device, devices: int, stack: str) -> Plan:
    if op.kind in ("matmul", "convolution"):
        left, right = _operands(op, formats)
        done = plan(
            op.m,
            op.n,
            op.k,
            left,
            right,
            formats.stored,
            device,
            groups=op.groups,
            stack=stack,
            left_values=op.left_values,
            out_values=op.out_values,
        )
        return replace(done, multiply_adds=op.multiply_adds)
    if op.kind == "attention":
        return _attention(op, formats, device)
    if op.kind == "all_reduce":
        nbytes = math.ceil(op.m * op.n * formats.stored.bytes_per_value)
        time = all_reduce(nbytes, devices, device)
        return Plan(
            time, "all_reduce", "", 0, 0.0, Instructions(0.0, 0.0, 0.0), sent=2 * nbytes * (devices - 1) / devices
        )
    return _elementwise(op, formats, device, stack)


def _operands(op: Operation, formats: Formats) -> tuple[Operand, Operand]:
    if op.role == "linear":
        return formats.activations, formats.weights
    if op.role == "head":
        return formats.stored, formats.head
    if op.role == "attention":
        return formats.stored, formats.cache
    if op.role == "input_gradient":
        return formats.gradients, formats.weights
    if op.role == "weight_gradient":
        return formats.activations, formats.gradients
    return formats.stored, formats.stored


def _attention(op: Operation, formats: Formats, device: Device) -> Plan:
    """Fused attention: reads queries, keys and values once and writes as many values as there are queries."""
    compute = _attention_dtype(formats, device)
    row = _attention_row(device.architecture, compute)
    moved = formats.stored.bytes_per_value * (op.left_values + op.out_values)
    moved += formats.cache.bytes_per_value * op.right_values
    ideal_compute = 2 * op.multiply_adds / device.peak(compute)
    ideal_memory = moved / device.need("bandwidth")
    unpack = Instructions(0.0, 0.0, 0.0) if formats.cache.compute == compute else formats.cache.unpack
    unpacked = op.right_values * math.ceil(op.m / _QUERY_TILE)
    rate = alu_rate(device) if unpack.high else math.inf

    def seconds(efficiency: str, memory: str, start: str, instructions: float) -> tuple[float, float, float, float]:
        return (
            float(row[start]) * 1e-6,
            ideal_compute / float(row[efficiency]),
            ideal_memory / float(row[memory]),
            unpacked * instructions / rate,
        )

    launch, *terms = seconds("efficiency", "memory", "start_us", unpack.value)
    fast, *fastest = seconds("efficiency_high", "memory_high", "start_low_us", unpack.low)
    slow, *slowest = seconds("efficiency_low", "memory_low", "start_high_us", unpack.high)
    longest = max(terms)
    bound = "launch" if launch > longest else ("compute", "memory", "convert")[terms.index(longest)]
    time = Estimate(
        launch + longest,
        fast + max(fastest),
        slow + max(slowest),
        "s",
        bound,
        f"fused attention in {compute}, keys and values in {formats.cache.name}, {row['source']}",
    )
    spent = Instructions(*(unpacked * x for x in (unpack.value, unpack.low, unpack.high)))
    return Plan(time, "attention", compute, op.multiply_adds, moved, spent)


def _attention_dtype(formats: Formats, device: Device) -> str:
    """fp8 where queries, keys and values all are; else the cheapest dtype that holds keys and values."""
    both = (formats.activations, formats.cache)
    if all(o.compute == "fp8" and o.kernel == "fp8" for o in both):
        return "fp8"
    dtype = next((d for d in formats.stored.wide if d in formats.cache.wide), None)
    if dtype is None:
        listed = ", ".join(repr(d) for d in WIDE if device.has(d))
        raise ArgumentError(
            f"device={device.name!r} has no dtype that holds kv_cache={formats.cache.name!r}; it has {listed}."
        )
    return dtype


@cache
def _attention_row(architecture: str, compute: str) -> dict[str, str]:
    for row in rows("attention"):
        if row["compute"] in (compute, "*") and (
            row["architecture"] == "*" or re.fullmatch(row["architecture"], architecture)
        ):
            return row
    raise AssertionError("the last row stands for all")


def _elementwise(op: Operation, formats: Formats, device: Device, stack: str) -> Plan:
    row = _launch_row(stack, device, op.name.rsplit(".", 1)[-1])
    moved = formats.stored.bytes_per_value * (op.left_values + op.out_values)
    ideal = moved / device.need("bandwidth")
    value, low, high = (
        float(row[start]) * 1e-6 + ideal / float(row[efficiency])
        for start, efficiency in (
            ("start_us", "efficiency"),
            ("start_low_us", "efficiency_high"),
            ("start_high_us", "efficiency_low"),
        )
    )
    bound = "launch" if ideal < value / 2 else "memory"
    time = Estimate(value, low, high, "s", bound, f"pass over memory on {device.name}, {row['source']}")
    return Plan(time, "elementwise", "", 0, moved, Instructions(0.0, 0.0, 0.0))


@cache
def _launch_row(stack: str, device: Device, name: str) -> dict[str, str]:
    """Return launch time and share of the bandwidth of an elementwise operation."""
    launched = "pytorch" if stack.lower().startswith("pytorch") else "serving"
    kind = name if name in ("softmax", "norm") else "activation"
    for row in rows("launches"):
        if row["stack"] == launched and row["device"] in (device.name, "*") and row["operation"] in (kind, "*"):
            return row
    raise ArgumentError(f"stack={stack!r}: no launch time of {kind!r} on device={device.name!r} in data/launches.csv.")
