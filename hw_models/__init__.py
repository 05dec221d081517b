"""A machine and its price.

    estimate      a number with its interval, unit, bound and provenance
    devices       GPUs: peak rates by dtype, memory, sizes
    native        which formats a device multiplies natively, what converting the others takes
    tile_wave     the tile and wave model, and the roofline
    kernels       fitted parameters, and what stands in for them
    passes        quantizing and unpacking as passes over memory
    gemm          the time of a matrix product
    energy        its energy
    model_cost    the matrix products of a whole model

Coefficients and device figures are in `data/`, each with unit, source and how sure it is.
"""

from lowp.hw_models.devices import Device, device, devices
from lowp.hw_models.energy import gemm_energy
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.gemm import gemm
from lowp.hw_models.model_cost import matmuls_cost
from lowp.hw_models.native import Operand, operand
from lowp.hw_models.passes import quantize_pass

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
