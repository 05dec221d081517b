"""Fitted kernel parameters, and what stands in for them where nothing was measured.

Data: `data/gemm_fit.csv` (fits to measured tables, with their error on rows held out) and `data/gemm_defaults.csv`
(published averages, or ratios to another kernel of the same device; always with an interval).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
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
        quantize_bytes: Time that takes per value beside the start, as bytes that memory moves meanwhile (best guess,
            lower and upper end); 0 where it was not seen.
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
    quantize_bytes: tuple[float, float, float] = (0.0, 0.0, 0.0)


@cache
def fit(device: str, kernel: str, stack: str = "") -> Fit:
    """Return the parameters of a kernel family on a device: fitted, else scaled from a fitted one, else an average.

    Args:
        device: Name of the device.
        kernel: Name of the kernel family.
        stack: Beginning of the name of the software whose kernels were measured, such as "pytorch"; default the first
            that the data list for the device.

    Raises:
        ArgumentError: No such kernel family, or nothing was measured with this software on this device.

    Example:
        >>> fit("h100", "fp8").typical.compute, fit("mi300x", "fp8").fitted
        (0.75, False)
    """
    check_stack(device, stack)
    measured = _measured(device, kernel, stack)
    if measured:
        return measured
    defaults = [row for row in rows("gemm_defaults") if row["kernel"] == kernel]
    if not defaults:
        raise ArgumentError(unknown_name("kernel", kernel, dict.fromkeys(r["kernel"] for r in rows("gemm_defaults"))))
    for row in defaults:
        if not row["basis"]:
            return _average(row)
        basis = _measured(device, row["basis"], stack)
        if basis:
            return _scaled(row, basis)
    return _scaled(defaults[0], fit(device, defaults[0]["basis"], stack))


def check_stack(device: str, stack: str) -> None:
    """Raise an ArgumentError if nothing was measured with this software on this device."""
    if not isinstance(stack, str):
        raise ArgumentTypeError(f"stack={stack!r} must be a name, not {type(stack).__name__}.")
    known = dict.fromkeys(row["stack"].lower() for row in rows("gemm_fit") if row["device"] == device)
    if stack and not any(name.startswith(stack.lower()) for name in known):
        raise ArgumentError(f"device={device!r}: {unknown_name('stack', stack, known)}")


@cache
def quantizing_start(device: str, stack: str = "") -> float:
    """Return the seconds by which quantizing activations delays the start of a product, however small.

    The start of the device's fitted kernels that include quantizing (the quicker of fp8 and nvfp4) less that of its
    bfloat16 kernels; from averages over devices where none is fitted. It exceeds the launch of a single pass, because
    serving stacks launch several small kernels.

    Example:
        >>> round(quantizing_start("h100") * 1e6, 1)
        10.0
    """
    fitted = [found for found in (_measured(device, kernel, stack) for kernel in ("fp8", "nvfp4")) if found]
    starts = [found.typical.start for found in fitted if found.quantizes] or [fit(device, "fp8", stack).typical.start]
    return max(0.0, min(starts) - fit(device, "bfloat16", stack).typical.start)


def _measured(device: str, kernel: str, stack: str = "") -> Fit | None:
    for row in rows("gemm_fit"):
        if (row["device"], row["kernel"]) == (device, kernel) and row["stack"].lower().startswith(stack.lower()):
            parameters = Kernel(
                compute=float(row["ec"]),
                memory=float(row["em"]),
                start=float(row["t0_us"]) * 1e-6,
                ramp=float(row["kk"]),
                cache=float(row["l2"]),
                cache_share=float(row["l2_share"]),
                overlap=float(row["overlap"]),
            )
            note = f" ({row['note']})" if row["note"] else ""
            provenance = (
                f"{kernel} fitted to {row['stack']} on {device}{note}, held-out error mean {float(row['mape']):.1%}, "
                f"p90 {float(row['p90']):.1%}, {row['source']}"
            )
            error, quantizing = float(row["p90"]), (float(row["quantize_bytes"]),) * 3
            quantizes = row["quantizes"] == "yes"
            return Fit(parameters, parameters, parameters, error, quantizes, True, provenance, quantizing)
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
        quantize_bytes=(float(row["quantize_bytes"]), float(row["quantize_low"]), float(row["quantize_high"])),
    )


def _scaled(row: dict[str, str], basis: Fit) -> Fit:
    def kernel(of: Kernel, compute: str, memory: str, start: str) -> Kernel:
        return Kernel(
            min(1.0, of.compute * float(row[compute])),
            min(1.0, of.memory * float(row[memory])),
            of.start * float(row[start]),
            of.ramp,
            of.cache,
            of.cache_share,
            of.overlap,
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
        quantize_bytes=basis.quantize_bytes,
    )
