"""Lookup-table engines: how a product of few-bit weights is looked up. Data: `data/lut_engines.csv`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.hw_models.tables import rows

#: What a table holds, and what its index is.
STYLES = {
    "bit_serial": "sums of a group of activations, each plus or minus; one look-up per bit plane of the weights",
    "element": "sums of a group of activations times weights; one look-up per group, whatever the weights' bits",
    "vector": "as element, but an entry is a row over all tokens: one look-up serves them all",
    "product": "all products of a weight code and an activation code; one look-up per product",
    "dequantize": "nothing: codes are unpacked and multiplied",
}
#: How entries are stored: exact integers, quantized with a scale per `table_block`, or each addition rounded.
TABLES = ("exact", "int8", "float16", "float32")
MAX_ENTRIES = 1 << 16
#: Bits of entries, and weights that share a table scale, where a kind of table is asked for.
_ENTRY_BITS = {"exact": 16, "int8": 8, "float16": 16, "float32": 32}
_TABLE_BLOCK = 64


@dataclass(frozen=True)
class LutEngine:
    """How an engine multiplies activations by few-bit weights; `dataclasses.replace` makes another.

    Attributes:
        name: Name, as `lut_engines()` lists it.
        title: What its makers call it.
        style: One of "bit_serial", "element", "vector", "product" and "dequantize".
        group: Weights that one look-up stands for, of one bit plane.
        mirror: Whether only half of a table is kept, the rest being its negative: LUT[i] = -LUT[~i].
        table: Numbers of the entries: "exact" integers; "int8", quantized with one scale per `table_block`; "float16"
            or "float32", to which every addition that builds an entry is rounded.
        entry_bits: Bits of an entry.
        table_block: Weights whose tables share a scale, of "int8" tables; else 0.
        plane_scales: Whether each bit plane is multiplied by a scale of its own (binary coding), instead of adding
            shifted planes first.
        index_bits: Bits that the weights of one look-up are stored in; 0: as many as indices need.
        unit_m, unit_n, unit_k: Tokens, outputs and weights per cycle and bit plane of a hardware unit; 0 in software.
        clock: Of the hardware unit, Hz; 0 in software.

    Raises:
        ArgumentError: A style or table that there is not, or a size that cannot be.

    Example:
        >>> engine = lut_engine("t_mac")
        >>> engine.group, engine.entries(2), engine.table_bits(2)
        (4, 8, 64)
    """

    name: str
    title: str
    style: str
    group: int
    mirror: bool
    table: str
    entry_bits: int
    table_block: int = 0
    plane_scales: bool = False
    index_bits: int = 0
    unit_m: int = 0
    unit_n: int = 0
    unit_k: int = 0
    clock: float = 0.0

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ArgumentError(unknown_name("style", self.style, STYLES))
        if self.table not in TABLES:
            raise ArgumentError(unknown_name("table", self.table, TABLES))
        if not 1 <= self.group <= 16 or self.entry_bits < 1:
            raise ArgumentError(
                f"group={self.group!r}, entry_bits={self.entry_bits!r} must be at least 1, the group at most 16."
            )
        if (self.table == "int8") != (self.table_block > 0) or self.table_block % self.group:
            raise ArgumentError(
                f"table_block={self.table_block!r} must be a multiple of group={self.group!r} with int8 tables, else 0."
            )
        if self.plane_scales and not self.table.startswith("float"):
            raise ArgumentError(f"table={self.table!r} with plane_scales; allowed: 'float16', 'float32'.")
        if self.style in ("product", "dequantize", "vector") and self.table != "exact":
            raise ArgumentError(f"table={self.table!r} of style {self.style!r}; allowed: 'exact'.")

    def entries(self, values: int, activation_values: int = 0) -> int:
        """Return the entries that one table keeps.

        Args:
            values: Different values of a weight, or 2 for bit planes.
            activation_values: Of an activation, which tables of products need.

        Example:
            >>> lut_engine("tl1").entries(3), lut_engine("tl2").entries(3), lut_engine("deepgemm").entries(4, 4)
            (9, 14, 16)
        """
        if self.style == "dequantize":
            return 0
        full = values * activation_values if self.style == "product" else values**self.group
        return (full + 1) // 2 if self.mirror else full

    def table_bits(self, values: int, activation_values: int = 0) -> int:
        """Return the bits of one table; arguments as of `entries`."""
        return self.entries(values, activation_values) * self.entry_bits

    def stored_index_bits(self, values: int) -> int:
        """Return the bits that the weights of one look-up are stored in."""
        return self.index_bits or max(1, (values**self.group - 1).bit_length())

    def __str__(self) -> str:
        half = "mirrored " if self.mirror else ""
        return f"{self.title}: {STYLES[self.style]}; groups of {self.group}, {half}{self.table} tables"


_INTEGERS = ("group", "entry_bits", "table_block", "index_bits", "unit_m", "unit_n", "unit_k")


@cache
def _engines() -> dict[str, LutEngine]:
    grouped = groupby(rows("lut_engines"), key=lambda row: row["engine"])
    return {name: _engine(name, {row["quantity"]: row["value"] for row in group}) for name, group in grouped}


def _engine(name: str, cells: dict[str, str]) -> LutEngine:
    numbers = {key: int(cells[key]) for key in _INTEGERS if key in cells}
    flags = {key: cells[key] == "yes" for key in ("mirror", "plane_scales")}
    words = {key: cells[key] for key in ("title", "style", "table")}
    return LutEngine(name, clock=float(cells.get("clock", 0)), **words, **flags, **numbers)  # type: ignore[arg-type]


def lut_engines() -> list[str]:
    """Return the names of all engines.

    Example:
        >>> {"t_mac", "tl2", "lut_tensor_core"} <= set(lut_engines())
        True
    """
    return list(_engines())


_ALIASES = {"tmac": "t_mac", "lut_tc": "lut_tensor_core", "vec_lut": "vec_lut_i2", "veclut": "vec_lut_i2"}


def lut_engine(name: str | LutEngine, **changes: Any) -> LutEngine:
    """Return the engine that a name stands for, with some attributes changed.

    Case, "-" and spaces do not matter. With another `table`, bits of entries, block and plane scales follow unless they
    are given: an engine of quantized or rounded tables multiplies integers exactly with `table="exact"`.

    Args:
        name: A name of `lut_engines()`, or an engine.
        changes: Attributes of `LutEngine`, such as `group=3`.

    Raises:
        ArgumentError: An unknown name or attribute, or values that do not go together.
        ArgumentTypeError: `name` is neither a string nor an engine.

    Example:
        >>> lut_engine("T-MAC", table="float32").table_bits(2)
        256
    """
    if isinstance(name, LutEngine):
        found = name
    elif isinstance(name, str):
        key = name.strip().lower().replace("-", "_").replace(" ", "_")
        key = _ALIASES.get(key, key)
        if key not in _engines():
            raise ArgumentError(unknown_name("engine", name, lut_engines()))
        found = _engines()[key]
    else:
        raise ArgumentTypeError(f"engine={name!r} must be a name or a LutEngine, not {type(name).__name__}.")
    unknown = [key for key in changes if key not in LutEngine.__dataclass_fields__]
    if unknown:
        raise ArgumentError(unknown_name("attribute", unknown[0], LutEngine.__dataclass_fields__))
    return replace(found, **_followed(found, changes)) if changes else found


def _followed(engine: LutEngine, changes: dict[str, Any]) -> dict[str, Any]:
    """Add what another kind of table entails."""
    table = changes.get("table", engine.table)
    if table == engine.table or table not in TABLES:
        return changes
    entailed: dict[str, Any] = {"entry_bits": _ENTRY_BITS[table], "table_block": 0}
    if table == "int8":
        group = changes.get("group", engine.group)
        entailed["table_block"] = group * max(1, _TABLE_BLOCK // group)
    if not table.startswith("float"):
        entailed["plane_scales"] = False
    return entailed | changes
