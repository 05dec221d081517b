"""The matrix products of a whole model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lowp._errors import ArgumentError
from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.energy import gemm_energy
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.gemm import gemm


def matmuls_cost(
    shapes: Iterable[tuple[int, int, int, int]], a: Any, b: Any, device: str | Device = "h100", out: Any = "bfloat16"
) -> tuple[Estimate, Estimate]:
    """Predict time and energy of a list of matrix products, one after the other.

    Interval ends add up: errors of one model on one machine go the same way.

    Args:
        shapes: (m, n, k, count) of each product: tokens, outputs, inputs, and how often it runs.
        a: Format of the activations.
        b: Format of the weights.
        device: A device or its name.
        out: Format of the results.

    Returns:
        Seconds and joules.

    Raises:
        ArgumentError: `shapes` is empty, or a size or count is not positive; else as `gemm`.
        FormatError: A format is unknown.

    Example:
        >>> time, energy = matmuls_cost([(512, 384, 384, 24), (512, 1536, 384, 6)], "fp8", "fp8", "h100")
        >>> time.unit, energy.unit
        ('s', 'J')
    """
    times: list[Estimate] = []
    energies: list[Estimate] = []
    for m, n, k, count in shapes:
        (runs,) = sizes(count=count)
        times.append(gemm(m, n, k, a, b, out, device) * runs)
        energies.append(gemm_energy(m, n, k, a, b, out, device) * runs)
    if not times:
        raise ArgumentError("shapes is empty; allowed: at least one (m, n, k, count).")
    return _total(times), _total(energies)


def _total(estimates: list[Estimate]) -> Estimate:
    total = estimates[0]
    for estimate in estimates[1:]:
        total = total + estimate
    return total
