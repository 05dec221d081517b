"""CPUs: cores, instruction sets and the rates they attain. Data: `data/cpu_cores.csv`, `data/cpu_isa.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.hw_models.tables import rows


class Figure(NamedTuple):
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CpuCore:
    """A CPU, in plain SI units.

    Attributes:
        name: Short name, such as "m2_ultra".
        title: The vendor's name.
        isa: Instruction set, a name of `data/cpu_isa.csv`.
        figures: Figures by name: cores, clock, bandwidth, bandwidth_share (attained of it), ipc (SIMD instructions per
            cycle of multiply-adds and unpacking), table_rate (table instructions per cycle), table_contention and
            mac_contention (t threads are t / (1 + contention (t - 1)) times as fast as one), token_tile.
        kinds: How sure each figure is.
    """

    name: str
    title: str
    isa: str
    figures: Mapping[str, Figure]
    kinds: Mapping[str, str]

    def __hash__(self) -> int:
        return hash((self.name, self.title, self.isa, tuple(self.figures.items())))

    def need(self, quantity: str) -> Figure:
        """Return a figure that a model needs.

        Raises:
            ArgumentError: The data do not list it for this CPU, so the model cannot be used.

        Example:
            >>> cpu_core("rpi5").need("bandwidth").value
            17100000000.0
        """
        if quantity not in self.figures:
            raise ArgumentError(
                f"core={self.name!r} has no figure {quantity!r} in data/cpu_cores.csv, which this needs; "
                "CpuCore.with_figures adds one."
            )
        return self.figures[quantity]

    def with_figures(self, **figures: float | tuple[float, float, float]) -> CpuCore:
        """Return the CPU with other figures: a number, or (value, low, high).

        Example:
            >>> cpu_core("m2_ultra").with_figures(table_rate=0.97).need("table_rate").low
            0.97
        """
        given = {k: Figure(*v) if isinstance(v, tuple) else Figure(v, v, v) for k, v in figures.items()}
        kinds = MappingProxyType({**self.kinds, **dict.fromkeys(given, "given")})
        return replace(self, figures=MappingProxyType({**self.figures, **given}), kinds=kinds)

    def __str__(self) -> str:
        return self.title


@cache
def _cores() -> dict[str, CpuCore]:
    grouped = groupby(rows("cpu_cores"), key=lambda row: row["core"])
    return {name: _core(name, list(group)) for name, group in grouped}


def _core(name: str, cells: list[dict[str, str]]) -> CpuCore:
    words = {c["quantity"]: c["value"] for c in cells if not c["low"]}
    figures = {c["quantity"]: Figure(*(float(c[e]) for e in ("value", "low", "high"))) for c in cells if c["low"]}
    kinds = {c["quantity"]: c["kind"] for c in cells if c["low"]}
    return CpuCore(name, words["title"], words["isa"], MappingProxyType(figures), MappingProxyType(kinds))


def cpu_core(name: str | CpuCore) -> CpuCore:
    """Return the CPU that a name stands for; a CPU is returned as it is.

    Raises:
        ArgumentError: The name is unknown.
        ArgumentTypeError: `name` is neither a string nor a CpuCore.

    Example:
        >>> cpu_core("M2 Ultra").isa
        'neon'
    """
    if isinstance(name, CpuCore):
        return name
    if not isinstance(name, str):
        raise ArgumentTypeError(f"core={name!r} must be a name or a CpuCore, not {type(name).__name__}.")
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    if key not in _cores():
        raise ArgumentError(unknown_name("core", name, cpu_cores()))
    return _cores()[key]


def cpu_cores() -> list[str]:
    """Return the names of all CPUs.

    Example:
        >>> "epyc_7v13" in cpu_cores()
        True
    """
    return list(_cores())


@cache
def isa_figure(isa: str, quantity: str) -> Figure:
    """Return a figure of an instruction set, or of any.

    Raises:
        ArgumentError: The data list no such figure.
    """
    for row in rows("cpu_isa"):
        if row["isa"] in (isa, "any") and row["quantity"] == quantity:
            return Figure(*(float(row[e]) for e in ("value", "low", "high")))
    names = sorted({row["isa"] for row in rows("cpu_isa")} - {"any"})
    raise ArgumentError(f"no figure {quantity!r}: {unknown_name('isa', isa, names)}")


def speedup(core: CpuCore, threads: int, contention: str) -> Figure:
    """Return how much faster so many threads are than one.

    Raises:
        ArgumentError: More threads than cores, or no figure for more than one thread.
    """
    cores = int(core.need("cores").value)
    if threads > cores:
        raise ArgumentError(f"threads={threads!r} of core={core.name!r}; allowed: 1 to {cores}.")
    if threads == 1:
        return Figure(1.0, 1.0, 1.0)
    share = core.need(contention)
    value, low, high = (threads / (1 + c * (threads - 1)) for c in (share.value, share.high, share.low))
    return Figure(value, low, high)


def memory_seconds(core: CpuCore, amount: float) -> Figure:
    """Return the time to read so many bytes."""
    bandwidth, share = core.need("bandwidth"), core.need("bandwidth_share")
    value, low, high = (amount / (bandwidth.value * s) for s in (share.value, share.high, share.low))
    return Figure(value, low, high)
