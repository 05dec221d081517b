"""Accumulators as tables of plain data, as files of recipes hold them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lowp._errors import ArgumentError, unknown_name
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.casts import format_name
from lowp.formats.spec import Format


def from_table(given: Mapping[str, Any]) -> Accumulator:
    """Return the accumulator of a table of its fields; `alignment` and `outer` are tables too.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: They are none.

    Example:
        >>> from_table({"format": "float16", "chunk": 64, "outer": {"format": "float32"}})
        Accumulator(format='float16', chunk=64, outer=Accumulator(format='float32'))
    """
    fields = _checked("unit", given, Accumulator)
    if isinstance(fields.get("alignment"), Mapping):
        fields["alignment"] = Alignment(**_checked("unit.alignment", fields["alignment"], Alignment))
    if isinstance(fields.get("outer"), Mapping):
        fields["outer"] = from_table(fields["outer"])
    if isinstance(fields.get("order"), list):
        fields["order"] = tuple(fields["order"])
    return Accumulator(**fields)


def _checked(where: str, given: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names = list(getattr(kind, "__dataclass_fields__", {}))
    for name in given:
        if name not in names:
            raise ArgumentError(unknown_name(f"{where}.field", name, names))
    return dict(given)


def to_table(accumulator: Accumulator) -> dict[str, Any]:
    """Return the table of an accumulator's fields that are not at their defaults.

    Raises:
        ArgumentError: It looks sums up in a table, which files do not hold.

    Example:
        >>> to_table(Accumulator(format="float16", order=(1, 0), alignment=Alignment(fraction_bits=13)))
        {'format': 'float16', 'alignment': {'fraction_bits': 13}, 'order': [1, 0]}
    """
    return {name: _plain(name, value) for name, value in accumulator._given().items()}  # noqa: SLF001 - as its repr


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Format):
        return format_name(value)
    if isinstance(value, Accumulator):
        return to_table(value)
    if isinstance(value, Alignment):
        fields = type(value).__dataclass_fields__
        return {k: v for k in fields if (v := getattr(value, k)) != fields[k].default}
    if isinstance(value, tuple):
        return list(value)
    if name == "table":
        raise ArgumentError(f"table={value!r}: files of recipes do not hold the tables of logarithmic sums.")
    return value
