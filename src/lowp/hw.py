"""What a format costs on a machine: `from lowp import hw`.

Example:
    >>> from lowp import hw
    >>> t = hw.gemm(4096, 8192, 8192, a="nvfp4", b="nvfp4", device="b200")
    >>> t.low < t.value < t.high
    True
"""

from lowp.hw_models import (
    Device,
    Estimate,
    Operand,
    device,
    devices,
    gemm,
    gemm_energy,
    matmuls_cost,
    operand,
    quantize_pass,
)

__all__ = [
    "Device",
    "Estimate",
    "Operand",
    "device",
    "devices",
    "gemm",
    "gemm_energy",
    "matmuls_cost",
    "operand",
    "quantize_pass",
]
