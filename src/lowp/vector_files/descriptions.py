"""Formats as plain data, complete enough to build them again from a file."""

from __future__ import annotations

import dataclasses
from typing import Any

from lowp._errors import ArgumentError, unknown_name
from lowp.formats import LNS, Block, Codebook, Fixed, Float, Format, Integer, Packed, Posit, ScalarFormat, Takum
from lowp.formats.float_format import SPECIALS
from lowp.formats.packed import Field
from lowp.formats.text import code_hex, fields, special_codes

_FAMILIES: dict[str, Any] = {
    family.__name__: family for family in (Float, Integer, Fixed, Codebook, Posit, Takum, LNS, Block, Packed)
}
_READING = {
    "Float": "fields E and T, m = mantissa_bits: (1 + T/2^m) * 2^(E - bias), subnormals (E = 0) T/2^m * 2^(1 - bias)",
    "Integer": "two's complement if signed",
    "Fixed": "an integer, two's complement if signed, times 2^-fraction_bits",
    "Codebook": "code codes[i] stands for values[i]",
    "Posit": "Standard for Posit Arithmetic (2022), with es exponent bits; negative codes in two's complement",
    "Takum": "takum, linear or logarithmic; negative codes in two's complement",
    "LNS": "top bit sign, the others k in two's complement (or from 0): 2^(k / gamma); with zero, the least k is 0",
    "Block": "element * scale, or (element - zero_point) * scale; times the tensor scale if there is one",
    "Packed": "fields of unsigned integers, read by the scheme",
}


def describe_format(fmt: Format) -> dict[str, Any]:
    """Return a format's family and parameters, and what helps to read its codes.

    Example:
        >>> from lowp.formats import parse
        >>> data = describe_format(parse("float8_e4m3fn"))
        >>> data["family"], data["parameters"]["bias"], data["fields"], data["special_codes"]["nan"]
        ('Float', 7, ['sign:1', 'exponent:4', 'mantissa:3'], ['0x7f', '0xff'])
    """
    family = type(fmt).__name__
    if family not in _FAMILIES:
        raise ArgumentError(unknown_name("family", family, _FAMILIES))
    data: dict[str, Any] = {"name": fmt.name, "family": family, "bits": fmt.bits, "reading": _READING[family]}
    if isinstance(fmt, Float):
        data["reading"] += f"; {SPECIALS[fmt.specials]}"
    if isinstance(fmt, ScalarFormat):
        data["fields"] = [f"{name}:{width}" for name, width in fields(fmt)]
        data["special_codes"] = {
            name: [_run(run, fmt.bits) for run in runs] for name, runs in special_codes(fmt).items()
        }
    data["parameters"] = {f.name: _plain(getattr(fmt, f.name)) for f in dataclasses.fields(fmt)}  # type: ignore[arg-type]
    return data


def _run(run: range, bits: int) -> str:
    """Return a run of codes as its first and last one."""
    ends = dict.fromkeys(code_hex(code, bits) for code in (run[0], run[-1]))
    return "-".join(ends)


def _plain(value: Any) -> Any:
    """Return a parameter as JSON data; formats inside formats as their descriptions."""
    if isinstance(value, Format):
        return describe_format(value)
    if isinstance(value, Field):
        return dataclasses.asdict(value)
    if isinstance(value, tuple):
        return [_plain(x) for x in value]
    return value


def format_of(data: dict[str, Any]) -> Format:
    """Return the format of a description, by its family and parameters alone.

    Raises:
        ArgumentError: An unknown family.
        FormatError: Parameters that make no format.

    Example:
        >>> from lowp.formats import parse
        >>> format_of(describe_format(parse("mxfp4"))) == parse("mxfp4")
        True
    """
    family = data.get("family")
    if family not in _FAMILIES:
        raise ArgumentError(unknown_name("family", family, _FAMILIES))
    parameters = {name: _restored(value) for name, value in data["parameters"].items()}
    if family == "Packed":
        parameters["fields"] = tuple(Field(**field) for field in parameters["fields"])
    made: Format = _FAMILIES[family](**parameters)
    return made


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and "family" in value:
        return format_of(value)
    return tuple(_restored(x) for x in value) if isinstance(value, list) else value
