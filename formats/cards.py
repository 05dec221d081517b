"""Rows of the cards of ranked and packed formats."""

from __future__ import annotations

from typing import Any

from lowp.formats.logarithmic import LNS
from lowp.formats.packed import Field, Packed
from lowp.formats.posit import Posit
from lowp.formats.ranked import RankedFormat
from lowp.formats.spec import Format
from lowp.formats.takum import Takum

#: What packed formats make of NaN and infinity.
PACKED_NONFINITE = {
    "nan_scale": "everything that shares a scale with one becomes NaN",
    "error": "they raise RangeError, since no field can say NaN",
    "system": "they get the codes that the system's own code gives them, and may decode to numbers",
    "kept": "they are stored as they are",
}
#: Rules by scheme, or by the module of a scheme; "nan_scale" where neither is here.
_NONFINITE_BY_SCHEME = {"codebooks": "error", "ggml": "system", "ternary.stq1_0": "system", "lossless": "kept"}
#: Schemes that code their fields without loss when they are packed.
CODED_SCHEMES = ("lossless.dfloat11",)


def ranked_formula(fmt: RankedFormat) -> list[str]:
    """Return what a code is worth, and how it is rounded."""
    if isinstance(fmt, LNS):
        domain = "arithmetic" if fmt.linear else "geometric"
        return [f"(-1)^sign * 2^(logarithm / {fmt.gamma})", f"to nearest decides at the {domain} mean"]
    rounding = "to nearest decides at the codes of the format one bit wider; never to zero, never to NaR"
    if isinstance(fmt, Posit):
        step = 1 << fmt.es
        power = f"2^({step} * k + e)" if fmt.es else "2^k"
        return [
            f"{power} * (1 + f), k from the run of equal bits, {fmt.es} bits of e; negative: two's complement",
            rounding,
        ]
    assert isinstance(fmt, Takum)
    value = "sqrt(e)^(c + m)" if fmt.logarithmic else "2^c * (1 + m)"
    return [f"{value}, c from -255 to 254; negative: two's complement", rounding]


def packed_rows(fmt: Packed) -> list[tuple[str, str]]:
    """Return the rows of a packed format's card as (label, text)."""
    rows = [("block size", _size(fmt))]
    rows += [(f"field {field.name}", _stored(field)) for field in fmt.fields]
    rows += [(name.replace("_", " "), _option(value)) for name, value in fmt.options if value is not None]
    rows.append(("order of bytes", "block after block" if fmt.interleaved else "field after field"))
    rule = nonfinite_rule(fmt)
    rows.append(("NaN and infinity", f"{rule}: {PACKED_NONFINITE[rule]}"))
    bits = f"{fmt.bits_per_value:.10g}"
    if fmt.scheme in CODED_SCHEMES:
        bits += " before coding; what is stored depends on the values"
    elif any(not field.blocks for field in fmt.fields):
        bits += ", and what is stored per row or tensor"
    return [*rows, ("bits per value", bits)]


def packed_properties(fmt: Packed) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "bits_per_value": fmt.bits_per_value,
        "block_size": list(fmt.block_size) if isinstance(fmt.block_size, tuple) else fmt.block_size,
        "flat": fmt.flat,
        "fields": [{"name": f.name, "count": f.count, "bits": f.bits, "per": f.per} for f in fmt.fields],
        "options": {name: _option(value) for name, value in fmt.options if value is not None},
        "interleaved": fmt.interleaved,
        "nonfinite": nonfinite_rule(fmt),
    }


def nonfinite_rule(fmt: Packed) -> str:
    """Return which rule of `PACKED_NONFINITE` a packed format follows."""
    module = fmt.scheme.partition(".")[0]
    return _NONFINITE_BY_SCHEME.get(fmt.scheme) or _NONFINITE_BY_SCHEME.get(module, "nan_scale")


def _size(fmt: Packed) -> str:
    if isinstance(fmt.block_size, tuple):
        return f"{fmt.block_size[0]} x {fmt.block_size[1]} tile"
    return f"{fmt.block_size} " + ("of the flattened array" if fmt.flat else "along the axis")


def _stored(field: Field) -> str:
    return f"{field.count or 'a varying number'} of {field.bits} bit{'s' * (field.bits > 1)}, once per {field.per}"


def _option(value: Any) -> str:
    """Write a scheme's parameter as a person reads it."""
    if isinstance(value, Format):
        return value.name
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_option, value)) if isinstance(value, tuple) else str(value)
