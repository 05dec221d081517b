"""What a recipe will do, or has done, to the operations of a program: a table and a list of remarks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any

from lowp._errors import ArgumentError, unknown_name

#: Order of the columns, and what each says.
COLUMNS = {
    "layer": "dotted name of the layer or scope; '' outside any",
    "operation": "what was emulated, or the primitive that was not",
    "product": "forward, grad_input or grad_weight; '' where there is but one",
    "role": "what the operand is",
    "cast": "what became of it",
    "count": "how often",
}


@dataclass(frozen=True)
class Row:
    """One operand of one operation; the fields are the `COLUMNS`."""

    layer: str
    operation: str
    product: str
    role: str
    cast: str
    count: int


class Report:
    """What happens to each operand of each operation, how often, and what deserves a remark.

    Remarks name operations that were left alone, patterns that matched no layer, and the first step with NaN.
    Printing it gives a table.

    Example:
        >>> report = Report()
        >>> report.add("fc", "linear", "forward", "weight", "mxfp4")
        >>> report.add("fc", "linear", "forward", "weight", "mxfp4")
        >>> report.rows[0].count
        2
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, str, str], int] = {}
        self._remarks: dict[str, int] = {}

    def add(self, layer: str, operation: str, product: str, role: str, cast: str, count: int = 1) -> None:
        """Count one operand."""
        key = (layer, operation, product, role, cast)
        self._counts[key] = self._counts.get(key, 0) + count

    def remark(self, text: str) -> None:
        """Note something that concerns the whole; a remark that comes again is counted."""
        self._remarks[text] = self._remarks.get(text, 0) + 1

    @property
    def rows(self) -> list[Row]:
        """The operands in the order in which they first came."""
        return [Row(*key, count) for key, count in self._counts.items()]

    @property
    def remarks(self) -> list[str]:
        """The remarks in the order in which they first came; "(n times)" where there were several."""
        return [f"{text} ({n} times)" if n > 1 else text for text, n in self._remarks.items()]

    def find(self, **wanted: str) -> list[Row]:
        """Return the rows whose columns have these values.

        Raises:
            ArgumentError: There is no column of that name.
        """
        for name in wanted:
            if name not in COLUMNS:
                raise ArgumentError(unknown_name("column", name, COLUMNS))
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]

    def to_dict(self) -> dict[str, Any]:
        """Return rows and remarks as plain lists and dictionaries."""
        return {"rows": [asdict(row) for row in self.rows], "remarks": self.remarks}

    def __str__(self) -> str:
        lines = _table([tuple(COLUMNS), *(astuple(row) for row in self.rows)])
        return "\n".join([*lines, *(f"! {remark}" for remark in self.remarks)])

    def __repr__(self) -> str:
        return f"<Report: {len(self._counts)} rows, {len(self._remarks)} remarks>"


def _table(cells: Iterable[tuple[str, ...]]) -> list[str]:
    rows = [tuple(str(c) for c in row) for row in cells]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
