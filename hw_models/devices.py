"""Machines: peak rates by dtype, memory, and the sizes the models need. Data: `data/devices.csv`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.hw_models.tables import rows


@dataclass(frozen=True)
class Device:
    """A GPU or TPU, in plain SI units; rates are dense, without structured sparsity.

    A figure that `data/devices.csv` does not list is NaN (0 multiprocessors, "" for words); `need` refuses it.

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
        peaks: (dtype, accumulator or "", operations/s), a multiply-add counting as two; of the matrix unit, where it
            has that dtype.
        fma_per_clock: (dtype, multiply-adds per clock and multiprocessor), where published.
        vector_peaks: (dtype, operations/s) of the vector unit, where it differs or is of interest.
        figures: (name, value) of sizes that no model needs, such as "tensor_memory", "infinity_cache" or "cores".
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
    vector_peaks: tuple[tuple[str, float], ...] = ()
    figures: tuple[tuple[str, float], ...] = ()

    def peak(self, dtype: str, accumulator: str = "") -> float:
        """Return the dense peak in operations per second, a multiply-add counting as two.

        A dtype the device does not list is an error: a rate is never inferred from another dtype's.

        Args:
            dtype: "float64", "float32", "tf32", "bfloat16", "float16", "fp8", "fp6", "fp4", "int8", "int4" or "int1".
            accumulator: "float16" for the faster rate that consumer cards have with it; "" or its name for the usual
                one: "float32", of integers "int32", of float64 itself.

        Raises:
            ArgumentError: The device lists no rate for this dtype and accumulator.

        Example:
            >>> device("h100").peak("fp8")
            1978000000000000.0
        """
        usual = "int32" if str(dtype).startswith("int") else "float64" if dtype == "float64" else "float32"
        for name, acc, rate in self.peaks:
            if (name, acc) == (dtype, "" if accumulator == usual else accumulator):
                return rate
        keys = [f"{name}/{acc}" if acc else name for name, acc, _ in self.peaks]
        wanted = f"{dtype}/{accumulator}" if accumulator else dtype
        raise ArgumentError(f"device={self.name!r} has no rate for it: {unknown_name('dtype', wanted, keys)}")

    def vector_peak(self, dtype: str) -> float:
        """Return the peak of the vector unit in operations per second.

        Raises:
            ArgumentError: The device lists no such rate.

        Example:
            >>> device("a100").vector_peak("float64") < device("a100").peak("float64")
            True
        """
        rates = dict(self.vector_peaks)
        if dtype not in rates:
            raise ArgumentError(f"device={self.name!r}, vector unit: {unknown_name('dtype', dtype, rates)}")
        return rates[dtype]

    def need(self, quantity: str) -> float:
        """Return a figure that a model needs.

        Args:
            quantity: Name of an attribute that is a number, or of one of `figures`.

        Raises:
            ArgumentError: The data do not list it for this device, so the model cannot be used.

        Example:
            >>> device("a100").need("tdp")
            400.0
        """
        found = dict(self.figures).get(quantity, getattr(self, str(quantity), None))
        value = float(found) if isinstance(found, int | float) else math.nan
        if math.isnan(value) or value == 0:
            raise ArgumentError(
                f"device={self.name!r} has no figure {quantity!r} in data/devices.csv, which this needs."
            )
        return value

    def has(self, dtype: str) -> bool:
        """Whether the device lists a rate for this dtype."""
        return any(name == dtype for name, _, _ in self.peaks)

    def __str__(self) -> str:
        return self.title


@cache
def _catalogue() -> dict[str, Device]:
    grouped = groupby(rows("devices"), key=lambda row: row["device"])
    return {name: _device(name, list(group)) for name, group in grouped}


#: Quantities of one value per device; numbers that are missing are NaN, words "".
_NUMBERS = ("bandwidth", "capacity", "sms", "tdp", "clock", "l2", "shared_memory", "alu_lanes")
_WORDS = ("title", "architecture", "memory_kind", "process")
_KEYED = ("peak", "vector_peak", "fma_per_clock", "aliases")


def _device(name: str, cells: list[dict[str, str]]) -> Device:
    single = {c["quantity"]: c["value"] for c in cells}
    numbers: dict[str, Any] = {key: float(single.get(key, "nan")) for key in _NUMBERS}
    words: dict[str, Any] = {key: single.get(key, "") for key in _WORDS}
    sms, lanes = (0 if math.isnan(numbers.pop(key)) else int(single[key]) for key in ("sms", "alu_lanes"))
    peaks = tuple((c["dtype"], c["accumulator"], float(c["value"])) for c in cells if c["quantity"] == "peak")
    others = {*_NUMBERS, *_WORDS, *_KEYED}
    return Device(
        name=name,
        **words,
        **numbers,
        sms=sms,
        alu_lanes=lanes,
        peaks=peaks,
        fma_per_clock=tuple(
            ("/".join(filter(None, (c["dtype"], c["accumulator"]))), float(c["value"]))
            for c in cells
            if c["quantity"] == "fma_per_clock"
        ),
        vector_peaks=tuple((c["dtype"], float(c["value"])) for c in cells if c["quantity"] == "vector_peak"),
        figures=tuple((key, float(value)) for key, value in single.items() if key not in others),
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
