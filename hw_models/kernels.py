"""Fitted kernel parameters, and what stands in for them where nothing was measured.

Data: `data/gemm_fit.csv` (fits to measured tables, with their error on rows held out) and `data/gemm_defaults.csv`
(published averages, or ratios to another kernel of the same device; always with an interval).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from lowp._errors import ArgumentError, unknown_name
from lowp.hw_models.tables import rows
from lowp.hw_models.tile_wave import Kernel


@dataclass(frozen=True)
class Fit:
    """A kernel family with its interval.

    Attributes:
        typical: The best guess.
        fast: Parameters for the lower end; equal to `typical` where they were fitted on this device.
        slow: Parameters for the upper end.
        error: Relative error |prediction / measurement - 1| that nine of ten held-out rows stay within.
        quantizes: Whether the measured time includes quantizing the activations.
        fitted: Whether the parameters were fitted on this device and dtype.
        provenance: Stack, source and note.
    """

    typical: Kernel
    fast: Kernel
    slow: Kernel
    error: float
    quantizes: bool
    fitted: bool
    provenance: str


@cache
def fit(device: str, kernel: str) -> Fit:
    """Return the parameters of a kernel family on a device: fitted, else scaled from a fitted one, else an average.

    Raises:
        ArgumentError: No such kernel family.

    Example:
        >>> fit("h100", "fp8").typical.compute, fit("mi300x", "fp8").fitted
        (0.6, False)
    """
    measured = _measured(device, kernel)
    if measured:
        return measured
    defaults = [row for row in rows("gemm_defaults") if row["kernel"] == kernel]
    if not defaults:
        raise ArgumentError(unknown_name("kernel", kernel, dict.fromkeys(r["kernel"] for r in rows("gemm_defaults"))))
    for row in defaults:
        if not row["basis"]:
            return _average(row)
        basis = _measured(device, row["basis"])
        if basis:
            return _scaled(row, basis)
    return _scaled(defaults[0], fit(device, defaults[0]["basis"]))


@cache
def quantizing_start(device: str) -> float:
    """Return the seconds by which quantizing activations delays the start of a product, however small.

    The start of the device's fitted kernels that include quantizing (the quicker of fp8 and nvfp4) less that of its
    bfloat16 kernels; from averages over devices where none is fitted. It exceeds the launch of a single pass, because
    serving stacks launch several small kernels.

    Example:
        >>> round(quantizing_start("h100") * 1e6, 1)
        9.7
    """
    fitted = [found for found in (_measured(device, "fp8"), _measured(device, "nvfp4")) if found]
    starts = [found.typical.start for found in fitted if found.quantizes] or [fit(device, "fp8").typical.start]
    return max(0.0, min(starts) - fit(device, "bfloat16").typical.start)


def _measured(device: str, kernel: str) -> Fit | None:
    for row in rows("gemm_fit"):
        if (row["device"], row["kernel"]) == (device, kernel):
            parameters = Kernel(float(row["ec"]), float(row["em"]), float(row["t0_us"]) * 1e-6, float(row["kk"]))
            note = f" ({row['note']})" if row["note"] else ""
            provenance = (
                f"{kernel} fitted to {row['stack']} on {device}{note}, held-out error mean {float(row['mape']):.1%}, "
                f"p90 {float(row['p90']):.1%}, {row['source']}"
            )
            error = float(row["p90"])
            return Fit(parameters, parameters, parameters, error, row["quantizes"] == "yes", True, provenance)
    return None


def _average(row: dict[str, str]) -> Fit:
    def kernel(compute: str, memory: str, start: str) -> Kernel:
        return Kernel(float(row[compute]), float(row[memory]), float(row[start]) * 1e-6, float(row["kk"]))

    return Fit(
        typical=kernel("ec", "em", "t0"),
        fast=kernel("ec_high", "em_high", "t0_low"),
        slow=kernel("ec_low", "em_low", "t0_high"),
        error=float(row["p90"]),
        quantizes=row["quantizes"] == "yes",
        fitted=False,
        provenance=(
            f"{row['kernel']} not fitted on this device: average over devices, interval widened, {row['source']}"
        ),
    )


def _scaled(row: dict[str, str], basis: Fit) -> Fit:
    def kernel(of: Kernel, compute: str, memory: str, start: str) -> Kernel:
        return Kernel(
            min(1.0, of.compute * float(row[compute])),
            min(1.0, of.memory * float(row[memory])),
            of.start * float(row[start]),
            of.ramp,
        )

    return Fit(
        typical=kernel(basis.typical, "ec", "em", "t0"),
        fast=kernel(basis.fast, "ec_high", "em_high", "t0_low"),
        slow=kernel(basis.slow, "ec_low", "em_low", "t0_high"),
        error=basis.error,
        quantizes=basis.quantizes,
        fitted=False,
        provenance=(
            f"{row['kernel']} not measured on this device: scaled from {row['basis']}, interval widened, "
            f"{row['source']}; {basis.provenance}"
        ),
    )
