"""Machines: peak rates by dtype, memory, and the sizes the models need. Data: `data/devices.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import groupby

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.hw_models.tables import rows


@dataclass(frozen=True)
class Device:
    """A GPU, in plain SI units; rates are dense, without structured sparsity.

    Attributes:
        name: Short name, such as "h100".
        title: The vendor's name.
        architecture: What decides which formats run natively, such as "hopper".
        memory_kind: Memory technology, such as "HBM3e".
        process: Process node, such as "N4".
        bandwidth: Memory bandwidth, bytes/s.
        capacity: Memory, bytes.
        sms: Streaming multiprocessors (AMD: compute units).
        tdp: Thermal design power, W.
        clock: Boost clock, Hz.
        l2: Last-level cache on the die, bytes.
        shared_memory: Per multiprocessor, bytes.
        alu_lanes: 32-bit integer lanes per multiprocessor.
        peaks: (dtype, accumulator or "", operations/s), a multiply-add counting as two.
        fma_per_clock: (dtype, multiply-adds per clock and multiprocessor), where published.
    """

    name: str
    title: str
    architecture: str
    memory_kind: str
    process: str
    bandwidth: float
    capacity: float
    sms: int
    tdp: float
    clock: float
    l2: float
    shared_memory: float
    alu_lanes: int
    peaks: tuple[tuple[str, str, float], ...]
    fma_per_clock: tuple[tuple[str, float], ...] = ()

    def peak(self, dtype: str, accumulator: str = "") -> float:
        """Return the dense peak in operations per second, a multiply-add counting as two.

        A dtype the device does not list is an error: a rate is never inferred from another dtype's.

        Args:
            dtype: "bfloat16", "float16", "tf32", "fp8", "fp6", "fp4", "int8" or "int4".
            accumulator: "float16" for the faster rate that consumer cards have with it; default the usual one.

        Raises:
            ArgumentError: The device lists no rate for this dtype and accumulator.

        Example:
            >>> device("h100").peak("fp8")
            1978000000000000.0
        """
        for name, acc, rate in self.peaks:
            if (name, acc) == (dtype, accumulator):
                return rate
        keys = [f"{name}/{acc}" if acc else name for name, acc, _ in self.peaks]
        wanted = f"{dtype}/{accumulator}" if accumulator else dtype
        raise ArgumentError(f"device={self.name!r} has no rate for it: {unknown_name('dtype', wanted, keys)}")

    def has(self, dtype: str) -> bool:
        """Whether the device lists a rate for this dtype."""
        return any(name == dtype for name, _, _ in self.peaks)

    def __str__(self) -> str:
        return self.title


@cache
def _catalogue() -> dict[str, Device]:
    grouped = groupby(rows("devices"), key=lambda row: row["device"])
    return {name: _device(name, list(group)) for name, group in grouped}


def _device(name: str, cells: list[dict[str, str]]) -> Device:
    single = {c["quantity"]: c["value"] for c in cells}
    peaks = tuple((c["dtype"], c["accumulator"], float(c["value"])) for c in cells if c["quantity"] == "peak")
    fma = tuple((c["dtype"], float(c["value"])) for c in cells if c["quantity"] == "fma_per_clock")
    return Device(
        name=name,
        title=single["title"],
        architecture=single["architecture"],
        memory_kind=single["memory_kind"],
        process=single["process"],
        bandwidth=float(single["bandwidth"]),
        capacity=float(single["capacity"]),
        sms=int(single["sms"]),
        tdp=float(single["tdp"]),
        clock=float(single["clock"]),
        l2=float(single["l2"]),
        shared_memory=float(single["shared_memory"]),
        alu_lanes=int(single["alu_lanes"]),
        peaks=peaks,
        fma_per_clock=fma,
    )


@cache
def _aliases() -> dict[str, str]:
    listed = ((c["device"], c["value"].split()) for c in rows("devices") if c["quantity"] == "aliases")
    return {alias: name for name, aliases in listed for alias in (name, *aliases)}


def device(name: str | Device) -> Device:
    """Return the device that a name stands for; a device is returned as it is.

    Case, "-" and spaces do not matter, nor a leading vendor name.

    Raises:
        ArgumentError: The name is unknown.
        ArgumentTypeError: `name` is neither a string nor a Device.

    Example:
        >>> device("NVIDIA H100 SXM").sms, device("b200").memory_kind
        (132, 'HBM3e')
    """
    if isinstance(name, Device):
        return name
    if not isinstance(name, str):
        raise ArgumentTypeError(f"device={name!r} must be a name or a Device, not {type(name).__name__}.")
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    key = key.removeprefix("nvidia_").removeprefix("amd_").removeprefix("geforce_").removeprefix("instinct_")
    if key not in _aliases():
        raise ArgumentError(unknown_name("device", name, devices()))
    return _catalogue()[_aliases()[key]]


def devices() -> list[str]:
    """Return the names of all devices.

    Example:
        >>> "h200" in devices()
        True
    """
    return list(_catalogue())
