"""The Markdown tables of the registered formats."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lowp.formats.block import Block
from lowp.formats.describe import block_limits
from lowp.formats.float_format import Float
from lowp.formats.packed import Packed
from lowp.formats.ranked import RankedFormat
from lowp.formats.registry import REGISTRY, names, sections
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.text import decimal, special_codes

_HEADER = ("Name", "Also", "Bits", "Max", "Smallest > 0", "Specials", "What it is")
_POWER_EXPONENT = 14  # a power of two is written as one from here on
_PAGE = """\
# Formats by name

{count} formats have names; far more have names by rule, which the README lists. `lowp show NAME` prints a format's
card. "Bits" count scales and whatever else a block stores; "8+" adds one scale per row or tensor. "Max" and
"Smallest > 0" are exact, powers of two, or marked with "~". Columns that would be empty are left out.

Written by `lowp formats --markdown`.
"""


def markdown_table(family: str | None = None) -> str:
    """Return a Markdown table of the registered formats, one row each.

    Args:
        family: A family as `lowp.formats.names` takes it; None for all.

    Returns:
        Lines without a newline at the end. Bits count the scales of a block format. Numbers are exact, or powers of
        two, or marked with "~". Columns in which all cells are empty are left out.

    Example:
        >>> print(markdown_table("codebook").splitlines()[4])
        | `binary` | `sign` | 1 | 1 | 1 | +1 (code 0) and -1 (code 1) |
    """
    return _table(names(family))


def markdown_page() -> str:
    """Return the page of all named formats: a heading and a table for each family, block formats by kind.

    Example:
        >>> [line for line in markdown_page().splitlines() if line.startswith("#")][:3]
        ['# Formats by name', '## Floats', '## Integers']
    """
    parts = [_PAGE.format(count=len(REGISTRY))]
    parts += [f"## {heading}\n\n{_table(chosen)}\n" for heading, chosen in sections().items()]
    return "\n".join(parts)


def _table(chosen: Iterable[str]) -> str:
    rows = []
    for name in chosen:
        cells = summary_row(name)
        aliases = ", ".join(f"`{alias}`" for alias in REGISTRY[name].aliases)
        rows.append((f"`{name}`", aliases, *cells[2:]))
    columns = [i for i, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
    rows = [_HEADER, ("---",) * len(_HEADER), *rows]
    return "\n".join("|" + "".join(f" {row[i]} |" if row[i] else " |" for i in columns) for row in rows)


def summary_row(name: str | None) -> tuple[str, ...]:
    """Return the cells of a registered format's row; None for the headings.

    Example:
        >>> summary_row("float8_e4m3fn")[2:6]
        ('8', '448', '0.001953125', 'NaN, -0')
    """
    if name is None:
        return _HEADER
    entry = REGISTRY[name]
    return (name, ", ".join(entry.aliases), *_numbers(entry.format), entry.summary)


def _numbers(fmt: Format) -> tuple[str, str, str, str]:
    """Bits per value, largest and smallest positive value, special codes."""
    if isinstance(fmt, Packed):
        return f"{fmt.bits_per_value:.6g}" if fmt.block_bits else "varies", "", "", ""
    if isinstance(fmt, Block):
        largest, smallest = (_short(float(limit)) for limit in block_limits(fmt))
        return f"{fmt.bits_per_value:.6g}" + ("" if fmt.block_elements else "+"), largest, smallest, ""
    assert isinstance(fmt, ScalarFormat)
    smallest = _short(fmt.smallest_subnormal) if fmt.smallest_subnormal else "none"
    specials = (
        special_codes(fmt) if isinstance(fmt, Float | RankedFormat) else {}
    )  # codes that a codebook does not use are no numbers
    return str(fmt.bits), _short(fmt.max), smallest, ", ".join(specials).replace("nan", "NaN")


def _short(x: float) -> str:
    mantissa, exponent = math.frexp(x)
    if mantissa == 0.5 and abs(exponent - 1) >= _POWER_EXPONENT:
        return f"2^{exponent - 1}"
    text = decimal(x, digits=12)
    return text if not text.startswith("~") else f"~{x:.5g}".replace("e+", "e")
