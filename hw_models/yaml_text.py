"""YAML text of dicts, lists, names and numbers: what other tools' files need, and no more."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError

#: Strings that need no quotes: they are neither numbers nor words to any YAML reader.
_PLAIN = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
_WORDS = {"y", "n", "yes", "no", "true", "false", "on", "off", "null", "nan", "inf"}


def yaml_text(data: Mapping[str, Any], comments: Iterable[str] = ()) -> str:
    """Return a mapping as YAML that every reader, of YAML 1.1 or 1.2, reads back as it was.

    Args:
        data: Names to mappings, lists, strings, numbers, booleans and None.
        comments: Lines of comment for the top.

    Raises:
        ArgumentTypeError: Something else is in it.
        ArgumentError: A number that is not finite.

    Example:
        >>> print(yaml_text({"name": "mac", "sizes": [8, 8], "ports": [{"cost": 1e-9}]}), end="")
        name: mac
        sizes: [8, 8]
        ports:
          - cost: 1.0e-09
    """
    lines = [f"# {''.join(c if c.isprintable() else ' ' for c in comment)}".rstrip() for comment in comments]
    return "\n".join([*lines, *_mapping(data, "")]) + "\n"


def _mapping(data: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in data.items():
        lines += _entry(f"{indent}{_scalar(key)}:", value, indent)
    return lines


def _entry(start: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, Mapping):
        return [start, *_mapping(value, indent + "  ")] if value else [f"{start} {{}}"]
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping | list | tuple) for item in value):
            return [start, *(line for item in value for line in _item(item, indent + "  "))]
        return [f"{start} [{', '.join(_scalar(item) for item in value)}]"]
    return [f"{start} {_scalar(value)}"]


def _item(item: Any, indent: str) -> list[str]:
    if not isinstance(item, Mapping) or not item:
        raise ArgumentTypeError(f"item={item!r} of a list must be a mapping that is not empty, as the others are.")
    lines = _mapping(item, indent + "  ")
    return [f"{indent}- {lines[0].lstrip()}", *lines[1:]]


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return _string(value)
    raise ArgumentTypeError(f"value={value!r} has no YAML here, being a {type(value).__name__}.")


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ArgumentError(f"value={value!r} must be finite.")
    digits, e, exponent = repr(value).partition("e")
    return f"{digits}{'' if '.' in digits or not e else '.0'}{e}{exponent}"  # YAML 1.1 wants the point


def _string(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escaped(c) for c in quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
