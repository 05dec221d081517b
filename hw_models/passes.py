"""Passes over memory that convert a tensor: quantizing activations, unpacking weights. Data: `data/passes.csv`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.native import Instructions, Operand, operand
from lowp.hw_models.tables import rows

#: Bytes of a bfloat16 value, which is what passes read or write on their wide side.
WIDE_BYTES = 2


class PassCost(NamedTuple):
    """The time of a pass with its interval, the bytes it moves, and its integer instructions."""

    value: float
    low: float
    high: float
    bytes_moved: float
    instructions: Instructions


def quantize_pass(m: int, k: int, fmt: Any, device: str | Device = "h100") -> Estimate:
    """Predict the time to quantize an `m` by `k` bfloat16 tensor into a format, by itself.

    `gemm` already contains this pass for quantized activations: in its measured start time where the measurements
    include it (fp8 and nvfp4), as this term elsewhere. Do not add it again.

    A format with one scale per row or tensor needs one pass to find the scale and one to cast (2 + 2 + b bytes per
    value); the lower end is a scale known in advance. Block formats need one pass (2 + b bytes per value).

    Args:
        m: Rows.
        k: Columns.
        fmt: The format: a name, a `lowp.formats` format, or an `Operand`.
        device: A device or its name.

    Returns:
        Seconds.

    Raises:
        ArgumentError: A size is not positive, or the device is unknown.
        FormatError: The format is unknown.

    Example:
        >>> quantize_pass(8192, 8192, "fp8", "h100").bound
        'memory'
    """
    m, k = sizes(m=m, k=k)
    machine = find_device(device)
    target = operand(fmt, machine)
    cost = quantize_cost(m * k, target, machine)
    source = _row(machine.architecture)["source"]
    moving = cost.bytes_moved / machine.bandwidth
    instructions = cost.instructions.value / alu_rate(machine)
    launch = cost.value - max(moving, instructions) > max(moving, instructions)
    bound = "launch" if launch else "memory" if moving >= instructions else "convert"
    provenance = f"pass from bfloat16 to {target.name} on {machine.name}, {source}"
    return Estimate(cost.value, cost.low, cost.high, "s", bound, provenance)


@lru_cache(maxsize=4096)
def quantize_cost(values: int, target: Operand, device: Device) -> PassCost:
    """Return the cost of quantizing `values` bfloat16 values into an operand's format."""
    bytes_moved = values * (WIDE_BYTES + target.bytes_per_value)
    cast = _pass(values, bytes_moved, target.pack, device)
    if not target.whole_scale:
        return cast
    scan = _pass(values, values * WIDE_BYTES, Instructions(0.0, 0.0, 0.0), device)
    return PassCost(
        cast.value + scan.value, cast.low, cast.high + scan.high, cast.bytes_moved + scan.bytes_moved, cast.instructions
    )


@lru_cache(maxsize=4096)
def unpack_cost(values: int, source: Operand, device: Device) -> PassCost:
    """Return the cost of unpacking `values` values of an operand's format into bfloat16 in memory."""
    return _pass(values, values * (WIDE_BYTES + source.bytes_per_value), source.unpack, device)


def alu_rate(device: Device) -> float:
    """Return the integer instructions per second of a device."""
    return device.sms * device.alu_lanes * device.clock


def _pass(values: int, bytes_moved: float, per_value: Instructions, device: Device) -> PassCost:
    row = _row(device.architecture)
    rate = alu_rate(device)
    ideal = bytes_moved / device.bandwidth

    def seconds(efficiency: str, launch: str, instructions: float) -> float:
        return float(row[launch]) * 1e-6 + max(ideal / float(row[efficiency]), values * instructions / rate)

    return PassCost(
        value=seconds("efficiency", "launch_us", per_value.value),
        low=seconds("efficiency_high", "launch_low_us", per_value.low),
        high=seconds("efficiency_low", "launch_high_us", per_value.high),
        bytes_moved=bytes_moved,
        instructions=Instructions(values * per_value.value, values * per_value.low, values * per_value.high),
    )


def _row(architecture: str) -> dict[str, str]:
    return next(row for row in rows("passes") if row["architecture"] in (architecture, "*"))
