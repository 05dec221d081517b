"""What a block takes in a technology: coefficients of standard-cell targets.

Data: `data/targets/` and `data/block_cells.csv`. A target lists the area and the energy of a few cells;
`block_cells.csv` says how many of which a block has. Where a target has a coefficient for a block itself, that one
counts. Nothing stands in for a coefficient that is missing.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, unknown_name
from lowp.hw_models.blocks import Block
from lowp.hw_models.tables import rows

#: How many of a CSV unit are one of the unit that estimates have.
_UNITS = {"um2": (1e-12, "m2"), "fJ": (1e-15, "J"), "ps": (1e-12, "s"), "GE": (1.0, "GE")}


@dataclass(frozen=True)
class Amount:
    """A quantity with its interval."""

    value: float
    low: float
    high: float

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.value + other.value, self.low + other.low, self.high + other.high)

    def times(self, factor: float, low: float = 1.0, high: float = 1.0) -> Amount:
        """Return it times a number, its ends times two more."""
        return Amount(self.value * factor, self.low * factor * low, self.high * factor * high)


NOTHING = Amount(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Target:
    """A technology for which blocks have a price.

    Attributes:
        name: Such as "sky130".
        title: In words.
        technology: "asic" or "fpga".
        base: Target whose coefficients are scaled, or None.
        sources: Where the coefficients come from.
    """

    name: str
    title: str
    technology: str
    base: str | None
    sources: tuple[str, ...]

    def unit(self, quantity: str) -> str:
        """Return the unit of "area" or "energy".

        Raises:
            FormatError: The target has no such coefficients.
        """
        found = next((r["unit"] for r in _coefficients(self.name) if r["quantity"] == quantity and r["unit"]), None)
        if found is None:
            raise FormatError(f"target={self.name!r} has no coefficients of {quantity}.")
        return _UNITS.get(found, (1.0, found))[1]

    @property
    def gate_delay(self) -> Amount:
        """Delay of one gate level, in s.

        Raises:
            FormatError: The target has no such coefficient.
        """
        return _cell(self.name, "ND2", "delay")

    def of(self, block: Block, quantity: str) -> Amount:
        """Return the area or the energy of a block and all its parts, as many as there are.

        Raises:
            FormatError: A coefficient is missing.
        """
        return _price(self.name, block, quantity).times(block.count)


def targets(technology: str | None = None) -> list[str]:
    """Return the names of the targets that a datapath can be priced for.

    Args:
        technology: Only those of "asic" or "fpga".

    Raises:
        ArgumentError: An unknown technology.

    Example:
        >>> targets("asic")
        ['gate_model', 'n28', 'n28_zigzag', 'n7', 'nangate45', 'sky130']
    """
    if technology not in (None, "asic", "fpga"):
        raise ArgumentError(unknown_name("technology", technology, ["asic", "fpga"]))
    return [name for name in _names() if technology in (None, _technology(name))]


@cache
def _names() -> tuple[str, ...]:
    folder = files("lowp.hw_models") / "data" / "targets"
    return tuple(sorted(f.name.removesuffix(".csv") for f in folder.iterdir() if f.name.endswith(".csv")))


@cache
def _rows(name: str) -> tuple[dict[str, str], ...]:
    text = (files("lowp.hw_models") / "data" / "targets" / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


@cache
def _technology(name: str) -> str:
    row = next((r for r in _rows(name) if r.get("block") == "target" and r.get("quantity") == "technology"), None)
    return row["value"] if row else "fpga"


@lru_cache(maxsize=64)
def target(name: str) -> Target:
    """Return the standard-cell target of a name.

    Raises:
        ArgumentError: The name is unknown, or that of an FPGA.
        ArgumentTypeError: The name is no string.

    Example:
        >>> target("sky130").unit("area")
        'm2'
    """
    known(name)
    if _technology(name) != "asic":
        raise ArgumentError(f"target={name!r} is no standard-cell target; allowed: {', '.join(targets('asic'))}.")
    facts = {r["quantity"]: r["value"] for r in _rows(name) if r["block"] == "target"}
    sources = dict.fromkeys(r["source"] for r in _rows(name) if r["source"])
    base = facts.get("base")
    return Target(name, facts["title"], facts["technology"], base, tuple(sources))


def known(name: object) -> str:
    """Return the technology of a target's name.

    Raises:
        ArgumentError: The name is unknown.
        ArgumentTypeError: It is no string.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"target={name!r} must be a name, not {type(name).__name__}.")
    if name not in _names():
        raise ArgumentError(unknown_name("target", name, _names()))
    return _technology(name)


def _coefficients(name: str) -> tuple[dict[str, str], ...]:
    base = next((r["value"] for r in _rows(name) if r["block"] == "target" and r["quantity"] == "base"), None)
    return _rows(base) if base else _rows(name)


@cache
def _node_factor(name: str, quantity: str) -> Amount:
    for row in _rows(name):
        if row["block"] == "node" and row["quantity"] == quantity:
            return _interval(row)
    return Amount(1.0, 1.0, 1.0)


@lru_cache(maxsize=16384)
def _price(name: str, block: Block, quantity: str) -> Amount:
    """One block, not as many as there are."""
    found, total = _terms(name, block.kind, quantity, bool(block.parts)), NOTHING
    if found is None and block.parts:
        for part in block.parts:
            total += _price(name, part, quantity).times(part.count)
        return total
    if found is None:
        raise FormatError(f"target={name!r} has no coefficient for the {quantity} of a {block.kind.replace('_', ' ')}.")
    for per, each in found:
        total += each.times(block.amount(per))
    return total


@cache
def _terms(name: str, kind: str, quantity: str, composite: bool) -> tuple[tuple[str, Amount], ...] | None:
    """Return what coefficients are per, and the coefficients, of the target itself or from its cells.

    A block that is made of others has a coefficient only where the target has one of its own.
    """
    node = _node_factor(name, quantity)
    own = [r for r in _coefficients(name) if (r["block"], r["quantity"]) == (kind, quantity)]
    if own:
        return tuple((r["per"], _scaled(_own(name, r, quantity), node)) for r in own)
    recipe = [] if composite else [r for r in rows("block_cells") if r["block"] == kind]
    return tuple((r["per"], _scaled(_made_of(name, r["cells"], r, quantity), node)) for r in recipe) or None


def _own(name: str, row: dict[str, str], quantity: str) -> Amount:
    """A target's own coefficient: a number with a unit, or cells."""
    if not row["unit"]:
        return _made_of(name, row["value"], row, quantity)
    return _interval(row).times(_scale(row["unit"]))


def _made_of(name: str, cells: str, row: dict[str, str], quantity: str) -> Amount:
    return _cells(name, cells, quantity).times(1.0, float(row["low"]), float(row["high"]))


def _scaled(amount: Amount, node: Amount) -> Amount:
    return Amount(amount.value * node.value, amount.low * node.low, amount.high * node.high)


def _cells(name: str, expression: str, quantity: str) -> Amount:
    """Return a sum of cells such as "AND+FA" or "0.5*ND2"."""
    total = NOTHING
    for term in expression.split("+"):
        number, _, cell = term.rpartition("*")
        total += _cell(name, cell, quantity).times(float(number or 1))
    return total


@cache
def _cell(name: str, cell: str, quantity: str) -> Amount:
    for row in _coefficients(name):
        if (row["block"], row["per"], row["quantity"]) == ("cell", cell, quantity):
            return _own(name, row, quantity)
    raise FormatError(f"target={name!r} has no coefficient for the {quantity} of the cell {cell!r}.")


def _interval(row: dict[str, str]) -> Amount:
    return Amount(float(row["value"]), float(row["low"]), float(row["high"]))


def _scale(unit: str) -> float:
    return _UNITS.get(unit, (1.0, unit))[0]
