"""FPGA boards: logic, flip-flops, DSPs, memories and the bandwidth of their DRAM. Data: `data/fpga_devices.csv`.

Where sources differ, a figure is a range: its value is what is left for a user's logic, its high end the whole part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.hw_models.tables import rows

_WORDS = ("title", "part", "target", "dsp_block", "memory_kind", "shell", "aliases")
#: What a shell takes and a unit is counted in, in the order of reports.
RESOURCES = ("lut", "ff", "dsp", "bram18", "uram")


class Figure(NamedTuple):
    """A quantity of a board, with its range and source."""

    value: float
    low: float
    high: float
    unit: str
    kind: str
    source: str


@dataclass(frozen=True)
class FpgaDevice:
    """An FPGA board; what `data/fpga_devices.csv` does not list is missing from `figures`, and `need` refuses it.

    Attributes:
        name: Short name, such as "u280".
        title: The vendor's name.
        part: The device on the board.
        target: Coefficients of its logic: "series7", "xcup" or "versal".
        dsp_block: "DSP48E1", "DSP48E2" or "DSP58".
        memory_kind: Technology of its DRAM.
        shell: Memory controllers that take logic: "ddr" or "hbm", as often as there are some.
        figures: (name, figure) of "lut", "ff", "dsp", "bram36", "uram", "slrs", "bandwidth" in B/s and "capacity" in B.
    """

    name: str
    title: str
    part: str
    target: str
    dsp_block: str
    memory_kind: str
    shell: tuple[str, ...]
    figures: tuple[tuple[str, Figure], ...]

    def figure(self, quantity: str) -> Figure:
        """Return a quantity with its range and source; "bram18" counts halves of 36 Kb block RAMs.

        Raises:
            ArgumentError: The data do not list it for this board.

        Example:
            >>> fpga_device("v80").figure("bandwidth")[:3]
            (820000000000.0, 460000000000.0, 820000000000.0)
        """
        found = dict(self.figures)
        if quantity == "bram18" and "bram36" in found:
            whole = found["bram36"]
            return Figure(2 * whole.value, 2 * whole.low, 2 * whole.high, "BRAM18", whole.kind, whole.source)
        if quantity not in found:
            raise ArgumentError(
                f"device={self.name!r} has no figure {quantity!r} in data/fpga_devices.csv, which this needs; "
                f"listed: {', '.join(found)}."
            )
        return found[quantity]

    def need(self, quantity: str) -> float:
        """Return the value of a quantity.

        Raises:
            ArgumentError: The data do not list it for this board.

        Example:
            >>> fpga_device("zcu102").need("dsp"), fpga_device("zcu102").need("bram18")
            (2520.0, 1824.0)
        """
        return self.figure(quantity).value

    def __str__(self) -> str:
        return self.title


@cache
def _catalogue() -> dict[str, FpgaDevice]:
    grouped = groupby(rows("fpga_devices"), key=lambda row: row["device"])
    return {name: _device(name, list(cells)) for name, cells in grouped}


def _device(name: str, cells: list[dict[str, str]]) -> FpgaDevice:
    words = {c["quantity"]: c["value"] for c in cells if c["quantity"] in _WORDS}
    figures = tuple(
        (
            c["quantity"],
            Figure(float(c["value"]), float(c["low"]), float(c["high"]), c["unit"], c["kind"], c["source"]),
        )
        for c in cells
        if c["quantity"] not in _WORDS
    )
    words.pop("aliases", None)
    shell = tuple(words.pop("shell").split())
    return FpgaDevice(name=name, shell=shell, figures=figures, **words)


@cache
def _aliases() -> dict[str, str]:
    listed = ((c["device"], c["value"].split()) for c in rows("fpga_devices") if c["quantity"] == "aliases")
    return {alias: name for name, aliases in listed for alias in (name, *aliases)}


def fpga_device(name: str | FpgaDevice) -> FpgaDevice:
    """Return the FPGA board that a name stands for; a board is returned as it is.

    Case, "-" and spaces do not matter, nor a leading vendor or family name.

    Raises:
        ArgumentError: The name is unknown.
        ArgumentTypeError: `name` is neither a string nor an FpgaDevice.

    Example:
        >>> fpga_device("Alveo U280").need("uram"), fpga_device("PYNQ-Z1").dsp_block
        (960.0, 'DSP48E1')
    """
    if isinstance(name, FpgaDevice):
        return name
    if not isinstance(name, str):
        raise ArgumentTypeError(f"device={name!r} must be a name or an FpgaDevice, not {type(name).__name__}.")
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    for prefix in ("amd_", "xilinx_", "avnet_"):
        key = key.removeprefix(prefix)
    if key not in _aliases():
        raise ArgumentError(unknown_name("device", name, fpga_devices()))
    return _catalogue()[_aliases()[key]]


def fpga_devices() -> list[str]:
    """Return the names of all FPGA boards.

    Example:
        >>> "vck190" in fpga_devices()
        True
    """
    return list(_catalogue())


@cache
def shell_cost(name: str) -> dict[str, float]:
    """Return what a part of a shell takes, by resource: "ddr", "hbm" (controllers) or "ethernet" (100 Gbit/s UDP).

    Raises:
        ArgumentError: The name is unknown.

    Example:
        >>> shell_cost("hbm")["lut"]
        10718.0
    """
    names = dict.fromkeys(r["shell"] for r in rows("fpga_shells") if r["shell"] != "limit")
    if name not in names:
        raise ArgumentError(unknown_name("controller", name, names))
    return {r["quantity"]: float(r["value"]) for r in rows("fpga_shells") if r["shell"] == name}


@cache
def planning_limits() -> dict[str, float]:
    """Return what share of each resource a design that meets timing may use; "average" is of BRAM, URAM and DSP.

    Source: FINN, `platforms.py`.

    Example:
        >>> planning_limits()["lut"], planning_limits()["ff"]
        (0.7, 0.5)
    """
    return {r["quantity"]: float(r["value"]) for r in rows("fpga_shells") if r["shell"] == "limit"}
