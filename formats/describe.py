"""The card of a format: everything a person asks about it, as text or as plain data."""

from __future__ import annotations

import math
from fractions import Fraction
from textwrap import wrap
from typing import Any

from lowp.formats.block import NONFINITE_POLICIES, SCALE_RECIPES, Block
from lowp.formats.cards import packed_properties, packed_rows, ranked_formula
from lowp.formats.codebook import Codebook
from lowp.formats.float_format import SPECIALS, Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.logarithmic import LNS
from lowp.formats.packed import Packed
from lowp.formats.parse import parse
from lowp.formats.posit import Posit
from lowp.formats.ranked import RankedFormat
from lowp.formats.registry import REGISTRY
from lowp.formats.spec import Format, Meaning, ScalarFormat
from lowp.formats.takum import Takum
from lowp.formats.text import code_bits, code_hex, decimal, fields, hex_float, meaning_text, special_codes

_LIMITS = ("max", "min", "smallest_normal", "smallest_subnormal", "eps")
_LABEL, _WIDTH = 20, 120  # columns
_FAMILIES: dict[type[Format], str] = {
    Float: "float", Integer: "integer", Fixed: "fixed point", Codebook: "codebook", Block: "block", Packed: "block",
    Posit: "posit", Takum: "takum", LNS: "logarithmic",
}  # fmt: skip


def describe(fmt: str | Format) -> str:
    """Return a card of a format: layout, range, special codes, and its values if they are few.

    Args:
        fmt: A format or its name.

    Returns:
        Plain text of several lines. Numbers are exact, in decimal and as hexadecimal floats; a decimal of more than 24
        digits is shortened and marked with "~". Values are listed for formats of at most 6 bits.

    Raises:
        FormatError: The name is unknown.

    Example:
        >>> print(describe("e8m0"))
        float8_e8m0fnu: OCP MX scale: powers of two, NaN, no zero
          aliases             e8m0, ue8m0, e8m0fnu
          family              float, 8 bits
          layout              +----------+
                              |   7..0   |
                              | exponent |
                              |  8 bits  |
                              +----------+
          value               2^(exponent - 127)
          bias                127
          specials            fn: only the all-ones code (of each sign) is NaN, no infinity; -0 exists if signed
          nan                 0xff
          max                 ~1.70141183e38 = 0x1p+127
          min                 ~5.87747175e-39 = 0x1p-127
          smallest positive   ~5.87747175e-39 = 0x1p-127
          eps                 1 = 0x1p+0
          finite values       255
    """
    fmt = parse(fmt)
    entry = REGISTRY.get(fmt.name)
    lines = [f"{fmt.name}: {entry.summary}" if entry else fmt.name]
    if entry and entry.aliases:
        lines.append(_row("aliases", ", ".join(entry.aliases)))
    lines.append(_row("family", f"{family(fmt)}, {_bits(fmt)}"))
    if isinstance(fmt, Packed):
        lines += [_row(label, text) for label, text in packed_rows(fmt)]
    else:
        lines += _block_rows(fmt) if isinstance(fmt, Block) else _scalar_rows(_as_scalar(fmt))
    return "\n".join(line.rstrip() for line in lines)


def properties(fmt: str | Format) -> dict[str, Any]:
    """Return the content of the card as plain data that JSON can hold.

    Args:
        fmt: A format or its name.

    Returns:
        A dictionary; numbers that do not exist (NaN) are None, runs of codes are `[first, last]`.

    Raises:
        FormatError: The name is unknown.

    Example:
        >>> properties("int4")["min"], properties("mxfp4")["bits_per_value"]
        (-8.0, 4.25)
    """
    fmt = parse(fmt)
    entry = REGISTRY.get(fmt.name)
    data: dict[str, Any] = {
        "name": fmt.name,
        "aliases": list(entry.aliases) if entry else [],
        "summary": entry.summary if entry else "",
        "family": family(fmt),
        "bits": fmt.bits,
    }
    if isinstance(fmt, Packed):
        return data | packed_properties(fmt)
    return data | (_block_properties(fmt) if isinstance(fmt, Block) else _scalar_properties(_as_scalar(fmt)))


def family(fmt: Format) -> str:
    """Return the family of a format, as `names` takes it: "float", "integer", "posit", "block", ..."""
    return _FAMILIES.get(type(fmt), type(fmt).__name__.lower())


def finite_count(fmt: ScalarFormat) -> int:
    """Return how many different finite numbers a format can store, 0 and -0 counted once.

    Example:
        >>> finite_count(Float(4, 3, specials="fn")), finite_count(Integer(4, symmetric=True))
        (253, 15)
    """
    if isinstance(fmt, Codebook):
        return len(fmt.values)
    if isinstance(fmt, RankedFormat):
        return 2 * fmt.ranks + fmt.has_zero
    if isinstance(fmt, Float):
        positive = (
            fmt.max_code if fmt.subnormals or not fmt.normal_field else fmt.max_code - (1 << fmt.mantissa_bits) + 1
        )
        return positive * (1 + fmt.signed) + 1
    assert isinstance(fmt, Integer | Fixed)
    return fmt.max_integer - fmt.min_integer + 1


def _as_scalar(fmt: Format) -> ScalarFormat:
    assert isinstance(fmt, ScalarFormat)
    return fmt


def _row(label: str, text: str) -> str:
    """Return a row of the card; a long text goes on below itself."""
    indent = " " * (_LABEL + 2)
    lines = wrap(text, _WIDTH - len(indent), break_long_words=False, break_on_hyphens=False) or [""]
    return f"\n{indent}".join([f"  {label:<{_LABEL}}{lines[0]}", *lines[1:]])


def _rows(label: str, lines: list[str]) -> list[str]:
    """Return the rows of a drawing or a list, whose lines stay as they are."""
    return [f"  {label if i == 0 else '':<{_LABEL}}{line}" for i, line in enumerate(lines)]


def _bits(fmt: Format) -> str:
    """Bits of a code; packed formats share bits among values, so theirs are a mean."""
    if isinstance(fmt, Packed):
        return f"{fmt.bits_per_value:.10g} bits per value"
    return _counted(fmt.bits, "bit") + " an element" * isinstance(fmt, Block)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _box(cells: list[list[str]]) -> list[str]:
    """Draw cells side by side; each cell is a list of lines of equal number."""
    widths = [max(map(len, cell)) + 2 for cell in cells]
    rule = "+" + "+".join("-" * width for width in widths) + "+"
    rows = zip(*cells, strict=True)
    body = ["|" + "|".join(text.center(width) for text, width in zip(row, widths, strict=True)) + "|" for row in rows]
    return [rule, *body, rule]


def _layout(fmt: ScalarFormat) -> list[str]:
    cells, top = [], fmt.bits - 1
    for name, width in fields(fmt):
        last = top - width + 1
        cells.append([str(top) if width == 1 else f"{top}..{last}", name, _counted(width, "bit")])
        top = last - 1
    return _box(cells)


def _scalar_rows(fmt: ScalarFormat) -> list[str]:
    lines = [*_rows("layout", _layout(fmt)), *_rows("value", _formula(fmt))]
    if isinstance(fmt, Float):
        lines += [_row("bias", str(fmt.bias)), _row("specials", _specials(fmt))]
    lines += [_row(_special_label(fmt, name), _runs(runs, fmt.bits)) for name, runs in special_codes(fmt).items()]
    lines += [_row(label, _limit(getattr(fmt, name), label)) for label, name in _limit_labels(fmt)]
    lines.append(_row("finite values", f"{finite_count(fmt):,}"))
    return lines + _values(fmt)


def _specials(fmt: Float) -> str:
    rule = SPECIALS[fmt.specials]
    return f"{fmt.specials}: {rule}" + (" if signed" if rule.endswith("-0 exists") and not fmt.signed else "")


def _special_label(fmt: ScalarFormat, name: str) -> str:
    return "unused codes (nan)" if isinstance(fmt, Codebook) else name


def _formula(fmt: ScalarFormat) -> list[str]:
    if isinstance(fmt, Float):
        return _float_formula(fmt)
    if isinstance(fmt, Codebook):
        rule = "the decision points of the format" if fmt.thresholds else "the midpoints"
        return [f"list[index]; to nearest rounds at {rule}"]
    if isinstance(fmt, RankedFormat):
        return ranked_formula(fmt)
    base = "two's complement" if fmt.signed else "unsigned"
    scale = f" * 2^{-fmt.fraction_bits}" if isinstance(fmt, Fixed) and fmt.fraction_bits else ""
    lines = [f"n{scale}, n in {base}"]
    if isinstance(fmt, Integer | Fixed) and fmt.symmetric:
        code = 1 << (fmt.bits - 1)
        lines.append(f"{code_hex(code, fmt.bits)} decodes to {meaning_text(fmt.meaning(code))}, nothing encodes to it")
    return lines


def _float_formula(fmt: Float) -> list[str]:
    sign = "(-1)^sign * " if fmt.signed else ""
    fraction = f" * (1 + mantissa/2^{fmt.mantissa_bits})" if fmt.mantissa_bits else ""
    lines = [f"{sign}2^(exponent - {fmt.bias}){fraction}".replace("- -", "+ ")]
    if fmt.zero and fmt.subnormals:
        lines.append(f"exponent 0: {sign}2^{fmt.emin} * mantissa/2^{fmt.mantissa_bits}")
    elif fmt.zero:
        lines.append("exponent 0: zero" if fmt.normal_field else "exponent 0, mantissa 0: zero")
    return lines


def _runs(runs: list[range], bits: int) -> str:
    """Write runs of codes, joining those that touch."""
    texts = []
    for first, last in _joined(runs):
        texts.append(code_hex(first, bits) + (f"..{code_hex(last, bits)}" if last > first else ""))
    return ", ".join(texts)


def _joined(runs: list[range]) -> list[list[int]]:
    joined: list[list[int]] = []
    for run in runs:
        if joined and joined[-1][1] + 1 == run.start:
            joined[-1][1] = run.stop - 1
        else:
            joined.append([run.start, run.stop - 1])
    return joined


def _limit_labels(fmt: ScalarFormat) -> list[tuple[str, str]]:
    """Return the rows of the card that hold limits, as (label, attribute)."""
    if fmt.smallest_subnormal < fmt.smallest_normal:
        return [(name.replace("_", " "), name) for name in _LIMITS]
    return [("max", "max"), ("min", "min"), ("smallest positive", "smallest_subnormal"), ("eps", "eps")]


def _limit(value: float, label: str) -> str:
    missing = math.isnan(value) or (value == 0 and label.startswith("smallest"))
    return "none" if missing else f"{decimal(value)} = {hex_float(value)}"


def _values(fmt: ScalarFormat) -> list[str]:
    if fmt.bits > 6:
        return []
    texts = [meaning_text(fmt.meaning(code), digits=12) for code in range(1 << fmt.bits)]
    return _rows("values by code", _wide_list(fmt, texts) if fmt.bits <= 5 else _compact_list(fmt, texts))


def _wide_list(fmt: ScalarFormat, texts: list[str]) -> list[str]:
    """One value per code with its bits, in one column, or two where there are more than eight."""
    width = max(map(len, texts))
    entries = [f"{code_hex(c, fmt.bits)}  {code_bits(c, fmt)}  {text:>{width}}" for c, text in enumerate(texts)]
    if len(entries) <= 8:
        return entries
    half = len(entries) // 2
    return [f"{a}    {b}" for a, b in zip(entries[:half], entries[half:], strict=True)]


def _compact_list(fmt: ScalarFormat, texts: list[str]) -> list[str]:
    width = max(map(len, texts)) + 1
    rows = range(0, len(texts), 8)
    return [f"{code_hex(r, fmt.bits)}:" + "".join(f"{t:>{width}}" for t in texts[r : r + 8]) for r in rows]


def _block_rows(fmt: Block) -> list[str]:
    tensor = fmt.tensor_scale
    lines = [
        *_rows("layout", _block_layout(fmt)),
        _row("value", _block_formula(fmt)),
        _row("element", _part(fmt.element)),
        _row("block size", _size(fmt)),
        _row("scale", _part(fmt.scale)),
        _row("tensor scale", _part(tensor) if tensor else "none"),
        _row("recipe", f"{fmt.recipe}: {SCALE_RECIPES[fmt.recipe]}"),
        _row("NaN and infinity", f"{fmt.nonfinite}: {NONFINITE_POLICIES[fmt.nonfinite]}"),
        _row("bits per value", decimal(fmt.bits_per_value) + ("" if fmt.block_elements else " and the scales")),
    ]
    largest, smallest = block_limits(fmt)
    return [*lines, _row("max", decimal(largest)), _row("smallest positive", decimal(smallest))]


def _block_formula(fmt: Block) -> str:
    element = "(element - zero point)" if fmt.zero_point else "element"
    return f"{element} * scale" + (" * tensor scale" if fmt.tensor_scale else "")


def _block_layout(fmt: Block) -> list[str]:
    width = _counted(fmt.element.bits, "bit")
    cells = [["scale", _counted(fmt.scale.bits, "bit")]]
    extra = fmt.block_bits - fmt.scale.bits
    if extra:
        cells.append(["zero point", _counted(extra, "bit")])
    count = fmt.block_elements
    last = f"element {count - 1}" if count else "element n-1"
    cells += [["element 0", width]]
    if count != 1:
        cells += [["...", "..."], [last, width]]
    return _box(cells)


def _part(fmt: ScalarFormat) -> str:
    entry = REGISTRY.get(fmt.name)
    return f"{fmt.name} ({entry.summary}), max {decimal(fmt.max)}" if entry else f"{fmt.name}, max {decimal(fmt.max)}"


def _size(fmt: Block) -> str:
    if isinstance(fmt.size, tuple):
        return f"{fmt.size[0]} x {fmt.size[1]} tile"
    words = {"row": "a whole row along the axis", "tensor": "the whole tensor"}
    return words.get(str(fmt.size)) or f"{fmt.size} along the axis; the last block of a row may be shorter"


def block_limits(fmt: Block) -> tuple[Fraction, Fraction]:
    """Largest and smallest positive value that some choice of scales can store."""
    scales = [fmt.scale] + ([fmt.tensor_scale] if fmt.tensor_scale else [])
    smallest = Fraction(fmt.element.smallest_subnormal)
    return Fraction(fmt.max), math.prod((Fraction(scale.smallest_subnormal) for scale in scales), start=smallest)


def _scalar_properties(fmt: ScalarFormat) -> dict[str, Any]:
    data: dict[str, Any] = {
        "bits_per_value": fmt.bits_per_value,
        "fields": [{"name": name, "bits": width} for name, width in fields(fmt)],
    }
    if isinstance(fmt, Float):
        data |= {"bias": fmt.bias, "specials": fmt.specials, "subnormals": fmt.subnormals}
    data |= {"signed": fmt.signed, "special_codes": {k: _joined(v) for k, v in special_codes(fmt).items()}}
    for name in _LIMITS:
        value = getattr(fmt, name)
        data |= (
            {name: None, f"{name}_hex": None} if math.isnan(value) else {name: value, f"{name}_hex": hex_float(value)}
        )
    data["finite_values"] = finite_count(fmt)
    if fmt.bits <= 6:
        data["values"] = [_plain(fmt.meaning(code)) for code in range(1 << fmt.bits)]
    return data


def _plain(meaning: Meaning) -> float | str:
    if isinstance(meaning, str) and meaning != "-0":
        return meaning
    return float(meaning)  # JSON knows -0.0, but no NaN


def _block_properties(fmt: Block) -> dict[str, Any]:
    largest, smallest = block_limits(fmt)
    return {
        "bits_per_value": fmt.bits_per_value,
        "element": fmt.element.name,
        "size": list(fmt.size) if isinstance(fmt.size, tuple) else fmt.size,
        "scale": fmt.scale.name,
        "tensor_scale": fmt.tensor_scale.name if fmt.tensor_scale else None,
        "zero_point": fmt.zero_point,
        "recipe": fmt.recipe,
        "recipe_rule": SCALE_RECIPES[fmt.recipe],
        "nonfinite": fmt.nonfinite,
        "max": decimal(largest),
        "smallest_positive": decimal(smallest),
    }
