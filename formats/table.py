"""The Markdown table of every registered format."""

from __future__ import annotations

import math

from lowp.formats.block import Block
from lowp.formats.describe import block_limits
from lowp.formats.float_format import Float
from lowp.formats.registry import REGISTRY, names
from lowp.formats.spec import Format, ScalarFormat
from lowp.formats.text import decimal, special_codes

_HEADER = ("Name", "Also", "Bits", "Max", "Smallest > 0", "Specials", "What it is")
_POWER_EXPONENT = 14  # a power of two is written as one from here on


def markdown_table(family: str | None = None) -> str:
    """Return a Markdown table of the registered formats, one row each.

    Args:
        family: "float", "integer", "fixed point", "codebook" or "block"; None for all.

    Returns:
        Lines without a newline at the end. Bits count the scales of a block format. Numbers are exact, or powers of
        two, or marked with "~".

    Example:
        >>> print(markdown_table("codebook").splitlines()[-1])
        | `binary` | `sign` | 1 | 1 | 1 | | +1 (code 0) and -1 (code 1) |
    """
    rows = [_HEADER, tuple("---" for _ in _HEADER)]
    for name in names(family):
        cells = summary_row(name)
        aliases = ", ".join(f"`{alias}`" for alias in REGISTRY[name].aliases)
        rows.append((f"`{name}`", aliases, *cells[2:]))
    return "\n".join("| " + " | ".join(row).replace("|  |", "| |") + " |" for row in rows)


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
    if isinstance(fmt, Block):
        largest, smallest = (_short(float(limit)) for limit in block_limits(fmt))
        return f"{fmt.bits_per_value:.6g}" + ("" if fmt.block_elements else "+"), largest, smallest, ""
    assert isinstance(fmt, ScalarFormat)
    smallest = _short(fmt.smallest_subnormal) if fmt.smallest_subnormal else "none"
    specials = special_codes(fmt) if isinstance(fmt, Float) else {}  # codes that a codebook does not use are no numbers
    return str(fmt.bits), _short(fmt.max), smallest, ", ".join(specials).replace("nan", "NaN")


def _short(x: float) -> str:
    mantissa, exponent = math.frexp(x)
    if mantissa == 0.5 and abs(exponent - 1) >= _POWER_EXPONENT:
        return f"2^{exponent - 1}"
    text = decimal(x, digits=12)
    return text if not text.startswith("~") else f"~{x:.5g}".replace("e+", "e")
