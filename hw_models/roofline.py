"""The plain roofline of a matrix product: what no kernel can beat, unless a cache holds the operands."""

from __future__ import annotations

from typing import Any

from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.gemm import plan
from lowp.hw_models.native import operands


def roofline(
    m: int, n: int, k: int, a: Any, b: Any, out: Any = "bfloat16", device: str | Device = "h100", groups: int = 1
) -> Estimate:
    """Return the time of a matrix product at peak rate or peak bandwidth, whichever is slower.

    Operands and result move once, in their own formats with their scales; the rate is that of the dtype `gemm`
    computes in. Real kernels take about twice as long on average: see `gemm`.

    Args:
        m: Rows of the activations (tokens).
        n: Columns of the weights.
        k: Depth.
        a: Format of the activations: a name, a `lowp.formats` format, or an `Operand`.
        b: Format of the weights.
        out: Format of the result.
        device: A device or its name.
        groups: Independent products of this size.

    Returns:
        Seconds, with `low` and `high` equal to `value`. `bound` is "compute" or "memory".

    Raises:
        ArgumentError: As `gemm`.
        FormatError: A format is unknown.

    Source:
        Williams, Waterman, Patterson, "Roofline", CACM 2009.

    Example:
        >>> roofline(1, 8192, 8192, "bfloat16", "int4_g128", device="a100").bound
        'memory'
        >>> roofline(8192, 8192, 8192, "bfloat16", "bfloat16", device="a100").bound
        'compute'
    """
    m, n, k, groups = sizes(m=m, n=n, k=k, groups=groups)
    machine = find_device(device)
    left, right, result = operands(machine, a=a, b=b, out=out)
    compute = plan(m, n, k, left, right, result, machine, groups=groups).compute
    moved = groups * (left.bytes_per_value * m * k + right.bytes_per_value * n * k + result.bytes_per_value * m * n)
    multiplying, moving = 2 * groups * m * n * k / machine.peak(compute), moved / machine.need("bandwidth")
    seconds = max(multiplying, moving)
    bound = "compute" if multiplying > moving else "memory"
    return Estimate(seconds, seconds, seconds, "s", bound, f"roofline of {machine.name} in {compute}")
