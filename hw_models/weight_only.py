"""What packed weights promise at most, and for how many tokens."""

from __future__ import annotations

from typing import Any

from lowp._errors import ArgumentError
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.native import operands


def ideal_speedup(weights: Any, over: Any = "bfloat16", device: str | Device = "h100") -> float:
    """Return how much faster a product bound by reading its weights is than with weights in another format.

    The ratio of their bits, scales included.

    Raises:
        FormatError: A format is unknown.

    Source:
        Frantar et al., "MARLIN", 2024.

    Example:
        >>> round(ideal_speedup("int4_g128"), 2)
        3.88
    """
    machine = find_device(device)
    packed, wide = operands(machine, weights=weights, over=over)
    return wide.bits_per_value / packed.bits_per_value


def break_even_batch(weights: Any, device: str | Device = "h100", compute: str = "") -> float:
    """Return the tokens for which reading the weights takes as long as multiplying by them, at peak rates.

    With fewer the product is bound by memory, and narrower weights help.

    Args:
        weights: Format of the weights.
        device: A device or its name.
        compute: Dtype of the multiplication; default the one the weights are unpacked to, or multiplied in.

    Raises:
        ArgumentError: The device lists no rate for this dtype.
        FormatError: The format is unknown.

    Source:
        Frantar et al., "MARLIN", 2024.

    Example:
        >>> round(break_even_batch("int4_g128", "a100"), 1)
        39.4
    """
    machine = find_device(device)
    (described,) = operands(machine, weights=weights)
    dtype = compute or described.compute or (described.wide[0] if described.wide else "")
    if not dtype:
        raise ArgumentError(f"device={machine.name!r} holds weights={described.name!r} in no dtype; give compute.")
    return described.bytes_per_value * machine.peak(dtype) / (2 * machine.need("bandwidth"))
