"""The energy of a matrix product on a GPU: multiplying, moving, converting, and waiting. Data: `data/energy.csv`.

Published energies per operation disagree by factors, so every term has an interval and its midpoint as value.
Trust ratios between formats on one device more than the joules.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from lowp._errors import ArgumentError
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.gemm import Plan, plan
from lowp.hw_models.tables import rows

_PICO = 1e-12


def gemm_energy(
    m: int, n: int, k: int, a: Any, b: Any, out: Any = "bfloat16", device: str | Device = "h100"
) -> Estimate:
    """Predict the energy of `out[m, n] = a[m, k] @ b[k, n]`, from bfloat16 activations in memory.

    The sum of multiply-adds (lower end: arithmetic and instruction overhead; upper end: TDP over the peak rate), bytes
    to and from memory, instructions of conversions, and static power over the predicted time; never more than TDP
    times that time.

    Args:
        m: Rows of the activations (tokens).
        n: Columns of the weights.
        k: Depth.
        a: Format of the activations: a name, a `lowp.formats` format, or an `Operand`.
        b: Format of the weights.
        out: Format of the result.
        device: A device or its name.

    Returns:
        Joules. `bound` is the largest term: "compute", "memory", "convert" or "static".

    Raises:
        ArgumentError: As `gemm`.
        FormatError: A format is unknown.

    Example:
        >>> wide = gemm_energy(4096, 4096, 4096, "bfloat16", "bfloat16", device="h100")
        >>> narrow = gemm_energy(4096, 4096, 4096, "fp8", "fp8", device="h100")
        >>> narrow.value < wide.value
        True
    """
    machine = find_device(device)
    return plan_energy(plan(m, n, k, a, b, out, machine), machine)


def multiply_add_energy(dtype: str, device: str | Device) -> tuple[float, float]:
    """Return the lower and upper energy of one multiply-add on the matrix unit, in joules.

    Raises:
        ArgumentError: The device lists no rate for this dtype.
    """
    machine = find_device(device)
    overhead, node = _range("tensor_core_overhead", "*")[0], _range("node_scale", machine.process)[0]
    arithmetic = _range("multiply", dtype)[0] + _range("accumulate", dtype)[0]
    upper = 2 * machine.need("tdp") / machine.peak(dtype)
    return min(arithmetic * _PICO * node * (1 + overhead), upper), upper


def plan_energy(done: Plan, device: Device) -> Estimate:
    """Return the energy of an operation from how it is carried out.

    Raises:
        ArgumentError: The data lack the device's power, process or memory, or a coefficient.
    """
    tdp = device.need("tdp")
    rates = multiply_add_energy(done.compute, device) if done.multiply_adds else (0.0, 0.0)
    multiply = _scaled(rates, done.multiply_adds)
    memory = _scaled(_range("memory", device.memory_kind), done.bytes_moved * 8 * _PICO)
    terms = {
        "compute": multiply,
        "memory": memory,
        "convert": _convert(done, device),
        "static": _static(done, device),
        "link": _scaled(_range("link", "*"), done.sent * 8 * _PICO),
    }
    low, value, high = (sum(term[i] for term in terms.values()) for i in range(3))
    value = max(low, min(value, tdp * done.time.value))
    high = max(value, min(high, tdp * done.time.high))
    bound = max(terms, key=lambda name: terms[name][1])
    provenance = f"energy per operation and byte, TDP as upper end; {done.time.provenance}"
    return Estimate(value, low, high, "J", bound, provenance)


def _scaled(interval: tuple[float, float], factor: float) -> tuple[float, float, float]:
    """Return low, midpoint and high of an interval times a factor."""
    low, high = interval
    return low * factor, (low + high) / 2 * factor, high * factor


def _convert(done: Plan, device: Device) -> tuple[float, float, float]:
    per_instruction = _scaled(_range("alu_instruction", "*"), _PICO)
    node = _scaled(_range("node_scale", device.process), 1.0)
    counts = (done.instructions.low, done.instructions.value, done.instructions.high)
    low, value, high = (c * e * s for c, e, s in zip(counts, per_instruction, node, strict=True))
    return low, value, high


def _static(done: Plan, device: Device) -> tuple[float, float, float]:
    low, value, high = _scaled(_range("static_power", "*"), device.need("tdp"))
    return low * done.time.low, value * done.time.value, high * done.time.high


@cache
def _range(quantity: str, key: str) -> tuple[float, float]:
    for row in rows("energy"):
        if (row["quantity"], row["key"]) == (quantity, key):
            return float(row["low"]), float(row["high"])
    raise ArgumentError(f"{quantity}={key!r} of this device has no energy coefficient in data/energy.csv.")
