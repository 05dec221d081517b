"""Passes over memory that convert a tensor: quantizing activations, unpacking weights. Data: `data/passes.csv`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from lowp._errors import ArgumentError
from lowp.formats.spec import check_flag
from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.native import Instructions, Operand, operands
from lowp.hw_models.tables import rows

#: Bytes of a bfloat16 value, which is what passes read or write on their wide side.
WIDE_BYTES = 2


#: Seconds of a rotation (best guess, low, high) where there is none.
_NO_ROTATION = (0.0, 0.0, 0.0)


class PassCost(NamedTuple):
    """The time of a pass with its interval, the bytes it moves, and its integer instructions."""

    value: float
    low: float
    high: float
    bytes_moved: float
    instructions: Instructions


def quantize_pass(
    m: int,
    k: int,
    fmt: Any,
    device: str | Device = "h100",
    *,
    known_scale: bool = False,
    hadamard: int = 1,
) -> Estimate:
    """Predict the time to quantize an `m` by `k` bfloat16 tensor into a format, by itself.

    `gemm` already contains this pass for quantized activations: in its measured time where the measurements
    include it (fp8 and nvfp4), as this term elsewhere. Do not add it again.

    A format with one scale per row or tensor needs one pass to find the scale and one to cast (2 + 2 + b bytes per
    value); the lower end is a scale known in advance. Block formats need one pass (2 + b bytes per value). A Hadamard
    rotation on the way moves no more bytes; it costs `log2(h)` additions per value on the vector unit, or `2 h`
    operations on the matrix unit, whichever is quicker.

    Args:
        m: Rows.
        k: Columns.
        fmt: The format: a name, a `lowp.formats` format, or an `Operand`.
        device: A device or its name.
        known_scale: Whether the scale of a row or tensor is known in advance, so that one pass suffices.
        hadamard: Values that are rotated together, a power of two; 1 for no rotation.

    Returns:
        Seconds.

    Raises:
        ArgumentError: A size is not positive, `hadamard` is no power of two that divides `k`, or the device is unknown.
        FormatError: The format is unknown.

    Example:
        >>> quantize_pass(8192, 8192, "fp8", "h100").bound
        'memory'
    """
    m, k = sizes(m=m, k=k)
    machine = find_device(device)
    (target,) = operands(machine, fmt=fmt)
    check_flag("known_scale", known_scale)
    rotation = _rotation(m * k, k, hadamard, machine)
    cost = quantize_cost(m * k, target, machine, known_scale, rotation)
    source = _row(machine.architecture)["source"]
    moving = cost.bytes_moved / machine.need("bandwidth")
    instructions = cost.instructions.value / alu_rate(machine) + rotation[0]
    launch = cost.value - max(moving, instructions) > max(moving, instructions)
    bound = "launch" if launch else "memory" if moving >= instructions else "convert"
    rotated = f", with a Hadamard rotation of {hadamard} values" if hadamard > 1 else ""
    provenance = f"pass from bfloat16 to {target.name} on {machine.name}{rotated}, {source}"
    return Estimate(cost.value, cost.low, cost.high, "s", bound, provenance)


def dequantize_pass(m: int, k: int, fmt: Any, device: str | Device = "h100") -> Estimate:
    """Predict the time to unpack an `m` by `k` tensor of a format into bfloat16 in memory, by itself.

    Reads the codes with their scales and writes two bytes per value. Weight-only kernels unpack on the way instead;
    `gemm` takes the faster of both.

    Args:
        m: Rows.
        k: Columns.
        fmt: The format: a name, a `lowp.formats` format, or an `Operand`.
        device: A device or its name.

    Returns:
        Seconds. `bound` is "memory", "convert" or "launch".

    Raises:
        ArgumentError: A size is not positive, or the device is unknown.
        FormatError: The format is unknown.

    Example:
        >>> dequantize_pass(8192, 8192, "int4_g128", "a100").bound
        'memory'
    """
    m, k = sizes(m=m, k=k)
    machine = find_device(device)
    (source,) = operands(machine, fmt=fmt)
    cost = unpack_cost(m * k, source, machine)
    moving = cost.bytes_moved / machine.need("bandwidth")
    instructions = cost.instructions.value / alu_rate(machine)
    launch = cost.value - max(moving, instructions) > max(moving, instructions)
    bound = "launch" if launch else "memory" if moving >= instructions else "convert"
    provenance = f"pass from {source.name} to bfloat16 on {machine.name}, {_row(machine.architecture)['source']}"
    return Estimate(cost.value, cost.low, cost.high, "s", bound, provenance)


@lru_cache(maxsize=4096)
def quantize_cost(
    values: int,
    target: Operand,
    device: Device,
    known_scale: bool = False,
    rotation: tuple[float, float, float] = _NO_ROTATION,
) -> PassCost:
    """Return the cost of quantizing `values` bfloat16 values into an operand's format."""
    bytes_moved = values * (WIDE_BYTES + target.bytes_per_value)
    cast = _pass(values, bytes_moved, target.pack, device, rotation)
    if known_scale or not target.whole_scale:
        return cast
    scan = _pass(values, values * WIDE_BYTES, Instructions(0.0, 0.0, 0.0), device)
    return PassCost(
        cast.value + scan.value, cast.low, cast.high + scan.high, cast.bytes_moved + scan.bytes_moved, cast.instructions
    )


@lru_cache(maxsize=4096)
def unpack_cost(values: int, source: Operand, device: Device, width: int = WIDE_BYTES) -> PassCost:
    """Return the cost of unpacking `values` values of an operand's format into `width` bytes each in memory."""
    return _pass(values, values * (width + source.bytes_per_value), source.unpack, device)


def alu_rate(device: Device) -> float:
    """Return the integer instructions per second of a device."""
    return device.need("sms") * device.need("alu_lanes") * device.need("clock")


def _rotation(values: int, k: int, block: int, device: Device) -> tuple[float, float, float]:
    """Return the seconds (best guess, low, high) of rotating blocks of values, without moving them."""
    (block,) = sizes(hadamard=block)
    if block & (block - 1) or k % block:
        raise ArgumentError(f"hadamard={block!r} must be a power of two that divides k={k!r}.")
    if block == 1:
        return _NO_ROTATION
    adds = values * math.log2(block) / alu_rate(device)
    dtype = "bfloat16" if device.has("bfloat16") else "float16"
    products = 2 * values * block / device.peak(dtype)
    # Two additions per instruction at best; a matrix unit that reaches from all to half of its rate.
    return min(adds, products / 0.7), min(adds / 2, products), min(adds * 1.5, products / 0.5)


def _pass(
    values: int,
    bytes_moved: float,
    per_value: Instructions,
    device: Device,
    rotation: tuple[float, float, float] = _NO_ROTATION,
) -> PassCost:
    row = _row(device.architecture)
    rate = alu_rate(device) if per_value.high else 1.0
    ideal = bytes_moved / device.need("bandwidth")

    def seconds(efficiency: str, launch: str, instructions: float, rotating: float) -> float:
        computing = values * instructions / rate + rotating
        return float(row[launch]) * 1e-6 + max(ideal / float(row[efficiency]), computing)

    return PassCost(
        value=seconds("efficiency", "launch_us", per_value.value, rotation[0]),
        low=seconds("efficiency_high", "launch_low_us", per_value.low, rotation[1]),
        high=seconds("efficiency_low", "launch_high_us", per_value.high, rotation[2]),
        bytes_moved=bytes_moved,
        instructions=Instructions(values * per_value.value, values * per_value.low, values * per_value.high),
    )


def _row(architecture: str) -> dict[str, str]:
    return next(row for row in rows("passes") if row["architecture"] in (architecture, "*"))
